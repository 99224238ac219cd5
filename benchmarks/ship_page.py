"""The one-file page beside Python: its size, seconds until it is ready, seconds a photo, and the same answers or not.

    BEARCLASS_ORT_WEB=onnxruntime-web-1.30.0.tgz python benchmarks/ship_page.py

The net in the box, taught on the photos of ../shared/data (or BEARCLASS_TEST_DATA) for a moment, in the Chromium of
BEARCLASS_CHROMIUM. Every photo is asked of the page and of `Predictor`: class, probability, and whether it is unknown;
then some noise and blank squares, which should be unknown to both.
"""
import os, shutil, statistics as st, sys, tempfile, time
from pathlib import Path

os.environ |= {'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from bearclass.dataset import get_image_files
from bearclass.learn.blocks import from_folder
from bearclass.learn.features import quick_tune
from bearclass.learn.train import image_learner
from bearclass.ship.bundle import export_bundle
from bearclass.ship.page import export_page
from bearclass.ship.predictor import Predictor

top = Path(__file__).resolve().parent.parent
photos = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'bears'


def opened(browser, file):
    "(page, seconds until it is ready)."
    page = browser.new_page()
    page.set_default_timeout(300_000)
    start = time.perf_counter()
    page.goto(file.as_uri())
    page.wait_for_selector('body[data-state=ready]')
    return page, time.perf_counter()-start


def ask(page, picture):
    "(probabilities by label, unknown, seconds) as the page has them."
    page.evaluate("document.getElementById('answer').replaceChildren()")
    start = time.perf_counter()
    page.set_input_files('#file', picture)
    page.wait_for_selector('.bc-bars')
    took = time.perf_counter()-start
    bars = page.evaluate("""[...document.querySelectorAll('.bc-bar')].map(
        bar => [bar.querySelector('.bc-name').textContent, +bar.querySelector('data').value])""")
    return dict(bars), bool(page.query_selector('.bc-message')), took


def strangers(folder):
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), np.uint8)).save(folder/f'noise{i}.png')
        Image.fromarray(np.full((300, 300, 3), rng.integers(0, 256, 3), np.uint8)).save(folder/f'blank{i}.png')
    return sorted(folder.glob('*.png'))


def main():
    tmp = Path(tempfile.mkdtemp())
    learn = image_learner(from_folder(photos, size=224), verbose=False)
    quick_tune(learn, verbose=False)
    export_bundle(learn, tmp/'bundle')
    file,model = export_page(tmp/'bundle', tmp/'bears.html'),Predictor(tmp/'bundle')
    with sync_playwright() as pw:
        where = os.environ.get('BEARCLASS_CHROMIUM') or shutil.which('chromium')
        browser = pw.chromium.launch(executable_path=where, args=['--no-sandbox'])
        ready = []
        for _ in range(7):
            page,seconds = opened(browser, file)
            ready.append(seconds)
        rows = []
        for f in [*get_image_files(photos), *strangers(tmp)]:
            (probs,unknown,took),want = ask(page, f), model.predict(f)
            off = max(abs(p-want.probs[model.vocab.index(label)]) for label,p in probs.items())
            rows.append((f.parent!=tmp, max(probs, key=probs.get)==want.label, off, unknown, want.unknown, took))
        browser.close()
    known,same,off,unknown,wanted,took = map(np.array, zip(*rows))
    print(f'{file.stat().st_size/1e6:.1f} MB; ready in {st.median(ready):.2f} s ({min(ready):.2f} to {max(ready):.2f}, '
          f'n = {len(ready)}); a photo in {np.median(took[known]):.2f} s ({took[known].min():.2f} to '
          f'{took[known].max():.2f}, n = {known.sum()})')
    print(f'same class {same[known].sum()} of {known.sum()}, same word on unknown {(unknown==wanted)[known].sum()}; '
          f'largest difference of a probability {off[known].max():.1g}, above 1e-4: {(off[known]>1e-4).sum()}')
    print(f'strangers unknown to the page {unknown[~known].sum()} and to Python {wanted[~known].sum()} of {(~known).sum()}')
    shutil.rmtree(tmp)


if __name__=='__main__': sys.exit(main())
