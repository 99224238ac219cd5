"Interpreting and looking inside, across rooms: other architectures, other learners, real photos."
import numpy as np
import pytest
import torch
from PIL import Image
from fastcore.test import expect_fail
from torch import nn
from bearclass.core import InputError, MissingError
from bearclass.learn import inside
from bearclass.learn.blocks import from_folder
from bearclass.learn.inside import find_layer, first_filters, grad_cam, heat_inside, layer_table, plot_patches, receptive_boxes, seen_picture, top_patches
from bearclass.learn.interpret import (Evaluation, apply_temperature, calibration_table, class_table, compare_models, evaluate, expected_calibration_error,
                                       fit_temperature, summary, wilson_interval)
from bearclass.learn.train import build_model, find_arch, image_learner
from conftest import REAL, needs

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Twelve small pictures of noise in each of two classes."
    rng,path = np.random.default_rng(0),tmp_path_factory.mktemp('noise')
    for label,c in dict(dark=60, light=190).items():
        (path/label).mkdir()
        for i in range(12): Image.fromarray((c+rng.normal(0, 30, (70, 80, 3))).clip(0, 255).astype(np.uint8)).save(path/label/f'{i}.png')
    return path


@pytest.fixture(scope='module')
def dls(root): return from_folder(root, size=64, bs=4)


def learner(dls, arch): return image_learner(dls, arch, weights=False, verbose=False)


def state_of(learn):
    "All that looking must leave alone."
    m = learn.model
    return ([o.training for o in m.modules()], [p.requires_grad for p in m.parameters()], [p.grad is None for p in m.parameters()],
            [v.clone() for v in m.state_dict().values()], [len(o._forward_hooks)+len(o._forward_pre_hooks)+len(o._backward_hooks) for o in m.modules()])


def same(a, b): return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x==y for p,q in zip(a, b) for x,y in zip(p, q))


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
    assert heat.shape==(64, 64) and heat.dtype==np.float32 and 0<=heat.min() and heat.max() in (0, 1) and label in dls.vocab
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


def test_first_filters_of_known_nets():
    shapes = {a: first_filters(build_model(find_arch(a), 2)).shape for a in ('tiny_cnn', 'resnet18', 'mobilenet_v2', 'convnext_tiny')}
    assert shapes==dict(tiny_cnn=(16,3,3,3), resnet18=(64,7,7,3), mobilenet_v2=(32,3,3,3), convnext_tiny=(96,4,4,3))


def test_vision_transformers_are_refused(dls):
    "After its first layer a ViT has tokens: an error, and nothing left behind."
    from fastai.learner import Learner
    from torchvision.models import VisionTransformer
    vit = VisionTransformer(image_size=64, patch_size=16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=2)
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
    "A squeeze-and-excitation net sees everything through its averages; its field is what lies before it. And other shapes than squares."
    m = build_model(find_arch('mobilenet_v3_small'), 2)
    l,t,r,b = receptive_boxes(m, m[0][1], [(8, 4)], (128, 64))[0]
    assert 3<r-l<40 and 3<b-t<40 and l>0 and t>0
    conv = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2, padding=2), nn.Conv2d(4, 4, (1, 5), padding=(0, 2)))
    assert receptive_boxes(conv, conv[1], [(10, 10)], (21, 21))==[(6, 8, 15, 13)]


def test_what_a_learner_opens_can_be_looked_at(dls):
    learn,f = learner(dls, 'tiny_cnn'),dls.valid_ds.items[0]
    heats = [grad_cam(learn, x, 0)[0] for x in (f, str(f), Image.open(f), np.asarray(Image.open(f)), f.read_bytes())]
    for h in heats[1:]: assert np.array_equal(h, heats[0])
    with expect_fail(MissingError): grad_cam(learn, f.with_name('gone.png'))


def test_plain_fastai_learners_too(root):
    from fastai.vision.all import ImageDataLoaders, Resize, resnet18, vision_learner
    learn = vision_learner(ImageDataLoaders.from_folder(root, valid_pct=.3, item_tfms=Resize(64), bs=4, num_workers=0), resnet18, pretrained=False)
    f = learn.dls.valid_ds.items[0]
    assert grad_cam(learn, f)[0].shape==seen_picture(learn, f).shape[:2]==(64, 64)
    assert layer_table(learn).loc['0.4', 'sees']==43
    assert len(top_patches(learn, '0.0', 5, n=3)[5])==3


def test_no_classes_no_heat(dls):
    from types import SimpleNamespace
    with expect_fail(InputError, contains='without classes'): inside._vocab(SimpleNamespace(dls=SimpleNamespace(vocab=None)))


def test_numbers_and_several_labels_are_no_single_classes(root):
    from fastai.vision.all import DataBlock, Learner, MSELossFlat, MultiCategoryBlock, RegressionBlock, get_image_files
    from bearclass.learn.blocks import Fit, image_input
    for block,get_y in (RegressionBlock(1), lambda f: len(f.name)), (MultiCategoryBlock(), lambda f: [f.parent.name]):
        dls = DataBlock((image_input(), block), get_items=get_image_files, get_y=get_y, item_tfms=Fit(32)).dataloaders(root, bs=4, num_workers=0)
        learn = Learner(dls, build_model(find_arch('tiny_cnn'), 1 if dls.c==1 else 2), loss_func=MSELossFlat() if dls.c==1 else None)
        with expect_fail(InputError, contains='one label a picture'): evaluate(learn)


def test_a_silent_channel_has_no_patches(dls):
    learn = learner(dls, 'tiny_cnn')
    with torch.no_grad(): learn.model[0][1][1].weight[2],learn.model[0][1][1].bias[2] = 0,-1
    found = top_patches(learn, '0.1', [1, 2], n=2)
    assert len(found[1])==2 and found[2]==[]
    assert [a.get_title() for a in plot_patches(found)]==['channel 1', 'channel 2: silent']


def test_an_error_on_the_way_leaves_no_trace(dls):
    "A network that fails in the middle: modes restored, hooks gone."
    learn = learner(dls, 'tiny_cnn')
    learn.model.train()
    class Bad(nn.Module):
        def forward(self, x): raise RuntimeError('broken')
    learn.model[1].append(Bad())
    before = state_of(learn)
    for look in (lambda: grad_cam(learn, dls.valid_ds.items[0]), lambda: layer_table(learn), lambda: top_patches(learn, '0.1', 0)):
        with expect_fail(RuntimeError, contains='broken'): look()
        assert same(state_of(learn), before)


def test_many_classes_in_the_table_and_the_sentence():
    rng = np.random.default_rng(0)
    targs = np.arange(370)%37
    probs = rng.dirichlet([.2]*37, 370)
    ev = Evaluation([f'{i}.jpg' for i in range(370)], targs, probs, [f'breed {i}' for i in range(37)])
    t = class_table(ev)
    assert len(t)==37 and (t.n==10).all() and (t.low<=t.error_rate+1e-9).all() and (t.error_rate<=t.high+1e-9).all()
    assert t.right.sum()/370==pytest.approx(1-ev.error_rate)
    low,high = wilson_interval(int((ev.preds!=targs).sum()), 370)
    assert summary(ev).endswith(f'95% interval: {low:.1%} to {high:.1%}.')
    assert calibration_table(ev).n.sum()==370 and 0<=expected_calibration_error(ev)<=1


def test_temperature_from_probabilities_is_that_from_scores():
    "softmax(log p / T) is softmax(z / T), and the fitted T is where the derivative of the loss vanishes."
    rng = np.random.default_rng(1)
    z = rng.normal(0, 3, (400, 4))
    soft = lambda o: np.exp(o-o.max(1, keepdims=True))/np.exp(o-o.max(1, keepdims=True)).sum(1, keepdims=True)
    assert np.allclose(apply_temperature(soft(z), 2.), soft(z/2), atol=1e-6)
    targs = np.array([rng.choice(4, p=p) for p in soft(z/1.7)])
    ev = Evaluation([str(i) for i in range(400)], targs, soft(z), list('abcd'))
    t = fit_temperature(ev)
    loss = lambda t: -np.log(soft(z/t)[np.arange(400), targs]).mean()
    assert 1.3<t<2.2 and loss(t)<=min(loss(t*1.01), loss(t/1.01))


def test_labels_decide_the_comparison_not_the_order_of_the_classes():
    files,probs = list('wxyz'),np.array([[.9,.1], [.8,.2], [.1,.9], [.4,.6]])
    a = Evaluation(files, np.array([0,0,1,1]), probs, ['cat', 'dog'])
    b = Evaluation(files, np.array([1,1,0,0]), probs[:,::-1], ['dog', 'cat'])
    assert compare_models(a, b).both==4
    with expect_fail(InputError, contains='different pictures or labels'): compare_models(a, Evaluation(files, np.array([1,1,0,0]), probs, ['cat', 'dog']))


@needs('bears')
@needs('weights')
def test_real_bears(tmp_path):
    "MobileNetV2 on photos: the last maps hold the bear better than an untrained net's, and patches come from many pictures."
    import shutil
    for label in 'black', 'teddy':
        (tmp_path/label).mkdir()
        for f in sorted((REAL/'bears'/label).iterdir())[:16]: shutil.copy(f, tmp_path/label)
    learn = image_learner(from_folder(tmp_path, size=160, bs=8, augment=False), 'mobilenet_v2', REAL/'weights', verbose=False)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 3e-3)
    assert evaluate(learn).error_rate<=.25
    f = next(f for f in learn.dls.valid_ds.items if f.parent.name=='teddy')
    heat,label,p = grad_cam(learn, f, 'teddy')
    assert heat.max()==1 and heat_inside(heat, (16, 16, 144, 144))[0]>.64
    found = top_patches(learn, '0.4', [0, 1], n=9)
    assert all(len({p.file for p in ps})==9 for ps in found.values())
