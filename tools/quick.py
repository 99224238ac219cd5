"""Run the pages and tests that need no torch: what can be known in a few minutes.

    python tools/quick.py

Light is what names no torch and no fastai itself, and leans on no module of ours that cannot be imported without them.
"""
import ast, json, subprocess, sys
from functools import lru_cache
from pathlib import Path

top = Path(__file__).resolve().parent.parent
heavy = {'torch', 'torchvision', 'fastai', 'timm'}


def code_of(path):
    "The Python of a module, test or notebook; lines for the shell are left out."
    text = path.read_text(encoding='utf-8')
    if path.suffix!='.ipynb': return text
    cells = [''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type']=='code']
    shell = lambda line: line.lstrip().startswith(('%', '!', '?'))
    lines = (line for c in cells for line in c.split('\n'))
    return '\n'.join('pass' if shell(line) and not line.startswith(' ') else line for line in lines)


def imported(path, at_once=False):
    "Full names of all that a file imports; `at_once`: when it is imported itself, not later inside a function."
    package = path.relative_to(top).parts[:-1]
    tree = ast.parse(code_of(path))
    for n in tree.body if at_once else ast.walk(tree):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        if not isinstance(n, ast.ImportFrom): continue
        base = '.'.join(package[:len(package)+1-n.level]) if n.level else ''
        module = '.'.join(filter(None, (base, n.module)))
        yield module
        yield from (f'{module}.{a.name}' for a in n.names)   # `from bearclass.gather import search`


@lru_cache(None)
def is_light(path, at_once=False):
    for name in imported(path, at_once):
        if name.split('.')[0] in heavy: return False
        ours = top/(name.replace('.', '/')+'.py')
        if name.startswith('bearclass.') and ours.exists() and not is_light(ours, at_once=True): return False
    return True


def light(files):
    "Those that can be read as Python and are light."
    for f in files:
        try: fine = is_light(f)
        except SyntaxError: continue   # a lesson with lines for the shell inside a block
        if fine and '.ipynb_checkpoints' not in f.parts: yield f


def main():
    pages = list(light(sorted((top/'nbs').rglob('*.ipynb'))))
    tests = list(light(sorted((top/'tests').glob('test_*.py'))))
    print(f'{len(pages)} pages and {len(tests)} files of tests need no torch.', flush=True)
    names = '|'.join(f.relative_to(top/'nbs').as_posix() for f in pages)
    nb = subprocess.run(['nbdev-test', '--n-workers', '2', '--path-re', f'/nbs/({names})$'], cwd=top)
    lane = ['-n', '2', '--dist', 'loadfile', '-q', '-m', 'not browser and not slow']
    py = subprocess.run([sys.executable, '-m', 'pytest', *lane, *tests], cwd=top)
    sys.exit(nb.returncode or py.returncode)


if __name__=='__main__': main()
