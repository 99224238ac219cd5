"""The whole way, measured: training, demo, cold prediction, and the page.

    python benchmarks/foundation.py train predict demo page      # or some of them

`train` and `predict` want real photos in BEARCLASS_TEST_DATA (`bears/`).
Each prints its figures as Markdown; `RESULTS.md` keeps them with the machine they were taken on.
Whole processes are timed from outside; peak memory is the operating system's figure for the process.
"""
import os, platform, re, shutil, socket, statistics as st, subprocess, sys, tempfile, time
from pathlib import Path

top = Path(__file__).resolve().parent.parent
data = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')
door = Path(sys.executable).with_name('bearclass')
quiet = {**os.environ, 'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}


def measured(words, cwd=None, env=quiet):
    "(seconds, peak MB, output) of a command run to its end."
    with tempfile.TemporaryFile('w+') as out:
        t = time.perf_counter()
        p = subprocess.Popen([str(w) for w in words], cwd=cwd, env=env, stdout=out, stderr=subprocess.STDOUT)
        _,status,use = os.wait4(p.pid, 0)
        seconds = time.perf_counter()-t
        out.seek(0)
        text = out.read()
    if os.waitstatus_to_exitcode(status): sys.exit(f'{words}\n{text}')
    return seconds, use.ru_maxrss/(1024 if sys.platform!='darwin' else 2**20), text


def middle(xs): return f'{st.median(xs):.2f} ({min(xs):.2f} to {max(xs):.2f}, n = {len(xs)})'


def bench_train(tmp):
    "Photos of bears, the net in the box, CPU: the command line's own training."
    seconds,mb,text = measured([door, 'train', data/'bears', '--out', tmp/'bears'])
    print(
        f'### train\n\n413 photos, the net in the box, `bearclass train`: {seconds:.0f} s, peak {mb:.0f} MB (n = 1).')
    print(re.search(r'validation set: .*', text)[0])
    seconds,mb,text = measured([door, 'evaluate', tmp/'bears', data/'bears'])
    print(
        f'The exported model without torch, same pictures ({seconds:.1f} s, peak {mb:.0f} MB): {re.search(r"Error rate.*", text)[0]}\n')


cold_fastai = '''
import sys, warnings; warnings.simplefilter('ignore')
from fastai.vision.all import load_learner
learn = load_learner(sys.argv[1])
with learn.no_bar(): print(learn.predict(sys.argv[2])[0])
'''
cold_ours = '''
import sys
from bearclass.ship.predictor import Predictor
print(Predictor(sys.argv[1]).predict(sys.argv[2]).label)
'''
make_both = '''
import sys
from bearclass.all import *
learn = image_learner(from_folder(sys.argv[1]))
with learn.no_bar(): learn.fit_one_cycle(1, 2e-3)
learn.export(Path(sys.argv[2])/'export.pkl')
export_bundle(learn, Path(sys.argv[2])/'bundle')
'''


def bench_predict(tmp, n=9):
    "From nothing to the first answer: a new process, the same model in both formats, taking turns."
    measured([sys.executable, '-c', make_both, data/'bears', tmp])
    photo = sorted((data/'bears/teddy').glob('*.jpg'))[0]
    rows = {
        'fastai load_learner + predict':(cold_fastai, tmp/'export.pkl'),
        'bearclass Predictor':(cold_ours, tmp/'bundle')}
    got = {k: [] for k in rows}
    for i in range(n+1):
        for k,(code,model) in rows.items():
            s,mb,text = measured([sys.executable, '-c', code, model, photo])
            assert text.strip().endswith('teddy'), text
            if i: got[k].append((s, mb))      # the first round warms the disk cache
    print(
        '### predict\n\nCold start: new process, import, load, first answer; the net in the box, 224 px, one photo.\n\n| | seconds | peak MB |\n| --- | --- | --- |')
    for k,v in got.items(): print(f'| {k} | {middle([s for s,_ in v])} | {st.median(m for _,m in v):.0f} |')
    a,b = got.values()
    print(
        f'\nRatio, pair by pair: {middle([x[0]/y[0] for x,y in zip(a, b)])} times faster, {st.median(x[1]/y[1] for x,y in zip(a, b)):.1f} times less memory.\n')


def bench_demo(tmp):
    "`make demo SERVE=0` without the install: drawn bears, the net in the box."
    seconds,mb,text = measured([door, 'demo', '--no-serve'], cwd=tmp)
    print(f'### demo\n\n`bearclass demo --no-serve`, offline: {seconds:.0f} s, peak {mb:.0f} MB (n = 1).')
    print(re.search(r'validation set: .*', text)[0]+'\n')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def bench_page(tmp, n=7):
    "From opening the page to the upload button, in Chromium; the first visit after the start is left out."
    from playwright.sync_api import sync_playwright
    port,chromium = free_port(),os.environ.get(
        'BEARCLASS_CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
    app = subprocess.Popen(
        [door, 'app', top/'nbs/app/bundle', '--port', str(port)],
        env=quiet,
        stdout=subprocess.PIPE,
        text=True)
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()
    try:
        while True:
            try: socket.create_connection(('127.0.0.1', port), 1).close(); break
            except OSError: time.sleep(.2)
        seconds = []
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=chromium, args=flags)
            for i in range(n+1):
                page = browser.new_page()
                t = time.perf_counter()
                page.goto(f'http://127.0.0.1:{port}/')
                page.get_by_role('button').first.wait_for(timeout=60_000)
                if i: seconds.append(time.perf_counter()-t)
                page.close()
            browser.close()
        print(f'### page\n\nVoila, page opened to upload button shown, Chromium: {middle(seconds)} s.')
        print(f'Memory of a visitor\'s kernel: {kernel_mb(app.pid):.0f} MB.\n')
    finally:
        app.terminate()
        app.wait(20)


def kernel_mb(pid):
    "Resident memory of the largest kernel below a process."
    ps = subprocess.run(['ps', '-eo', 'rss,args'], capture_output=True, text=True).stdout
    return max(int(l.split()[0])/1024 for l in ps.splitlines() if 'ipykernel_launcher' in l)


def machine():
    cpu = next(
        (l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name')),
        '') if Path('/proc/cpuinfo').exists() else platform.processor()
    return f'{time.strftime("%Y-%m-%d")}, {cpu or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}'


if __name__=='__main__':
    jobs = dict(train=bench_train, predict=bench_predict, demo=bench_demo, page=bench_page)
    print(f'## {machine()}\n')
    for name in sys.argv[1:] or jobs:
        with tempfile.TemporaryDirectory() as d: jobs[name](Path(d))
