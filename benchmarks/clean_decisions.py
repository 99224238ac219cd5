"""How long a click takes: the cleaning journal with 5,000 pictures and 5,000 lines, and merging the decisions of a class.

    python benchmarks/clean_decisions.py        # about half a minute on one core
    python benchmarks/clean_decisions.py --pictures 20000

The pictures are files of 20 kB of random bytes: the journal asks for their content alone. `.mark` waits until the disk has the line
(fsync), so beside it stands the bare cost of that: the same bytes appended and synced, nothing else.
"""
import argparse, os, statistics as st, tempfile, time
from pathlib import Path
import numpy as np
from bearclass.dataset import get_image_files
from bearclass.clean.decisions import JOURNAL, CleaningJournal, add_decisions
from bearclass.clean.votes import merge_decisions


def timed(f):
    t = time.perf_counter()
    f()
    return 1000*(time.perf_counter()-t)


def middle(ms): return f'{st.median(ms):.1f} ({min(ms):.1f} to {max(ms):.1f})'


def dataset(root, n):
    "Files in ten folders."
    rng = np.random.default_rng(0)
    for k in range(10): (root/f'class {k}').mkdir(parents=True)
    for i in range(n): (root/f'class {i%10}'/f'{i}.jpg').write_bytes(rng.bytes(20_000))
    return list(get_image_files(root))


def bare(path, line):
    "One line appended and synced."
    fd = os.open(path, os.O_WRONLY|os.O_CREAT|os.O_APPEND)
    os.write(fd, line)
    os.fsync(fd)
    os.close(fd)


def class_of(files, sha, n_people, n_each):
    "Decisions of several people about some of the pictures."
    rng = np.random.default_rng(1)
    pick = lambda k: [
        dict(
            sha256=sha[files[i]], action='relabel', to=f'class {rng.integers(10)}', given_label=files[i].parent.name,
            by=f'person {k}')
        for i in rng.choice(len(files), n_each, replace=False)]
    return [pick(k) for k in range(n_people)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--pictures', type=int, default=5000)
    n = p.parse_args().pictures
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)/'data'
        files = dataset(root, n)
        time.sleep(2.5)   # a folder that was changed a moment ago is looked at more often
        journal,rows = CleaningJournal(root),[]
        rows.append(('first `.where`: every picture read once', [timed(lambda: journal.where('0'*64))]))
        rows.append(
            (f'`.mark_many`, {n:,} pictures in one step', [timed(lambda: journal.mark_many([(f, 'keep') for f in files]))]))
        time.sleep(2.5)
        sha = {f: journal.sha_of(f) for f in files}
        clicks = [*zip(files[:200], ['delete', 'class 3']*100)]
        rows.append((f'`.mark` by path, journal of {n:,} lines', [timed(lambda: journal.mark(f, c)) for f,c in clicks]))
        rows.append(('`.mark` by sha256', [timed(lambda: journal.mark(sha[f], 'keep')) for f,_ in clicks]))
        line = (root/JOURNAL).read_bytes().splitlines(keepends=True)[-1]
        rows.append(
            ('the same line appended and synced, bare', [timed(lambda: bare(Path(tmp)/'bare', line)) for _ in clicks]))
        rows.append(('`.undo()`', [timed(journal.undo) for _ in range(50)]))
        rows.append(('`.where`', [timed(lambda: journal.where(sha[f])) for f,_ in clicks]))
        rows.append(('`.reload()`, nothing new', [timed(journal.reload) for _ in clicks]))
        rows.append(('`.in_force()`', [timed(journal.in_force) for _ in range(20)]))
        rows.append(('`.table()`', [timed(journal.table) for _ in range(3)]))
        rows.append(
            ('`CleaningJournal(root)`: all lines read', [timed(lambda: CleaningJournal(root)) for _ in range(5)]))
        people = class_of(files, sha, 20, n//10)
        rows.append(
            (f'`merge_decisions`, 20 people, {n//10} decisions each', [timed(lambda: merge_decisions(people)) for _ in range(3)]))
        merged = merge_decisions(people)
        rows.append(('`.agreement()`, 1,000 draws', [timed(merged.agreement) for _ in range(3)]))
        rows.append((f'`add_decisions`, {n//10} of them', [timed(lambda: add_decisions(root, people[0]))]))
    print('| | milliseconds, median (least to most) |\n| --- | --- |')
    for name,ms in rows: print(f'| {name} | {middle(ms) if len(ms)>1 else f"{ms[0]:.0f}"} |')


if __name__=='__main__': main()
