"A lesson as `make lab` opens it: in JupyterLab, in a real Chromium, run from the top, and answered."
import json, re, shutil, sys
from hashlib import sha256

import pytest
from conftest import ROOT, free_port, here_env, started

pytest.importorskip('jupyterlab', reason='jupyterlab is not installed')
expect = pytest.importorskip('playwright.sync_api', reason='playwright is not installed').expect
pytestmark = pytest.mark.browser
LESSON = 'nbs/lessons/05_reading_claims.ipynb'   # the one that needs least time


@pytest.fixture
def lab(tmp_path):
    "A copy of the pages, served with every cell drawn: (address, folder)."
    top,settings = tmp_path/'repository',tmp_path/'settings'
    shutil.copytree(ROOT/'nbs', top/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    tracker = settings/'@jupyterlab/notebook-extension/tracker.jupyterlab-settings'
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps(dict(windowingMode='none')))
    env = here_env(
        JUPYTER_PREFER_ENV_PATH='1', JUPYTERLAB_SETTINGS_DIR=str(settings), JUPYTER_CONFIG_DIR=str(tmp_path/'config'),
        JUPYTERLAB_WORKSPACES_DIR=str(tmp_path/'workspaces'), BEARCLASS_CACHE=str(tmp_path/'cache'))
    port = free_port()
    cmd = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}',
           f'--ServerApp.root_dir={top}', '--IdentityProvider.token=', '--ServerApp.log_level=ERROR']
    with started(cmd, port, cwd=top, env=env): yield f'http://127.0.0.1:{port}/lab/tree/{LESSON}', top


def contents(top):
    files = (f for f in top.rglob('*') if f.is_file() and '.ipynb_checkpoints' not in f.parts)
    return {f.relative_to(top).as_posix(): sha256(f.read_bytes()).hexdigest() for f in files}


def run_all(page):
    "Choose from the menu Run as soon as the kernel is there, and wait until the last cell has its number."
    expect(page.locator('body')).to_contain_text('| Idle', timeout=60_000)
    page.locator('.lm-MenuBar-itemLabel', has_text=re.compile('^Run$')).click()
    page.locator('.lm-Menu-itemLabel', has_text=re.compile('^Run All Cells')).click()
    prompts = page.locator('.jp-CodeCell .jp-InputPrompt')
    expect(prompts.last).to_have_text(re.compile(r'\[\d+\]:'), timeout=120_000)
    expect(page.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)


def test_a_lesson_in_the_lab(lab, browser_page, screenshots):
    (url,top),page,missing = lab,browser_page,[]
    before = contents(top)
    page.on('response', lambda r: missing.append(r.url) if r.status>=400 and '/files/' in r.url else None)
    page.goto(url)
    page.wait_for_selector('.jp-CodeCell', timeout=120_000)
    run_all(page)
    assert not missing, missing

    form = page.locator('.bcq')
    expect(form).to_contain_text('0 of', timeout=60_000)
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
    assert contents(top)==before
