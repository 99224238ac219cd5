"The app as a visitor meets it: in a real Chromium, on this machine and as on Binder."
import os, shutil, subprocess, sys, urllib.request
from contextlib import contextmanager
import numpy as np
import pytest
from PIL import Image
from conftest import ROOT, free_port, here_env, serving, started
from bearclass.samples.drawing import draw_bear
from bearclass.ship import app as A
from bearclass.ship.answer import MAX_UPLOAD, title_for, verdict
from bearclass.ship.predictor import Predictor

pytestmark = pytest.mark.browser
UPLOAD = '.bearclass .widget-upload'
LONGEST = "(i => Math.max(i.naturalWidth, i.naturalHeight))(document.querySelector('.bearclass img'))"


@pytest.fixture(scope='session')
def photo(tmp_path_factory):
    "A JPEG such as a visitor has."
    path = tmp_path_factory.mktemp('photos')/'photo.jpg'
    draw_bear('grizzly', 902, size=800).save(path)
    return path


@pytest.fixture(scope='module')
def url(ipywidgets, widgets_env, request, small_bundle):
    "The app, served with that version of ipywidgets."
    if ipywidgets==8: yield request.getfixturevalue('app_url')
    else:
        with serving(small_bundle, env=widgets_env) as (url,_): yield url


def visit(page, url):
    "Open the page and wait for its button, however busy the machine is."
    page.set_default_timeout(300_000)
    page.goto(url, wait_until='commit')
    page.wait_for_selector(UPLOAD)

def upload(page, *paths):
    "Choose files as a visitor does."
    with page.expect_file_chooser() as chooser: page.click(UPLOAD)
    chooser.value.set_files(paths)

def label(page): return page.inner_text('.bc-label')
def says(page, text):
    "Wait until the page's message has it: an earlier answer may have had a message too."
    from playwright.sync_api import expect
    expect(page.locator('.bc-message')).to_contain_text(text, timeout=300_000)

def shown(page, selector): return page.locator(selector).count()

def expected(bundle, path):
    "What the page must say."
    return verdict(Predictor(bundle).predict(path))[1]


def test_a_visit(url, ipywidgets, small_bundle, browser_page, photo, screenshots, tmp_path):
    page = browser_page
    errors,outside = [],[]
    refused = 'Failed to load resource', 'https://cdn.jsdelivr.net/npm/@fortawesome/'   # what Voila's template wants
    is_ours = lambda m: m.type=='error' and not any(r in m.text for r in refused)
    page.on('console', lambda m: errors.append(m.text) if is_ours(m) else None)
    page.route(lambda asked: not asked.startswith(url), lambda route: outside.append(route.request.url))   # no answer
    visit(page, url)
    assert page.title() == title_for(Predictor(small_bundle).vocab)
    page.screenshot(path=screenshots/f'app_{ipywidgets}_empty.png')
    upload(page, photo)
    assert label(page) == expected(small_bundle, photo)
    assert shown(page, '.bc-bar') == 3
    assert page.evaluate(LONGEST) == 640
    page.screenshot(path=screenshots/f'app_{ipywidgets}_result.png')

    page.evaluate("document.querySelector('.bc-label').textContent = 'old'")   # to tell a new answer from it
    upload(page, photo)
    page.wait_for_function("(document.querySelector('.bc-label')?.textContent ?? 'old') != 'old'")
    assert label(page) == expected(small_bundle, photo)

    note = tmp_path/'note.jpg'
    note.write_text('not a picture')
    upload(page, note)
    says(page, '“note.jpg” is not a picture')
    assert shown(page, '.bc-label') == shown(page, '.bc-bar') == shown(page, '.bearclass img') == 0
    page.screenshot(path=screenshots/f'app_{ipywidgets}_error.png')
    upload(page, photo)
    assert label(page) == expected(small_bundle, photo) and shown(page, '.bc-message') == 0
    other = tmp_path/'other.jpg'
    draw_bear('teddy', 3, size=300).save(other)
    upload(page, photo, note, other)
    page.wait_for_selector('.bc-answer')
    assert page.locator('.bc-file').all_inner_texts() == ['photo.jpg', 'note.jpg', 'other.jpg']
    assert page.locator('.bc-label').all_inner_texts() == [expected(small_bundle, f) for f in (photo, other)]
    assert '“note.jpg” is not a picture' in page.inner_text('.bc-answer:nth-of-type(2)')
    page.screenshot(path=screenshots/f'app_{ipywidgets}_several.png', full_page=True)

    page.keyboard.press('Tab')   # by keyboard: from the button to the first example
    assert 'Example 1' in page.evaluate('document.activeElement.textContent')
    page.keyboard.press('Enter')
    page.wait_for_selector('.bc-answer', state='detached')
    golden = Predictor(small_bundle).bundle.files['golden/0.png']
    assert label(page) == expected(small_bundle, golden) and 'Example 1' in page.get_attribute('.bearclass img', 'alt')

    page.set_viewport_size(dict(width=360, height=740))
    page.screenshot(path=screenshots/f'app_{ipywidgets}_phone.png')
    assert page.evaluate('document.documentElement.scrollWidth') <= 360
    assert page.evaluate("document.querySelector('.widget-upload').offsetHeight") >= 44
    assert errors == outside == []

def test_large_files(app_url, small_bundle, browser_page, tmp_path):
    "Above the 10 MiB that a server takes unasked, and above our own limit."
    page,big,huge = browser_page, tmp_path/'big.png', tmp_path/'huge.jpg'
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(big, compress_level=0)
    assert big.stat().st_size > 12_000_000
    visit(page, app_url)
    upload(page, big)
    assert label(page) == expected(small_bundle, big)
    huge.write_bytes(bytes(MAX_UPLOAD+1_000_000))
    upload(page, huge)
    says(page, '“huge.jpg” has 26 MB, and the limit is 25 MB')
    assert shown(page, '.bc-label') == 0

def test_refused_bundle(small_bundle, browser_page, screenshots, tmp_path):
    port = free_port()
    folder = A.write_app_folder(small_bundle, tmp_path/'site')
    (folder/'bundle/extra.txt').write_text('not listed')
    with started(A.voila_command(port), port, cwd=folder, env=here_env()):
        browser_page.goto(f'http://127.0.0.1:{port}/')
        says(browser_page, 'holds more than its manifest lists')
        browser_page.screenshot(path=screenshots/'app_refused.png')
        assert str(tmp_path) not in browser_page.content() and 'Traceback' not in browser_page.content()


# ---- as on Binder

def outside(**kw):
    "The environment without what this run adds: no refused network, no virtual environment."
    drop = 'PYTHONPATH', 'VIRTUAL_ENV', 'PYTHONHOME', 'BEARCLASS_BUNDLE', 'JUPYTER_CONFIG_DIR', 'JUPYTER_PATH'
    return {**{k:v for k,v in os.environ.items() if k not in drop}, **kw}

def run(cmd, **kw):
    said = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.run([str(c) for c in cmd], **said, **kw)

@pytest.fixture(scope='module')
def binder(tmp_path_factory, small_bundle):
    "A copy of the checkout, and an environment made from the files in `binder` alone."
    if sys.version_info<(3, 11): pytest.skip('the fixed versions for Binder need Python 3.11')
    top = tmp_path_factory.mktemp('binder')
    repo,venv = top/'repo', top/'venv'
    skip = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for name in 'bearclass', 'binder', 'nbs/app': shutil.copytree(ROOT/name, repo/name, ignore=skip)
    for name in 'setup.py', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE': shutil.copy(ROOT/name, repo/name)
    if not (repo/'nbs/app/bundle').exists(): shutil.copytree(small_bundle, repo/'nbs/app/bundle')
    path = f"{venv/'bin'}{os.pathsep}{os.environ['PATH']}"
    env = outside(PATH=path, HOME=str(top), PIP_DISABLE_PIP_VERSION_CHECK='1')
    assert run([sys.executable, '-m', 'venv', venv], env=env).returncode==0
    pip = [venv/'bin/python', '-m', 'pip', 'install', '--retries=1', '--timeout=20']
    got = run([*pip, '-r', repo/'binder/requirements.txt'], env=env)
    if got.returncode and 'from versions: none' in got.stdout: pytest.skip('pip can download nothing here')
    assert got.returncode==0, got.stdout[-2000:]
    got = run(['bash', 'binder/postBuild'], cwd=repo, env=env)
    assert got.returncode==0, got.stdout[-2000:]
    shutil.rmtree(repo/'bearclass')   # what runs from here on is what was installed
    return repo, venv, env

@contextmanager
def jupyter(venv, link, folder, env):
    "The address of what Binder's link shows, on a server such as Binder starts."
    port = free_port()
    cmd = [venv/'bin/python', '-m', 'jupyter_server', '--no-browser', '--allow-root', '--ip=127.0.0.1',
           f'--port={port}', '--IdentityProvider.token=binder']
    with started(cmd, port, cwd=folder, env=env):
        yield f"http://127.0.0.1:{port}/{link.split('urlpath=')[1]}?token=binder"

@pytest.mark.slow
def test_binder(binder, browser_page, photo, screenshots):
    repo,venv,env = binder
    heavy = ("import importlib.util as u; "
             "print([m for m in 'torch torchvision fastai fastcore pandas matplotlib onnx'.split() if u.find_spec(m)])")
    assert run([venv/'bin/python', '-c', heavy], cwd=repo, env=env).stdout.strip() == '[]'
    with jupyter(venv, A.binder_url('someone', 'bearclass'), repo, env) as url:
        visit(browser_page, url)
        upload(browser_page, photo)
        assert label(browser_page) == expected(repo/'nbs/app/bundle', photo)
        browser_page.screenshot(path=screenshots/'app_binder.png')
        assert 'app_from_bundle' not in browser_page.content()
        big = browser_page.evaluate("fetch('/voila/files/nbs/app/bundle/model.onnx').then(r => r.status)")
        assert big in (403, 404)

@pytest.mark.slow
def test_serve_from_an_installed_package(binder, tmp_path):
    "Far from any checkout, with the light packages only."
    repo,venv,env = binder
    with serving(repo/'nbs/app/bundle', python=venv/'bin/python', cwd=tmp_path, env=env) as (url,_):
        assert urllib.request.urlopen(url, timeout=300).status == 200

@pytest.mark.slow
def test_a_repository_of_its_own_on_binder(binder, small_bundle, browser_page, photo, tmp_path):
    "Settings from the repository's own `postBuild`; Python finds `classifier` beside the notebook."
    from bearclass.ship.scaffold import new_app
    _,venv,env = binder
    app = new_app(small_bundle, tmp_path/'app', github='ada/app')
    (venv/'etc/jupyter/jupyter_server_config.json').unlink()
    got = run(['bash', 'binder/postBuild'], cwd=app, env=env)
    assert got.returncode==0 and 'jupyter_server_config.json' in got.stdout, got.stdout[-2000:]
    link = A.binder_url('ada', 'app', notebook='app.ipynb')
    assert link in (app/'README.md').read_text(encoding='utf-8')
    with jupyter(venv, link, app, env) as url:
        visit(browser_page, url)
        upload(browser_page, photo)
        assert label(browser_page) == expected(small_bundle, photo)
