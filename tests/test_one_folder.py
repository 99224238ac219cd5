"One folder, two who want to write into it: each waits or says who is there, and nothing is lost."
import hashlib, subprocess, sys, textwrap, threading
from pathlib import Path

import pytest

from bearclass.clean.apply import apply_decisions
from bearclass.clean.decisions import CleaningJournal
from bearclass.core import InputError
from bearclass.gather.download import download, read_report
from bearclass.gather.fetch import Fetched
from bearclass.gather.quarantine import quarantine, undo_quarantine
from conftest import here_env
from hostile import jpeg

busy = 'another program is writing into'


def address(i): return f'http://pictures.example/{i}.jpg'
def contents(*folders):
    "Every picture, wherever it lies."
    files = [f for folder in folders if folder.is_dir() for f in folder.rglob('*.jpg')]
    return sorted(hashlib.sha256(f.read_bytes()).hexdigest() for f in files)


class Slow:
    "A fetcher that stops after its first picture until it is told to go on."
    def __init__(self): self.begun,self.go_on = threading.Event(),threading.Event()
    def __call__(self, urls, rules=None, on_done=None, **kw):
        for i,u in enumerate(urls):
            on_done(i, Fetched(u, u, True, 200, body=jpeg(int(Path(u).stem), 16)))
            if not i:
                self.begun.set()
                assert self.go_on.wait(300)


def begin(work, slow=None):
    "Start a thread; with a slow fetcher, wait until it has its first picture."
    thread = threading.Thread(target=work)
    thread.start()
    assert slow is None or slow.begun.wait(300)
    return thread


def fetch_at_once(urls, rules=None, on_done=None, **kw):
    for i,u in enumerate(urls): on_done(i, Fetched(u, u, True, 200, body=jpeg(int(Path(u).stem), 16)))


@pytest.fixture
def root(tmp_path):
    "Six pictures of two classes, and two decisions: one is no bear, one has the other label."
    root = tmp_path/'bears'
    lists = {'black':[address(i) for i in range(3)], 'teddy':[address(i) for i in range(3, 6)]}
    a,b = download(lists, root, fetch_all=fetch_at_once).paths[:2]
    journal = CleaningJournal(root)
    journal.mark(a, 'delete')
    journal.mark(b, 'teddy')
    return root


def ends_well(root, first, numbers):
    "Both succeed now, the books balance, and each picture lies somewhere, once."
    report = download([address(i) for i in numbers], root, 'black', fetch_all=fetch_at_once)
    assert report.saved==len(numbers) and report.saved+report.duplicate+report.failed==report.addresses
    apply_decisions(root)
    assert {*apply_decisions(root).status}=={'done'}
    assert read_report(root).reasons=={'removed':1} and read_report(root).saved==5+len(numbers)
    known = [hashlib.sha256(jpeg(i, 16)).hexdigest() for i in (*range(6), *numbers)]
    assert contents(root, Path(f'{root}_removed'))==sorted(known)
    assert first.issubset(contents(root, Path(f'{root}_removed')))


def test_a_download_and_an_apply_in_one_process(root):
    before,slow,got = {*contents(root)},Slow(),[]
    loading = begin(lambda: got.append(download([address(6), address(7)], root, 'black', fetch_all=slow)), slow)
    done = begin(lambda: got.append(apply_decisions(root)))   # it waits
    with pytest.raises(InputError, match=busy): download([address(8)], root, 'black', fetch_all=fetch_at_once)
    assert done.is_alive() and before.issubset(contents(root))   # nothing is moved under the download
    slow.go_on.set()
    loading.join()
    done.join()
    assert (got[0].saved, [*got[1].status])==(2, ['moved', 'moved'])
    ends_well(root, before, [6, 7, 8])


def test_a_quarantine_waits_for_a_download(root):
    slow,got = Slow(),[]
    loading = begin(lambda: got.append(download([address(6)], root, 'black', fetch_all=slow)), slow)
    f = next((root/'teddy').iterdir())
    aside = begin(lambda: got.append(quarantine([f], root, yes=True)))
    assert aside.is_alive() and f.exists()
    slow.go_on.set()
    loading.join()
    aside.join()
    assert got[0].saved==1 and [*got[1].status]==['moved'] and not f.exists()
    assert [*undo_quarantine(root).status]==['back'] and f.exists()


def held(root):
    "Another process that is at work in the folder until its input ends."
    code = textwrap.dedent('''
        import sys; from bearclass.dataset import Dataset
        with Dataset(sys.argv[1]).lock():
            print('held', flush=True)
            sys.stdin.read()''')
    process = subprocess.Popen([sys.executable, '-c', code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env=here_env())
    assert process.stdout.readline()=='held\n'
    return process


def apply_elsewhere(root):
    code = 'import sys; from bearclass.clean.apply import apply_decisions; print(*apply_decisions(sys.argv[1]).status)'
    return subprocess.Popen([sys.executable, '-c', code, str(root)], stdout=subprocess.PIPE, text=True, env=here_env())


def test_a_download_and_an_apply_in_two_processes(root):
    before,slow,got = {*contents(root)},Slow(),[]
    loading = begin(lambda: got.append(download([address(6), address(7)], root, 'black', fetch_all=slow)), slow)
    other = apply_elsewhere(root)
    try:
        with pytest.raises(subprocess.TimeoutExpired): other.wait(timeout=3)   # it waits, or is still starting
        assert before.issubset(contents(root))                                 # and has moved nothing
    finally: slow.go_on.set()
    loading.join()
    assert other.communicate()[0].split()==['moved', 'moved'] and got[0].saved==2
    ends_well(root, before, [6, 7])


def test_a_download_is_refused_while_another_process_is_at_work(root):
    before,process = {*contents(root)},held(root)
    try:
        with pytest.raises(InputError, match=busy): download([address(6)], root, 'black', fetch_all=fetch_at_once)
        assert contents(root)==sorted(before)
    finally: process.kill()   # the system opens its lock
    process.wait()
    process.stdin.close()
    process.stdout.close()
    ends_well(root, before, [6])
