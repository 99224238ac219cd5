"""Features once against training: `quick_tune` and `fine_tune(3)` on real photos, the net in the box, the same splits.

    python benchmarks/learn_quick.py            # five seeds, about eight minutes on two cores
    python benchmarks/learn_quick.py --seeds 2

Wants photos in BEARCLASS_TEST_DATA (`bears/`). Both sides get the same pictures, split and size, in one
process, taking turns. The clock runs from a new learner to a trained one: loading weights and counting errors are left out on both sides.
The notes of `quick_tune` are thrown away before each run; `again` is the second call, which finds them.
"""
import argparse, os, statistics as st, tempfile, time
from pathlib import Path

data = Path(os.environ.get('BEARCLASS_TEST_DATA') or Path(__file__).resolve().parent.parent.parent/'shared/data')
os.environ |= {'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}

from fastai.vision.all import set_seed
from bearclass.learn.blocks import from_folder
from bearclass.learn.features import quick_tune
from bearclass.learn.interpret import evaluate
from bearclass.learn.train import image_learner


def timed(f):
    t = time.perf_counter()
    f()
    return time.perf_counter()-t


def new_learner(seed):
    set_seed(seed, reproducible=True)
    dls = from_folder(data/'bears', seed=seed, valid_pct=.3, bs=64)
    return image_learner(dls, verbose=False)


def quick(seed):
    "(seconds, seconds of a second call, errors, pictures kept aside)."
    learn = new_learner(seed)
    with tempfile.TemporaryDirectory() as cache:
        os.environ['BEARCLASS_CACHE'] = cache
        first = timed(lambda: quick_tune(learn, verbose=False))
        again = timed(lambda: quick_tune(learn, verbose=False))
    ev = evaluate(learn)
    return first, again, int((ev.preds!=ev.targs).sum()), len(ev.targs)


def fine(seed):
    learn = new_learner(seed)
    def go():
        with learn.no_bar(), learn.no_logging(): learn.fine_tune(3)
    s,ev = timed(go),evaluate(learn)
    return s, int((ev.preds!=ev.targs).sum()), len(ev.targs)


def middle(xs, digits=2): return f'{st.median(xs):.{digits}f} ({min(xs):.{digits}f} to {max(xs):.{digits}f}, n = {len(xs)})'
def share(xs): return f'{st.mean(xs):.2%} +- {st.stdev(xs) if len(xs)>1 else 0:.2%}'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=5)
    n = p.parse_args().seeds
    quick(0)   # imports and disk caches
    rows = [(quick(s), fine(s)) for s in range(1, n+1)]
    q,f = zip(*rows)
    print('| | seconds | error rate, mean and deviation over seeds |\n| --- | --- | --- |')
    print(f'| fastai `fine_tune(3)` | {middle([r[0] for r in f], 1)} | {share([r[1]/r[2] for r in f])} |')
    print(f'| `quick_tune` | {middle([r[0] for r in q])} | {share([r[2]/r[3] for r in q])} |')
    print(f'| `quick_tune` again, features known | {middle([r[1] for r in q])} | |')
    print(f'\nRatio, pair by pair: {middle([b[0]/a[0] for a,b in rows], 1)}. '
          f'Error of `quick_tune` minus that of `fine_tune(3)`, pair by pair: {st.mean(a[2]/a[3]-b[1]/b[2] for a,b in rows)*100:+.2f} points.')


if __name__=='__main__': main()
