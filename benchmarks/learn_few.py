"""What the weights in the box are worth with few pictures: `quick_tune` on photos, thirty a class, and on drawn bears.

    python benchmarks/learn_few.py                 # photos in BEARCLASS_TEST_DATA (`bears/`); drawings in any case

224 px. Photos: thirty a class to learn from, error on all the others, five choices of the thirty; and the seconds of a first
`quick_tune` on all photos, a fifth kept aside, without loading the weights. Drawn bears: 130 a class, a fifth kept aside,
three times other drawings.
"""
import os, statistics as st, tempfile, time
from pathlib import Path

data = Path(os.environ.get('BEARCLASS_TEST_DATA') or Path(__file__).resolve().parent.parent.parent/'shared/data')
os.environ |= {'BEARCLASS_OFFLINE': '1', 'BEARCLASS_PROGRESS': '0'}

import numpy as np
from bearclass.learn.blocks import from_folder
from bearclass.learn.features import quick_tune, targets_of
from bearclass.learn.train import image_learner
from bearclass.samples.datasets import draw_bears


def some_of_each(files, seed, n=30):
    "(positions of `n` pictures of each class, all the others)."
    labels = np.array([f.parent.name for f in files])
    mixed = np.random.default_rng(seed).permutation(len(files))
    chosen = np.concatenate([[i for i in mixed if labels[i]==label][:n] for label in sorted(set(labels))])
    return chosen.tolist(), np.setdiff1d(mixed, chosen).tolist()


def error(root, **kwargs):
    "(seconds of `quick_tune`, wrong, asked)."
    learn = image_learner(from_folder(root, bs=16, **kwargs), verbose=False)
    t = time.perf_counter()
    seen = quick_tune(learn, verbose=False)
    s,row,lin = time.perf_counter()-t,dict(zip(seen.files, seen.x)),learn.model[1][-1]
    x = np.stack([row[f] for f in learn.dls.valid_ds.items])   # as `evaluate` would say, without looking again
    preds = (x@lin.weight.detach().numpy().T+lin.bias.detach().numpy()).argmax(1)
    return s, int((preds!=targets_of(learn.dls.valid_ds)).sum()), len(preds)


def report(name, rows):
    shares = [wrong/asked for _,wrong,asked in rows]
    print(f'{name}: error {st.mean(shares):.1%} in the mean, '
          f'{", ".join(f"{wrong} of {asked}" for _,wrong,asked in rows)}', flush=True)


def main():
    with tempfile.TemporaryDirectory() as d:
        os.environ['BEARCLASS_CACHE'] = f'{d}/cache'
        drawn = [draw_bears(Path(d)/f'drawn{seed}', n_per_class=130, seed=seed).root for seed in range(3)]
        error(drawn[0], valid_pct=.2)   # imports, disk caches
        if (data/'bears').is_dir():
            first = error(data/'bears', valid_pct=.2)
            report(f'all photos, a fifth kept aside, first time {first[0]:.1f} s', [first])
            rows = [error(data/'bears', splitter=lambda files: some_of_each(files, seed)) for seed in range(5)]
            report('photos, thirty a class', rows)
        report('drawn bears, 130 a class', [error(root, valid_pct=.2, seed=i) for i,root in enumerate(drawn)])


if __name__=='__main__': main()
