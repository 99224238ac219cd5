"""Shrinking a folder once, and an epoch after it: bearclass beside fastai, on 12-megapixel photos.

    python benchmarks/learn_resize.py                 # 20 photos, 5 rounds
    python benchmarks/learn_resize.py --photos 10 --rounds 3

The photos are drawn bears (or, with BEARCLASS_TEST_DATA, real ones from `bears/`), enlarged to 4000 x 3000 with a camera's noise and
saved as JPEG of quality 92, about 3.5 MB each. Both sides of a pair run in this process, one after the other, taking turns in who begins;
fastai's `resize_images` keeps its own defaults (as many processes as there are cores). Prints Markdown; `RESULTS.md` keeps it with the machine.
"""
import argparse, os, platform, shutil, statistics as st, tempfile, time, warnings
from pathlib import Path
os.environ.setdefault('BEARCLASS_PROGRESS', '0')
warnings.simplefilter('ignore')
import numpy as np
from PIL import Image
from fastai.vision.utils import resize_images
from bearclass.samples.drawing import draw_bear
from bearclass.dataset import get_image_files
from bearclass.images import open_rgb
from bearclass.learn.blocks import from_folder
from bearclass.learn.seeing import resize_folder

top = Path(__file__).resolve().parent.parent
data = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'bears'


def make_photos(root, n):
    "`n` photos of 12 megapixels, in two classes."
    for i in range(n):
        label = ('black', 'teddy')[i%2]
        real = sorted((data/label).glob('*.jpg')) if data.is_dir() else []
        im = open_rgb(real[i]) if len(real)>i else draw_bear(label, i, 1000)
        noise = np.random.default_rng(i).normal(0, 6, (3000, 4000, 1)).astype(np.float32)
        a = np.asarray(im.resize((4000, 3000), Image.BICUBIC), np.float32)+noise
        (root/label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(root/label/f'{i:02}.jpg', quality=92)
    files = get_image_files(root)
    return f'{n} photos of 4000 x 3000 ({"real, enlarged" if data.is_dir() else "drawn"}), {sum(f.stat().st_size for f in files)/n/1e6:.1f} MB each'


def seconds(f, *args, **kw):
    t = time.perf_counter()
    f(*args, **kw)
    return time.perf_counter()-t


def middle(xs, digits=1): return f'{st.median(xs):.{digits}f} ({min(xs):.{digits}f} to {max(xs):.{digits}f}, n = {len(xs)})'


def taking_turns(jobs, rounds):
    "{name: seconds of each round}; the first round only warms up, and the order turns round each time."
    got = {k: [] for k in jobs}
    for i in range(rounds+1):
        for k in list(jobs)[::1 if i%2 else -1]:
            s = jobs[k]()
            if i: got[k].append(s)
    return got


def table(got, n, title):
    "Milliseconds a photo, and the ratio pair by pair."
    print(f'### {title}\n\n| | ms a photo |\n| --- | --- |')
    for k,v in got.items(): print(f'| {k} | {middle([1000*s/n for s in v])} |')
    a,b = got.values()
    print(f'\nRatio, pair by pair: {middle([x/y for x,y in zip(a, b)])}.\n')


def bench_resize(root, tmp, n, rounds):
    def into(f, name, **kw):
        "A fresh folder each time, so that nothing is there already."
        shutil.rmtree(tmp/name, ignore_errors=True)
        return seconds(f, root, **{'dest':tmp/name, **kw})
    table(taking_turns({'fastai resize_images(max_size=400, recurse=True)': lambda: into(resize_images, 'theirs', max_size=400, recurse=True),
                        'bearclass resize_folder(max_side=400)': lambda: into(resize_folder, 'ours', max_side=400)}, rounds), n, 'One-off resize to 400 pixels')
    for a,b in zip(get_image_files(tmp/'theirs'), get_image_files(tmp/'ours')):
        assert a.name==b.name and Image.open(a).size==Image.open(b).size==(400, 300)


no_aug = dict(do_flip=False, max_rotate=0, max_warp=0, max_zoom=1., max_lighting=0)


def bench_epoch(root, tmp, n, rounds):
    "The training pictures once, as in training: opened, RandomResizedCrop to 224, in batches of 4; no model."
    def reader(path, aug):
        # two of each class aside
        dls = from_folder(path, size=224, bs=4, splitter=lambda files: (list(range(2, n-2)), [0, 1, n-2, n-1]), **aug)
        return lambda: seconds(lambda: [None for _ in dls.train])
    for words,aug in {
        'RandomResizedCrop, no further augmentation':no_aug,
        'RandomResizedCrop, and aug_transforms on the CPU':{}}.items():
        got = taking_turns(
            {'from the 12 MP files':reader(root, aug), 'from their small copies':reader(tmp/'ours', aug)},
            rounds)
        table(got, n-4, f'An epoch of {n-4} photos without a model: 224 pixels, {words}; num_workers=0')


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
        root,tmp = Path(d)/'photos',Path(d)/'small'
        tmp.mkdir()
        print(f'## {machine()}\n\n{make_photos(root, args.photos)}\n')
        bench_resize(root, tmp, args.photos, args.rounds)
        bench_epoch(root, tmp, args.photos, args.rounds)
