"Moving pictures as it was decided: a crash at every call to the file system, hostile names and journals, full disks, two processes at once."
import os, random, shutil, subprocess, sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from conftest import REAL, here_env, needs

from bearclass import moves
from bearclass.core import InputError
from bearclass.gather.verify import get_image_files
from bearclass.learn.apply import MOVES, apply_decisions, bring_back, plan_decisions, read_removed, removed_folder, show_removed, undo_decision
from bearclass.learn.decisions import JOURNAL, CleaningJournal, add_decisions, save_decisions
from bearclass.learn.splits import content_sha256
from bearclass.moves import append_lines, carry_files, one_at_a_time, read_lines, read_moves


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch): monkeypatch.setattr(os, 'fsync', lambda fd: None)   # crashes are played, not real: nobody has to wait for the disk


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
    return j.mark_many([(root/'black/twin.jpg', 'grizzly'), (root/'black/same.jpg', 'grizzly'), (root/'teddy/teddy1.jpg', 'keep')])

def tree(root):
    "{path: (content, time)} of the pictures below a folder."
    return {f.relative_to(root).as_posix(): (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(root.rglob('*')) if f.is_file() and f.suffix=='.jpg'} if root.is_dir() else {}

def both(root): return sorted([*tree(root).values(), *tree(removed_folder(root)).values()])

AFTER = {'grizzly/same-1.jpg':'one', 'grizzly/same.jpg':'another', 'grizzly/twin.jpg':'twin', 'polar/teddy0.jpg':'teddy 0', 'teddy/teddy1.jpg':'teddy 1',
         'black/black1.jpg':'black 1', 'grizzly/grizzly0.jpg':'grizzly 0', 'grizzly/grizzly1.jpg':'grizzly 1'}

def is_applied(root):
    assert {n: d.decode() for n, (d, _) in tree(root).items()}==AFTER
    assert {n: d.decode() for n, (d, _) in tree(removed_folder(root)).items()}=={'black/black0.jpg':'black 0', 'black/twin.jpg':'twin'}
    assert set(plan_decisions(root).status)=={'done'}


# --- crashes ---------------------------------------------------------------------------------------------------------

class Crash(BaseException): "The power fails."

CALLS = 'link unlink rename replace mkdir rmdir fsync write utime chmod'.split()

def crashing(monkeypatch, at):
    "Let the power fail at a call to the file system: before it is done where `at` is even, after it where it is odd. A write is cut in half."
    count = [0]
    def wrap(name, f):
        def call(*args, **kw):
            k = count[0]
            count[0] += 1
            if k<at//2: return f(*args, **kw)
            if k>at//2: raise Crash   # nothing happens after the end
            if name=='write': f(args[0], bytes(args[1])[:len(args[1])//2])
            elif at%2: f(*args, **kw)
            raise Crash
        return call
    for name in CALLS: monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
    real = shutil.copyfileobj
    def half(a, b, *more):   # a copy is cut in half, too
        k = count[0]
        count[0] += 1
        if k<at//2: return real(a, b, *more)
        if k==at//2: b.write(a.read()[:2])
        raise Crash
    monkeypatch.setattr(shutil, 'copyfileobj', half)

def no_links(src, dst): raise OSError(95, 'Operation not supported')

def nothing_lost(root, before):
    "Every content is there under a picture's name, whole; no picture's name holds anything else."
    there = {d for d, _ in both(root)}
    assert there=={d for d, _ in before.values()}

def crash_everywhere(tmp_path, monkeypatch, prepare, act, finished):
    for at in range(2000):
        root = dataset(tmp_path/f'{at}/bears')
        before = tree(root)
        known = prepare(root)
        with monkeypatch.context() as m:
            crashing(m, at)
            try: act(root, known)
            except Crash: ended = False
            else: ended = True
        nothing_lost(root, before)
        act(root, known)
        nothing_lost(root, before)
        finished(root, before)
        shutil.rmtree(tmp_path/str(at))
        if ended: return at
    raise AssertionError('never came to its end')

@pytest.mark.parametrize('links', (True, False))
def test_a_crash_anywhere_while_applying(tmp_path, monkeypatch, links):
    if not links: monkeypatch.setattr(os, 'link', no_links)
    def finished(root, before):
        is_applied(root)
        assert CleaningJournal(root).steps().action.tolist().count('apply')==1   # a run that was cut off and its end are one step
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
        if CleaningJournal(root).steps().set_index('step').undone[step] and not any(m['state'] in ('undo', 'moved') for m in read_moves(root/MOVES).values()): return   # was cut off after its end
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
        return CleaningJournal(root).mark_many([(root/'grizzly/grizzly1.jpg', 'delete'), (root/'teddy/teddy1.jpg', 'delete')])
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
    "Random clicks, runs, undos and returns: at no time is a content or a time lost; with every step taken back all is as it was."
    rng, root = random.Random(seed), dataset(tmp_path/'bears')
    before, whole = tree(root), both(root)
    def files(): return [*get_image_files(root), *(get_image_files(removed_folder(root)) if removed_folder(root).is_dir() else [])]
    for _ in range(rng.randrange(4, 14)):
        j = CleaningJournal(root)
        open_steps = [s for s, gone in zip(j.steps().step, j.steps().undone) if not gone]
        op = rng.choice(['mark']*3+['apply', 'apply', 'undo', 'undo one', 'bring back'])
        if op=='mark': j.mark_many([(f, rng.choice('keep delete black grizzly teddy polar'.split())) for f in rng.sample(files(), rng.choice((1, 3)))], new_class=True)
        if op=='apply':
            assert set(apply_decisions(root).status)<={'moved', 'done'}
            assert set(apply_decisions(root).status)<={'done'}
        if op.startswith('undo') and open_steps: assert set(undo_decision(root, rng.choice(open_steps) if op=='undo one' else None).status)<={'back', 'taken back'}
        if op=='bring back' and len(there := read_removed(root).to.tolist()):
            got = bring_back(root, rng.choice((None, rng.choice(there))))
            assert all(s=='back' or 'a copy of' in s for s in got.status)
        assert both(root)==whole
    while not CleaningJournal(root).steps().undone.all(): undo_decision(root)
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
    assert tree(root)=={**{k: v for k, v in before.items() if k!='teddy/teddy0.jpg'}, 'polar/teddy0.jpg':before['teddy/teddy0.jpg']}
    assert not tree(removed_folder(root))
    monkeypatch.undo()
    apply_decisions(root)
    is_applied(root)

def test_a_dataset_that_may_not_be_written(tmp_path, monkeypatch):
    root = dataset(tmp_path/'bears')
    decide(root)
    before = tree(root)
    real = os.open
    def refused(path, flags, *a, **kw):
        if flags & os.O_WRONLY: raise PermissionError(13, 'Permission denied')
        return real(path, flags, *a, **kw)
    monkeypatch.setattr(os, 'open', refused)
    with pytest.raises(InputError, match='cannot be written .Permission denied'): apply_decisions(root)
    assert tree(root)==before
    assert Counter(plan_decisions(root).status)=={'will move':4, 'done':2}   # looking is allowed

def test_a_read_only_picture_where_there_are_no_links(tmp_path, monkeypatch):
    root = dataset(tmp_path/'bears')
    (root/'black/black0.jpg').chmod(0o444)
    before = tree(root)
    decide(root)
    monkeypatch.setattr(os, 'link', no_links)
    assert 'failed' not in ' '.join(apply_decisions(root).status)
    is_applied(root)
    undo_decision(root)
    assert tree(root)==before
    (root/'black/black0.jpg').chmod(0o644)

def test_what_changes_while_it_is_copied_is_not_moved(tmp_path, monkeypatch):
    root = dataset(tmp_path/'bears')
    f = root/'black/black0.jpg'
    CleaningJournal(root).mark(f, 'delete')
    monkeypatch.setattr(os, 'link', no_links)
    real = shutil.copyfileobj
    def meanwhile(a, b, *more):
        real(a, b, *more)
        b.write(b'!')
    monkeypatch.setattr(shutil, 'copyfileobj', meanwhile)
    assert apply_decisions(root).status.tolist()==['failed: it changed while it was copied']
    assert f.read_bytes()==b'black 0' and not [g for g in removed_folder(root).rglob('*') if g.is_file()]

def test_one_name_on_a_disk_that_does_not_tell_a_from_b(tmp_path):
    "Black and black are one folder there: taking the old name away would take the only one."
    d = tmp_path/'black'
    f = put(tmp_path, 'black/a.jpg', 'dear')
    sha = content_sha256(f)
    assert carry_files([(f, d/'A.jpg', sha)])==['old and new name are one'] and f.exists()
    other = tmp_path/'alias'
    try: other.symlink_to(d)
    except OSError: pytest.skip('no symlinks here')
    assert carry_files([(f, other/'a.jpg', sha)])==['old and new name are one'] and f.read_bytes()==b'dear'
    assert carry_files([(f, other/'b.jpg', sha)], below=(tmp_path,))==['a symlink is in the way'] and f.exists()


# --- files that are not as they were ---------------------------------------------------------------------------------

def test_gone_and_changed_since(tmp_path):
    root = dataset(tmp_path/'bears')
    decide(root)
    (root/'black/black0.jpg').unlink()
    (root/'teddy/teddy0.jpg').write_bytes(b'cropped')
    got = apply_decisions(root).set_index('path')
    assert got.status[root/'black/black0.jpg']=='gone' and got.note[root/'black/black0.jpg']=='no file here has this content'
    assert got.status[root/'teddy/teddy0.jpg']=='gone' and got.note[root/'teddy/teddy0.jpg']=='another picture lies there now'
    assert (root/'teddy/teddy0.jpg').read_bytes()==b'cropped' and not (root/'polar').exists()
    assert '2 decisions are about pictures that are not here.' in plan_decisions(root).attrs['warnings']

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

def test_the_place_was_taken_meanwhile(tmp_path):
    root = dataset(tmp_path/'bears')
    decide(root)
    before = tree(root)
    step = apply_decisions(root).attrs['step']
    put(root, 'black/black0.jpg', 'a newcomer')
    got = undo_decision(root, step)
    assert Counter(got.status)=={'back':3, 'failed: another file is there':1}
    assert (root/'black/black0.jpg').read_bytes()==b'a newcomer' and (removed_folder(root)/'black/black0.jpg').read_bytes()==b'black 0'
    (root/'black/black0.jpg').unlink()
    assert undo_decision(root, step).status.tolist()==['back']
    assert tree(root)==before

def test_brought_back_under_a_free_name(tmp_path):
    root = dataset(tmp_path/'bears')
    CleaningJournal(root).mark(root/'black/black0.jpg', 'delete')
    apply_decisions(root)
    put(root, 'black/black0.jpg', 'a newcomer')
    got = bring_back(root)
    assert got.path[0]==root/'black/black0-1.jpg' and got.status[0]=='back' and 'taken' in got.note[0]
    assert (root/'black/black0.jpg').read_bytes()==b'a newcomer' and (root/'black/black0-1.jpg').read_bytes()==b'black 0'

def test_two_names_for_one_picture(tmp_path):
    "In one class, in two, and among the removed already: one decision for all, and not one of them vanishes."
    root = tmp_path/'bears'
    for p in ('black/a.jpg', 'black/b.jpg', 'grizzly/a.jpg', 'teddy/other.jpg'): put(root, p, 'twin' if 'other' not in p else 'other')
    put(removed_folder(root), 'black/a.jpg', 'twin')
    before = both(root)
    j = CleaningJournal(root)
    j.mark(root/'black/a.jpg', 'delete')
    assert apply_decisions(root).status.tolist()==['moved']*3
    assert set(tree(root))=={'teddy/other.jpg'} and set(tree(removed_folder(root)))=={'black/a.jpg', 'black/a-1.jpg', 'black/b.jpg', 'grizzly/a.jpg'}
    assert both(root)==before
    undo_decision(root)
    j.mark(root/'black/a.jpg', 'teddy')
    got = apply_decisions(root)
    assert got.status.tolist()==['moved']*3 and set(tree(root))=={'teddy/a.jpg', 'teddy/other.jpg'} and both(root)==before
    undo_decision(root)
    assert set(tree(root))=={'black/a.jpg', 'black/b.jpg', 'grizzly/a.jpg', 'teddy/other.jpg'} and both(root)==before
    j.mark(root/'black/a.jpg', 'keep')
    assert set(plan_decisions(root).status)=={'done'} and 'a copy lies in another class' in set(plan_decisions(root).note)

def test_the_same_decision_twice(tmp_path):
    root = dataset(tmp_path/'bears')
    decide(root)
    f = save_decisions(tmp_path/'d.json', root)
    apply_decisions(root)
    end, n = both(root), len(read_lines(root/JOURNAL)[0])
    for _ in range(2): assert set(apply_decisions(root, f).status)=={'done'}
    assert set(apply_decisions(f, root).status)=={'done'}
    assert both(root)==end and len(read_lines(root/JOURNAL)[0])==n

def test_removed_then_relabelled(tmp_path):
    "Changed my mind: not out, but into another class. It comes out of the removed ones."
    root = dataset(tmp_path/'bears')
    before = tree(root)
    j = CleaningJournal(root)
    sha = j.sha_of(root/'black/black0.jpg')
    j.mark(sha, 'delete')
    apply_decisions(root)
    j.mark(sha, 'teddy')
    assert apply_decisions(root).to.tolist()==[root/'teddy/black0.jpg']
    assert not removed_folder(root).exists() or not tree(removed_folder(root))
    for _ in range(4): undo_decision(root)
    assert tree(root)==before

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

def test_folders_above_the_class_stay(tmp_path):
    root = tmp_path/'bears'
    put(root, 'train/grizzly/x.jpg', 'x'), put(root, 'valid/grizzly/y.jpg', 'y'), put(root, 'train/black/z.jpg', 'z'), put(root, 'inbox.jpg', 'i')
    j = CleaningJournal(root)
    j.mark_many([(root/'train/grizzly/x.jpg', 'black'), (root/'valid/grizzly/y.jpg', 'delete'), (root/'inbox.jpg', 'grizzly')])
    apply_decisions(root)
    assert set(tree(root))=={'train/black/x.jpg', 'train/black/z.jpg', 'grizzly/inbox.jpg'} and set(tree(removed_folder(root)))=={'valid/grizzly/y.jpg'}
    bring_back(root)
    assert (root/'valid/grizzly/y.jpg').exists()

def test_labels_that_come_from_a_table(tmp_path):
    root = tmp_path/'bears'
    a, b = put(root, 'images/a.jpg', 'a'), put(root, 'images/b.jpg', 'b')
    j = CleaningJournal(root)
    j.mark(a, 'grizzly', given_label='black', new_class=True)
    j.mark(b, 'delete', given_label='black')
    plan = plan_decisions(root)
    assert plan.status[0].startswith("refused: its label 'black' does not come from its folder 'images'; change it where it comes from") and plan.status[1]=='will move'
    assert apply_decisions(root).status.str.split(':').str[0].tolist()==['failed', 'moved'] and a.exists() and not b.exists()


# --- what strangers may send -----------------------------------------------------------------------------------------

def line(sha, to, step='0123456789ab', **more):
    return dict(dict(schema=1, step=step, time='2026-01-01T00:00:00+00:00', sha256=sha, action='relabel' if to else 'delete', **{'from':'black'}, to=to, given_label=None, predicted_label=None, reason='', path='black/black0.jpg', by=''), **more)

HOSTILE = ['..', '.', '', '../up', '/etc', 'a/b', 'a\\b', 'C:', 'nul', 'CON', 'com1.txt', 'bear.', 'bear ', ' bear', '.hidden', 'a\0b', 'two\nlines', 'x'*300, '\ud800', 'Teddy']

@pytest.mark.parametrize('label', HOSTILE)
def test_a_label_that_would_escape(tmp_path, label):
    "Straight into the journal, past every check of marking: the file stays where it is, and the folder above as it was."
    root = dataset(tmp_path/'bears')
    before, around = tree(root), sorted(os.listdir(tmp_path))
    with pytest.raises(InputError): CleaningJournal(root).mark(root/'black/black0.jpg', label, new_class=True)
    append_lines(root/JOURNAL, [line(content_sha256(root/'black/black0.jpg'), label)])
    got = apply_decisions(root)
    assert tree(root)==before and sorted(os.listdir(tmp_path))==around
    assert not len(got) or got.status[0].startswith('failed: ')

@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=8), st.sampled_from(HOSTILE)), st.text(max_size=8))
def test_any_label_and_path(tmp_path_factory, label, path):
    top = tmp_path_factory.mktemp('any')
    root = top/'bears'
    put(root, 'black/a.jpg', 'a'), put(root, 'teddy/b.jpg', 'b')
    append_lines(root/JOURNAL, [line(content_sha256(root/'black/a.jpg'), label, path=path, given_label=None)])
    apply_decisions(root)
    assert sorted(d for d, _ in both(root))==[b'a', b'b'] and set(os.listdir(top))<={'bears', 'bears_removed'}
    assert len(get_image_files(root))+len(read_removed(root))==2   # under a name where it is seen
    if len(CleaningJournal(root).steps())>1:
        undo_decision(root)
        assert set(tree(root))=={'black/a.jpg', 'teddy/b.jpg'}
    shutil.rmtree(top)

NAMES = ['two\nlines.jpg', 'bär 🐻.jpg', "it's \"quoted\".jpg", ' leading.jpg', '-rf.jpg', '%s{0}.jpg', 'a'*200+'.jpg', '\u202egpj.jpg', 'a;b$(c).jpg']

@pytest.mark.skipif(os.name=='nt', reason='these names cannot be there')
def test_names_of_every_kind(tmp_path):
    root = tmp_path/'bears'
    names = NAMES+[os.fsdecode(b'no text \xff\xfe.jpg')]
    for i, n in enumerate(names): put(root, f'black/{n}', f'picture {i}')
    put(root, 'teddy/t.jpg', 't')
    before = tree(root)
    CleaningJournal(root).mark_many([(f, 'teddy' if i%2 else 'delete') for i, f in enumerate(get_image_files(root/'black'))])
    got = apply_decisions(root)
    assert got.status.tolist()==['moved']*len(names)
    assert {Path(p).name for p in [*tree(root), *tree(removed_folder(root))]}=={*names, 't.jpg'}
    assert len(read_removed(root))==5 and len(show_removed(root))==5   # and none of them can be read as a picture
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
    hostile = [dict(id=i, action='move', sha256=sha, **{'from':f, 'to':t}, out_of=o, into=n) for i, (f, t, o, n) in enumerate(
        [('../mine.jpg', 'black/x.jpg', 'dataset', 'dataset'), (str(outside), 'x.jpg', 'dataset', 'removed'), ('a.jpg', '../../x.jpg', 'dataset', 'dataset'), ('a.jpg', 'b.jpg', 'up', 'removed'),
         ('cleaning.jsonl', 'x.jpg', 'dataset', 'dataset'), ('a\0.jpg', 'b.jpg', 'dataset', 'removed')])]
    append_lines(root/MOVES, hostile+[dict(id='q', action='undo'), dict(id={}, action='moved'), dict(action='move')])
    with open(root/MOVES, 'ab') as f: f.write(b'\xff\xfe{"id": 1\n' + b'['*10000)
    plan = plan_decisions(root)
    assert '1 line of cleaning.jsonl could not be read, and was passed over.' in plan.attrs['warnings'] and '1 decision is about pictures that are not here.' in plan.attrs['warnings']
    apply_decisions(root)
    assert {n: d.decode() for n, (d, _) in tree(root).items()}==AFTER and outside.read_bytes()==b'dear to me'
    assert set(os.listdir(tmp_path))=={'bears', 'bears_removed', 'mine.jpg'}

def test_decisions_from_another_dataset(tmp_path):
    root = dataset(tmp_path/'bears')
    before = tree(root)
    with pytest.raises(InputError, match="pictures that are not in 'bears'"): apply_decisions(root, [dict(sha256='ab'*32, action='delete')])
    got = apply_decisions(root, [dict(sha256='ab'*32, action='delete'), dict(sha256=content_sha256(root/'teddy/teddy0.jpg'), action='relabel', to='tedy')])
    assert got.status.tolist()==['failed: unknown picture', 'failed: no such class: tedy'] and tree(root)==before

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
    assert (root/'black/link.jpg').is_symlink() and os.listdir(outside.parent)==['mine.jpg'] and (root/'black/black0.jpg').exists()
    removed_folder(root).symlink_to(outside.parent)
    j.mark(root/'teddy/teddy0.jpg', 'delete')
    assert 'failed: the folder of removed pictures is a symlink' in apply_decisions(root).status.tolist() and len(read_removed(root))==0
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

def test_a_removed_folder_that_was_there_before(tmp_path):
    root = dataset(tmp_path/'bears')
    away = removed_folder(root)
    mine, old = put(away, 'black/black0.jpg', 'was here first'), put(away, 'notes.txt', 'mine')
    CleaningJournal(root).mark(root/'black/black0.jpg', 'delete')
    assert apply_decisions(root).to.tolist()==[away/'black/black0-1.jpg']
    assert mine.read_bytes()==b'was here first' and old.read_bytes()==b'mine'
    df = read_removed(root)
    assert df.path.tolist()==[root/'black/black0.jpg']*2 and len(df)==2
    undo_decision(root)
    assert mine.exists() and old.exists() and (root/'black/black0.jpg').read_bytes()==b'black 0'

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
from bearclass.learn.apply import apply_decisions, undo_decision
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
    CleaningJournal(root).mark_many([(f, 'delete' if i%3 else 'teddy') for i, f in enumerate(get_image_files(root/'black'))])
    both_at = [subprocess.Popen([sys.executable, '-c', WORKER, root, tmp_path/'go', str(turns)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=here_env()) for _ in range(2)]
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
    monkeypatch.setattr(moves, '_lock', lambda fd: (_ for _ in ()).throw(OSError(38, 'Function not implemented')))
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

def test_the_lock_goes_with_its_process(tmp_path):
    code = f'import os, sys; from bearclass.moves import one_at_a_time\nwith one_at_a_time({str(tmp_path)!r}):\n    print("have it", flush=True); os._exit(9)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=here_env()).stdout=='have it\n'
    with one_at_a_time(tmp_path): assert tmp_path.is_dir()


# --- beside the other rooms ------------------------------------------------------------------------------------------

def test_what_was_removed_can_be_forgotten(tmp_path):
    "`forget` reaches the removed ones too; afterwards nothing comes back, and nothing complains."
    from bearclass.gather.passport import forget
    root = dataset(tmp_path/'bears')
    j = CleaningJournal(root)
    sha = j.sha_of(root/'black/black0.jpg')
    j.mark_many([(sha, 'delete'), (root/'teddy/teddy0.jpg', 'delete')])
    apply_decisions(root)
    forget(root, sha)
    assert b'black 0' not in [d for d, _ in both(root)] and len(read_removed(root))==1
    assert sorted(apply_decisions(root).status)==['done', 'gone']
    assert sorted(undo_decision(root).status)==['back', 'failed: it is gone']

def test_what_was_cleaned_stays_cleaned_when_it_is_downloaded_again(tmp_path):
    "Neither its own address nor a mirror brings back what was taken out, or puts a second copy into the old class."
    import io
    from PIL import Image
    from bearclass.gather.download import download
    from bearclass.gather.fetch import Fetched
    def picture(i):
        buf = io.BytesIO()
        Image.new('RGB', (64, 48), (40*i, 90, 200-30*i)).save(buf, 'PNG')
        return buf.getvalue()
    asked = []
    def fetch_all(urls, rules=None, on_done=None, **kw):
        for i, u in enumerate(urls):
            asked.append(u)
            on_done(i, Fetched(u, u, True, 200, body=picture(int(u[-5]))))
    root, urls = tmp_path/'bears', [f'http://pictures.example/{i}.png' for i in range(4)]
    assert download({'black':urls[:3], 'teddy':urls[3:]}, root, fetch_all=fetch_all).saved==4
    old = [f for i in range(3) for f in get_image_files(root) if f.read_bytes()==picture(i)]
    CleaningJournal(root).mark_many([(old[0], 'delete'), (old[1], 'teddy')])
    apply_decisions(root)
    end = {f.relative_to(root).as_posix() for f in get_image_files(root)}
    asked.clear()
    download({'black':urls[:3], 'teddy':urls[3:]}, root, fetch_all=fetch_all)
    assert not asked
    again = download({'black':[u.replace('pictures', 'mirror') for u in urls[:3]]}, root, fetch_all=fetch_all)
    assert len(asked)==3 and again.saved==0 and again.reasons['removed']==1
    assert {f.relative_to(root).as_posix() for f in get_image_files(root)}==end and len(read_removed(root))==1

@needs('bears')
def test_real_bears_cleaned_and_back(tmp_path):
    root = tmp_path/'bears'
    shutil.copytree(REAL/'bears', root, ignore=lambda d, names: [n for n in names if not ((Path(d)/n).is_dir() or n.lower().endswith(('.jpg', '.jpeg')))])
    whole = lambda: {f.relative_to(root).as_posix(): (content_sha256(f), f.stat().st_mtime_ns) for f in get_image_files(root)}
    before = whole()
    files = get_image_files(root)
    j = CleaningJournal(root)
    classes = sorted({f.parent.name for f in files})
    j.mark_many([(f, ('delete', 'keep', next(c for c in classes if c!=f.parent.name))[i%3]) for i, f in enumerate(files[::3])])
    got = apply_decisions(root)
    assert set(got.status)=={'moved', 'done'} and (got.status=='moved').sum()>50
    undo_decision(root)
    assert whole()==before and not removed_folder(root).exists()


# --- what an attack has found ------------------------------------------------------------------------------------------

def test_moves_with_values_of_wrong_types(tmp_path):
    root = dataset(tmp_path/'bears')
    CleaningJournal(root).mark(root/'black/black0.jpg', 'delete')
    step = apply_decisions(root).attrs['step']
    move = next(m for m in read_lines(root/MOVES)[0] if m['action']=='move')
    for k in 'action', 'decision', 'reason', 'step', 'time': append_lines(root/MOVES, [{**move, 'id':k, k:[]}])
    append_lines(root/MOVES, [{**move, 'id':'long', 'from':'x'*500+'.jpg', 'to':'a/'*3000+'y.jpg'}])
    assert len(show_removed(root))==1 and undo_decision(root, step).status.tolist()==['back']
    with pytest.raises(InputError, match='no step'): undo_decision(root, [step])

def test_names_that_are_too_long(tmp_path):
    "In the journal they lead nowhere; where a long name is taken, it is cut for the number."
    root = dataset(tmp_path/'bears')
    name = 'a'*251+'.jpg'
    put(root, f'black/{name}', 'long'), put(root, f'teddy/{name}', 'taken')
    j = CleaningJournal(root)
    j.mark(root/'black'/name, 'teddy')
    append_lines(root/JOURNAL, [line(content_sha256(root/'black/black0.jpg'), 'ü'*200, step='a'*12), line('ab'*32, 'teddy', step='b'*12, path='x'*500)])
    assert sorted(apply_decisions(root).status)==['gone', 'moved']
    assert (root/'teddy'/('a'*249+'-1.jpg')).read_bytes()==b'long'

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
        assert j.classes==['black', 'grizzly', 'teddy'] and j.where(sha)==[root/'teddy/loose.jpg' if how=='teddy' else f]
    while not j.steps().undone.all(): undo_decision(root)
    assert tree(root)==before

def test_runs_that_move_nothing_are_one_step(tmp_path, monkeypatch):
    "However often somebody tries, one `undo` takes back the run."
    root = dataset(tmp_path/'bears')
    CleaningJournal(root).mark(root/'black/black0.jpg', 'delete')
    with monkeypatch.context() as m:
        m.setattr(moves, '_link', lambda *a: (_ for _ in ()).throw(PermissionError(13, 'Permission denied')))
        for _ in range(3): assert apply_decisions(root).status.tolist()==['failed: Permission denied']
    assert apply_decisions(root).status.tolist()==['moved'] and CleaningJournal(root).steps().action.tolist()==['delete', 'apply']
    assert undo_decision(root).status.tolist()==['back']

def test_a_removed_picture_that_cannot_be_read(tmp_path, monkeypatch):
    from bearclass.learn import apply
    root = dataset(tmp_path/'bears')
    CleaningJournal(root).mark_many([(root/'black/black0.jpg', 'delete'), (root/'black/black1.jpg', 'delete')])
    apply_decisions(root)
    def refused(f, real=apply.content_sha256):
        if Path(f).name=='black0.jpg': raise PermissionError(13, 'Permission denied')
        return real(f)
    monkeypatch.setattr(apply, 'content_sha256', refused)
    assert read_removed(root).reason.tolist()==['cannot be read (Permission denied)', '']
    assert bring_back(root).status.tolist()==['failed: it cannot be read', 'back']

def test_a_folder_where_the_moves_should_be(tmp_path):
    root = dataset(tmp_path/'bears')
    (root/MOVES).mkdir()
    for f in plan_decisions, apply_decisions, undo_decision, bring_back, read_removed:
        with pytest.raises(InputError, match='cannot be read'): f(root)

def test_the_journal_alone_takes_no_run_back(tmp_path):
    root = dataset(tmp_path/'bears')
    decide(root)
    apply_decisions(root)
    with pytest.raises(InputError, match='undo_decision'): CleaningJournal(root).undo()
    is_applied(root)

def test_a_class_that_was_renamed_before_a_friend_answers(tmp_path):
    root = dataset(tmp_path/'bears')
    row = dict(sha256=content_sha256(root/'black/black0.jpg'), action='relabel', to='teddy', given_label='black', path='black/black0.jpg')
    (root/'black').rename(root/'noir')
    assert apply_decisions(root, [row]).status.tolist()==['moved']

def test_a_reason_is_no_formula(tmp_path):
    import matplotlib.pyplot as plt
    root = dataset(tmp_path/'bears')
    CleaningJournal(root).mark(root/'black/black0.jpg', 'delete', reason=r'$\frac$ 5$')
    apply_decisions(root)
    show_removed(root)[0].figure.canvas.draw()
    plt.close('all')
