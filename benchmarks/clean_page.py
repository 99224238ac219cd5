"""Thumbnails of real photos, and a cleaning page of 5,000 of them in a real Chromium.

    python benchmarks/clean_page.py             # under two minutes on two cores
    python benchmarks/clean_page.py --n 1000 --repeats 1

Wants photos in BEARCLASS_TEST_DATA (`bears/`), Playwright, and a Chromium (on the path, or in BEARCLASS_CHROMIUM). The photos are shown
again and again under made-up fingerprints until there are `n` of them, so that each is decoded, kept and drawn like one of its own.
Files are in the memory of the system: each was read once before the clock starts.
"""
import argparse, os, shutil, statistics as st, tempfile, time
from pathlib import Path

data = Path(os.environ.get('BEARCLASS_TEST_DATA') or Path(__file__).resolve().parent.parent.parent/'shared/data')
os.environ |= {'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}

import pandas as pd
from bearclass.clean import page as P

flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()


def timed(f):
    t = time.perf_counter()
    f()
    return time.perf_counter()-t


def thumbs(files):
    "(ms a photo made, ms a photo from the cache)."
    with tempfile.TemporaryDirectory() as cache:
        os.environ['BEARCLASS_CACHE'] = cache
        shas = [f'{i:064x}' for i in range(len(files))]
        return [1000*timed(lambda: P.thumbnails(files, sha256=shas))/len(files) for _ in range(2)]


def table(files, n):
    "As `label_issues` returns it."
    paths = [files[i%len(files)] for i in range(n)]
    return pd.DataFrame(
        dict(path=paths, sha256=[f'{i:064x}' for i in range(n)], predicted_label='teddy', p_given=.1, p_predicted=.9, kind='ambiguous'))


def in_chromium(path):
    "{what: seconds} of a visit."
    from playwright.sync_api import sync_playwright
    chromium = os.environ.get('BEARCLASS_CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport=dict(width=1280, height=1000))
        def open_it():
            page.goto(path.as_uri(), wait_until='commit')
            page.wait_for_selector('.card')
        inside = lambda js: page.evaluate(
            f"() => {{ const t = performance.now(); {js}; document.body.offsetHeight; return performance.now()-t; }}")/1000
        out = dict(open=timed(open_it), press=inside("press(pictures[0], away)"), filter=inside("$('state').value = 'all'; draw()"),
                   last=inside("go(shown.at(-1))"), press_then=inside("press(pictures[1], away)"), keep_all=inside("keepRest()"), press_full=inside("press(pictures[2], away)"))
        out['heap_mb'] = page.evaluate('performance.memory.usedJSHeapSize')/1e6
        browser.close()
    return out


def middle(xs, digits=2): return f'{st.median(xs):.{digits}f} ({min(xs):.{digits}f} to {max(xs):.{digits}f}, n = {len(xs)})'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=5000)
    p.add_argument('--repeats', type=int, default=3)
    args = p.parse_args()
    files = sorted((data/'bears').rglob('*.jpg'))
    for f in files: f.read_bytes()
    print(f'{len(files)} photos, {sum(f.stat().st_size for f in files)/len(files)/1000:.0f} kB each')
    made,known = zip(*(thumbs(files) for _ in range(args.repeats)))
    print(f'thumbnails, {os.cpu_count()} threads, seconds for 1,000: made {middle(made)}; from the cache {middle(known, 3)}')
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['BEARCLASS_CACHE'] = f'{tmp}/cache'
        issues,path = table(files, args.n),Path(tmp)/'page.html'
        first = timed(lambda: P.cleaning_page(issues, path, data/'bears'))
        again = timed(lambda: P.cleaning_page(issues, path, data/'bears'))
        print(
            f'page of {args.n:,}: {path.stat().st_size/1e6:.1f} MB, {first:.1f} s to write, {again:.1f} s with known thumbnails')
        visits = [in_chromium(path) for _ in range(args.repeats)]
        for k in visits[0]: print(f'  {k}: {middle([v[k] for v in visits], 3)}')


if __name__=='__main__': main()
