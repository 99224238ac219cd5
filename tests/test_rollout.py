"Versions that are published and taken back, a candidate that is judged, and a trial from a stranger's file."
import hashlib, json, os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from bearclass.core import BearclassError, InputError
from bearclass.ship.predictor import Predictor
from bearclass.ship.rollout import POINTER, FieldTrial, current, judge, publish, read_trial, roll_back
from conftest import colour_bundle


def told_what_it_learnt(path, learnt=(), **kw):
    "A bundle made by hand that says which pictures it has learnt from."
    return colour_bundle(path, split=dict(learnt=learnt), **kw)


@pytest.fixture(scope='module')
def model(tmp_path_factory): return told_what_it_learnt(tmp_path_factory.mktemp('model')/'bundle')


@pytest.fixture(scope='module')
def put_away(tmp_path_factory):
    root = tmp_path_factory.mktemp('colours')/'colours_test'
    for label,c in dict(red=(1, 0, 0), green=(0, 1, 0), blue=(0, 0, 1)).items():
        (root/label).mkdir(parents=True)
        for i in range(8): Image.new('RGB', (9, 9), tuple(v*(255-i) for v in c)).save(root/label/f'{i}.png')
    return root


def test_worse_is_refused_with_its_evidence(model, put_away, tmp_path):
    worse = told_what_it_learnt(tmp_path/'worse', vocab=('green', 'red', 'blue'))
    night = judge(model, worse, put_away)
    assert not night.accepted and night.table.lost.to_dict()=={'blue': 0, 'green': 8, 'red': 8}
    said = str(night)
    assert '16 of 24 pictures put away' in said and 'forgets green, red' in said and 'red is called green' in said
    assert judge(worse, model, put_away).table.won.sum()==16


def test_what_either_has_learnt_from_judges_neither(model, put_away, tmp_path):
    files = sorted((put_away/'red').iterdir())
    known = [hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files[:5]]
    keen = told_what_it_learnt(tmp_path/'keen', known)
    assert judge(model, keen, put_away).table.n.to_dict()=={'blue': 8, 'green': 8, 'red': 3}


def test_a_version_is_whole_or_not_in_use(model, tmp_path, monkeypatch):
    models,replace = tmp_path/'models',os.replace
    first = publish(model, models)
    def power_cut(src, dst):
        if os.fspath(dst).endswith(POINTER): raise OSError('power cut')
        replace(src, dst)
    monkeypatch.setattr(os, 'replace', power_cut)
    with pytest.raises(OSError, match='power cut'): publish(model, models)
    assert current(models)==first
    monkeypatch.undo()
    second = publish(model, models)
    assert current(models)==second and roll_back(models)==first and Predictor(current(models)).vocab[0]=='red'
    spoilt = models/first.name/'config.json'
    spoilt.write_text(spoilt.read_text()+' ')
    with pytest.raises(BearclassError): publish(first, models)     # what was changed is not published again
    assert current(models)==first


def test_two_publish_at_once(model, tmp_path):
    with ThreadPoolExecutor(4) as pool: versions = list(pool.map(lambda _: publish(model, tmp_path/'models'), range(8)))
    names = (tmp_path/'models'/POINTER).read_text().splitlines()
    assert sorted(names)==sorted(v.name for v in versions) and len(set(names))==8


def test_a_pointer_edited_on_windows(model, tmp_path):
    version = publish(model, tmp_path/'models')
    (tmp_path/'models'/POINTER).write_bytes(version.name.encode()+b'\r\n')
    assert current(tmp_path/'models')==version


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
lists = st.lists(plain | st.lists(plain, max_size=3), max_size=3)
nested = plain | lists | st.dictionaries(st.text(max_size=5), plain, max_size=2)
good = dict(stages=[dict(name='shadow', n=10, limit=.1)], at=0, n=1, wrong=0, recent='0', moves=[])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*good, 'more']), nested, max_size=3))
def test_a_strangers_trial_is_refused_or_goes_on(tmp_path_factory, changes):
    file = tmp_path_factory.getbasetemp()/'trial.json'
    file.write_text(json.dumps({**good, **changes}))
    try: trial = read_trial(file)
    except InputError: return
    assert isinstance(trial.step('bear', 'bear'), FieldTrial) and str(trial)
