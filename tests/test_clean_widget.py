"The cleaner without a browser: values are set and buttons clicked as a page would, and what the disk says counts."
import json, os, shutil, subprocess, sys
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from bearclass.clean.widget import ImageCleaner
from bearclass.dataset import content_sha256, removed_folder

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
        rows.append(dict(
            path=paint(root/label/f'{i:03}.png', i), split='valid' if i%5==0 else 'train',
            given_label=label, predicted_label=model, p_given=p, p_predicted=max(p, 1-p),
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
    return cleaner.view

def said(view): return view.message.value
def lines(root): return [json.loads(l) for l in (root/'cleaning.jsonl').read_text(encoding='utf-8').splitlines()]
def everything(root): return sorted(
    content_sha256(f)
    for top in (root, removed_folder(root))
    for f in top.rglob('*.png'))


# ---- clicks

def test_each_click_is_in_the_journal_at_once(view, cleaner, root):
    t,rows = view.used,[o.row for o in view.used]
    for _ in range(3): t[0].keep.click()   # the same click once more is no further line
    t[1].delete.click()
    t[2].accept.click()
    t[3].other.value = third = 'teddy' if rows[3]['label']!='teddy' else 'black'
    want = ('keep', rows[0]['label']),('delete', None),('relabel', rows[2]['predicted_label']),('relabel', third)
    assert [(l['action'], l['to'], l['sha256']) for l in lines(root)]==[
        (*said, r['sha256']) for said,r in zip(want, rows)]
    assert lines(root)[2]['from']==lines(root)[2]['given_label']==rows[2]['label']
    assert cleaner.counts()==dict(n=30, undecided=26, decided=4, todo=3, keep=1, relabel=2, delete=1, gone=0, valid=0)
    assert all(o.row['path'].exists() for o in t)

def test_a_restarted_kernel_knows_it_all(view, cleaner, root, tmp_path):
    "Also with another order and another split; deciding and asking need no widgets."
    gone = view.used[0].row['sha256']
    view.used[0].delete.click()
    cleaner.issues.iloc[::-1].assign(split='valid').to_pickle(tmp_path/'issues.pkl')
    code = (
        f'import sys, pandas as pd; from bearclass.clean.widget import ImageCleaner; '
        f'c = ImageCleaner(pd.read_pickle({str(tmp_path/"issues.pkl")!r}), {str(root)!r}, page_size=30); '
        f'print(c.page.set_index("sha256").action[{gone!r}], c.counts()["decided"], "ipywidgets" in sys.modules)')
    got = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    assert got.stdout.strip()=='delete 1 False'

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
    for _ in range(3): view.next.click()
    assert len(view.used)==6 and view.next.disabled and view.grid.children==tuple(t.box for t in view.used)
    view.kind.value = 'any'
    assert 'page 1 of 2' in view.where.value and view.back.disabled
    view.sort.value = 'uncertainty'
    assert cleaner.page.p_predicted.is_monotonic_increasing
    view.split.value = 'valid'
    assert set(cleaner.page.split)=={'valid'}
    view.state.value = 'undecided'
    first = view.used[0].row['sha256']
    view.used[0].keep.click()
    assert view.used[0].row['sha256']==first                # it stays under the mouse
    view.refresh.click()
    assert first not in [t.row['sha256'] for t in view.used]

# ---- moving

def test_preview_then_apply_then_undo(view, cleaner, root):
    before = everything(root)
    view.used[0].delete.click()
    view.used[1].accept.click()
    a,b = (dict(t.row) for t in view.used[:2])
    view.look.click()
    assert 'bcc-hide' not in view.panel._dom_classes and '2 files will move' in view.plan.value
    assert view.apply.description=='Move 2 files now' and everything(root)==before and a['path'].exists()
    view.apply.click()
    assert not a['path'].exists() and not b['path'].exists() and everything(root)==before
    assert '1 file went to another class and 1 file went out of the dataset' in said(view)
    assert 'bcc-hide' in view.panel._dom_classes and view.look.disabled
    new = {t.row['sha256']: t.row for t in view.used}
    assert new[a['sha256']]['removed'] and new[b['sha256']]['label']==b['predicted_label']
    assert view.steps.options[0][0].endswith('files moved')
    view.undo.click()                                       # the apply
    assert a['path'].exists() and b['path'].exists() and cleaner.counts()['todo']==2
    while not view.undo.disabled: view.undo.click()
    assert cleaner.counts()['decided']==0 and everything(root)==before

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

def test_nothing_moves_that_was_not_shown(view, cleaner, root):
    view.used[0].delete.click()
    view.look.click()
    # another notebook, between the look and the click
    ImageCleaner(cleaner.issues, root).mark(view.used[1].row['path'], 'delete')
    view.apply.click()
    assert 'plan has changed' in said(view)
    assert '2 files will move' in view.plan.value
    assert view.used[0].row['path'].exists()
    view.used[2].delete.click()
    assert 'bcc-hide' in view.panel._dom_classes            # a new decision: look again
    view.look.click()
    view.apply.click()
    assert '3 files went out' in said(view)

def test_of_two_copies_each_row_keeps_its_own(root):
    t = table(root, 6)
    twin = Path(shutil.copy(t.path[0], root/'teddy'/'twin.png'))
    c = ImageCleaner([t.path[0], twin, *t.path[1:]], root)
    first,second = c.rows[:2]
    moved = first['path'].rename(root/'grizzly'/'moved.png')
    c.refresh()
    assert (first['path'], second['path'])==(moved, twin)
    twin.unlink()
    c.refresh()
    assert first['path']==moved and second['gone'] and not first['gone']

def test_a_picture_is_known_by_the_path_it_had(view, cleaner, root):
    old = view.used[0].row['path']
    cleaner.mark(old, 'grizzly' if old.parent.name!='grizzly' else 'teddy')
    cleaner.apply()
    cleaner.mark(old, old.parent.name)                      # it was moved since: this is a step back, and no `keep`
    assert lines(root)[-1]['action']=='relabel' and cleaner.counts()['todo']==1
    cleaner.apply()
    assert old.exists() and cleaner.counts()['todo']==0

def test_a_step_that_another_notebook_has_taken_back(view, cleaner, root):
    view.used[0].delete.click()
    ImageCleaner(cleaner.issues, root).undo()
    view.undo.click()
    assert 'Another notebook has taken back' in said(view) and cleaner.counts()['decided']==0 and view.undo.disabled

# ---- a new class

def test_a_class_that_is_none_yet(view, cleaner):
    t = view.used[0]
    t.other.value = view.labels[-1][1]
    assert t.box.children[-1] is view.ask
    view.name.value = 'panda'
    view.make.click()
    assert t.box.children[-1] is not view.ask and 'becomes a class' in said(view)
    assert t.other.value=='panda' and 'panda' in [v for _,v in view.used[3].other.options]
    cleaner.apply()
    assert cleaner.options()['label']['panda']==1

# ---- keys

def test_letters_decide_and_go_on(view, cleaner):
    view.keys.value = 'kdm3 k'                # fast fingers: several at once; the space skips one
    assert list(cleaner.page.action)==[
        'keep', 'delete', 'relabel', 'relabel' if cleaner.page.label[3]!='teddy' else 'keep', None, 'keep', None, None]
    assert view.at==6 and ['bcc-at' in t.box._dom_classes for t in view.used].index(True)==6
    view.keys.value = ''                      # emptied: nothing happens
    view.keys.value = 'u'
    assert cleaner.page.action[5] is None
    view.keys.value = 'un'
    assert 'page 2' in view.where.value and view.at==0
    view.keys.value = 'unb'                   # back over the edge: the last of the page before
    assert 'page 1' in view.where.value and view.at==7
    view.keys.value = 'unbp?%9é'
    assert 'first page' in said(view) and cleaner.counts()['decided']==4

# ---- what goes wrong

def test_what_cannot_be_written_is_said_and_not_decided(view, cleaner, root, monkeypatch):
    import bearclass.clean.decisions as D
    def refuse(*_): raise PermissionError(13, 'Permission denied', str(root/'cleaning.jsonl'))
    monkeypatch.setattr(D, 'append_lines', refuse)
    view.used[0].delete.click()
    assert 'bcc-bad' in said(view) and 'Permission denied' in said(view) and 'Traceback' not in said(view)
    assert cleaner.counts()['decided']==0 and view.used[0].delete.description=='Delete'
    monkeypatch.undo()
    view.used[0].delete.click()
    assert cleaner.counts()['decided']==1 and 'bcc-bad' not in said(view)

def test_damaged_and_unknown(tmp_path):
    root = tmp_path/'r'
    files = [paint(root/'a'/f'{i}.png', i) for i in range(3)]
    files[1].write_bytes(b'no picture')
    c = ImageCleaner([*files, root/'b'/'never.png'], root)
    c.widget
    tiles = c.view.used
    assert all('the model' not in t.pic.value and 'bcc-hide' in t.accept._dom_classes for t in tiles)
    tiles[1].delete.click()
    assert c.counts()['delete']==c.counts()['gone']==1
    assert '>gone<' in tiles[3].pic.value and all(b.disabled for b in tiles[3].choices)
    paint(files[0], 999)                      # changed since the page was drawn: nobody has decided about that
    tiles[0].delete.click()
    assert 'nothing to decide' in said(c.view) and files[0].exists() and c.counts()['decided']==1

def test_html_in_names_is_text(root):
    evil = '<img src=x onerror=alert(1)>'
    c = ImageCleaner(table(root, 4, ('a', evil)).assign(predicted_label='<script>', kind='<b>odd</b>'), root)
    c.widget
    v = c.view
    v.used[0].accept.click()                  # the model's label is no class here
    assert 'bcc-bad' in said(v)
    v.used[0].other.value = evil if v.used[0].row['label']!=evil else 'a'
    v.look.click()
    sent = ' '.join([v.head.value, v.legend.value, v.plan.value, said(v), *(t.pic.value for t in v.used)])
    assert not any(tag in sent for tag in ('<script', '<img src=x', '<b>odd'))

@pytest.mark.skipif(sys.platform in ('win32', 'darwin'), reason='names are text there')
def test_names_that_are_no_text(root):
    odd = root/os.fsdecode(b'b\xff')/os.fsdecode(b'\xfe.png')
    odd.parent.mkdir(parents=True)
    shutil.copy(paint(root/'a'/'1.png', 1), odd)
    c = ImageCleaner([paint(root/'a'/'2.png', 2), odd], root)
    c.widget
    v = c.view
    v.used[1].delete.click()
    v.look.click()
    assert c.counts()['delete']==1
    for text in v.plan.value, *(t.pic.value for t in v.used), *(o[0] for o in v.used[0].other.options): text.encode()

# ---- how much is sent

def test_a_click_sends_no_picture(view, monkeypatch):
    import ipywidgets
    sent = []
    monkeypatch.setattr(
        ipywidgets.Widget, '_send', lambda self, msg,
        buffers=None: sent.append(len(json.dumps(msg, default=str)) + sum(map(len, buffers or ()))))
    for w in view.box.children: assert w.comm is not None
    view.used[0].delete.click()
    assert 0<len(sent)<=12 and sum(sent)<5000
    sent.clear()
    view.next.click()
    assert len(sent)<10*len(view.used)

# ---- other ways in

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

def test_a_learner_from_before_the_files_moved(learn):
    c = ImageCleaner(learn)
    r = c.rows[3]
    was = r['path']
    c.mark(r['path'], 'grizzly' if r['label']=='black' else 'black')
    c.apply()
    again = ImageCleaner(learn)
    same = again.rows[-1]
    assert (same['sha256'], same['path'], same['gone'], same['kind'])==(r['sha256'], r['path'], False, None)
    assert r['path']!=was
    assert again.counts()==c.counts() and len(again.issues)==40
    c.undo()
    c.undo()
    assert was.exists()

