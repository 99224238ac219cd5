"""`KeepNorms` beside fastai's way with BatchNorms (`train_bn=True`): few pictures, a frozen and an unfrozen stage.

    python benchmarks/learn_norms.py               # thirty drawn bears a class, three seeds
    python benchmarks/learn_norms.py --photos      # photos in BEARCLASS_TEST_DATA (`bears/`)

The net in the box, 96 px, batches of 8. Error rates on the pictures kept aside, after `fit_one_cycle(3, 2e-3)` with a
frozen body, and after two more epochs of the whole net at a tenth of that and less. Both sides begin alike.
"""
import argparse, os, statistics as st, tempfile
from pathlib import Path

data = Path(os.environ.get('BEARCLASS_TEST_DATA') or Path(__file__).resolve().parent.parent.parent/'shared/data')
os.environ |= {'BEARCLASS_OFFLINE': '1', 'BEARCLASS_PROGRESS': '0'}

import numpy as np
from fastai.vision.all import set_seed
from bearclass.dataset import get_image_files
from bearclass.learn.blocks import from_folder
from bearclass.learn.interpret import evaluate
from bearclass.learn.train import image_learner
from bearclass.samples.datasets import draw_bears


def few(files, seed, n=30, asked=40):
    "(positions of `n` pictures a class to learn from, of `asked` others a class to ask about)."
    learn_from,ask = [],[]
    labels = np.array([f.parent.name for f in files])
    for label in sorted(set(labels)):
        mixed = np.random.default_rng(seed).permutation(np.flatnonzero(labels==label)).tolist()
        learn_from += mixed[:n]
        ask += mixed[n:n+asked]
    return sorted(learn_from), sorted(ask)


def both_stages(root, seed, **kwargs):
    "Error rates after the frozen stage and after the unfrozen one."
    set_seed(seed, reproducible=True)
    learn = image_learner(from_folder(root, size=96, bs=8, splitter=lambda files: few(files, seed)), verbose=False, **kwargs)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(3, 2e-3)
        frozen = evaluate(learn).error_rate
        learn.unfreeze()
        learn.fit_one_cycle(2, slice(2e-5, 2e-4))
    return frozen, evaluate(learn).error_rate


def shares(xs): return f'{st.mean(xs):.1%} ({min(xs):.1%} to {max(xs):.1%}, n = {len(xs)})'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--photos', action='store_true')
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        root = data/'bears' if args.photos else draw_bears(Path(d)/'bears', n_per_class=80).root
        print(len(get_image_files(root)), 'pictures, photos' if args.photos else 'pictures, drawn')
        print('| BatchNorms | frozen stage | unfrozen stage |\n| --- | --- | --- |')
        for name,kwargs in {'kept (`KeepNorms`)': {}, "fastai's way (`train_bn=True`)": dict(train_bn=True)}.items():
            rows = [both_stages(root, s, **kwargs) for s in range(args.seeds)]
            print(f'| {name} | ' + ' | '.join(shares(xs) for xs in zip(*rows)) + ' |', flush=True)


if __name__=='__main__': main()
