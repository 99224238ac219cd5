"""How many wrong labels does `label_issues` find? Labels are flipped by seed, and the first 2k of the table (k = flipped labels) are looked at.

    python benchmarks/clean_issues.py                 # digits, drawn bears, and the real bears where they are; about fifteen minutes on two cores
    python benchmarks/clean_issues.py --only bears    # one of digits, mnist, drawn, bears
    python benchmarks/clean_issues.py --seeds 2

Wants photos and MNIST in BEARCLASS_TEST_DATA (`bears/`, `mnist/`). Two kinds of noise: `uniform` (any picture, any other
class) and `one way` (only pictures of the first class, called the second). Compared for the ranking: self-confidence, normalized margin,
confidence-weighted entropy, and self-confidence and margin of the adjusted probabilities; `label_issues` uses the last. The validation set's top losses
are given the best they could do: every wrong label among the fifth of the pictures that it holds.
"""
import argparse, os, statistics as st, tempfile, time
from pathlib import Path

data = Path(os.environ.get('BEARCLASS_TEST_DATA') or Path(__file__).resolve().parent.parent.parent/'shared/data')
os.environ |= {'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}

import numpy as np
from torch import nn
from types import SimpleNamespace
from bearclass.samples.datasets import digits_folder
from bearclass.samples.datasets import draw_bears
from bearclass.learn.blocks import from_folder
from bearclass.learn.features import picture_features
from bearclass.clean.issues import adjusted_probs, confident_joint, deal_folds, normalized_margin, out_of_fold_probs, patch_body, self_confidence
from bearclass.learn.splits import hash_fraction
from bearclass.learn.train import image_learner


def flip(y, share, seed, kind):
    "(labels with some made wrong, positions of those)."
    rng,k = np.random.default_rng(seed),round(share*len(y))
    pool = np.arange(len(y)) if kind=='uniform' else np.flatnonzero(y==0)
    where,new = rng.permutation(pool)[:min(k, len(pool) if kind=='uniform' else int(.4*len(pool)))],y.copy()
    new[where] = (y[where]+rng.integers(1, y.max()+1, len(where)))%(y.max()+1) if kind=='uniform' else 1
    return new, where


def weighted_entropy(y, p):
    "cleanlab's confidence-weighted entropy, turned so that low is bad."
    entropy = -(p*np.log(np.maximum(p, 1e-12))).sum(1)/np.log(p.shape[1])
    return np.log(np.maximum(self_confidence(y, p), 1e-12))/np.maximum(entropy, 1e-6)


SCORES = dict(
    adjusted_margin=lambda y, p: normalized_margin(y, adjusted_probs(y, p)), adjusted_confidence=lambda y,
    p: self_confidence(y, adjusted_probs(y, p)), self_confidence=self_confidence, margin=normalized_margin,
    weighted_entropy=weighted_entropy)


def recall(score, wrong): return float(np.isin(wrong, np.argsort(score, kind='stable')[:2*len(wrong)]).mean())


def middle(xs): return f'{st.median(xs):.3f} ({min(xs):.3f} to {max(xs):.3f})'


def trial(feats, y, share, kind, seed):
    "{score: recall}, wrong labels estimated, seconds of the five folds, the validation set's best."
    given,wrong = flip(y, share, seed, kind)
    start = time.perf_counter()
    fold = deal_folds(given, np.arange(len(y)), np.array([hash_fraction(s, seed) for s in feats.sha256]))
    p = out_of_fold_probs(feats.x, given, fold, int(y.max())+1)
    seconds,joint = time.perf_counter()-start,confident_joint(given, p)
    valid = np.array([hash_fraction(s, seed+100)<.2 for s in feats.sha256])
    return {k: recall(f(given, p), wrong) for k,f in SCORES.items()}, (
        joint.sum()-np.trace(joint))/len(wrong), seconds, float(valid[wrong].mean())


def report(name, feats, seeds, shares=(.05, .1, .2)):
    y = np.unique([f.parent.name for f in feats.files], return_inverse=True)[1]
    for share,kind in [(s, 'uniform') for s in shares]+[(.1, 'one way')]:
        runs = [trial(feats, y, share, kind, s) for s in range(1, seeds+1)]
        best = [max(r[3], 1e-9) for r in runs]
        print(f"| {name}, {len(y):,} | {share:.0%} {kind} | {' | '.join(middle([r[0][k] for r in runs]) for k in SCORES)} | "
              f"{min(r[0]['adjusted_margin']/b for r,b in zip(runs, best)):.1f} | {st.median(r[1] for r in runs):.2f} | {st.median(r[2] for r in runs):.2f} |", flush=True)


def looked(dls):
    "Features by patches, the time it took."
    start = time.perf_counter()
    feats = picture_features(SimpleNamespace(model=nn.Sequential(patch_body(dls), nn.Identity()), dls=dls), cache=False)
    print(f'<!-- {len(feats.files):,} pictures looked at in {time.perf_counter()-start:.1f} s -->', flush=True)
    return feats


def digits(seeds, tmp, idx=None):
    root = digits_folder(tmp/'digits', digits=range(10), idx=idx, limit=None if idx is None else 1000)
    report(
        'digits (scikit-learn)' if idx is None else 'MNIST, 1,000 and 1,000 of each',
        looked(from_folder(root, size=28, bs=64, train='train', valid='valid')),
        seeds)


def drawn(seeds, tmp, n):
    root = draw_bears(tmp/'bears', n_per_class=n, seed=7, size=128).root
    report(f'drawn bears, {n} of each, patches', looked(from_folder(root, size=64, bs=64)), seeds)
    learn = image_learner(from_folder(root, size=128, bs=64), verbose=False)
    report(f'drawn bears, {n} of each, the net in the box', picture_features(learn, cache=False), seeds)


def bears(seeds, tmp):
    learn = image_learner(from_folder(data/'bears', bs=64), verbose=False)
    report('photos of bears, the net in the box', picture_features(learn, cache=False), max(seeds, 10))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=5)
    p.add_argument('--only', choices=('digits', 'mnist', 'drawn', 'bears'))
    p.add_argument('--n', type=int, default=600, help='drawn bears of each kind')
    a = p.parse_args()
    print(
        f"| data, pictures | noise | {' | '.join(SCORES)} | least times the validation set's best | estimated / truly wrong | five folds, s |\n{'| --- '*(len(SCORES)+5)}|")
    jobs = dict(
        bears=lambda t: bears(a.seeds, t),
        digits=lambda t: digits(a.seeds, t),
        drawn=lambda t: drawn(a.seeds, t, a.n),
        mnist=lambda t: digits(min(a.seeds, 2), t, data/'mnist'))
    for name,job in jobs.items():
        if a.only not in (None, name) or (name in ('bears', 'mnist') and not (data/name).is_dir()): continue
        with tempfile.TemporaryDirectory() as t: job(Path(t))


if __name__=='__main__': main()
