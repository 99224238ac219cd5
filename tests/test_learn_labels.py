"Labels, splits and the test set where rooms meet: a saved model in a fresh process, workers, kills in the middle, real pictures."
import json, os, random, shutil, signal, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bearclass.core import InputError, MissingError
from bearclass.gather.datasets import digits_folder
from bearclass.gather.verify import get_image_files
from bearclass.learn.holdout import OPENINGS, bring_back_test, open_test, put_away_test, read_openings, test_folder as folder_of_test
from bearclass.learn.splits import FileSplitter, GroupSplitter, KFoldSplitter, StratifiedHashSplitter, TimeSplitter, content_sha256, kfold, save_split
from conftest import REAL, colour_bundle, here_env, needs

pytestmark = pytest.mark.usefixtures('one_thread')
COLOURS = dict(red=(200, 40, 40), green=(40, 200, 40), blue=(40, 40, 200))


def colour_folder(root, n=12, size=16, seed=0):
    "Noisy pictures of one colour each, a folder a colour."
    rng = np.random.default_rng(seed)
    for label,c in COLOURS.items():
        (root/label).mkdir(parents=True)
        for i in range(n): Image.fromarray(np.clip(np.array(c)+rng.integers(-40, 40, (size, size, 3)), 0, 255).astype(np.uint8)).save(root/label/f'{i:02}.png')
    return root


def small_learner(dls, n_out=3, **kw):
    from fastai.vision.all import Learner, accuracy
    from torch import nn
    body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, n_out))
    return Learner(dls, body, **{'metrics':accuracy, **kw})


def fit(learn, n=6, lr=.05):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, lr)
    return learn


# splits

def bytes_folder(root, counts):
    for label,ns in counts.items():
        (root/label).mkdir(parents=True, exist_ok=True)
        for i in ns: (root/label/f'{i:04}.jpg').write_bytes(f'{label} {i}'.encode())
    return root


def valid_of(splitter, files): return {files[i] for i in splitter(files)[1]}


@pytest.mark.parametrize('seed', range(8))
def test_coming_and_going_moves_nobody(tmp_path, seed):
    "Take any away and add any: whoever stays, stays on its side; by content, by group, and from a date on."
    rng = random.Random(seed)
    root = bytes_folder(tmp_path, dict(black=range(80), teddy=range(60)))
    group = lambda f: f'roll {int(Path(f).stem)//5}'
    splitters = [StratifiedHashSplitter(rng.uniform(.2, .4), seed), GroupSplitter(group, .3, seed), TimeSplitter(lambda f: int(Path(f).stem), valid_from=50)]
    files = get_image_files(root)
    before = [valid_of(s, files) for s in splitters]
    gone = rng.sample(list(files), rng.randrange(1, 60))
    for f in gone: f.unlink()
    bytes_folder(root, dict(black=range(80, 80+rng.randrange(1, 90)), teddy=range(60, 60+rng.randrange(1, 40))))
    after_files = get_image_files(root)
    stayed = set(files)-set(gone)
    for s,was in zip(splitters, before):
        assert valid_of(s, after_files) & stayed == was & stayed
        shuffled = rng.sample(list(after_files), len(after_files))
        assert valid_of(s, shuffled)==valid_of(s, after_files)


@pytest.mark.parametrize('seed', range(5))
def test_near_duplicates_stay_together_and_put(tmp_path, seed):
    rng = random.Random(seed)
    files = list(get_image_files(bytes_folder(tmp_path, dict(black=range(60), teddy=range(60)))))
    rng.shuffle(files)
    groups = [files[i:i+3] for i in range(0, 60, 3)]
    before = valid_of(GroupSplitter(groups, .3, seed), files)
    for g in groups: assert len({f in before for f in g})==1
    keep = [f for f in files if not any(f in g and f!=min(g, key=content_sha256) for g in groups) or rng.random()<.5]
    assert valid_of(GroupSplitter(groups, .3, seed), keep)==before & set(keep)


@pytest.mark.parametrize('k', [2, 3, 5, 10])
def test_folds_are_even_and_nearly_still(tmp_path, k):
    root = bytes_folder(tmp_path, dict(black=range(43), teddy=range(11)))
    shutil.copy(root/'black/0000.jpg', root/'black/copy.jpg')
    files = list(get_image_files(root))
    folds = dict(zip(files, kfold(files, k)))
    for label in 'black', 'teddy':
        n = np.bincount([v for f,v in folds.items() if f.parent.name==label and f.name!='copy.jpg'], minlength=k)
        assert n.max()-n.min()<=1 and n.min()>=1
    assert folds[root/'black/copy.jpg']==folds[root/'black/0000.jpg']
    for drop in random.Random(0).sample(files, 10):
        left = [f for f in files if f!=drop]
        assert sum(a!=folds[f] for f,a in zip(left, kfold(left, k)))<=k   # one at each cut, and the copy beside one of them


def test_a_fixed_split_survives_a_copy_elsewhere(tmp_path):
    root = bytes_folder(tmp_path/'here', dict(black=range(40), teddy=range(40)))
    files = get_image_files(root)
    names = save_split(tmp_path/'valid.txt', sorted(valid_of(StratifiedHashSplitter(), files)), root)
    assert str(tmp_path) not in names.read_text()
    shutil.copytree(root, tmp_path/'there')
    other = get_image_files(tmp_path/'there')
    assert FileSplitter(names)(other)==StratifiedHashSplitter()(files)


# labels

@pytest.fixture
def colours(tmp_path): return colour_folder(tmp_path/'colours')


def test_saved_model_needs_nothing_of_the_notebook(colours, tmp_path):
    "Labels by a lambda and by a pattern; loaded in a fresh process, in another folder, with the pictures gone."
    from bearclass.learn.labels import from_name_func, from_name_re
    files = get_image_files(colours)
    new = tmp_path/'new.png'
    Image.new('RGB', (30, 20), (210, 30, 30)).save(new)
    for name,dls in dict(func=from_name_func(colours, files, lambda f: f.parent.name, size=16, bs=8), re=from_name_re(colours, files, r'/(\w+)/\d+\.png$', size=16, bs=8)).items():
        learn = fit(small_learner(dls, path=tmp_path))
        learn.export(f'{name}.pkl')
        with learn.no_bar(): here = learn.predict(new)
        assert here[0]=='red'
    colours.rename(tmp_path/'gone')
    code = ('import sys, warnings; warnings.simplefilter("ignore")\n'
            'from fastai.learner import load_learner\n'
            'for f in sys.argv[2:]:\n'
            '    learn = load_learner(f)\n'
            '    with learn.no_bar(): print(learn.predict(sys.argv[1])[0], *learn.dls.vocab)')
    out = subprocess.run([sys.executable, '-c', code, new, tmp_path/'func.pkl', tmp_path/'re.pkl'], cwd='/', env=here_env(), capture_output=True, text=True)
    assert out.stdout.split('\n')[:2]==['red blue green red']*2, out.stderr


def test_learner_from_a_table_serves_all_rooms(colours, tmp_path, capsys):
    "Evaluation of both sides, fastai's interpretation and the bundle work with labels from a table."
    from fastai.interpret import ClassificationInterpretation
    from bearclass.learn.interpret import evaluate
    from bearclass.learn.labels import from_csv
    from bearclass.ship.bundle import export_bundle
    from bearclass.ship.predictor import Predictor
    flat = tmp_path/'flat'
    flat.mkdir()
    rows = []
    for i,f in enumerate(get_image_files(colours)):
        shutil.copy(f, flat/f'{i}.png')
        rows.append(f'{i}.png,{f.parent.name}')
    (flat/'labels.csv').write_text('\n'.join(['name,label', *rows, rows[4]]))
    (flat/'3.png').write_bytes(b'not found')
    dls = from_csv(flat, size=16, bs=8)
    out = capsys.readouterr().out
    assert '1 of 37 files are named twice' in out and '1 of 36 files cannot be read and are left out (not an image 1)'.replace('(not an image 1)', '(1 not an image)') in out
    learn = fit(small_learner(dls, path=tmp_path))
    ev,seen = evaluate(learn),evaluate(learn, 0)
    assert len(ev.targs)+len(seen.targs)==35 and ev.error_rate<.5
    with learn.no_bar(): assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum()==len(ev.targs)
    b = export_bundle(learn, tmp_path/'bundle')
    assert Predictor(b).predict(flat/'0.png').label==dict(r.split(',') for r in rows)['0.png']
    assert b.manifest['split']==dict(valid_pct=.2, seed=42)
    assert not [f for f,data in b.files.items() if b'labels.csv' in data or b'17.png' in data]   # no file names travel


@pytest.mark.parametrize('kind', ['number', 'several'])
def test_numbers_and_several_labels_train_save_and_predict(colours, tmp_path, kind, capsys):
    from fastai.vision.all import accuracy_multi, load_learner, mae
    from bearclass.learn.blocks import from_lists
    files = get_image_files(colours)
    red = lambda f: float(np.asarray(Image.open(f))[...,0].mean()/255)
    labels = [red(f) if kind=='number' else ['colour'] + ['warm']*(f.parent.name=='red') + ['leaf']*(f.parent.name=='green') for f in files]
    dls = from_lists(colours, files, labels, size=16, bs=8, augment=False)
    assert ('numbers' if kind=='number' else 'several') in capsys.readouterr().out
    learn = fit(small_learner(dls, 1 if kind=='number' else 3, metrics=mae if kind=='number' else accuracy_multi, path=tmp_path), 25, .01)
    learn.export('m.pkl')
    again = load_learner(tmp_path/'m.pkl')
    with again.no_bar(): said = again.predict(files[-1])
    if kind=='number': assert abs(said[0][0]-red(files[-1]))<.15 and learn.recorder.values[-1][-1]<.1
    else: assert set(said[0])=={'colour', 'warm'} and learn.recorder.values[-1][-1]>.9


@pytest.mark.parametrize('workers', [0, 1])
def test_a_picture_spoilt_while_training_is_named(colours, workers):
    "One error of one kind, with the file's name, whether or not a worker process met it."
    from bearclass.learn.blocks import MissingImage, UnreadableImage, from_folder
    dls = from_folder(colours, size=16, bs=8, num_workers=workers)
    learn = small_learner(dls)
    victim = dls.train_ds.items[5]
    whole = victim.read_bytes()
    with learn.no_bar(), learn.no_logging():
        for data,kind in (whole[:150], UnreadableImage), (b'<html>', UnreadableImage), (None, MissingImage):
            victim.unlink(missing_ok=True)
            if data: victim.write_bytes(data)
            with pytest.raises(kind) as e: learn.fit(1)
            assert str(victim) in str(e.value) and 'make the DataLoaders again' in str(e.value)
            assert len(str(e.value).splitlines())==1 and 'Traceback' not in str(e.value)
    assert len(from_folder(colours, size=16, bs=8).train_ds)>0


def test_what_the_splitter_was_told_about_labels_gives_way_to_the_table(tmp_path):
    "Pictures of all classes in one folder: a splitter that would look at the folder's name must use the table's labels."
    from bearclass.learn.labels import from_name_re
    root = colour_folder(tmp_path/'c')
    flat = tmp_path/'flat'
    flat.mkdir()
    for f in get_image_files(root): shutil.copy(f, flat/f'{f.parent.name}_{f.name}')
    files = get_image_files(flat)
    for s in StratifiedHashSplitter(.3, 1), KFoldSplitter(1, 3), TimeSplitter(lambda f: int(f.stem[-2:])), GroupSplitter(lambda f: int(f.stem[-2:])%6, .3):
        dls = from_name_re(flat, files, r'^(\w+)_', size=16, bs=4, splitter=s)
        assert set(dls.vocab)==set(COLOURS) and len(dls.train_ds)+len(dls.valid_ds)==36
    with pytest.raises(InputError, match="'red' with 12 pictures"): from_name_re(flat, files, r'^(\w+)_', size=16, splitter=lambda fs: ([i for i,f in enumerate(fs) if 'red' in f.name or i%2], [i for i,f in enumerate(fs) if 'red' not in f.name and not i%2]))


@needs('mnist')
def test_five_ways_on_real_digits(tmp_path):
    from fastai.vision.all import GrandparentSplitter
    from bearclass.learn.blocks import from_folder, from_lists
    from bearclass.learn.labels import from_csv, from_name_func, from_name_re
    path = digits_folder(tmp_path/'digits', idx=REAL/'mnist', labels='digit', limit=60)
    files,kw = get_image_files(path),dict(size=28, bs=16)
    g = dict(splitter=GrandparentSplitter(), **kw)
    five = [from_folder(path, train='train', valid='valid', **kw), from_csv(path, **g), from_name_re(path, files, r'/(\d)/\d+\.png$', **g),
            from_name_func(path, files, lambda x: '3' if '/3/' in str(x) else '7', **g), from_lists(path, files, [f.parent.name for f in files], **g)]
    contents = [[sorted((str(f), d.vocab[int(ds.tls[-1][i])]) for i,f in enumerate(ds.items)) for ds in (d.train_ds, d.valid_ds)] for d in five]
    assert all(c==contents[0] for c in contents) and all(list(d.vocab)==['3', '7'] for d in five)
    assert [len(c) for c in contents[0]]==[120, 120]


# the test set

KILL = '''
import os, signal, sys
from bearclass.learn import holdout
n,real = int(sys.argv[3]),os.rename
def rename(a, b):
    global n
    n -= 1
    if n<0: os.kill(os.getpid(), signal.SIGKILL)
    real(a, b)
os.rename = rename
getattr(holdout, sys.argv[1])(sys.argv[2])
'''


def run_killed(what, root, after):
    code = subprocess.run([sys.executable, '-c', KILL, what, root, str(after)], env=here_env(), capture_output=True).returncode
    assert code==-signal.SIGKILL


def everything(root): return {f.relative_to(root.parent).as_posix(): content_sha256(f) for r in (root, folder_of_test(root)) if r.exists() for f in get_image_files(r)}


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no SIGKILL here')
@pytest.mark.parametrize('after', [0, 2])
def test_killed_in_the_middle(colours, after):
    "Put away, killed, finished; brought back, killed, finished: never a picture lost or doubled, always the same set."
    whole = everything(colours)
    run_killed('put_away_test', colours, after)
    assert sorted(everything(colours).values())==sorted(whole.values())
    away = put_away_test(colours)
    assert len(away.files)==3 and len(get_image_files(colours))==33
    run_killed('bring_back_test', colours, after)
    assert sorted(everything(colours).values())==sorted(whole.values())
    assert put_away_test(colours).files==away.files   # the way back is finished first, then the same pictures go again
    assert bring_back_test(colours)==3
    assert everything(colours)==whole


def test_nothing_is_overwritten(colours):
    away = put_away_test(colours)
    old = colours/away.files[0].relative_to(folder_of_test(colours))
    old.write_bytes(b'somebody else')
    with pytest.raises(InputError, match='places are taken'): bring_back_test(colours)
    assert old.read_bytes()==b'somebody else' and away.files[0].exists()


def test_another_disk(colours, monkeypatch):
    "Where a rename cannot reach, files are copied whole; cut off after the copy, the next call ends it."
    import errno
    real = os.rename
    def rename(a, b):
        if Path(a).parent!=Path(b).parent: raise OSError(errno.EXDEV, 'another disk')
        real(a, b)
    monkeypatch.setattr(os, 'rename', rename)
    whole = sorted(everything(colours).values())
    gone = Path.unlink
    with monkeypatch.context() as m:
        m.setattr(Path, 'unlink', lambda self, **kw: (_ for _ in ()).throw(KeyboardInterrupt()) if self.suffix=='.png' else gone(self, **kw))
        with pytest.raises(KeyboardInterrupt): put_away_test(colours)
    assert len(everything(colours))==37   # one is there twice
    put_away_test(colours)
    assert sorted(everything(colours).values())==whole and len(get_image_files(colours))==33


def test_opened_by_a_learner_and_by_a_bundle(colours, tmp_path, capsys):
    "Both kinds of model; the record only grows, and a loaded learner counts as the same model."
    from fastai.learner import load_learner
    from bearclass.learn.blocks import from_folder
    from bearclass.ship.predictor import Predictor
    away = put_away_test(colours, pct=.25)
    learn = fit(small_learner(from_folder(colours, size=16, bs=8), path=tmp_path))
    ev = open_test(learn, colours)
    assert len(ev.targs)==9 and ev.error_rate<.5 and list(ev.vocab)==sorted(COLOURS)
    assert 'First opening' in capsys.readouterr().out
    learn.export('m.pkl')
    open_test(load_learner(tmp_path/'m.pkl'), colours)
    assert 'each time by the same model' in capsys.readouterr().out
    first = (folder_of_test(colours)/OPENINGS).read_text()
    b = open_test(Predictor(colour_bundle(tmp_path/'bundle')), colours)
    assert b.error_rate==0 and 'Opening number 3, by 2 different models' in capsys.readouterr().out
    assert (folder_of_test(colours)/OPENINGS).read_text().startswith(first)
    t = read_openings(colours)
    assert t.n.tolist()==[9]*3 and t.model[0]==t.model[1]!=t.model[2]
    away.files[0].write_bytes(b'not a picture')
    with pytest.raises(InputError, match='gone or changed'): open_test(learn, colours)
    assert len(read_openings(colours))==3


def test_regression_has_no_test_set_of_this_kind(colours):
    from bearclass.learn.blocks import from_lists
    put_away_test(colours)
    files = get_image_files(colours)
    learn = small_learner(from_lists(colours, files, [float(i) for i in range(len(files))], size=16, bs=8), 1, metrics=None)
    with pytest.raises(InputError, match='without classes'): open_test(learn, colours)


@needs('bears')
def test_real_bears_put_away_and_back(tmp_path):
    root = tmp_path/'bears'
    shutil.copytree(REAL/'bears', root, ignore=lambda d, names: [n for n in names if not ((Path(d)/n).is_dir() or n.lower().endswith(('.jpg', '.jpeg', '.png')))])
    whole = everything(root)
    away = put_away_test(root)
    assert {l: away.labels.count(l) for l in set(away.labels)}==dict(black=14, grizzly=14, teddy=14)
    assert bring_back_test(root)==42 and everything(root)==whole


@pytest.mark.parametrize('name', ['splits', 'holdout'])
def test_light(name):
    code = f'import sys, bearclass.learn.{name}; print(sorted({{"torch", "fastai", "pandas"}} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=here_env()).stdout.strip()=='[]'
