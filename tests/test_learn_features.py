"Features once: on real photos, through export, under threads that fail, and with a cache that others damage."
import shutil
import numpy as np
import pytest
from PIL import Image

from conftest import REAL, needs


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))


@pytest.fixture
def drawn(tmp_path):
    "(folder, learner) with a small body of random weights: enough to look at pictures with."
    from bearclass.samples.datasets import draw_bears
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    root = draw_bears(tmp_path/'bears', n_per_class=40, size=96).root
    return root, image_learner(from_folder(root, size=48, bs=8), 'tiny_cnn', weights=False, verbose=False)


@needs('bears')
@needs('weights')
def test_real_bears(monkeypatch):
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.features import picture_features, quick_tune, similar_groups, similar_pairs
    from bearclass.learn.interpret import evaluate
    from bearclass.learn.train import image_learner
    monkeypatch.setenv('BEARCLASS_WEIGHTS', str(REAL/'weights'))
    learn = image_learner(from_folder(REAL/'bears'), 'mobilenet_v2', verbose=False)
    feats = quick_tune(learn, verbose=False)
    assert (len(feats.files), feats.x.shape[1], feats.bad) == (413, 1280, {})
    assert evaluate(learn).error_rate <= .06
    assert picture_features(learn).n_new == 0
    pairs = similar_pairs(feats, picture_features(learn, flip=True))
    assert 2 <= len(pairs) <= 8                      # three were measured, each two shots of one scene
    assert {f.name for f in pairs[0][:2]} == {'00000036.jpg', '00000137.jpg'}
    assert len(similar_groups(pairs)) >= 2


def test_a_quick_learner_exports_and_trains_on(drawn, tmp_path):
    from fastai.learner import load_learner
    from bearclass.learn.features import quick_tune
    from bearclass.learn.interpret import evaluate
    from bearclass.ship.bundle import evaluate_bundle, export_bundle
    root,learn = drawn
    quick_tune(learn)
    ev = evaluate(learn)
    b = export_bundle(learn, tmp_path/'bundle')
    served = evaluate_bundle(b.path, root)
    assert dict(zip(served.files, served.preds)) == dict(zip(ev.files, ev.preds))
    learn.export(tmp_path/'export.pkl')
    again = load_learner(tmp_path/'export.pkl')
    with learn.no_bar(), again.no_bar(): assert again.predict(ev.files[0])[0] == learn.predict(ev.files[0])[0]
    head = learn.model[1][-1].weight.detach().clone()
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, 1e-3)
    assert not np.allclose(head, learn.model[1][-1].weight.detach())


def test_renamed_known_changed_looked_at_again(drawn):
    from bearclass.learn.features import picture_features
    root,learn = drawn
    files = sorted((root/'teddy').glob('*.jpg'))[:6]
    assert picture_features(learn, files).n_new == 6
    moved = shutil.move(files[0], root/'black'/'another name.jpg')
    Image.new('RGB', (60, 60), 'red').save(files[1])
    f = picture_features(learn, [moved, *files[1:]])
    assert (f.n_new, len(f.files)) == (1, 6)


def test_damaged_notes_cost_time_and_nothing_else(drawn, tmp_path):
    from bearclass.learn.features import picture_features
    root,learn = drawn
    files = sorted((root/'teddy').glob('*.jpg'))[:6]
    first = picture_features(learn, files)
    for f in (tmp_path/'cache').rglob('*.safetensors'): f.write_bytes(f.read_bytes()[:40])
    again = picture_features(learn, files)
    assert again.n_new == 6 and np.allclose(first.x, again.x)
    assert picture_features(learn, files).n_new == 0


def test_notes_that_cannot_be_written(drawn, tmp_path, capsys):
    "A cache folder that is a file: the work is done, and said that it is not kept."
    from bearclass.learn.features import quick_tune
    (tmp_path/'cache').write_text('in the way')
    quick_tune(drawn[1])
    assert 'not kept' in capsys.readouterr().out


def test_a_picture_that_went_bad_since(drawn, capsys):
    from bearclass.learn.features import quick_tune
    root,learn = drawn
    gone,torn = learn.dls.train_ds.items[3], learn.dls.valid_ds.items[2]
    gone.unlink()
    torn.write_bytes(torn.read_bytes()[:200])
    feats = quick_tune(learn)
    assert set(feats.bad) == {gone, torn} and len(feats.files) == 118
    out = capsys.readouterr().out
    assert gone.name in out and torn.name in out


def test_no_validation_picture_is_left(drawn, capsys):
    from bearclass.learn.features import quick_tune
    learn = drawn[1]
    for f in learn.dls.valid_ds.items: f.unlink()
    quick_tune(learn)
    assert 'No validation pictures.' in capsys.readouterr().out


def as_in_the_course(root):
    "A learner whose transforms keep what they do in themselves: each picture another crop, each batch another grid."
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, RandomResizedCrop, aug_transforms, parent_label
    from bearclass.dataset import get_image_files
    from bearclass.learn.splits import StratifiedHashSplitter
    from bearclass.learn.train import image_learner
    for i,f in enumerate(sorted(root.rglob('*.jpg'))): Image.open(f).resize((60+i%7*20, 60+i%5*25)).save(f)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=StratifiedHashSplitter(), item_tfms=RandomResizedCrop(48, min_scale=.5),
                      batch_tfms=aug_transforms())
    return image_learner(block.dataloaders(root, bs=8, num_workers=0), 'tiny_cnn', weights=False, verbose=False)


@pytest.mark.parametrize('make', [None, as_in_the_course])
def test_the_same_rows_with_any_number_of_threads(drawn, make):
    import torch
    from bearclass.learn.features import picture_features
    root,learn = drawn
    if make: learn = make(root)
    n = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        many = picture_features(learn, cache=False, bs=3)
        torch.set_num_threads(1)
        one = picture_features(learn, cache=False, bs=64)
    finally: torch.set_num_threads(n)
    assert many.files == one.files and np.allclose(many.x, one.x, atol=1e-4)


@needs('bears')
@needs('weights')
def test_quick_from_the_command_line(tmp_path, monkeypatch, capsys):
    from bearclass.cli import main
    monkeypatch.setenv('BEARCLASS_WEIGHTS', str(REAL/'weights'))
    assert main(['train', str(REAL/'bears'), '--arch', 'mobilenet_v2', '--quick', '--out', str(tmp_path/'model')]) == 0
    out = capsys.readouterr().out
    assert 'looked at now' in out and 'Exported to' in out
    assert main(['predict', str(tmp_path/'model'), str(sorted((REAL/'bears/teddy').iterdir())[0])]) == 0
    assert 'teddy' in capsys.readouterr().out
