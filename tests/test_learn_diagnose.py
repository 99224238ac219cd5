"Does `diagnose` name what is wrong, over seeds and kinds of data, without contradicting itself or falling over?"
import math, re
import numpy as np
import pytest
import torch
from contextlib import suppress
from fastai.callback.core import Callback
from fastai.callback import schedule   # noqa: F401  (gives Learner its fit_one_cycle and lr_find)
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy, MSELossFlat
from fastai.metrics import error_rate, mae
from fastai.torch_core import set_seed
from hypothesis import given, settings, strategies as st
from torch import nn
from bearclass.core import InputError
from bearclass.learn.diagnose import Curves, LossHistory, diagnose, diagnose_curves, plot_diagnosis, verdicts

pytestmark = pytest.mark.usefixtures('one_thread')
HIGH,LOW,FEW,MANY,FINE,OPEN = verdicts


class Items(list):
    "Pairs of tensors with the labels as fastai keeps them, so that the largest class is known."
    def __init__(self, x, y):
        super().__init__(zip(torch.as_tensor(x), torch.as_tensor(y)))
        self.tls = [x, [int(o) for o in y]] if torch.as_tensor(y).dtype==torch.int64 else None


def digits(n_train=400, n_valid=400, noise=0., seed=0, bs=16):
    "scikit-learn's digits as rows of 64 numbers; `noise` is the share of wrong labels, in training only."
    from sklearn.datasets import load_digits
    d,rng = load_digits(),np.random.default_rng(seed)
    i = rng.permutation(len(d.target))[:n_train+n_valid]
    x,y = (d.data[i]/8-1).astype(np.float32),d.target[i].astype(np.int64)
    wrong = np.flatnonzero(rng.random(n_train)<noise)
    y[wrong] = (y[wrong]+rng.integers(1, 10, len(wrong)))%10
    dls = DataLoaders(DataLoader(Items(x[:n_train], y[:n_train]), bs=bs, shuffle=True, drop_last=True, num_workers=0),
                      DataLoader(Items(x[n_train:], y[n_train:]), bs=256, num_workers=0))
    dls.c = 10
    return dls


def make(dls=None, seed=0, metrics=error_rate, loss=None, n_out=10, **kw):
    set_seed(seed)
    net = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, n_out))
    return Learner(dls or digits(seed=seed), net, loss_func=loss or CrossEntropyLossFlat(), metrics=metrics, **kw)


def fit(learn, how, *args, **kw):
    with learn.no_bar(), learn.no_logging(): getattr(learn, how)(*args, **kw)
    return learn


# -- the four, over seeds

FAULTS = {HIGH: lambda seed: fit(make(seed=seed), 'fit_one_cycle', 3, 2.),
          LOW: lambda seed: fit(make(seed=seed), 'fit_one_cycle', 16, 1e-5),
          FEW: lambda seed: fit(make(seed=seed), 'fit_one_cycle', 2, 1e-3),
          MANY: lambda seed: fit(make(digits(400, 800, noise=.5, seed=seed), seed, wd=0.), 'fit', 40, 1e-3)}

@pytest.mark.parametrize('fault', FAULTS)
def test_named_with_advice(fault):
    d = diagnose(FAULTS[fault](3))     # 0 to 2 are in the notebook
    assert d.verdict==fault, str(d)
    name,how,epochs,lr = re.search(r'(\w+)\.(\w+)\((\d+), ([\de.-]+)\)', d.next_step).groups()
    assert name==('learn' if fault in (LOW, FEW) else 'again')     # go on, or begin anew under another name
    if fault==HIGH: assert float(lr)<=.2
    if fault==LOW: assert (how, epochs)==('fit_one_cycle', '16') and float(lr)>=1e-4
    if fault==MANY: assert int(epochs)<20

def test_label_smoothing_has_a_floor():
    "The loss cannot go below some 0.5: a floor, not a low rate and not too few epochs."
    learn = make(loss=LabelSmoothingCrossEntropy())
    assert diagnose(fit(learn, 'fit_one_cycle', 15, 4e-3)).verdict==FINE

def test_random_labels_are_never_fine():
    dls = digits(200, 200)
    for dl in dls.loaders:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 10, len(dl.dataset))
        dl.dataset = Items(torch.stack([x for x,_ in dl.dataset]), y.astype(np.int64))
    assert diagnose(fit(make(dls), 'fit_one_cycle', 15, 4e-3)).verdict==OPEN


# -- what it reads from a learner

def test_a_rate_search_is_not_a_training():
    learn = make()
    with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False)
    with pytest.raises(InputError, match='trial run of `lr_find`'): diagnose(learn)
    learn.add_cb(LossHistory())
    fit(learn, 'fit_one_cycle', 8, 4e-3)
    assert diagnose(learn).verdict==FINE and len(learn.loss_history.fits)==0   # the search was not kept
    with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False)
    assert diagnose(learn).verdict==FINE                                        # it sees the training behind the search

def test_a_number_to_predict():
    "A regression: no error rate. An explosion is still seen, and a loss that still falls; the rest is not judged."
    dls = digits()
    for dl in dls.loaders: dl.dataset = Items(*map(torch.stack, zip(*[(x, y.float()) for x,y in dl.dataset])))
    dls.c = 1
    number = dict(metrics=mae, loss=MSELossFlat(), n_out=1)
    assert diagnose(fit(make(dls, **number), 'fit_one_cycle', 6, 4e-3)).verdict in (OPEN, FEW)
    assert diagnose(fit(make(dls, **number), 'fit', 3, 5.)).verdict==HIGH

# -- runs that ended early, and runs in stages

class Spoil(Callback):
    "The loss becomes NaN in batch `at`, as after an overflow; or somebody presses Ctrl-C."
    order = 5
    def __init__(self, at, error=None): self.at,self.n,self.error = at,0,error
    def before_batch(self):
        if self.training and self.n==self.at:
            if self.error: raise self.error
            self.learn.xb = (self.xb[0]*float('nan'),)
        self.n += self.training

def test_nan_after_some_batches():
    learn = make(cbs=Spoil(10))
    d = diagnose(fit(learn, 'fit_one_cycle', 2, 1e-3))
    assert (d.verdict, d.strength)==(HIGH, 'moderate') and 'batch 11' in d.evidence[0] and 'spoilt' in d.evidence[1]
    plot_diagnosis(d)

@pytest.mark.parametrize('at, epochs', [(35, 1), (7, 0)])
@pytest.mark.parametrize('error', [KeyboardInterrupt(), InputError('a torn file', 'a picture', 'remove it')])
def test_stopped_by_hand_or_by_a_broken_file(at, epochs, error):
    "It says what was seen; before the first epoch is done, nothing about a validation set that is there."
    learn = make(cbs=Spoil(at, error))
    with suppress(KeyboardInterrupt, InputError): fit(learn, 'fit_one_cycle', 10, 1e-3)
    d = diagnose(learn)
    assert d.curves.n_epochs==epochs and len(d.curves.losses)==at
    assert d.verdict in (FEW, OPEN) if epochs else d.verdict==OPEN
    assert 'no validation set' not in str(d) and (epochs or 'after 7 batches' in d.evidence[0])
    plot_diagnosis(d)


# -- it does not contradict itself

def test_epochs_are_the_rows_of_the_table():
    "Whatever epoch a sentence names, its numbers are those of that row."
    d = diagnose(FAULTS[MANY](0))
    first,last,since = map(int, re.search(r'epochs (\d+) to (\d+), .* since epoch (\d+)', d.evidence[0]).groups())
    best,now = (e.mean() for e in (d.curves.errors[first:last+1], d.curves.errors[since:]))
    assert f'{best:.1%}' in d.evidence[0] and f'{now:.1%}' in d.evidence[0] and last<since<=39

def test_an_evaluation_or_load_alone_is_no_stage(tmp_path):
    from bearclass.learn.safety import SafeLearner
    learn = make()
    learn = SafeLearner(learn.dls, learn.model, loss_func=learn.loss_func, cbs=LossHistory(), path=tmp_path)
    fit(learn, 'fit', 2, 1e-3)
    learn.save('stage-1')
    with learn.no_bar(): learn.validate()
    assert diagnose(learn).curves.n_epochs==2
    fit(learn, 'fit', 3, .01)
    assert diagnose(learn).curves.starts==(0, 2)
    learn.load('stage-1')
    assert diagnose(learn).curves.n_epochs==2

def test_a_second_stage_that_ruins_the_first():
    learn = make(cbs=LossHistory())
    fit(learn, 'fit_one_cycle', 6, 4e-3)
    fit(learn, 'fit', 3, .3)
    assert diagnose(learn).verdict==HIGH

def test_slices_come_back_in_the_advice():
    learn = make(splitter=lambda m: [list(m[0].parameters()), list(m[2:].parameters())])
    d = diagnose(fit(learn, 'fit_one_cycle', 16, slice(1e-7, 1e-5)))
    assert d.verdict==LOW and 'slice(1e-' in d.next_step

def test_frozen_then_everything():
    learn = make(splitter=lambda m: [list(m[0].parameters()), list(m[2:].parameters())], cbs=LossHistory())
    fit(learn, 'fine_tune', 8, 4e-3)
    d = diagnose(learn)
    assert d.curves.starts==(0, 1) and d.curves.n_epochs==9 and d.verdict in (FINE, FEW)

# -- the pure function, on anything

numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)
shares = st.floats(0, 1)

@st.composite
def runs(draw, values=numbers):
    n_epochs,per = draw(st.integers(0, 12)),draw(st.integers(1, 9))
    extra = draw(st.integers(0, 3))
    n = max(1, n_epochs*per+extra)
    losses = draw(st.lists(values, min_size=n, max_size=n))
    valid = draw(st.lists(values, min_size=n_epochs, max_size=n_epochs)) if draw(st.booleans()) else []
    errors = draw(st.lists(shares, min_size=n_epochs, max_size=n_epochs)) if draw(st.booleans()) else []
    ends = [per*(i+1) for i in range(n_epochs)] if len(valid) or len(errors) else None
    lrs = draw(st.lists(st.floats(0, 10), min_size=n, max_size=n))
    return dict(losses=losses, valid=valid, errors=errors, lrs=lrs, ends=ends, n_valid=draw(st.integers(0, 5000)),
                chance=draw(st.none() | st.floats(.1, 10)), baseline=draw(st.none() | shares))

def judged(*args, **kw):
    with np.errstate(all='ignore'): return diagnose_curves(Curves(*args, **kw))

@settings(max_examples=150, deadline=None)
@given(runs())
def test_any_numbers_get_an_answer(run):
    d = judged(**run)
    assert d.verdict in verdicts and d.evidence and (d.strength=='')==(d.verdict==OPEN)
    compile(d.next_step, 'next', 'exec')
    if not np.isfinite(run['losses']).all(): assert d.verdict in (HIGH, OPEN)
    for before,after in re.findall(r'fell from ([\d.e+-]+)%? to ([\d.e+-]*\d)', ' '.join(d.evidence)):
        assert float(before)>=float(after)     # what is said to have fallen did fall

@settings(max_examples=100, deadline=None)
@given(runs(st.floats(0, 1e6, width=32)), st.integers(0, 3))
def test_few_pictures_prove_no_overfitting(run, n):
    run['n_valid'] = n
    assert judged(**run).verdict!=MANY

@settings(max_examples=100, deadline=None)
@given(runs(st.floats(0, 1e6, width=32)), shares)
def test_a_constant_error_is_never_overfitting(run, e):
    run['errors'] = [e]*len(run['errors'])
    assert judged(**run).verdict!=MANY

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 400), st.floats(.05, .5), st.integers(6, 40))
def test_pure_counting_noise_is_seldom_overfitting(seed, n_valid, p, E):
    "Each epoch draws its wrong answers anew, which is worse than any real run: at most a few are called a rise."
    rng,train = np.random.default_rng(seed),.5*np.exp(-np.arange(E*10)/20)
    errors = rng.binomial(n_valid, p, (20, E))/n_valid
    said = [judged(train, [.4]*E, e, 1e-3, n_valid, chance=math.log(3), baseline=2/3).verdict for e in errors]
    assert said.count(MANY)<=2

def test_a_change_within_noise_changes_nothing():
    "One more wrong picture of 141 at the end, or one less: the same verdict."
    base = np.array([40, 12, 5, 4, 3, 3, 2, 3])
    kw = dict(lrs=3e-3, n_valid=141, chance=math.log(3), baseline=2/3)
    train,last = 1.1*np.exp(-np.arange(160)/30),np.arange(8)==7
    assert {judged(train, base/100+.05, (base+last*k)/141, **kw).verdict for k in (-2, -1, 0, 1, 2)}=={FINE}
