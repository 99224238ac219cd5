"A lesson as `make lab` opens it: in JupyterLab, in a real Chromium, run, clicked in, answered, and run again."
import json, re, shutil, sys
from hashlib import sha256

import pytest
from conftest import ROOT, free_port, here_env, started
from bearclass.clean.decisions import CleaningJournal
from bearclass.dataset import content_sha256

pytest.importorskip('jupyterlab', reason='jupyterlab is not installed')
expect = pytest.importorskip('playwright.sync_api', reason='playwright is not installed').expect
pytestmark = pytest.mark.browser
LESSON = '02_bears'   # `test_lessons.py` leaves it to us


@pytest.fixture
def lab(tmp_path):
    "A copy of the pages, served with every cell drawn, nothing saved by itself: (address, folder of the lessons)."
    top,settings = tmp_path/'repository',tmp_path/'settings'
    shutil.copytree(ROOT/'nbs', top/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints', 'data'))
    for name,value in (('notebook-extension/tracker', dict(windowingMode='none')),
                       ('docmanager-extension/plugin', dict(autosave=False))):
        file = settings/f'@jupyterlab/{name}.jupyterlab-settings'
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(value))
    env = here_env(
        JUPYTER_PREFER_ENV_PATH='1', JUPYTERLAB_SETTINGS_DIR=str(settings), JUPYTER_CONFIG_DIR=str(tmp_path/'config'),
        JUPYTERLAB_WORKSPACES_DIR=str(tmp_path/'workspaces'), BEARCLASS_CACHE=str(tmp_path/'cache'))
    port = free_port()
    cmd = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}',
           f'--ServerApp.root_dir={top}', '--IdentityProvider.token=', '--ServerApp.log_level=ERROR',
           "--ServerApp.tornado_settings={'websocket_max_message_size': 200000000}"]
    with started(cmd, port, cwd=top, env=env):
        yield f'http://127.0.0.1:{port}/lab', top/'nbs/lessons'


def contents(top):
    "{path: hash} of all files but those that a lesson makes."
    files = (f for f in top.rglob('*') if f.is_file() and not {'.ipynb_checkpoints', 'data'} & set(f.parts))
    return {f.relative_to(top).as_posix(): sha256(f.read_bytes()).hexdigest() for f in files}


def places(work):
    "{content: folders} of the pictures, wherever they have been moved."
    files = sorted(f for f in work.glob('bears*/*/*') if f.suffix=='.jpg')
    found = {}
    for f in files: found.setdefault(content_sha256(f), []).append(f.parent.relative_to(work).as_posix())
    return found


def run_all(page, url):
    "Open a notebook, choose Run All Cells as soon as its kernel is there, and wait until the last cell has its number."
    page.goto(url)
    page.wait_for_selector('.jp-CodeCell', timeout=120_000)
    expect(page.locator('body')).to_contain_text('| Idle', timeout=120_000)
    page.locator('.lm-MenuBar-itemLabel', has_text=re.compile('^Run$')).click()
    page.locator('.lm-Menu-itemLabel', has_text=re.compile('^Run All Cells')).click()
    prompts,error = page.locator('.jp-CodeCell .jp-InputPrompt'),'[data-mime-type="application/vnd.jupyter.error"]'
    numbered = prompts.last.filter(has_text=re.compile(r'\[\d+\]:'))
    numbered.or_(page.locator(error)).first.wait_for(timeout=1_800_000)
    assert page.locator(error).all_inner_texts()==[]


def write_again(folder):
    "The lesson a second time, to open in a new kernel; to save time it trains only the head."
    nb = json.loads((folder/f'{LESSON}.ipynb').read_text(encoding='utf-8'))
    long,short = 'learn.fine_tune(2, 2e-3)','learn.fit_one_cycle(1, 2e-3)'
    for c in nb['cells']: c['source'] = ''.join(c['source']).replace(long, short)
    assert json.dumps(nb).count(short)==2
    (folder/'again.ipynb').write_text(json.dumps(nb), encoding='utf-8')


def test_a_lesson_in_the_lab(lab, browser_page, screenshots):
    (url,lessons),page,missing = lab,browser_page,[]
    before,work = contents(lessons.parent),lessons/'data/bears_drawn'
    page.on('response', lambda r: missing.append(r.url) if r.status>=400 and '/files/' in r.url else None)
    run_all(page, f'{url}/tree/nbs/lessons/{LESSON}.ipynb')
    assert not missing, missing

    journal = CleaningJournal(work/'bears')
    by_list = journal.in_force()
    assert len(by_list)==60 and {r['reason'] for r in by_list.values()}=={'by the list'}
    there = places(work)
    tiles = page.locator('.bcc-tile')
    tiles.nth(0).get_by_role('button', name=re.compile('Delete')).click()
    expect(page.locator('.bcc-tile.bcc-delete')).to_have_count(1)
    label = tiles.nth(1).locator('.bcc-label span').inner_text()
    other = next(c for c in ('black', 'grizzly', 'teddy') if c!=label)
    tiles.nth(1).locator('select').select_option(label=other)
    expect(tiles.nth(1)).to_have_class(re.compile('bcc-relabel'))
    page.screenshot(path=screenshots/'lab_cleaner.png')

    form = page.locator('.bcq')
    expect(form).to_contain_text('0 of')
    first = form.locator('.bcq-one').first
    first.get_by_role('radio').first.check()
    first.get_by_role('button', name='Check 1').click()
    expect(first.get_by_role('status')).to_contain_text(re.compile('Right|Not yet'))
    first.get_by_role('button', name='Show answer 1').click()
    expect(first.get_by_role('status')).to_contain_text('The answer')
    letter = re.search(r'The answer: ([A-F])', first.get_by_role('status').inner_text())[1]
    first.get_by_role('radio').nth('ABCDEF'.index(letter)).check()
    first.get_by_role('button', name='Check 1').click()
    expect(form).to_contain_text('1 of')
    page.screenshot(path=screenshots/'lab_quiz.png')
    assert contents(lessons.parent)==before

    mine = {sha: r for sha,r in CleaningJournal(work/'bears').in_force().items() if r['reason']!='by the list'}
    gone,moved = sorted(mine, key=lambda sha: mine[sha]['action'])
    assert [mine[sha]['action'] for sha in (gone, moved)]==['delete', 'relabel'] and places(work)==there
    write_again(lessons)
    run_all(page, f'{url}/workspaces/again/tree/nbs/lessons/again.ipynb')
    now = CleaningJournal(work/'bears').in_force()
    assert {sha: now[sha] for sha in now if sha in by_list}==by_list|mine
    assert places(work)==there | {gone: ['bears_removed/'+there[gone][0].split('/')[1]], moved: [f'bears/{other}']}
    expect(page.locator('.bcq').last).to_contain_text('1 of')
