"""A picture like none of the training pictures is told from one that belongs, and in careful words, wherever one asks.

The net in the box looks at drawn bears, at noise, at blank squares and at handwritten digits. What the one-file page
says is in `test_page.py`, and what the areas are for photos in `benchmarks/ship_unknown.py`.
"""
import re

import numpy as np, pytest
from PIL import Image
from starlette.testclient import TestClient

from bearclass.ship.answer import UNLIKE, page_html
from bearclass.ship.api import create_api
from bearclass.ship.unknown import fit_bank
from conftest import png


def strangers(folder):
    "{kind: files}"
    from bearclass.dataset import get_image_files
    from bearclass.samples.datasets import digits_folder
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(folder/f'noise{i}.png')
        Image.fromarray(np.full((96, 96, 3), rng.integers(0, 256, 3), np.uint8)).save(folder/f'blank{i}.png')
    digits = get_image_files(digits_folder(folder/'digits', limit=20))[:30]
    return dict(noise=sorted(folder.glob('noise*')), blank=sorted(folder.glob('blank*')), digits=digits)


@pytest.fixture(scope='module')
def features(tmp_path_factory, one_thread):
    "Of drawn bears (N, D), and of strangers {kind: (n, D)}."
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.features import picture_features
    from bearclass.learn.train import image_learner
    from bearclass.samples.datasets import draw_bears
    tmp = tmp_path_factory.mktemp('unknown')
    learn = image_learner(from_folder(draw_bears(tmp/'bears', n_per_class=80, size=96).root, size=96), verbose=False)
    odd = strangers(tmp/'odd')
    return picture_features(learn, cache=False).x, {k: picture_features(learn, f, cache=False).x for k,f in odd.items()}


def test_strangers_are_far_and_few_that_belong_are(features):
    from sklearn.metrics import roc_auc_score
    x,odd = features
    areas,alarms = {}, []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(x))
        kept,learnt = x[order[:80]], x[order[80:]]
        bank = fit_bank(learnt)
        near = bank.distance(kept)
        alarms.append((near>bank.threshold).mean())
        for kind,far in odd.items():
            areas[kind, seed] = roc_auc_score([0]*len(near)+[1]*len(far), [*near, *bank.distance(far)])
    assert min(areas.values())>=.9, areas
    assert .02<=np.mean(alarms)<=.08, alarms


@pytest.mark.parametrize('colour, unknown', [('#e02010', False), ('blue', True), ('lime', True)])
def test_it_is_said_wherever_one_asks(reds, colour, unknown):
    picture = dict(file=('a.png', png(colour)))
    with TestClient(create_api(reds)) as api:
        said = api.post('/classify', files=picture).json()
        page = api.post('/classify', files=picture, headers=dict(accept='text/html')).text
    app = page_html(reds, [('a.png', png(colour))])
    assert said['unknown']==reds.predict(png(colour)).unknown==unknown
    for text in page, app:
        assert (UNLIKE in text)==unknown
        assert not re.search(r'(?i)\b(is|are) (not|no) (a |an )?(red|green|blue|bear|picture)', text)
    assert 'training pictures' in UNLIKE or 'learnt from' in UNLIKE
