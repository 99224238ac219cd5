"""Unknown pictures, measured: the feature bank beside the course's way, which trusts the highest probability.

    python benchmarks/ship_unknown.py

The net in the box on drawn bears at 96 and 224 pixels, and on the photos of ../shared/data (or BEARCLASS_TEST_DATA) where
they are, three seeds each. Strangers: blank squares, noise, handwritten digits, and one class that was left out of the
training. Prints the area under the ROC curve (1: all strangers lie farther than all pictures that belong) of both ways,
and how many held-out pictures the bank calls unknown.
"""
import os, tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from bearclass.dataset import get_image_files
from bearclass.learn.blocks import from_folder
from bearclass.learn.features import picture_features
from bearclass.learn.train import image_learner
from bearclass.samples.datasets import digits_folder, draw_bears
from bearclass.ship.unknown import fit_bank

top = Path(__file__).resolve().parent.parent
photos = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'bears'
tmp = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)


def saved(name, pixels):
    Image.fromarray(pixels).save(tmp/name)
    return tmp/name


strangers = dict(
    blank=[saved(f'blank{i}.png', np.full((100, 100, 3), rng.integers(0, 256, 3), np.uint8)) for i in range(30)],
    noise=[saved(f'noise{i}.png', rng.integers(0, 256, (100, 100, 3), np.uint8)) for i in range(30)],
    digits=get_image_files(digits_folder(tmp/'digits'))[:30])


def compare(name, x, labels, odd, seeds=3):
    "One line: both ways on features `x` (N, D) with `labels` (N,), and `odd`, features of strangers by kind."
    kinds = {**{k: None for k in odd}, 'a class left out': None}
    banks,highest,alarms = ({k: [] for k in kinds} for _ in range(3))
    for seed in range(seeds):
        for kind in kinds:
            out = np.unique(labels)[seed%len(np.unique(labels))] if kind=='a class left out' else None
            belongs = np.random.default_rng(seed).permutation(np.flatnonzero(labels!=out))
            learnt,kept = belongs[len(belongs)//4:],belongs[:len(belongs)//4]
            far = odd[kind] if out is None else x[labels==out]
            bank,head = fit_bank(x[learnt]),LogisticRegression(C=.01, max_iter=2000).fit(x[learnt], labels[learnt])
            truth = [0]*len(kept) + [1]*len(far)
            both = np.concatenate([x[kept], far])
            banks[kind].append(roc_auc_score(truth, bank.distance(both)))
            highest[kind].append(roc_auc_score(truth, -head.predict_proba(both).max(1)))
            alarms[kind].append((bank.distance(x[kept])>bank.threshold).mean())
    for kind in kinds:
        print(f'{name:22} {kind:18} bank {np.mean(banks[kind]):.3f}  highest probability {np.mean(highest[kind]):.3f}  '
              f'false alarms {np.mean(alarms[kind]):.1%}', flush=True)


drawn = draw_bears(tmp/'bears', n_per_class=130, seed=42).root
for name,root,size in ('drawn bears, 96 px', drawn, 96), ('drawn bears, 224 px', drawn, 224), ('photos, 224 px', photos, 224):
    if not root.is_dir():
        print(f'{name}: not here')
        continue
    learn = image_learner(from_folder(root, size=size), verbose=False)
    known = picture_features(learn)
    far = {kind: picture_features(learn, files).x for kind,files in strangers.items()}
    compare(name, known.x, np.array([f.parent.name for f in known.files]), far)
