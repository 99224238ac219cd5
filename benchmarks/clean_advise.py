"""How often `weigh` and `advise` are right where the answer is known, and how often they name something where there is nothing to gain.

    python benchmarks/clean_advise.py               # about eight minutes on one core
    python benchmarks/clean_advise.py --seeds 5 --part clouds

The clouds are those of the notebook on advice. The photos of bears are wanted in BEARCLASS_TEST_DATA (`bears/`, `weights/`) and left out where missing.
"""
import argparse, os, tempfile, time
from collections import Counter
from pathlib import Path

data = Path(os.environ.get('BEARCLASS_TEST_DATA') or Path(__file__).resolve().parent.parent.parent/'shared/data')
os.environ |= {'BEARCLASS_WEIGHTS':str(data/'weights'), 'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}

import numpy as np
from bearclass.clean.advise import advise, weigh

names = ['black', 'grizzly', 'teddy']


def clouds(counts=(130, 130, 130), dims=60, gap=3.5, wrong=0., seed=0):
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=(len(true), dims))
    x[np.arange(len(true)), true] += gap
    y = np.where(rng.random(len(true))<wrong, (true+rng.integers(1, len(counts), len(true)))%len(counts), true)
    return x.astype(np.float32), y


def chessboard(seed):
    x = np.random.default_rng(seed).normal(size=(400, 8))
    return x.astype(np.float32), (x[:, 0]*x[:, 1]>0).astype(int)


def easy_rare(seed):
    x,y = clouds((150, 10, 150), 40, 2.5, seed=seed)
    x[y==1, 1] += 6
    return x, y


cases = {'wrong labels, 20 %':lambda s: (*clouds(gap=4.5, wrong=.2, seed=s), names, 97),
         'one rare class':lambda s: (*clouds((150, 10, 150), gap=2.2, seed=s), names, 6),
         'chessboard':lambda s: (*chessboard(s), names[:2], 10),
         'too few':lambda s: (*clouds((8, 8, 8), dims=30, gap=3, seed=s), names, 3),
         'nothing: all fine':lambda s: (*clouds(dims=10, gap=5, seed=s), names, 10),
         'nothing: overlap':lambda s: (*clouds(dims=3, gap=1.8, seed=s), names, 30),
         'nothing: much overlap':lambda s: (*clouds(dims=3, gap=1., seed=s), names, 30),
         'nothing: two small classes':lambda s: (*clouds((60, 60), dims=4, gap=1.5, seed=s), names[:2], 10),
         'nothing: rare but easy':lambda s: (*easy_rare(s), names, 6)}


def photos(seeds):
    "The real bears as they are, and with a fifth of the labels flipped."
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.features import picture_features
    from bearclass.learn.train import image_learner
    learn = image_learner(from_folder(data/'bears'), 'mobilenet_v2', verbose=False)
    advise(learn)
    t = time.perf_counter()
    print(f'\n{advise(learn)}\n\n{time.perf_counter()-t:.1f} s on known features\n')
    f = picture_features(learn)
    y = np.unique([o.parent.name for o in f.files], return_inverse=True)[1]
    said = Counter()
    for s in range(seeds):
        rng = np.random.default_rng(s)
        wrong = rng.random(len(y))<.2
        said[
            weigh(f.x, np.where(wrong, (y+rng.integers(1, 3, len(y)))%3, y), names, int(wrong.sum()), seed=s).verdict] += 1
    print('photos, 20 % flipped:', dict(said))


def clouds_of_each_kind(seeds):
    for name,make in cases.items():
        t,m = time.perf_counter(),2*seeds if name.startswith('nothing') else seeds
        answers = [weigh(*make(s), seed=s) for s in range(1000, 1000+m)]
        print(
            f'{name:27} n = {m}',
            dict(Counter(a.verdict+(f' of {a.option.label}' if a.option and a.option.label else '') for a in answers)),
            f'{(time.perf_counter()-t)/m:.1f} s each',
            flush=True)


def longer(seeds, tmp):
    "All ten digits, 400 pictures, and a training of two epochs."
    from fastai.vision.all import set_seed
    from bearclass.samples.datasets import digits_folder
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    root = digits_folder(tmp/'ten', digits=range(10), limit=40)/'train'
    for s in range(seeds):
        set_seed(s)
        learn = image_learner(
            from_folder(root, size=24, bs=16, valid_pct=.6, augment=False),
            'tiny_cnn',
            weights=False,
            verbose=False)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 8e-3)
        a = advise(learn, repeats=1, seed=s)
        print(f'two epochs, seed {s}: {a.verdict}; {a.options[0]}', flush=True)


def drawn(seeds, tmp):
    "Drawn bears, 150 a kind, of which a fifth lies in a wrong folder; features of patches."
    from bearclass.samples.datasets import draw_bears
    from bearclass.learn.blocks import from_folder
    for s in range(seeds):
        a = advise(
            from_folder(draw_bears(tmp/f'bears{s}', 150, size=64, seed=s, label_noise=.2).root, size=48, bs=8),
            seed=s)
        print(f'drawn bears, 20 % wrong, seed {s}: {a.verdict}; error {a.error:.1%}; {a.options[0]}', flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=20)
    p.add_argument('--part', choices=['clouds', 'longer', 'drawn', 'photos'])
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['BEARCLASS_CACHE'] = str(Path(tmp)/'cache')
        few = max(3, a.seeds//5)
        parts = dict(
            clouds=lambda: clouds_of_each_kind(a.seeds),
            longer=lambda: longer(few, Path(tmp)),
            drawn=lambda: drawn(few, Path(tmp)),
            photos=lambda: photos(max(3, a.seeds//2)))
        if not ((data/'bears').is_dir() and (data/'weights').is_dir()): del parts['photos']
        for name,run in parts.items():
            if a.part in (None, name): run()


if __name__=='__main__': main()
