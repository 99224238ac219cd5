"What a stranger does: build a wheel, install it elsewhere, go the whole way from a folder that is not the checkout."
import os, shutil, subprocess, sys, venv
from pathlib import Path

import pytest

top = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def installed(tmp_path_factory):
    "A fresh environment with our wheel; torch and the rest are seen through the one the tests run in."
    tmp = tmp_path_factory.mktemp('wheel')
    src = tmp/'src'
    src.mkdir()
    shutil.copytree(top/'bearclass', src/'bearclass', ignore=shutil.ignore_patterns('__pycache__'))
    for n in 'setup.py settings.ini pyproject.toml README.md LICENSE'.split(): shutil.copy(top/n, src/n)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '-w', tmp, src], check=True)
    venv.create(tmp/'env', with_pip=False)
    python = tmp/'env'/('Scripts/python.exe' if os.name=='nt' else 'bin/python')
    site = Path(
        subprocess.run(
            [python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
            capture_output=True,
            text=True,
            check=True).stdout.strip())
    import numpy
    (site/'base.pth').write_text(str(Path(numpy.__file__).parent.parent))
    subprocess.run(
        [*pip, '--python', python, 'install', '--quiet', '--no-deps', '--no-index', next(tmp.glob('*.whl'))],
        check=True)
    return python


def run(python, *words, cwd, status=0):
    "Run the installed command line in `cwd`, away from the checkout."
    env = {**os.environ, 'PYTHONSAFEPATH':'1'}
    p = subprocess.run(
        [python.with_name('bearclass'), *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True)
    assert p.returncode==status, f'{words}: {p.returncode}\n{p.stdout}\n{p.stderr}'
    return p


def test_wheel_is_installed_not_the_checkout(installed, tmp_path):
    code = 'import bearclass, bearclass.ship.app; print(bearclass.__file__)'
    where = subprocess.run([installed, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert str(installed.parent.parent) in where and str(top) not in where
    static = Path(where.strip()).parent/'static'
    assert {f.name for f in static.iterdir()}=={f.name for f in (top/'bearclass/static').iterdir()}


def test_doctor(installed, tmp_path):
    p = run(installed, 'doctor', cwd=tmp_path)
    assert 'All well.' in p.stdout and 'torch ' in p.stdout
    assert not list(tmp_path.iterdir())


def test_demo_in_small(installed, tmp_path):
    "`make demo SERVE=0` in small, from the wheel; then with pictures of one's own, over what the first left."
    from bearclass.samples.datasets import draw_bears
    def demo(*words):
        p = run(installed, 'demo', '--no-serve', *words, cwd=tmp_path)
        assert all(s in p.stdout for s in ('1. Pictures', '2. Verify', 'Error rate', '<- prediction', '5. Export'))
        assert sorted(f.name for f in (tmp_path/'demo').iterdir())==[
            'bears',
            'confusion_matrix.png',
            'model',
            'top_losses.png']
        return p.stdout
    assert 'cannot be read and are left out' in demo('--n', 20)
    assert sorted(f.name for f in tmp_path.iterdir())==['demo']
    bear = next((tmp_path/'demo/bears/teddy').glob('*.jpg'))
    assert run(installed, 'predict', 'demo/model', bear, cwd=tmp_path).stdout.startswith(str(bear))
    assert 'Error rate' in run(installed, 'evaluate', 'demo/model', 'demo/bears', cwd=tmp_path).stdout
    first = (tmp_path/'demo/model/MANIFEST.sha256').read_text()
    draw_bears(tmp_path/'mine', n_per_class=40, seed=5, size=96)   # with fewer, a class may have none on one side
    before = sorted(p.name for p in (tmp_path/'mine').rglob('*'))
    assert 'Your pictures: black, grizzly, teddy' in demo('--data', 'mine')
    assert sorted(p.name for p in (tmp_path/'mine').rglob('*'))==before
    assert (tmp_path/'demo/model/MANIFEST.sha256').read_text()!=first
