"What the lessons have from elsewhere: practice copies equal to their source, and one setup cell that works anywhere."
import importlib.util, json, sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.inputtransformer2 import TransformerManager

top = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(top/'tools'))
import lessons as tool  # noqa: E402


def cells_of(path, kind):
    return [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type']==kind]


def text_of(cell): return ''.join(cell['source'])


@pytest.mark.parametrize('path', list(tool.files()), ids=lambda p: f'{p.parent.name}/{p.name}')
def test_it_is_what_its_source_gives(path):
    have,want = json.loads(path.read_text(encoding='utf-8')), json.loads(tool.files()[path])
    assert have==want, 'run: python tools/lessons.py'


@pytest.mark.parametrize('name', tool.names)
def test_a_practice_copy_has_the_code_and_no_prose(name):
    lesson,copy = tool.lessons/f'{name}.ipynb', tool.practice/f'{name}.ipynb'
    code = [text_of(c) for c in cells_of(lesson, 'code') if not text_of(c).startswith('#| hide')]
    assert [text_of(c) for c in cells_of(copy, 'code')]==code and len(code)>15
    assert sum(bool(c['outputs']) for c in cells_of(copy, 'code'))==1   # what stands where the form will be
    first,*rest = cells_of(copy, 'markdown')
    assert f'_practice/{name}.ipynb' in text_of(first)
    prose = [line for c in rest if 'Questionnaire' not in text_of(c) for line in c['source'] if line.strip()]
    assert len(prose)>5 and all(line.startswith('#') for line in prose)
    assert copy.stat().st_size<40_000


def test_a_comment_in_a_block_of_code_is_no_heading():
    assert tool.headings('# One\ntext\n```\n# a comment\n```\n## Two #2\n') == ['# One', '## Two #2']


def test_every_lesson_has_it():
    assert tool.names==sorted(p.stem for p in tool.lessons.glob('*.ipynb'))
    first = {text_of(cells_of(tool.lessons/f'{n}.ipynb', 'code')[0]) for n in tool.names}
    assert first=={tool.setup_text()}


def run_setup(monkeypatch, found):
    "What the setup cell asks pip for; `found` answers, one after the other, whether bearclass is there."
    asked,answers = [], iter(found)
    shell = SimpleNamespace(run_line_magic=lambda magic, line: asked.append(f'%{magic} {line}'))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: next(answers))
    exec(TransformerManager().transform_cell(tool.setup_text()), dict(get_ipython=lambda: shell))
    return asked


def test_setup_does_nothing_where_nothing_is_needed(monkeypatch, capsys):
    assert run_setup(monkeypatch, [True])==[] and capsys.readouterr().out==''


def test_setup_installs_where_it_is_missing(monkeypatch, capsys):
    s = tool.settings()
    assert run_setup(monkeypatch, [None, True])==[f"%pip install -q git+https://github.com/{s['user']}/{s['repo']}"]
    assert capsys.readouterr().out==''


def test_setup_says_what_to_do_without_a_network(monkeypatch, capsys):
    run_setup(monkeypatch, [None, None])
    said = capsys.readouterr().out
    assert 'Kaggle' in said and '--no-index' in said
