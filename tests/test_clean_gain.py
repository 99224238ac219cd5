"What cleaning bought: intervals that keep their promise, decisions weighed right, before and after the files have moved, on real photos."
import shutil
from pathlib import Path
import numpy as np
import pytest

from conftest import REAL, needs
from bearclass.core import InputError, MissingError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))


def clouds(n, rng, K=3, D=12, apart=1.9):
    y = rng.integers(0, K, n)
    return rng.normal(size=(n, D))+apart*np.eye(K, D)[y], y


def spoilt(y, k, rng, K=3):
    out,wrong = y.copy(),rng.permutation(len(y))[:k]
    out[wrong] = (y[wrong]+rng.integers(1, K, k))%K
    return out


def one_cleaning(seed, mend, n=150, n_kept=100, k=20, refits=16):
    "(interval of the error, p, verdict) of a pretended cleaning: mended rightly, or mistakes exchanged for as many others."
    from bearclass.learn.cleaning_gain import TwoHeads, _verdict, gain_interval, sign_test
    rng = np.random.default_rng(seed)
    (x,y),(xk,yk) = clouds(n, rng),clouds(n_kept, rng)
    before = spoilt(y, k, rng)
    after = {'right':y, 'exchanged':spoilt(y, k, rng), 'wrong':spoilt(y, 2*k, rng)}[mend]
    two = TwoHeads(x, y if mend=='wrong' else before, after, xk, yk, 3)
    d = two.difference(two.first, two.second)[0]
    i,p = gain_interval(d, two.replays(refits, seed)[0], resamples=1000, seed=seed),sign_test(int((d>0).sum()), int((d<0).sum()))
    return i, p, _verdict(i, p, .95)


def test_intervals_of_a_cleaning_that_bought_nothing_span_zero(one_thread):
    "benchmarks/clean_gain.py measures it with more seeds; 60 here: 5 % expected, 2.8 % is one standard deviation."
    found = [one_cleaning(s, 'exchanged') for s in range(60)]
    assert np.mean([not i.spans_zero() for i,*_ in found]) <= .135
    assert np.mean([v!='cannot tell yet' for *_,v in found]) <= .135
    assert np.mean([not i.low_asked<=0<=i.high_asked for i,*_ in found]) > np.mean([not i.spans_zero() for i,*_ in found])
    assert abs(np.mean([i.value for i,*_ in found])) < .02
    assert np.mean([i.sd_learnt>0 for i,*_ in found]) > .5


def test_cleanings_that_help_and_that_hurt_are_called_so(one_thread):
    help_ = [one_cleaning(s, 'right', n=300, n_kept=600, k=120) for s in range(8)]
    hurt = [one_cleaning(s, 'wrong', n=300, n_kept=600, k=60) for s in range(8)]
    assert [v for *_,v in help_].count('helped') >= 5 and 'hurt' not in [v for *_,v in help_]
    assert [v for *_,v in hurt].count('hurt') >= 5 and 'helped' not in [v for *_,v in hurt]


def test_too_few_pictures_cannot_tell():
    for s in range(5): assert one_cleaning(s, 'right', n_kept=5)[2] == 'cannot tell yet'
    assert one_cleaning(0, 'right', n_kept=1)[2] == 'cannot tell yet'


def test_a_single_newton_step_agrees_with_refits(one_thread):
    from bearclass.learn.cleaning_gain import TwoHeads, one_step_effects, take_back
    rng = np.random.default_rng(5)
    (x,y),(xk,yk) = clouds(120, rng, D=300, apart=4.),clouds(80, rng, D=300, apart=4.)   # more features than pictures
    before,after = spoilt(y, 40, rng),y.copy()
    after[:15] = -1
    two = TwoHeads(x, before, after, xk, yk, 3)
    rows = np.flatnonzero(before!=after)
    exact = np.array([take_back(two, [r])[1] for r in rows])
    rough = one_step_effects(two, rows)
    assert np.corrcoef(exact, rough)[0, 1] > .9
    assert .5 < np.polyfit(exact, rough, 1)[0] < 1.5


def noisy_digits(tmp_path, share=.2, digits=(3, 8)):
    "(folder, {sha256: true label}, DataLoaders): real handwriting of which a share lies in the wrong folder."
    from bearclass.gather.datasets import digits_folder
    from bearclass.gather.verify import get_image_files
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.splits import content_sha256, parent_name
    root = digits_folder(tmp_path/'digits', digits=digits)/'train'
    truth = {content_sha256(f): parent_name(f) for f in get_image_files(root)}
    files,rng = get_image_files(root),np.random.default_rng(1)
    for i in rng.permutation(len(files))[:round(share*len(files))]:
        f = files[i]
        f.rename(root/next(str(d) for d in digits if str(d)!=parent_name(f))/f'{parent_name(f)}-{f.name}')
    return root, truth, from_folder(root, size=32, bs=16, valid_pct=.4)


def mend(root, truth, files, **kw):
    from bearclass.learn.decisions import CleaningJournal
    from bearclass.learn.splits import content_sha256
    return CleaningJournal(root).mark_many([(f, truth[content_sha256(f)]) for f in files], **kw)


def wrong_of(files, truth):
    from bearclass.learn.splits import content_sha256, parent_name
    return [Path(f) for f in files if truth[content_sha256(f)]!=parent_name(f)]


def told(g): return g.verdict, g.n, g.wrong_before, g.wrong_after, len(g.decisions), g.learnt_from


@pytest.fixture
def same_eyes(monkeypatch):
    "One body for every call, so that answers can be compared: patches cut once."
    from types import SimpleNamespace
    from torch import nn
    import bearclass.learn.cleaning_gain as gain
    from bearclass.learn.issues import patch_body
    kept = {}
    def choose(learn, dls, method, weights, seed):
        if not kept: kept['body'] = nn.Sequential(patch_body(dls), nn.Identity())
        return SimpleNamespace(model=kept['body'], dls=dls), 'patches', ''
    monkeypatch.setattr(gain, '_body_for', choose)


def test_the_same_before_and_after_the_files_move(tmp_path, same_eyes):
    "Decisions, then apply, a learner made anew, a second round, and undo: the replay goes by content."
    from bearclass.learn.apply import apply_decisions, undo_decision
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.cleaning_gain import cleaning_gain, replay_decisions
    from bearclass.learn.decisions import CleaningJournal
    root,truth,dls = noisy_digits(tmp_path)
    wrong = wrong_of(dls.train_ds.items, truth)
    mend(root, truth, wrong[:-4])
    good = [f for f in dls.train_ds.items if f not in wrong]
    CleaningJournal(root).mark_many([(f, 'delete') for f in good[:3]])
    plain = told(cleaning_gain(dls, refits=20))
    assert plain[0]=='helped' and plain[4]==len(wrong)-1
    done = apply_decisions(root)
    assert (done.status=='moved').sum() == len(wrong)-1
    assert told(cleaning_gain(dls, root, refits=20)) == plain                                    # the old learner, its files gone
    new = from_folder(root, size=32, bs=16, valid_pct=.4)
    assert len(new.train_ds)+len(new.valid_ds) == len(truth)-3
    assert told(cleaning_gain(new, refits=20)) == plain                                          # a new one, which never saw the removed
    before = replay_decisions(dls, root).set_index('sha256').before
    last = mend(root, truth, wrong[-4:])                                                         # a second round
    apply_decisions(root)
    second = replay_decisions(new, root).set_index('sha256')
    assert (second.before==before[second.index]).all()                                           # before is before the first round
    assert (second.before!=second.after).sum() == len(wrong)+3
    undo_decision(root, last)
    assert told(cleaning_gain(dls, root, refits=20))[:5] == plain[:5]                            # taken back: as after the first round


def test_a_decision_changed_twice_counts_once(tmp_path):
    from bearclass.learn.apply import apply_decisions
    from bearclass.learn.cleaning_gain import replay_decisions
    from bearclass.learn.decisions import CleaningJournal
    from bearclass.learn.splits import content_sha256
    root,truth,dls = noisy_digits(tmp_path)
    f = Path(dls.train_ds.items[0])
    sha,was = content_sha256(f),f.parent.name
    other = '8' if was=='3' else '3'
    j = CleaningJournal(root)
    j.mark(f, other)
    apply_decisions(root)
    j.mark(sha, was)                                                       # a second look: it was right at first
    r = replay_decisions(dls, root).set_index('sha256').loc[sha]
    assert (r.before, r.after, r.touched) == (was, was, True)


def test_a_split_by_chance_knows_its_own_pictures(tmp_path):
    "Without a split by content the learner's list of files says the side; what it never saw is counted and said."
    from fastai.data.transforms import RandomSplitter
    from bearclass.learn.apply import apply_decisions
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.cleaning_gain import cleaning_gain, replay_decisions
    from bearclass.learn.decisions import CleaningJournal
    root,truth,_ = noisy_digits(tmp_path)
    dls = from_folder(root, size=32, bs=16, splitter=RandomSplitter(.4, seed=3))
    wrong = wrong_of(dls.train_ds.items, truth)
    mend(root, truth, wrong)
    good = [f for f in dls.train_ds.items if f not in wrong]
    CleaningJournal(root).mark_many([(f, 'delete') for f in good[:2]])
    apply_decisions(root)
    r = replay_decisions(dls, root)
    assert (r.side=='train').sum() == len(dls.train_ds) and r.side.notna().all()
    new = from_folder(root, size=32, bs=16, splitter=RandomSplitter(.4, seed=4))
    g = cleaning_gain(new, refits=0)
    assert any('2 decisions could not be replayed' in s and 'which side' in s for s in g.notes)


def test_pictures_that_have_gone_are_said(tmp_path):
    from bearclass.learn.cleaning_gain import cleaning_gain
    root,truth,dls = noisy_digits(tmp_path)
    wrong = wrong_of(dls.train_ds.items, truth)
    mend(root, truth, wrong)
    wrong[0].unlink()
    wrong[1].write_bytes(b'')                                              # damaged since: another content, which nothing was decided about
    with open(root/'cleaning.jsonl', 'a') as f: f.write('{"torn')
    g = cleaning_gain(dls, root, refits=0)
    assert any('2 decisions could not be replayed' in s and 'neither in the folder' in s for s in g.notes)
    assert len(g.decisions) == len(wrong)-2


def test_the_test_set_judges_and_its_opening_is_written_down(tmp_path):
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.cleaning_gain import cleaning_gain
    from bearclass.learn.holdout import put_away_test, read_openings
    root,truth,_ = noisy_digits(tmp_path)
    away = put_away_test(root, .3)
    dls = from_folder(root, size=32, bs=16, valid_pct=.2)
    mend(root, truth, wrong_of(dls.train_ds.items, truth))
    g = cleaning_gain(dls, refits=20)
    assert len(read_openings(root)) == 0                                   # nobody asked for it
    g = cleaning_gain(dls, on='test', refits=20)
    seen = read_openings(root)
    assert g.n == len(away.files) and seen.wrong.tolist() == [g.wrong_before, g.wrong_after]
    assert 'of the test set' in str(g) and 'written down' in str(g) and 'Opening number 2' in str(g)


@pytest.mark.parametrize('what', ['no journal', 'empty', 'one class', 'regression', 'no folder'])
def test_bad_input_is_named(tmp_path, what):
    from bearclass.learn.cleaning_gain import cleaning_gain
    from bearclass.learn.decisions import CleaningJournal
    root,truth,dls = noisy_digits(tmp_path)
    if what=='no journal':
        with pytest.raises(MissingError, match='no decisions'): cleaning_gain(dls)
    if what=='empty':
        (root/'cleaning.jsonl').write_text('not a line\n')
        with pytest.raises(MissingError, match='no decisions'): cleaning_gain(dls)
    if what=='one class':
        CleaningJournal(root).mark_many([(f, '3') for f in dls.train_ds.items])
        with pytest.raises(InputError, match='1 class among'): cleaning_gain(dls)
    if what=='regression':
        from bearclass.learn.blocks import from_lists
        from bearclass.gather.verify import get_image_files
        files = get_image_files(root)
        mend(root, truth, wrong_of(files, truth)[:3])
        numbers = from_lists(root, files, [float(i%7)+.5 for i in range(len(files))], size=32, bs=16)
        with pytest.raises(InputError, match='one label a picture'): cleaning_gain(numbers, root)
    if what=='no folder':
        with pytest.raises(MissingError, match='no folder'): cleaning_gain(dls, root/'elsewhere')


def test_a_new_class_and_odd_names(tmp_path, same_eyes):
    "Relabelled into a class that no head knew before: only the head after can name it."
    from bearclass.gather.verify import get_image_files
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.apply import apply_decisions
    from bearclass.learn.cleaning_gain import cleaning_gain, choose_audit
    from bearclass.learn.decisions import CleaningJournal
    root,truth,_ = noisy_digits(tmp_path, share=0, digits=(0, 1, 8))
    for f in get_image_files(root/'8'): f.rename(root/'0'/f'8 \U0001f43b {f.name}')
    (root/'8').rmdir()
    dls = from_folder(root, size=32, bs=16, valid_pct=.4)
    eight = lambda fs: [f for f in fs if '8 \U0001f43b' in Path(f).name]
    new = 'acht \U0001f43b'
    audit = choose_audit(dls, 60)
    rows = [(f, new) for f in eight(dls.train_ds.items)]+[(f, new if f in eight(audit) else 'keep') for f in audit]
    CleaningJournal(root).mark_many(rows, new_class=True)
    g = cleaning_gain(dls, on=audit, refits=8, exact=0)
    assert g.verdict=='helped' and new in str(g) and g.groups.n[0]==len(eight(dls.train_ds.items))
    assert g.wrong_before >= len(eight(audit)) and any('is a new class' in o for o in g.notes)
    apply_decisions(root)
    made_anew = from_folder(root, size=32, bs=16, valid_pct=.4)
    assert new in made_anew.vocab
    for o in dls, made_anew: assert told(cleaning_gain(o, root, on=audit, refits=8, exact=0)) == told(g)


def test_decisions_that_were_all_taken_back(tmp_path):
    "Nothing has changed, and nobody is told that the pictures were kept."
    from bearclass.learn.apply import apply_decisions, undo_decision
    from bearclass.learn.cleaning_gain import cleaning_gain
    from bearclass.learn.decisions import CleaningJournal
    root,truth,dls = noisy_digits(tmp_path)
    step = mend(root, truth, wrong_of(dls.train_ds.items, truth))
    CleaningJournal(root).undo(step)
    step = mend(root, truth, wrong_of(dls.train_ds.items, truth))
    apply_decisions(root)
    undo_decision(root, step)
    g = cleaning_gain(dls, refits=5)
    assert g.verdict == 'nothing to learn from has changed' and g.errors.value == 0 == len(g.decisions)
    assert 'Every decision was taken back' in str(g) and 'was kept' not in str(g)
    mend(root, truth, wrong_of(dls.valid_ds.items, truth)[:1])
    assert '1 decision changed the label of validation pictures alone' in str(cleaning_gain(dls, refits=0))


def test_two_pictures_kept_out(tmp_path):
    "A list of any kind will do; no interval is made of answers that are all alike, and no more than everything can hide."
    from bearclass.learn.cleaning_gain import choose_audit, cleaning_gain
    root,truth,dls = noisy_digits(tmp_path)
    mend(root, truth, wrong_of(dls.train_ds.items, truth))
    audit = choose_audit(dls, 40)
    for i in range(0, 40, 2):
        g = cleaning_gain(dls, on=np.array(audit[i:i+2]), refits=2)
        assert g.verdict == 'cannot tell yet' and g.n == 2
        if not g.better+g.worse: break
    assert g.better+g.worse == 0 and 'interval' not in str(g) and 'up to 100.0%' in str(g)


@pytest.mark.parametrize('kind', ['merged', 'all removed', 'judged by one class'])
def test_classes_that_the_answer_says_nothing_about_are_named(tmp_path, kind):
    "Heads that choose among fewer classes are right more easily: without the note 'helped' would be believed."
    from bearclass.learn.cleaning_gain import cleaning_gain
    from bearclass.learn.decisions import CleaningJournal
    root,truth,dls = noisy_digits(tmp_path, digits=(3, 5, 8))
    of = lambda ds,c: [Path(f) for f in ds.items if f.parent.name==c]
    j,on = CleaningJournal(root),'validation'
    if kind=='merged': j.mark_many([(f, '3') for ds in (dls.train_ds, dls.valid_ds) for f in of(ds, '5')])
    if kind=='all removed': j.mark_many([(f, 'delete') for f in of(dls.train_ds, '5')])
    if kind=='judged by one class':
        mend(root, truth, wrong_of(dls.train_ds.items, truth))
        on = of(dls.valid_ds, '3')
    notes = ' '.join(cleaning_gain(dls, on=on, refits=0, exact=0).notes)
    assert ("Nothing is learnt of '5' any more" in notes) == (kind!='judged by one class')
    assert ("No picture that judges is of '5'," in notes) == (kind=='merged')
    assert ("No picture that judges is of '5' and '8'," in notes) == (kind=='judged by one class')


def test_three_hundred_decisions_and_features_that_say_nothing(one_thread):
    "The shortcut stands in for most refits; where features are all alike no decision matters."
    from bearclass.learn.cleaning_gain import TwoHeads, decision_effects, gain_interval
    rng = np.random.default_rng(3)
    (x,y),(xk,yk) = clouds(400, rng),clouds(80, rng)
    before = spoilt(y, 300, rng)
    t = decision_effects(TwoHeads(x, before, y, xk, yk, 3), exact=20)
    assert len(t) == 300 and t.refitted.sum() == 20 and t.loss.notna().all() and t.errors.notna().sum() == 20
    same = TwoHeads(np.ones((400, 6)), before, y, np.ones((80, 6)), yk, 3)
    i = gain_interval(same.difference(same.first, same.second)[0], same.replays(5)[0])
    assert np.isfinite([i.value, i.low, i.high]).all()
    assert decision_effects(same, exact=20).loss.abs().max() < .01


@needs('bears')
@needs('weights')
def test_real_bears(tmp_path, monkeypatch):
    "Two fifths of the grizzlies that are learnt from lie among the black bears; putting them back is worth much, and undoes the harm exactly."
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.cleaning_gain import cleaning_gain
    from bearclass.learn.decisions import CleaningJournal
    from bearclass.learn.train import image_learner
    monkeypatch.setenv('BEARCLASS_WEIGHTS', str(REAL/'weights'))
    root = tmp_path/'bears'
    shutil.copytree(REAL/'bears', root)
    dls = from_folder(root, size=96, bs=16, valid_pct=.4)
    grizzlies = [Path(f) for f in dls.train_ds.items if f.parent.name=='grizzly']
    moved = [f.rename(root/'black'/f'was grizzly {f.name}') for f in grizzlies[::5]+grizzlies[1::5]]
    learn = image_learner(from_folder(root, size=96, bs=16, valid_pct=.4), 'mobilenet_v2', verbose=False)
    CleaningJournal(root).mark_many([(f, 'grizzly') for f in moved])
    g = cleaning_gain(learn, refits=20)
    assert g.verdict=='helped' and g.errors.value>.02, str(g)
    assert len(g.decisions)==len(moved) and g.groups.what.tolist()==['black to grizzly']
    assert g.groups.errors[0]==g.wrong_before-g.wrong_after
    assert (g.decisions.loss>0).mean() > .6 and g.decisions.loss.sum() > 0
    assert g.n == len(learn.dls.valid_ds)
