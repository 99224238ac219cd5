"The book's two loops, and what is left of the dataset after them, in every state in which they can meet it."
import os, pickle, random, shutil, warnings
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from bearclass.core import InputError, file_sha256
from bearclass.gather.verify import get_image_files
from bearclass.learn.course_cleaner import CleanerPath, FileDeleter, ImageClassifierCleaner

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
            if f.is_file() and f.suffix!='.jsonl' and not any(p.startswith('.') for p in f.relative_to(top).parts): out.setdefault(file_sha256(f), []).append(f)
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
    return pd.DataFrame(dict(path=pd.Series(files, dtype=object), sha256=[file_sha256(f) for f in files], split=['train' if i%2 else 'valid' for i in range(len(files))],
                             given_label=[f.parent.name for f in files], predicted_label='teddy', p_given=.2, p_predicted=.7, loss=np.linspace(3, 0, len(files)), label_quality=.2, kind='', similar_to=None))

@pytest.fixture
def cleaner(root): return ImageClassifierCleaner(table(root))

def loops(cleaner, path):
    "Word for word as the book has them."
    for idx in cleaner.delete(): cleaner.fns[idx].unlink()
    for idx,cat in cleaner.change(): shutil.move(str(cleaner.fns[idx]), path/cat)

def place(cleaner, rel): return list(cleaner.fns).index(cleaner.root/rel)


def test_the_two_loops(cleaner, root):
    before = contents(root)
    fns = [Path(str(f)) for f in cleaner.fns]
    gone,moved = place(cleaner, 'black/00000001.png'),place(cleaner, 'teddy/00000003.png')
    cleaner.mark(fns[gone], 'delete')
    cleaner.mark(fns[moved], 'grizzly')
    assert (list(cleaner.delete()),list(cleaner.change())) == ([gone], [(moved, 'grizzly')])
    assert cleaner.values()[gone]=='<Delete>' and cleaner.values()[moved]=='grizzly' and list(cleaner.values()).count('<Keep>')==10
    loops(cleaner, root)
    after = contents(root)
    sha = cleaner.issues.sha256
    assert contents(root, root.with_name('bears_removed')).keys() == before.keys()
    assert sha[gone] not in after and [f.parent.name for f in after[sha[moved]]] == ['grizzly']
    assert len(get_image_files(root/'grizzly'))==5                                       # 00000003.png was there already: neither was lost
    assert (list(cleaner.delete()),list(cleaner.change())) == ([], [])
    assert cleaner.fns[moved].parent==root/'grizzly'                                     # the same number, where it lies now
    loops(cleaner, root)                                                                 # twice is once
    assert contents(root)==after
    assert not list(root.parent.rglob('*second names*'))


def test_both_loops_after_each_class_or_once_at_the_end(root, tmp_path):
    shutil.copytree(root, tmp_path/'other/bears')
    results = []
    for path,often in (root, True), (tmp_path/'other/bears', False):
        c = ImageClassifierCleaner(table(path))
        for label,i,choice in ('black', 0, 'grizzly'), ('grizzly', 0, 'teddy'), ('teddy', 0, 'black'), ('grizzly', 1, 'delete'), ('black', 1, 'teddy'):
            c.dd_cats.value = label
            c.mark(path/label/f'{2+i:08}.png', choice)
            if often: loops(c, path)
        loops(c, path)
        results.append({s: sorted(f.parent.name for f in fs) for s,fs in contents(path).items()})
        assert len(contents(path, path.with_name('bears_removed')))==12
    assert results[0]==results[1] and len(results[0])==11


def test_a_kernel_that_starts_again_and_a_second_notebook(root, cleaner):
    cleaner.mark(root/'black/00000002.png', 'delete')
    cleaner.mark(root/'teddy/00000002.png', 'black')
    again = ImageClassifierCleaner(table(root).sample(frac=1, random_state=1))           # another training, another order
    assert {again.fns[i] for i in again.delete()} == {root/'black/00000002.png'}
    assert {(again.fns[i], c) for i,c in again.change()} == {(root/'teddy/00000002.png', 'black')}
    loops(again, root)
    assert not cleaner.delete() and not cleaner.change()                                 # the first one sees it
    cleaner.mark(root/'black/00000000.png', 'delete')
    assert len(again.delete())==1


@pytest.mark.parametrize('same_content', [True, False])
def test_a_name_that_is_taken(root, same_content):
    taken,mine = root/'grizzly/00000001.png',root/'black/00000001.png'
    if same_content: shutil.copy(mine, taken)
    before = contents(root)
    c = ImageClassifierCleaner(table(root))
    c.journal.relabel(mine, 'grizzly')
    loops(c, root)
    after = contents(root)
    assert after.keys()==before.keys() and not mine.exists() and taken.exists()
    assert {f.parent.name for f in after[before and file_sha256(taken)]} == {'grizzly'}
    assert sum(map(len, after.values()))==12                                              # not one file less
    assert not c.change()


def test_two_of_one_name_for_one_class(cleaner, root):
    for label in 'black', 'teddy':
        for i in range(4): cleaner.mark(root/label/f'{i:08}.png', 'grizzly')
    loops(cleaner, root)
    assert len(contents(root/'grizzly'))==12 and not get_image_files(root/'black') and not get_image_files(root/'teddy')


def test_a_class_without_a_folder(cleaner, root):
    shutil.rmtree(root/'teddy')
    cleaner.mark(root/'black/00000000.png', 'panda', new_class=True)
    cleaner.mark(root/'black/00000001.png', 'panda')
    loops(cleaner, root)
    assert (root/'panda').is_dir() and len(contents(root/'panda'))==2
    cleaner.mark(root/'black/00000002.png', 'cub', new_class=True)
    (root/'cub').write_text('in the way')
    with pytest.warns(UserWarning, match="for the class 'cub' are left out, for it has no folder"): loops(cleaner, root)
    assert (root/'cub').read_text()=='in the way' and (root/'black/00000002.png').exists()
    assert len(cleaner.preview())                                                         # left out of the loop, and not forgotten


@pytest.mark.parametrize('line', ["shutil.move(str(cleaner.fns[idx]), path.parent/cat)", "shutil.move(str(cleaner.fns[idx]), path/cat/cat)",
                                  "shutil.move(str(cleaner.fns[idx]), str(path/cat)+'_fixed.jpg')", "os.remove(cleaner.fns[idx])", "os.replace(cleaner.fns[idx], path/'one.tmp')"])
def test_loops_that_lose_pictures_with_any_other_cleaner(cleaner, root, line):
    before = contents(root)
    names = dict(cleaner=cleaner, path=root, shutil=shutil, os=os)
    for i in range(3): cleaner.mark(root/f'black/{i:08}.png', 'grizzly')
    for idx,cat in cleaner.change(): exec(line, dict(names, idx=idx, cat=cat))
    assert len(contents(root))<12
    with pytest.warns(UserWarning, match='had vanished from .bears. after a loop, and are back. Is .* the `path` of your loop'): cleaner.values()
    assert contents(root).keys()>=before.keys()
    loops(cleaner, root)                                                                 # and the right loop finds them
    assert contents(root).keys()>=before.keys() and not any((root/f'black/{i:08}.png').exists() for i in range(3))


def test_pictures_that_vanish_while_the_kernel_ends(cleaner, root):
    before = contents(root)
    for i in range(2): cleaner.mark(root/f'black/{i:08}.png', 'teddy')
    for idx,cat in cleaner.change(): shutil.move(str(cleaner.fns[idx]), root.parent/cat)
    with pytest.warns(UserWarning, match='vanished'): ImageClassifierCleaner(root)
    assert contents(root).keys()==before.keys()


def test_os_remove_sets_aside(cleaner, root):
    f = root/'black/00000001.png'
    sha = file_sha256(f)
    cleaner.mark(f, 'delete')
    for idx in cleaner.delete(): os.remove(cleaner.fns[idx])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not cleaner.delete()
    assert not f.exists() and [p.parent.name for p in contents(root.with_name('bears_removed'))[sha]]==['black']


def test_files_that_went_meanwhile(cleaner, root):
    fs = [root/f'black/{i:08}.png' for i in range(3)]
    for f in fs[:2]: cleaner.mark(f, 'delete')
    cleaner.mark(fs[2], 'teddy')
    listed,pairs = cleaner.delete(),cleaner.change()
    for f in fs: f.rename(root.parent/f.name)                                            # somebody tidies up by hand
    for idx in listed: cleaner.fns[idx].unlink()                                         # what is gone need not go
    with pytest.warns(UserWarning, match='1 picture had vanished'): assert len(cleaner.change())==1
    assert not cleaner.delete() and len(contents(root, root.with_name('bears_removed')))==12   # each had a second name


def test_saved_lists_run_twice(cleaner, root):
    cleaner.mark(root/'black/00000000.png', 'delete')
    cleaner.mark(root/'black/00000001.png', 'teddy')
    gone,moved = cleaner.delete(),cleaner.change()
    for _ in range(2):
        for idx in gone: cleaner.fns[idx].unlink()
        for idx,cat in moved: shutil.move(str(cleaner.fns[idx]), root/cat)
    assert len(contents(root))==11 and len(contents(root/'teddy'))==5


def test_delete_then_change_and_back(cleaner, root):
    f = root/'black/00000001.png'
    for choice in 'delete', 'teddy': cleaner.mark(f, choice)
    assert not cleaner.delete() and [c for _,c in cleaner.change()]==['teddy']          # the last word counts
    cleaner.mark(f, 'delete')
    assert len(cleaner.delete())==1 and not cleaner.change()
    cleaner.mark(f, 'keep')
    loops(cleaner, root)
    assert f.exists() and len(contents(root))==12


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


def test_unlink_leaves_other_decisions_waiting(cleaner, root):
    cleaner.mark(root/'black/00000000.png', 'delete')
    cleaner.mark(root/'black/00000001.png', 'teddy')
    cleaner.mark(root/'black/00000002.png', 'delete')
    cleaner.fns[cleaner.delete()[0]].unlink()
    assert len(cleaner.delete())==1 and len(cleaner.change())==1 and len(contents(root))==11


def test_two_names_for_one_picture(root):
    shutil.copy(root/'black/00000001.png', root/'teddy/copy.png')
    c = ImageClassifierCleaner(table(root))
    c.mark(root/'black/00000001.png', 'delete')
    assert len(c.delete())==2
    loops(c, root)
    assert not c.delete() and not (root/'teddy/copy.png').exists() and not (root/'black/00000001.png').exists()
    removed = contents(root.with_name('bears_removed'))
    assert sum(map(len, removed.values()))==2                                            # both files, no content lost


def test_everything_comes_back(cleaner, root):
    tree = {f.relative_to(root): f.read_bytes() for f in get_image_files(root)}
    cleaner.mark(root/'black/00000000.png', 'delete')
    cleaner.mark(root/'teddy/00000000.png', 'black')
    loops(cleaner, root)
    steps = cleaner.journal.steps()
    for step in steps.step[steps.action.isin(['delete', 'relabel'])][::-1]: cleaner.undo(step)   # newest first: the second one took the name of the first
    assert {f.relative_to(root): f.read_bytes() for f in get_image_files(root)}==tree
    assert not cleaner.delete() and not cleaner.change()


def test_apply_does_both_loops_in_one_line(cleaner, root):
    cleaner.mark(root/'black/00000000.png', 'delete')
    cleaner.mark(root/'teddy/00000000.png', 'grizzly')
    assert set(cleaner.apply().status)=={'moved'}
    assert not cleaner.delete() and not cleaner.change() and len(contents(root))==11
    cleaner.undo()
    assert len(cleaner.delete())==1 and len(cleaner.change())==1 and len(contents(root))==12


def test_paths_that_leave_the_cleaner(cleaner, root):
    fn = cleaner.fns[0]
    assert isinstance(fn, Path) and fn==Path(str(fn)) and fn in set(get_image_files(root)) and os.fspath(fn)==str(Path(fn))
    assert Image.open(fn).size==(12, 9) and fn.read_bytes()==Path(fn).read_bytes() and fn.exists() and fn.stat().st_size
    for other in pickle.loads(pickle.dumps(fn)), fn.parent/'x.png', fn.with_suffix('.jpg'), fn.parent: assert other._cleaner is None if isinstance(other, CleanerPath) else type(other) is type(Path())
    assert cleaner.fns[cleaner.delete()]==[] and list(cleaner.fns)==list(cleaner.fns) and f'{fn}'==str(Path(fn))


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


def test_a_folder_that_may_not_be_written(cleaner, root, monkeypatch):
    real = os.unlink
    def refuse(f, *args, **kw):
        if Path(f).parent==root/'black': raise PermissionError(13, 'Permission denied')
        return real(f, *args, **kw)
    cleaner.mark(root/'black/00000000.png', 'delete')
    cleaner.mark(root/'teddy/00000000.png', 'delete')
    with monkeypatch.context() as m:
        m.setattr(os, 'unlink', refuse)
        with pytest.warns(UserWarning, match='stays where it is: failed: Permission denied'): loops(cleaner, root)
    assert len(contents(root))==11 and [cleaner.fns[i] for i in cleaner.delete()]==[root/'black/00000000.png']   # the other one went
    loops(cleaner, root)
    assert len(contents(root))==10 and len(contents(root, root.with_name('bears_removed')))==12


def tiles(cleaner): return cleaner.widget and {t.row['path'].relative_to(cleaner.root).as_posix(): t for t in cleaner._view.used}

def test_the_widget_forgets_nothing(cleaner, root):
    assert cleaner.dd_cats.value=='black' and cleaner.dd_ds.value=='Train' and [o for o in cleaner.dd_ds.options]==['Train', 'Valid']
    assert {t.choice.value for t in tiles(cleaner).values()}=={'<Keep>'} and [v for _,v in next(iter(tiles(cleaner).values())).choice.options]==['<Keep>', '<Delete>', *CLASSES]
    (first,tile),*_ = tiles(cleaner).items()
    tile.choice.value = 'teddy'
    cleaner.dd_ds.value = 'Valid'
    (second,tile),*_ = tiles(cleaner).items()
    assert second!=first
    tile.choice.value = '<Delete>'
    for split in 'Train', 'Valid':
        for label in CLASSES: cleaner.dd_cats.value,cleaner.dd_ds.value = label,split
    shown = {}
    for split in 'Train', 'Valid':
        cleaner.dd_cats.value,cleaner.dd_ds.value = 'black',split
        shown.update({f: t.choice.value for f,t in tiles(cleaner).items()})
    assert len(shown)==4 and shown.pop(first)=='teddy' and shown.pop(second)=='<Delete>' and set(shown.values())=={'<Keep>'}
    loops(cleaner, root)
    for label in CLASSES[::-1]: cleaner.dd_cats.value = label                            # after files have gone: no error
    cleaner.dd_cats.value,cleaner.dd_ds.value = 'teddy','Train'
    assert any(f.startswith('teddy/') and cleaner.issues.sha256[cleaner.issues.path.tolist().index(root/first)]==t.row['sha256'] for f,t in tiles(cleaner).items())


def test_every_picture_can_be_reached(root):
    for i in range(70): picture(root/f'black/more {i}.png', (i, 3, 200))
    c = ImageClassifierCleaner(table(root), max_n=10)
    seen = set()
    for split in 'Train', 'Valid':
        c.dd_ds.value = split
        while True:
            assert len(tiles(c))<=10
            seen |= set(tiles(c))
            if c._view.next.disabled: break
            c._view.next.click()
    assert len(seen)==74 and len(ImageClassifierCleaner(table(root), max_n=1000).fns)==82


def test_a_click_that_cannot_be_written(cleaner, monkeypatch):
    (_,tile),*_ = tiles(cleaner).items()
    monkeypatch.setattr('bearclass.learn.decisions.append_lines', lambda *a, **kw: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    tile.choice.value = '<Delete>'
    assert 'No space left on device' in cleaner._view.message.value and not cleaner.delete()


def test_damaged_and_odd_files(root):
    (root/'black/broken.jpg').write_bytes(b'not a picture at all')
    odd = picture(root/"teddy/it's & \U0001f43b.png", 'red')
    c = ImageClassifierCleaner(table(root), opts=('panda',))
    c.dd_cats.value,c.dd_ds.value = 'teddy',{'train':'Train', 'valid':'Valid'}[c.issues.split[place(c, f'teddy/{odd.name}')]]
    assert '&#x27;s &amp; \U0001f43b' in tiles(c)[f'teddy/{odd.name}'].pic.value
    c.dd_cats.value = 'black'
    c.mark(root/'black/broken.jpg', 'delete')
    next(iter(tiles(c).values())).choice.value = 'panda'
    loops(c, root)
    assert not (root/'black/broken.jpg').exists() and len(get_image_files(root/'panda'))==1
    shutil.rmtree(root/'grizzly')
    c.dd_cats.value = 'grizzly'                                                          # gone since: shown as such, and disabled
    assert all(t.choice.disabled for t in tiles(c).values())


def test_file_deleter(root):
    files = list(get_image_files(root))[::-1]
    d = FileDeleter(file_paths=np.array([str(f) for f in files], dtype=object), batch_size=5)
    assert d.batch==files[:5] and d.widget
    for t in d._view.used[:2]: t.choice.value = True
    d._view.confirm.click()
    assert d.batch==files[5:10] and not files[0].exists() and not files[1].exists() and files[2].exists()
    assert sorted(r['action'] for r in d.journal.in_force().values())==['delete']*2+['keep']*3
    d._view.confirm.click()
    d._view.confirm.click()
    assert 'These were the last ones' in d._view.message.value and len(contents(root, root.with_name('bears_removed')))==12
    for _ in range(3): d._view.back.click()
    assert all(f.exists() for f in files) and not d.journal.in_force()
    assert FileDeleter(files[:1]).confirm(files[:1]).status.tolist()==['moved'] and len(FileDeleter(files)._list)==11
    with pytest.raises(InputError, match='not in this batch'): d.confirm([root/'none.png'])


name = st.text(st.characters(blacklist_categories=('Cs', 'Cc'), blacklist_characters='/\\:*?"<>|'), min_size=1, max_size=12).filter(lambda s: s.strip(' .')==s and len(s.encode())<60)

@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), name), min_size=2, max_size=6, unique_by=lambda t: (t[0], t[2].casefold())),
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
        assert d['to'] in lies if d['action']=='keep' else lies==(set() if d['action']=='delete' else {d['to']})   # as `apply`: keep moves nothing, no copy either


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
    for part in 'train', 'valid': shutil.copytree(root/'black', root/part/'black') and picture(root/f'{part}/teddy/{part}.png', (len(part)*9, 7, part=='train'))
    for label in CLASSES: shutil.rmtree(root/label)
    for f in (root/'valid/black').iterdir(): picture(f, (int(f.stem), 200, 7))
    c = ImageClassifierCleaner(table(root), root=root)
    c.mark(root/'valid/black/00000001.png', 'teddy')
    with pytest.warns(UserWarning, match='1 picture left out of the loop.*apply'): loops(c, root)   # `path/cat` would be root/teddy
    assert sorted(os.listdir(root))==['cleaning.jsonl', 'train', 'valid'] and (root/'valid/black/00000001.png').exists()
    c.apply()
    assert (root/'valid/teddy/00000001.png').exists() and not c.change()
