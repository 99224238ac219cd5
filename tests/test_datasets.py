"""Drawn bears and pets, and offline digits: what is too heavy for the notebooks, and what must stay true of the data as a whole."""
import gzip, hashlib, io, os, re, struct, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image, ImageOps
from bearclass.core import InputError
from bearclass.samples.datasets import BEARS, BROKEN, digits_folder, draw_bear, draw_bears, read_idx, untar_data
from bearclass.samples.pets import BREEDS, draw_pet, draw_pets
from bearclass.manifest import read_manifest
from bearclass.gather.verify import check_images

SPOILT = dict(n_per_class=6, seed=3, label_noise=.2, broken=7, duplicates=8, size=96)
TRUTH = 'path sha256 label true_label kind detail duplicate_of'.split()


def tree(root):
    files = [p for p in Path(root).rglob('*') if p.is_file()]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

def pictures(root): return {k: v for k, v in tree(root).items() if k.endswith('.jpg')}

@pytest.fixture(scope='module')
def spoilt(tmp_path_factory): return draw_bears(tmp_path_factory.mktemp('spoilt')/'bears', **SPOILT)


def test_same_seed_same_bytes(spoilt, tmp_path):
    again = draw_bears(tmp_path/'again', **SPOILT)
    assert pictures(again.root) == pictures(spoilt.root)
    other = draw_bears(tmp_path/'other', **{**SPOILT, 'seed': 4})
    assert not set(pictures(other.root).values()) & set(spoilt.truth.sha256[spoilt.truth.kind != 'broken'])

def test_same_bytes_in_another_process():
    code = 'import hashlib, bearclass.samples.drawing as d; print(hashlib.sha256(d.draw_bear("teddy", 9).tobytes()).hexdigest())'
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                           env={**os.environ, 'PYTHONHASHSEED': '1'}).stdout
    assert there == hashlib.sha256(draw_bear('teddy', 9).tobytes()).hexdigest()+'\n'

def test_a_larger_set_holds_the_smaller(tmp_path):
    few, more = (draw_bears(tmp_path/str(n), n_per_class=n, seed=5, size=96) for n in (3, 6))
    assert set(pictures(few.root)) < set(pictures(more.root))

def test_truth_agrees_with_disk(spoilt):
    t = spoilt.truth
    assert list(t.columns) == TRUTH
    assert sorted(t.path) == sorted(spoilt.root.rglob('*.jpg')) and t.path.is_unique
    for row in t.itertuples():
        sha = hashlib.sha256(row.path.read_bytes()).hexdigest()
        assert (row.sha256, row.path.stem, row.path.parent.name) == (sha, sha[:16], row.label)
    assert dict(t.kind.value_counts()) == dict(ok=14, mislabelled=4, broken=7, duplicate=8)
    assert (t[t.kind == 'mislabelled'].label != t[t.kind == 'mislabelled'].true_label).all()
    assert (t[t.kind == 'ok'].label == t[t.kind == 'ok'].true_label).all()

def test_broken_are_the_unreadable_ones(spoilt):
    seen = check_images(spoilt.root).set_index('path')
    truth = spoilt.truth.set_index('path')
    assert (seen.ok.astype(bool) == (truth.kind.reindex(seen.index) != 'broken')).all()
    reason = dict(zip(BROKEN, ('empty', 'not an image', 'truncated', 'zero-filled', 'not an image')))
    bad = truth[truth.kind == 'broken']
    assert set(bad.detail) == set(BROKEN)
    for p, d in bad.detail.items():   # a decoder may also notice that zeros are no picture data
        assert seen.reason[p] == reason[d] or (d == 'zero-filled' and seen.reason[p] in ('truncated', 'undecodable'))

def test_duplicates_look_like_their_originals(spoilt):
    def grey(p, mirror=False):
        im = Image.open(p).convert('L').resize((16, 16), Image.BOX)
        return np.asarray(ImageOps.mirror(im) if mirror else im, float)
    good = spoilt.truth[spoilt.truth.kind == 'ok'].path.tolist()
    for row in spoilt.truth[spoilt.truth.kind == 'duplicate'].itertuples():
        gap = {p: min(abs(grey(row.path)-grey(p, m)).mean() for m in (False, True)) for p in good}
        assert min(gap, key=gap.get) == row.duplicate_of
        assert Path(row.duplicate_of).parent == row.path.parent
    assert set(spoilt.truth.detail[spoilt.truth.kind == 'duplicate']) == {
        're-encoded', 'resized', 'brightened', 'mirrored', 'cropped'}

def test_many_broken_and_many_twins_have_their_own_names(tmp_path):
    b = draw_bears(tmp_path/'b', n_per_class=1, seed=1, broken=32, duplicates=30, size=64)
    assert b.truth.path.is_unique and len(pictures(b.root)) == 65
    assert (~check_images(b.root).ok.astype(bool)).sum() == 32

def test_what_was_lost_comes_back(tmp_path):
    a = draw_bears(tmp_path/'a', n_per_class=3, seed=2, size=96)
    before = tree(a.root)
    a.truth.path[0].unlink()
    a.truth.path[1].write_bytes(b'half')
    again = draw_bears(tmp_path/'a', n_per_class=3, seed=2, size=96)
    assert tree(a.root) == before
    pd.testing.assert_frame_equal(again.truth, a.truth)
    assert len(read_manifest(a.root)) == len(a.truth)

def test_strangers_are_left_alone(tmp_path):
    mine = tmp_path/'photos/black/holiday.jpg'
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b'dear to me')
    with pytest.raises(InputError, match='holiday.jpg'): draw_bears(tmp_path/'photos', n_per_class=1, size=64)
    assert tree(tmp_path) == {'photos/black/holiday.jpg': hashlib.sha256(b'dear to me').hexdigest()}
    (tmp_path/'file').write_text('x')
    with pytest.raises(InputError, match='is a file'): draw_bears(tmp_path/'file', n_per_class=1, size=64)

def test_manifest_rows(spoilt):
    m = read_manifest(spoilt.root).set_index('path')
    for row in spoilt.truth.itertuples():
        r = m.loc[row.path.relative_to(spoilt.root).as_posix()]
        assert (r.sha256, r.label, r.bytes, r.status, r.provider, r.license) == (
            row.sha256, row.label, row.path.stat().st_size, 'saved', 'drawn', 'cc0')


# --- worth classifying -----------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def small():
    "200 pictures a class, (600, 48, 48, 3) uint8, and their class numbers."
    x = [
        np.asarray(ImageOps.fit(draw_bear(b, f'42 {k}', size=128), (48, 48), Image.BILINEAR))
        for b in BEARS
        for k in range(200)]
    return np.stack(x), np.arange(3).repeat(200)

def test_200_visibly_different_pictures_a_class(small):
    x, y = small
    for c in range(3):
        g = x[y == c].mean(3).reshape(200, 16, 3, 16, 3).mean((2, 4)).reshape(200, -1)
        gap = abs(g[:, None]-g[None]).mean(2)+255*np.eye(200)
        assert gap.min() > 6, f'{BEARS[c]}: two pictures differ by only {gap.min():.1f} of 255 grey levels'

def test_colour_alone_does_not_solve_it(small):
    x, y = small
    hist = lambda a: np.concatenate([np.histogram(a[..., c], 8, (0, 256))[0] for c in range(3)])/a[..., 0].size
    train = np.arange(len(y)) % 4 > 0
    for features in (x.mean((1, 2)), x[:, 12:36, 12:36].mean((1, 2)), np.stack([hist(a) for a in x])):
        centre = np.stack([features[train & (y == c)].mean(0) for c in range(3)])
        error = (((features[~train][:, None]-centre)**2).sum(2).argmin(1) != y[~train]).mean()
        assert error > .25

def test_every_coat_colour_is_shared(small):
    "No class owns dark or brown: each has bears of both, judged by the middle of the picture."
    x, y = small
    middle = x[:, 18:30, 18:30].mean((1, 2, 3))
    for c in range(3): assert (middle[y == c] < 75).sum() >= 5 and (middle[y == c] > 110).sum() >= 5


# --- pets ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def pets(tmp_path_factory): return draw_pets(tmp_path_factory.mktemp('pets')/'pets', n_per_breed=3, seed=1, size=64)

def read_list(pets, name): return [
    line.split() for line in (pets/f'annotations/{name}.txt').read_text().splitlines() if line[0] != '#']

def test_pets_lie_as_oxford_s_do(pets):
    assert sorted(p.name for p in pets.iterdir()) == ['annotations', 'images']
    names = [f.name for f in pets.glob('images/*')]
    breeds = {re.search(r'/([^/]+)_\d+.jpg$', (pets/'images'/n).as_posix())[1] for n in names}
    assert breeds == set(BREEDS) and len(names) == 36
    assert sum(b[0].isupper() for b in breeds) == 6
    for f in pets.glob('images/*'):
        with Image.open(f) as im: assert (im.format, im.mode, max(im.size)) == ('JPEG', 'RGB', 64)

def test_annotations_of_pets(pets):
    every = read_list(pets, 'list')
    assert sorted(f'{name}.jpg' for name, *_ in every) == sorted(f.name for f in pets.glob('images/*'))
    assert sorted(read_list(pets, 'trainval')+read_list(pets, 'test')) == sorted(every)
    numbers = {}
    for name, *ids in every: numbers.setdefault(name.rsplit('_', 1)[0], set()).add(tuple(map(int, ids)))
    assert all(len(ids) == 1 for ids in numbers.values())
    of = {breed: ids.pop() for breed, ids in numbers.items()}
    assert [of[b][0] for b in sorted(of, key=str.lower)] == list(range(1, 13))
    for species, breeds in (1, [b for b in of if b[0].isupper()]), (2, [b for b in of if b[0].islower()]):
        assert sorted(of[b][1:] for b in breeds) == [(species, i) for i in range(1, 7)]
    for part in 'trainval', 'test': assert {n.rsplit('_', 1)[0] for n, *_ in read_list(pets, part)} == set(of)

def test_same_seed_same_pets(pets, tmp_path):
    assert tree(draw_pets(tmp_path/'again', n_per_breed=3, seed=1, size=64)) == tree(pets)
    other = pictures(draw_pets(tmp_path/'other', n_per_breed=3, seed=2, size=64))
    assert len(set(other.values())) == 36 and not set(other.values()) & set(pictures(pets).values())
    assert pictures(draw_pets(tmp_path/'few', n_per_breed=1, seed=1, size=64)).items() < pictures(pets).items()

def test_colour_alone_does_not_tell_the_look_alikes():
    "The grey cats and the white dogs have no colour of their own; cat and dog do not differ by the place."
    def mean(breed, k): return np.asarray(draw_pet(breed, k, 64).resize((16, 16)), float)[4:12, 4:12].mean((0, 1))
    for a, b in ('British_Shorthair', 'Russian_Blue'), ('great_pyrenees', 'samoyed'), ('beagle', 'basset_hound'):
        x = np.stack([mean(breed, k) for breed in (a, b) for k in range(40)])
        y, train = np.arange(2).repeat(40), np.arange(80) % 2 > 0
        centre = np.stack([x[train & (y == c)].mean(0) for c in (0, 1)])
        assert (((x[~train][:, None]-centre)**2).sum(2).argmin(1) != y[~train]).mean() > .2, (a, b)


# --- digits ----------------------------------------------------------------------------------------------------------

def count(path): return {
    p.relative_to(path).as_posix(): len(list(p.glob('*.png')))
    for p in sorted(path.glob('*/*')) if p.is_dir()}

def test_layout_and_labels(tmp_path):
    path = digits_folder(tmp_path/'d', digits=(7, 3))
    assert count(path) == {'train/3': 147, 'train/7': 144, 'valid/3': 36, 'valid/7': 35}
    df = pd.read_csv(path/'labels.csv')
    assert list(df.columns) == ['name', 'label']
    assert set(df.name) == {p.relative_to(path).as_posix() for p in path.rglob('*.png')}
    assert all(l == {'3': 0, '7': 1}[n.split('/')[1]] for n, l in zip(df.name, df.label))
    for p in path.rglob('*.png'):
        with Image.open(p) as im: assert (im.mode, im.size) == ('L', (28, 28))
    assert tree(digits_folder(tmp_path/'e')) == tree(path) and second_three_is_a_three(path)

def test_digits_can_be_told_apart_by_pixel_similarity(tmp_path):
    path = digits_folder(tmp_path/'d')
    load = lambda d: np.stack([np.asarray(Image.open(p), float)/255 for p in sorted((path/d).glob('*.png'))])
    mean = {d: load(f'train/{d}').mean(0) for d in '37'}
    is_3 = lambda x: abs(x-mean['3']).mean((1, 2)) < abs(x-mean['7']).mean((1, 2))
    right = np.concatenate([is_3(load('valid/3')), ~is_3(load('valid/7'))])
    assert right.mean() > .85   # new hands, small set: less than the 95 % of full MNIST, far more than a guess

def second_three_is_a_three(path):
    "The course's `threes[1]` is nearer to the mean three than to the mean seven, by both of its measures."
    load = lambda d: np.stack([np.asarray(Image.open(f), float)/255 for f in sorted((path/'train'/d).iterdir())])
    threes, sevens = load('3'), load('7')
    to_3, to_7 = (threes[1]-o.mean(0) for o in (threes, sevens))
    return abs(to_3).mean() < abs(to_7).mean() and (to_3**2).mean() < (to_7**2).mean()

def test_real_mnist(tmp_path, mnist_files):
    path = digits_folder(tmp_path/'m', idx=mnist_files)
    assert count(path) == {'train/3': 6131, 'train/7': 6265, 'valid/3': 1010, 'valid/7': 1028}
    x, y = (read_idx(mnist_files/f'train-{n}.gz') for n in ('images-idx3-ubyte', 'labels-idx1-ubyte'))
    assert x.shape == (60000, 28, 28) and y.shape == (60000,)
    i = int(np.flatnonzero(y == 7)[100])
    assert (np.asarray(Image.open(path/f'train/7/{i}.png')) == x[i]).all()
    assert len(pd.read_csv(path/'labels.csv')) == 14434 and second_three_is_a_three(path)

@pytest.mark.parametrize('data,words', [
    (b'', 'begins with nothing'),
    (b'\0\0\x0d\x01\0\0\0\x01\0', 'magic number'),
    (struct.pack('>BBBBII', 0, 0, 8, 3, 1, 1), 'magic number'),
    (struct.pack('>BBBBI', 0, 0, 8, 1, 2)+b'1234', 'holds 4 numbers'),
    (gzip.compress(b'\0\0\x08\x01\0\0\0\x01a', mtime=0)[:-6], 'cannot be unpacked')])
def test_idx_errors(tmp_path, data, words):
    (tmp_path/'x').write_bytes(data)
    with pytest.raises(InputError, match=words): read_idx(tmp_path/'x')


# --- untar_data ------------------------------------------------------------------------------------------------------

@pytest.fixture
def store(tmp_path, monkeypatch):
    from fastai.data import external
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path))
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    monkeypatch.delenv('BEARCLASS_MNIST', raising=False)
    external.fastai_cfg.cache_clear()
    yield tmp_path/'data'
    external.fastai_cfg.cache_clear()

def test_offline_stand_ins(store, capsys):
    from bearclass.samples.datasets import URLs
    got = {n: untar_data(getattr(URLs, n)) for n in ('MNIST_SAMPLE', 'MNIST_TINY', 'MNIST')}
    assert [p.relative_to(store).as_posix() for p in got.values()] == [
        'mnist_sample_offline',
        'mnist_tiny_offline',
        'mnist_png_offline']
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and all(s.startswith('Offline: ') and 'not the real one' in s for s in said)
    assert sorted(p.name for p in got['MNIST'].iterdir()) == ['testing', 'training'] and len(count(got['MNIST'])) == 20
    assert sum(count(got['MNIST']).values()) == 1797
    assert sorted(p.name for p in got['MNIST_TINY'].iterdir()) == ['labels.csv', 'test', 'train', 'valid']

def test_a_failed_download_falls_back_and_a_refused_one_does_not(store, monkeypatch):
    from urllib.error import HTTPError, URLError
    from bearclass.samples.datasets import URLs
    from fastai.data import external
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    def fail(error):
        def f(*args, **kw): raise error
        monkeypatch.setattr(external, 'untar_data', f)
    fail(URLError('no route'))
    assert untar_data(URLs.MNIST_SAMPLE).name == 'mnist_sample_offline'
    fail(HTTPError('http://x', 404, 'Not Found', {}, io.BytesIO()))
    with pytest.raises(HTTPError): untar_data(URLs.MNIST_SAMPLE)

def test_online_is_fastais(store, monkeypatch):
    from fastai.data import external
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    asked = []
    monkeypatch.setattr(external, 'untar_data', lambda url, **kw: asked.append((url, kw)) or Path('there'))
    assert untar_data('http://x/y.tgz', force_download=True) == Path('there')
    assert asked == [('http://x/y.tgz', dict(archive=None, data=None, c_key='data', force_download=True, base=None))]

def test_pets_offline(store, monkeypatch, capsys):
    from bearclass.samples import datasets
    monkeypatch.setitem(datasets._RECIPES, 'oxford-iiit-pet', lambda dest: draw_pets(dest, n_per_breed=1, size=64))
    path = untar_data(datasets.URLs.PETS)
    before = tree(path)
    assert path == store/'oxford-iiit-pet_offline' and len(pictures(path)) == 12
    assert untar_data(datasets.URLs.PETS) == path and tree(path) == before
    said = capsys.readouterr().out
    assert said.count('Offline: 12 pictures') == 2 and 'drawn' in said and 'not the real one' in said

def test_idx_from_environment(store, monkeypatch, mnist_files, capsys):
    from bearclass.samples.datasets import URLs
    monkeypatch.setenv('BEARCLASS_MNIST', str(mnist_files))
    path = untar_data(URLs.MNIST_TINY)
    said = capsys.readouterr().out
    assert 'digits of MNIST itself' in said and 'not the real' not in said
    assert count(digits_folder(store/'mine', limit=9, digits=(1,))) == {'train/1': 9, 'valid/1': 9}
    assert (store/'mine/train/1/3.png').exists()   # the fourth picture of MNIST is its first one
    assert path.name == 'mnist_tiny_from_idx' and set(count(path).values()) == {350}
    assert len(list((path/'test').iterdir())) == 20

def test_import_is_light():
    code = 'import sys, bearclass.samples.datasets; print([m for m in ("torch", "fastai", "sklearn", "pandas", "matplotlib") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'
