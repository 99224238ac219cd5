"""A training that is hurt: killed processes, real signals, mixed precision, memory, helpers that die; what the notebook cannot do to itself."""
import gc, math, os, signal, subprocess, sys, time, weakref
from functools import partial
from pathlib import Path
import pytest, torch
from torch import nn
from bearclass.core import InputError
from bearclass.gather.datasets import draw_bears
from bearclass.learn.blocks import from_folder
from bearclass.learn.safety import Checkpoint, SafeLearner, TrainingError, read_checkpoint, steady_batches
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import LRFinder
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
    return cls(dls, net, splitter=lambda m: [list(m.body.parameters()), list(m.head.parameters())], path=tmp or '.', **kwargs)


def train(learn, epochs=2, method='fit_one_cycle', lr=.05, **kwargs):
    with learn.no_bar(), learn.no_logging(): getattr(learn, method)(epochs, lr, **kwargs)
    return learn


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


# --- memory

@pytest.mark.parametrize('cbs', [list, lambda: [MixUp()], lambda: [GradientAccumulation(16)]], ids=['plain', 'mixup', 'accumulation'])
def test_memory_that_runs_out_on_the_way_back(cbs):
    whole,pieces = train(learner(Learner, cbs=cbs())),learner(net=dict(back=2), cbs=cbs())
    train(pieces)
    assert pieces.at_once == {True: 2}
    assert (weights(whole)-weights(pieces)).abs().max() < 1e-5


def test_two_inputs_two_outputs():
    class Two(nn.Module):
        def __init__(self, most):
            super().__init__()
            self.a,self.b,self.most = nn.Linear(4, 2),nn.Linear(3, 1),most
        def forward(self, x, z):
            if len(x)>self.most: out_of_memory()
            return self.a(x), self.b(z['z'])
    g = torch.Generator().manual_seed(1)
    items = [(torch.randn(4, generator=g), {'z': torch.randn(3, generator=g)}, torch.randn(2, generator=g), torch.randn(1, generator=g)) for _ in range(16)]
    res = []
    for most in 99, 3:
        set_seed(0)
        dls = DataLoaders(DataLoader(items, bs=8), DataLoader(items, bs=8), device='cpu')
        dls.n_inp = 2
        learn = SafeLearner(dls, Two(most), loss_func=lambda p,a,b: ((p[0]-a)**2).mean()+((p[1]-b)**2).mean(), opt_func=SGD)
        train(learn)
        with learn.no_bar(): res.append((weights(learn), learn.get_preds(reorder=False, act=lambda o: o)[0]))
    assert torch.allclose(res[0][0], res[1][0], atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a,b in zip(res[0][1], res[1][1]))


def test_predictions_inputs_and_losses_in_order():
    a,b = learner(),learner(net=dict(most=3))
    with a.no_bar(), b.no_bar():
        for u,v in zip(a.get_preds(with_input=True, with_loss=True), b.get_preds(with_input=True, with_loss=True)): assert torch.allclose(u, v, atol=1e-6)
        assert list(a.validate()) == pytest.approx(list(b.validate()), abs=1e-6)


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


def test_once_said_and_five_halvings(capsys):
    learn = train(learner(net=dict(most=3)))
    assert capsys.readouterr().out.count('Memory ran out') == 1
    set_seed(0)
    deep = SafeLearner(DataLoaders(*[DataLoader([(torch.zeros(3, 2, 2), torch.tensor(0))]*128, bs=128) for _ in range(2)], device='cpu'), Net(most=3), loss_func=CrossEntropyLossFlat())
    with pytest.raises(TrainingError, match='4 of the 128 items of a batch'): train(deep)
    assert deep.at_once[True] == 4                      # 64, 32, 16, 8, 4
    assert learn.opt is not None and deep.dl is None


def test_no_room_for_the_optimizer():
    learn = learner()
    learn.create_opt()
    learn.opt.step = out_of_memory
    with pytest.raises(TrainingError, match='in the optimizer'): train(learn)


def test_export_and_load(tmp_path):
    draw_bears(tmp_path/'bears', n_per_class=8, size=64)
    dls = from_folder(tmp_path/'bears', size=16, bs=4)
    learn = SafeLearner(dls, nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), metrics=error_rate, path=tmp_path)
    train(learn, 1)
    learn.export()
    back = load_learner(tmp_path/'export.pkl')
    with back.no_bar(), learn.no_bar(): assert torch.allclose(back.predict(dls.valid_ds.items[0])[2], learn.predict(dls.valid_ds.items[0])[2], atol=1e-6)
    assert type(back) is SafeLearner and back.worker_timeout==120


# --- mixed precision

class HalfOnCPU(MixedPrecision):
    "fastai's mixed precision, on the CPU."
    def before_fit(self): self.autocast,self.learn.scaler,self.scales = torch.autocast('cpu', dtype=torch.bfloat16),torch.amp.GradScaler('cpu', init_scale=8.),[]


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
    with pytest.raises(TrainingError, match='became inf'): train(learner(cbs=HalfOnCPU(), loss_func=Odd(range(2, 99))), 4)
    with pytest.raises(TrainingError, match='became inf'): train(learner(loss_func=Odd({2})))


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
    assert learn.interrupted and len(learn.recorder.losses)==9 and len(learn.recorder.values)==1   # the batch is finished
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


def test_ctrl_c_ends_all_of_fine_tune_and_lr_find():
    learn = learner()
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(3, cbs=Press(2))
        assert learn.interrupted and len(learn.recorder.losses)==3
        before = weights(learn)
        with pytest.raises(KeyboardInterrupt): learn.fit(9, cbs=[LRFinder(num_it=20), Press(6)])
        assert torch.equal(weights(learn), before)


# --- helpers

class Fragile:
    def __init__(self, how, at=21): self.how,self.at,self.home = how,at,os.getpid()
    def __len__(self): return 48
    def __getitem__(self, i):
        if i==self.at and os.getpid()!=self.home:
            if self.how=='exit': os._exit(1)
            if self.how=='kill': os.kill(os.getpid(), signal.SIGKILL)
            if self.how=='deaf': signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        return torch.full((3, 2, 2), float(i)), torch.tensor(i%3)


@pytest.mark.skipif(sys.platform!='linux', reason='fastai uses helpers only where they are forked')
@pytest.mark.parametrize('how', ['exit', 'kill', 'deaf'])
def test_helpers_that_die_or_hang(how, capsys, new_children):
    dl = DataLoader(Fragile(how), bs=4, num_workers=2)
    got = []
    for xb,_ in steady_batches(dl, timeout=1):
        got += [int(x) for x in xb[:,0,0,0]]
        if how!='deaf': time.sleep(.1)     # it dies now, while we are busy: that must not disturb
    assert got == list(range(48)) and dl.fake_l.num_workers==0 and not new_children()
    assert ('one of them died', 'no batch came for 1 s')[how=='deaf'] in capsys.readouterr().out


@pytest.mark.skipif(sys.platform!='linux', reason='fastai uses helpers only where they are forked')
def test_no_helper_is_left_behind(new_children):
    learn = learner()
    learn.dls = DataLoaders(*[DataLoader(Fragile('exit', at=99), bs=8, num_workers=2) for _ in range(2)], device='cpu')
    train(learn, cbs=Press(2))
    assert learn.interrupted and not new_children()


# --- checkpoints

class Cut(Callback):
    order = 100
    def __init__(self, at): self.at = at
    def after_batch(self):
        if self.training and self.train_iter==self.at: raise SystemExit


@pytest.mark.parametrize('kwargs', [dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)), dict(cbs=lambda: [GradientAccumulation(20), MixUp()]),
                                    dict(cbs=lambda: [HalfOnCPU()])], ids=['torch optimizer', 'accumulation and mixup', 'mixed precision'])
@pytest.mark.parametrize('method', ['fit', 'fit_one_cycle', 'fine_tune'])
def test_resumed_is_the_same(method, kwargs, tmp_path):
    make = lambda: learner(net=dict(drop=.3), **{**kwargs, **(dict(cbs=kwargs['cbs']()) if 'cbs' in kwargs else {})})
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


def test_other_frozen_layers_and_other_pictures(tmp_path):
    f = tmp_path/'c'
    train(learner(), 2, cbs=Checkpoint(f))
    frozen = learner()
    frozen.freeze()
    with pytest.raises(InputError, match='not the same frozen layers'): train(frozen, 2, cbs=Checkpoint(f, resume=True))
    more = learner()
    more.dls = loaders(n=56)
    with pytest.raises(InputError, match='batches in an epoch'): train(more, 2, cbs=Checkpoint(f, resume=True))


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
from pathlib import Path
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
body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(.2), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
model = nn.Sequential(body, nn.Linear(16, 3))
learn = SafeLearner(dls, model, metrics=error_rate, splitter=lambda m: [list(m[0].parameters()), list(m[1].parameters())])
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
        return subprocess.run([sys.executable, tmp_path/'train.py', tmp_path/'bears', ckpt, out, how, str(n)], env=here_env(OMP_NUM_THREADS='1'), cwd=tmp_path,
                              capture_output=True, text=True, timeout=120)
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
