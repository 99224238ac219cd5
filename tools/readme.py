"""Write `README.md` from `nbs/index.ipynb`: its prose, its code, and the outputs saved in it.

    python tools/readme.py
"""
import json, re
from configparser import ConfigParser
from pathlib import Path

top = Path(__file__).resolve().parent.parent
index = top/'nbs/index.ipynb'


def settings():
    "The metadata, from where it lives."
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(top/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def from_here(text):
    "Links and pictures that are relative to `nbs/` become relative to the top."
    return re.sub(r'(\]\(|src=")(?!https?:|#|/)(\.\./)?', lambda m: m[1] + ('' if m[2] else 'nbs/'), text)


def output_text(out):
    "An output as Markdown; pictures in the index are files, so that the README can show them."
    if out['output_type']=='stream': return fenced(''.join(out['text']))
    data = out.get('data', {})
    if 'text/plain' in data: return fenced(''.join(data['text/plain']))
    return ''


def fenced(text): return '\n'.join('    '+l for l in text.rstrip().split('\n'))+'\n'


def cell_text(cell):
    "A cell as Markdown; hidden cells vanish."
    src = ''.join(cell['source'])
    if cell['cell_type']=='markdown': return from_here(src)
    if src.startswith('#| hide'): return ''
    code = '\n'.join(l for l in src.split('\n') if not l.startswith('#|'))
    outs = [output_text(o) for o in cell['outputs']]
    return '\n\n'.join([f'```python\n{code.strip()}\n```', *filter(None, outs)])


def make_readme():
    "The README as text."
    cells = json.loads(index.read_text(encoding='utf-8'))['cells']
    body = '\n\n'.join(filter(None, map(cell_text, cells)))
    return f'<!-- Written by tools/readme.py from nbs/index.ipynb: edit that. -->\n\n{body.strip()}\n'


if __name__=='__main__':
    (top/'README.md').write_text(make_readme(), encoding='utf-8')
