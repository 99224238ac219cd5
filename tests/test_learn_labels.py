"Labels, splits and the test set where rooms meet: fresh processes, workers, kills in the middle, real pictures."
import os, random, shutil, signal, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bearclass.core import InputError
from bearclass.dataset import get_image_files, test_folder as folder_of_test, content_sha256
from bearclass.learn.holdout import OPENINGS, bring_back_test, open_test, put_away_test, read_openings
from bearclass.learn.splits import GroupSplitter, KFoldSplitter, StratifiedHashSplitter, TimeSplitter
from conftest import colour_bundle, here_env

pytestmark = pytest.mark.usefixtures('one_thread')
COLOURS = dict(red=(200, 40, 40), green=(40, 200, 40), blue=(40, 40, 200))


def colour_folder(root, n=12, size=16, seed=0):
    "Noisy pictures of one colour each, a folder a colour."
    rng = np.random.default_rng(seed)
    for label,c in COLOURS.items():
        (root/label).mkdir(parents=True)
        for i in range(n):
            a = np.clip(np.array(c)+rng.integers(-40, 40, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(a).save(root/label/f'{i:02}.png')
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


@pytest.mark.parametrize('seed', range(4))
def test_coming_and_going_moves_nobody(tmp_path, seed):
    "Take any away and add any: whoever stays, stays on its side; by content all but a few."
    rng = random.Random(seed)
    root = bytes_folder(tmp_path, dict(black=range(80), teddy=range(60)))
    group = lambda f: f'roll {int(Path(f).stem)//5}'
    by_time = TimeSplitter(lambda f: int(Path(f).stem), valid_from=50)
    splitters = [StratifiedHashSplitter(rng.uniform(.2, .4), seed), GroupSplitter(group, .3, seed), by_time]
    files = get_image_files(root)
    before = [valid_of(s, files) for s in splitters]
    gone = rng.sample(list(files), rng.randrange(1, 60))
    for f in gone: f.unlink()
    bytes_folder(root, dict(black=range(80, 80+rng.randrange(1, 90)), teddy=range(60, 60+rng.randrange(1, 40))))
    after_files = get_image_files(root)
    stayed = set(files)-set(gone)
    n_changes = len(gone)+len(after_files)-len(stayed)
    for s,was,most in zip(splitters, before, (n_changes, 0, 0)):
        assert len((valid_of(s, after_files)^was) & stayed)<=most
        shuffled = rng.sample(list(after_files), len(after_files))
        assert valid_of(s, shuffled)==valid_of(s, after_files)


@pytest.mark.parametrize('counts', [[10]*100, [10]*3, [2, 3, 40], [7, 1000]])
def test_each_class_gives_its_share_and_one_picture_moves_one_at_most(tmp_path, counts):
    root = bytes_folder(tmp_path, {f'class {i}': range(n) for i,n in enumerate(counts)})
    files = list(get_image_files(root))
    for seed in range(10):
        splitter = StratifiedHashSplitter(.2, seed)
        valid = valid_of(splitter, files)
        for i,n in enumerate(counts):
            share = sum(f.parent.name==f'class {i}' for f in valid)
            assert share==max(1, int(.2*n+.5))
        gone = random.Random(seed).choice([f for f in files if f.parent.name==f'class {len(counts)-1}'])
        moved = (valid_of(splitter, [f for f in files if f!=gone])^valid)-{gone}
        assert len(moved)<=1 and {f.parent for f in moved}<={gone.parent}


# labels

@pytest.fixture
def colours(tmp_path): return colour_folder(tmp_path/'colours')


def test_saved_model_needs_nothing_of_the_notebook(colours, tmp_path):
    "Labels by a lambda and by a pattern; loaded in a fresh process, in another folder, with the pictures gone."
    from bearclass.learn.labels import from_name_func, from_name_re
    files = get_image_files(colours)
    new = tmp_path/'new.png'
    Image.new('RGB', (30, 20), (210, 30, 30)).save(new)
    by_func = from_name_func(colours, files, lambda f: f.parent.name, size=16, bs=8)
    by_re = from_name_re(colours, files, r'/(\w+)/\d+\.png$', size=16, bs=8)
    for name,dls in dict(func=by_func, re=by_re).items():
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
    command = [sys.executable, '-c', code, new, tmp_path/'func.pkl', tmp_path/'re.pkl']
    out = subprocess.run(command, cwd='/', env=here_env(), capture_output=True, text=True)
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
    assert '1 of 37 files are named twice' in out
    assert '1 of 36 files cannot be read and are left out (1 not an image)' in out
    learn = fit(small_learner(dls, path=tmp_path))
    ev,seen = evaluate(learn),evaluate(learn, 0)
    assert len(ev.targs)+len(seen.targs)==35 and ev.error_rate<.5
    with learn.no_bar(): assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum()==len(ev.targs)
    b = export_bundle(learn, tmp_path/'bundle')
    assert Predictor(b).predict(flat/'0.png').label==dict(r.split(',') for r in rows)['0.png']
    assert b.manifest['split']==dls.hash_split and len(dls.hash_split['learnt'])==len(dls.train_ds)
    assert not [f for f,data in b.files.items() if b'labels.csv' in data or b'17.png' in data]   # no file names travel


@pytest.mark.parametrize('kind', ['number', 'several'])
def test_numbers_and_several_labels_train_save_and_predict(colours, tmp_path, kind, capsys):
    from fastai.vision.all import accuracy_multi, load_learner, mae
    from bearclass.learn.blocks import from_lists
    files = get_image_files(colours)
    red = lambda f: float(np.asarray(Image.open(f))[...,0].mean()/255)
    tags = lambda f: ['colour'] + ['warm']*(f.parent.name=='red') + ['leaf']*(f.parent.name=='green')
    labels = [red(f) if kind=='number' else tags(f) for f in files]
    dls = from_lists(colours, files, labels, size=16, bs=8, augment=False)
    assert ('numbers' if kind=='number' else 'several') in capsys.readouterr().out
    n_out,metric = (1, mae) if kind=='number' else (3, accuracy_multi)
    learn = fit(small_learner(dls, n_out, metrics=metric, path=tmp_path), 25, .01)
    learn.export('m.pkl')
    again = load_learner(tmp_path/'m.pkl')
    with again.no_bar(): said = again.predict(files[-1])
    if kind=='number': assert abs(said[0][0]-red(files[-1]))<.15 and learn.recorder.values[-1][-1]<.1
    else: assert set(said[0])=={'colour', 'warm'} and learn.recorder.values[-1][-1]>.9


def test_a_column_of_numbers_is_learnt_as_numbers(colours, capsys):
    from bearclass.learn.labels import from_csv
    names = [f.relative_to(colours).as_posix() for f in get_image_files(colours)]
    def said(labels):
        (colours/'labels.csv').write_text('name,label\n'+'\n'.join(f'{n},{x}' for n,x in zip(names, labels)))
        return from_csv(colours, size=16, bs=8), capsys.readouterr().out
    dls,out = said([i/2 for i in range(36)])
    assert not hasattr(dls, 'vocab') and dls.c==1 and 'taken as numbers' in out
    dls,out = said([i%12 for i in range(36)])
    assert len(dls.vocab)==12 and 'whole numbers, taken as classes' in out
    assert said([i%3 for i in range(36)])[1]==''


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


def test_a_picture_broken_since_the_training_does_not_stop_the_export(colours, tmp_path, capsys):
    from bearclass.learn.blocks import from_folder
    from bearclass.ship.bundle import export_bundle
    learn = fit(small_learner(from_folder(colours, size=16, bs=8)))
    learn.dls.valid_ds.items[0].write_bytes(b'torn')
    b = export_bundle(learn, tmp_path/'bundle')
    assert b.manifest['valid']['n']==len(learn.dls.valid_ds)-1
    assert f'Left out: 1 of {len(learn.dls.valid_ds)} pictures' in capsys.readouterr().out


def test_what_the_splitter_was_told_about_labels_gives_way_to_the_table(tmp_path):
    "All classes in one folder: a splitter that would look at the folder's name must use the table's labels."
    from bearclass.learn.labels import from_name_re
    root = colour_folder(tmp_path/'c')
    flat = tmp_path/'flat'
    flat.mkdir()
    for f in get_image_files(root): shutil.copy(f, flat/f'{f.parent.name}_{f.name}')
    files = get_image_files(flat)
    number = lambda f: int(f.stem[-2:])
    grouped = GroupSplitter(lambda f: number(f)%6, .3)
    for s in StratifiedHashSplitter(.3, 1), KFoldSplitter(1, 3), TimeSplitter(number), grouped:
        dls = from_name_re(flat, files, r'^(\w+)_', size=16, bs=4, splitter=s)
        assert set(dls.vocab)==set(COLOURS) and len(dls.train_ds)+len(dls.valid_ds)==36
    def without_red(fs):
        train = [i for i,f in enumerate(fs) if 'red' in f.name or i%2]
        return train, sorted({*range(len(fs))}-{*train})
    with pytest.raises(InputError, match="'red' with 12 pictures"):
        from_name_re(flat, files, r'^(\w+)_', size=16, splitter=without_red)


# the test set

KILL = '''
import os, signal, sys
from bearclass.learn import holdout
what,root,step,n = sys.argv[1:]
n,real = int(n),getattr(os, step)
def cut_off(*args, **kwargs):
    global n
    n -= 1
    if n<0: os.kill(os.getpid(), signal.SIGKILL)
    real(*args, **kwargs)
setattr(os, step, cut_off)
getattr(holdout, what)(root)
'''


def run_killed(what, root, step, after):
    command = [sys.executable, '-c', KILL, what, root, step, str(after)]
    assert subprocess.run(command, env=here_env(), capture_output=True).returncode==-signal.SIGKILL


def everything(root):
    "{path: content} of the dataset and its test set."
    files = [f for r in (root, folder_of_test(root)) if r.exists() for f in get_image_files(r)]
    return {f.relative_to(root.parent).as_posix(): content_sha256(f) for f in files}


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no SIGKILL here')
@pytest.mark.parametrize('step,after', [('link', 0), ('link', 2), ('unlink', 0), ('unlink', 2)])
def test_killed_in_the_middle(colours, step, after):
    "Put away, killed, finished; brought back, killed, finished: never a picture lost, always the same set."
    whole = everything(colours)
    run_killed('put_away_test', colours, step, after)
    assert set(everything(colours).values())==set(whole.values())
    away = put_away_test(colours)
    assert len(away.files)==3 and len(get_image_files(colours))==33
    run_killed('bring_back_test', colours, step, after)
    assert set(everything(colours).values())==set(whole.values())
    assert put_away_test(colours).files==away.files   # the way back is finished first, then the same pictures go again
    assert bring_back_test(colours)==3
    assert everything(colours)==whole


def test_nothing_is_overwritten(colours):
    away = put_away_test(colours)
    old = colours/away.files[0].relative_to(folder_of_test(colours))
    old.write_bytes(b'somebody else')
    with pytest.raises(InputError, match='places are taken'): bring_back_test(colours)
    assert old.read_bytes()==b'somebody else' and away.files[0].exists()


def test_a_folder_that_may_not_be_written_is_said(colours, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path).name!='red')   # root may write everywhere
    with pytest.raises(InputError, match='nothing may be written into .*red'): put_away_test(colours)
    assert not folder_of_test(colours).exists()


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
    dls = from_lists(colours, files, [float(i) for i in range(len(files))], size=16, bs=8)
    learn = small_learner(dls, 1, metrics=None)
    with pytest.raises(InputError, match='without classes'): open_test(learn, colours)


@pytest.mark.parametrize('name', ['splits', 'holdout'])
def test_light(name):
    code = f'import sys, bearclass.learn.{name}; print(sorted({{"torch", "fastai", "pandas"}} & set(sys.modules)))'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=here_env())
    assert out.stdout.strip()=='[]'
