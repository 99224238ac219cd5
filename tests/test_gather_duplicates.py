"Duplicates across rooms: real photos, odd files, splits, quarantine, learned features, and memory."
import io, random, shutil, tracemalloc
from pathlib import Path
import numpy as np
import pytest
from conftest import REAL, needs
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageEnhance, ImageOps
from bearclass.samples.datasets import draw_bears
from bearclass.gather.duplicates import (SIDE, _gathered, _grey_blocks, close_rows, find_duplicates, leaks, similar_groups,
                                         small_grey)
from bearclass.dataset import get_image_files


def found(greys, threshold=.95): return _gathered(_grey_blocks(greys, threshold))


def as_jpeg(im, quality=85):
    buf = io.BytesIO()
    im.save(buf, 'JPEG', quality=quality)
    return buf.getvalue()


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    "Drawn bears with five near copies, an exact one, and one bear in two classes."
    root = tmp_path_factory.mktemp('bears')/'bears'
    truth = draw_bears(root, n_per_class=20, seed=3, size=128, duplicates=10).truth
    ok = {l: t.path.tolist() for l,t in truth[truth.kind=='ok'].groupby('label')}
    shutil.copy(ok['teddy'][0], root/'teddy/again.jpg')
    ImageOps.mirror(Image.open(ok['black'][0])).save(root/'grizzly/same.jpg', quality=85)
    return root, truth


@pytest.fixture(scope='module')
def dups(drawn): return find_duplicates(drawn[0])


# ---- real photos

def crop(im, share, rng):
    w,h = round(im.width*share), round(im.height*share)
    x,y = int((im.width-w)*rng.random()), int((im.height-h)*rng.random())
    return im.crop((x, y, x+w, y+h))


EDITS = {
    'saved again': (lambda im, rng: im, .99),
    'half': (lambda im, rng: im.resize((im.width//2, im.height//2)), .99),
    'mirrored': (lambda im, rng: ImageOps.mirror(im), .99),
    'brighter': (lambda im, rng: ImageEnhance.Brightness(im).enhance(1.12), .99),
    'cropped to 95 %': (lambda im, rng: crop(im, .95, rng), .97),
    'cropped to 90 %': (lambda im, rng: crop(im, .9, rng), .8)}


@pytest.fixture(scope='module')
def photos():
    files = get_image_files(REAL/'bears')[::2]
    return [Image.open(f).convert('RGB') for f in files], np.stack([small_grey(f) for f in files])


@needs('bears')
@pytest.mark.parametrize('name', EDITS)
def test_copies_of_real_photos_are_recovered(photos, name):
    (edit,least),rng = EDITS[name],random.Random(name)
    copies = np.stack([small_grey(as_jpeg(edit(im, rng))) for im in photos[0]])
    n = len(copies)
    i,j,s,m = found(np.concatenate([photos[1], copies]))
    own = j==i+n
    assert own.sum()/n>=least
    if name=='mirrored': assert m[own].mean()>.95


@needs('bears')
def test_real_photos_have_one_pair_of_copies():
    d = find_duplicates(REAL/'bears')
    assert len(d.files)==413 and not d.skipped
    assert [(a.name, b.name) for a,b in zip(d.pairs.a, d.pairs.b)]==[('00000036.jpg', '00000137.jpg')]
    assert d.pairs.similarity[0]>.98 and d.pairs.kind[0]=='near'   # once with stronger colours


@needs('odd_images')
def test_odd_files_are_compared_or_listed_with_a_reason():
    files = sorted(f for f in (REAL/'odd_images').iterdir() if f.suffix!='.md')
    d = find_duplicates(files)
    assert len(d.files)==len(files) and all(d.skipped.values())
    bad = {f.name for f,o in zip(d.files, d.looks) if not o.sha256}
    assert {'broken.png', 'zero_width.gif', 'truncated_jpeg.jpg', 'decompression_bomb.gif', 'avif_hopper.heif'} & bad
    group = next(g for g in d if any(f.name=='hopper.jpg' for f in g))
    names = {f.name for f in group}
    # grey, and upright as EXIF says
    assert {'hopper.jpg', 'hopper_gray.jpg', 'hopper_orientation_3.jpg', 'hopper_orientation_6.jpg'}<=names
    assert str(d) and d.extras().path.is_unique


# ---- formats

def test_formats_frames_transparency_and_exif_do_not_hide_a_copy(tmp_path, drawn):
    im = Image.open(drawn[1].path[0]).convert('RGB')
    im.save(tmp_path/'a.png')
    im.save(tmp_path/'b.webp', quality=80)
    im.convert('CMYK').save(tmp_path/'c.jpg')
    im.save(tmp_path/'d.gif', save_all=True, append_images=[ImageOps.flip(im)])
    exif = Image.Exif()
    exif[0x0112] = 3
    im.rotate(180).save(tmp_path/'e.jpg', exif=exif)
    Image.fromarray((np.asarray(im.convert('L')).astype(np.uint16)*257)).save(tmp_path/'f.png')
    d = find_duplicates(tmp_path)
    assert [len(g) for g in d]==[6] and not d.skipped and not d.groups[0].chained


def test_what_cannot_be_compared_stops_nothing(tmp_path, drawn):
    good = shutil.copy(drawn[1].path[0], tmp_path/'good.jpg')
    Image.new('RGB', (400, 300), 'white').save(tmp_path/'blank.png')
    shutil.copy(tmp_path/'blank.png', tmp_path/'blank2.png')
    Image.new('1', (1, 1)).save(tmp_path/'dot.png')
    (tmp_path/'empty.jpg').touch()
    (tmp_path/'empty2.jpg').touch()
    (tmp_path/'folder.jpg').mkdir()
    (tmp_path/'half.jpg').write_bytes(Path(good).read_bytes()[:1500])
    d = find_duplicates([*sorted(tmp_path.iterdir()), tmp_path/'gone.jpg', good])
    assert {f.name for f in d.skipped}=={
        'blank.png', 'blank2.png', 'dot.png', 'empty.jpg', 'empty2.jpg', 'folder.jpg', 'half.jpg', 'gone.jpg'}
    # the blank ones are equal to the byte; nothing more is known of them
    assert d.pairs[['kind']].values.tolist()==[['exact']]
    assert len(d.files)==9
    assert '8 files not compared' in str(d)


def test_many_equal_files_are_pairs_with_one(tmp_path, drawn):
    for k in range(60): shutil.copy(drawn[1].path[0], tmp_path/f'{k:03}.jpg')
    d = find_duplicates(tmp_path)
    assert (len(d.pairs), len(d), len(d.extras('exact')))==(59, 1, 59)
    assert d.groups[0].keeper.name=='000.jpg' and not d.groups[0].chained
    assert len(leaks(d, d.files[:30], d.files[30:]))==30


# ---- the result

def test_groups_do_not_depend_on_the_order(drawn, dups):
    files = list(dups.files)
    random.Random(1).shuffle(files)
    other = find_duplicates(files)
    assert [g.files for g in other]==[g.files for g in dups]
    assert {frozenset(p) for p in zip(other.pairs.a, other.pairs.b)}=={
        frozenset(p)
        for p in zip(dups.pairs.a, dups.pairs.b)}


def test_extras_go_to_quarantine_and_come_back(drawn, tmp_path):
    from bearclass.gather.quarantine import quarantine, undo_quarantine
    root = tmp_path/'bears'
    shutil.copytree(drawn[0], root)
    before = {f.relative_to(root): f.read_bytes() for f in get_image_files(root)}
    d = find_duplicates(root)
    spare = d.extras()
    assert len(spare)>=8   # those cropped are only near
    moved = quarantine(spare, root, yes=True)
    assert (moved.status=='moved').all() and len(get_image_files(root))==len(before)-len(spare)
    left = find_duplicates(root)
    assert not len(left.extras()) and len(left)>=1           # the bear in two classes is still there
    undo_quarantine(root)
    assert {f.relative_to(root): f.read_bytes() for f in get_image_files(root)}==before


def test_the_group_splitter_takes_the_result_and_nothing_leaks(dups):
    from bearclass.learn.splits import GroupSplitter, StratifiedHashSplitter
    plain = sum(len(leaks(dups, StratifiedHashSplitter(.3, seed=s))) for s in range(5))
    assert plain>0
    for s in range(5):
        splitter = GroupSplitter(dups, .3, seed=s)
        train,valid = splitter(dups.files)
        assert len(train)+len(valid)==len(dups.files)
        assert not len(leaks(dups, splitter))
        assert not len(leaks(dups, [dups.files[i] for i in train], [dups.files[i] for i in valid]))


# ---- promises

def test_memory_of_a_search_is_bounded():
    greys = np.random.default_rng(0).integers(0, 256, (6000, SIDE, SIDE), np.uint8)
    greys[3000:3010] = greys[:10, :, ::-1]
    tracemalloc.start()
    i,j,_,m = found(greys)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(zip(i.tolist(), j.tolist()))==[(k, 3000+k) for k in range(10)] and m.all()
    assert peak<200e6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda p: p[0]!=p[1]), max_size=40))
def test_groups_are_the_connected_parts(pairs):
    groups = similar_groups(pairs)
    flat = [f for g in groups for f in g]
    assert sorted(flat)==sorted({f for p in pairs for f in p})
    home = {f: k for k,g in enumerate(groups) for f in g}
    assert all(home[a]==home[b] for a,b in pairs)
    for g in groups:                                        # and nothing is joined without a reason
        reached,todo = {g[0]},[g[0]]
        while todo:
            f = todo.pop()
            new = {x for p in pairs if f in p for x in p}-reached
            reached |= new
            todo += new
        assert reached==set(g)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 10**6), st.floats(.1, 1))
def test_close_rows_agrees_with_all_cosines(n, d, seed, threshold):
    dice = np.random.default_rng(seed)
    x,y = dice.normal(size=(2, n, d))
    u,v = (a/np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    s = np.maximum(u@u.T, u@v.T)
    i,j,c,_ = close_rows(x, y, threshold)
    want = {(int(a), int(b)) for a,b in np.argwhere(np.triu(s, 1)>=threshold+1e-9)}
    maybe = {(int(a), int(b)) for a,b in np.argwhere(np.triu(s, 1)>=threshold-1e-9)}
    assert want<=set(zip(i.tolist(), j.tolist()))<=maybe
    assert (np.diff(c)<=0).all() and (c<=1).all()


def test_a_link_is_never_kept_in_the_place_of_its_file(tmp_path):
    "Or setting the copy aside would leave a link to nothing."
    from bearclass.samples.drawing import draw_bear
    (tmp_path/'x').mkdir()
    draw_bear('grizzly', 9, 96).save(tmp_path/'x/z.png')
    try: (tmp_path/'x/a.png').symlink_to(tmp_path/'x/z.png')
    except OSError: pytest.skip('this system makes no links')
    found = find_duplicates(tmp_path)
    assert [g.keeper.name for g in found]==['z.png'] and 'not a link' in str(found)
