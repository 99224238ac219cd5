"""What `cleaning_gain` claims, measured: how often its intervals miss, how much each choice of pictures is off, how long it takes.

    python benchmarks/clean_gain.py                 # about five minutes on one core
    python benchmarks/clean_gain.py --seeds 50 --part bias

Made-up features with a known truth (three classes, 12 features); 'seconds' also wants photos and weights in BEARCLASS_TEST_DATA.
"""
import argparse, os, shutil, tempfile, time
from pathlib import Path

data = Path(os.environ.get('BEARCLASS_TEST_DATA') or Path(__file__).resolve().parent.parent.parent/'shared/data')
os.environ |= {'BEARCLASS_WEIGHTS':str(data/'weights'), 'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}

import numpy as np
from bearclass.chance import sign_test
from bearclass.clean.gain import TwoHeads, gain_interval, gain_verdict


def clouds(n, rng, K=3, D=12, apart=1.9):
    y = rng.integers(0, K, n)
    return rng.normal(size=(n, D))+apart*np.eye(K, D)[y], y


def spoilt(y, k, rng, K=3):
    out,wrong = y.copy(),rng.permutation(len(y))[:k]
    out[wrong] = (y[wrong]+rng.integers(1, K, k))%K
    return out


def one(seed, kind, n=150, n_kept=100, k=20, refits=50):
    rng = np.random.default_rng(seed)
    (x,y),(xk,yk) = clouds(n, rng),clouds(n_kept, rng)
    two = TwoHeads(x, spoilt(y, k, rng), y if kind=='right' else spoilt(y, k, rng), xk, yk, 3)
    d = two.difference()[0]
    replays = two.replays(refits, seed)
    both,asked = (gain_interval(d, r, seed=seed) for r in (replays, replays[:0]))
    return both, asked, sign_test(int((d>0).sum()), int((d<0).sum()))


def coverage(seeds):
    print(
        '| cleaning | kept out | true gain | intervals without zero: both kinds of luck | asked alone | called helped or hurt | intervals without the true gain |\n| --- | --- | --- | --- | --- | --- | --- |')
    for kind in 'exchanged', 'right':
        for n_kept,k in ((60, 20), (200, 20), (200, 45)):
            rs = [one(s, kind, n_kept=n_kept, k=k) for s in range(seeds)]
            true = 0. if kind=='exchanged' else np.mean(
                [one(10_000+s, kind, n_kept=4000, k=k, refits=0)[0].value for s in range(200)])
            share = lambda f: f'{np.mean([f(*r) for r in rs]):.1%}'
            print(f'| {k} labels of 150 {kind} | {n_kept} | {true:.2%} | {share(lambda i,a,p: not i.spans_zero())} | {share(lambda i,a,p: not a.spans_zero())} | '
                  f"{share(lambda i,a,p: gain_verdict(i, p)!='cannot tell yet')} | {share(lambda i,a,p: not i.low<=true<=i.high)} |", flush=True)


def bias(seeds):
    "A cleaning that looks at the doubtful pictures of both sides, as judged by each choice of pictures."
    from bearclass.learn.features import fit_head
    rows = {}
    for s in range(seeds):
        rng = np.random.default_rng(s)
        (x,y),(xt,yt) = clouds(400, rng),clouds(5000, rng)
        given,learnt = spoilt(y, 60, rng),np.arange(400)<240
        out = np.zeros(400)
        for f in range(5):   # out of sample: doubtful is what the other folds disagree with
            here = np.arange(400)%5==f
            w,b = fit_head(x[~here], given[~here], 3)
            e = np.exp((z := x[here]@w.T+b)-z.max(1, keepdims=True))
            out[here] = (e/e.sum(1, keepdims=True))[np.arange(here.sum()), given[here]]
        seen = np.zeros(400, bool)
        seen[np.argsort(out)[:120]] = True
        decided = np.where(seen, y, given)
        audit = ~learnt & (rng.permutation(400)<200)
        for name,keep,labels in (('truth: 5,000 other pictures', None, None), ('untouched', ~learnt&~seen, given), ('all, labels as given', ~learnt, given),
                                 ('all, labels as decided', ~learnt, decided), (
                                     'a random half, all looked at',
                                     audit,
                                     y)):
            two = TwoHeads(
                x[learnt], given[learnt], decided[learnt], xt if keep is None else x[keep],
                yt if keep is None else labels[keep], 3)
            rows.setdefault(name, []).append([two.answers(h)[0].mean() for h in (two.first, two.second)])
    print('| judged by | error before | error after | gain |\n| --- | --- | --- | --- |')
    for k,v in rows.items():
        a,b = np.mean(v, 0)
        print(f'| {k} | {a:.1%} | {b:.1%} | {a-b:+.1%} |')


def seconds():
    "Real bears, MobileNetV2, a fifth of the training labels wrong and mended; features known."
    from bearclass.learn.blocks import from_folder
    from bearclass.clean.gain import cleaning_gain
    from bearclass.clean.decisions import CleaningJournal
    from bearclass.learn.train import image_learner
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['BEARCLASS_CACHE'] = str(Path(tmp)/'cache')
        root = Path(tmp)/'bears'
        shutil.copytree(data/'bears', root)
        rng,truth = np.random.default_rng(1),{}
        files = [Path(f) for f in from_folder(root, valid_pct=.3, bs=16).train_ds.items]
        for i in rng.permutation(len(files))[:len(files)//5]:
            f = files[i]
            new = root/rng.choice(
                [c for c in ('black', 'grizzly', 'teddy') if c!=f.parent.name])/f'was {f.parent.name} {f.name}'
            truth[f.rename(new)] = f.parent.name
        learn = image_learner(from_folder(root, valid_pct=.3, bs=16), 'mobilenet_v2', verbose=False)
        CleaningJournal(root).mark_many(list(truth.items()))
        for what in 'first, features computed', 'again, features known':
            t = time.perf_counter()
            g = cleaning_gain(learn)
            print(f'{what}: {time.perf_counter()-t:.1f} s')
        print(g)


if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=100)
    p.add_argument('--part', choices=['coverage', 'bias', 'seconds'])
    a = p.parse_args()
    for part,f in dict(coverage=lambda: coverage(a.seeds), bias=lambda: bias(a.seeds), seconds=seconds).items():
        if a.part in (None, part): f()
