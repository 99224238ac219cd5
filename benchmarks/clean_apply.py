"Seconds to plan, carry out and take back n decisions. `python benchmarks/clean_apply.py [n] [folder]`; the folder decides which disk is measured."
import os, sys, tempfile, time
from pathlib import Path
from bearclass.clean.apply import apply_decisions, bring_back, plan_decisions, undo_decision
from bearclass.clean.decisions import CleaningJournal
from bearclass.moves import carry_files


def pictures(root, n, kb=50):
    "n files of random bytes in four classes, named like pictures: moving does not open them."
    for i in range(n):
        f = root/f'class {i%4}'/f'{i:05}.jpg'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_bytes(os.urandom(kb*1024))
    return sorted(root.rglob('*.jpg'))


def timed(what, f, *args):
    t = time.perf_counter()
    out = f(*args)
    print(f'{what:52} {time.perf_counter()-t:8.2f} s')
    return out


def main(n=1000, folder=None):
    with tempfile.TemporaryDirectory(dir=folder) as d:
        root = Path(d)/'bears'
        files = pictures(root, 2*n)
        journal = CleaningJournal(root)
        choice = lambda i,f: 'delete' if i%2 else next(c for c in ('class 0', 'class 1') if c!=f.parent.name)
        timed(
            f'{n:,} decisions in one step, {2*n:,} pictures',
            journal.mark_many,
            [(f, choice(i, f)) for i,f in enumerate(files[::2])])
        timed('plan', plan_decisions, root)
        got = timed('apply', apply_decisions, root)
        assert set(got.status)=={'moved'}, got.status.value_counts()
        timed('apply again: nothing to do', apply_decisions, root)
        timed('table of decisions', lambda: journal.table())
        timed('undo', undo_decision, root)
        apply_decisions(root)
        back = timed(f'bring back {n//2:,}', bring_back, root)
        assert set(back.status)=={'back'}
        one_by_one = [
            (root/'class 0'/f.name, root/'x'/f.name, journal.sha_of(f))
            for f in sorted((root/'class 0').iterdir())[:n//4]]
        timed(f'{len(one_by_one)} moves, the disk waited for at each', lambda: [carry_files([m]) for m in one_by_one])
        timed(f'{len(one_by_one)} moves back in one batch', lambda: carry_files([(b, a, s) for a,b,s in one_by_one]))


if __name__=='__main__': main(*(int(a) for a in sys.argv[1:2]), *sys.argv[2:3])
