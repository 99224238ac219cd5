"""SGD by hand against the fastai Learner: 784 -> 1 on threes and sevens, 10 epochs, the same start, loss and learning rate.

    python benchmarks/scratch_sgd.py

Takes full MNIST from BEARCLASS_TEST_DATA (`mnist/`) or ../shared/data (12,396 rows to train, 2,038 to check with), else noise
with as many rows, and says which. Both sides shuffle each epoch, and measure loss and accuracy on the validation set after it.
The Learner is taken twice: with data loaders as the course makes them, and at its best, fed as our loop is, so that
only its own loop and callbacks are compared. Prints medians, ranges and ratios; `RESULTS.md` keeps them with the machine.

One thread: a batch of 256 x 784 times 784 x 1 is 0.2 million multiplications, tens of microseconds of work. Waking a second
thread and waiting for it costs as much, and on a busy machine many times more.
"""
import os, statistics as st, time, warnings
from pathlib import Path

import torch
from torch import nn
from bearclass.scratch.classifier import batch_accuracy, mnist_loss, stack_3_7, train_epoch, validate_epoch
from bearclass.scratch.digits import load_digits_3_7
from bearclass.scratch.sgd import DataLoader, init_params, linear

with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader as FastaiLoader
    from fastai.learner import Learner
    from fastai.optimizer import SGD

top = Path(__file__).resolve().parent.parent
mnist = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'mnist'
lr,bs,epochs,n = 1., 256, 10, 7


def rows_and_targets():
    "((xs, targs), (xs_valid, targs_valid)), rows of 784 floats and a column of 0 or 1."
    if mnist.is_dir():
        d = load_digits_3_7(idx=mnist)
        sets = stack_3_7(d.train_3, d.train_7), stack_3_7(d.valid_3, d.valid_7)
        return tuple((x.flatten(1), (y==3).float()[:,None]) for x,y in sets)
    print('no MNIST here: noise in its place, so the accuracies mean little')
    g = torch.Generator().manual_seed(42)
    direction = torch.randn(784, generator=g)
    xs = [torch.rand(k, 784, generator=g) for k in (12_396, 2038)]
    return tuple((x, ((x-.5)@direction>0).float()[:,None]) for x in xs)


def start(): return init_params((784,1), std=.01, seed=1), torch.zeros(1, requires_grad=True)


def by_hand(train, valid, seed):
    w,b = start()
    model = lambda xb: linear(xb, w, b)
    dl,valid_dl = DataLoader(*train, bs, shuffle=True, seed=seed),DataLoader(*valid, bs)
    for _ in range(epochs):
        train_epoch(model, lr, [w, b], dl)
        # the Learner measures it as well
        with torch.no_grad(): mnist_loss(model(valid[0]), valid[1]).item()
        accuracy = validate_epoch(model, valid_dl)
    return accuracy


class Slices(FastaiLoader):
    "fastai's loader, with batches picked from the tensors in place of item by item."
    def create_batches(self, samps):
        x,y = self.dataset.tensors
        order = torch.randperm(len(x)) if self.shuffle else torch.arange(len(x))
        for i in order.split(self.bs): yield x.index_select(0, i), y.index_select(0, i)


def learner(train, valid, seed, Loader=FastaiLoader):
    torch.manual_seed(seed)
    if Loader is Slices: train,valid = torch.utils.data.TensorDataset(*train), torch.utils.data.TensorDataset(*valid)
    else: train,valid = list(zip(*train)), list(zip(*valid))           # as in the course
    dls = DataLoaders(
        Loader(train, bs=bs, shuffle=True, num_workers=0),
        Loader(valid, bs=bs, num_workers=0),
        device='cpu')
    net,(w,b) = nn.Linear(784, 1), start()
    with torch.no_grad(): net.weight[:],net.bias[:] = w.T, b
    learn = Learner(dls, net, opt_func=SGD, loss_func=mnist_loss, metrics=batch_accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, lr)
    return float(learn.recorder.values[-1][-1])


def measured(ways, *data):
    "{name: (seconds, accuracies)}, taken in turns, so that a busy minute of the machine falls on all of them."
    for f in ways.values(): f(*data, 99)   # once to warm up
    out = {name: ([], []) for name in ways}
    for seed in range(n):
        for name,f in ways.items():
            t = time.perf_counter()
            accuracy = f(*data, seed)
            out[name][0].append(time.perf_counter()-t)
            out[name][1].append(accuracy)
    return out


if __name__=='__main__':
    torch.set_num_threads(1)
    train,valid = rows_and_targets()
    ways = {'by hand': by_hand, 'fastai Learner, loaders as in the course': learner,
            'fastai Learner, fed with whole batches': lambda *a: learner(*a, Slices)}
    runs = measured(ways, train, valid)
    base = st.median(runs['by hand'][0])
    print(f'\n### SGD, 784 -> 1, {len(train[0]):,} rows, {epochs} epochs, batches of {bs}, one thread\n')
    print(
        f'| way | s, median of {n} (min to max) | to by hand | accuracy, median (min to max) |\n| --- | --- | --- | --- |')
    for name,(t,a) in runs.items():
        print(
            f'| {name} | {st.median(t):.2f} ({min(t):.2f} to {max(t):.2f}) | {st.median(t)/base:.1f} x | {st.median(a):.4f} ({min(a):.4f} to {max(a):.4f}) |')
    ratio = min(st.median(t) for name,(t,_) in runs.items() if name!='by hand')/base
    gap = max(abs(st.median(a)-st.median(runs['by hand'][1])) for _,a in runs.values())
    print(
        f'\nFastest Learner to by hand: {ratio:.1f} x (goal: 3): {"met" if ratio>=3 else "MISSED"}. Accuracies differ by {gap:.4f} at most (goal: 0.005): {"met" if gap<=.005 else "MISSED"}.')
