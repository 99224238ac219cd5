"Does `diagnose` name what is wrong, over seeds and kinds of data; does it keep still about healthy runs; does nothing make it fall over?"
import math
import numpy as np
import pytest
import torch
from contextlib import suppress
from fastai.callback.core import Callback
from fastai.callback import schedule   # noqa: F401  (gives Learner its fit_one_cycle and lr_find)
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, LabelSmoothingCrossEntropy, MSELossFlat
from fastai.metrics import accuracy, error_rate, mae
from fastai.torch_core import set_seed
from hypothesis import given, settings, strategies as st
from torch import nn
from bearclass.core import InputError
from bearclass.learn.diagnose import Diagnosis, LossHistory, diagnose, diagnose_curves, plot_diagnosis, verdicts
from conftest import needs, REAL

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

@pytest.mark.parametrize('seed', range(5))
def test_rate_too_high(seed):
    d = diagnose(fit(make(seed=seed), 'fit_one_cycle', 3, 2.))
    assert d.verdict==HIGH and '2e-' in d.next_step

@pytest.mark.parametrize('seed', range(5))
def test_rate_too_low(seed):
    d = diagnose(fit(make(seed=seed), 'fit_one_cycle', 16, 1e-5))
    assert d.verdict==LOW, str(d)
    assert 'fit_one_cycle(16, 1e-' in d.next_step

@pytest.mark.parametrize('seed', range(5))
def test_too_few_epochs(seed):
    d = diagnose(fit(make(seed=seed), 'fit_one_cycle', 2, 1e-3))
    assert d.verdict==FEW, str(d)

@pytest.mark.parametrize('seed', range(5))
def test_too_many_epochs(seed):
    d = diagnose(fit(make(digits(400, 800, noise=.5, seed=seed), seed, wd=0.), 'fit', 40, 1e-3))
    assert d.verdict==MANY, str(d)
    epochs = int(d.next_step.split('learn.fit(')[1].split(',')[0])
    assert epochs<20

def test_healthy_runs_are_left_alone():
    "12 runs of 15 epochs at three good rates: not one is called overfitted, too high or too low."
    said = [diagnose(fit(make(seed=s), how, 15, lr)).verdict for s in range(3) for how,lr in (('fit_one_cycle', 1e-2), ('fit_one_cycle', 4e-3), ('fit', 2e-3), ('fit', 1e-3))]
    assert said.count(FINE)>=9 and not set(said)&{HIGH, LOW, MANY}, said

@pytest.mark.parametrize('seed', range(5))
def test_label_smoothing_has_a_floor(seed):
    "The loss cannot go below some 0.5: a floor, not a low rate and not too few epochs."
    assert diagnose(fit(make(seed=seed, loss=LabelSmoothingCrossEntropy()), 'fit_one_cycle', 15, 4e-3)).verdict==FINE

@pytest.mark.parametrize('seed', range(5))
def test_random_labels_are_never_fine(seed):
    dls = digits(200, 200, seed=seed)
    for dl in dls.loaders:
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 10, len(dl.dataset))
        dl.dataset = Items(torch.stack([x for x,_ in dl.dataset]), y.astype(np.int64))
    assert diagnose(fit(make(dls, seed), 'fit_one_cycle', 15, 4e-3)).verdict==OPEN


# -- what it reads from a learner

def test_accuracy_and_error_rate_give_the_same_verdict():
    learns = [fit(make(metrics=m), 'fit_one_cycle', 8, 4e-3) for m in (error_rate, accuracy)]
    a,b = map(diagnose, learns)
    assert a.verdict==b.verdict==FINE
    np.testing.assert_allclose(a.curves.errors, b.curves.errors, atol=1e-6)

def test_columns_are_found_beside_training_metrics():
    learn = make()
    learn.recorder.train_metrics = True
    d = diagnose(fit(learn, 'fit_one_cycle', 6, 4e-3))
    rows = np.array([[float(o) for o in r] for r in learn.recorder.values])
    names = list(learn.recorder.metric_names)[1:-1]
    np.testing.assert_allclose(d.curves.errors, rows[:, names.index('valid_error_rate')])
    np.testing.assert_allclose(d.curves.valid, rows[:, names.index('valid_loss')])

def test_losses_of_batches_are_recovered():
    seen = []
    class See(Callback):
        def after_loss(self):
            if self.training: seen.append(float(self.loss))
    d = diagnose(fit(make(cbs=See()), 'fit_one_cycle', 3, 4e-3))
    np.testing.assert_allclose(d.curves.losses, seen, atol=1e-3)

def test_untrained_is_one_clear_error():
    with pytest.raises(InputError, match='has not been trained'): diagnose(make())

def test_a_rate_search_is_not_a_training():
    learn = make()
    with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False)
    with pytest.raises(InputError, match='learning-rate search'): diagnose(learn)
    learn.add_cb(LossHistory())
    fit(learn, 'fit_one_cycle', 8, 4e-3)
    assert diagnose(learn).verdict==FINE and len(learn.loss_history.fits)==0   # the search was not kept
    with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False)
    assert diagnose(learn).verdict==FINE                                        # it sees the training behind the search

def test_no_validation_set():
    dls = digits()
    dls.loaders[1] = DataLoader(Items(np.zeros((0, 64), np.float32), np.zeros(0, np.int64)), bs=8, num_workers=0)
    learn = make(dls)
    fit(learn, 'fit_one_cycle', 3, 4e-3)
    d = diagnose(learn)
    assert d.verdict==OPEN and 'no validation set' in d.evidence[0]
    plot_diagnosis(d)

def test_without_a_metric_it_does_not_guess():
    d = diagnose(fit(make(metrics=[]), 'fit_one_cycle', 10, 4e-3))
    assert d.verdict==OPEN and 'metric' in d.evidence[0]

def test_a_number_to_predict():
    "A regression: no error rate. An explosion is still seen, and a loss that still falls; the rest is not judged."
    dls = digits()
    for dl in dls.loaders: dl.dataset = Items(torch.stack([x for x,_ in dl.dataset]), torch.tensor([float(y) for _,y in dl.dataset]))
    dls.c = 1
    assert diagnose(fit(make(dls, metrics=mae, loss=MSELossFlat(), n_out=1), 'fit_one_cycle', 6, 4e-3)).verdict in (OPEN, FEW)
    assert diagnose(fit(make(dls, metrics=mae, loss=MSELossFlat(), n_out=1), 'fit', 3, 5.)).verdict==HIGH

def test_yes_or_no_for_each_class_is_measured_against_log_2():
    dls = digits()
    for dl in dls.loaders: dl.dataset = Items(torch.stack([x for x,_ in dl.dataset]), torch.eye(10)[[int(y) for _,y in dl.dataset]])
    d = diagnose(fit(make(dls, metrics=[], loss=BCEWithLogitsLossFlat()), 'fit_one_cycle', 3, 4e-3))
    assert d.curves.chance==pytest.approx(math.log(2)) and d.curves.baseline is None


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
    assert d.verdict==HIGH and d.strength=='moderate' and 'batch 11' in d.evidence[0] and 'spoilt picture' in d.evidence[1]
    plot_diagnosis(d)

def test_nan_in_the_first_batch_is_not_the_rate():
    d = diagnose(fit(make(cbs=Spoil(0)), 'fit_one_cycle', 2, 1e-3))
    assert d.verdict==OPEN and 'had no part in it' in d.evidence[0]

def test_stopped_by_hand_in_the_second_epoch():
    learn = make(cbs=Spoil(35, KeyboardInterrupt()))
    with suppress(KeyboardInterrupt): fit(learn, 'fit_one_cycle', 10, 1e-3)
    d = diagnose(learn)
    assert d.curves.n_epochs==1 and len(d.curves.losses)==35
    assert d.verdict in (FEW, OPEN)
    plot_diagnosis(d)

def test_stopped_by_hand_before_an_epoch_was_done():
    learn = make(cbs=Spoil(7, KeyboardInterrupt()))
    with suppress(KeyboardInterrupt): fit(learn, 'fit_one_cycle', 10, 1e-3)
    d = diagnose(learn)
    assert d.curves.n_epochs==0 and d.verdict==OPEN
    plot_diagnosis(d)

def test_one_run_in_pieces_is_one_run():
    "Twelve times one epoch, with a history: a plateau is seen that no single epoch shows."
    learn = make(cbs=LossHistory())
    for _ in range(12): fit(learn, 'fit', 1, 2e-3)
    d = diagnose(learn)
    assert d.curves.n_epochs==12 and d.curves.starts==tuple(range(12)) and d.verdict==FINE
    learn = make()
    for _ in range(12): fit(learn, 'fit', 1, 2e-3)
    d = diagnose(learn)
    assert d.curves.n_epochs==1 and any('LossHistory' in o for o in d.notes)

def test_history_added_late_keeps_the_fit_before():
    learn = fit(make(), 'fit', 2, 1e-3)
    learn.add_cb(LossHistory())
    fit(learn, 'fit', 3, 1e-3)
    assert diagnose(learn).curves.starts==(0, 2)

@pytest.mark.parametrize('seed', range(3))
def test_a_second_stage_that_ruins_the_first(seed):
    learn = make(seed=seed, cbs=LossHistory())
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

def test_history_survives_an_export(tmp_path):
    import cloudpickle
    learn = fit(make(cbs=LossHistory()), 'fit', 1, 1e-3)
    fit(learn, 'fit', 1, 1e-3)
    assert len(cloudpickle.loads(cloudpickle.dumps(learn.loss_history.fits)))==1


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
    return dict(train_losses=losses, valid_losses=valid, errors=errors, lrs=draw(st.lists(st.floats(0, 10), min_size=n, max_size=n)), ends=ends,
                n_valid=draw(st.integers(0, 5000)), chance=draw(st.none() | st.floats(.1, 10)), baseline=draw(st.none() | shares))

@settings(max_examples=150, deadline=None)
@given(runs())
def test_any_numbers_get_an_answer(run):
    with np.errstate(all='ignore'): d = diagnose_curves(**run)
    assert d.verdict in verdicts and d.evidence and (d.strength=='')==(d.verdict==OPEN)
    compile(d.next_step, 'next', 'exec')
    assert str(d) and d._repr_html_()
    if not np.isfinite(run['train_losses']).all(): assert d.verdict in (HIGH, OPEN)

@settings(max_examples=100, deadline=None)
@given(runs(st.floats(0, 1e6, width=32)), st.integers(0, 3))
def test_few_pictures_prove_no_overfitting(run, n):
    run['n_valid'] = n
    assert diagnose_curves(**run).verdict!=MANY

@settings(max_examples=100, deadline=None)
@given(runs(st.floats(0, 1e6, width=32)), shares)
def test_a_constant_error_is_never_overfitting(run, e):
    run['errors'] = [e]*len(run['errors'])
    assert diagnose_curves(**run).verdict!=MANY

def curves(kind, rng, E=12, per=20):
    "A healthy or an overfitted run, drawn: losses by batch and by epoch, errors."
    t = np.arange(E*per)/per
    train = 1.1*np.exp(-t/2)*np.exp(rng.normal(0, .1, len(t)))+.02
    valid = .3+.8*np.exp(-np.arange(1, E+1)/2)
    errors = .1+.5*np.exp(-np.arange(1, E+1)/2) + (np.linspace(0, .25, E) if kind=='over' else 0)
    return list(train),list(valid),list(errors)

@settings(max_examples=60, deadline=None)
@given(st.sampled_from(['healthy', 'over']), st.integers(0, 99), st.integers(1, 30))
def test_a_constant_tail_changes_no_verdict(kind, seed, tail):
    rng = np.random.default_rng(seed)
    train,valid,errors = curves(kind, rng)
    want = dict(healthy=FINE, over=MANY)[kind]
    kw = dict(lrs=1e-3, n_valid=1000, chance=math.log(3), baseline=2/3)
    assert diagnose_curves(train, valid, errors, **kw).verdict==want
    longer = diagnose_curves(train+train[-20:]*tail, valid+valid[-1:]*tail, errors+errors[-1:]*tail, **kw)
    assert longer.verdict==want

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 400), st.floats(.05, .5), st.integers(6, 40))
def test_pure_counting_noise_is_seldom_overfitting(seed, n_valid, p, E):
    "Each epoch draws its wrong answers anew, which is worse than any real run: at most a few in a hundred are called a rise."
    rng = np.random.default_rng(seed)
    false = 0
    for _ in range(20):
        errors = rng.binomial(n_valid, p, E)/n_valid
        d = diagnose_curves(list(.5*np.exp(-np.arange(E*10)/20)), [.4]*E, errors, 1e-3, n_valid, chance=math.log(3), baseline=2/3)
        false += d.verdict==MANY
    assert false<=2

def test_a_change_within_noise_changes_nothing():
    "One more wrong picture of 141 at the end, or one less: the same verdict."
    base = np.array([40, 12, 5, 4, 3, 3, 2, 3])
    kw = dict(lrs=3e-3, n_valid=141, chance=math.log(3), baseline=2/3)
    train = list(1.1*np.exp(-np.arange(160)/30))
    said = {diagnose_curves(train, list(base/100+.05), (base+np.eye(8, dtype=int)[-1]*k)/141, **kw).verdict for k in (-2, -1, 0, 1, 2)}
    assert said=={FINE}

def test_lists_arrays_and_tensors_are_the_same():
    train,valid,errors = curves('over', np.random.default_rng(0))
    said = [diagnose_curves(f(train), f(valid), f(errors), 1e-3, 500) for f in (list, np.array, torch.tensor)]
    assert len({d.verdict for d in said})==1 and isinstance(said[0], Diagnosis)


@needs('bears')
def test_on_photographs_the_usual_training_is_fine_and_half_is_too_high(tmp_path, monkeypatch):
    "Real photos and real weights, a frozen body: what the course does in its first lesson."
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.safety import TrainingError
    from bearclass.learn.train import image_learner
    weights = sorted(REAL.rglob('mobilenet_v2*'))
    if not weights: pytest.skip('no MobileNetV2 weights')
    set_seed(0)
    dls = from_folder(REAL/'bears', size=96, bs=16, augment=False)
    for lr,epochs,want in ((.5, 1, {HIGH}), (3e-3, 4, {FINE, FEW})):
        learn = image_learner(dls, 'mobilenet_v2', weights[0], verbose=False)
        with suppress(TrainingError): fit(learn, 'fit_one_cycle', epochs, lr)
        assert diagnose(learn).verdict in want
