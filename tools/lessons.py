"""Write what the lessons have from elsewhere: the setup cell, the questionnaire with its answers, practice copies.

    python tools/lessons.py

The setup cell names the repository of `settings.ini`. Questions stand in `tools/questions/NAME.md`: `## ` a question;
then the options of a choice, `- ` wrong and `+ ` right, or `= ` what is accepted, with `|` between spellings, or
`= 64 ~ 1`, a number and how far it may be off; or `code: ` the function to write, which `bearclass.quiz` grades, with
one that is right; and a `hint: `.
"""
import base64, copy, hashlib, json, re, zlib
from pathlib import Path

from readme import settings

top = Path(__file__).resolve().parent.parent
lessons = top/'nbs/lessons'
practice = lessons/'_practice'
names = sorted(p.stem for p in (top/'tools/questions').glob('*.md'))


# ## Questions

def parse_question(text):
    "One question of a file as a dictionary."
    lines = text.strip().split('\n')
    q = dict(text=lines[0], options=[], code='', accepted=[], within=None, hint='')
    for line in lines[1:]:
        mark,rest = re.fullmatch(r'([-+=]|hint:|code:) (.+)', line).groups()
        if mark in '-+':
            if mark=='+': q['accepted'].append('ABCDEF'[len(q['options'])])
            q['options'].append(rest)
        elif mark=='=': q['accepted'] = [rest]
        else: q[mark[:-1]] = rest
    if q['accepted'] and not (q['options'] or q['code']):
        number,_,within = q['accepted'][0].partition(' ~ ')
        if within: q['accepted'],q['within'] = [number],float(within)
        else: q['accepted'] = number.split(' | ')
    return q


def questions(name):
    text = (top/'tools/questions'/f'{name}.md').read_text(encoding='utf-8')
    return [parse_question(t) for t in re.split(r'^## ', text, flags=re.M)[1:]]


def sealed(q):
    "The question as the package has it: what is accepted and the hint cannot be read at a glance."
    inside = json.dumps([q['accepted'], q['within'], q['hint']], ensure_ascii=False).encode()
    key = hashlib.sha256(q['text'].encode()).hexdigest()[:8]
    return dict(key=key, text=q['text'], options=q['options'], code=q['code'],
                sealed=base64.b64encode(zlib.compress(inside, 9)).decode())


def quiz_text():
    "`bearclass/static/quiz.json`: the questions of each lesson, one a line."
    lists = [',\n'.join(json.dumps(sealed(q), ensure_ascii=False) for q in questions(name)) for name in names]
    return '{\n'+',\n'.join(f'"{name}": [\n{rows}]' for name,rows in zip(names, lists))+'\n}\n'


def later(name):
    return f'A day later, the [practice copy](_practice/{name}.ipynb) has the same code and questions, and no prose.'


def questionnaire(name):
    "The questions as Markdown, for whoever reads."
    first = 'On paper, or in the cell below, which answers back: with a hint, and after three tries with the answer.'
    out = ['## Questionnaire', '', first, '', later(name), '']
    for n,q in enumerate(questions(name), 1):
        out.append(f"{n}. {q['text']}")
        out += [f'    - {letter}. {o}' for letter,o in zip('ABCDEF', q['options'])]
    return '\n'.join(out)


# ## Cells

def as_lines(text): return text.splitlines(keepends=True)


def code_cell(id, text, outputs=()):
    return dict(
        cell_type='code', execution_count=None, id=id, metadata={}, outputs=list(outputs), source=as_lines(text))


def setup_text():
    "One cell for Colab, Kaggle, VS Code and Jupyter; it does nothing where bearclass is installed."
    s = settings()
    return f'''# Installs bearclass where it is missing, as on Colab and Kaggle, in a minute; elsewhere it does nothing.
import importlib.util
if not importlib.util.find_spec('bearclass'):
    %pip install -q git+https://github.com/{s['user']}/{s['repo']}
    importlib.invalidate_caches()
    if not importlib.util.find_spec('bearclass'):
        print('bearclass could not be installed. On Kaggle, switch "Internet" on in the settings, '
              'and run this again. Without a network, take it from a folder of wheels: '
              '%pip install --no-index --find-links FOLDER bearclass')'''


def quiz_cell(name):
    from bearclass.quiz import quiz
    shown = {'text/html': [quiz(name).as_html()], 'text/plain': [f'quiz({name!r})']}
    out = dict(output_type='execute_result', execution_count=None, metadata={}, data=shown)
    return code_cell('9012a'+name[:2]+'0', f"from bearclass.quiz import quiz\nquiz('{name}')", [out])


def lesson_text(name):
    "The lesson with its setup cell and its questionnaire as they should be, as JSON."
    nb = json.loads((lessons/f'{name}.ipynb').read_text(encoding='utf-8'))
    cells = nb['cells']
    starts = lambda c, text: ''.join(c['source']).startswith(text)
    at = next(i for i,c in enumerate(cells) if starts(c, '## Questionnaire'))
    cells[at]['source'] = as_lines(questionnaire(name))
    cells[at+1] = quiz_cell(name)
    at = next(i for i,c in enumerate(cells) if c['cell_type']=='code')
    cells[at] = code_cell(cells[at]['id'], setup_text())
    return as_json(nb)


def as_json(nb): return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)+'\n'


# ## Practice copies

def headings(text):
    "The lines of a page that are headings; a `#` inside a block of code is none."
    return re.findall(r'^#+ .*', re.sub(r'^```.*?^```', '', text, flags=re.M|re.S), flags=re.M)


def practised(cell):
    "A cell of a lesson as its practice copy has it, or None: headings, code, questions; no prose, outputs or checks."
    cell,text = copy.deepcopy(cell),''.join(cell['source'])
    if cell['cell_type']=='code':
        if text.startswith('#| hide'): return None
        if not text.startswith('from bearclass.quiz'): cell['outputs'] = []
        return cell
    if not text.startswith('## Questionnaire'): cell['source'] = as_lines('\n\n'.join(headings(text)))
    return cell if cell['source'] else None


def practice_text(name):
    "The practice copy of a lesson, as JSON."
    nb = json.loads(lesson_text(name))
    text = '\n'.join(''.join(c['source']) for c in nb['cells'][:2])
    badge = re.search(r'^\[!\[Open In Colab\].*', text, flags=re.M)[0].replace('/lessons/', '/lessons/_practice/')
    title = headings(text)[0]
    first = (f'{title}: practice copy\n\n{badge}\n\nSay of each cell what it does and what it will show, then run it. '
             f'The lesson with its text and pictures is [here](../{name}.ipynb).')
    nb['cells'] = [c for c in map(practised, nb['cells']) if c]
    for c in nb['cells']: c['source'] = as_lines(''.join(c['source']).replace(later(name)+'\n\n', ''))
    nb['cells'][0]['source'] = as_lines(first)
    return as_json(nb)


def files():
    "{path: text} of the lessons and their copies."
    out = {lessons/f'{n}.ipynb': lesson_text(n) for n in names}
    return out | {practice/f'{n}.ipynb': practice_text(n) for n in names}


def main():
    practice.mkdir(exist_ok=True)
    (top/'bearclass/static/quiz.json').write_text(quiz_text(), encoding='utf-8')
    for path,text in files().items(): path.write_text(text, encoding='utf-8')


if __name__=='__main__': main()
