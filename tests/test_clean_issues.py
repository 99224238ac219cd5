"label_issues where a notebook is too slow or lacks data: real photos, flipped labels, odd names, seeds, copies."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from conftest import REAL, needs
from bearclass.samples.datasets import draw_bears
from bearclass.learn.blocks import from_folder
from bearclass.clean.issues import (ISSUE_KINDS, adjusted_probs, choose_eyes, confident_joint, confident_labels,
    confident_thresholds, deal_folds, issue_kinds, label_issues, normalized_margin, out_of_fold_probs,
    self_confidence)
from bearclass.learn.features import picture_features, quick_tune
from bearclass.learn.train import image_learner
pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))


def blobs(n=60, k=3, d=24, seed=0, gap=4.):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(k), n)
    x = rng.normal(0, 1, (n*k, d)).astype(np.float32)
    x[np.arange(n*k), y] += gap
    return x, y, rng


def flipped(y, n, rng):
    new,where = y.copy(),rng.permutation(len(y))[:n]
    new[where] = (y[where]+1+rng.integers(0, y.max(), n))%(y.max()+1)
    return new, where


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(2, 40), st.integers(0, 10_000))
def test_scores_stay_in_their_ranges(k, n, seed):
    rng = np.random.default_rng(seed)
    p,y = rng.dirichlet(np.ones(k)*.3, n),rng.integers(0, k, n)
    a = adjusted_probs(y, p)
    for s in self_confidence(y, p), normalized_margin(y, p), self_confidence(y, a), confident_thresholds(y, p):
        assert (s>=-1e-9).all() and (s<=1+1e-9).all()
    assert np.allclose(a.sum(1), 1)
    assert np.allclose(confident_joint(y, p).sum(1), np.bincount(y, minlength=k))
    assert set(issue_kinds(y, p, np.zeros(n, bool), np.zeros(n, bool)))<=set(ISSUE_KINDS)
    assert ((confident_labels(y, p)>=-1)&(confident_labels(y, p)<k)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(0, 99))
def test_folds_keep_groups_together_and_share_classes(k, pics, seed):
    y,g = map(np.array, zip(*pics))
    order = np.random.default_rng(seed).random(len(y))
    fold = deal_folds(y, g, order, k)
    assert all(len(set(fold[g==o]))==1 for o in set(g)) and fold.min()>=0 and fold.max()<k
    single = deal_folds(y, np.arange(len(y)), order, k)
    for c in set(y): assert np.ptp(np.bincount(single[y==c], minlength=k))<=1


def test_copies_with_the_same_wrong_label_do_not_vouch_for_each_other():
    "The reason for groups, measured: three copies of each wrongly labelled picture, dealt apart and dealt together."
    x,y,rng = blobs(n=60, d=200, gap=2.5)
    new,where = flipped(y, 9, rng)
    copies = np.repeat(where, 3)
    xx = np.concatenate([x, x[copies]+rng.normal(0, .05, (len(copies), x.shape[1])).astype(np.float32)])
    yy = np.concatenate([new, new[copies]])
    group = np.concatenate([np.arange(len(x)), copies])
    wrong = np.concatenate([where, np.arange(len(x), len(xx))])
    order = rng.random(len(xx))
    def confidence(g): return self_confidence(yy, out_of_fold_probs(xx, yy, deal_folds(yy, g, order), 3))[wrong].mean()
    assert confidence(group)<confidence(np.arange(len(xx)))-.05


def test_drawn_bears_with_truth(tmp_path):
    "Small, so the margin is wide; benchmarks/clean_issues.py has the figures for more."
    bears = draw_bears(tmp_path/'bears', n_per_class=60, label_noise=.1, seed=5, size=96)
    dls = from_folder(bears.root, size=64, bs=16)
    df = label_issues(dls)
    wrong = bears.truth.query('kind=="mislabelled"').path
    assert np.isin(wrong, df.path[:2*len(wrong)]).mean()>=.6
    again = label_issues(dls, cache=False)
    assert list(again.path)==list(df.path) and np.allclose(again.label_quality, df.label_quality, atol=1e-5)


@needs('bears')
@needs('weights')
def test_real_bears_with_flipped_labels(monkeypatch):
    "MobileNetV2 with ImageNet's weights; the median of nine seeds."
    monkeypatch.setenv('BEARCLASS_WEIGHTS', str(REAL/'weights'))
    learn = image_learner(from_folder(REAL/'bears', bs=64), 'mobilenet_v2', verbose=False)
    feats = picture_features(learn)
    y = np.unique([f.parent.name for f in feats.files], return_inverse=True)[1]
    def found(share, seed):
        rng = np.random.default_rng(seed)
        new,where = flipped(y, round(share*len(y)), rng)
        p = out_of_fold_probs(feats.x, new, deal_folds(new, np.arange(len(y)), rng.random(len(y))), 3)
        doubtful = np.argsort(normalized_margin(new, adjusted_probs(new, p)))
        return np.isin(where, doubtful[:2*len(where)]).mean()
    for share,least in (.05, .98), (.1, .95): assert np.median([found(share, s) for s in range(9)])>=least


def test_who_was_only_evaluated_looks_with_its_own_eyes(tmp_path):
    "The learner remembers its weights file, and a fresh body from it sees what its own does."
    import torch
    from bearclass.learn.interpret import evaluate
    from bearclass.learn.train import tiny_cnn
    file = tmp_path/'tiny_cnn.pth'
    torch.save(tiny_cnn().state_dict(), file)
    dls = from_folder(draw_bears(tmp_path/'bears', n_per_class=20, seed=1, size=64).root, size=48, bs=8)
    learn = image_learner(dls, 'tiny_cnn', weights=file, verbose=False)
    learn.weights = str(file)
    quick_tune(learn, verbose=False)
    evaluate(learn)
    assert label_issues(learn, check=False).attrs['method']=='fresh'
    assert np.array_equal(picture_features(learn).x, picture_features(choose_eyes(learn).learn).x)
    learn.weights = None   # a file that nobody remembers
    assert choose_eyes(learn).method=='patches'
