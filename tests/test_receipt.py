"Receipts: a learner's run is gone over again from folder and bundle; what differs is named; hostile files are refused."
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearclass.cli import main
from bearclass.core import InputError
from bearclass.dataset import content_sha256, get_image_files
from bearclass.receipt import check_receipt, read_receipt, write_receipt
from bearclass.samples.datasets import draw_bears
from bearclass.ship.bundle import evaluate_bundle
from bearclass.ship.predictor import open_bundle
from conftest import colour_bundle


@pytest.fixture(scope='module')
def run(tmp_path_factory, small_bundle):
    "(receipt, bundle, folder) of the small bundle, asked about pictures that it has not seen."
    tmp = tmp_path_factory.mktemp('run')
    root = draw_bears(tmp/'bears', n_per_class=4, seed=1, broken=1).root
    return write_receipt(evaluate_bundle(small_bundle, root), tmp/'receipt.json', small_bundle), small_bundle, root


def found(*args): return dict(check_receipt(*args)[['what', 'found']].values)


def edited(path, to, change):
    "The receipt with `change(receipt)` done to it."
    receipt = read_receipt(path)
    change(receipt)
    to.write_text(json.dumps(receipt))
    return to


def test_a_learner_has_one_too(run, tmp_path, one_thread):
    "Its data are both sides of the split: the whole folder."
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    _,_,root = run
    learn = image_learner(from_folder(root, size=32, bs=4, seed=7), 'tiny_cnn', weights=False, verbose=False)
    with learn.no_bar(): path = write_receipt(learn, tmp_path/'receipt.json')
    said,asked = read_receipt(path),found(path, None, root)
    assert said['facts']['n']==said['facts']['pictures']==3 and said['seed']==7
    assert asked['data']==asked['split']=='agrees' and asked['answers']=='not checked' and 'model' not in asked
    train = Path(learn.dls.train_ds.items[0])
    train.rename(train.with_suffix('.away'))
    try: differs = [what for what,f in found(path, None, root).items() if f=='differs']
    finally: train.with_suffix('.away').rename(train)
    assert differs==['data']   # what it was judged by is all there


def test_the_command_line_says_it_by_its_status(run, tmp_path, capsys):
    path,bundle,root = run
    words = ['check', str(path), '--bundle', str(bundle), '--data', str(root)]
    assert main(words)==0 and 'differs' not in capsys.readouterr().out
    older = edited(path, tmp_path/'r.json', lambda r: r['facts'].update(versions='torch 1.0'))
    out = check_receipt(older)
    assert dict(out[['what', 'found']].values)['versions']=='differs'
    assert main(['check', str(older)])==1   # its seal is broken, too
    assert main(['check', str(tmp_path/'none.json')])==2 and 'there is no file' in capsys.readouterr().err


def test_pictures_it_has_learnt_from_are_counted(tmp_path, small_bundle):
    if not (learnt := set(open_bundle(small_bundle).manifest.get('split', {}).get('learnt', []))):
        pytest.skip('the bundle beside the app is not there')
    root = draw_bears(tmp_path/'bears', n_per_class=4, seed=7).root   # as those from which `make app-bundle` trains
    known = sum(content_sha256(f)[:16] in learnt for f in get_image_files(root))
    path = write_receipt(evaluate_bundle(small_bundle, root, only_valid=False), tmp_path/'receipt.json', small_bundle)
    table = check_receipt(path, small_bundle, root).set_index('what')
    assert known and table.found.learnt=='differs' and table.here.learnt==str(known)
    assert (table.found.drop('learnt')=='agrees').all()


def test_another_model_is_told(run, tmp_path):
    path,_,root = run
    other = colour_bundle(tmp_path/'other', ['black', 'grizzly', 'teddy'])
    asked = found(path, other, root)
    assert asked['model']==asked['answers']=='differs' and asked['data']=='agrees'


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just('receipt') | st.just(1),
    lambda o: st.lists(o, max_size=3) | st.dictionaries(st.sampled_from('schema answers fingerprint'.split()), o))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_hostile_file_is_one_clear_line(run, data):
    receipt = read_receipt(run[0])
    key = data.draw(st.sampled_from(sorted(receipt)))
    receipt[key] = data.draw(values)
    inner = receipt['facts'] if isinstance(receipt['facts'], dict) else {}
    inner[data.draw(st.sampled_from(['wrong', 'low', 'other']))] = data.draw(values)
    path = run[0].with_name('hostile.json')
    path.write_text(json.dumps(receipt))
    try: table = check_receipt(path)
    except InputError as e: assert 'is no receipt' in str(e)
    else: assert str(table)
