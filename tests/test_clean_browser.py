"The cleaner as somebody meets it: in a real Chromium, through Voila. A new visit is a new kernel."
import json, re, sys
import numpy as np
import pandas as pd
import pytest
from conftest import free_port, here_env, started
from bearclass.gather.drawing import draw_bear
from bearclass.learn.apply import removed_folder
from bearclass.learn.splits import content_sha256

pytestmark = pytest.mark.browser
EVIL = '<img src=x onerror=window.hacked=1>'
CODE = '''import os, sys, types, pandas as pd
os.environ['BEARCLASS_CACHE'] = {cache!r}
sys.modules['bearclass.learn.issues'] = types.SimpleNamespace(label_issues=None)   # the table is there: three kernels that need not load torch
from bearclass.learn.clean import ImageCleaner
ImageCleaner(pd.read_pickle({table!r}), {root!r}, page_size=12)'''


def draw(root, n, classes, seed=0):
    "A table of drawn bears; the model doubts the first sixth."
    rows,real = [],('black', 'grizzly', 'teddy')
    for i in range(n):
        k = i%len(classes)
        doubt = i<n//6
        f = root/classes[k]/f'{i:03}.jpg'
        f.parent.mkdir(parents=True, exist_ok=True)
        draw_bear(real[(k+doubt)%3], seed+i, size=160).save(f)
        p = .04+.02*i if doubt else .6+.39*i/n
        rows.append(dict(path=f, split='valid' if i%5==1 else 'train', given_label=classes[k], predicted_label=classes[(k+1)%len(classes)] if doubt else classes[k],
                         p_given=p, p_predicted=max(p, 1-p), loss=float(-np.log(p)), label_quality=p, kind='likely mislabelled' if doubt else ''))
    return pd.DataFrame(rows)

def site(path, root, df):
    "A folder with one notebook."
    path.mkdir()
    df.to_pickle(path/'issues.pkl')
    cell = dict(cell_type='code', execution_count=None, id='c', metadata={}, outputs=[], source=CODE.format(cache=str(path/'cache'), table=str(path/'issues.pkl'), root=str(root)))
    kernel = dict(display_name='python3', language='python', name='python3')
    (path/'clean.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    return path

@pytest.fixture(scope='module')
def served(tmp_path_factory):
    "Two datasets, a usual and a hostile one, on one server: (address, folder)."
    top = tmp_path_factory.mktemp('clean')
    for name,classes,n in ('bears', ('black', 'grizzly', 'teddy'), 36), ('evil', ('a', EVIL), 12):
        df = draw(top/name, n, classes, seed=10*n)
        if name=='evil': df.loc[0, ['predicted_label', 'kind']] = '<script>window.hacked=1</script>', '<b onclick=x>odd</b>'
        site(top/f'site_{name}', top/name, df)
    port = free_port()
    cmd = [sys.executable, '-m', 'voila', str(top), f'--port={port}', '--Voila.ip=127.0.0.1', '--Voila.log_level=WARN']
    with started(cmd, port, cwd=top, env=here_env(JUPYTER_PREFER_ENV_PATH='1')): yield f'http://127.0.0.1:{port}/voila/render/', top


def visit(page, url):
    page.goto(url, wait_until='commit')
    page.wait_for_selector('.bcc-tile img', timeout=120_000)
    page.wait_for_selector('.bcc-bar', timeout=10_000, state='attached')

def tile(page, i): return page.locator('.bcc-tile').nth(i)
def button(where, name): return where.get_by_role('button', name=re.compile(name)).first
def head(page, text): page.wait_for_function('t => document.querySelector(".bcc-words").innerText.includes(t)', arg=text, timeout=20_000)
def message(page, text):
    page.wait_for_function('t => document.querySelector(".bcc-message")?.innerText.includes(t)', arg=text, timeout=20_000)
    return page.locator('.bcc-message')
def choose(page, name, label):
    page.locator('.bcc .widget-dropdown', has=page.get_by_text(name, exact=True)).locator('select').select_option(label=label)
def wide_enough(page): return page.evaluate('document.documentElement.scrollWidth<=window.innerWidth')
def contents(root): return sorted(content_sha256(f) for top in (root, removed_folder(root)) for f in top.rglob('*.jpg'))


def test_clean_a_dataset(served, browser_page, screenshots):
    "Switch class, mark, switch back, restart, apply, undo."
    (url,top),page,errors = served,browser_page,[]
    root = top/'bears'
    before = contents(root)
    page.on('console', lambda m: errors.append(m.text) if m.type=='error' and 'Failed to load resource' not in m.text else None)
    page.on('pageerror', lambda e: errors.append(str(e)))
    visit(page, url+'site_bears/clean.ipynb')
    head(page, '0 of 36 decided')
    page.screenshot(path=screenshots/'clean_first.png')

    choose(page, 'Class', 'grizzly (12)')
    page.wait_for_function('[...document.querySelectorAll(".bcc-label span")].every(s => s.innerText=="grizzly")')
    button(tile(page, 0), 'Delete').click()
    head(page, '1 of 36 decided')
    choose(page, 'Class', 'all')
    page.wait_for_function('new Set([...document.querySelectorAll(".bcc-label span")].map(s => s.innerText)).size==3')
    assert page.locator('.bcc-tile.bcc-delete').count()==1                     # it is still there
    button(tile(page, 0), '→ grizzly').click()
    head(page, '2 of 36 decided')
    tile(page, 2).locator('select').select_option(label='grizzly')
    button(tile(page, 3), 'Keep').click()
    head(page, '4 of 36 decided')
    assert '1 validation picture' in page.inner_text('.bcc-note')
    page.screenshot(path=screenshots/'clean_marked.png')

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

    visit(page, url+'site_bears/clean.ipynb')                                  # a new kernel
    head(page, '5 of 36 decided')
    assert page.locator('.bcc-tile.bcc-delete').count()==1 and page.locator('.bcc-tile.bcc-relabel').count()==2
    button(page, 'The rest of this page is fine').click()
    message(page, '7 pictures kept')
    button(page, 'Next').click()
    page.wait_for_function('document.querySelector(".bcc").innerText.includes("page 2 of 3")')
    button(page, 'Back').click()
    page.wait_for_function('document.querySelector(".bcc").innerText.includes("page 1 of 3")')

    button(page, 'Preview and apply').click()
    page.wait_for_selector('.bcc-plan tr')
    assert page.locator('.bcc-plan tr').count()==3 and contents(root)==before and not removed_folder(root).exists()
    page.screenshot(path=screenshots/'clean_preview.png')
    button(page, 'Move 3 files now').click()
    message(page, '2 files went to another class and 1 file went out of the dataset')
    assert contents(root)==before and len(list(removed_folder(root).rglob('*.jpg')))==1 and len(list((root/'grizzly').glob('*.jpg')))==13
    page.screenshot(path=screenshots/'clean_applied.png')
    button(page, 'Undo').click()
    message(page, 'Taken back')
    head(page, '3 files to move')
    assert contents(root)==before and not list(removed_folder(root).rglob('*.jpg')) and len(list((root/'grizzly').glob('*.jpg')))==12

    assert wide_enough(page)
    page.set_viewport_size(dict(width=800, height=1000))
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots/'clean_narrow.png')
    assert wide_enough(page)
    page.evaluate("document.body.setAttribute('data-jp-theme-light', 'false')")
    page.screenshot(path=screenshots/'clean_dark.png')
    assert page.evaluate("getComputedStyle(document.querySelector('.bcc')).color")=='rgb(238, 243, 240)'
    assert errors==[]

def test_hostile_names_and_a_journal_that_cannot_be(served, browser_page, screenshots):
    (url,top),page,dialogs = served,browser_page,[]
    page.on('dialog', lambda d: (dialogs.append(d.message), d.dismiss()))
    visit(page, url+'site_evil/clean.ipynb')
    head(page, '0 of 12 decided')
    assert EVIL[:30] in page.inner_text('.bcc-grid') and '<script>' in page.inner_text('.bcc-grid')   # seen as text
    button(tile(page, 0), '→').click()
    message(page, 'What to do')                                                # that label is no class
    tile(page, 0).locator('select').select_option(label='new class …')
    tile(page, 0).get_by_placeholder('name of the new class').fill(EVIL.replace('x', 'y'))
    button(tile(page, 0), 'Make it').click()
    message(page, 'What to do')
    tile(page, 0).get_by_placeholder('name of the new class').fill('panda 🐼')
    button(tile(page, 0), 'Make it').click()
    message(page, 'panda 🐼')
    button(tile(page, 1), 'Delete').click()
    head(page, '2 of 12 decided')
    button(page, 'Preview and apply').click()
    page.wait_for_selector('.bcc-plan tr')
    page.screenshot(path=screenshots/'clean_hostile.png')

    journal = top/'evil/cleaning.jsonl'
    journal.rename(journal.with_suffix('.aside'))
    journal.mkdir()                                                            # nobody, not even root, can write to that
    button(tile(page, 3), 'Delete').click()
    assert 'Traceback' not in message(page, 'is no ordinary file').inner_text()
    page.screenshot(path=screenshots/'clean_refused.png')
    journal.rmdir()
    journal.with_suffix('.aside').rename(journal)
    button(tile(page, 3), 'Delete').click()
    head(page, '3 of 12 decided')
    assert dialogs==[] and page.evaluate('window.hacked')is None and 'Traceback' not in page.content()
