"""Looking at every file once: bearclass beside fastai, how long it takes and what it finds.

    python benchmarks/gather_verify.py                 # small photos and 20 of 12 megapixels, 5 rounds
    python benchmarks/gather_verify.py --photos 10 --rounds 3

The photos are real ones from `bears/` in BEARCLASS_TEST_DATA where there are any, else drawn bears of 640 pixels. The large ones are made from them:
4000 x 3000 with a camera's noise, JPEG of quality 92, about 3.5 MB each. Both functions run in this process, one after the other, taking turns
in who begins; both may use all cores (fastai's starts processes, ours threads). Prints Markdown; `RESULTS.md` keeps it with the machine.
"""
import argparse, io, os, platform, random, statistics as st, tempfile, time, warnings
from pathlib import Path
os.environ.setdefault('BEARCLASS_PROGRESS', '0')
warnings.simplefilter('ignore')
import numpy as np
from PIL import Image
from fastai.vision.utils import verify_images as theirs
from bearclass.samples.drawing import draw_bear
from bearclass.gather.verify import check_images
from bearclass.dataset import get_image_files
from bearclass.images import open_rgb

top = Path(__file__).resolve().parent.parent
data = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'bears'


def small_photos(root):
    "Files of at most 640 pixels."
    if data.is_dir(): return list(get_image_files(data)), 'real'
    root.mkdir()
    for i in range(200): draw_bear(('black', 'teddy')[i%2], i, 640).save(root/f'{i:03}.jpg', quality=88)
    return list(get_image_files(root)), 'drawn'


def large_photos(root, small, n):
    "`n` photos of 12 megapixels."
    root.mkdir()
    for i in range(n):
        noise = np.random.default_rng(i).normal(0, 6, (3000, 4000, 1)).astype(np.float32)
        a = np.asarray(open_rgb(small[i*len(small)//n]).resize((4000, 3000), Image.BICUBIC), np.float32)+noise
        Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(root/f'{i:02}.jpg', quality=92)
    return list(get_image_files(root))


def seconds(f, *args):
    t = time.perf_counter()
    f(*args)
    return time.perf_counter()-t


def middle(xs, digits=2): return f'{st.median(xs):.{digits}f} ({min(xs):.{digits}f} to {max(xs):.{digits}f}, n = {len(xs)})'


def bench_time(title, files, rounds):
    "Milliseconds a file, and the ratio pair by pair; the first round only warms up, and the order turns round each time."
    jobs = {'fastai verify_images':theirs, 'bearclass check_images':check_images}
    got = {k: [] for k in jobs}
    for i in range(rounds+1):
        for k in list(jobs)[::1 if i%2 else -1]:
            s = seconds(jobs[k], files)
            if i: got[k].append(1000*s/len(files))
    print(f'### {title}\n\n| | ms a file |\n| --- | --- |')
    for k,v in got.items(): print(f'| {k} | {middle(v)} |')
    print(f'\nRatio, pair by pair: {middle([x/y for x,y in zip(*got.values())])}.\n')


# --- what is found ---------------------------------------------------------------------------------------------------

def cut(share): return lambda d, rng: d[:int(share*len(d))]

def zero_tail(d, rng): return d[:len(d)*2//3]+bytes(len(d)-len(d)*2//3)

def hole(d, rng, size=4096):
    "4 KB of zeros somewhere among the pixels of a JPEG, or None where there are not so many."
    a,b = d.rfind(b'\xff\xda')+16,len(d)-size-2
    if a>=b: return None
    a = rng.randrange(a, b)
    return d[:a]+bytes(size)+d[a+size:]

def progressive(f):
    buf = io.BytesIO()
    open_rgb(f).save(buf, 'JPEG', quality=88, progressive=True)
    return buf.getvalue()


def bench_finds(tmp, files):
    "Spoilt copies of every small photo, and the sound ones."
    spoilt = {f'cut to {s:.0%}':cut(s) for s in (.1, .5, .9, .99)} | {
        'last third zeros':zero_tail,
        '4 KB of zeros':hole}
    print(
        '### What is found\n\n| | copies | fastai verify_images | bearclass: any complaint | bearclass: not ok |\n| --- | --- | --- | --- | --- |')
    rows = [(name, spoil, [f.read_bytes() for f in files]) for name,spoil in spoilt.items()]
    rows.append(('4 KB of zeros, progressive', hole, [progressive(f) for f in files[::3]]))
    rows.append(('sound', lambda d, rng: d, [f.read_bytes() for f in files]))
    for name,spoil,sources in rows:
        d = tmp/name
        d.mkdir()
        rng = random.Random(42)
        for i,data in enumerate(sources):
            if bad := spoil(data, rng): (d/f'{i:04}.jpg').write_bytes(bad)
        made = list(get_image_files(d))
        df = check_images(made)
        share = lambda n: f'{n} ({n/len(made):.1%})'
        print(
            f"| {name} | {len(made)} | {share(len(theirs(made)))} | {share(int(df.severity.isin(['fault', 'suspicious']).sum()))} | {share(int((~df.ok).sum()))} |")
    print()


def machine():
    cpu = next(
        (l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name')),
        '') if Path('/proc/cpuinfo').exists() else platform.processor()
    return f'{time.strftime("%Y-%m-%d")}, {cpu or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}'


if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--photos', type=int, default=20)
    p.add_argument('--rounds', type=int, default=5)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        small,kind = small_photos(tmp/'small')
        print(f'## {machine()}\n')
        bench_time(
            f'{len(small)} photos of at most 640 pixels ({kind}), {sum(f.stat().st_size for f in small)/len(small)/1e3:.0f} kB each',
            small,
            args.rounds)
        large = large_photos(tmp/'large', small, args.photos)
        bench_time(
            f'{len(large)} photos of 12 megapixels, {sum(f.stat().st_size for f in large)/len(large)/1e6:.1f} MB each',
            large,
            args.rounds)
        bench_finds(tmp, small)
