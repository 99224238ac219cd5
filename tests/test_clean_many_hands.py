"Decisions and datasets of several people: every vote counts once, nothing hostile counts, nothing is lost in a merge."
import hashlib, json, os, shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bearclass.core import InputError
from bearclass.gather.datasets import draw_bears
from bearclass.gather.duplicates import show_duplicates
from bearclass.gather.manifest import append_rows, read_manifest
from bearclass.gather.passport import forget, is_forgotten
from bearclass.gather.verify import get_image_files
from bearclass.learn import many_hands as m
from bearclass.learn.decisions import JOURNAL, CleaningJournal, add_decisions, save_decisions
from bearclass.learn.many_hands import fleiss_kappa, merge_datasets, merge_decisions
from conftest import REAL, needs

plain = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sha = lambda i: f'{i:064x}'


def row(i, to, by='', given='black', **more):
    return dict(sha256=sha(i), action='relabel' if to else 'delete', to=to, by=by, given_label=given, **more)


answers = st.lists(st.dictionaries(st.integers(0, 5), st.sampled_from(('black', 'grizzly', 'teddy', None)), max_size=6), min_size=1, max_size=5)


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
    repr(merged), merged.pairs(), merged.choices


@plain
@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=30))
def test_kappa_with_all_pairs_counted_by_hand(rows):
    counts = np.array(rows)
    agree = [np.mean([a==b for i,a in enumerate(v) for j,b in enumerate(v) if i!=j]) for r in counts if r.sum()>1 for v in [np.repeat(np.arange(3), r)]]
    got = fleiss_kappa(counts)
    assert got['n']==len(agree)
    if agree: assert np.isclose(got['agreement'], np.mean(agree))


def test_two_people_who_answer_all_agree_with_scikit_learn():
    "With two people of equal habits Fleiss' kappa is Scott's pi, which Cohen's comes close to."
    from sklearn.metrics import cohen_kappa_score
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 4000)
    b = np.where(rng.random(4000)<.3, rng.integers(0, 3, 4000), a)
    merged = merge_decisions(dict(Ada=[row(i, 'xyz'[v]) for i,v in enumerate(a)], Ben=[row(i, 'xyz'[v]) for i,v in enumerate(b)]))
    assert merged.pairs().kappa[0]==pytest.approx(cohen_kappa_score(a, b)) and merged.agreement().kappa['all']==pytest.approx(cohen_kappa_score(a, b), abs=.005)
    low,high = merged.agreement().loc['all', ['low', 'high']]
    assert low<.8<high and high-low<.04


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        true = rng.integers(0, 3, 60)
        said = [np.where(rng.random(60)<.2, (true+1)%3, true) for _ in range(2)]   # both right or both wrong the same way: .8*.8 + .2*.2
        a = merge_decisions({f'p{k}': [row(i, 'xyz'[v]) for i,v in enumerate(s)] for k,s in enumerate(said)}).agreement(n_boot=200)
        hits += a.low['all']<=.68<=a.high['all']
    assert hits>=50


hostile = ['', '{', '[]', '[1, 2]', 'null', '7', '"x"', '<html>', '{"bearclass": "decisions"}', '{"bearclass": "decisions", "schema": 1, "decisions": [{}, 5, null]}', '{"bearclass": "decisions", "schema": 2, "decisions": []}',
           json.dumps(dict(bearclass='decisions', schema=1, decisions=[dict(sha256=sha(1), action='relabel', to='../../etc')])), '['*100_000, '\0'*100, 'sha256,action\n1,2\n']


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
    assert merged.votes=={sha(1): {'Ada': ('label', 'teddy')}}


def test_names_of_people(tmp_path):
    odd = 'Zoë 🐻\n<b>', 'path', 'sha256', 'choice', '\ud800'
    merged = merge_decisions([[row(1, 'teddy', by=n)] for n in odd] + [[row(1, 'black', by=' ZOE\u0308 🐻\n<B>')]])   # the first again, in another spelling
    assert len(merged.people)==5 and merged.votes[sha(1)]['Zoë 🐻\n<b>']==('label', 'black')
    assert merged.choices.shape==(1, 5) and merged.table.choice[0]=='teddy'
    repr(merged)
    a = tmp_path/'1/decisions.json', tmp_path/'2/decisions.json'
    for k,f in enumerate(a):
        f.parent.mkdir()
        save_decisions(f, [row(1, ('teddy', 'black')[k])])
    assert merge_decisions(a).people==['decisions', 'decisions (2)']   # two files of one name, nobody said who: two people


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
        assert merge_decisions([source]).votes=={journal.sha_of(f): dict(Ada=('label', 'teddy'), Ben=('label', 'grizzly'))}


def test_from_votes_to_moved_files(tmp_path):
    "Files of friends, a vote, a choice, the journal, the move; and what is open goes round again as a page or widget."
    apply = pytest.importorskip('bearclass.learn.apply')
    root = draw_bears(tmp_path/'bears', 4, size=64).root
    a,b,c,d,*_ = files = list(get_image_files(root))
    key = [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    say = lambda who, *said: save_decisions(tmp_path/f'{who}.json', [dict(sha256=k, action='delete' if t=='delete' else 'relabel', to=None if t=='delete' else t, given_label='black') for k,t in zip(key, said)], 'bears', who)
    merged = merge_decisions([say('Ada', 'teddy', 'delete', 'teddy', 'teddy'), say('Ben', 'teddy', 'delete', 'grizzly'), say('Eve', 'black', 'delete', 'black')], root=root)
    issues = merged.to_issues()
    assert [Path(p) for p in issues.path]==[a, c] or [Path(p) for p in issues.path]==[c, a]
    from bearclass.learn.clean import ImageCleaner
    from bearclass.learn.clean_page import cleaning_page
    assert ImageCleaner(issues, root).issues.shape[0]==2
    assert cleaning_page(issues, tmp_path/'vote.html', root).exists()
    merged.choose(key[2], 'grizzly')
    done = apply.apply_decisions(root, merged.to_decisions())
    assert set(done.status)=={'moved'} and len(done)==3
    assert (root/'teddy'/a.name).exists() and (apply.removed_folder(root)/'black'/b.name).exists() and (root/'grizzly'/c.name).exists() and d.exists()
    assert 'chosen' in CleaningJournal(root).in_force()[key[2]]['reason']


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    "Two students' datasets, drawn once."
    here = tmp_path_factory.mktemp('drawn')
    for i,k in enumerate(('Ada', 'Ben')): draw_bears(here/k/'bears', 3, seed=i, size=64)
    return here


@pytest.fixture
def two(drawn, tmp_path): return {k: shutil.copytree(drawn/k, tmp_path/k)/'bears' for k in ('Ada', 'Ben')}


def everything(roots): return {f: f.read_bytes() for r in roots.values() for f in sorted(r.rglob('*')) if f.is_file()}


def test_one_content_one_file(two, tmp_path):
    for f in sorted((two['Ada']/'black').iterdir()): shutil.copy(f, two['Ben']/'black'/f'mine {f.name}')
    shutil.copy(sorted((two['Ada']/'teddy').iterdir())[0], two['Ada']/'teddy/again.jpg')
    before = everything(two)
    done = merge_datasets(two, tmp_path/'all')
    assert everything(two)==before
    files = get_image_files(done.dest)
    assert len(files)==len({f.read_bytes() for f in files})==18 and len(done.table)==22
    assert {f.stem for f in files}=={hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files}
    assert (done.table.status=='copied').sum()+done.table.status.str.startswith('same content as Ada/').sum()==22
    assert read_manifest(done.dest).detail.value_counts()['brought by Ada, Ben']==3


def test_disputed_pictures_stay_out_on_both_sides(two, tmp_path):
    f = sorted((two['Ada']/'black').iterdir())[0]
    shutil.copy(f, two['Ben']/'teddy/x.jpg')
    shutil.copy(f, two['Ben']/'black/y.jpg')                                      # two say black, one says teddy: still disputed
    done = merge_datasets(two, tmp_path/'all')
    assert done.table.status.value_counts().to_dict()=={'copied': 17, 'left out: labels disagree': 3}
    assert f.read_bytes() not in {g.read_bytes() for g in get_image_files(done.dest)}
    assert set(done.disagreements.who_a)|set(done.disagreements.who_b)=={'Ada', 'Ben'} and done.disagreements.left_out.all()
    assert show_duplicates(done.disagreements, 1).shape==(1, 2)


def test_forgotten_pictures_stay_out(two, tmp_path):
    "By content, and by the address of another copy of it; and the merged dataset goes on keeping them out."
    f,g,*_ = sorted((two['Ada']/'black').iterdir())
    shutil.copy(f, two['Ben']/'black/x.jpg')
    forget(two['Ben'], two['Ben']/'black/x.jpg')
    append_rows(two['Ada'], [dict(status='saved', url='https://x.example/g.jpg', label='black', path=f'black/{g.name}', sha256=hashlib.sha256(g.read_bytes()).hexdigest())])
    forget(two['Ben'], 'https://x.example/g.jpg', unseen=True)
    done = merge_datasets(two, tmp_path/'all')
    assert done.table.status.value_counts().to_dict()=={'copied': 16, 'left out: forgotten in Ben': 2}
    assert is_forgotten(done.dest, sha256=hashlib.sha256(f.read_bytes()).hexdigest()) and is_forgotten(done.dest, url='https://x.example/g.jpg')
    assert f.name not in (done.dest/'merged.csv').read_text()


def test_what_is_no_picture_is_listed(two, tmp_path):
    (two['Ada']/'black/broken.jpg').write_bytes(b'no picture')
    shutil.copy(sorted((two['Ada']/'black').iterdir())[0], two['Ada']/'loose.jpg')
    if os.name!='nt':
        (two['Ben']/'black/link.jpg').symlink_to(sorted((two['Ada']/'teddy').iterdir())[0])
        (two['Ben']/'teddy/new\nline \ud83d.jpg'.encode('utf-8', 'replace').decode()).write_bytes(b'')
    done = merge_datasets(two, tmp_path/'all')
    out = done.table[done.table.status.str.startswith('left out')]
    assert sorted(p.split('/')[-1] for p in out.path)[:2]==['broken.jpg', 'link.jpg'] and 'in no class folder' in out.status[out.path=='loose.jpg'].item()
    assert len(get_image_files(done.dest))==18
    assert not any(str(tmp_path) in s for s in done.table.status)


def test_a_file_that_goes_or_changes_while_it_is_copied(two, tmp_path, monkeypatch):
    "It is named, and the others are copied."
    a,b,c,*_ = sorted((two['Ada']/'black').iterdir())
    real = m._make

    def meanwhile(*args):
        a.unlink()
        b.write_bytes(b'another picture')
        return real(*args)
    monkeypatch.setattr(m, '_make', meanwhile)
    done = merge_datasets(two, tmp_path/'all')
    assert done.table.status.str.startswith('failed: ').sum()==2 and 'it has changed since' in ' '.join(done.table.status)
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


def test_decisions_that_wait(two):
    CleaningJournal(two['Ben']).mark(get_image_files(two['Ben'])[0], 'teddy')
    assert any('Ben holds 1 decision' in s for s in merge_datasets(two).notes)


def test_a_test_set_of_one_in_the_hands_of_another(two):
    f = sorted((two['Ada']/'black').iterdir())[0]
    (two['Ada'].with_name('bears_test')/'black').mkdir(parents=True)
    shutil.copy(f, two['Ben']/'black/x.jpg')
    f.rename(two['Ada'].with_name('bears_test')/'black'/f.name)
    assert any('1 picture of the test set that Ada' in s for s in merge_datasets(two).notes)


def test_a_thousand_labels_are_none(tmp_path):
    many = [row(i, f'label {i}') for i in range(1001)]
    merged = merge_decisions(dict(Ada=[row(1, 'teddy')], Eve=many))
    assert merged.sources.decisions.tolist()==[1, 0] and '1,001 different labels' in merged.sources.reason[1]


def test_decisions_about_what_was_removed_still_count(tmp_path):
    root = draw_bears(tmp_path/'bears', 2, size=64).root
    f = get_image_files(root)[0]
    key = hashlib.sha256(f.read_bytes()).hexdigest()
    away = tmp_path/'bears_removed/black'
    away.mkdir(parents=True)
    f.rename(away/f.name)
    merged = merge_decisions([[dict(sha256=key, action='keep')]], root=root)
    assert merged.votes=={key: {'source 1': ('label', 'black')}} and merged.paths[key]==away/f.name


def test_nearly_the_same_class(two, tmp_path):
    (two['Ben']/'teddy').rename(two['Ben']/'teddys')
    seen = merge_datasets(two)
    assert any("'teddy' and 'teddys' may mean the same" in s for s in seen.notes)
    assert len({f.parent.name for f in get_image_files(merge_datasets(two, tmp_path/'all', labels=dict(teddys='teddy')).dest)})==3
    with pytest.raises(InputError, match='the label'): merge_datasets(two, tmp_path/'b', labels=dict(teddys='../x'))


def test_one_that_names_folders_alike(two):
    assert list(merge_datasets(list(two.values())).roots)==['Ada/bears', 'Ben/bears']


@needs('bears')
def test_real_bears_in_three_hands(tmp_path):
    "Photos dealt to three students, some to two of them, some under a wrong label: all of it is found."
    files,rng = list(get_image_files(REAL/'bears'))[::3],np.random.default_rng(0)
    assert len(files)>30
    labels,wrong,shared = sorted({f.parent.name for f in files}),set(),set()
    for i,f in enumerate(files):
        for k in rng.choice(3, 1+(i%4==0), replace=False):
            label = f.parent.name
            if i%12==0 and f in shared:
                label = next(l for l in labels if l!=label)
                wrong.add(hashlib.sha256(f.read_bytes()).hexdigest())
            shared.add(f)
            (tmp_path/f's{k}'/label).mkdir(parents=True, exist_ok=True)
            shutil.copy(f, tmp_path/f's{k}'/label/f'{i}{f.suffix}')
    seen = merge_datasets([tmp_path/f's{k}' for k in range(3)], tmp_path/'all')
    out = set(seen.table.sha256[seen.table.status=='left out: labels disagree'])
    assert wrong and wrong<=out
    assert len(get_image_files(tmp_path/'all'))==len({hashlib.sha256(f.read_bytes()).hexdigest() for f in files}-out)


def test_one_folder_has_one_voice(tmp_path):
    "Named as folder, as journal, or opened: it counts once."
    f = tmp_path/'bears/black/0.png'
    f.parent.mkdir(parents=True)
    f.write_bytes(b'bear')
    journal = CleaningJournal(tmp_path/'bears')
    journal.mark(f, 'delete')
    merged = merge_decisions([journal.root, journal.path, journal, str(journal.root)])
    assert (merged.people, len(merged.decided))==(['bears'], 0) and merged.sources.reason.str.startswith('the same file').sum()==3


def test_labels_and_names_of_any_kind(tmp_path):
    "A class called `all`; what looks like a formula; two hundred voters, one with a very long name."
    import matplotlib.pyplot as plt
    from bearclass.learn.many_hands import plot_agreement, show_disagreements
    sha = 'ab'*32
    merged = merge_decisions({r'$\frac$':[dict(sha256=sha, action='relabel', to='all', given_label=r'$\bad$')], 'Ben':[dict(sha256=sha, action='keep', to=r'$\bad$')]})
    assert '2 people' in repr(merged)
    show_disagreements(merged.disagreements)[0].figure.canvas.draw()
    plot_agreement(*merged.answer_pairs()).figure.canvas.draw()
    plt.close('all')
    many = merge_decisions({f'voter {i}'+'x'*3000*(not i): [dict(sha256=sha, action='delete')] for i in range(200)})
    assert len(many.to_decisions()[0]['by'])<300 and many.to_decisions()[0]['by'].endswith('and 188 more')


def test_datasets_with_odd_names(two, tmp_path):
    "Bytes that are no text, letters that are encoded in two ways, names of files that a dataset has, a root behind a link."
    if os.name=='nt': pytest.skip('these names cannot be there')
    f = sorted((two['Ada']/'black').iterdir())[0]
    odd = two['Ada']/os.fsdecode(b'lat\xe9')
    odd.mkdir()
    f.rename(odd/os.fsdecode(b'x\xff.jpg'))
    assert len(get_image_files(merge_datasets(two, tmp_path/'all').dest))==18
    CleaningJournal(two['Ben']).mark(sorted((two['Ben']/'black').iterdir())[0], 'teddy')
    (tmp_path/'link').symlink_to(two['Ben'])
    seen = merge_datasets([two['Ada'], tmp_path/'link'], labels=dict(blak='black'))
    assert any('link holds 1 decision' in s for s in seen.notes) and "There is no class 'blak', which `labels` names." in seen.notes
    with pytest.raises(InputError, match="called 'merged.csv'"): merge_datasets(two, tmp_path/'b', labels=dict(black='merged.csv'))
    odd.rename(two['Ada']/'Ba\u0308r')
    (two['Ben']/'black').rename(two['Ben']/'B\xe4r')
    with pytest.raises(InputError) as e: merge_datasets(two, tmp_path/'b')
    assert r"{'Ba\u0308r': 'B\xe4r'}" in str(e.value)
    for bad in 5, {'a\ud800':two['Ada'], 'a\ud801':two['Ben']}:
        with pytest.raises(InputError): merge_datasets(bad)
    with pytest.raises(InputError, match='labels of type list'): merge_datasets(two, labels=['teddy'])
