"Advice: on real photos, on drawn ones, for bodies that know the labels, and on odd input."
import shutil
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from conftest import REAL, needs

NAMES = ['black', 'grizzly', 'teddy']


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))


def clouds(counts=(60, 60, 60), dims=20, gap=4., seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=(len(y), dims))
    x[np.arange(len(y)), y] += gap
    return x.astype(np.float32), y


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    from bearclass.gather.datasets import draw_bears
    return draw_bears(tmp_path_factory.mktemp('drawn')/'bears', n_per_class=40, size=64).root


@pytest.fixture
def learn(tmp_path, drawn):
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    root = shutil.copytree(drawn, tmp_path/'bears')
    return image_learner(from_folder(root, size=48, bs=8), 'tiny_cnn', weights=False, verbose=False)


@needs('bears')
@needs('weights')
def test_real_bears(monkeypatch):
    "As they are there is nothing to gain that could be seen; with a fifth of the labels flipped it is the labels."
    from bearclass.learn.advise import advise, weigh
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.features import picture_features
    from bearclass.learn.train import image_learner
    monkeypatch.setenv('BEARCLASS_WEIGHTS', str(REAL/'weights'))
    learn = image_learner(from_folder(REAL/'bears', size=160), 'mobilenet_v2', verbose=False)
    a = advise(learn, repeats=1)
    assert a.verdict == 'cannot tell' and a.error < .05 and 'nothing here promises more' in a.why
    assert 'has seen none of these labels' in a.notes[-1]
    f = picture_features(learn)
    y = np.unique([o.parent.name for o in f.files], return_inverse=True)[1]
    rng = np.random.default_rng(1)
    wrong = rng.random(len(y)) < .2
    noisy = np.where(wrong, (y+rng.integers(1, 3, len(y))) % 3, y)
    assert weigh(f.x, noisy, NAMES, int(wrong.sum())).verdict == 'clean'


def test_a_learner_and_its_dataloaders(learn):
    from bearclass.learn.advise import advise
    from bearclass.learn.issues import label_issues
    issues = label_issues(learn)
    a = advise(learn, issues, repeats=1)
    assert a.n == 120 and 0 < a.error < 1 and len(a.curves) == 4
    assert any('no record of a training' in o for o in a.notes)
    assert advise(learn.dls, issues, repeats=1).n == 120
    assert str(a) == str(advise(learn, issues, repeats=1))             # the same question, the same answer
    t = a.table()
    assert len(t) == len(a.options) and t.gain.is_monotonic_decreasing and t.named.sum() == (a.option is not None)
    assert 'cannot tell' in a._repr_html_() or a.option


def test_a_body_that_was_trained_here_is_not_asked(learn):
    from bearclass.learn.advise import advise
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 8e-3)
    assert 'has learnt from these labels' in advise(learn, repeats=1).notes[-1]


def test_what_somebody_has_decided_is_not_flagged_again(learn):
    "A picture that was kept is settled; one whose new label waits in the journal is counted as such."
    from bearclass.learn.advise import advise
    from bearclass.learn.decisions import CleaningJournal
    from bearclass.learn.issues import label_issues
    issues = label_issues(learn)
    issues['kind'] = ''
    issues.loc[:3, 'kind'] = 'likely mislabelled'
    clean = lambda a: [o.what for o in a.options if o.action=='clean']
    assert clean(advise(learn, issues, repeats=1)) == ['look through the 4 flagged pictures']
    j = CleaningJournal(issues.path[0].parent.parent)
    j.mark_many([(f, 'keep') for f in issues.path[:2]])
    j.mark(issues.path[2], next(c for c in learn.dls.vocab if c!=issues.given_label[2]))
    a = advise(learn, issues, repeats=1)
    assert clean(a) == ['look through the 1 flagged picture']
    assert any(o.startswith('3 of the flagged labels were looked at already') for o in a.notes)
    assert any(o.startswith('1 decision of the cleaning journal is not applied yet') for o in a.notes)
    j.mark(issues.path[3], 'keep')
    a = advise(learn, issues, repeats=1)
    assert clean(a) == [] and any('No label is flagged that nobody has looked at' in o for o in a.notes)


def test_copies_count_once_and_unreadable_pictures_stop_nobody(learn):
    from bearclass.learn.advise import advise
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.issues import label_issues
    files = [*learn.dls.train_ds.items, *learn.dls.valid_ds.items]
    shutil.copy(files[0], files[0].with_name('copy.jpg'))
    dls = from_folder(learn.dls.path if learn.dls.path.name == 'bears' else files[0].parent.parent, size=48, bs=8)
    issues = label_issues(dls)
    files[1].write_bytes(files[1].read_bytes()[:50])
    assert advise(dls, issues, repeats=1).n == 119


def test_labels_that_are_no_single_class(tmp_path, learn):
    from bearclass.core import InputError
    from bearclass.learn.advise import advise
    from bearclass.learn.blocks import from_lists
    files = [*learn.dls.train_ds.items, *learn.dls.valid_ds.items]
    numbers = from_lists(files[0].parent.parent, files, [float(i) for i in range(len(files))], size=48, bs=8)
    with pytest.raises(InputError, match='one label'): advise(numbers)
    with pytest.raises(InputError): advise('bears')


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 9), st.booleans())
def test_whatever_comes_there_is_an_answer(seed, k, most, constant):
    "Few pictures, classes with none, features that say nothing: never an exception, never a clear answer out of nothing but noise."
    from bearclass.learn.advise import verdicts, weigh
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, rng.integers(1, k*most+1))
    x = np.zeros((len(y), 4)) if constant else rng.normal(size=(len(y), 4))
    a = weigh(x, y, [f'class {i}' for i in range(k)], int(rng.integers(0, len(y)+1)), repeats=1)
    assert a.verdict in verdicts and str(a) and (a.option is None) == (a.verdict == 'cannot tell')
    for o in a.options: assert np.isfinite([o.gain, o.low, o.high]).all() and o.low-1e-9 <= o.gain <= o.high+1e-9


def test_nothing_to_gain_is_seldom_called_something():
    from bearclass.learn.advise import weigh
    named = [weigh(*clouds((60, 60), 4, 1.5, s), NAMES[:2], 10, seed=s, repeats=2).verdict != 'cannot tell' for s in range(12)]
    assert sum(named) <= 3


def test_the_order_of_pictures_does_not_decide():
    from bearclass.learn.advise import weigh
    x,y = clouds((150, 10, 150), 60, 6)
    i = np.random.default_rng(0).permutation(len(y))
    a,b = weigh(x, y, NAMES, repeats=1),weigh(x[i], y[i], NAMES, repeats=1)
    assert abs(a.error-b.error) < .05 and {o.what for o in a.options} == {o.what for o in b.options}


def test_many_classes_have_six_curves():
    from bearclass.learn.advise import weigh
    x,y = clouds((12,)*9, 20, 3.)
    assert len(weigh(x, y, [str(i) for i in range(9)], repeats=1).curves) == 7


def test_plots_draw_what_they_get():
    import matplotlib.pyplot as plt
    from bearclass.learn.advise import plot_advice, plot_curves, weigh
    a = weigh(*clouds(), NAMES, 5, repeats=1)
    assert len(plot_advice(a).get_yticklabels()) == len(a.options)
    assert plot_curves(a).get_legend() is not None
    empty = weigh(*clouds((3, 3, 2)), NAMES)
    assert 'Cannot tell' in plot_advice(empty).get_title() and plot_curves(empty).get_legend() is None
    plt.close('all')
