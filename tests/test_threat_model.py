"A model from a stranger: nothing is unpickled on the default path, no changed bit is read, no other answers served."
import json, shutil, sys
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from bearclass.core import BundleError
from bearclass.ship.predictor import GOLDEN_TOLERANCE, Predictor, open_bundle, predict_folder
from conftest import colour_bundle, seal

seen = None   # What is unpickled here, while a test looks


def notice(event, args):
    if seen is not None and event=='pickle.find_class': seen.append(args)


@pytest.fixture(scope='module')
def unpickled():
    "Python reports to a hook what it unpickles; a hook cannot be taken off again, so this one only looks when told."
    sys.addaudithook(notice)
    class Looking:
        def __enter__(self):
            global seen
            seen = []
            return seen
        def __exit__(self, *_):
            global seen
            seen = None
    return Looking()


def test_the_hook_would_see_it(unpickled):
    import pickle
    with unpickled as names: pickle.loads(pickle.dumps(Image.new))
    assert names==[('PIL.Image', 'new')]


def test_nothing_is_unpickled_from_export_to_answer(unpickled, tmp_path, one_thread):
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    from bearclass.ship.bundle import evaluate_bundle, export_bundle, inspect_bundle, to_learner
    rng = np.random.default_rng(0)
    for label,colour in dict(red=(190, 60, 60), blue=(60, 60, 190)).items():
        (tmp_path/'colours'/label).mkdir(parents=True)
        for i in range(8):
            pixels = np.array(colour)+rng.normal(0, 40, (24, 24, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path/f'colours/{label}/{i}.png')
    dls = from_folder(tmp_path/'colours', size=24, bs=4, valid_pct=.4)
    learn = image_learner(dls, 'tiny_cnn', weights=False, verbose=False)
    with unpickled as names:
        export_bundle(learn, tmp_path/'model')
        p = Predictor(tmp_path/'model')
        p.predict(tmp_path/'colours/red/0.png')
        assert len(predict_folder(p, tmp_path/'colours'))==16
        evaluate_bundle(p.bundle, tmp_path/'colours')
        inspect_bundle(tmp_path/'model')
        to_learner(tmp_path/'model', dls)
    assert not names


def bits(bundle, rng, n):
    "(file, byte, bit): one in each file, and `n` anywhere."
    sizes = {f: f.stat().st_size for f in sorted(bundle.rglob('*')) if f.is_file()}
    ends = np.cumsum(list(sizes.values()))
    for f,size in sizes.items(): yield f, int(rng.integers(size)), int(rng.integers(8))
    for at in rng.integers(ends[-1], size=n):
        k = int(np.searchsorted(ends, at, 'right'))
        yield [*sizes][k], int(ends[k]-at-1), int(rng.integers(8))


def test_no_flipped_bit_is_read(small_bundle, tmp_path):
    bundle = shutil.copytree(small_bundle, tmp_path/'bundle')
    open_bundle(bundle)
    for f,at,bit in [*bits(bundle, np.random.default_rng(0), 200)]:
        with f.open('r+b') as file:
            file.seek(at)
            was = file.read(1)
            file.seek(at)
            file.write(bytes([was[0]^1<<bit]))
            file.flush()
            with pytest.raises(BundleError): open_bundle(bundle)
            file.seek(at)
            file.write(was)
    open_bundle(bundle)


@pytest.mark.parametrize('off,serves', [(.5, True), (2, False)])
def test_golden_answers_may_be_off_by_so_much(off, serves, tmp_path):
    "Whoever seals a bundle anew makes all fingerprints fit; what is left are the answers it must give."
    bundle = colour_bundle(tmp_path/'bundle')
    golden = json.loads((bundle/'golden/golden.json').read_text())
    probs = golden['pictures'][0]['probs']
    probs[0],probs[1] = probs[0]-off*GOLDEN_TOLERANCE, probs[1]+off*GOLDEN_TOLERANCE
    (bundle/'golden/golden.json').write_text(json.dumps(golden))
    seal(bundle)
    assert GOLDEN_TOLERANCE==1e-4
    refused = pytest.raises(BundleError, match='otherwise than when it was exported')
    with nullcontext() if serves else refused: Predictor(bundle)


def test_another_model_under_the_same_golden_answers_is_not_served(tmp_path):
    import onnx
    bundle = colour_bundle(tmp_path/'bundle')
    model = onnx.load(bundle/'model.onnx')
    model.graph.node[0].input[0] = 'upside'
    model.graph.node.insert(0, onnx.helper.make_node('Neg', ['image'], ['upside']))
    (bundle/'model.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match='otherwise than when it was exported'): Predictor(seal(bundle))
