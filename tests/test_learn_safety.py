"A training that is hurt: killed processes, real signals, mixed precision, memory, helpers that die."
import math, os, signal, subprocess, sys, time, weakref
from functools import partial
import pytest, torch
from torch import nn
from bearclass.samples.datasets import draw_bears
from bearclass.learn.blocks import from_folder
from bearclass.learn.safety import Checkpoint, SafeLearner, TrainingError, read_checkpoint, steady_batches
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import error_rate
from fastai.optimizer import SGD, OptimWrapper
from fastai.torch_core import set_seed
from conftest import here_env

pytestmark = pytest.mark.usefixtures('one_thread')


def out_of_memory(): raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')


class BackwardLimit(torch.autograd.Function):
    "Nothing forward; backward, room for `most` items."
    @staticmethod
    def forward(ctx, x, most):
        ctx.most = most
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        if len(g)>ctx.most: out_of_memory()
        return g, None


class Net(nn.Module):
    def __init__(self, most=None, back=None, drop=0.):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Dropout(drop))
        self.head = nn.Linear(16, 3)
        self.most,self.back = most,back
    def forward(self, x):
        if self.most and len(x)>self.most: out_of_memory()
        h = self.body(x)
        return self.head(BackwardLimit.apply(h, self.back) if self.back else h)


def loaders(n=48, bs=8):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n)%3
    x = torch.randn(n, 3, 2, 2, generator=g) + y[:,None,None,None]
    items = list(zip(x, y))
    return DataLoaders(DataLoader(items, bs=bs, shuffle=True), DataLoader(items[:20], bs=bs), device='cpu')


def learner(cls=SafeLearner, seed=3, net=None, tmp=None, **kwargs):
    set_seed(seed)
    net = Net(**net or {})
    dls = loaders()
    for dl in dls.loaders: dl.rng.seed(seed)
    kwargs = {'loss_func':CrossEntropyLossFlat(), 'opt_func':SGD, 'metrics':error_rate, **kwargs}
    groups = lambda m: [list(m.body.parameters()), list(m.head.parameters())]
    return cls(dls, net, splitter=groups, path=tmp or '.', **kwargs)


def train(learn, epochs=2, method='fit_one_cycle', lr=.05, **kwargs):
    with learn.no_bar(), learn.no_logging(): getattr(learn, method)(epochs, lr, **kwargs)
    return learn


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


# --- memory

@pytest.mark.parametrize('cbs', [list, lambda: [MixUp()], lambda: [GradientAccumulation(16)]])
def test_memory_that_runs_out_on_the_way_back(cbs):
    whole,pieces = train(learner(Learner, cbs=cbs())),learner(net=dict(back=2), cbs=cbs())
    train(pieces)
    assert pieces.at_once == {True: 2}
    assert (weights(whole)-weights(pieces)).abs().max() < 1e-5


def test_memory_holds_one_piece_at_a_time():
    class Tracked(nn.Module):
        def __init__(self, most):
            super().__init__()
            self.layers,self.head,self.most = nn.ModuleList(nn.Linear(12, 12) for _ in range(3)),nn.Linear(12, 3),most
            self.refs,self.peak = [],0
        def forward(self, x):
            if len(x)>self.most: out_of_memory()
            x = x.flatten(1)
            for l in self.layers:
                x = torch.relu(l(x))
                self.refs.append(weakref.ref(x))
                self.peak = max(self.peak, sum(len(o) for r in self.refs if (o := r()) is not None))
            return self.head(x)
    peaks = []
    for most in 8, 2:
        set_seed(0)
        learn = SafeLearner(loaders(), Tracked(most), loss_func=CrossEntropyLossFlat())
        train(learn, 1)
        peaks.append(learn.model.peak)
    assert peaks[1] <= peaks[0]/2, peaks


def test_said_and_five_halvings(capsys):
    train(learner(net=dict(most=3)))
    assert capsys.readouterr().out.count('Memory ran out') == 4     # twice in training, twice in validation
    set_seed(0)
    deep = learner(net=dict(most=3))
    zeros = [(torch.zeros(3, 2, 2), torch.tensor(0))]*128
    deep.dls = DataLoaders(DataLoader(zeros, bs=128), DataLoader(zeros, bs=128), device='cpu')
    with pytest.raises(TrainingError, match='4 of the 128 items of a batch'): train(deep)
    assert deep.at_once[True] == 4                      # 64, 32, 16, 8, 4


def test_export_and_load(tmp_path):
    draw_bears(tmp_path/'bears', n_per_class=8, size=64)
    dls = from_folder(tmp_path/'bears', size=16, bs=4)
    learn = SafeLearner(dls, nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), metrics=error_rate, path=tmp_path)
    train(learn, 1)
    for f in dls.train_ds.items[0], dls.train_ds.items[-1]: f.unlink()     # pictures that were set aside since
    learn.export()
    back = load_learner(tmp_path/'export.pkl')
    with back.no_bar(), learn.no_bar(): a,b = (o.predict(dls.valid_ds.items[0])[2] for o in (back, learn))
    assert torch.allclose(a, b, atol=1e-6)
    assert type(back) is SafeLearner and back.worker_timeout==120


# --- mixed precision

class HalfOnCPU(MixedPrecision):
    "fastai's mixed precision, on the CPU."
    def before_fit(self):
        self.autocast,self.scales = torch.autocast('cpu', dtype=torch.bfloat16),[]
        self.learn.scaler = torch.amp.GradScaler('cpu', init_scale=8.)


@pytest.mark.parametrize('net', [dict(most=3), dict(back=3)], ids=['forward', 'backward'])
def test_mixed_precision_in_pieces(net):
    whole = train(learner(Learner, cbs=HalfOnCPU()))
    pieces = train(learner(net=net, cbs=HalfOnCPU()))
    assert (weights(whole)-weights(pieces)).abs().max() < 2e-2
    assert not torch.is_autocast_enabled('cpu')


class Odd:
    "A loss that is `inf` in some calls."
    def __init__(self, when): self.when,self.n = when,0
    def __call__(self, p, y):
        self.n += 1
        loss = nn.functional.cross_entropy(p, y)
        return loss*math.inf if self.n in self.when else loss


def test_a_scaler_may_skip_but_not_for_ever():
    learn = train(learner(cbs=HalfOnCPU(), loss_func=Odd({2})))
    assert torch.isfinite(weights(learn)).all()
    for kw in dict(cbs=HalfOnCPU(), loss_func=Odd(range(2, 99))), dict(loss_func=Odd({2})):
        with pytest.raises(TrainingError, match='became inf'): train(learner(**kw), 4)


def test_an_error_leaves_mixed_precision():
    class Breaks(Callback):
        def after_pred(self): raise ZeroDivisionError('oh')
    with pytest.raises(ZeroDivisionError): train(learner(cbs=[HalfOnCPU(), Breaks()]))
    assert not torch.is_autocast_enabled('cpu')


# --- signals

class Press(Callback):
    def __init__(self, at, times=1): self.at,self.times = at,times
    def after_pred(self):
        if self.training and self.train_iter==self.at:
            for _ in range(self.times): signal.raise_signal(signal.SIGINT)


def test_ctrl_c_once_and_twice(capsys):
    usual = signal.getsignal(signal.SIGINT)
    learn = train(learner(), 3, cbs=Press(8))
    assert learn.interrupted
    assert (len(learn.recorder.losses), len(learn.recorder.values))==(9, 1)   # the batch is finished
    assert 'Stopped by hand (training, epoch 2 of 3, batch 3 of 6)' in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt): train(learn, 3, cbs=Press(8, times=2))
    assert signal.getsignal(signal.SIGINT) is usual
    assert not learn.model.training and learn.dl is None
    assert all(p.grad is None or not p.grad.any() for p in learn.model.parameters())
    assert not train(learn).interrupted


def test_ctrl_c_while_a_batch_is_loaded():
    class Slow(list):
        def __getitem__(self, i):
            if i==30: signal.raise_signal(signal.SIGINT)
            return super().__getitem__(i)
    learn = learner()
    learn.dls = DataLoaders(DataLoader(Slow(learn.dls.train.dataset), bs=8), learn.dls.valid, device='cpu')
    train(learn)
    assert learn.interrupted and len(learn.recorder.losses)==3   # the fourth batch never came


# --- helpers

class Fragile:
    def __init__(self, how, at=21): self.how,self.at,self.home = how,at,os.getpid()
    def __len__(self): return 48
    def __getitem__(self, i):
        if i==self.at and os.getpid()!=self.home:
            if self.how=='kill': os.kill(os.getpid(), signal.SIGKILL)
            if self.how=='deaf': signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        return torch.full((3, 2, 2), float(i)), torch.tensor(i%3)


@pytest.mark.skipif(sys.platform!='linux', reason='fastai uses helpers only where they are forked')
@pytest.mark.parametrize('how', ['kill', 'deaf'])
def test_helpers_that_die_or_hang(how, capsys, new_children):
    dl = DataLoader(Fragile(how), bs=4, num_workers=2)
    got = []
    for xb,_ in steady_batches(dl, timeout=1):
        got += [int(x) for x in xb[:,0,0,0]]
        if how!='deaf': time.sleep(.1)     # it dies now, while we are busy: that must not disturb
    assert got == list(range(48)) and dl.fake_l.num_workers==0 and not new_children()
    assert ('one of them died', 'no batch came in time')[how=='deaf'] in capsys.readouterr().out


@pytest.mark.skipif(sys.platform!='linux', reason='fastai uses helpers only where they are forked')
def test_no_helper_is_left_behind(new_children):
    learn = learner()
    learn.dls = DataLoaders(*[DataLoader(Fragile('kill', at=99), bs=8, num_workers=2) for _ in range(2)], device='cpu')
    train(learn, cbs=Press(2))
    assert learn.interrupted and not new_children()


# --- checkpoints

class Cut(Callback):
    order = 100
    def __init__(self, at): self.at = at
    def after_batch(self):
        if self.training and self.train_iter==self.at: raise SystemExit


@pytest.mark.parametrize('method, cbs, kwargs', [
    ('fit', list, dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))),
    ('fit_one_cycle', lambda: [GradientAccumulation(20), MixUp()], {}),
    ('fine_tune', lambda: [HalfOnCPU()], {})])
def test_resumed_is_the_same(method, cbs, kwargs, tmp_path):
    make = lambda: learner(net=dict(drop=.3), cbs=cbs(), **kwargs)
    f,lr = tmp_path/'c.ckpt',.01
    whole = train(make(), 4, method, lr)
    with pytest.raises(SystemExit): train(make(), 4, method, lr, cbs=[Checkpoint(f, resume=True), Cut(15)])
    learn = make()
    set_seed(99)
    again = train(learn, 4, method, lr, cbs=Checkpoint(f, resume=True))
    assert torch.equal(weights(whole), weights(again))
    assert [list(v) for v in again.recorder.values] == [list(v) for v in whole.recorder.values]
    assert torch.equal(torch.stack(again.recorder.losses), torch.stack(whole.recorder.losses))


def test_trackers_remember(tmp_path):
    make = lambda: learner(tmp=tmp_path, cbs=[EarlyStoppingCallback(patience=9), SaveModelCallback(fname='best')])
    with pytest.raises(SystemExit): train(make(), 4, cbs=[Checkpoint(tmp_path/'c', resume=True), Cut(15)])
    best = min(v[1] for v in read_checkpoint(tmp_path/'c')['memories']['recorder']['values'])
    learn = make()
    seen = []
    class Look(Callback):
        order = 95
        def before_fit(self): seen.append(float(self.learn.early_stopping.best))
    train(learn, 4, cbs=[Checkpoint(tmp_path/'c', resume=True), Look()])
    assert seen[0] == pytest.approx(best)


def test_every_so_often_and_not_in_between(tmp_path):
    f = tmp_path/'deep/c'
    with pytest.raises(SystemExit): train(learner(), 5, cbs=[Checkpoint(f, every=2), Cut(29)])
    assert read_checkpoint(f)['epoch'] == 3
    learn = learner()
    learn.add_cb(Checkpoint(tmp_path/'no'))
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.get_preds()
        learn.lr_find(num_it=10, show_plot=False)
    assert not (tmp_path/'no').exists()


SCRIPT = '''
import os, signal, sys, warnings
warnings.simplefilter('ignore')
import torch
from torch import nn
from bearclass.learn.safety import Checkpoint, SafeLearner, Callback
from bearclass.learn.blocks import from_folder
from fastai.metrics import error_rate
from fastai.torch_core import set_seed
root,ckpt,out,how,n = *sys.argv[1:5], int(sys.argv[5])
torch.set_num_threads(1)

class KillInBatch(Callback):
    count = 0
    def after_pred(self):
        if not self.training: return
        KillInBatch.count += 1
        if KillInBatch.count==n: os.kill(os.getpid(), signal.SIGKILL)

fsync,calls = os.fsync,[0]
def kill_in_write(fd):
    calls[0] += 1
    if calls[0]==n:
        os.ftruncate(fd, os.fstat(fd).st_size//2)
        os.kill(os.getpid(), signal.SIGKILL)
    return fsync(fd)
if how=='write': os.fsync = kill_in_write

set_seed(5)
dls = from_folder(root, size=32, bs=8)
body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(.2),
                     nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
groups = lambda m: [list(m[0].parameters()), list(m[1].parameters())]
learn = SafeLearner(dls, nn.Sequential(body, nn.Linear(16, 3)), metrics=error_rate, splitter=groups)
with learn.no_bar(), learn.no_logging():
    learn.fine_tune(3, 1e-2, cbs=[Checkpoint(ckpt, resume=True)] + ([KillInBatch()] if how=='batch' else []))
torch.save([learn.model.state_dict(), [float(l) for l in learn.recorder.losses]], out)
'''


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='needs kill -9')
def test_killed_with_sigkill(tmp_path):
    "In the middle of an epoch, then in the middle of writing a checkpoint; at the end, the same weights bit for bit."
    draw_bears(tmp_path/'bears', n_per_class=16, size=64)
    (tmp_path/'train.py').write_text(SCRIPT)
    def run(ckpt, out, how='no', n=0):
        args = [sys.executable, tmp_path/'train.py', tmp_path/'bears', ckpt, out, how, str(n)]
        return subprocess.run(args, env=here_env(OMP_NUM_THREADS='1'), cwd=tmp_path, capture_output=True, text=True)
    ckpt = tmp_path/'night.ckpt'
    p = run(tmp_path/'calm.ckpt', tmp_path/'whole.pt')
    assert p.returncode==0, p.stderr
    p = run(ckpt, tmp_path/'no.pt', 'batch', 11)          # the third epoch of all, the second of stage two
    assert p.returncode==-signal.SIGKILL, p.stderr
    assert (read_checkpoint(ckpt)['stage'], read_checkpoint(ckpt)['epoch']) == (1, 0)
    p = run(ckpt, tmp_path/'no.pt', 'write', 2)           # one more epoch, then half a checkpoint
    assert p.returncode==-signal.SIGKILL and 'Resumed after epoch 1 of 3' in p.stdout, p.stderr
    assert read_checkpoint(ckpt)['epoch'] == 1            # whole, and the one before
    torn = list(tmp_path.glob('.night.ckpt.*'))
    assert len(torn)==1 and not (tmp_path/'no.pt').exists()
    p = run(ckpt, tmp_path/'again.pt')
    assert p.returncode==0 and 'Resumed after epoch 2 of 3' in p.stdout, p.stderr
    assert not torn[0].exists()
    (a,al),(b,bl) = (torch.load(tmp_path/f, weights_only=True) for f in ('whole.pt', 'again.pt'))
    assert a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert al==bl
