"The questionnaires: every question can be answered and its answers are accepted, wrong functions get a fitting hint."
import json, re, subprocess, sys
from pathlib import Path

import numpy as np
import pytest

from bearclass import quiz as module
from bearclass.chance import wilson_interval
from bearclass.core import InputError
from bearclass.quiz import grade, graders, quiz, read_progress

top = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(top/'tools'))
import lessons as tool  # noqa: E402


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch): monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))


def function_of(source):
    "The function that a line of Python defines."
    made = {}
    exec(source, made)
    return made[source.split('(')[0].removeprefix('def ')]


def test_the_package_has_the_questions_of_the_repository():
    assert (top/'bearclass/static/quiz.json').read_text(encoding='utf-8')==tool.quiz_text(), 'python tools/lessons.py'


@pytest.mark.parametrize('name', tool.names)
def test_every_answer_is_accepted(name):
    asked,found = tool.questions(name), quiz(name)
    assert 10<=len(asked)<=25 and [q.text for q in found.questions]==[q['text'] for q in asked]
    for n,q in enumerate(asked, 1):
        assert q['hint'] or q['code'], q
        assert not q['options'] or (len(q['options'])==4 and len(q['accepted'])==1), q
        for good in q['accepted']:
            given = function_of(good) if q['code'] else good
            verdict = found.answer(n, given)
            assert verdict.right, (q['text'], verdict)
        for wrong in 'ABCD'[:len(q['options'])].replace(q['accepted'][0], ''):
            assert module.hint_for(found.ask(n), wrong)==q['hint']
    assert found.score()==f'{len(asked)} of {len(asked)}'
    letters = [q['accepted'][0] for q in asked if q['options']]
    assert max(map(letters.count, letters))<.8*len(letters), 'always the same letter would do'


@pytest.mark.parametrize('name', tool.names)
def test_no_hint_gives_a_typed_answer_away(name):
    for q in tool.questions(name):
        if q['options'] or q['code'] or q['within'] is not None: continue
        words = module.plain_words(q['hint']).split()
        assert not [a for a in q['accepted'] if len(a)>3 and a.lower() in words], q


def test_answers_are_not_read_at_a_glance():
    text = (top/'bearclass/static/quiz.json').read_text(encoding='utf-8')
    assert 'null hypothesis' not in text and 'hint' not in text and '7861' not in text


wald = lambda k, n: (k/n-1.96*(k/n*(1-k/n)/n)**.5, k/n+1.96*(k/n*(1-k/n)/n)**.5)
wrong_ones = [
    ('label_of', lambda name: name.split('_')[0], 'cut at the last underscore'),
    ('label_of', lambda name: name[:-4], 'cut off the number'),
    ('label_of', lambda name: None, 'return'),
    ('baseline_error', lambda labels: 1-1/len(set(labels)), 'the share of the others'),
    ('baseline_error', lambda labels: len(labels)-max(map(labels.count, labels)), 'the share of the others'),
    ('interval', wald, 'the upper end is not 0'),
    ('interval', lambda k, n: (0, 1), '100% did'),
    ('interval', lambda k, n: wilson_interval(k, n, z=1), 'about 95 in 100'),
    ('interval', lambda k, n: (.06, .2), 'lies inside'),
    ('my_mse', lambda p, t: ((p-t)**2).sum(), 'no sum'),
    ('my_mse', lambda p, t: ((p-t)**2).mean()**.5, 'counts as 9'),
    ('my_mse', lambda p, t: ((p-t)**2).mean(0), 'over all axes'),
    ('my_step', lambda w, g, lr: w+lr*g, 'against the slope'),
    ('my_step', lambda w, g, lr: w-g, 'learning rate times'),
    ('my_share', lambda s, o: (s<=o).mean(), 'either direction'),
    ('my_share', lambda s, o: (abs(s)>abs(o)).mean(), 'just as steep'),
    ('my_share', lambda s, o: (abs(s)>=o).sum(), 'Give a share'),
    ('my_share', lambda s: 1, 'TypeError'),
]


@pytest.mark.parametrize('name,f,hint', wrong_ones, ids=[f'{n}-{i}' for i,(n,*_) in enumerate(wrong_ones)])
def test_typical_mistakes_get_a_fitting_hint(name, f, hint): assert hint in grade(name, f)


def test_other_ways_to_be_right():
    assert not grade('interval', wilson_interval)
    assert not grade('label_of', lambda name: re.match(r'(.+)_\d+\.jpg$', name)[1])
    assert not grade('my_mse', lambda p, t: np.mean(np.square(np.subtract(p, t))))
    def in_place(w, grad, lr):
        w -= lr*grad
        return w
    assert not grade('my_step', in_place)
    assert {n for n,*_ in wrong_ones}==set(graders)


def test_a_hint_first_and_the_answer_after_three_tries():
    q = quiz('05_reading')
    said = [q.answer(6, f'guess {n}').text for n in range(3)]
    assert ['hypothesis' in s for s in said]==[False, False, True] and all(s.startswith('Not yet.') for s in said)
    assert q.answer(6, ' the NULL-hypothesis. ').right and q.score()=='1 of 23'
    assert q.answer(1, '?').text=='The answer: B. how many people one infected person infects'
    with pytest.raises(InputError, match='a number'): q.answer(2, 'one')
    assert q.questions[1].key not in read_progress()   # no number is no try


def test_where_nothing_can_be_kept_the_verdict_says_so(tmp_path):
    (tmp_path/'cache').write_text('a file, where the folder should be')
    verdict = quiz('01').answer(7, 'A')
    assert verdict.right and 'Not kept' in verdict.text


def test_without_ipywidgets_it_is_text(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    shown = quiz('03')._repr_mimebundle_()
    assert list(shown)==['text/plain'] and ".answer(1, 'B')" in shown['text/plain']


def test_the_form_takes_functions_from_the_notebook():
    "With both kinds of answer, as a learner's clicks would give them."
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    try:
        q = quiz('04')
        one = q.widget.children[21]
        check,show = one.children[2].children
        check.click()
        assert 'is not there' in one.children[3].value
        shell.user_ns['my_mse'] = lambda p, t: ((p-t)**2).mean()
        check.click()
        assert 'Right.' in one.children[3].value and '<b>1 of 22' in q.widget.children[0].value
        assert 'Right.' in q.widget.children[21].children[3].value   # a new form knows it
    finally: InteractiveShell.clear_instance()


def test_it_needs_nothing_heavy():
    code = "import sys, bearclass.quiz; print({'torch', 'fastai', 'ipywidgets', 'IPython'} & set(sys.modules))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()=='set()'


def test_a_lesson_shows_it_where_nothing_runs():
    for name in tool.names:
        cells = json.loads((top/f'nbs/lessons/{name}.ipynb').read_text(encoding='utf-8'))['cells']
        cell = next(c for c in cells if f"quiz('{name}')" in ''.join(c['source']))
        assert quiz(name).as_html() in ''.join(cell['outputs'][0]['data']['text/html']), 'python tools/lessons.py'
