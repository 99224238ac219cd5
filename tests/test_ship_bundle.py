"What travels with an exported model: probabilities that keep their word."
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
