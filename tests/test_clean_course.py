"The book's two loops, and what is left of the dataset after them, in every state in which they can meet it."
import os, pickle, random, shutil, warnings
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from bearclass.core import InputError, file_sha256
from bearclass.dataset import get_image_files
from bearclass.clean.course_cleaner import CleanerPath, FileDeleter, ImageClassifierCleaner

CLASSES = 'black', 'grizzly', 'teddy'


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (12, 9), colour).save(path)
    return path

def contents(*tops):
    "{sha256: how many ordinary files hold it} below some folders, hidden ones left out."
    out = {}
    for top in tops:
        for f in top.rglob('*'):
            if f.is_file() and f.suffix!='.jsonl' and not any(p.startswith('.') for p in f.relative_to(top).parts):
                out.setdefault(file_sha256(f), []).append(f)
    return out

@pytest.fixture
def root(tmp_path):
    "Three classes with the file names of the course, which are the same in each: 00000000.png, 00000001.png ..."
    for j,label in enumerate(CLASSES):
        for i in range(4): picture(tmp_path/f'bears/{label}/{i:08}.png', (60*j, 50*i, 99))
    return tmp_path/'bears'

def table(root):
    "As `label_issues` gives it: the order is that of the loss, and every other picture is in the validation set."
    files = list(get_image_files(root))
    random.Random(3).shuffle(files)
    return pd.DataFrame(dict(
        path=pd.Series(files, dtype=object), sha256=[file_sha256(f) for f in files],
        split=['train' if i%2 else 'valid' for i in range(len(files))],
        given_label=[f.parent.name for f in files], predicted_label='teddy', p_given=.2, p_predicted=.7,
        loss=np.linspace(3, 0, len(files)), label_quality=.2, kind='', similar_to=None))

@pytest.fixture
def cleaner(root): return ImageClassifierCleaner(table(root))

def loops(cleaner, path):
    "Word for word as the book has them."
    for idx in cleaner.delete(): cleaner.fns[idx].unlink()
    for idx,cat in cleaner.change(): shutil.move(str(cleaner.fns[idx]), path/cat)

def place(cleaner, rel): return list(cleaner.fns).index(cleaner.root/rel)


def test_the_two_loops(cleaner, root):
    before = contents(root)
    gone,moved = place(cleaner, 'black/00000001.png'),place(cleaner, 'teddy/00000003.png')
    cleaner.mark(cleaner.fns[gone], 'delete')
    cleaner.mark(cleaner.fns[moved], 'grizzly')
    assert (list(cleaner.delete()), list(cleaner.change()))==([gone], [(moved, 'grizzly')])
    loops(cleaner, root)
    after = contents(root)
    assert contents(root, root.with_name('bears_removed')).keys()==before.keys()
    assert len(get_image_files(root/'grizzly'))==5     # 00000003.png was there already: neither was lost
    assert cleaner.fns[moved].parent==root/'grizzly'   # the same number, where it lies now
    loops(cleaner, root)                               # twice is once
    assert contents(root)==after and not list(root.parent.rglob('*second names*'))


@pytest.mark.parametrize('line', [
    "shutil.move(str(cleaner.fns[idx]), path.parent/cat)",
    "shutil.move(str(cleaner.fns[idx]), path/cat/cat)",
    "shutil.move(str(cleaner.fns[idx]), str(path/cat)+'_fixed.jpg')",
    "os.remove(cleaner.fns[idx])",
    "os.replace(cleaner.fns[idx], path/'one.tmp')"])
def test_loops_that_lose_pictures_with_any_other_cleaner(cleaner, root, line):
    before = contents(root)
    names = dict(cleaner=cleaner, path=root, shutil=shutil, os=os)
    for i in range(3): cleaner.mark(root/f'black/{i:08}.png', 'grizzly')
    for idx,cat in cleaner.change(): exec(line, dict(names, idx=idx, cat=cat))
    assert len(contents(root))<12
    with pytest.warns(
        UserWarning,
        match='had vanished from .bears. after a loop, and are back. Is .* the `path` of your loop'):
        cleaner.values()
    assert contents(root).keys()>=before.keys()
    loops(cleaner, root)                                                                 # and the right loop finds them
    assert contents(root).keys()>=before.keys() and not any((root/f'black/{i:08}.png').exists() for i in range(3))


def test_files_that_went_meanwhile(cleaner, root):
    fs = [root/f'black/{i:08}.png' for i in range(3)]
    for f in fs[:2]: cleaner.mark(f, 'delete')
    cleaner.mark(fs[2], 'teddy')
    listed,pairs = cleaner.delete(),cleaner.change()
    for i in [place(cleaner, f'black/{i:08}.png') for i in range(2)]+[pairs[0][0]]:      # somebody tidies up by hand
        f = Path(cleaner.fns[i])
        f.rename(root.parent/f.name)
    for idx in listed: cleaner.fns[idx].unlink()                                         # what is gone need not go
    with pytest.warns(UserWarning, match='1 picture had vanished'): assert len(cleaner.change())==1
    assert not cleaner.delete() and len(contents(root, root.with_name('bears_removed')))==12   # each had a second name


def test_unlink_without_a_mark(cleaner, root):
    fn = cleaner.fns[place(cleaner, 'teddy/00000000.png')]
    fn.unlink()
    assert not fn.exists() and len(contents(root))==11 and len(contents(root.with_name('bears_removed')))==1
    fn.unlink()                                                                          # it is out already
    assert (cleaner.decisions().action=='delete').sum()==1
    other = cleaner.fns[place(cleaner, 'teddy/00000001.png')]
    os.rename(other, root.parent/'away.png')
    with pytest.raises(FileNotFoundError, match='make a new cleaner'): other.unlink()
    other.unlink(missing_ok=True)


def test_paths_that_leave_the_cleaner(cleaner, root):
    fn = cleaner.fns[0]
    assert fn==Path(str(fn)) and fn in set(get_image_files(root)) and os.fspath(fn)==f'{fn}'==str(Path(fn))
    assert Image.open(fn).size==(12, 9)
    for other in pickle.loads(pickle.dumps(fn)), fn.parent/'x.png', fn.with_suffix('.jpg'), fn.parent:
        assert other.cleaner is None if isinstance(other, CleanerPath) else type(other) is type(Path())


@pytest.mark.skipif(os.name=='nt', reason='symlinks need a right of their own there')
def test_symlinks_are_left_alone(root, tmp_path):
    real = picture(tmp_path/'treasure.png', 'gold')
    (root/'black/link.png').symlink_to(real)
    c = ImageClassifierCleaner(table(root))
    c.journal.mark(root/'black/link.png', 'delete')
    assert not c.delete()
    with pytest.warns(UserWarning, match='stays where it is'): c.fns[place(c, 'black/link.png')].unlink()
    assert real.exists() and (root/'black/link.png').is_symlink()
    with pytest.raises(InputError, match='symlink'):
        (tmp_path/'door').symlink_to(root)
        ImageClassifierCleaner(tmp_path/'door')


def tiles(cleaner): return cleaner.widget and {
    t.row['path'].relative_to(cleaner.root).as_posix(): t
    for t in cleaner.view.used}

def test_the_widget_forgets_nothing(cleaner, root):
    (first,tile),*_ = tiles(cleaner).items()
    assert [v for _,v in tile.choice.options]==['<Keep>', '<Delete>', *CLASSES] and tile.choice.value=='<Keep>'
    tile.choice.value = 'teddy'
    cleaner.dd_ds.value = 'Valid'
    (second,tile),*_ = tiles(cleaner).items()
    tile.choice.value = '<Delete>'
    shown = {}
    for split in 'Train', 'Valid':
        for label in CLASSES:
            cleaner.dd_cats.value,cleaner.dd_ds.value = label,split
            shown |= {f: t.choice.value for f,t in tiles(cleaner).items()}
    assert len(shown)==12 and (shown.pop(first), shown.pop(second))==('teddy', '<Delete>')
    assert set(shown.values())=={'<Keep>'}
    loops(cleaner, root)
    for label in CLASSES[::-1]: cleaner.dd_cats.value = label   # after files have gone: no error
    cleaner.dd_cats.value,cleaner.dd_ds.value = 'teddy','Train'
    assert any(t.row['given_label']!='teddy' for t in tiles(cleaner).values())


def test_file_deleter(root):
    files = list(get_image_files(root))[::-1]
    d = FileDeleter(file_paths=np.array([str(f) for f in files], dtype=object), batch_size=5)
    assert d.batch==files[:5] and d.widget
    for t in d.view.used[:2]: t.choice.value = True
    for _ in range(3): d.view.confirm.click()
    assert 'These were the last ones' in d.view.message.value and not files[0].exists() and files[2].exists()
    assert sorted(r['action'] for r in d.journal.in_force().values())==['delete']*2+['keep']*10
    for _ in range(3): d.view.back.click()
    assert all(f.exists() for f in files) and not d.journal.in_force()


name = st.text(
    st.characters(blacklist_categories=('Cs', 'Cc'), blacklist_characters='/\\:*?"<>|'),
    min_size=1,
    max_size=12).filter(lambda s: s.strip(' .')==s and len(s.encode())<60)

@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5), name),
        min_size=2, max_size=6, unique_by=lambda t: (t[0], t[2].casefold())),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(['keep', 'delete', *CLASSES])), max_size=10))
def test_any_names_and_any_choices(tmp_path_factory, files, choices):
    root = tmp_path_factory.mktemp('any')/'bears'
    for c in CLASSES: (root/c).mkdir(parents=True)
    fs = [picture(root/CLASSES[j]/f'{n}.png', (20*colour, 0, 9)) for j,colour,n in files]
    before = contents(root)
    c = ImageClassifierCleaner(fs)
    for i,choice in choices:
        if i<len(fs): c.mark(c.issues.sha256[i], choice, new_class=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        loops(c, root)
        assert not c.delete() and not c.change()
    assert contents(root, root.with_name('bears_removed')).keys()==before.keys()
    for sha,d in c.journal.in_force().items():
        lies = {f.parent.name for f in contents(root).get(sha, [])}
        # as `apply`: keep moves nothing, no copy either
        assert d['to'] in lies if d['action']=='keep' else lies==(set() if d['action']=='delete' else {d['to']})


def test_a_loop_after_an_apply_that_was_undone(cleaner, root):
    f = root/'black/00000002.png'
    step = cleaner.mark(f, 'teddy')
    cleaner.apply()
    cleaner.undo()
    loops(cleaner, root)
    assert not f.exists()
    cleaner.undo(step)                                                                   # the loop's move, too
    assert f.exists() and not cleaner.change() and len(contents(root))==12


def test_classes_below_train_and_valid(root):
    for part in 'train', 'valid':
        shutil.copytree(root/'black', root/part/'black') and picture(
            root/f'{part}/teddy/{part}.png',
            (len(part)*9, 7, part=='train'))
    for label in CLASSES: shutil.rmtree(root/label)
    for f in (root/'valid/black').iterdir(): picture(f, (int(f.stem), 200, 7))
    c = ImageClassifierCleaner(table(root), root=root)
    c.mark(root/'valid/black/00000001.png', 'teddy')
    # `path/cat` would be root/teddy
    with pytest.warns(UserWarning, match='1 picture left out of the loop.*apply'): loops(c, root)
    assert sorted(os.listdir(root))==['cleaning.jsonl', 'train', 'valid'] and (root/'valid/black/00000001.png').exists()
    c.apply()
    assert (root/'valid/teddy/00000001.png').exists() and not c.change()
