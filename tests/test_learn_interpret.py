"Interpreting and looking inside, across rooms: other architectures, other learners, real photos."
import numpy as np
import pytest
import torch
from PIL import Image
from fastcore.test import expect_fail
from torch import nn
from bearclass.core import InputError, MissingError
from bearclass.learn.blocks import from_folder
from bearclass.learn.inside import grad_cam, layer_table
from bearclass.learn.inside import receptive_boxes, seen_picture, top_patches
from bearclass.learn.interpret import Evaluation, compare_models
from bearclass.learn.interpret import evaluate, summary
from bearclass.learn.models import build_model
from bearclass.learn.train import image_learner
from bearclass.learn.weights import find_arch

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Twelve small pictures of noise in each of two classes."
    rng,path = np.random.default_rng(0),tmp_path_factory.mktemp('noise')
    for label,c in dict(dark=60, light=190).items():
        (path/label).mkdir()
        for i in range(12):
            a = (c+rng.normal(0, 30, (70, 80, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(a).save(path/label/f'{i}.png')
    return path


@pytest.fixture(scope='module')
def dls(root): return from_folder(root, size=64, bs=4)


def learner(dls, arch): return image_learner(dls, arch, weights=False, verbose=False)


def state_of(learn):
    "All that looking must leave alone."
    m = learn.model
    hooks = [len(o._forward_hooks)+len(o._forward_pre_hooks)+len(o._backward_hooks) for o in m.modules()]
    params = [(p.requires_grad, p.grad is None) for p in m.parameters()]
    return [o.training for o in m.modules()], params, [v.clone() for v in m.state_dict().values()], hooks


def same(a, b):
    equal = lambda x,y: torch.equal(x, y) if isinstance(x, torch.Tensor) else x==y
    return all(equal(x, y) for p,q in zip(a, b) for x,y in zip(p, q))


@pytest.mark.parametrize('arch', ['tiny_cnn', 'resnet18', 'mobilenet_v2', 'convnext_tiny'])
@pytest.mark.parametrize('frozen', [False, True])
def test_every_convolutional_architecture(dls, arch, frozen):
    "Heat map, table and patches; the model is as before in every respect, frozen or not, training or not."
    torch.manual_seed(0)
    learn = learner(dls, arch)
    if frozen: learn.freeze()
    learn.model.train(not frozen)
    f,before = dls.valid_ds.items[0],state_of(learn)
    heat,label,p = grad_cam(learn, f)
    assert heat.shape==(64, 64) and heat.dtype==np.float32 and label in dls.vocab
    assert 0<=heat.min() and heat.max() in (0, 1)
    with learn.no_bar(): probs = learn.get_preds(dl=dls.test_dl([f]))[0][0]
    assert p==pytest.approx(float(probs.max()), abs=1e-4)
    both = [grad_cam(learn, f, c)[2] for c in dls.vocab]
    assert sum(both)==pytest.approx(1, abs=1e-5) and grad_cam(learn, f, 1)[1]==dls.vocab[1]
    if frozen: return
    t = layer_table(learn)
    assert (t['rows'].diff().dropna()<=0).all() and (t.sees.diff().dropna()>=0).all() and t.sees.iloc[-1]==64
    found = top_patches(learn, t.index[1], [0, 3], n=4)
    assert list(found)==[0, 3] and all(len(ps)<=4 and len({p.pixels.shape for p in ps})<=1 for ps in found.values())
    learn.model.train()
    assert same(state_of(learn), before)


def test_vision_transformers_are_refused(dls):
    "After its first layer a ViT has tokens: an error, and nothing left behind."
    from fastai.learner import Learner
    from torchvision.models import VisionTransformer
    sizes = dict(image_size=64, patch_size=16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=2)
    vit = VisionTransformer(**sizes)
    learn = Learner(dls, vit, loss_func=nn.CrossEntropyLoss())
    before = state_of(learn)
    with expect_fail(InputError, contains='works on tokens'): grad_cam(learn, dls.valid_ds.items[0])
    assert same(state_of(learn), before)


def test_receptive_fields_of_resnet18():
    "Shortcuts and pooling: 7, 11, 43, 99, as the formula along the longest way has it."
    m = build_model(find_arch('resnet18'), 2)
    for k,(wide,rows) in {0: (7, 128), 3: (11, 64), 4: (43, 64), 5: (99, 32)}.items():
        l,t,r,b = receptive_boxes(m, m[0][k], [(rows//2, rows//2)], (256, 256))[0]
        assert (r-l, b-t)==(wide, wide)


def test_receptive_field_is_exact_and_not_blurred_by_global_averages():
    "A squeeze-and-excitation net sees everything through its averages; its field is what lies before it."
    m = build_model(find_arch('mobilenet_v3_small'), 2)
    l,t,r,b = receptive_boxes(m, m[0][1], [(8, 4)], (128, 64))[0]
    assert 3<r-l<40 and 3<b-t<40 and l>0 and t>0
    conv = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2, padding=2), nn.Conv2d(4, 4, (1, 5), padding=(0, 2)))
    assert receptive_boxes(conv, conv[1], [(10, 10)], (21, 21))==[(6, 8, 15, 13)]


def test_plain_fastai_learners_too(root):
    from fastai.vision.all import ImageDataLoaders, Resize, resnet18, vision_learner
    dls = ImageDataLoaders.from_folder(root, valid_pct=.3, item_tfms=Resize(64), bs=4, num_workers=0)
    learn = vision_learner(dls, resnet18, pretrained=False)
    f = learn.dls.valid_ds.items[0]
    assert grad_cam(learn, f)[0].shape==seen_picture(learn, f).shape[:2]==(64, 64)
    assert layer_table(learn).loc['0.4', 'sees']==43
    assert len(top_patches(learn, '0.0', 5, n=3)[5])==3


def test_an_error_on_the_way_leaves_no_trace(dls):
    "A network that fails in the middle: modes restored, hooks gone."
    learn = learner(dls, 'tiny_cnn')
    learn.model.train()
    class Bad(nn.Module):
        def forward(self, x): raise RuntimeError('broken')
    learn.model[1].append(Bad())
    before = state_of(learn)
    f = dls.valid_ds.items[0]
    for look in (lambda: grad_cam(learn, f), lambda: layer_table(learn), lambda: top_patches(learn, '0.1', 0)):
        with expect_fail(RuntimeError, contains='broken'): look()
        assert same(state_of(learn), before)


def test_probabilities_whatever_the_loss_function(dls):
    learn = learner(dls, 'tiny_cnn')
    want = evaluate(learn).probs
    for loss in nn.CrossEntropyLoss(), nn.functional.cross_entropy:
        learn.loss_func = loss
        np.testing.assert_allclose(evaluate(learn).probs, want, atol=1e-5)


def test_a_class_that_nobody_was_asked_about_is_named():
    ev = Evaluation(['a.jpg']*25, np.zeros(25, int), np.tile([.9, .1], (25, 1)), ['bear', 'panda'])
    assert 'Nothing is known of panda' in summary(ev) and 'Nothing' not in summary(Evaluation(
        ['a.jpg']*2, np.arange(2), np.eye(2), ['bear', 'panda']))


@pytest.mark.parametrize('what', ['evaluate', 'validate', 'quick_tune'])
def test_a_call_that_fails_leaves_the_learner_as_it_was(root, tmp_path, what, monkeypatch):
    import shutil
    from bearclass.learn.features import quick_tune
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))
    shutil.copytree(root, tmp_path/'pictures')
    learn = learner(from_folder(tmp_path/'pictures', size=64, bs=4), 'tiny_cnn')
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    files = list(learn.dls.valid_ds.items)
    if what=='quick_tune': files += learn.dls.train_ds.items
    for f in files: f.unlink()
    known = lambda: (state_of(learn), learn.dls, learn.metrics, list(map(type, learn.cbs)), learn.opt,
                     learn.recorder.values)
    before = known()
    with learn.no_bar(), pytest.raises((InputError, MissingError)):
        dict(evaluate=evaluate, validate=lambda o: o.validate(), quick_tune=quick_tune)[what](learn)
    after = known()
    assert same(before[0], after[0]) and before[1:]==after[1:]


def test_labels_decide_the_comparison_not_the_order_of_the_classes():
    files,probs = list('wxyz'),np.array([[.9,.1], [.8,.2], [.1,.9], [.4,.6]])
    a = Evaluation(files, np.array([0,0,1,1]), probs, ['cat', 'dog'])
    b = Evaluation(files, np.array([1,1,0,0]), probs[:,::-1], ['dog', 'cat'])
    assert compare_models(a, b).both==4
    other = Evaluation(files, np.array([1,1,0,0]), probs, ['cat', 'dog'])
    with expect_fail(InputError, contains='different pictures or labels'): compare_models(a, other)
