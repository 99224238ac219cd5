"The cleaner as somebody meets it: in a real Chromium, through Voila. A new visit is a new kernel."
import json, re, shutil, sys
import numpy as np
import pandas as pd
import pytest
from conftest import free_port, started
from bearclass.samples.datasets import draw_bears
from bearclass.dataset import content_sha256, get_image_files, removed_folder

expect = pytest.importorskip('playwright.sync_api', reason='playwright is not installed').expect
pytestmark = pytest.mark.browser
CODE = '''import os, sys, types, pandas as pd
os.environ['BEARCLASS_CACHE'] = {cache!r}
# the table is there: kernels that need not load torch
sys.modules['bearclass.clean.issues'] = types.SimpleNamespace(label_issues=None)
from bearclass.clean.widget import ImageCleaner
ImageCleaner(pd.read_pickle({table!r}), {root!r}, page_size=12)'''


CLASSES = 'black', 'grizzly', 'teddy'

@pytest.fixture(scope='module')
def bears(tmp_path_factory):
    "A folder of 36 drawn bears."
    root = tmp_path_factory.mktemp('drawn')/'bears'
    draw_bears(root, n_per_class=12, size=160)
    return root

def table(root):
    "Of 36 bears, one class after the other; the model doubts the first six."
    files = [f for row in zip(*(get_image_files(root/c) for c in CLASSES)) for f in row]
    i = np.arange(36)
    p = np.where(i<6, .04+.02*i, .6+.01*i)
    return pd.DataFrame(dict(
        path=files, split=np.where(i%5==1, 'valid', 'train'), given_label=CLASSES*12,
        predicted_label=[CLASSES[(k+(k<6))%3] for k in i], p_given=p, p_predicted=np.maximum(p, 1-p),
        loss=-np.log(p), label_quality=p, kind=np.where(i<6, 'likely mislabelled', '')))

def site(path, root, df):
    "A folder with one notebook."
    path.mkdir()
    df.to_pickle(path/'issues.pkl')
    cell = dict(
        cell_type='code', execution_count=None, id='c', metadata={}, outputs=[],
        source=CODE.format(cache=str(path/'cache'), table=str(path/'issues.pkl'), root=str(root)))
    kernel = dict(display_name='python3', language='python', name='python3')
    (path/'clean.ipynb').write_text(
        json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    return path

@pytest.fixture(scope='module')
def served(tmp_path_factory, bears, widgets_env):
    "A dataset on a server: (address of the notebook, dataset folder)."
    top = tmp_path_factory.mktemp('clean')
    shutil.copytree(bears, top/'bears')
    site(top/'site', top/'bears', table(top/'bears'))
    port = free_port()
    cmd = [sys.executable, '-m', 'voila', str(top), f'--port={port}', '--Voila.ip=127.0.0.1', '--Voila.log_level=WARN']
    with started(cmd, port, cwd=top, env=widgets_env):
        yield f'http://127.0.0.1:{port}/voila/render/site/clean.ipynb', top/'bears'


def visit(page, url):
    page.goto(url, wait_until='commit')
    page.wait_for_selector('.bcc-tile img', timeout=120_000)
    page.wait_for_selector('.bcc-bar', timeout=10_000, state='attached')

def tile(page, i): return page.locator('.bcc-tile').nth(i)
def button(where, name): return where.get_by_role('button', name=re.compile(name)).first
def head(page, text): page.wait_for_function(
    't => document.querySelector(".bcc-words").innerText.includes(t)',
    arg=text,
    timeout=20_000)
def message(page, text):
    page.wait_for_function(
        't => document.querySelector(".bcc-message")?.innerText.includes(t)',
        arg=text,
        timeout=20_000)
    return page.locator('.bcc-message')
def choose(page, name, label):
    page.locator(
        '.bcc .widget-dropdown',
        has=page.get_by_text(name, exact=True)).locator('select').select_option(label=label)
def marked(page, counts):
    "Wait until that many tiles are drawn with each mark: {'delete': 1, ...}."
    for mark,n in counts.items(): expect(page.locator(f'.bcc-tile.bcc-{mark}')).to_have_count(n, timeout=20_000)
def wide_enough(page): page.wait_for_function('document.documentElement.scrollWidth<=window.innerWidth', timeout=20_000)
def contents(root): return sorted(content_sha256(f) for top in (root, removed_folder(root)) for f in top.rglob('*.jpg'))


def test_clean_a_dataset(served, ipywidgets, browser_page, screenshots):
    "Switch class, mark, switch back, restart, apply, undo."
    (url,root),page,errors = served,browser_page,[]
    before = contents(root)
    page.on(
        'console',
        lambda m: errors.append(m.text) if m.type=='error' and 'Failed to load resource' not in m.text else None)
    # the browser's half of ipywidgets 7 asks for MathJax 2, which Voila no longer brings
    page.on('pageerror', lambda e: errors.append(str(e)) if "reading 'Queue'" not in str(e) else None)
    visit(page, url)
    head(page, '0 of 36 decided')
    page.screenshot(path=screenshots/f'clean_{ipywidgets}_first.png')

    choose(page, 'Class', 'grizzly (12)')
    page.wait_for_function('[...document.querySelectorAll(".bcc-label span")].every(s => s.innerText=="grizzly")')
    button(tile(page, 0), 'Delete').click()
    head(page, '1 of 36 decided')
    choose(page, 'Class', 'all')
    page.wait_for_function('new Set([...document.querySelectorAll(".bcc-label span")].map(s => s.innerText)).size==3')
    marked(page, dict(delete=1))                                               # it is still there
    button(tile(page, 0), '→ grizzly').click()
    head(page, '2 of 36 decided')
    tile(page, 2).locator('select').select_option(label='grizzly')
    button(tile(page, 3), 'Keep').click()
    head(page, '4 of 36 decided')
    expect(page.locator('.bcc-note')).to_contain_text('1 validation picture', timeout=20_000)
    page.screenshot(path=screenshots/f'clean_{ipywidgets}_marked.png')

    keys = page.get_by_placeholder('click here, then type')
    keys.focus()
    page.keyboard.type('   ', delay=30)                                        # past the tiles that are decided
    page.keyboard.type('kd', delay=30)
    head(page, '5 of 36 decided')                                              # the first k was said before
    page.wait_for_function('document.querySelectorAll(".bcc-tile")[5].className.includes("bcc-at")')
    page.keyboard.type('u', delay=30)
    head(page, '4 of 36 decided')
    button(tile(page, 4), 'Keep').focus()
    page.keyboard.press('Enter')                                               # any button, without a mouse
    head(page, '5 of 36 decided')

    visit(page, url)                                  # a new kernel
    head(page, '5 of 36 decided')
    marked(page, dict(delete=1, relabel=2))
    button(page, 'The rest of this page is fine').click()
    message(page, '7 pictures kept')
    button(page, 'Next').click()
    page.wait_for_function('document.querySelector(".bcc").innerText.includes("page 2 of 3")')
    button(page, 'Back').click()
    page.wait_for_function('document.querySelector(".bcc").innerText.includes("page 1 of 3")')

    button(page, 'Preview and apply').click()
    page.wait_for_selector('.bcc-plan tr')
    assert page.locator('.bcc-plan tr').count()==3 and contents(root)==before and not removed_folder(root).exists()
    page.screenshot(path=screenshots/f'clean_{ipywidgets}_preview.png')
    button(page, 'Move 3 files now').click()
    message(page, '2 files went to another class and 1 file went out of the dataset')
    assert contents(root)==before
    assert len(list(removed_folder(root).rglob('*.jpg')))==1
    assert len(list((root/'grizzly').glob('*.jpg')))==13
    page.screenshot(path=screenshots/f'clean_{ipywidgets}_applied.png')
    button(page, 'Undo').click()
    message(page, 'Taken back')
    head(page, '3 files to move')
    assert contents(root)==before
    assert not list(removed_folder(root).rglob('*.jpg'))
    assert len(list((root/'grizzly').glob('*.jpg')))==12

    wide_enough(page)
    page.set_viewport_size(dict(width=800, height=1000))
    wide_enough(page)
    page.screenshot(path=screenshots/f'clean_{ipywidgets}_narrow.png')
    page.evaluate("document.body.setAttribute('data-jp-theme-light', 'false')")
    page.screenshot(path=screenshots/f'clean_{ipywidgets}_dark.png')
    assert page.evaluate("getComputedStyle(document.querySelector('.bcc')).color")=='rgb(238, 243, 240)'
    assert errors==[]

