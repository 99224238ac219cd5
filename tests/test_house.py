"The house as a whole: which room may import which, what importing costs, and what stands in one place only."
import ast, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest

top = Path(__file__).resolve().parent.parent
package = top/'bearclass'

# room -> rooms it may import from; `hall` is what stands directly in the package
arrows = dict(
    hall={'hall'},
    samples={'hall', 'samples'},
    gather={'hall', 'samples', 'gather'},
    learn={'hall', 'samples', 'gather', 'learn'},
    clean={'hall', 'gather', 'learn', 'clean'},
    ship={'hall', 'ship'},
    scratch={'hall', 'samples', 'scratch'},
)
more = {'ship/bundle.py': {'learn', 'gather'}, 'ship/rollout.py': {'learn'},
        'ship/api.py': {'gather'}, 'ship/page.py': {'gather'},
        'classroom.py': {'gather'}, 'receipt.py': {'gather', 'learn', 'ship'},
        'all.py': set(arrows), 'cli.py': set(arrows)}


modules = sorted(f.relative_to(package).as_posix() for f in package.rglob('*.py') if f.name!='__init__.py')
trees = {name: ast.parse((package/name).read_text(encoding='utf-8')) for name in modules}


def nodes(name, *kinds): return [n for n in ast.walk(trees[name]) if isinstance(n, kinds)]


def imports_of(name):
    "Full names of the modules that one imports, wherever in it; nbdev writes our own as relative ones."
    here = ['bearclass', *name.split('/')]
    for n in nodes(name, ast.Import): yield from (a.name for a in n.names)
    for n in nodes(name, ast.ImportFrom):
        base = here[:len(here)-n.level] if n.level else []
        yield '.'.join([*base, n.module] if n.module else base)


def room_of(module):
    "`bearclass.learn.train` -> `learn`; `bearclass.core` -> `hall`."
    parts = module.split('.')
    return parts[1] if len(parts)>1 and parts[1] in arrows else 'hall'


@pytest.mark.parametrize('name', modules)
def test_imports_follow_the_arrows(name):
    room = name.split('/')[0] if '/' in name else 'hall'
    may = arrows[room] | more.get(name, set())
    turned = [m for m in imports_of(name) if m.startswith('bearclass') and room_of(m) not in may]
    assert not turned, f'{name} of room {room} imports {turned}'


def test_the_arrows_can_be_seen():
    "The test above reads relative imports right."
    assert {'bearclass.learn.blocks', 'bearclass.core'} <= set(imports_of('learn/train.py'))


def test_only_all_uses_star_imports():
    stars = {name for name in modules for n in nodes(name, ast.ImportFrom) if n.names[0].name=='*'}
    assert stars=={'all.py'}


heavy = {'torch', 'torchvision', 'fastai', 'timm'}


light_rooms = 'core', 'heal', 'moves', 'images', 'dataset', 'manifest', 'chance', 'samples/', 'gather/', 'ship/', 'cli'
light = [m for m in modules if m.startswith(light_rooms)]
light += [f'learn/{m}.py' for m in 'splits holdout interpret not_photos'.split()]
light += [f'clean/{m}.py' for m in 'decisions apply page votes merging'.split()]


def test_light_modules_import_nothing_heavy():
    "One process takes them one after the other, and the first that brings something heavy is named."
    names = ['bearclass.'+m[:-3].replace('/', '.') for m in light]
    code = (f'import importlib, sys\n'
            f'for name in {names}:\n'
            f'    importlib.import_module(name)\n'
            f'    brought = {heavy!r} & set(sys.modules)\n'
            f'    assert not brought, (name, brought)')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_moves_stands_beside_core():
    "All rooms use it, so it leans on nothing but the errors and the fingerprints."
    assert [m for m in imports_of('moves.py') if m.startswith('bearclass')]==['bearclass.core']


def test_scratch_needs_no_fastai():
    for name in modules:
        assert not name.startswith('scratch/') or 'fastai' not in {m.split('.')[0] for m in imports_of(name)}, name


def test_import_is_cheap():
    "What `import bearclass` brings along: the package itself and nothing else that Python had not loaded already."
    code = 'import sys; before = set(sys.modules); import bearclass; print(sorted(set(sys.modules)-before))'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip()=="['bearclass']"


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
        shown = json.dumps(
            [
                {k: v for k,v in o.get('data', {}).items() if not k.startswith('image/')} or o.get('text', '')
                for o in c['outputs']])
        assert not re.search(r'/(home|Users|root|tmp|work)/|site-packages', shown), ''.join(c['source'])
    assert path.stat().st_size<1_500_000, 'draw its pictures smaller'


lessons = sorted((top/'nbs/lessons').glob('*.ipynb'))


@pytest.mark.parametrize('path', lessons, ids=lambda p: p.name)
def test_colab_badge_leads_to_this_lesson(path):
    s = settings()
    repo = f"{s['user']}/{s['repo']}"
    want = f"https://colab.research.google.com/github/{repo}/blob/{s['branch']}/nbs/lessons/{path.name}"
    text = path.read_text(encoding='utf-8')
    assert want in text and f"git+https://github.com/{s['user']}/{s['repo']}" in text


def test_no_name_crosses_a_border_in_private():
    "A name with an underscore belongs to its module: no module imports one of another."
    crossing = [
        f'{name}: {a.name} of {n.module}'
        for name in modules
        for n in nodes(name, ast.ImportFrom) if n.level or n.module.startswith('bearclass')
        for a in n.names if a.name.startswith('_') and not a.name.startswith('__')]
    assert not crossing, crossing


def test_no_public_name_is_defined_twice():
    "One name, one meaning: a reader who knows it from one page is right on every other."
    homes = {}
    for name in modules:
        for n in trees[name].body:
            if not isinstance(n, (ast.FunctionDef, ast.ClassDef)) or n.name.startswith('_'): continue
            if not any('patch' in ast.dump(d) for d in n.decorator_list): homes.setdefault(n.name, []).append(name)
    twice = {k: v for k,v in homes.items() if len(v)>1}
    assert not twice, twice


@pytest.mark.parametrize('name', modules)
def test_no_module_reaches_into_anothers_objects(name):
    "Underscore attributes are read of `self`, `cls` and what the module itself calls so."
    attributes = nodes(name, ast.Attribute)
    own = {n.attr for n in attributes if isinstance(n.ctx, ast.Store)}
    own |= {n.name for n in nodes(name, ast.FunctionDef, ast.ClassDef)}
    foreign = [n for n in attributes if not (isinstance(n.value, ast.Name) and n.value.id in ('self', 'cls'))]
    found = {n.attr for n in foreign if n.attr.startswith('_') and not n.attr.startswith('__')} - own
    found -= {'_replace', '_asdict', '_fields'}   # public in named tuples, as their documentation says
    assert found<=libraries_private.get(name, set()), f'{name} reads {found}'


# what a library gives no public way to; the reason stands beside the line that uses it
libraries_private = {
    'learn/launch.py': {'_exit'},
    'learn/safety.py': {'_BatchNorm', '_DataLoader__idxs', '_enabled', '_grab_cbs'},
}


def links_of(path):
    "Relative links and pictures of a page, without their anchors."
    text = path.read_text(encoding='utf-8')
    if path.suffix=='.ipynb':
        text = '\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type']=='markdown')
    text = re.sub(r'```.*?```', '', text, flags=re.S)
    for link in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', text):
        link = ''.join(link).split('#')[0]
        if link and not re.match(r'[a-z]+:|attachment:', link): yield link


@pytest.mark.parametrize('path', [*notebooks, *sorted(top.glob('*.md'))], ids=lambda p: p.relative_to(top).as_posix())
def test_no_link_is_dead(path):
    dead = [link for link in links_of(path) if not (path.parent/link).exists()]
    assert not dead, dead


def test_every_word_leads_to_the_cell_that_shows_it():
    "The cell has the word, and it or a neighbour is code."
    words,lost = top/'nbs/guide/14_words.ipynb',[]
    cells_of = lambda page: json.loads((words.parent/page).read_text(encoding='utf-8'))['cells']
    text = '\n'.join(''.join(c['source']) for c in cells_of(words.name))
    found = re.findall(r'^\| \[(.+?)\]\((.+?)#cell-id=(\w+)\) \|', text, flags=re.M)
    assert len(found)>80 and len(found)==len(re.findall(r'^\| \[', text, flags=re.M))
    for word,page,cell in found:
        cells = cells_of(page)
        at = next((i for i,c in enumerate(cells) if c['id']==cell), None)
        shows = at is not None and any(c['cell_type']=='code' for c in cells[max(at-1, 0):at+2])
        if not shows or word.lower() not in re.sub('[*`]', '', ''.join(cells[at]['source'])).lower():
            lost.append(f'{word}: no cell {cell} in {page} that has it')
    assert not lost, lost
