"""What `image_learner(...).fit` costs beside plain fastai, and whether channels-last pays on a CPU.

    python benchmarks/learn_overhead.py            # `--tiny`: seconds, to see that it runs

Plain fastai is a `Learner` with the same network, the same data, the same settings. Both take turns in one process, epoch by epoch, and which goes
first alternates; ratios are taken pair by pair. Seconds are those of the processor, on one thread: neighbours on a shared machine disturb them least. Prints Markdown; `RESULTS.md` keeps the figures with the machine they were taken on.
"""
import copy, os, statistics as st, sys, tempfile, time, warnings
from pathlib import Path

os.environ['BEARCLASS_OFFLINE'],os.environ['BEARCLASS_PROGRESS'] = '1','0'
sys.path.insert(0, str(Path(__file__).parent))
from foundation import machine, middle

warnings.simplefilter('ignore')
import torch
from fastai.learner import Learner
from fastai.metrics import error_rate
from bearclass.samples.datasets import draw_bears
from bearclass.learn.blocks import from_folder
from bearclass.learn.devices import DevicePlan
from bearclass.learn.train import image_learner


def pair(root, arch, size, bs):
    "(plain fastai, ours) with the same weights, on the CPU."
    ours = image_learner(from_folder(root, size=size, bs=bs), arch, weights=False, device='cpu', verbose=False)
    dls = from_folder(root, size=size, bs=bs)
    dls.add_tfms([t for t in ours.dls.after_batch.fs if type(t).__name__=='Normalize'], 'after_batch')
    return Learner(dls, copy.deepcopy(ours.model), splitter=ours.splitter, metrics=error_rate), ours


def seconds(learn, seed):
    "One epoch with the same pictures in the same order, varied in the same way."
    torch.manual_seed(seed)
    learn.dls.train.rng.seed(seed)
    with learn.no_bar(), learn.no_logging():
        t = time.process_time()
        learn.fit(1, 1e-3)
        return time.process_time()-t


def take_turns(a, b, n):
    "n pairs of seconds; the first round, which warms up, is left out."
    got = []
    for i in range(n+1):
        one = {k: seconds(l, i) for k,l in ((0, a), (1, b))[::1 if i%2 else -1]}
        if i: got.append((one[0], one[1]))
    return got


def bench_overhead(root, sizes, n):
    print(
        '### overhead\n\nProcessor seconds an epoch, training and validation.\n\n| | plain fastai | `image_learner(...).fit` | ratio, pair by pair |\n| --- | --- | --- | --- |')
    for arch,size,bs in sizes:
        plain,ours = pair(root, arch, size, bs)
        got = take_turns(plain, ours, n)
        print(
            f'| {arch}, {size} px, bs {bs}, {len(ours.dls.train_ds)} pictures | {middle([a for a,_ in got])} | {middle([b for _,b in got])} | {st.median(b/a for a,b in got):.3f} ({min(b/a for a,b in got):.3f} to {max(b/a for a,b in got):.3f}) |',
            flush=True)
    print()


def bench_channels_last(root, sizes, n):
    print(
        '### channels-last on the CPU\n\nProcessor seconds an epoch of `image_learner(...).fit`.\n\n| | as it is | channels-last | ratio, pair by pair |\n| --- | --- | --- | --- |')
    for arch,size,bs in sizes:
        a,b = [
            image_learner(
                from_folder(root, size=size, bs=bs), arch, weights=False,
                device=DevicePlan('cpu', 'the CPU', channels_last=last), verbose=False)
            for last in (False, True)]
        got = take_turns(a, b, n)
        print(
            f'| {arch}, {size} px, bs {bs} | {middle([x for x,_ in got])} | {middle([y for _,y in got])} | {st.median(y/x for x,y in got):.3f} |',
            flush=True)
    print()


if __name__=='__main__':
    tiny = '--tiny' in sys.argv
    torch.set_num_threads(1)
    print(f'## {machine()}, {torch.get_num_threads()} threads\n')
    with tempfile.TemporaryDirectory() as d:
        root = draw_bears(Path(d)/'bears', n_per_class=20 if tiny else 100, size=96).root
        bench_overhead(
            root,
            [('tiny_cnn', 32, 8)] if tiny else [('tiny_cnn', 64, 16), ('resnet18', 96, 16)],
            1 if tiny else 15)
        bench_channels_last(
            root,
            [('tiny_cnn', 32, 8)] if tiny else [('resnet18', 96, 16), ('mobilenet_v2', 96, 16)],
            1 if tiny else 5)
