"The cleaning journal under hostile files, odd names, several writers, and any sequence of clicks."
import json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bearclass.core import InputError, MissingError
from bearclass.gather.datasheet import datasheet
from bearclass.dataset import content_sha256, get_image_files, parent_name
from bearclass.clean import decisions as d
from bearclass.clean.decisions import JOURNAL, CleaningJournal, read_decisions, save_decisions
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
    row = dict(
        schema=1, step='0123456789ab', time='2026-01-01T00:00:00+00:00', sha256='ab'*32, action='relabel', to='teddy',
        given_label='black', predicted_label=None, reason='', path='black/0.png', by='')
    return {**row, 'from':'black', **changed}


class Clicks(RuleBasedStateMachine):
    "Two journals on one folder, clicked in any order, against a list of steps that is replayed from scratch."
    @initialize()
    def begin(self):
        self.tmp = Path(tempfile.mkdtemp())
        root = fill(self.tmp/'bears')
        self.files = list(get_image_files(root))
        self.sha = [content_sha256(f) for f in self.files]
        self.journals = [CleaningJournal(root), CleaningJournal(root)]
        self.steps,self.torn = [],0   # [id, {sha256: label or None}, undone]

    def teardown(self): shutil.rmtree(self.tmp, ignore_errors=True)

    def now(self):
        state = {}
        for _,choices,undone in self.steps:
            if not undone: state |= choices
        return state

    @rule(who=st.integers(0, 1), picks=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(('keep', 'delete', *LABELS)), st.booleans()),
        min_size=1, max_size=5))
    def mark(self, who, picks):
        step = self.journals[who].mark_many([(self.sha[i] if by_sha else self.files[i], c) for i,c,by_sha in picks])
        wanted = lambda i, choice: dict(delete=None, keep=parent_name(self.files[i])).get(choice, choice)
        now,last = self.now(),{self.sha[i]: wanted(i, c) for i,c,_ in picks}
        new = {sha: to for sha,to in last.items() if sha not in now or now[sha]!=to}
        assert bool(step)==bool(new)
        if new: self.steps.append([step, new, False])

    @rule(who=st.integers(0, 1), at=st.integers(0, 30))
    def undo(self, who, at):
        step = next((s for s in reversed(self.steps) if not s[2]), None)
        if at<len(self.steps): step = self.steps[at]
        if not step or step[2]:
            with pytest.raises(InputError): self.journals[who].undo(step and step[0])
            return
        assert self.journals[who].undo(step[0] if at<len(self.steps) else None)['step']==step[0]
        step[2] = True

    @rule(text=st.sampled_from((
        '{"schema": 1, "st', '[1, 2]', json.dumps(full_row(to='..')),
        json.dumps(full_row(action='undo', undoes='0'*12)))))
    def tear(self, text):
        with open(self.journals[0].path, 'a') as out: out.write('\n'+text)
        self.torn += 1

    @rule(who=st.integers(0, 1))
    def restart(self, who): self.journals[who] = CleaningJournal(self.journals[who].root)

    @invariant()
    def same_as_replayed(self):
        if not hasattr(self, 'journals'): return
        for j in (*self.journals, CleaningJournal(self.journals[0].root)):
            assert {s: r['to'] for s,r in j.in_force().items()}==self.now() and j.torn==self.torn
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


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_text,
    lambda c: st.lists(c, max_size=3) | st.dictionaries(odd_text, c, max_size=3),
    max_leaves=6)


@plain
@given(
    changes=st.dictionaries(st.sampled_from([*d.FIELDS, 'undoes', 'new']), anything, min_size=1, max_size=5),
    action=st.sampled_from(('keep', 'delete', 'relabel', 'apply', 'undo')))
def test_wrong_types_in_any_field(tmp_path_factory, changes, action):
    "A hostile line counts in full or not at all, and never leads out of the folder."
    root = fill(tmp_path_factory.mktemp('t')/'bears', 1)
    to = 'black' if action in ('keep', 'relabel') else None
    rows = [full_row(), {**full_row(step='b'*12, action=action, to=to, undoes='0123456789ab'), **changes}]
    append_lines(root/JOURNAL, rows)
    journal = CleaningJournal(root)
    journal.table(), journal.steps(), repr(journal), journal.classes
    for r in journal.in_force().values():
        assert set(r)==set(d.FIELDS) and r['action'] in d.ACTIONS
        assert r['to'] is None or Path(os.path.normpath(root/r['to'])).parent==root or '\\' in r['to']
        assert all(isinstance(r[k], str) for k in ('time', 'reason', 'path', 'by'))
    journal.mark(root/'teddy/0.png', 'keep')
    assert CleaningJournal(root).in_force()[content_sha256(root/'teddy/0.png')]['to']=='teddy'


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


def test_a_decision_follows_the_content(root):
    journal,f = CleaningJournal(root),root/'black/0.png'
    sha = journal.sha_of(f)
    journal.mark(f, 'teddy')
    shutil.copy(f, root/'grizzly/copy.png')
    (root/'black').rename(root/'noir')             # a class renamed by hand
    assert journal.where(sha)==[root/'grizzly/copy.png', root/'noir/0.png'] and 'noir' in journal.classes
    assert journal.mark(sha, 'teddy') is None
    removed = root.with_name('bears_removed')/'black'
    removed.mkdir(parents=True)
    (root/'noir/0.png').rename(removed/'0.png')
    (root/'grizzly/copy.png').unlink()
    assert journal.where(sha)==[removed/'0.png'] and journal.table().state[0]=='to do'
    assert journal.mark(removed/'0.png', 'keep') and holds(journal)[sha]==('keep', 'black', 'black')
    (removed/'0.png').unlink()
    assert journal.table().state[0]=='gone' and journal.table().paths[0]==[]
    assert journal.mark(sha, 'delete')             # gone, and yet it was a picture of this dataset
    assert journal.mark(removed/'0.png', 'keep')   # also by the path where it was seen
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


def test_a_journal_that_is_cut_replaced_or_removed(root):
    journal,files = CleaningJournal(root),get_image_files(root)
    for f in files: journal.mark(f, 'delete')
    whole = (root/JOURNAL).read_bytes()
    other = CleaningJournal(root)
    lines = whole.splitlines(keepends=True)
    for data in b''.join(lines[:2]), whole, b''.join(lines[3:])+b'\n'*500, whole[:-20], b'', whole:
        (root/JOURNAL).write_bytes(data)
        assert journal.in_force()==CleaningJournal(root).in_force()
        # as a restored backup: another file under the name
        (root/'new').write_bytes(data)
        os.replace(root/'new', root/JOURNAL)
        assert journal.in_force()==CleaningJournal(root).in_force()==other.in_force()
    (root/JOURNAL).unlink()
    assert journal.in_force()=={} and journal.mark(files[0], 'delete')


writer = '''
import sys
from bearclass.clean.decisions import CleaningJournal
from bearclass.dataset import get_image_files
root,k = sys.argv[1],int(sys.argv[2])
journal,files = CleaningJournal(root),list(get_image_files(root))
choices = 'black', 'grizzly', 'teddy', 'delete'
for i in range(40):
    picks = [(f, choices[(i+j+k)%4]) for j,f in enumerate(files)]
    journal.mark_many(picks, reason='r'*1500, by=str(k))
'''


def test_two_notebooks_at_once(root):
    "No line is broken by another's, and each sees the other's."
    mine = CleaningJournal(root)
    runs = [subprocess.Popen([sys.executable, '-c', writer, str(root), str(k)]) for k in (1, 2)]
    assert [p.wait() for p in runs]==[0, 0]
    assert mine.torn==0 and holds(mine)==holds(CleaningJournal(root))
    assert {r['by'] for s in mine.past.steps.values() for r in s['rows']}=={'1', '2'}
    assert len(set(mine.steps().step))==len(mine.steps())


def test_the_datasheet_counts_what_holds(root):
    "Two pictures deleted, one of them kept after all, one step taken back, one run applied."
    journal,files = CleaningJournal(root),get_image_files(root)
    journal.mark_many([(f, 'delete') for f in files[:2]])
    journal.mark(files[0], 'keep')
    journal.mark(files[3], 'teddy')
    journal.mark(files[4], 'delete')
    journal.undo()
    append_lines(journal.path, [full_row(action='apply', sha256=None, to=None, step='c'*12)])
    assert journal.torn==0
    assert 'Decisions in cleaning.jsonl: delete 1, keep 1, relabel 1.' in datasheet(root).read_text()


def test_a_picture_written_over_in_place(root):
    journal,f = CleaningJournal(root),root/'black/0.png'
    journal.table()
    for folder in (*(root/c for c in LABELS), root): os.utime(folder, ns=(10**18, 10**18))
    # looked, and nothing changes any more
    journal.where('ab'*32)
    f.write_bytes(b'cropped in place')
    CleaningJournal(root).mark(f, 'delete')
    assert journal.table().state.tolist()==['to do'] and journal.table().paths[0]==[f]
