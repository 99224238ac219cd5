"The cleaner without a browser: values are set and buttons clicked as a page would, and what the disk says is what counts."
import builtins, json, os, shutil, stat, subprocess, sys, threading
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from fastcore.test import expect_fail
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from bearclass.core import DependencyError, InputError
from bearclass.learn import clean
from bearclass.learn.clean import ImageCleaner, issue_table, tile_html
from bearclass.learn.decisions import CleaningJournal
from bearclass.learn.splits import content_sha256

CLASSES = 'black', 'grizzly', 'teddy'


def paint(path, seed):
    "A small picture like no other."
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(path)
    return path


def table(root, n=30, classes=CLASSES):
    "`n` pictures, the first third with a label that the model doubts."
    rows = []
    for i in range(n):
        label,p = classes[i%len(classes)],.05+.9*i/n
        model = classes[(i+1)%len(classes)] if i<n//3 else label
        rows.append(dict(path=paint(root/label/f'{i:03}.png', i), split='valid' if i%5==0 else 'train', given_label=label, predicted_label=model, p_given=p, p_predicted=max(p, 1-p),
                         loss=float(-np.log(p)), label_quality=p, kind='likely mislabelled' if i<n//3 else '', similar_to=None))
    return pd.DataFrame(rows)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch): monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))

@pytest.fixture
def root(tmp_path): return tmp_path/'bears'

@pytest.fixture
def cleaner(root): return ImageCleaner(table(root), root, page_size=8)

@pytest.fixture
def view(cleaner):
    cleaner.widget
    return cleaner._view

def said(view): return view.message.value
def lines(root): return [json.loads(l) for l in (root/'cleaning.jsonl').read_text(encoding='utf-8').splitlines()]
def everything(root): return sorted(content_sha256(f) for top in (root, clean.removed_folder(root)) for f in top.rglob('*.png'))


# ---- clicks

def test_each_click_is_in_the_journal_at_once(view, cleaner, root):
    t = view.used
    rows = [o.row for o in t]
    t[0].keep.click()
    assert [(l['action'], l['sha256']) for l in lines(root)] == [('keep', rows[0]['sha256'])]
    t[1].delete.click()
    t[2].accept.click()
    t[3].other.value = 'teddy' if rows[3]['label']!='teddy' else 'black'
    got = lines(root)[1:]
    assert [l['action'] for l in got] == ['delete', 'relabel', 'relabel']
    assert got[1]['to']==rows[2]['predicted_label']==got[1]['predicted_label'] and got[1]['from']==got[1]['given_label']==rows[2]['label']
    assert got[2]['to']==t[3].other.value and got[2]['path']==rows[3]['path'].relative_to(root).as_posix()
    assert cleaner.counts() == dict(n=30, decided=4, keep=1, relabel=2, delete=1, todo=3, valid=0)
    assert all(o.row['path'].exists() for o in t)

def test_a_page_shows_what_was_decided(view):
    t = view.used[0]
    for button,text in (t.keep, '✓ Keep'), (t.delete, '✓ Delete'), (t.accept, f"✓ {t.row['predicted_label']}"):
        button.click()
        assert button.description==text and 'bcc-on' in button._dom_classes
        assert sum('bcc-on' in b._dom_classes for b in (t.keep, t.delete, t.accept, t.other))==1
    third = next(l for l in CLASSES if l not in (t.row['label'], t.row['predicted_label']))
    t.other.value = third
    assert 'bcc-on' in t.other._dom_classes and t.accept.description.startswith('→')
    t.other.value = t.row['label']
    assert t.keep.description=='✓ Keep' and t.other.value==''

def test_the_same_click_twice_is_one_line(view, root):
    for _ in range(3): view.used[0].delete.click()
    assert len(lines(root))==1

def test_marks_survive_another_class_another_kernel_another_list_another_notebook(view, cleaner, root):
    view.used[0].delete.click()
    view.used[1].keep.click()
    gone,kept = (t.row['sha256'] for t in view.used[:2])
    view.label.value = 'grizzly'
    assert all(t.row['label']=='grizzly' for t in view.used)
    view.label.value = 'black'
    assert next(t for t in view.used if t.row['sha256']==gone).delete.description=='✓ Delete'
    df = cleaner.issues.iloc[::-1].reset_index(drop=True).assign(split='valid')   # another kernel, another order, another split
    other = ImageCleaner(df, root, page_size=30)
    assert dict(zip(other.page.sha256, other.page.action))[gone]=='delete' and dict(zip(other.page.sha256, other.page.action))[kept]=='keep'
    third = cleaner.filter().page.sha256[2]
    other.mark(third, 'delete')
    view.refresh.click()
    assert next(t for t in view.used if t.row['sha256']==third).delete.description=='✓ Delete'
    assert cleaner.counts()['decided']==other.counts()['decided']==3

def test_a_restarted_kernel_knows_it_all(view, cleaner, root, tmp_path):
    view.used[0].delete.click()
    cleaner.issues.to_pickle(tmp_path/'issues.pkl')
    code = f'import sys, pandas as pd; from bearclass.learn.clean import ImageCleaner; c = ImageCleaner(pd.read_pickle({str(tmp_path/"issues.pkl")!r}), {str(root)!r}); print(c.page.action[0], c.counts()["decided"], "ipywidgets" in sys.modules)'
    got = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    assert got.stdout.strip()=='delete 1 False'             # and importing, deciding and asking need no widgets

def test_the_rest_of_a_page_is_one_step(view, cleaner, root):
    view.used[2].delete.click()
    view.rest.click()
    assert cleaner.counts()['keep']==7 and len({l['step'] for l in lines(root)[1:]})==1
    assert '7 pictures kept' in said(view) and view.rest.disabled
    view.undo.click()
    assert cleaner.counts()['decided']==1 and 'keep: 7 pictures' in said(view) and not view.rest.disabled

def test_a_bulk_delete_and_a_bulk_label(cleaner):
    step = cleaner.mark_page('delete')
    assert cleaner.counts()['delete']==8 and cleaner.mark_page('delete') is None
    cleaner.undo(step)
    cleaner.mark_page('teddy')
    assert cleaner.counts()['decided']==8 and set(cleaner.page.to)=={'teddy'}

def test_any_step_can_be_undone(view, cleaner):
    for t in view.used[:3]: t.delete.click()
    assert len(view.steps.options)==3
    view.steps.value = view.steps.options[-1][1]   # the first of the three
    view.undo.click()
    assert list(cleaner.page.action[:3])==[None, 'delete', 'delete']
    view.undo.click()
    view.undo.click()
    assert view.undo.disabled and view.steps.options==(('nothing to undo', ''),)

def test_paging_sorting_filtering(view, cleaner):
    assert 'page 1 of 4' in view.where.value and view.back.disabled
    for _ in range(3): view.next.click()
    assert len(view.used)==6 and view.next.disabled and view.grid.children==tuple(t.box for t in view.used)
    view.kind.value = 'any'
    assert 'page 1 of 2' in view.where.value
    view.sort.value = 'uncertainty'
    assert list(cleaner.page.p_predicted)==sorted(cleaner.page.p_predicted)
    view.split.value = 'valid'
    assert set(cleaner.page.split)=={'valid'}
    view.state.value = 'undecided'
    first = view.used[0].row['sha256']
    view.used[0].keep.click()
    assert view.used[0].row['sha256']==first                # it stays under the mouse
    view.refresh.click()
    assert first not in [t.row['sha256'] for t in view.used]

def test_every_picture_comes_once(cleaner):
    seen = [s for p in range(1, cleaner.n_pages+1) for s in cleaner.go(p).page.sha256]
    assert len(seen)==len(set(seen))==30
    with expect_fail(InputError, contains='1 to 4'): cleaner.go(5)
    with expect_fail(InputError, contains="one of 'black'"): cleaner.filter(label='panda')
    with expect_fail(InputError, contains='one of given'): cleaner.sort('colour')

def test_no_picture_passes(view, cleaner):
    for t in view.used: t.keep.click()
    view.state.value = 'delete' if ('delete' in [v for _,v in view.state.options]) else ''
    cleaner.filter(state='delete')
    assert view.grid.children==(view.empty,) and 'page 1 of 1' in view.where.value and view.rest.disabled
    view.keys.value = 'kdm1u'
    assert cleaner.counts()['decided']==8-1                 # u took one back; nothing else could happen

def test_pictures_of_the_validation_set_say_what_that_does(view):
    t = next(t for t in view.used if t.row['split']=='valid')
    assert '>valid<' in t.pic.value and 'validation' not in view.head.value
    t.keep.click()
    assert 'validation' not in view.head.value
    t.delete.click()
    assert '1 validation picture gets' in view.head.value and 'cleaning_gain' in view.head.value


# ---- moving

def test_preview_then_apply_then_undo(view, cleaner, root):
    before = everything(root)
    view.used[0].delete.click()
    view.used[1].accept.click()
    a,b = (dict(t.row) for t in view.used[:2])
    view.look.click()
    assert 'bcc-hide' not in view.panel._dom_classes and '2 files will move' in view.plan.value and view.apply.description=='Move 2 files now'
    assert a['path'].exists() and b['path'].exists()        # a look moves nothing
    plan = cleaner.preview()
    view.apply.click()
    assert not a['path'].exists() and not b['path'].exists() and everything(root)==before
    assert all(Path(to).exists() for to in plan.to[plan.status=='will move'])
    assert '1 file went to another class and 1 file went out of the dataset' in said(view) and 'train' in said(view)
    assert 'bcc-hide' in view.panel._dom_classes and view.look.disabled
    new = {t.row['sha256']: t.row for t in view.used}
    assert new[a['sha256']]['removed'] and new[b['sha256']]['label']==b['predicted_label']
    assert cleaner.counts()['todo']==0 and cleaner.counts()['decided']==2
    assert view.steps.options[0][0].endswith('files moved')
    view.undo.click()                                       # the apply
    assert a['path'].exists() and b['path'].exists() and cleaner.counts()['todo']==2
    view.undo.click()
    view.undo.click()
    assert cleaner.counts()['decided']==0 and everything(root)==before

def test_a_step_before_an_apply(view, cleaner, root):
    step = cleaner.mark(view.used[0].row['path'], 'delete')
    old = view.used[0].row['path']
    cleaner.mark(view.used[1].row['path'], 'keep')
    cleaner.apply()
    assert not old.exists()
    cleaner.undo(step)
    assert old.exists() and cleaner.counts()==dict(n=30, decided=1, keep=1, relabel=0, delete=0, todo=0, valid=0)

def test_a_removed_picture_comes_back_by_a_click(view, cleaner):
    old = view.used[0].row['path']
    view.used[0].delete.click()
    cleaner.apply()
    t = next(t for t in view.used if t.row['removed'])
    assert t.keep.description=='Bring back' and '>removed<' in t.pic.value and cleaner.counts()['todo']==0
    t.keep.click()
    assert cleaner.counts()['todo']==1 and not old.exists()  # as everything: decided first, moved by apply
    view.look.click()
    view.apply.click()
    assert old.exists() and not t.row['removed'] and cleaner.counts()['todo']==0

def test_a_removed_picture_brought_back_from_outside(view, cleaner, root):
    old = view.used[0].row['path']
    view.used[0].delete.click()
    cleaner.apply()
    clean.bring_back(root)
    view.refresh.click()
    assert old.exists() and not view.used[0].row['removed'] and view.used[0].keep.description=='✓ Keep'

def test_nothing_moves_that_was_not_shown(view, cleaner, root):
    view.used[0].delete.click()
    view.look.click()
    ImageCleaner(cleaner.issues, root).mark(view.used[1].row['path'], 'delete')   # another notebook, between the look and the click
    view.apply.click()
    assert 'plan has changed' in said(view) and '2 files will move' in view.plan.value and view.used[0].row['path'].exists()
    view.used[2].delete.click()
    assert 'bcc-hide' in view.panel._dom_classes            # a new decision: look again
    view.look.click()
    view.apply.click()
    assert '3 files went out' in said(view)

def test_not_now_moves_nothing(view, root):
    view.used[0].delete.click()
    view.look.click()
    view.cancel.click()
    assert 'bcc-hide' in view.panel._dom_classes and view.used[0].row['path'].exists()

def test_a_cleaner_goes_on_after_somebody_moved_files(view, cleaner, root):
    t = view.used[0]
    moved = t.row['path'].rename(root/'teddy'/'other name.png')
    view.refresh.click()
    assert t.row['path']==moved and t.row['label']=='teddy'
    t.delete.click()
    cleaner.apply()
    assert not moved.exists()


def test_of_two_copies_each_row_keeps_its_own(root):
    t = table(root, 6)
    twin = Path(shutil.copy(t.path[0], root/'teddy'/'twin.png'))
    c = ImageCleaner([t.path[0], twin, *t.path[1:]], root)
    first,second = c._rows[:2]
    moved = first['path'].rename(root/'grizzly'/'moved.png')
    c.refresh()
    assert (first['path'], second['path'])==(moved, twin)
    twin.unlink()
    c.refresh()
    assert first['path']==moved and second['gone'] and not first['gone']

def test_a_list_of_relative_paths_and_another_working_directory(root, monkeypatch, tmp_path):
    table(root, 6)
    monkeypatch.chdir(root.parent)
    c = ImageCleaner([f.relative_to(root.parent) for f in sorted(root.rglob('*.png'))])
    monkeypatch.chdir(tmp_path.parent)
    assert not any(r['gone'] for r in c.refresh()._rows) and c.mark(c.page.path[0], 'delete')
    assert c.apply().status.tolist()==['moved']

def test_a_picture_is_known_by_the_path_it_had(view, cleaner, root):
    old = view.used[0].row['path']
    cleaner.mark(old, 'grizzly' if old.parent.name!='grizzly' else 'teddy')
    cleaner.apply()
    cleaner.mark(old, old.parent.name)                      # it was moved since: this is a step back, and no `keep`
    assert lines(root)[-1]['action']=='relabel' and cleaner.counts()['todo']==1
    cleaner.apply()
    assert old.exists() and cleaner.counts()['todo']==0

def test_what_is_kept_and_moved_by_hand_does_not_move_back(view, cleaner, root):
    f = view.used[0].row['path']
    view.used[0].keep.click()
    f.rename(root/'teddy'/'by hand.png')
    view.refresh.click()
    assert cleaner.counts()['todo']==0 and view.look.disabled and not (cleaner.preview().status=='will move').any()

def test_a_file_that_changes_between_the_look_and_the_click(view, cleaner, root):
    changed,gone = (t.row['path'] for t in view.used[:2])
    paint(changed, 999)
    gone.unlink()
    for t in view.used[:2]:
        t.delete.click()
        assert 'nothing to decide' in said(view) and t.keep.disabled and '>gone<' in t.pic.value
    assert cleaner.counts()['decided']==0 and changed.exists() and not (root/'cleaning.jsonl').exists()

def test_a_step_that_another_notebook_has_taken_back(view, cleaner, root):
    view.used[0].delete.click()
    ImageCleaner(cleaner.issues, root).undo()
    view.undo.click()
    assert 'Another notebook has taken back' in said(view) and cleaner.counts()['decided']==0 and view.undo.disabled

def test_pictures_of_another_folder_stop_nothing(root, tmp_path):
    t,other = table(root, 6),paint(tmp_path/'other'/'black'/'1.png', 500)
    c = ImageCleaner([other, *t.path], root)
    c.widget
    v = c._view
    assert v.used[0].keep.disabled and '>gone<' in v.used[0].pic.value
    v.rest.click()
    assert c.counts()['keep']==6

def test_a_decision_about_a_file_that_went_is_no_failure(view, cleaner):
    kept = view.used[0].row['path']
    view.used[0].keep.click()
    view.used[1].delete.click()
    kept.unlink()
    view.look.click()
    view.apply.click()
    assert '1 file went out' in said(view) and 'bcc-bad' not in said(view) and kept.name not in said(view)

def test_what_was_found_is_said_about_one_label(cleaner):
    row = next(r for r in cleaner._rows if r['kind'])
    assert 'likely mislabelled' in tile_html(row, b'') and 'likely mislabelled' not in tile_html({**row, 'label':'another'}, b'')
    assert 'damaged' in tile_html({**row, 'label':'another', 'kind':'damaged'}, b'')


# ---- a new class

def test_a_class_that_is_none_yet(view, cleaner, root):
    t = view.used[0]
    t.other.value = view.labels[-1][1]
    assert t.box.children[-1] is view.ask
    view.name.value = 'panda'
    view.make.click()
    assert t.box.children[-1] is not view.ask and "'panda' becomes a class" in said(view).replace('&#x27;', "'")
    assert t.other.value=='panda' and 'panda' in [v for _,v in view.used[3].other.options]
    cleaner.apply()
    assert len(list((root/'panda').iterdir()))==1 and cleaner.options()['label']['panda']==1

@pytest.mark.parametrize('bad', ['', '..', 'a/b', '.hidden', 'CON', 'GRIZZLY', 'x'*300])
def test_a_class_that_cannot_be(view, root, bad):
    view.used[0].other.value = view.labels[-1][1]
    view.name.value = bad
    view.make.click()
    assert 'bcc-bad' in said(view) and 'What to do' in said(view) and not (root/'cleaning.jsonl').exists()
    view.leave.click()
    assert view.used[0].box.children[-1] is not view.ask and view.used[0].other.value==''

def test_a_label_that_is_no_class_asks_first(cleaner):
    with expect_fail(InputError, contains='new_class=True'): cleaner.mark(cleaner.page.path[0], 'panda')
    assert cleaner.mark(cleaner.page.path[0], 'panda', new_class=True)
    with expect_fail(InputError, contains='new_class=True'): cleaner.mark_page('cub')
    assert cleaner.mark_page('cub', new_class=True)

def test_classes_called_keep_and_delete(tmp_path):
    c = ImageCleaner(table(tmp_path/'odd', 6, ('keep', 'delete', 'other')), tmp_path/'odd')
    c.widget
    t = next(t for t in c._view.used if t.row['label']=='other')
    t.other.value = 'keep'
    assert CleaningJournal(tmp_path/'odd').in_force()[t.row['sha256']]['to']=='keep'
    t.other.value = 'delete'
    now = CleaningJournal(tmp_path/'odd').in_force()[t.row['sha256']]
    assert (now['action'], now['to'])==('relabel', 'delete')


# ---- keys

def test_letters_decide_and_go_on(view, cleaner):
    view.keys.value = 'k'
    view.keys.value = 'kd'
    view.keys.value = 'kdm3 k'                # fast fingers: several at once; the space skips one
    assert list(cleaner.page.action)==['keep', 'delete', 'relabel', 'relabel' if cleaner.page.label[3]!='teddy' else 'keep', None, 'keep', None, None]
    assert view.at==6 and ['bcc-at' in t.box._dom_classes for t in view.used].index(True)==6
    view.keys.value = ''                      # emptied: nothing happens
    view.keys.value = 'u'
    assert cleaner.page.action[5] is None
    view.keys.value = 'un'
    assert 'page 2' in view.where.value and view.at==0
    view.keys.value = 'unb'                   # back over the edge: the last of the page before
    assert 'page 1' in view.where.value and view.at==7
    view.keys.value = 'unbp'
    assert 'first page' in said(view)
    view.keys.value = 'unbp?%9é'
    assert cleaner.counts()['decided']==4

def test_keys_go_through_a_whole_dataset(view, cleaner):
    view.keys.value = 'k'*30
    assert cleaner.counts()['keep']==30 and 'last page' in said(view)


# ---- what goes wrong

def locked(folder):
    if os.name!='posix' or os.geteuid()==0: pytest.skip('root may write everywhere')
    folder.chmod(0o500)

def test_what_cannot_be_written_is_said_and_not_decided(view, cleaner, root, monkeypatch):
    import bearclass.learn.decisions as D
    def refuse(*_): raise PermissionError(13, 'Permission denied', str(root/'cleaning.jsonl'))
    monkeypatch.setattr(D, 'append_lines', refuse)
    view.used[0].delete.click()
    assert 'bcc-bad' in said(view) and 'Permission denied' in said(view) and 'Traceback' not in said(view)
    assert cleaner.counts()['decided']==0 and view.used[0].delete.description=='Delete'
    monkeypatch.undo()
    view.used[0].delete.click()
    assert cleaner.counts()['decided']==1 and 'bcc-bad' not in said(view)

def test_a_disk_that_refuses_to_move(view, cleaner, root, monkeypatch):
    view.used[0].delete.click()
    before = everything(root)
    def refuse(*_, **__): raise OSError(30, 'Read-only file system', str(root))
    monkeypatch.setattr(clean, 'apply_decisions', refuse)
    view.look.click()
    view.apply.click()
    assert 'Read-only file system' in said(view) and 'nothing is lost' in said(view) and everything(root)==before

def test_a_fault_in_a_callback_is_seen_and_raised(view, cleaner, monkeypatch, capsys):
    def broken(*_, **__): raise ZeroDivisionError('by nought')
    monkeypatch.setattr(type(cleaner.journal), 'mark', broken)
    with pytest.raises(ZeroDivisionError): view.on_mark(view.used[0], 'keep')
    assert 'ZeroDivisionError: by nought' in said(view) and 'bcc-bad' in said(view)

def test_a_file_that_went_has_a_tile_that_says_so(view, cleaner):
    gone = view.used[0].row['path']
    gone.unlink()
    view.refresh.click()
    t = next(t for t in view.used if t.row['path']==gone)
    assert '>gone<' in t.pic.value and all(b.disabled for b in (t.keep, t.delete, t.accept, t.other))
    view.rest.click()
    assert cleaner.counts()['keep']==7
    view.keys.value = 'kk'
    assert 'nothing to decide' in said(view)

def test_damaged_and_unknown(tmp_path):
    root = tmp_path/'r'
    files = [paint(root/'a'/f'{i}.png', i) for i in range(3)]
    files[1].write_bytes(b'no picture')
    c = ImageCleaner([*files, root/'b'/'never.png'], root)
    c.widget
    assert len(c.page)==4 and c.options()['state']['gone']==1
    assert all('the model' not in t.pic.value and 'bcc-hide' in t.accept._dom_classes for t in c._view.used)
    c._view.used[1].delete.click()
    assert c.counts()['delete']==1

def test_copies_follow_one_decision(tmp_path):
    root = tmp_path/'r'
    a = paint(root/'a'/'1.png', 1)
    (root/'b').mkdir()
    twin = shutil.copy(a, root/'b'/'1.png')
    paint(root/'b'/'2.png', 2)
    c = ImageCleaner(root)
    c.widget
    c._view.used[0].delete.click()
    assert [t.delete.description for t in c._view.used]==['✓ Delete', '✓ Delete', 'Delete']
    c.apply()
    assert not a.exists() and not Path(twin).exists() and c.counts()['todo']==0

names = st.text(st.characters(blacklist_characters='/\0', blacklist_categories=('Cs',)), min_size=1, max_size=20).filter(lambda s: s.strip('.') and len(s.encode())<100)

@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(names, names)
def test_names_of_all_kinds(tmp_path_factory, label, name):
    root = tmp_path_factory.mktemp('names')/'r'
    try: f = paint(root/label/f'{name}.png', 1)
    except (OSError, ValueError): return      # no name on this system
    paint(root/'other class'/'1.png', 2)
    c = ImageCleaner([f, root/'other class'/'1.png'], root)
    c.widget
    json.dumps([t.pic.value for t in c._view.used])
    assert '<script' not in c._view.used[0].pic.value
    c._view.used[0].delete.click()
    assert c.counts()['delete']==1 and json.loads((root/'cleaning.jsonl').read_text(encoding='utf-8'))['sha256']==content_sha256(f)

def test_html_in_names_is_text(root):
    evil = '<img src=x onerror=alert(1)>'
    df = table(root, 4, ('a', evil)).assign(predicted_label='<script>alert(1)</script>', kind='<b>odd</b>')
    c = ImageCleaner(df, root)
    c.widget
    v = c._view
    everything_sent = ' '.join([v.head.value, v.legend.value, *(t.pic.value for t in v.used)])
    assert '<script' not in everything_sent and 'onerror=alert(1)>' not in everything_sent.replace('&gt;', '') and '<b>odd' not in everything_sent
    v.used[0].accept.click()                  # the model's label is no class here
    assert 'bcc-bad' in said(v) and '<script' not in said(v)
    v.used[0].other.value = evil if v.used[0].row['label']!=evil else 'a'
    v.look.click()
    assert '<img src=x' not in v.plan.value

@pytest.mark.skipif(sys.platform in ('win32', 'darwin'), reason='names are text there')
def test_names_that_are_no_text(root):
    f = paint(root/'a'/'1.png', 1)
    odd = os.fsencode(root)+b'/b\xff'
    os.mkdir(odd)
    other = Path(os.fsdecode(odd+b'/\xfe.png'))
    shutil.copy(paint(root/'a'/'2.png', 2), other)
    c = ImageCleaner([f, other], root)
    c.widget
    v = c._view
    json.dumps([t.pic.value for t in v.used]).encode()
    for t in v.used: t.pic.value.encode()
    for o in v.used[0].other.options: o[0].encode()
    v.used[1].delete.click()
    assert c.counts()['delete']==1
    v.look.click()
    v.plan.value.encode()

def test_folders_train_and_valid(tmp_path):
    root = tmp_path/'r'
    files = [paint(root/part/label/f'{i}.png', 10*i+k) for k,(part,label) in enumerate((('train', 'a'), ('train', 'b'), ('valid', 'a'), ('valid', 'b'))) for i in range(2)]
    c = ImageCleaner(files, root, by='Ada')
    c.widget
    t = next(t for t in c._view.used if t.row['path']==files[-1])
    t.other.value = 'a'
    c.apply()
    assert t.row['path'].parent==root/'valid/a' and lines(root)[0]['by']=='Ada' and c.counts()['todo']==0   # it stays on its side

def test_one_class_and_nothing_at_all(tmp_path):
    paint(tmp_path/'r'/'only'/'1.png', 1)
    c = ImageCleaner(tmp_path/'r')
    c.widget
    c._view.used[0].keep.click()
    assert c.counts()['keep']==1 and c.n_pages==1
    (tmp_path/'empty').mkdir()
    with expect_fail(InputError, contains='no pictures'): ImageCleaner(tmp_path/'empty')
    nothing = ImageCleaner([], tmp_path/'empty')
    nothing.widget
    assert nothing._view.grid.children==(nothing._view.empty,) and '0 pictures' in repr(nothing)

def test_what_is_no_dataset(tmp_path, root):
    for bad in 3, None, 2.5:
        with expect_fail(InputError, contains='the table of `label_issues`'): ImageCleaner(bad)
    with expect_fail(InputError, contains='a column `path`'): ImageCleaner(pd.DataFrame(dict(file=[1])))
    far = [paint(tmp_path/'x'/'a'/'1.png', 1), paint(tmp_path/'y'/'deep'/'b'/'2.png', 2)]
    with expect_fail(InputError, contains='root='): ImageCleaner(far)
    df = pd.DataFrame(dict(path=far[:1], given_label=['bear']))
    with expect_fail(InputError, contains='folders named after their labels'): ImageCleaner(df)
    with expect_fail(InputError, contains='1 to 100'): ImageCleaner(far[:1], page_size=0)
    for old in ([0, 1],), ([0, 1], tmp_path/'x'), (tmp_path/'x', 'more'):
        with expect_fail(InputError, contains='of fastai 1'): ImageCleaner(far[:1], *old)
    for bad in None, float('nan'), 3:
        with expect_fail(InputError, contains='a path for each'): issue_table(pd.DataFrame(dict(path=[bad])))
    with expect_fail(InputError, contains='a column `loss` that does not hold numbers'): issue_table(pd.DataFrame(dict(path=far[:1], loss=['lots'])))
    assert issue_table(pd.DataFrame(dict(path=far[:1]*2, sha256='no fingerprint', similar_to=float('nan')), index=[7, 7])).sha256.tolist()==[content_sha256(far[0])]
    with expect_fail(InputError, contains='a picture of this dataset'): ImageCleaner(far, tmp_path/'x').mark(far[1], 'keep')

def test_without_ipywidgets(cleaner, root, monkeypatch):
    real = builtins.__import__
    def no_widgets(name, *args, **kw):
        if name=='ipywidgets': raise ImportError(name)
        return real(name, *args, **kw)
    monkeypatch.setattr(builtins, '__import__', no_widgets)
    assert cleaner.mark(cleaner.page.path[0], 'delete')     # all but the widget works
    assert len(cleaner.preview())==1
    with expect_fail(DependencyError, contains='pip install ipywidgets'): cleaner.widget


# ---- how much is sent

def test_a_click_sends_no_picture(view, monkeypatch):
    import ipywidgets
    sent = []
    monkeypatch.setattr(ipywidgets.Widget, '_send', lambda self, msg, buffers=None: sent.append(len(json.dumps(msg, default=str)) + sum(map(len, buffers or ()))))
    for w in view.box.children: assert w.comm is not None
    view.used[0].delete.click()
    assert 0<len(sent)<=12 and sum(sent)<5000
    sent.clear()
    view.next.click()
    assert len(sent)<10*len(view.used)

def test_thumbnails_are_made_once(cleaner, tmp_path):
    cleaner.widget
    for t in threading.enumerate():
        if t is not threading.current_thread() and t.daemon and 'thumbnails' in str(getattr(t, '_target', '')): t.join(10)
    made = {f: f.stat().st_mtime_ns for f in (tmp_path/'cache').rglob('*.jpg')}
    assert len(made)>=8
    ImageCleaner(cleaner.issues, cleaner.root, page_size=8).widget
    assert {f: f.stat().st_mtime_ns for f in made}==made


# ---- other ways in

def test_the_same_without_a_widget(root, tmp_path):
    "Python calls and clicks write the same lines."
    a,b = (ImageCleaner(table(tmp_path/n/'bears', 12), tmp_path/n/'bears') for n in 'ab')
    a.widget
    v = a._view
    v.used[0].delete.click()
    v.used[1].accept.click()
    v.used[2].keep.click()
    v.rest.click()
    b.mark(b.page.path[0], 'delete')
    b.mark(b.page.path[1], b.page.predicted_label[1])
    b.mark(b.page.sha256[2], 'keep')
    b.mark_page('keep')
    plain = lambda c: [{k: v for k,v in l.items() if k not in ('step', 'time')} for l in lines(c.root)]
    assert plain(a)==plain(b)

def test_the_page_for_a_friend(cleaner, tmp_path):
    cleaner.mark(cleaner.page.path[0], 'delete')
    cleaner.apply()
    f = cleaner.sort('loss').to_html(tmp_path/'clean.html')
    text = f.read_text(encoding='utf-8')
    assert text.lstrip().lower().startswith('<!doctype html') and cleaner.page.sha256[1] in text

def test_our_own_top_losses(root):
    t = table(root, 9).rename(columns=dict(given_label='label', predicted_label='predicted', p_given='p(label)', p_predicted='p(predicted)'))
    df = issue_table(t[['path', 'label', 'predicted', 'p(label)', 'p(predicted)', 'loss']].iloc[::-1])
    assert list(df.path)==list(t.path[::-1]) and df.predicted_label[0]==t.predicted.iloc[-1] and df.sha256[0]==content_sha256(t.path.iloc[-1])
    assert np.isclose(df.p_given[0], t['p(label)'].iloc[-1])


@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    import torch
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp('net')/'bears'
    for i in range(40): paint(root/CLASSES[i%2]/f'{i:03}.png', 100+i)
    yield image_learner(from_folder(root, size=32, bs=8), 'tiny_cnn', weights=False, verbose=False)
    torch.set_num_threads(n)

def test_a_learner(learn):
    c = ImageCleaner(learn)
    assert c.root==Path(learn.dls.path) and len(c.issues)==40 and set(c.issues.split)=={'train', 'valid'}
    assert set(c.options())=={'label', 'split', 'kind', 'state'} and c.issues.label_quality.is_monotonic_increasing
    c.widget
    assert len(c._view.used)==24

def test_a_learner_from_before_the_files_moved(learn):
    c = ImageCleaner(learn)
    r = c._rows[3]
    was = r['path']
    c.mark(r['path'], 'grizzly' if r['label']=='black' else 'black')
    c.apply()
    again = ImageCleaner(learn)
    same = again._rows[-1]
    assert (same['sha256'], same['path'], same['gone'], same['kind'])==(r['sha256'], r['path'], False, None) and r['path']!=was
    assert again.counts()==c.counts() and len(again.issues)==40
    c.undo()
    c.undo()
    assert was.exists()

def test_fastai_top_losses(learn):
    from fastai.interpret import Interpretation
    with learn.no_bar(), learn.no_logging(): interp = Interpretation.from_learner(learn)
    losses,idxs = interp.top_losses()
    want = [Path(learn.dls.valid_ds.items[int(i)]) for i in idxs]
    c = ImageCleaner(interp)
    assert list(c.issues.path)==want and set(c.issues.split)=={'valid'} and np.allclose(c.issues.loss, losses.numpy())
    assert np.allclose(-np.log(c.issues.p_given), c.issues.loss, atol=1e-4)
    d = ImageCleaner(learn, order=interp.top_losses())
    assert list(d.issues.path[:len(want)])==want and len(d.issues)==40
    e = ImageCleaner(list(map(str, want))[::-1], learn.dls.path, order=interp.top_losses(items=True))
    assert list(e.issues.path)==want
    with expect_fail(InputError, contains='items=True'): ImageCleaner(want, learn.dls.path, order=interp.top_losses())
