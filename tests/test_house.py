"The house as a whole: which room may import which, what importing costs, and that what is written once is the same everywhere."
import ast, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest

top = Path(__file__).resolve().parent.parent
package = top/'bearclass'

# room -> rooms it may import from; `hall` is what stands directly in the package
arrows = dict(hall={'hall'}, gather={'hall', 'gather'}, learn={'hall', 'gather', 'learn'}, ship={'hall', 'ship'}, scratch={'hall', 'gather', 'scratch'})
more = {'ship/bundle.py': {'learn', 'gather'}, 'all.py': set(arrows), 'cli.py': set(arrows)}


def imports_of(path):
    "Full names of the modules that a file imports, wherever in it; nbdev writes our own as relative ones."
    here = ('bearclass', *path.relative_to(package).parts)
    for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        if isinstance(n, ast.ImportFrom):
            base = '.'.join(here[:len(here)-n.level]) if n.level else ''
            yield '.'.join(filter(None, (base, n.module)))


def room_of(module):
    "`bearclass.learn.train` -> `learn`; `bearclass.core` -> `hall`."
    parts = module.split('.')
    return parts[1] if len(parts)>1 and parts[1] in arrows else 'hall'


modules = sorted(f.relative_to(package).as_posix() for f in package.rglob('*.py') if f.name!='__init__.py')


@pytest.mark.parametrize('name', modules)
def test_imports_follow_the_arrows(name):
    room = name.split('/')[0] if '/' in name else 'hall'
    may = arrows[room] | more.get(name, set())
    turned = [m for m in imports_of(package/name) if m.startswith('bearclass') and room_of(m) not in may]
    assert not turned, f'{name} of room {room} imports {turned}'


def test_the_arrows_can_be_seen():
    "The test above reads relative imports right."
    assert 'bearclass.learn.blocks' in set(imports_of(package/'learn/train.py'))
    assert 'bearclass.core' in set(imports_of(package/'learn/train.py'))


def test_only_all_uses_star_imports():
    for name in modules:
        stars = [n for n in ast.walk(ast.parse((package/name).read_text(encoding='utf-8'))) if isinstance(n, ast.ImportFrom) and n.names[0].name=='*']
        assert not stars or name=='all.py', f'{name} uses a star import'


heavy = {'torch', 'torchvision', 'fastai', 'timm'}


@pytest.mark.parametrize('name', [m for m in modules if m.startswith(('core', 'moves', 'images', 'gather/', 'ship/', 'cli'))] + [f'learn/{m}.py' for m in 'splits holdout interpret not_photos decisions apply clean_page many_hands'.split()])
def test_light_modules_import_nothing_heavy(name):
    module = 'bearclass.'+name[:-3].replace('/', '.')
    code = f'import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[]'


def test_moves_stands_beside_core():
    "All rooms use it, so it leans on nothing but the errors and the fingerprints."
    assert [m for m in imports_of(package/'moves.py') if m.startswith('bearclass')]==['bearclass.core']


def test_scratch_needs_no_fastai():
    for name in modules:
        if name.startswith('scratch/'): assert not [m for m in imports_of(package/name) if m.split('.')[0]=='fastai'], name


def test_import_is_cheap():
    "What `import bearclass` brings along: the package itself and nothing else that Python had not loaded already."
    code = 'import sys; before = set(sys.modules); import bearclass; print(sorted(set(sys.modules)-before))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=="['bearclass']"


def settings():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(top/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def test_one_version():
    import bearclass
    assert bearclass.__version__==settings()['version']
    assert f"## {settings()['version']}" in (top/'CHANGELOG.md').read_text(encoding='utf-8')


notebooks = sorted(p for p in (top/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.relative_to(top/'nbs').as_posix())
def test_notebooks_are_clean(path):
    "No saved errors, no paths of somebody's machine, no execution counts, no widget state."
    nb = json.loads(path.read_text(encoding='utf-8'))
    assert 'widgets' not in nb['metadata']
    for c in nb['cells']:
        if c['cell_type']!='code': continue
        assert c['execution_count'] is None
        assert not [o for o in c['outputs'] if o['output_type']=='error'], ''.join(c['source'])
        shown = json.dumps([{k: v for k,v in o.get('data', {}).items() if not k.startswith('image/')} or o.get('text', '') for o in c['outputs']])
        assert not re.search(r'/(home|Users|root|tmp|work)/|site-packages', shown), ''.join(c['source'])
    assert path.stat().st_size<1_500_000, 'draw its pictures smaller'


lessons = sorted((top/'nbs/lessons').glob('*.ipynb'))


@pytest.mark.parametrize('path', lessons, ids=lambda p: p.name)
def test_colab_badge_leads_to_this_lesson(path):
    s = settings()
    want = f"https://colab.research.google.com/github/{s['user']}/{s['repo']}/blob/{s['branch']}/nbs/lessons/{path.name}"
    text = path.read_text(encoding='utf-8')
    assert want in text and f"git+https://github.com/{s['user']}/{s['repo']}" in text


def test_names_that_learners_know():
    "The contract: these are there after `from bearclass.all import *`, and ours where ours is better."
    code = ('from bearclass.all import *\n'
            'for n in "draw_bears untar_data URLs get_image_files verify_images check_images DataBlock ImageBlock CategoryBlock parent_label Resize '
            'aug_transforms vision_learner image_learner image_block from_folder ClassificationInterpretation export_bundle Predictor classifier_app L Path".split():\n'
            '    assert n in globals(), n\n'
            'assert get_image_files.__module__.startswith("bearclass") and verify_images.__module__.startswith("bearclass")')
    subprocess.run([sys.executable, '-c', code], check=True)
