"""Downloading a list of addresses: bearclass beside fastai's `download_images`.

    python benchmarks/gather_download.py clean hostile drip small     # or some of them
    python benchmarks/gather_download.py clean --rounds 5

clean: 300 good pictures, each answered after 50 to 150 ms.
hostile: the same 300, and 30 each of: 404, an error 500 that passes, a server that hangs, a broken connection, an HTML page called .jpg,
a redirect, a duplicate, 22 MB. Both sides get 4 seconds of patience, fastai's default. Wanted are 360 pictures: 300, those behind the
passing error, those behind the redirect; everything else on the disk is unwanted.
drip: one byte a second, for as long as it takes.
small: `max_side=400` while saving, beside fastai's `resize_image` afterwards, on 12-megapixel photos, one thread each.

The server (tests/hostile.py) is a process of its own with its pictures made beforehand. It is asked under 40 addresses of the loopback
network (127.0.0.2 and on), as the results of a search lie on many hosts: with one host the limit of 8 requests per host would be measured,
and nothing else. Every run is a process of its own, the sides take turns, and the time is that of the call alone, with the HTTP client imported before it on both sides; processor time and peak
memory are those of the whole process, imports included, by the operating system's count. Prints Markdown.
"""
import argparse, hashlib, json, os, platform, statistics as st, subprocess, sys, tempfile, time
from pathlib import Path

top = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(top/'tests'))
hosts = [f'127.0.0.{i}' for i in range(2, 42)]
env = {**os.environ, 'BEARCLASS_PROGRESS':'0', 'PYTHONWARNINGS':'ignore'}

theirs = '''
import json, sys, time
from pathlib import Path
from fastai.vision.utils import download_images
urls,root,n = json.load(sys.stdin),Path(sys.argv[1]),int(sys.argv[2])
t,c = time.perf_counter(),time.process_time()
download_images(root, urls=urls, n_workers=n)
print(json.dumps(dict(seconds=time.perf_counter()-t, cpu=time.process_time()-c, said='')))
'''
ours = '''
import json, sys, time, aiohttp
from bearclass.gather.download import download
from bearclass.gather.fetch import FetchRules
urls,patience = json.load(sys.stdin),float(sys.argv[2])
t,c = time.perf_counter(),time.process_time()
report = download(urls, sys.argv[1], rules=FetchRules(connections=64, allow_local=True, read_s=patience, total_s=patience))
assert report.saved+report.duplicate+report.failed==report.addresses==len(urls)
print(json.dumps(dict(seconds=time.perf_counter()-t, cpu=time.process_time()-c,
      said=f'{report.saved} saved, {report.duplicate} duplicate, {report.failed} failed: '+', '.join(f'{v} {k}' for k,v in report.reasons.items()))))
'''
sides = {'fastai, 8 workers (default)':(theirs, 8), 'fastai, n_workers=32':(theirs, 32), 'bearclass':(ours, 30)}


def serve(kind):
    "Run the server until the parent goes away; prints its port when all pictures are drawn."
    import asyncio, hostile
    start = asyncio.start_server
    hostile.asyncio.start_server = lambda client, host, port, **kw: start(client, '0.0.0.0', port, **kw)
    for n in (*range(300), *range(1000, 1030), *range(2000, 2030), *range(10_000, 10_030)): hostile.jpeg(n, 256)
    with hostile.HostileServer((.05, .15), 256) as server:
        print(server.port, flush=True)
        sys.stdin.read()


def lists(kind, port):
    "(addresses, hashes of the wanted pictures)"
    import hostile
    class Many:
        "Spreads the paths over all hosts."
        n = 0
        def url(self, path):
            Many.n += 1
            return f'http://{hosts[Many.n%len(hosts)]}:{port}{path}'
    bad = dict(clean=0, hostile=30)[kind]
    numbers = (*range(300), *(range(1000, 1030) if bad else ()), *(range(10_000, 10_030) if bad else ()))
    return hostile.hostile_list(Many(), 300, bad), {hashlib.sha256(hostile.jpeg(n, 256)).hexdigest() for n in numbers}


def one(kind, code, arg, wanted_of=lists):
    "A fresh server, a fresh process, a fresh folder: what it took, and what lies there."
    server = subprocess.Popen(
        [sys.executable, __file__, 'serve', kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True)
    try:
        urls,wanted = lists(kind, int(server.stdout.readline()))
        with tempfile.TemporaryDirectory() as d, tempfile.TemporaryFile('w+') as asked, tempfile.TemporaryFile('w+') as out:
            json.dump(urls, asked)
            asked.seek(0)
            p = subprocess.Popen(
                [sys.executable, '-c', code, f'{d}/pictures', str(4 if code is ours and kind=='hostile' else arg)],
                stdin=asked, stdout=out, env=env, cwd=top)
            _,status,use = os.wait4(p.pid, 0)
            assert not status, status
            out.seek(0)
            got = json.loads(out.read().splitlines()[-1])
            files = [f for f in Path(d, 'pictures').rglob('*') if f.is_file() and f.name!='manifest.jsonl']
            found = [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    finally:
        server.stdin.close()
        server.wait(10)
    have = wanted & set(found)
    return {
        **got, 'mb':use.ru_maxrss/(1024 if sys.platform!='darwin' else 2**20), 'all_cpu':use.ru_utime+use.ru_stime,
        'wanted':len(have), 'unwanted':len(found)-len(have)}


def middle(xs, digits=2): return f'{st.median(xs):.{digits}f} ({min(xs):.{digits}f} to {max(xs):.{digits}f}, n = {len(xs)})'


def bench(kind, rounds):
    got = {k: [] for k in sides}
    for i in range(rounds):
        for k in list(sides)[::1 if i%2 else -1]: got[k].append(one(kind, *sides[k]))
    print(
        f'### {kind}\n\n| | seconds | CPU s, call / whole process | peak MB | wanted | unwanted |\n| --- | --- | --- | --- | --- | --- |')
    for k,v in got.items():
        print(f'| {k} | {middle([r["seconds"] for r in v])} | {st.median(r["cpu"] for r in v):.1f} / {st.median(r["all_cpu"] for r in v):.1f} | {st.median(r["mb"] for r in v):.0f} '
              f'| {min(r["wanted"] for r in v)} | {max(r["unwanted"] for r in v)} |')
    a,b,o = ([r['seconds'] for r in v] for v in got.values())
    print(
        f'\nTimes faster, pair by pair: than the default {middle([x/z for x,z in zip(a, o)], 1)}, than 32 workers {middle([y/z for y,z in zip(b, o)], 1)}.')
    print(f"Our report: {got['bearclass'][-1]['said']}\n")


def bench_clean(rounds): bench('clean', rounds or 5)
def bench_hostile(rounds): bench('hostile', rounds or 3)


def bench_drip(rounds):
    "A deadline around the whole attempt."
    from bearclass.gather.download import download
    from bearclass.gather.fetch import FetchRules
    from hostile import HostileServer
    with HostileServer() as server, tempfile.TemporaryDirectory() as d:
        late = []
        for i in range(rounds or 3):
            t = time.perf_counter()
            report = download([server.url(f'/drip?{i}')], d, rules=FetchRules(allow_local=True, total_s=3.))
            late.append(time.perf_counter()-t-3)
            assert report.reasons=={'timeout':i+1} if i==0 else report.failed==1
    print(f'### drip\n\nOne byte a second, a deadline of 3 s: over after the deadline + {middle(late)} s.\n')


def bench_small(rounds, n=8):
    "12-megapixel photos, one thread."
    import numpy as np
    from PIL import Image
    from fastai.vision.utils import resize_image
    from bearclass.gather.judge import judge_picture
    from bearclass.samples.drawing import draw_bear
    with tempfile.TemporaryDirectory() as d:
        files = [Path(d, f'{i}.jpg') for i in range(n)]
        for i,f in enumerate(files):
            noise = np.random.default_rng(i).normal(0, 6, (3000, 4000, 1)).astype(np.float32)
            a = np.asarray(draw_bear('teddy', i, 1000).resize((4000, 3000), Image.BICUBIC), np.float32)+noise
            Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(f, quality=92)
        jobs = {'fastai resize_image, of the file that was saved':lambda f: resize_image(f.name, Path(d)/'theirs', src=d, max_size=400),
                'bearclass judge_picture(max_side=400), on its way in':lambda f: judge_picture(f.read_bytes(), max_side=400)}
        got = {k: [] for k in jobs}
        for i in range((rounds or 5)+1):
            for k,f in list(jobs.items())[::1 if i%2 else -1]:
                t = time.perf_counter()
                for fn in files: f(fn)
                if i: got[k].append(1000*(time.perf_counter()-t)/n)
    print(f'### small\n\n{n} photos of 4000 x 3000, to 400 pixels.\n\n| | ms a photo |\n| --- | --- |')
    for k,v in got.items(): print(f'| {k} | {middle(v, 1)} |')
    a,b = got.values()
    print(f'\nRatio, pair by pair: {middle([x/y for x,y in zip(a, b)], 1)}.\n')


def machine():
    cpu = next(
        (l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name')),
        '') if Path('/proc/cpuinfo').exists() else platform.processor()
    return f'{time.strftime("%Y-%m-%d")}, {cpu or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}'


if __name__=='__main__':
    if sys.argv[1:2]==['serve']: sys.exit(serve(sys.argv[2]))
    p = argparse.ArgumentParser()
    p.add_argument('jobs', nargs='*', help='clean hostile drip small')
    p.add_argument('--rounds', type=int)
    args = p.parse_args()
    print(f'## {machine()}\n')
    for job in args.jobs or ('clean', 'hostile', 'drip', 'small'): globals()[f'bench_{job}'](args.rounds)
