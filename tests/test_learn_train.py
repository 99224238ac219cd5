"Training across rooms: every family of architectures, a trial that leaves no trace, plans for other machines."
import copy, os, random, re, subprocess, sys, warnings

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT

torch = pytest.importorskip('torch')
import torchvision
from torch import nn

from bearclass.core import InputError, OfflineError
from bearclass.learn.blocks import from_folder
from bearclass.learn.devices import DevicePlan, apply_plan
from bearclass.learn.models import build_model, layer_groups, norm_stats
from bearclass.learn.train import image_learner
from bearclass.learn.weights import find_arch, load_weights, tiny_cnn, torchvision_names

pytestmark = pytest.mark.usefixtures('one_thread')
with_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA card')


@pytest.fixture(scope='module')
def colours(tmp_path_factory):
    "A folder of 60 small pictures in two classes that differ by colour."
    root,rng = tmp_path_factory.mktemp('data')/'colours',np.random.default_rng(0)
    for k,name in enumerate(('blue', 'red')):
        (root/name).mkdir(parents=True)
        for i in range(30):
            a = rng.normal(110, 25, (40, 40, 3))
            a[..., 2-2*k] += 45
            Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(root/name/f'{i}.png')
    return root


@pytest.fixture
def dls(colours): return from_folder(colours, size=32, bs=8)


@pytest.fixture(scope='module')
def resnet_file(tmp_path_factory):
    "Random numbers as the weights of a resnet18."
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights')/'resnet18-made-up.pth'
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def quiet(learn, f, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return f(*args, **kwargs)


# architectures

small = 'resnet34 mobilenet_v2 mobilenet_v3_large convnext_tiny efficientnet_b0 squeezenet1_1 densenet121 '
small += 'regnet_y_400mf shufflenet_v2_x0_5 googlenet swin_t mnasnet0_5 alexnet resnext50_32x4d'
families = dict.fromkeys(small.split(), 64) | dict(inception_v3=96, vgg11_bn=32, vit_b_32=224)


@pytest.mark.parametrize('name', families)
def test_torchvision_families(name):
    "Builds, answers, trains every weight, and freezing leaves only the head free."
    arch,size = find_arch(name),families[name]
    model = build_model(arch, 3, size=size)
    groups = layer_groups(arch)(model)
    assert sum(p.numel() for g in groups for p in g)==sum(p.numel() for p in model.parameters())
    assert {id(p) for p in groups[-1]}=={id(p) for p in model[1].parameters()}
    out = model.train()(torch.randn(2, 3, size, size))
    assert out.shape==(2, 3)
    out.sum().backward()
    assert [n for n,p in model.named_parameters() if p.grad is None]==[]


def test_a_fixed_size_is_named():
    for name in 'vit_b_32', 'maxvit_t':
        with pytest.raises(InputError, match=rf'{name} cannot take pictures of 64 x 64 .* such as 224 pixels'):
            build_model(find_arch(name), 2, size=64)


def test_every_classifier_of_torchvision_has_statistics():
    for name in torchvision_names(): assert len(norm_stats(find_arch(name))[0])==3, name
    assert norm_stats(find_arch('inception_v3'))==([.5]*3, [.5]*3)


def test_grey_and_seven_channels(resnet_file):
    was = torch.load(resnet_file)['conv1.weight']
    seven = build_model(torchvision.models.resnet18, 2, resnet_file, n_in=7, size=64)[0][0].weight
    assert torch.equal(seven[:, :3], was) and not seven[:, 3:].any()
    for name in 'mobilenet_v2', 'densenet121', 'convnext_tiny', 'swin_t':
        assert build_model(find_arch(name), 2, n_in=1, size=64).eval()(torch.zeros(1, 1, 64, 64)).shape==(1, 2)
    with pytest.raises(InputError, match='vit_b_32 cannot be taken apart for pictures with 1 channels'):
        build_model(find_arch('vit_b_32'), 2, n_in=1)


convs = 'resnet18d convnext_atto mobilenetv3_small_050 efficientnet_lite0 regnetx_002 mobilevit_xxs'
timm_sample = dict.fromkeys(convs.split(), 64)
timm_sample |= dict(vit_tiny_patch16_224=224, swin_tiny_patch4_window7_224=224)


@pytest.mark.parametrize('name', timm_sample)
def test_timm(name, tmp_path):
    timm,size = pytest.importorskip('timm'),timm_sample[name]
    assert find_arch(name)==name
    whole = timm.create_model(name)
    torch.save(whole.state_dict(), tmp_path/f'{name}.pth')
    model = build_model(name, 3, tmp_path/f'{name}.pth', size=size)
    own,theirs = model[0].model.state_dict(),whole.state_dict()
    assert own and all(torch.equal(v, theirs[k]) for k,v in own.items() if k in theirs)
    assert model.train()(torch.randn(2, 3, size, size)).shape==(2, 3)
    assert norm_stats(name)==(list(timm.get_pretrained_cfg(name).mean), list(timm.get_pretrained_cfg(name).std))


def test_the_same_metric_is_shown_once(dls):
    from fastai.metrics import accuracy, error_rate
    for metrics in error_rate, [accuracy, error_rate], accuracy:
        learn = image_learner(dls, 'tiny_cnn', metrics=metrics, verbose=False)
        names = learn.metrics.attrgot('name')
        assert names.count('error_rate')==1 and names[-1]=='error_rate'


# weights

def test_wrappings(tmp_path):
    "Those that the page Weights does not show."
    from safetensors.torch import save_file
    good = tiny_cnn().state_dict()
    save_file(good, tmp_path/'w.safetensors')
    compiled = {f'_orig_mod.{k}': v for k,v in good.items() if not k.endswith('num_batches_tracked')}
    torch.save(dict(model=compiled), tmp_path/'w.pth')
    for name in 'w.safetensors', 'w.pth':
        got = load_weights(tiny_cnn(), tmp_path/name).state_dict()
        assert all(torch.equal(got[k], good[k]) for k in good)


def test_densenet_as_torchvision_publishes_it(tmp_path):
    "Its files still carry names from 2017."
    model = torchvision.models.densenet121()
    as_then = lambda k: re.sub(r'(denselayer\d+\.(?:norm|relu|conv))([12])\.', r'\1.\2.', k)
    old = {as_then(k): v for k,v in model.state_dict().items()}
    assert set(old)!=set(model.state_dict())
    torch.save(old, tmp_path/'densenet121-old.pth')
    load_weights(torchvision.models.densenet121(), tmp_path/'densenet121-old.pth')


def test_download_that_fails(dls, tmp_path, monkeypatch):
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.delenv('BEARCLASS_WEIGHTS', raising=False)
    def refuse(*args, **kwargs): raise OSError('no route')
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    with pytest.raises(OfflineError, match='resnet18 could not be downloaded .*BEARCLASS_WEIGHTS'):
        image_learner(dls, 'resnet18', verbose=False)


def test_weights_are_always_said(dls, resnet_file, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    ways = {'auto':'no weights were found and the network is off', False:'from scratch, as asked',
            resnet_file:'resnet18-made-up.pth', resnet_file.parent:'resnet18-made-up.pth'}
    for weights,said in ways.items():
        learn = image_learner(dls, 'resnet18', weights=weights)
        text = capsys.readouterr().out
        assert said in text and text.count('Training on')==1 and text.count('\n')==1
        assert learn.pretrained==('made-up' in said)
        assert learn.weights==(str(resnet_file) if learn.pretrained else None)   # plain data, which survives `export`


# the trial of learning rates

def trace(learn):
    "Everything that a trial must leave as it was."
    opt = None if learn.opt is None else learn.opt.state_dict()
    m,chance = learn.model,(torch.get_rng_state(), random.getstate(), np.random.get_state()[1])
    params = [(p.grad is None, p.requires_grad) for p in m.parameters()]
    opt = opt and [opt['state'], list(opt['hypers'])]
    return copy.deepcopy((m.state_dict(), opt, chance, learn.dls.train.rng.getstate(), params, m.training))


def same(a, b):
    if isinstance(a, dict): return set(a)==set(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a)==len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a==b


def test_trial_agrees_with_fastai(dls):
    from fastai.callback.schedule import SuggestionMethod
    from fastai.learner import Learner
    torch.manual_seed(0)
    learn = image_learner(dls, 'tiny_cnn', verbose=False, path=dls.path.parent)
    rules = SuggestionMethod.Valley, SuggestionMethod.Slide, SuggestionMethod.Minimum, SuggestionMethod.Steep
    state,order = torch.get_rng_state(),dls.train.rng.getstate()
    with learn.no_bar(): ours = learn.lr_find(show_plot=False, suggest_funcs=rules)
    assert same((state, order), (torch.get_rng_state(), dls.train.rng.getstate()))
    with learn.no_bar(): theirs = Learner.lr_find(learn, show_plot=False, suggest_funcs=rules)
    assert type(ours).__name__=='SuggestedLRs' and ours._fields==theirs._fields
    assert np.allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize('stage', ['new', 'frozen', 'trained'])
def test_trial_leaves_no_trace(dls, resnet_file, tmp_path, stage):
    weights = False if stage=='new' else resnet_file
    learn = image_learner(dls, 'resnet18', weights=weights, path=tmp_path/'gone', verbose=False)
    if stage=='trained':
        quiet(learn, learn.fit_one_cycle, 1, 1e-3)
        learn.opt.zero_grad()
        for p in learn.model.parameters(): p.grad = None
        learn.unfreeze()
    before = trace(learn)
    with learn.no_bar(): learn.lr_find(num_it=20, show_plot=False)
    assert same(before, trace(learn))
    assert not (tmp_path/'gone').exists()                    # nothing touches the disk


class Stops(nn.Module):
    "A loss that ends the trial in its own way at the 7th batch."
    def __init__(self, error):
        super().__init__()
        self.error,self.n = error,0
    def forward(self, preds, targs):
        self.n += 1
        if self.n==7:
            if self.error is None: return preds.sum()*float('nan')
            raise self.error
        return nn.functional.cross_entropy(preds, targs)


@pytest.mark.parametrize('error', [KeyboardInterrupt(), ZeroDivisionError('mine'), None])
def test_trial_that_is_broken_off(dls, tmp_path, error, capsys):
    learn = image_learner(dls, 'tiny_cnn', loss_func=Stops(error), path=tmp_path, verbose=False)
    learn.create_opt()
    before = trace(learn)
    with learn.no_bar():
        if error is None:
            assert type(learn.lr_find(show_plot=False)).__name__=='DefaultLRs'
            assert '6 of 100 batches' in capsys.readouterr().out
        else:
            with pytest.raises(type(error)): learn.lr_find(show_plot=False)
    assert same(before, trace(learn))


def test_trial_on_next_to_nothing(tmp_path, capsys):
    "Two training pictures, one batch an epoch; a loss that cannot change; a rule that needs more points."
    from fastai.callback.schedule import SuggestionMethod as S
    rng = np.random.default_rng(0)
    for k in 'ab':
        (tmp_path/'d'/k).mkdir(parents=True)
        for i in range(2):
            a = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(a).save(tmp_path/'d'/k/f'{i}.png')
    tiny = from_folder(tmp_path/'d', size=32, bs=2, valid_pct=.5, seed=0)
    assert len(tiny.train)==1
    learn = image_learner(tiny, 'tiny_cnn', verbose=False)
    with learn.no_bar():
        for n in 1, 6, 12, 100:
            got = learn.lr_find(num_it=n, show_plot=True, suggest_funcs=(S.Valley, S.Slide, S.Minimum, S.Steep))
            assert got._fields==('valley', 'slide', 'minimum', 'steep') and all(np.isfinite(o) and o>0 for o in got)
        learn.loss_func = lambda preds, targs: preds.sum()*0+1
        capsys.readouterr()
        assert learn.lr_find(show_plot=False).valley==pytest.approx(1e-3)
    assert 'never falls clearly' in capsys.readouterr().out
    with learn.no_bar(): assert learn.lr_find(show_plot=False, suggest_funcs=None) is None
    import matplotlib.pyplot as plt
    plt.close('all')


# devices

def test_plan_is_carried_out(colours):
    dls = from_folder(colours, size=32, bs=8)
    card = DevicePlan('cpu', 'a made-up card', 'fp16', True, 3, True)
    learn = apply_plan(image_learner(dls, 'tiny_cnn', verbose=False), card)
    assert learn.mixed_precision.amp_mode.value=='fp16' and hasattr(learn, 'channels_last')
    assert [(d.fake_l.num_workers, d.pin_memory, d.fake_l.pin_memory) for d in dls.loaders]==[(3, True, True)]*2
    apply_plan(learn, DevicePlan('cpu', 'another', 'bf16', True, 5, True))
    assert len([c for c in learn.cbs if type(c).__name__ in ('MixedPrecision', 'ChannelsLast')])==2     # once each
    assert dls.train.fake_l.num_workers==3   # what was asked for stays


@with_cuda
@pytest.mark.parametrize('arch', ['resnet18', 'mobilenet_v2'])
def test_cuda_end_to_end(colours, arch, tmp_path):
    "On the card: 16 bits, channels-last, batches made there; the losses stay near those in 32 bits."
    from fastai.vision.all import load_learner
    def train(device):
        torch.manual_seed(0)
        dls = from_folder(colours, size=64, bs=8, num_workers=0)
        dls.train.rng = random.Random(0)
        learn = image_learner(dls, arch, weights=False, device=device, verbose=False)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 1e-3)
        return learn
    fast,plain = train('auto'),train(DevicePlan('cuda', 'the card in 32 bits'))
    assert fast.device_plan.device=='cuda' and next(fast.model.parameters()).is_cuda
    assert fast.dls.train.pin_memory and fast.dls.one_batch()[0].is_cuda
    convs = [m.weight for m in fast.model.modules() if isinstance(m, nn.Conv2d)]
    convs = [w for w in convs if w.shape[1]>1 and w.shape[2]>1]
    assert all(w.dtype==torch.float32 and w.is_contiguous(memory_format=torch.channels_last) for w in convs)
    assert abs(float(fast.recorder.losses[-1])-float(plain.recorder.losses[-1]))<.3
    before = trace(fast)
    with fast.no_bar(): fast.lr_find(num_it=20, show_plot=False)
    assert same(before, trace(fast))
    fast.export(tmp_path/'m.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        again = load_learner(tmp_path/'m.pkl')
    f = fast.dls.valid_ds.items[0]
    with again.no_bar(), fast.no_bar(): assert np.allclose(again.predict(f)[2], fast.predict(f)[2].cpu(), atol=.02)


# real weights, real photos

# benchmarks run where there is no card

@pytest.mark.parametrize('name', ['learn_gpu', 'learn_overhead'])
def test_benchmarks_run(name):
    command = [sys.executable, ROOT/f'benchmarks/{name}.py', '--tiny']
    env = {**os.environ, 'OMP_NUM_THREADS':'1', 'BEARCLASS_PROGRESS':'0'}
    out = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert out.returncode==0, out.stderr[-2000:]
    assert '| ' in out.stdout
    if name=='learn_gpu' and not torch.cuda.is_available(): assert 'There is no GPU' in out.stdout
