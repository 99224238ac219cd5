"A pickled learner becomes a bundle, whoever made it and wherever; a pickle that misbehaves hurts nobody but itself."
import os, pathlib, pickle, sys, tempfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bearclass.core import BundleError, InputError, MissingError
from bearclass.ship import convert
from bearclass.ship.convert import convert_learner, pickle_calls
from bearclass.ship.predictor import Predictor


@pytest.fixture(scope='module')
def pets(tmp_path_factory):
    "Reds and blues, named as the course names its pets."
    root,rng = tmp_path_factory.mktemp('convert')/'pets',np.random.default_rng(0)
    root.mkdir()
    for i in range(16):
        name,colour = [('Tom', (190, 60, 60)), ('rex', (60, 60, 190))][i%2]
        pixels = np.array(colour)+rng.normal(0, 40, (24, 30, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root/f'{name}_{i}.png')
    return root


def label_of(file): return pathlib.Path(file).name.split('_')[0]


def is_cat(name): return name[0].isupper()


def dls_of(made, root):
    import bearclass.all as star
    files,table = sorted(root.iterdir()),dict(valid_pct=.3, seed=1, item_tfms=star.Resize(24), bs=4, num_workers=0)
    names = pd.DataFrame(dict(name=[f.name for f in files], label=[label_of(f) for f in files]))
    how = dict(
        name_func=lambda: star.from_name_func(root, files, is_cat, size=24, bs=4),
        csv=lambda: star.from_csv(root, names, fn_col=0, label_col=1, size=24, bs=4),
        lists=lambda: star.from_lists(root, files, names.label, size=24, bs=4),
        course_df=lambda: star.ImageDataLoaders.from_df(names, root, **table),
        course_block=lambda: star.DataBlock(
            (star.ImageBlock, star.CategoryBlock), get_items=star.get_image_files, get_y=lambda f: label_of(f),
            item_tfms=star.Resize(24)).dataloaders(root, bs=4, num_workers=0),
        course_name_func=lambda: star.ImageDataLoaders.from_name_func(root, files, is_cat, **table))
    return how[made]()


def check_same(learn, pkl, files):
    "What the child would load answers as the learner did, and would be exported as it would have been."
    from bearclass.learn.interpret import check_one_label
    from bearclass.ship.bundle import read_preprocessing
    loaded = convert._load(pkl)
    check_one_label(loaded.dls)
    assert list(loaded.dls.vocab)==list(learn.dls.vocab)
    assert read_preprocessing(loaded.dls)==read_preprocessing(learn.dls)
    with learn.no_bar(), loaded.no_bar():
        np.testing.assert_allclose(loaded.predict(files[0])[2], learn.predict(files[0])[2], atol=1e-6)


def new_learner(dls):
    from bearclass.learn.train import image_learner
    return image_learner(dls, 'tiny_cnn', weights=False, verbose=False)


@pytest.mark.parametrize('made', 'name_func csv lists course_df course_block course_name_func'.split())
def test_whatever_made_the_learner(made, pets, tmp_path, one_thread):
    learn = new_learner(dls_of(made, pets))
    learn.export(tmp_path/'export.pkl')
    check_same(learn, tmp_path/'export.pkl', sorted(pets.iterdir()))


def test_functions_of_a_notebook_windows_and_an_older_fastai(pets, tmp_path, one_thread, monkeypatch):
    "All three in one learner; they are gone, or mean something else, when it is loaded."
    import fastcore.dispatch, fastcore.transform
    from fastai.vision.all import PILImage
    class Transform:   # what pickle found there before fastai 2.8
        __module__,__qualname__ = 'fastcore.transform','Transform'
        def __init__(self, f): self.init_enc,self.order,self.split_idx,self.encodes = f,0,None,Dispatch()
    class Dispatch:
        __module__,__qualname__ = 'fastcore.dispatch','TypeDispatch'
        def __init__(self): self.funcs = {}
    class OnWindows:
        def __reduce__(self): return pathlib.WindowsPath, ('C:\\', 'models')
    def is_dog(name): return not name[0].isupper()
    is_dog.__module__,is_dog.__qualname__ = '__main__','is_dog'
    learn = new_learner(dls_of('name_func', pets))
    of_windows,tls = learn.path,learn.dls.train_ds.tls
    with monkeypatch.context() as mp:
        mp.setitem(vars(fastcore.transform), 'Transform', Transform)
        mp.setitem(vars(fastcore.dispatch), 'TypeDispatch', Dispatch)
        mp.setitem(vars(sys.modules['__main__']), 'is_dog', is_dog)
        opens = tls[0].tfms.fs
        mp.setattr(tls[0].tfms, 'fs', type(opens)([Transform(PILImage.create)]))
        learn.sorts = is_dog
        learn.model_dir = OnWindows()
        learn.export(tmp_path/'export.pkl', pickle_module=pickle)
    learn.model_dir = of_windows
    mine = pickle_calls(tmp_path/'export.pkl').set_index('name').called
    names = '__main__.is_dog', 'pathlib.WindowsPath', 'fastcore.transform.Transform'
    assert [mine[name] for name in names]==[0, 1, 1]
    convert._Unpickler.lost.clear()
    check_same(learn, tmp_path/'export.pkl', sorted(pets.iterdir()))
    assert '__main__.is_dog' in convert._Unpickler.lost


@pytest.fixture
def kept(tmp_path, monkeypatch):
    "A folder with a pickle and a picture; what is made while a test runs would be seen in it, also what is temporary."
    w = SimpleNamespace(top=tmp_path, pkl=tmp_path/'export.pkl', golden=[tmp_path/'a.png'], model=tmp_path/'model')
    w.pkl.write_bytes(pickle.dumps(print))
    Image.new('RGB', (9, 9)).save(w.golden[0])
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    return w


def convert_by(monkeypatch, kept, code, **kwargs):
    "Convert with a child that does something else, and see that nothing stays behind when it ends badly."
    monkeypatch.setattr(convert, '_CODE', 'import json, os, subprocess, sys; job = json.load(sys.stdin)\n'+code)
    try: return convert_learner(kept.pkl, kept.model, kept.golden, trust=True, **kwargs)
    except (InputError, BundleError) as e:
        assert sorted(f.name for f in kept.top.iterdir())==['a.png', 'export.pkl']
        return str(e)


bad_ends = dict(
    killed=('os.kill(os.getpid(), 9)', 'status -9'),
    no_bundle=('pass', 'status 0 and said nothing'),
    lies=("open(job['said'], 'w').write('}{'*10**6)", 'status 0 and said nothing'),
    long_words=("open(job['said'], 'w').write(json.dumps('words '*1000))", 'wor...)'),
    flood=("[print('x'*10**6, flush=True) for _ in range(200)]; os._exit(4)", 'status 4'),
    litter=("open('x', 'w'); open(job['bundle'], 'w'); os._exit(5)", 'status 5'))


@pytest.mark.parametrize('code,said', bad_ends.values(), ids=bad_ends)
def test_a_child_that_ends_badly_is_told_of(code, said, kept, monkeypatch):
    assert said in convert_by(monkeypatch, kept, code)


def test_a_child_that_hangs_is_ended_with_all_that_it_started(kept, monkeypatch, new_children):
    code = "long = [sys.executable, '-c', 'import time; time.sleep(900)']; subprocess.Popen(long); subprocess.run(long)"
    assert 'not done after 2 seconds' in convert_by(monkeypatch, kept, code, limit_s=2)
    assert not new_children()


@pytest.mark.skipif(sys.platform!='linux', reason='only Linux holds a process to that limit')
def test_a_child_has_so_much_memory(kept, monkeypatch):
    monkeypatch.setattr(convert, 'MEMORY', 1<<30)
    code = '''
from bearclass.ship import convert
def greedy(pkl): return bytearray(1<<31)
convert._load = greedy
import io; sys.stdin = io.StringIO(json.dumps(job))
convert._child()
'''
    assert 'cannot be converted (MemoryError' in convert_by(monkeypatch, kept, code)


def test_a_child_knows_no_secret(kept, monkeypatch):
    for name in 'PEXELS_API_KEY', 'AWS_SECRET_ACCESS_KEY', 'GITHUB_TOKEN': monkeypatch.setenv(name, 'much')
    code = "open(job['said'], 'w').write(json.dumps(' '.join(k for k,v in os.environ.items() if 'much' in v)+'!'))"
    assert 'converted (!)' in convert_by(monkeypatch, kept, code)


def test_what_a_child_leaves_is_not_believed(kept, small_bundle, monkeypatch):
    copy = f"import shutil; shutil.copytree({str(small_bundle)!r}, job['bundle'])\n"
    spoil = "p = job['bundle']+'/config.json'; t = open(p).read(); open(p, 'w').write(t.replace('size', 'sizf'))\n"
    assert 'was changed: config.json' in convert_by(monkeypatch, kept, copy+spoil)
    assert 'holds more' in convert_by(monkeypatch, kept, copy+"open(job['bundle']+'/more.pkl', 'w')")
    b = convert_by(monkeypatch, kept, copy)
    assert Predictor(kept.model).vocab==b.vocab
    assert sorted(f.name for f in kept.top.iterdir())==['a.png', 'export.pkl', 'model']


def test_a_pickle_that_leaves_by_the_front_door(kept):
    "Through the whole of it: the child that loads this is told to go."
    class Leaves:
        def __reduce__(self): return sys.exit, ('I am off',)
    kept.pkl.write_bytes(pickle.dumps(Leaves()))
    with pytest.raises(InputError, match='SystemExit: I am off'):
        convert_learner(kept.pkl, kept.model, kept.golden, trust=True)
    assert sorted(f.name for f in kept.top.iterdir())==['a.png', 'export.pkl']


def test_what_is_asked_before_anything_is_run(kept, monkeypatch):
    monkeypatch.setattr(convert, '_CODE', "raise SystemExit('run all the same')")
    class Thief:
        def __reduce__(self): return os.system, ('touch stolen',)
    kept.pkl.write_bytes(pickle.dumps(Thief()))
    with pytest.raises(InputError, match=r'runs code from it; it imports \w+\.system'):
        convert_learner(kept.pkl, kept.model, kept.golden)
    with pytest.raises(InputError, match='no golden'): convert_learner(kept.pkl, kept.model, [], trust=True)
    with pytest.raises(MissingError, match='b.png'):
        convert_learner(kept.pkl, kept.model, [kept.top/'b.png'], trust=True)
    with pytest.raises(MissingError, match='no file'): convert_learner(kept.top/'gone', kept.model, kept.golden)
    with pytest.raises(InputError, match='already exists'):
        convert_learner(kept.pkl, kept.golden[0], kept.golden, trust=True)
