"The cleaning journal under hostile files, odd names, several writers, and any sequence of clicks."
import json, os, shutil, subprocess, sys, tempfile, threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bearclass.core import InputError, MissingError
from bearclass.gather.passport import datasheet
from bearclass.gather.verify import get_image_files
from bearclass.learn import decisions as d
from bearclass.learn.decisions import JOURNAL, CleaningJournal, add_decisions, check_label, read_decisions, save_decisions
from bearclass.learn.splits import content_sha256, parent_name
from bearclass.moves import append_lines

LABELS = 'black', 'grizzly', 'teddy'
plain = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fill(root, n=2):
    "A dataset of files that are called pictures: the journal asks for their content alone."
    for label in LABELS:
        (root/label).mkdir(parents=True)
        for i in range(n): (root/label/f'{i}.png').write_bytes(f'{label} {i}'.encode())
    return root


@pytest.fixture
def root(tmp_path): return fill(tmp_path/'bears')


def holds(journal): return {s: (r['action'], r['from'], r['to']) for s,r in journal.in_force().items()}


def full_row(**changed):
    row = dict(schema=1, step='0123456789ab', time='2026-01-01T00:00:00+00:00', sha256='ab'*32, action='relabel', to='teddy', given_label='black', predicted_label=None, reason='', path='black/0.png', by='')
    return {**row, 'from':'black', **changed}


class Clicks(RuleBasedStateMachine):
    "Two journals on one folder, clicked in any order, against a list of steps that is replayed from scratch."
    @initialize()
    def begin(self):
        self.tmp = Path(tempfile.mkdtemp())
        root = fill(self.tmp/'bears')
        self.files = list(get_image_files(root))
        self.sha = [content_sha256(f) for f in self.files]
        self.journals = CleaningJournal(root), CleaningJournal(root, files=self.files[:3])
        self.steps,self.torn = [],0   # [id, {picture: label or None}, undone]

    def teardown(self): shutil.rmtree(self.tmp, ignore_errors=True)

    def now(self):
        state = {}
        for _,choices,undone in self.steps:
            if not undone: state.update(choices)
        return state

    def wanted(self, i, choice): return None if choice=='delete' else parent_name(self.files[i]) if choice=='keep' else choice

    @rule(who=st.integers(0, 1), picks=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(('keep', 'delete', *LABELS)), st.booleans()), min_size=1, max_size=5))
    def mark(self, who, picks):
        step = self.journals[who].mark_many([(self.sha[i] if by_sha else self.files[i], c) for i,c,by_sha in picks])
        last = {i: self.wanted(i, c) for i,c,_ in picks}
        now = self.now()
        new = {i: v for i,v in last.items() if i not in now or now[i]!=v}
        assert bool(step)==bool(new)
        if new: self.steps.append([step, new, False])

    @rule(who=st.integers(0, 1), at=st.integers(0, 30))
    def undo(self, who, at):
        step = self.steps[at] if at<len(self.steps) else None
        left = [s for s in self.steps if not s[2]]
        if step is None and not left or step and step[2]:
            with pytest.raises(InputError): self.journals[who].undo(step and step[0])
            return
        step = step or left[-1]
        assert self.journals[who].undo(None if at>=len(self.steps) else step[0])['step']==step[0]
        step[2] = True

    @rule(text=st.sampled_from(('{"schema": 1, "st', '[1, 2]', json.dumps(full_row(to='..')), json.dumps(full_row(action='undo', undoes='0'*12)))))
    def tear(self, text):
        f = self.journals[0].path
        whole = not f.exists() or not f.stat().st_size or f.read_bytes().endswith(b'\n')
        with open(f, 'a') as out: out.write(('' if whole else '\n')+text)
        self.torn += 1

    @rule(who=st.integers(0, 1))
    def restart(self, who):
        old = self.journals[who]
        self.journals = tuple(CleaningJournal(old.root) if k==who else j for k,j in enumerate(self.journals))

    @invariant()
    def same_as_replayed(self):
        if not hasattr(self, 'journals'): return
        want = {self.sha[i]: v for i,v in self.now().items()}
        for j in (*self.journals, CleaningJournal(self.journals[0].root)):
            assert {s: r['to'] for s,r in j.in_force().items()}==want
            assert j.torn==self.torn
        assert self.journals[0].steps().undone.tolist()==[s[2] for s in self.steps]


Clicks.TestCase.settings = settings(max_examples=25, stateful_step_count=18, deadline=None)
TestClicks = Clicks.TestCase


odd_text = st.text(st.one_of(st.characters(), st.sampled_from('\0\n\r\u2028\ud83d\udc3b🐻"\\')), max_size=60)


@plain
@given(reason=odd_text, by=odd_text, predicted=odd_text)
def test_any_text_comes_back(tmp_path_factory, reason, by, predicted):
    root = fill(tmp_path_factory.mktemp('t')/'bears', 1)
    journal = CleaningJournal(root)
    journal.mark(root/'black/0.png', 'delete', reason=reason, by=by, predicted_label=predicted)
    for j in journal, CleaningJournal(root):
        r, = j.in_force().values()
        assert (r['reason'], r['by'], r['predicted_label'], j.torn)==(reason, by, predicted, 0)
    assert len(journal.table())==1 and '1 delete' in repr(journal)
    saved = save_decisions(root.parent/'x.json', journal, by=by)
    assert read_decisions(saved)[0]['reason']==reason


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | odd_text, lambda c: st.lists(c, max_size=3) | st.dictionaries(odd_text, c, max_size=3), max_leaves=6)


@plain
@given(changes=st.dictionaries(st.sampled_from([*d.FIELDS, 'undoes', 'new']), anything, min_size=1, max_size=5), action=st.sampled_from(('keep', 'delete', 'relabel', 'apply', 'undo')))
def test_wrong_types_in_any_field(tmp_path_factory, changes, action):
    "A hostile line counts in full or not at all, and never leads out of the folder."
    root = fill(tmp_path_factory.mktemp('t')/'bears', 1)
    rows = [full_row(), {**full_row(step='b'*12, action=action, to=None if action in ('delete', 'apply', 'undo') else 'black', undoes='0123456789ab'), **changes}]
    (root/JOURNAL).write_text(''.join(json.dumps(r)+'\n' for r in rows))
    journal = CleaningJournal(root)
    journal.table(), journal.steps(), repr(journal), journal.classes
    for r in journal.in_force().values():
        assert set(r)==set(d.FIELDS) and r['action'] in d.ACTIONS
        assert r['to'] is None or Path(os.path.normpath(root/r['to'])).parent==root or '\\' in r['to']
        assert all(isinstance(r[k], str) for k in ('time', 'reason', 'path', 'by'))
    journal.mark(root/'teddy/0.png', 'keep')
    assert CleaningJournal(root).in_force()[content_sha256(root/'teddy/0.png')]['to']=='teddy'
    try: read_decisions(rows)
    except InputError: pass


@plain
@given(data=st.binary(max_size=400), cut=st.integers(0, 200))
def test_any_bytes_as_a_journal(tmp_path_factory, data, cut):
    root = fill(tmp_path_factory.mktemp('t')/'bears', 1)
    (root/JOURNAL).write_bytes(data+b'\n'+json.dumps(full_row()).encode()[:cut])
    journal = CleaningJournal(root)
    assert journal.in_force()=={} and (journal.torn or not data.strip())
    assert journal.mark(root/'black/0.png', 'delete')
    assert len(CleaningJournal(root).in_force())==1   # what was torn took nothing with it
    (root.parent/'odd.json').write_bytes(data)
    with pytest.raises(InputError): read_decisions(root.parent/'odd.json')


@plain
@given(label=st.one_of(odd_text, st.sampled_from(('con', 'a/../b', '..\\x', 'C:', 'a.', '…', 'Bär', '\u202e', 'nul.txt', 'é', 'e\u0301'))))
def test_a_label_that_is_taken_is_a_folder_in_the_dataset(tmp_path_factory, label):
    root = tmp_path_factory.mktemp('t')
    try: check_label(label, [], new_class=True)
    except InputError: return
    (root/label).mkdir()
    assert [p.name for p in root.iterdir()]==[label] and (root/label).resolve().parent==root.resolve()
    (root/label/'1.png').write_bytes(b'x')
    assert len(get_image_files(root))==1 and CleaningJournal(root).classes==[label]   # and is seen again


def test_huge_lines_are_skipped(root):
    with open(root/JOURNAL, 'w') as f:
        f.write(json.dumps(full_row(reason='x'*2_000_000))+'\n')
        f.write('['*2_000_000+'\n')
        f.write(json.dumps(full_row(sha256='cd'*32))+'\n')
    assert (list(CleaningJournal(root).in_force()), CleaningJournal(root).torn)==(['cd'*32], 2)


def test_odd_names_of_files_and_folders(tmp_path):
    root = fill(tmp_path/'bears\n🐻', 1)
    names = ['new\nline.png', '🐻.png', ' space .png', "quote'\".png", 'a'*200+'.png'] + ([os.fsdecode(b'latin\xe9.png')] if os.name!='nt' else [])
    odd = root/'cl\nass'
    odd.mkdir()
    for i,n in enumerate(names): (odd/n).write_bytes(b'%d' % i)
    journal = CleaningJournal(root)
    assert journal.mark_many([(odd/n, 'grizzly') for n in names]) and journal.mark(root/'black/0.png', 'cl\nass')
    fresh = CleaningJournal(root)
    assert holds(fresh)==holds(journal) and len(fresh.table())==len(names)+1 and fresh.torn==0
    assert {r['from'] for r in fresh.in_force().values()}=={'cl\nass', 'black'}
    assert set(add_decisions(shutil.copytree(root, tmp_path/'copy', ignore=shutil.ignore_patterns(JOURNAL)), save_decisions(tmp_path/'d.json', journal)).status)=={'added'}


def test_a_class_called_delete(root):
    for name in 'keep', 'delete':
        (root/name).mkdir()
        (root/name/'1.png').write_bytes(name.encode())
    journal,f = CleaningJournal(root),root/'black/0.png'
    journal.relabel(f, 'delete')
    assert holds(journal)[content_sha256(f)]==('relabel', 'black', 'delete')
    journal.mark(f, 'delete')
    assert holds(journal)[content_sha256(f)]==('delete', 'delete', None)
    journal.relabel(f, 'keep')
    assert holds(journal)[content_sha256(f)]==('relabel', 'delete', 'keep')
    copy = shutil.copytree(root, root.parent/'copy', ignore=shutil.ignore_patterns(JOURNAL))
    add_decisions(copy, journal)
    assert holds(CleaningJournal(copy))[content_sha256(f)][2]=='keep'


def test_a_decision_follows_the_content(root):
    journal,f = CleaningJournal(root),root/'black/0.png'
    sha = journal.sha_of(f)
    journal.mark(f, 'teddy')
    journal.table()           # now it has seen where all pictures lie
    shutil.copy(f, root/'grizzly/copy.png')
    f.rename(root/'black/renamed.png')
    assert journal.where(sha)==[root/'black/renamed.png', root/'grizzly/copy.png']
    (root/'black').rename(root/'noir')                                             # a class renamed by hand
    assert journal.where(sha)==[root/'grizzly/copy.png', root/'noir/renamed.png'] and 'noir' in journal.classes
    assert journal.mark(sha, 'teddy') is None
    removed = root.with_name('bears_removed')/'black'
    removed.mkdir(parents=True)
    (root/'noir/renamed.png').rename(removed/'0.png')
    (root/'grizzly/copy.png').unlink()
    assert journal.where(sha)==[removed/'0.png'] and journal.table().state[0]=='to do'
    assert journal.mark(removed/'0.png', 'keep') and holds(journal)[sha]==('keep', 'black', 'black')
    (removed/'0.png').unlink()
    assert journal.table().state[0]=='gone' and journal.table().paths[0]==[]
    assert journal.mark(sha, 'delete')                                             # gone, and yet it was a picture of this dataset
    assert journal.mark(removed/'0.png', 'keep')                                   # also by the path where it was seen
    with pytest.raises(MissingError): CleaningJournal(root).mark(removed/'0.png', 'keep')


def test_links(root):
    if os.name=='nt': pytest.skip('links need rights on Windows')
    (root/'teddy/link.png').symlink_to(root/'black/0.png')
    (root/'teddy/broken.png').symlink_to(root/'none.png')
    (root/'teddy/loop.png').symlink_to(root/'teddy/loop.png')
    (root/'teddy/folder').symlink_to(root, target_is_directory=True)
    journal = CleaningJournal(root)
    assert journal.where(content_sha256(root/'black/0.png'))==[root/'black/0.png', root/'teddy/link.png']
    assert journal.classes==sorted(LABELS)
    with pytest.raises(MissingError): journal.mark(root/'teddy/broken.png', 'delete')
    outside = root.parent/'outside.jsonl'
    outside.write_text('')
    (root/JOURNAL).symlink_to(outside)
    with pytest.raises(InputError, match='no ordinary file'): CleaningJournal(root)


def test_a_journal_from_another_dataset(root, tmp_path):
    CleaningJournal(root).mark_many([(f, 'delete') for f in get_image_files(root)])
    other = tmp_path/'cats'
    (other/'tabby').mkdir(parents=True)
    (other/'tabby/1.png').write_bytes(b'cat')
    with pytest.raises(InputError, match="not in 'cats'"): add_decisions(other, root)
    assert not (other/JOURNAL).exists()
    shutil.copy(root/JOURNAL, other/JOURNAL)                                       # carried there by hand
    journal = CleaningJournal(other)
    assert set(journal.table().state)=={'gone'} and journal.torn==0
    assert journal.mark(other/'tabby/1.png', 'keep') and journal.table().state.tolist()[-1]=='done'


def test_a_journal_that_is_cut_replaced_or_removed(root):
    journal,files = CleaningJournal(root),get_image_files(root)
    for f in files: journal.mark(f, 'delete')
    whole = (root/JOURNAL).read_bytes()
    other = CleaningJournal(root)
    lines = whole.splitlines(keepends=True)
    for data in b''.join(lines[:2]), whole, b''.join(lines[3:])+b'\n'*500, whole[:-20], b'', whole:
        (root/JOURNAL).write_bytes(data)
        assert journal.in_force()==CleaningJournal(root).in_force()
        (root/'new').write_bytes(data)                                            # as a restored backup: another file under the name
        os.replace(root/'new', root/JOURNAL)
        assert journal.in_force()==CleaningJournal(root).in_force()==other.in_force()
    (root/JOURNAL).unlink()
    assert journal.in_force()=={} and journal.mark(files[0], 'delete')


def test_nothing_that_cannot_be_written_is_decided(root, monkeypatch):
    journal,(a,b,*_) = CleaningJournal(root),get_image_files(root)
    journal.mark(a, 'delete')
    real = os.write

    def disk_full(fd, data):
        if fd>2: raise OSError(28, 'No space left on device')
        return real(fd, data)
    monkeypatch.setattr(os, 'write', disk_full)
    with pytest.raises(InputError, match='No space left'): journal.mark(b, 'delete')
    with pytest.raises(InputError, match='No space left'): journal.undo()
    monkeypatch.undo()
    assert len(journal.in_force())==1 and holds(journal)==holds(CleaningJournal(root))
    assert journal.mark(b, 'delete')


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid()==0, reason='root may write anywhere')
def test_read_only_folder(root):
    journal = CleaningJournal(root)
    root.chmod(0o555)
    try:
        with pytest.raises(InputError, match='cannot be written'): journal.mark(root/'black/0.png', 'delete')
    finally: root.chmod(0o755)
    assert journal.in_force()=={}


def test_one_bulk_click_is_one_write_and_reads_nothing_twice(root, monkeypatch):
    journal,files = CleaningJournal(root),list(get_image_files(root))
    journal.where(content_sha256(files[0]))
    writes,reads = [],[]
    real_write,real_sha = os.write,d.content_sha256
    monkeypatch.setattr(os, 'write', lambda fd,data: writes.append(bytes(data)) or real_write(fd, data))
    monkeypatch.setattr('bearclass.learn.splits.file_sha256', lambda f: reads.append(f) or real_sha(f))
    journal.mark_many([(f, 'delete') for f in files])
    assert len([w for w in writes if b'schema' in w])==1 and not reads
    for f in files: journal.where(real_sha(f))
    assert not reads


writer = '''
import sys
from bearclass.learn.decisions import CleaningJournal
from bearclass.gather.verify import get_image_files
root,k = sys.argv[1],int(sys.argv[2])
journal,files = CleaningJournal(root),list(get_image_files(root))
for i in range(40): journal.mark_many([(f, ('black', 'grizzly', 'teddy', 'delete')[(i+j+k)%4]) for j,f in enumerate(files)], reason='r'*1500, by=str(k))
'''


def test_two_notebooks_at_once(root):
    "No line is broken by another's, and each sees the other's."
    mine = CleaningJournal(root)
    runs = [subprocess.Popen([sys.executable, '-c', writer, str(root), str(k)]) for k in (1, 2)]
    assert [p.wait() for p in runs]==[0, 0]
    assert mine.torn==0 and holds(mine)==holds(CleaningJournal(root))
    assert {r['by'] for s in mine._past.steps.values() for r in s['rows']}=={'1', '2'}
    assert len(set(mine.steps().step))==len(mine.steps())


def test_threads_of_one_notebook(root):
    journal,files = CleaningJournal(root),list(get_image_files(root))
    threads = [threading.Thread(target=lambda f=f: [journal.mark(f, c) for c in ('delete', 'keep')*5]) for f in files]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(journal.steps())==10*len(files) and journal.torn==0 and {r['action'] for r in journal.in_force().values()}=={'keep'}


def test_the_datasheet_counts_what_holds(root):
    "Two pictures deleted, one of them kept after all, one step taken back, one run applied."
    journal,files = CleaningJournal(root),get_image_files(root)
    journal.mark_many([(f, 'delete') for f in files[:2]])
    journal.mark(files[0], 'keep')
    journal.mark(files[3], 'teddy')
    journal.mark(files[4], 'delete')
    journal.undo()
    append_lines(journal.path, [full_row(action='apply', sha256=None, to=None, step='c'*12)])
    assert journal.torn==0 and 'Decisions in cleaning.jsonl: delete 1, keep 1, relabel 1.' in datasheet(root).read_text()


def test_the_same_by_page_and_by_hand(root, tmp_path):
    "A decisions file, a table and clicks mean the same."
    journal,files = CleaningJournal(root),get_image_files(root)
    for f,c in zip(files, ('teddy', 'delete', 'keep', 'black', 'delete')): journal.mark(f, c, predicted_label='teddy', reason='why', by='Ada')
    sources = [save_decisions(tmp_path/'d.json', journal, 'bears', 'Ada'), journal, root, root/JOURNAL, journal.table(), read_decisions(root)]
    for k,s in enumerate(sources):
        copy = shutil.copytree(root, tmp_path/f'copy{k}', ignore=shutil.ignore_patterns(JOURNAL))
        assert set(add_decisions(copy, s).status)=={'added'}
        got,want = CleaningJournal(copy).in_force(),journal.in_force()
        keys = 'action from to given_label predicted_label reason by'.split()
        assert {s: [r[k] for k in keys] for s,r in got.items()}=={s: [r[k] for k in keys] for s,r in want.items()}


def test_apply_and_the_table_agree(root):
    "What the journal calls done is what the mover calls done."
    apply = pytest.importorskip('bearclass.learn.apply')
    journal,files = CleaningJournal(root),get_image_files(root)
    shutil.copy(files[0], root/'teddy/copy.png')
    before = {f: f.read_bytes() for f in get_image_files(root)}
    for f,c in zip(files, ('grizzly', 'delete', 'keep', 'teddy')): journal.mark(f, c)
    assert journal.table().state.tolist()==['to do', 'to do', 'done', 'to do']
    step = apply.apply_decisions(root)
    assert set(step.status)<={'moved', 'done'} and set(journal.table().state)=={'done'}
    assert set(apply.plan_decisions(root).status)<={'done'}
    assert journal.mark(files[5], 'delete')                                        # the run is no obstacle to going on
    for _ in range(6): apply.undo_decision(root)
    assert {f: f.read_bytes() for f in get_image_files(root)}==before and journal.in_force()=={}


def test_a_journal_with_a_copy_of_itself_behind_it(root):
    "Two machines, one file after the other: what both have counts once, where it stood first."
    journal,f = CleaningJournal(root),root/'black/0.png'
    journal.mark(f, 'delete')
    old = (root/JOURNAL).read_bytes()
    journal.mark(f, 'keep')
    (root/JOURNAL).write_bytes((root/JOURNAL).read_bytes()+old)
    for j in journal, CleaningJournal(root): assert [r['action'] for r in j.in_force().values()]==['keep'] and j.steps().n.tolist()==[1, 1]
    assert [r['action'] for r in journal.history()[content_sha256(f)]]==['delete', 'keep']


def test_a_journal_saved_by_an_editor(root):
    "With a mark at its beginning, other line ends; and a label changed in place."
    journal = CleaningJournal(root)
    journal.mark(root/'black/0.png', 'teddy')
    data = (root/JOURNAL).read_bytes()
    with open(root/JOURNAL, 'r+b') as f: f.write(data.replace(b'"to": "teddy"', b'"to": "black"'))
    os.utime(root/JOURNAL, ns=(10**18, 10**18))
    assert [r['to'] for r in journal.in_force().values()]==['black']
    (root/JOURNAL).write_bytes(b'\xef\xbb\xbf'+data.replace(b'\n', b'\r\n'))
    assert (len(journal.in_force()), journal.torn)==(1, 0)


def test_a_picture_written_over_in_place(root):
    journal,f = CleaningJournal(root),root/'black/0.png'
    journal.table()
    for folder in (*(root/c for c in LABELS), root): os.utime(folder, ns=(10**18, 10**18))
    journal.where('ab'*32)                                                          # looked, and nothing changes any more
    f.write_bytes(b'cropped in place')
    CleaningJournal(root).mark(f, 'delete')
    assert journal.table().state.tolist()==['to do'] and journal.table().paths[0]==[f]


def test_what_a_status_says(root):
    "A class that is there is not said to be missing; what is no picture is not entered; a picture in two classes may be kept."
    shutil.copy(root/'black/0.png', root/'teddy/copy.png')
    journal,sha = CleaningJournal(root),content_sha256(root/'black/0.png')
    assert add_decisions(root, [dict(sha256=sha, action='relabel', to='teddy', reason='x'*3000)]).status[0].startswith('refused: reason of 3,000')
    (root/'black/notes.txt').write_text('mine')
    with pytest.raises(InputError, match='no picture, by its name'): journal.mark(root/'black/notes.txt', 'delete')
    with pytest.raises(MissingError): journal.mark('x'*400+'.png', 'delete')
    with pytest.raises(InputError, match='no step'): journal.undo(['0'*12])
    journal.mark(root/'black/0.png', 'keep')
    assert journal.table().state.tolist()==['done']


def test_tables_with_odd_cells(root):
    import numpy as np, pandas as pd
    row = dict(sha256=content_sha256(root/'black/0.png'), action='delete', to=None, box=np.zeros(4), paths=['a', 'b'])
    assert len(read_decisions(pd.DataFrame([row])))==1
    assert len(read_decisions(pd.DataFrame({k: pd.array([row[k]], dtype='string') for k in ('sha256', 'action', 'to')})))==1


def test_an_old_path_after_the_file_has_moved(root):
    from bearclass.learn.apply import apply_decisions
    journal,f = CleaningJournal(root),root/'black/0.png'
    journal.mark(f, 'teddy')
    journal.table()           # now it has seen where all pictures lie
    apply_decisions(root)
    assert not f.exists()
    journal.mark(f, 'keep')   # as from a list that was made before
    assert journal.in_force()[journal.sha_of(f)]['to']=='teddy'
