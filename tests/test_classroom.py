"A class without a network: prepared once, started from wheels alone with the network refused, not twice, not half."
import ensurepip, os, re, shutil, subprocess, sys
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from bearclass.classroom import prepare_class
from bearclass.cli import main

top = Path(__file__).resolve().parent.parent


def empty_wheel(folder, pin, **files):
    "A wheel that only says that a package is there, and holds `files`."
    name,_,version = pin.partition('==')
    name = name.replace('-', '_')
    info = f'{name}-{version}.dist-info'
    files |= {f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
              f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'}
    with ZipFile(folder/f'{name}-{version}-py3-none-any.whl', 'w') as z:
        for n,text in {**files, f'{info}/RECORD': ''}.items(): z.writestr(n, text)


def fake_download(packages, folder, system):
    "pip itself, and of what bearclass asks for empty wheels of these versions; one leads to the real packages."
    import numpy
    direct = {Requirement(r).name.lower().replace('_', '-') for r in distribution('bearclass').requires}
    shutil.copy(next((Path(ensurepip.__file__).parent/'_bundled').glob('pip-*.whl')), folder)
    for pin in packages:
        if pin.split('==')[0] in direct-{'numpy'}: empty_wheel(folder, pin)
    pin = next(p for p in packages if p.startswith('numpy=='))
    empty_wheel(folder, pin, **{'real.pth': str(Path(numpy.__file__).parent.parent)})


@pytest.fixture(scope='module')
def stick(tmp_path_factory):
    from bearclass.gather.cassette import Cassette
    tmp = tmp_path_factory.mktemp('class')
    with Cassette(tmp/'bears.cassette', 'record') as tape:
        tape.put_search('openverse', 'bear', {}, [dict(url=f'https://example.org/{i}.jpg') for i in range(6)])
        slices = tape.slice_all(3, tmp/'slices')
    stick = prepare_class(tmp/'stick', slices, download=fake_download)
    for f in (stick, *stick.rglob('*')): f.chmod(f.stat().st_mode & ~0o222)   # as a stick that is write-protected
    yield stick
    for f in (stick, *stick.rglob('*')): f.chmod(f.stat().st_mode | 0o200)


def refused():
    "(words before a command, environment) that keep a process and its children off the network."
    env = {k: v for k,v in os.environ.items() if not k.startswith('PIP_')} | dict(MPLBACKEND='agg')
    unshare = [shutil.which('unshare') or 'unshare', '-rn']
    try: alone = not subprocess.run([*unshare, 'true'], capture_output=True).returncode
    except OSError: alone = False
    env['PYTHONPATH'] = '' if alone else str(top/'tools/offline')
    return (unshare if alone else []), env


def start(stick, home):
    before,env = refused()
    words = [*before, sys.executable, str(stick/'start.py'), str(home), '--no-lab']
    return subprocess.run(words, env=env, capture_output=True, text=True)


cells = '''
import json, bearclass
nb = json.load(open('05_reading_claims.ipynb', encoding='utf-8'))
code = [''.join(c['source']) for c in nb['cells'] if c['cell_type']=='code']
shared = {}
for c in code[1:4]: exec(c, shared)
print(bearclass.__file__, len(shared['fig'].axes))
'''


def test_learners_start_without_a_network(stick, tmp_path):
    "From wheels alone into a fresh environment; a few cells run there; a second start keeps what was written."
    home = tmp_path/'mine'
    run = start(stick, home)
    assert run.returncode==0, run.stderr
    python = home/'env'/('Scripts/python.exe' if os.name=='nt' else 'bin/python')
    before,env = refused()
    run = subprocess.run(
        [*before, str(python), '-c', cells], env=env, cwd=home/'pages/lessons', capture_output=True, text=True)
    assert run.returncode==0, run.stderr
    where,n_axes = run.stdout.rsplit(' ', 1)
    assert where.startswith(str(home)) and int(n_axes)==3
    assert len(list((home/'pages/cassettes').glob('bears-*-of-3.cassette')))==3
    page,installed = home/'pages/lessons/01_first_model.ipynb',(home/'env/installed').stat().st_mtime_ns
    page.write_text('my own work')
    assert start(stick, home).returncode==0 and page.read_text()=='my own work'
    assert (home/'env/installed').stat().st_mtime_ns==installed   # and does not install again


def test_another_python_is_told_what_to_type(stick, tmp_path):
    "Another version, and the same before the oldest that all packages accept."
    python = '.'.join(map(str, sys.version_info[:2]))
    text = (stick/'start.py').read_text(encoding='utf-8')
    (tmp_path/'SHA256SUMS').touch()
    unknown = "'3.99', '3.99.0'",'for Python 3.99','py -3.99'
    older = f"'{python}', '{python}.999'",f'{python}.999 or later',f'py -{python}'
    for wrong,says,call in unknown,older:
        other = re.sub(r"(?<=^python,least,room = )'[\d.]+', '[\d.]+'", wrong, text, flags=re.M)
        (tmp_path/'start.py').write_text(other, encoding='utf-8')
        run = start(tmp_path, tmp_path/'mine')
        assert run.returncode==1 and says in run.stderr and f'(Windows: {call})' in run.stderr


def test_the_command_refuses_before_it_fetches(stick, tmp_path, capsys):
    "A folder that is there, a cassette that is none, a system that nobody knows."
    (tmp_path/'bears.cassette').write_text('no cassette')
    for words,says in (
            ([stick], 'already exists'),
            ([tmp_path/'new', '--cassette', tmp_path/'bears.cassette'], 'is no cassette'),
            ([tmp_path/'new', '--system', 'beos'], "['beos']"),
            ([tmp_path/'new', '--pages', tmp_path], 'no lessons in')):
        assert main(['classroom', *map(str, words)])==2 and says in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()]==['bears.cassette']
