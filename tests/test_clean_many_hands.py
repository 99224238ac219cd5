"Decisions and datasets of several people: every vote counts once, nothing hostile counts, nothing is lost in a merge."
import hashlib, json, os, shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bearclass.core import InputError
from bearclass.samples.datasets import draw_bears
from bearclass.gather.duplicates import show_duplicates
from bearclass.manifest import append_rows, read_manifest
from bearclass.gather.forget import forget, is_forgotten
from bearclass.dataset import get_image_files, removed_folder
from bearclass.clean import merging
from bearclass.clean.apply import apply_decisions
from bearclass.clean.decisions import JOURNAL, CleaningJournal, save_decisions
from bearclass.clean.merging import merge_datasets
from bearclass.clean.votes import merge_decisions
from bearclass.clean.page import cleaning_page
from bearclass.clean.widget import ImageCleaner

plain = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sha = lambda i: f'{i:064x}'


def row(i, to, by='', given='black', **more):
    return dict(sha256=sha(i), action='relabel' if to else 'delete', to=to, by=by, given_label=given, **more)


answers = st.lists(
    st.dictionaries(st.integers(0, 5), st.sampled_from(('black', 'grizzly', 'teddy', None)), max_size=6),
    min_size=1,
    max_size=5)


@plain
@given(people=answers, min_votes=st.integers(1, 4))
def test_a_majority_is_more_than_half(people, min_votes):
    "Against a count by hand; the order of the people changes nothing."
    sources = {f'p{k}': [row(i, to) for i,to in said.items()] for k,said in enumerate(people)}
    if not any(people):
        with pytest.raises(InputError): merge_decisions(sources)
        return
    merged = merge_decisions(sources, min_votes)
    for r in merged.table.itertuples():
        said = [p[int(r.sha256, 16)] for p in people if int(r.sha256, 16) in p]
        winners = [c for c in set(said) if 2*said.count(c)>len(said) and len(said)>=min_votes]
        assert r.choice==(None if not winners else winners[0] or 'delete') and r.n==len(said) and r.reason
    back = merge_decisions(dict(reversed(sources.items())), min_votes)
    assert dict(zip(back.table.sha256, back.table.choice))==dict(zip(merged.table.sha256, merged.table.choice))
    assert len(merged.decided)+len(merged.undecided)==len(merged.table)
    assert {r['sha256'] for r in merged.to_decisions()}==set(merged.decided.sha256)
    assert set(merged.disagreements.sha256)=={s for s,v in merged.votes.items() if len(set(v.values()))>1}
    a = merged.agreement(n_boot=10)
    assert a.agreement.dropna().between(0, 1).all() and a.pictures['all']==sum(len(v)>1 for v in merged.votes.values())
    repr(merged), merged.choices


escaping = dict(bearclass='decisions', schema=1, decisions=[dict(sha256=sha(1), action='relabel', to='../../etc')])
hostile = [
    '', '{', '[]', '[1, 2]', 'null', '7', '"x"', '<html>', '{"bearclass": "decisions"}',
    '{"bearclass": "decisions", "schema": 1, "decisions": [{}, 5, null]}',
    '{"bearclass": "decisions", "schema": 2, "decisions": []}',
    json.dumps(escaping), '['*100_000, '\0'*100, 'sha256,action\n1,2\n']


def test_hostile_files_are_named_and_left_out(tmp_path):
    good = save_decisions(tmp_path/'good.json', [row(1, 'teddy')], by='Ada')
    files = []
    for k,text in enumerate(hostile):
        files.append(tmp_path/f'bad {k}.json')
        files[-1].write_text(text)
    (tmp_path/'folder.json').mkdir()
    odd = [tmp_path/'folder.json', tmp_path/'none.json', 5, None, object(), {'a': 1}]
    merged = merge_decisions([good, *files, *odd])
    s = merged.sources
    assert len(s)==1+len(files)+len(odd) and s.decisions.tolist()==[1]+[0]*(len(s)-1)
    assert all(s.reason[1:]) and all(f"Not used: '{f.name}'" in repr(merged) for f in files)
    assert merged.votes=={sha(1): {'Ada': 'teddy'}}


def test_a_journal_with_several_people(tmp_path):
    "Each has a voice; what was taken back has none."
    root = draw_bears(tmp_path/'bears', 4, size=64).root
    f,g,*_ = get_image_files(root)
    journal = CleaningJournal(root)
    journal.mark(f, 'teddy', by='Ada')
    journal.mark(f, 'grizzly', by='Ben')
    journal.mark(g, 'delete', by='Ada')
    journal.undo()
    for source in root, root/JOURNAL, journal:
        assert merge_decisions([source]).votes=={journal.sha_of(f): dict(Ada='teddy', Ben='grizzly')}


def test_from_votes_to_moved_files(tmp_path):
    "Files of friends, a vote, a choice, the journal, the move; and what is open goes round again as a page or widget."
    root = draw_bears(tmp_path/'bears', 4, size=64).root
    a,b,c,d,*_ = files = list(get_image_files(root))
    key = [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    def say(who, *said):
        rows = [{**row(0, to), 'sha256':k} for k,to in zip(key, said)]
        return save_decisions(tmp_path/f'{who}.json', rows, 'bears', who)
    friends = [say('Ada', 'teddy', None, 'teddy', 'teddy'), say('Ben', 'teddy', None, 'grizzly'),
               say('Eve', 'black', None, 'black')]
    merged = merge_decisions(friends, root=root)
    issues = merged.disagreements
    assert set(issues.path)=={a, c}==set(ImageCleaner(issues, root).issues.path)
    assert cleaning_page(issues, tmp_path/'vote.html', root).exists()
    merged.choose(key[2], 'grizzly')
    assert apply_decisions(root, merged.to_decisions()).status.tolist()==['moved']*3
    now = root/'teddy'/a.name,removed_folder(root)/'black'/b.name,root/'grizzly'/c.name,d
    assert all(f.exists() for f in now)


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    "Two students' datasets, drawn once."
    here = tmp_path_factory.mktemp('drawn')
    for i,k in enumerate(('Ada', 'Ben')): draw_bears(here/k/'bears', 3, seed=i, size=64)
    return here


@pytest.fixture
def two(drawn, tmp_path): return {k: shutil.copytree(drawn/k, tmp_path/k)/'bears' for k in ('Ada', 'Ben')}


def everything(roots): return {f: f.read_bytes() for r in roots.values() for f in sorted(r.rglob('*')) if f.is_file()}


def test_disputed_pictures_stay_out_on_both_sides(two, tmp_path):
    f = sorted((two['Ada']/'black').iterdir())[0]
    shutil.copy(f, two['Ben']/'teddy/x.jpg')
    # two say black, one says teddy: still disputed
    shutil.copy(f, two['Ben']/'black/y.jpg')
    done = merge_datasets(two, tmp_path/'all')
    assert done.table.status.value_counts().to_dict()=={'copied': 17, 'left out: labels disagree': 3}
    assert f.read_bytes() not in {g.read_bytes() for g in get_image_files(done.dest)}
    assert set(done.disagreements.who_a)|set(done.disagreements.who_b)=={'Ada', 'Ben'}
    assert done.disagreements.left_out.all()
    assert show_duplicates(done.disagreements, 1).shape==(1, 2)


def test_forgotten_pictures_stay_out(two, tmp_path):
    "By content, and by the address of another copy of it; and the merged dataset goes on keeping them out."
    f,g,*_ = sorted((two['Ada']/'black').iterdir())
    shutil.copy(f, two['Ben']/'black/x.jpg')
    forget(two['Ben'], two['Ben']/'black/x.jpg')
    append_rows(two['Ada'], [dict(
        status='saved', url='https://x.example/g.jpg', label='black', path=f'black/{g.name}',
        sha256=hashlib.sha256(g.read_bytes()).hexdigest())])
    forget(two['Ben'], 'https://x.example/g.jpg', unseen=True)
    done = merge_datasets(two, tmp_path/'all')
    assert done.table.status.value_counts().to_dict()=={'copied': 16, 'left out: forgotten in Ben': 2}
    assert is_forgotten(done.dest, sha256=hashlib.sha256(f.read_bytes()).hexdigest())
    assert is_forgotten(done.dest, url='https://x.example/g.jpg')
    assert f.name not in (done.dest/'merged.csv').read_text()


def test_what_is_no_picture_is_listed(two, tmp_path):
    (two['Ada']/'black/broken.jpg').write_bytes(b'no picture')
    shutil.copy(sorted((two['Ada']/'black').iterdir())[0], two['Ada']/'loose.jpg')
    if os.name!='nt': (two['Ben']/'black/link.jpg').symlink_to(sorted((two['Ada']/'teddy').iterdir())[0])
    done = merge_datasets(two, tmp_path/'all')
    out = done.table[done.table.status.str.startswith('left out')]
    assert sorted(p.split('/')[-1] for p in out.path)==['broken.jpg', *['link.jpg']*(os.name!='nt'), 'loose.jpg']
    assert 'in no class folder' in out.status[out.path=='loose.jpg'].item()
    assert len(get_image_files(done.dest))==18 and not any(str(tmp_path) in s for s in done.table.status)


def test_a_file_that_goes_or_changes_while_it_is_copied(two, tmp_path, monkeypatch):
    "It is named, and the others are copied."
    a,b,c,*_ = sorted((two['Ada']/'black').iterdir())
    real = merging._make

    def meanwhile(*args):
        a.unlink()
        b.write_bytes(b'another picture')
        return real(*args)
    monkeypatch.setattr(merging, '_make', meanwhile)
    done = merge_datasets(two, tmp_path/'all')
    assert done.table.status.str.startswith('failed: ').sum()==2
    assert 'it has changed since' in ' '.join(done.table.status)
    assert len(get_image_files(done.dest))==16==len(read_manifest(done.dest)) and done.table.to.isna().sum()==2


@pytest.mark.parametrize('after', range(0, 18, 4))
def test_a_crash_leaves_nothing_half_done(two, tmp_path, monkeypatch, after):
    real,n = Path.write_bytes,[]

    def crash(self, data):
        n.append(self)
        if len(n)>after: raise KeyboardInterrupt
        return real(self, data)
    before = everything(two)
    monkeypatch.setattr(Path, 'write_bytes', crash)
    with pytest.raises(KeyboardInterrupt): merge_datasets(two, tmp_path/'all')
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir())==['Ada', 'Ben'] and everything(two)==before
    assert len(get_image_files(merge_datasets(two, tmp_path/'all').dest))==18


def test_a_test_set_of_one_in_the_hands_of_another(two):
    f = sorted((two['Ada']/'black').iterdir())[0]
    (two['Ada'].with_name('bears_test')/'black').mkdir(parents=True)
    shutil.copy(f, two['Ben']/'black/x.jpg')
    f.rename(two['Ada'].with_name('bears_test')/'black'/f.name)
    assert any('1 picture of the test set that Ada' in s for s in merge_datasets(two).notes)



def test_datasets_with_odd_names(two, tmp_path):
    "Bytes that are no text, letters encoded in two ways, names of files that a dataset has, a root behind a link."
    if os.name=='nt': pytest.skip('these names cannot be there')
    f = sorted((two['Ada']/'black').iterdir())[0]
    odd = two['Ada']/os.fsdecode(b'lat\xe9')
    odd.mkdir()
    f.rename(odd/os.fsdecode(b'x\xff.jpg'))
    assert len(get_image_files(merge_datasets(two, tmp_path/'all').dest))==18
    CleaningJournal(two['Ben']).mark(sorted((two['Ben']/'black').iterdir())[0], 'teddy')
    (tmp_path/'link').symlink_to(two['Ben'])
    seen = merge_datasets([two['Ada'], tmp_path/'link'], labels=dict(blak='black'))
    assert any('link holds 1 decision' in s for s in seen.notes)
    assert "There is no class 'blak', which `labels` names." in seen.notes
    odd.rename(two['Ada']/'Ba\u0308r')
    (two['Ben']/'black').rename(two['Ben']/'B\xe4r')
    merged = merge_datasets(two, tmp_path/'b').dest
    assert (merged/'B\xe4r').is_dir() and not (merged/'Ba\u0308r').exists()
    for bad in 'merged.csv', '../x':
        with pytest.raises(InputError, match='the label'): merge_datasets(two, labels=dict(black=bad))
