"""The one-file page in a real Chromium, opened from the disk: the answers of Python, and no request but for itself.

Wants ONNX Runtime Web, which no Python package brings: the path of what `npm pack onnxruntime-web@1.30.0` writes, in
BEARCLASS_ORT_WEB.
"""
import json, os, shutil
from pathlib import Path

import numpy as np, pytest
from PIL import Image

from bearclass.core import cache_folder
from bearclass.ship.page import export_page
from bearclass.ship.predictor import Predictor
from conftest import COMMITTED, REAL, needs, seal

ARCHIVE = Path(os.environ.get('BEARCLASS_ORT_WEB') or cache_folder()/'onnxruntime-web-1.30.0.tgz')
pytestmark = pytest.mark.skipif(not ARCHIVE.is_file(), reason='no ONNX Runtime Web: see the first lines of this file')


class UncheckedPredictor(Predictor):
    def check_golden(self): "Its golden answers are yet to be made."


def variant(path, **config):
    "The committed bundle with another way to fit pictures, and the golden answers that belong to it."
    shutil.copytree(COMMITTED, path)
    old = json.loads((path/'config.json').read_text())
    (path/'config.json').write_text(json.dumps({**old, **config}))
    golden = json.loads((path/'golden/golden.json').read_text())
    p = UncheckedPredictor(seal(path))
    for row in golden['pictures']: row['probs'] = p.predict(path/'golden'/row['file']).probs.tolist()
    (path/'golden/golden.json').write_text(json.dumps(golden))
    return seal(path)


def ready(page, file):
    "Open the file; the page's own rule forbids the code that playwright's `wait_for_function` would bring."
    page.goto(Path(file).as_uri())
    page.wait_for_selector('body[data-state]')
    assert page.get_attribute('body', 'data-state')=='ready', page.inner_text('#answer')


def ask(page, picture):
    "{label: probability} of the bars after a picture was chosen, and whether the page warns."
    page.evaluate("document.getElementById('answer').replaceChildren(); document.getElementById('file').value = ''")
    page.set_input_files('#file', picture)
    page.wait_for_selector('.bc-bars, .bc-message')
    if not page.query_selector('.bc-bars'): return page.inner_text('.bc-message')
    names = [n.inner_text() for n in page.query_selector_all('.bc-name')]
    return dict(zip(names, [float(n.get_attribute('value')) for n in page.query_selector_all('.bc-bar data')]))


def odd_pictures(folder):
    "Sizes, turned ones, grey, transparent, and one with more rows than are read at a time."
    rng = np.random.default_rng(0)
    sizes = dict(wide=(400, 90), tall=(60, 700), tiny=(3, 5), even=(96, 96), one=(1, 300))
    files = []
    for name,(w,h) in sizes.items():
        img = Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8).astype(np.uint8)).resize((w, h))
        img.save(folder/f'{name}.png')
        files.append(folder/f'{name}.png')
    photo = Image.fromarray(np.clip(rng.normal(128, 60, (30, 40, 3)), 0, 255).astype(np.uint8)).resize((640, 480))
    exif = Image.Exif()
    for turn in 3, 6, 8:
        exif[0x112] = turn
        photo.save(folder/f'turned{turn}.jpg', exif=exif, quality=90)
        files.append(folder/f'turned{turn}.jpg')
    photo.convert('L').save(folder/'grey.jpg')
    photo.save(folder/'photo.webp')
    return [*files, folder/'grey.jpg', folder/'photo.webp']


@pytest.mark.parametrize('method, zoom', [('crop', 1.14), ('squish', 8/7), ('pad', 1.)])
def test_the_answers_of_python(method, zoom, browser_page, tmp_path):
    bundle = variant(tmp_path/'bundle', method=method, zoom=zoom)
    p = Predictor(bundle)
    ready(browser_page, export_page(bundle, tmp_path/'page.html', runtime=ARCHIVE))
    for f in odd_pictures(tmp_path):
        got,want = ask(browser_page, f), p.predict(f)
        assert isinstance(got, dict), (f.name, got)
        for label,prob in got.items(): assert prob==pytest.approx(want.probs[p.vocab.index(label)], abs=1e-4), f.name


def test_it_says_what_is_unlike_all_it_has_seen(reds, browser_page, tmp_path):
    ready(browser_page, export_page(reds, tmp_path/'page.html', runtime=ARCHIVE))
    for colour,unknown in ('#e02010', False), ('blue', True), ('lime', True):
        Image.new('RGB', (30, 20), colour).save(tmp_path/'a.png')
        ask(browser_page, tmp_path/'a.png')
        assert bool(browser_page.query_selector('.bc-message'))==reds.predict(tmp_path/'a.png').unknown==unknown


def test_from_the_disk_without_any_request(browser_page, screenshots, tmp_path):
    asked = []
    browser_page.on('request', lambda r: asked.append(r.url))
    file = export_page(COMMITTED, tmp_path/'bears.html', runtime=ARCHIVE)
    ready(browser_page, file)
    assert not browser_page.is_visible('#camera')
    golden = sorted((COMMITTED/'golden').glob('*.png'))[0]
    for width in 1280, 390:
        browser_page.set_viewport_size(dict(width=width, height=900))
        ask(browser_page, golden)
        browser_page.wait_for_selector('#picture img')
        assert browser_page.evaluate('document.documentElement.scrollWidth')<=width
        browser_page.screenshot(path=screenshots/f'one_page_{width}.png', full_page=True)
    (tmp_path/'a.txt').write_text('no picture')
    assert 'a.txt' in ask(browser_page, tmp_path/'a.txt')
    assert {u.split(':')[0] for u in asked} <= {'file', 'blob'} and sum(u.startswith('file') for u in asked)==1
    blocked = browser_page.evaluate("fetch('https://example.org').then(() => 'went', () => 'blocked')")
    assert blocked=='blocked'


def test_a_phone_takes_a_photo(browser, screenshots, tmp_path):
    "Where a finger points there is a camera; the picture it gives is answered as any other."
    context = browser.new_context(viewport=dict(width=390, height=800), is_mobile=True, has_touch=True)
    page = context.new_page()
    ready(page, export_page(COMMITTED, tmp_path/'bears.html', runtime=ARCHIVE))
    camera = page.locator('#camera input')
    assert camera.is_visible() and camera.get_attribute('capture')=='environment'
    camera.set_input_files(sorted((COMMITTED/'golden').glob('*.png'))[0])
    page.wait_for_selector('.bc-bars')
    page.screenshot(path=screenshots/'one_page_phone.png')
    context.close()


def test_a_model_that_answers_otherwise_is_not_used(browser_page, tmp_path):
    file = export_page(COMMITTED, tmp_path/'bears.html', runtime=ARCHIVE)
    text = file.read_text(encoding='utf-8').replace('"temperature": 1.0', '"temperature": 0.5')
    file.write_text(text, encoding='utf-8')
    browser_page.goto(file.as_uri())
    browser_page.wait_for_selector('body[data-state=failed]')
    assert 'otherwise' in browser_page.inner_text('#answer') and browser_page.is_disabled('#file')


@needs('bears')
def test_real_photos(browser_page, tmp_path):
    p = Predictor(COMMITTED)
    ready(browser_page, export_page(COMMITTED, tmp_path/'bears.html', runtime=ARCHIVE))
    files = sorted((REAL/'bears').rglob('*.jpg'))[::10]
    off = []
    for f in files:
        want = dict(zip(p.vocab, p.predict(f).probs))
        off.append(max(abs(prob-want[label]) for label,prob in ask(browser_page, f).items()))
    assert np.mean(np.array(off)<1e-4)>=.97 and max(off)<.05, off
