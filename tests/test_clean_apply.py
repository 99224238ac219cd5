"Moving pictures as decided: a crash at every file system call, hostile names and journals, full disks, two processes."
import os, random, shutil, subprocess, sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from conftest import Crash, crashes, crashing, here_env, no_links

from bearclass import moves
from bearclass.core import InputError
from bearclass.dataset import get_image_files, removed_folder, content_sha256
from bearclass.clean.apply import (
    MOVES, apply_decisions, bring_back, plan_decisions, read_removed, show_removed, undo_decision)
from bearclass.clean.decisions import JOURNAL, CleaningJournal
from bearclass.moves import append_lines, read_moves


@pytest.fixture(autouse=True)
# crashes are played, not real: nobody has to wait for the disk
def no_waiting(monkeypatch): monkeypatch.setattr(os, 'fsync', lambda fd: None)


def put(root, rel, text):
    f = root/rel
    f.parent.mkdir(parents=True, exist_ok=True)
    f.write_bytes(text.encode())
    return f

def dataset(root):
    "Three classes; a picture in two of them, and a name that is taken."
    for c in ('black', 'grizzly', 'teddy'):
        for k in range(2): put(root, f'{c}/{c}{k}.jpg', f'{c} {k}')
    put(root, 'black/twin.jpg', 'twin'), put(root, 'grizzly/twin.jpg', 'twin')
    put(root, 'black/same.jpg', 'one'), put(root, 'grizzly/same.jpg', 'another')
    for i, f in enumerate(get_image_files(root)): os.utime(f, ns=(10**18+i, 10**18+i))
    return root

def decide(root):
    "One of each kind."
    j = CleaningJournal(root)
    j.mark(root/'black/black0.jpg', 'delete')
    j.mark(root/'teddy/teddy0.jpg', 'polar', new_class=True)
    return j.mark_many(
        [(root/'black/twin.jpg', 'grizzly'), (root/'black/same.jpg', 'grizzly'), (root/'teddy/teddy1.jpg', 'keep')])

def tree(root):
    "{path: (content, time)} of the pictures below a folder."
    return {
        f.relative_to(root).as_posix(): (f.read_bytes(), f.stat().st_mtime_ns)
        for f in sorted(root.rglob('*')) if f.is_file() and f.suffix=='.jpg'} if root.is_dir() else {}

def both(root): return sorted([*tree(root).values(), *tree(removed_folder(root)).values()])

AFTER = {
    'grizzly/same-1.jpg':'one', 'grizzly/same.jpg':'another', 'grizzly/twin.jpg':'twin',
    'polar/teddy0.jpg':'teddy 0', 'teddy/teddy1.jpg':'teddy 1',
    'black/black1.jpg':'black 1', 'grizzly/grizzly0.jpg':'grizzly 0', 'grizzly/grizzly1.jpg':'grizzly 1'}

def is_applied(root):
    assert {n: d.decode() for n, (d, _) in tree(root).items()}==AFTER
    assert {n: d.decode() for n, (d, _) in tree(removed_folder(root)).items()}=={
        'black/black0.jpg':'black 0',
        'black/twin.jpg':'twin'}
    assert set(plan_decisions(root).status)=={'done'}


# --- crashes ---------------------------------------------------------------------------------------------------------

def nothing_lost(root, before):
    "Every content is there under a picture's name, whole; no picture's name holds anything else."
    there = {d for d, _ in both(root)}
    assert there=={d for d, _ in before.values()}

crash_everywhere = partial(crashes, made=dataset, tree=tree, whole=nothing_lost)

@pytest.mark.parametrize('links', (True, False))
def test_a_crash_anywhere_while_applying(tmp_path, monkeypatch, links):
    if not links: monkeypatch.setattr(os, 'link', no_links)
    def finished(root, before):
        is_applied(root)
        # a run that was cut off and its end are one step
        assert CleaningJournal(root).steps().action.tolist().count('apply')==1
        undo_decision(root)
        assert tree(root)==before and not removed_folder(root).exists() and not (root/'polar').exists()
    n = crash_everywhere(tmp_path, monkeypatch, decide, lambda root, _: apply_decisions(root), finished)
    assert n>50

@pytest.mark.parametrize('links', (True, False))
def test_a_crash_anywhere_while_undoing_a_run(tmp_path, monkeypatch, links):
    def prepare(root):
        decide(root)
        step = apply_decisions(root).attrs['step']
        if not links: monkeypatch.setattr(os, 'link', no_links)
        return step
    def act(root, step):
        # was cut off after its end
        if CleaningJournal(root).steps().set_index('step').undone[step] and not any(
            m['state'] in ('undo', 'moved')
            for m in read_moves(root/MOVES).values()):
            return
        assert set(undo_decision(root, step).status)<={'back'}
    def finished(root, before):
        assert tree(root)==before and tree(removed_folder(root))=={}
        assert Counter(plan_decisions(root).status)=={'will move':4, 'done':2}   # the decisions hold
    assert crash_everywhere(tmp_path, monkeypatch, prepare, act, finished)>40

def test_a_crash_anywhere_while_undoing_decisions(tmp_path, monkeypatch):
    "The last step, without its name: the next call finishes it, and takes nothing else back."
    def prepare(root):
        decide(root)
        apply_decisions(root)
        CleaningJournal(root).mark(root/'grizzly/grizzly0.jpg', 'black')
        apply_decisions(root)
        return CleaningJournal(root).mark_many(
            [(root/'grizzly/grizzly1.jpg', 'delete'), (root/'teddy/teddy1.jpg', 'delete')])
    def act(root, step):
        steps = CleaningJournal(root).steps()
        if steps.undone.any() and all(m['state']!='undo' for m in read_moves(root/MOVES).values()): return
        undo_decision(root)
    def finished(root, before): assert CleaningJournal(root).steps().undone.tolist()==[False]*6+[True]
    assert crash_everywhere(tmp_path, monkeypatch, prepare, act, finished)>3

def test_a_crash_anywhere_while_bringing_back(tmp_path, monkeypatch):
    def prepare(root):
        decide(root)
        apply_decisions(root)
    def act(root, _):
        bring_back(root)
        apply_decisions(root)   # what was cut off between decision and move
    def finished(root, before):
        assert 'black/black0.jpg' in tree(root) and len(read_removed(root))<=1
        assert set(plan_decisions(root).status)=={'done'}
    assert crash_everywhere(tmp_path, monkeypatch, prepare, act, finished)>20

def test_a_crash_while_a_finished_run_is_resumed(tmp_path, monkeypatch):
    "Crashes in a row: the run that finishes a crashed one crashes as well."
    for first in range(8, 56, 12):
        for second in range(0, 30, 10):
            root = dataset(tmp_path/f'{first}-{second}/bears')
            before = tree(root)
            decide(root)
            for at in (first, second):
                with monkeypatch.context() as m:
                    crashing(m, at)
                    try: apply_decisions(root)
                    except Crash: pass
                    else: assert at==second   # little was left to do
                nothing_lost(root, before)
            apply_decisions(root)
            is_applied(root)
            undo_decision(root)
            assert tree(root)==before


@pytest.mark.parametrize('seed', range(15))
def test_any_order_of_calls_comes_back(tmp_path, seed):
    "Random clicks, runs, undos, returns: no content or time is ever lost; with every step taken back all is as it was."
    rng, root = random.Random(seed), dataset(tmp_path/'bears')
    before, whole, j = tree(root), both(root), CleaningJournal(root)
    def files(): return [top/rel for top in (root, removed_folder(root)) for rel in tree(top)]
    for _ in range(rng.randrange(4, 14)):
        op = rng.choice(['mark']*3+['apply', 'apply', 'undo', 'undo one', 'bring back'])
        standing = j.steps().step[~j.steps().undone].tolist()
        if op=='mark':
            labels = 'keep delete black grizzly teddy polar'.split()
            j.mark_many([(f, rng.choice(labels)) for f in rng.sample(files(), rng.choice((1, 3)))], new_class=True)
        if op=='apply':
            assert set(apply_decisions(root).status)<={'moved', 'done'}
            assert set(apply_decisions(root).status)<={'done'}
        if op.startswith('undo') and standing:
            got = undo_decision(root, rng.choice(standing) if op=='undo one' else None)
            assert set(got.status)<={'back', 'taken back'}
        if op=='bring back' and len(there := read_removed(root).to.tolist()):
            got = bring_back(root, rng.choice((None, rng.choice(there))))
            assert all(s=='back' or 'a copy of' in s for s in got.status)
        assert both(root)==whole
    while not j.steps().undone.all(): undo_decision(root)
    assert tree(root)==before and not removed_folder(root).exists()


# --- disks and rights ------------------------------------------------------------------------------------------------

def test_a_full_disk_anywhere(tmp_path, monkeypatch):
    "No room at the n-th call: either a clear error or a row that says so; the next run ends it."
    for n in range(200):
        root = dataset(tmp_path/f'{n}/bears')
        before = tree(root)
        decide(root)
        count = [0]
        with monkeypatch.context() as m:
            for name in ('link', 'mkdir', 'fsync', 'write'):
                def full(*a, real=getattr(os, name), **kw):
                    count[0] += 1
                    if count[0]>n: raise OSError(28, 'No space left on device')
                    return real(*a, **kw)
                m.setattr(os, name, full)
            try: got = apply_decisions(root)
            except InputError as e: assert 'cannot be written' in str(e) and 'No space left' in str(e)
            else: assert set(got.status) <= {'moved', 'done', 'failed: No space left on device'}
        nothing_lost(root, before)
        apply_decisions(root)
        is_applied(root)
        if count[0]<=n: break
    assert 10<n<199

def test_a_read_only_folder(tmp_path, monkeypatch):
    "Its files stay, the others move, and no name is there twice."
    root = dataset(tmp_path/'bears')
    before = tree(root)
    decide(root)
    real = os.unlink
    def refused(path, **kw):
        if str(path).startswith(str(root/'black')): raise PermissionError(13, 'Permission denied')
        return real(path, **kw)
    monkeypatch.setattr(os, 'unlink', refused)
    got = apply_decisions(root)
    assert Counter(got.status)=={'failed: Permission denied':3, 'moved':1, 'done':2}
    assert tree(root)=={
        **{k: v for k, v in before.items() if k!='teddy/teddy0.jpg'},
        'polar/teddy0.jpg':before['teddy/teddy0.jpg']}
    assert not tree(removed_folder(root))
    monkeypatch.undo()
    apply_decisions(root)
    is_applied(root)

# --- files that are not as they were ---------------------------------------------------------------------------------

def test_changed_between_plan_and_move(tmp_path, monkeypatch):
    "Same length, same time: only its content tells."
    root = dataset(tmp_path/'bears')
    f = root/'black/black0.jpg'
    CleaningJournal(root).mark(f, 'delete')
    plan_decisions(root)
    t = f.stat().st_mtime_ns
    f.write_bytes(b'BLACK 0')
    os.utime(f, ns=(t, t))
    assert apply_decisions(root).status.tolist()==['failed: it has changed since']
    assert f.read_bytes()==b'BLACK 0'

def test_a_run_in_the_middle_is_taken_back(tmp_path):
    "Its file comes home, although a later run has moved it further; the later decision still holds."
    root = dataset(tmp_path/'bears')
    before = tree(root)
    j = CleaningJournal(root)
    sha = j.sha_of(root/'black/black0.jpg')
    j.mark(sha, 'grizzly')
    first = apply_decisions(root).attrs['step']
    j.mark(sha, 'teddy')
    apply_decisions(root)
    assert set(undo_decision(root, first).status)=={'back'} and tree(root)==before
    assert apply_decisions(root).to.tolist()==[root/'teddy/black0.jpg']

# --- what strangers may send -----------------------------------------------------------------------------------------

def line(sha, to, step='0123456789ab', **more):
    return dict(
        dict(
            schema=1, step=step, time='2026-01-01T00:00:00+00:00', sha256=sha, action='relabel' if to else 'delete',
            **{'from':'black'}, to=to, given_label=None, predicted_label=None, reason='',
            path='black/black0.jpg', by=''),
        **more)

HOSTILE = [
    '..', '.', '', '../up', '/etc', 'a/b', 'a\\b', 'C:', 'nul', 'CON', 'com1.txt', 'bear.', 'bear ', ' bear', '.hidden',
    'a\0b', 'two\nlines', 'x'*300, '\ud800', 'Teddy']

@pytest.mark.parametrize('label', HOSTILE)
def test_a_label_that_would_escape(tmp_path, label):
    "Straight into the journal, past every check of marking: the file stays where it is, the folder above as it was."
    root = dataset(tmp_path/'bears')
    before, around = tree(root), sorted(os.listdir(tmp_path))
    with pytest.raises(InputError): CleaningJournal(root).mark(root/'black/black0.jpg', label, new_class=True)
    append_lines(root/JOURNAL, [line(content_sha256(root/'black/black0.jpg'), label, path=f'../{label}/x.jpg')])
    got = apply_decisions(root)
    assert tree(root)==before and sorted(os.listdir(tmp_path))==around
    assert not len(got) or got.status[0].startswith('failed: ')

NAMES = [
    'a'*251+'.jpg', 'two\nlines.jpg', 'bär 🐻.jpg', "it's \"quoted\".jpg", ' leading.jpg', '-rf.jpg', '%s{0}.jpg',
    '\u202egpj.jpg', 'a;b$(c).jpg']

@pytest.mark.skipif(os.name=='nt', reason='these names cannot be there')
def test_names_of_every_kind(tmp_path):
    "One that is too long for a number beside it is cut; none can be read as a picture, and all are shown."
    root = tmp_path/'bears'
    names = NAMES+[os.fsdecode(b'no text \xff\xfe.jpg')]
    for i, n in enumerate(names): put(root, f'black/{n}', f'picture {i}')
    put(root, f'teddy/{NAMES[0]}', 'taken')
    before = tree(root)
    CleaningJournal(root).mark_many(
        [(f, 'delete' if i%2 else 'teddy') for i, f in enumerate(get_image_files(root/'black'))])
    assert apply_decisions(root).status.tolist()==['moved']*len(names)
    assert {Path(p).name for p in [*tree(root), *tree(removed_folder(root))]}=={*names, 'a'*249+'-1.jpg'}
    assert len(read_removed(root))==len(show_removed(root))==len(names)//2
    undo_decision(root)
    assert tree(root)==before

def test_journals_from_elsewhere(tmp_path):
    "Torn, of another dataset, with moves that lead out: what is wrong is passed over, what is right is done."
    root = dataset(tmp_path/'bears')
    outside = put(tmp_path, 'mine.jpg', 'dear to me')
    decide(root)
    with open(root/JOURNAL, 'a') as f: f.write('{"schema": 1, "step": "aaaa')
    append_lines(root/JOURNAL, [line('ab'*32, 'teddy', step='ba'*6)])
    sha = content_sha256(outside)
    wrong = [
        ('../mine.jpg', 'black/x.jpg', 'dataset', 'dataset'),
        (str(outside), 'x.jpg', 'dataset', 'removed'),
        ('a.jpg', '../../x.jpg', 'dataset', 'dataset'),
        ('a.jpg', 'b.jpg', 'up', 'removed'),
        ('cleaning.jsonl', 'x.jpg', 'dataset', 'dataset'),
        ('a\0.jpg', 'b.jpg', 'dataset', 'removed')]
    hostile = [
        dict(id=i, action='move', sha256=sha, **{'from':f, 'to':t}, out_of=o, into=n)
        for i, (f, t, o, n) in enumerate(wrong)]
    append_lines(root/MOVES, hostile+[dict(id='q', action='undo'), dict(id={}, action='moved'), dict(action='move')])
    with open(root/MOVES, 'ab') as f: f.write(b'\xff\xfe{"id": 1\n' + b'['*10000)
    plan = plan_decisions(root)
    assert '1 line of cleaning.jsonl could not be read, and was passed over.' in plan.attrs['warnings']
    assert '1 decision is about pictures that are not here.' in plan.attrs['warnings']
    apply_decisions(root)
    assert {n: d.decode() for n, (d, _) in tree(root).items()}==AFTER and outside.read_bytes()==b'dear to me'
    assert set(os.listdir(tmp_path))=={'bears', 'bears_removed', 'mine.jpg'}

def test_symlinks_are_refused(tmp_path):
    root = dataset(tmp_path/'bears')
    outside = put(tmp_path, 'mine/mine.jpg', 'dear to me')
    try: (root/'black/link.jpg').symlink_to(outside)
    except OSError: pytest.skip('no symlinks here')
    (root/'polar').symlink_to(outside.parent)
    j = CleaningJournal(root)
    j.mark(root/'black/link.jpg', 'delete')
    append_lines(root/JOURNAL, [line(content_sha256(root/'black/black0.jpg'), 'polar')])
    assert apply_decisions(root).status.tolist()==['failed: a symlink', "failed: the folder 'polar' is a symlink"]
    assert (root/'black/link.jpg').is_symlink()
    assert os.listdir(outside.parent)==['mine.jpg']
    assert (root/'black/black0.jpg').exists()
    removed_folder(root).symlink_to(outside.parent)
    j.mark(root/'teddy/teddy0.jpg', 'delete')
    assert 'failed: the folder of removed pictures is a symlink' in apply_decisions(root).status.tolist()
    assert len(read_removed(root))==0
    assert os.listdir(outside.parent)==['mine.jpg']
    alias = tmp_path/'alias'
    alias.symlink_to(root)
    for f in plan_decisions, apply_decisions, undo_decision, bring_back, read_removed:
        with pytest.raises(InputError, match='symlink'): f(alias)
    (root/MOVES).symlink_to(tmp_path/'elsewhere')
    j.mark(root/'teddy/teddy1.jpg', 'grizzly')
    with pytest.raises(InputError, match='is a symlink'): apply_decisions(root)
    assert not (tmp_path/'elsewhere').exists() and (root/'teddy/teddy1.jpg').exists()

def test_a_link_to_a_picture_of_the_dataset_is_no_copy(tmp_path):
    "The link already has the right class, but the file behind it is the one that counts."
    root = dataset(tmp_path/'bears')
    try: (root/'teddy/link.jpg').symlink_to(root/'black/black0.jpg')
    except OSError: pytest.skip('no symlinks here')
    append_lines(root/JOURNAL, [line(content_sha256(root/'black/black0.jpg'), 'teddy')])
    assert sorted(apply_decisions(root).status)==['failed: a symlink', 'moved']
    assert (root/'teddy/black0.jpg').read_bytes()==b'black 0' and not removed_folder(root).exists()

def test_the_journals_only_grow_and_speak_first(tmp_path, monkeypatch):
    root = dataset(tmp_path/'bears')
    decide(root)
    seen, real = [], os.link
    def looking(src, dst):
        seen.append(((root/JOURNAL).read_bytes(), (root/MOVES).read_bytes()))
        return real(src, dst)
    monkeypatch.setattr(os, 'link', looking)
    apply_decisions(root)
    undo_decision(root)
    end = (root/JOURNAL).read_bytes(), (root/MOVES).read_bytes()
    assert len(seen)==8 and all(e.startswith(s) for now in seen for s, e in zip(now, end))
    assert all(b'"apply"' in d and m.count(b'"move"')==4 for d, m in seen)   # the run, and each of its moves
    assert [b'"undo"' in d and b'"undo"' in m for d, m in seen]==[False]*4+[True]*4


# --- two at once -----------------------------------------------------------------------------------------------------

WORKER = '''
import sys, time
from pathlib import Path
from bearclass.clean.apply import apply_decisions, undo_decision
root,go,turns = Path(sys.argv[1]),Path(sys.argv[2]),int(sys.argv[3])
print('up', flush=True)
while not go.exists(): time.sleep(.001)
for i in range(turns):
    apply_decisions(root)
    if turns>1: undo_decision(root)
'''

@pytest.mark.parametrize('turns', (1, 4))
def test_two_processes_at_once(tmp_path, turns):
    root = tmp_path/'bears'
    for c in ('black', 'teddy'):
        for k in range(60): put(root, f'{c}/{c}{k}.jpg', f'{c} {k}')
    before = tree(root)
    CleaningJournal(root).mark_many(
        [(f, 'delete' if i%3 else 'teddy') for i, f in enumerate(get_image_files(root/'black'))])
    both_at = [
        subprocess.Popen(
            [sys.executable, '-c', WORKER, root, tmp_path/'go', str(turns)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=here_env())
        for _ in range(2)]
    for p in both_at: assert p.stdout.readline()=='up\n'
    (tmp_path/'go').touch()
    said = [p.communicate(timeout=120)[1] for p in both_at]
    assert both(root)==sorted(before.values())
    if turns>1: return   # undoing each other's steps may find nothing left to take back
    assert [p.returncode for p in both_at]==[0, 0], said
    assert set(plan_decisions(root).status)=={'done'} and len(tree(root))==80
    assert {m['state'] for m in read_moves(root/MOVES).values()}=={'moved'}
    assert CleaningJournal(root).steps().action.tolist().count('apply')==1   # who came second found nothing to do
    undo_decision(root)
    assert tree(root)==before

def test_without_locks_nothing_is_lost_either(tmp_path, monkeypatch):
    "A disk that knows no locks: the other one moves in between, at every moment."
    import fcntl
    monkeypatch.setattr(fcntl, 'flock', lambda *a: (_ for _ in ()).throw(OSError(38, 'Function not implemented')))
    for at in range(60):
        root = dataset(tmp_path/f'{at}/bears')
        before = tree(root)
        decide(root)
        count, busy = [0], [False]
        with monkeypatch.context() as m:
            for name in ('link', 'unlink', 'fsync', 'write', 'mkdir'):
                def call(*a, real=getattr(os, name), **kw):
                    count[0] += not busy[0]
                    if count[0]==at and not busy[0]:
                        busy[0] = True
                        apply_decisions(root)
                        busy[0] = False
                    return real(*a, **kw)
                m.setattr(os, name, call)
            apply_decisions(root)
        nothing_lost(root, before)
        apply_decisions(root)
        nothing_lost(root, before)
        shutil.rmtree(tmp_path/str(at))
        if count[0]<at: break
    assert 10<at<59

# --- beside the other rooms ------------------------------------------------------------------------------------------

def test_what_was_removed_can_be_forgotten(tmp_path):
    "`forget` reaches the removed ones too; afterwards nothing comes back, and nothing complains."
    from bearclass.gather.forget import forget
    root = dataset(tmp_path/'bears')
    j = CleaningJournal(root)
    sha = j.sha_of(root/'black/black0.jpg')
    j.mark_many([(sha, 'delete'), (root/'teddy/teddy0.jpg', 'delete')])
    apply_decisions(root)
    forget(root, sha)
    assert b'black 0' not in [d for d, _ in both(root)] and len(read_removed(root))==1
    assert sorted(apply_decisions(root).status)==['done', 'gone']
    assert sorted(undo_decision(root).status)==['back', 'failed: it is gone']

# --- what an attack has found ----------------------------------------------------------------------------------------

def test_pictures_in_no_class_folder(tmp_path):
    "Out, kept after all, out, relabelled, and back: never into a folder called `bears_removed`."
    root = dataset(tmp_path/'bears')
    f = put(root, 'loose.jpg', 'loose')
    before, j = tree(root), CleaningJournal(root)
    sha = j.sha_of(f)
    for how in 'keep', 'bring back', 'teddy':
        j.mark(sha, 'delete')
        apply_decisions(root)
        assert read_removed(root).label.tolist()==['bears']
        if how=='bring back': bring_back(root)
        else: j.mark(sha, how)
        assert set(apply_decisions(root).status)<={'moved', 'done'}
        assert j.classes==['black', 'grizzly', 'teddy']
        assert j.where(sha)==[root/'teddy/loose.jpg' if how=='teddy' else f]
    while not j.steps().undone.all(): undo_decision(root)
    assert tree(root)==before

def test_runs_that_move_nothing_are_one_step(tmp_path, monkeypatch):
    "However often somebody tries, one `undo` takes back the run."
    root = dataset(tmp_path/'bears')
    CleaningJournal(root).mark(root/'black/black0.jpg', 'delete')
    with monkeypatch.context() as m:
        m.setattr(moves, '_link', lambda *a: (_ for _ in ()).throw(PermissionError(13, 'Permission denied')))
        for _ in range(3): assert apply_decisions(root).status.tolist()==['failed: Permission denied']
    assert apply_decisions(root).status.tolist()==['moved']
    assert CleaningJournal(root).steps().action.tolist()==['delete', 'apply']
    assert undo_decision(root).status.tolist()==['back']

def test_a_class_whose_folder_has_its_accents_apart(tmp_path):
    "As macOS writes it: the label is one, and the picture goes into the folder that is there."
    root = dataset(tmp_path/'bears')
    folder = put(root, 'cafe\u0301/old.jpg', 'old').parent
    before,journal = tree(root),CleaningJournal(root)
    assert 'caf\u00e9' in journal.classes and 'cafe\u0301' not in journal.classes
    for label,name in ('caf\u00e9', 'black0'), ('cafe\u0301', 'black1'):
        assert journal.mark(root/f'black/{name}.jpg', label)
    assert apply_decisions(root).status.tolist()==['moved', 'moved']
    assert {f.name for f in folder.iterdir()}=={'old.jpg', 'black0.jpg', 'black1.jpg'}
    assert sum(c.startswith('caf') for c in os.listdir(root))==1 and set(plan_decisions(root).status)=={'done'}
    undo_decision(root)
    assert tree(root)==before
