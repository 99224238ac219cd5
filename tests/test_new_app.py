"The repository from `new_app`, where torch, fastai and bearclass cannot be imported."
import os, subprocess, sys
import pytest
from conftest import CHROMIUM_FLAGS, write_notebook
from bearclass.ship import scaffold as S

PAGE = 'import os\nfrom bearclass.ship.app import app_from_bundle', "app_from_bundle('bundle')"


@pytest.fixture
def nothing_of_ours(tmp_path, monkeypatch):
    "Every Python that is started from here does without."
    block = tmp_path/'block'
    block.mkdir()
    code = "import sys\nsys.modules.update(dict.fromkeys(['torch', 'fastai', 'bearclass']))\n"
    (block/'sitecustomize.py').write_text(code)
    monkeypatch.setenv('PYTHONPATH', str(block))
    for name in 'torch', 'bearclass':
        assert subprocess.run([sys.executable, '-c', f'import {name}'], stderr=subprocess.DEVNULL).returncode==1


@pytest.mark.browser
def test_a_notebook_of_ones_own(small_bundle, chromium_path, nothing_of_ours, tmp_path):
    write_notebook(tmp_path/'mine.ipynb', 'import psutil, numpy as np', *PAGE)
    app = S.new_app(small_bundle, tmp_path/'app', tmp_path/'mine.ipynb')
    assert f'psutil=={S.version("psutil")}\n' in (app/'requirements.txt').read_text()
    found = S.check_app(app, sys.executable)
    assert found.answer and found.fits and 20e6<found.visitor<400e6 and found.environment==0, found
    assert not (app/'classifier/__pycache__').exists(), 'it is tried out elsewhere'


@pytest.mark.browser
def test_seen_in_a_space(small_bundle, chromium_path, nothing_of_ours, tmp_path):
    "Hugging Face shows a Space within its own page; nobody else may. Without a browser the page is only asked for."
    app = S.new_app(small_bundle, tmp_path/'app')
    from playwright.sync_api import sync_playwright
    with S._served(sys.executable, app, dict(os.environ)) as (url,server), sync_playwright() as pw:
        (tmp_path/'app.ipynb').write_text('a page of my own')
        answer,why,memory = S._visit(url, None, server, tmp_path)
        assert answer=='' and 'by hand' in why and min(memory)>10e6
        # or Chromium keeps a page from elsewhere, which is what this one is to it, from this machine
        local = '--disable-features=LocalNetworkAccessChecks'
        page = pw.chromium.launch(executable_path=chromium_path, args=[*CHROMIUM_FLAGS, local]).new_page()
        page.set_default_timeout(300_000)
        html = f'<iframe src="{url}" width="900" height="900"></iframe>'
        page.route('https://*/**', lambda r: r.fulfill(body=html, content_type='text/html'))
        page.goto('https://huggingface.co/spaces/ada/bears')
        frame = page.frame_locator('iframe')
        with page.expect_file_chooser() as chooser: frame.locator('.bearclass .widget-upload').click()
        chooser.value.set_files(app/'bundle/golden/0.png')
        assert frame.locator('.bc-label').inner_text()
        with page.expect_console_message(lambda m: 'frame-ancestors' in m.text): page.goto('https://example.org/')


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get('BEARCLASS_FRESH'), reason='set BEARCLASS_FRESH=1: pip brings 360 MB')
def test_in_a_fresh_environment(small_bundle, tmp_path):
    found = S.check_app(S.new_app(small_bundle, tmp_path/'app'))
    print(found)
    assert found.answer and found.fits and found.environment>1e8
