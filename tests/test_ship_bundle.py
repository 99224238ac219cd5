"What travels with an exported model: what was done to pictures in training, and probabilities that keep their word."
from types import SimpleNamespace
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope='module')
def unsure(tmp_path_factory, one_thread):
    "(folder, learner): reds and blues of which every fifth wears the other's name, so that nobody can be always right."
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    from fastai.torch_core import set_seed
    set_seed(0)
    root,rng = tmp_path_factory.mktemp('unsure')/'colours',np.random.default_rng(0)
    colours = dict(red=(190, 60, 60), blue=(60, 60, 190))
    for label,other in ('red', 'blue'), ('blue', 'red'):
        (root/label).mkdir(parents=True)
        for i in range(80):
            pixels = np.array(colours[other if i%5==0 else label])+rng.normal(0, 30, (24, 24, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root/label/f'{i}.png')
    learn = image_learner(from_folder(root, size=24, bs=16, valid_pct=.4), 'tiny_cnn', verbose=False)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(8, 1e-2)
    return root,learn


def test_a_bundle_claims_what_comes_true(unsure, tmp_path):
    from bearclass.learn.interpret import apply_temperature, evaluate, expected_calibration_error
    from bearclass.ship.bundle import evaluate_bundle, export_bundle
    root,learn = unsure
    ev = evaluate(learn)
    learn.model[-1][-1].weight.data *= 4   # it boasts from now on; its answers stay
    boasts = evaluate(learn)
    assert (boasts.preds==ev.preds).all() and 0<ev.error_rate<.35
    b = export_bundle(learn, tmp_path/'bundle')
    served = evaluate_bundle(b, root)
    temperature,own = b.config['temperature'],dict(zip(boasts.files, boasts.probs))
    assert temperature>1.5
    np.testing.assert_allclose(
        served.probs,
        apply_temperature(np.stack([own[f] for f in served.files]), temperature),
        atol=1e-4)
    assert served.losses.mean()<boasts.losses.mean()
    assert expected_calibration_error(served)<expected_calibration_error(boasts)
    assert f'(temperature {temperature:.2f})' in b.files['README.md'].decode()


SIZES = (49, 37), (300, 230), (61, 115), (1, 40), (448, 448)   # 230 is one that fastai's `Resize` to 224 rounds down


@pytest.fixture(scope='module')
def odd_pictures(tmp_path_factory):
    "(folder, its files): noise of odd sizes, in colour and grey, under two labels."
    root,rng = tmp_path_factory.mktemp('odd'),np.random.default_rng(0)
    for label in 'grey', 'colour':
        (root/label).mkdir()
        for w,h in SIZES:
            pixels = rng.integers(0, 256, (h, w) if label=='grey' else (h, w, 3), np.uint8)
            Image.fromarray(pixels).save(root/label/f'{w}x{h}.png')
    return root,sorted(root.rglob('*.png'))


def course_tfms():
    "{what: (item transform, size of the batch transform)} of the course."
    from fastai.vision.all import RandomResizedCrop, Resize
    def padded(mode): return Resize(224, 'pad', mode)
    return dict(
        crop=(Resize(224), None), squish=(Resize(224, 'squish'), None), zeros=(padded('zeros'), None),
        reflection=(padded('reflection'), None), border=(padded('border'), None),
        random_crop=(RandomResizedCrop(224, min_scale=.5), None), presized=(Resize(92), 44))


def as_the_bundle_sees(dls, files, channels):
    "The batch that an exported model would be given, as far as the network."
    from bearclass.ship.bundle import presizing, read_preprocessing
    from bearclass.ship.predictor import Predictor
    model = SimpleNamespace(config=dict(read_preprocessing(dls), channels=channels))
    x,rows = np.stack([Predictor.preprocess(model, f) for f in files]),presizing(dls)
    return x if rows is None else rows.numpy()@x@rows.numpy().T


@pytest.mark.parametrize('normalised', [True, False])
@pytest.mark.parametrize('channels', [3, 1])
@pytest.mark.parametrize('what', 'crop squish zeros reflection border random_crop presized'.split())
def test_pictures_are_prepared_as_in_training(odd_pictures, what, channels, normalised):
    from fastai.vision.all import (CategoryBlock, DataBlock, ImageBlock, Normalize, PILImage, PILImageBW,
                                   RandomSplitter, aug_transforms, parent_label)
    root,files = odd_pictures
    item,size = course_tfms()[what]
    batch = aug_transforms(size=size)
    if normalised: batch.append(Normalize.from_stats([.4]*channels, [.3]*channels, cuda=False))
    block = DataBlock(
        blocks=(ImageBlock(PILImageBW if channels==1 else PILImage), CategoryBlock), get_items=lambda _: files,
        get_y=parent_label, splitter=RandomSplitter(seed=0), item_tfms=item, batch_tfms=batch)
    dls = block.dataloaders(root, bs=4, num_workers=0)
    theirs = np.concatenate([b[0].numpy() for b in dls.test_dl(files, bs=4, num_workers=0)])
    assert theirs.shape[1]==channels
    np.testing.assert_allclose(as_the_bundle_sees(dls, files, channels), theirs, atol=1e-4)


@pytest.mark.parametrize('method', ['crop', 'squish', 'pad'])
def test_a_picture_stored_lying_is_upright_for_both(odd_pictures, tmp_path, method):
    from bearclass.learn.blocks import from_folder
    root,files = odd_pictures
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(files[0]).convert('RGB').rotate(90, expand=True).save(tmp_path/'lying.png', exif=exif)
    dls = from_folder(root, size=64, method=method, bs=4)
    theirs = np.concatenate([b[0].numpy() for b in dls.test_dl([files[0], tmp_path/'lying.png'], bs=1, num_workers=0)])
    mine = as_the_bundle_sees(dls, [files[0], tmp_path/'lying.png'], 3)
    np.testing.assert_allclose(mine, theirs, atol=1e-4)
    np.testing.assert_array_equal(mine[0], mine[1])
