"Download, where it is hardest: a hostile server, processes that die at every step, a full disk, Ctrl-C, two at once."
import errno, hashlib, io, json, os, signal, subprocess, sys, tempfile, textwrap, time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

import bearclass.gather.download as dl
from bearclass.core import InputError
from bearclass.gather.download import download, read_report, retry_failed
from bearclass.gather.fetch import Fetched, FetchRules
from bearclass.gather.judge import judge_picture
from bearclass.manifest import manifest_path
from conftest import here_env
from hostile import HostileServer, hostile_list, jpeg

here = FetchRules(allow_local=True, tries=2)
quick = FetchRules(allow_local=True, tries=2, read_s=.5, total_s=1.)   # for servers that hang
forks = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system cannot fork')


def sha(data): return hashlib.sha256(data).hexdigest()
def pictures(root):
    files = [f for f in root.rglob('*') if f.is_file() and f.suffix!='.jsonl']
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in files}

def address(i): return f'http://pictures.example/{i}.jpg'


class Fake:
    "A `fetch_all` with an answer for each address: bytes, or a reason."
    def __init__(self, answers): self.answers,self.asked = answers, []
    def __call__(self, urls, rules=None, on_done=None, **kw):
        for i,u in enumerate(urls):
            self.asked.append(u)
            a = self.answers[u]
            on_done(i, Fetched(u, u, True, 200, body=a) if isinstance(a, bytes) else Fetched(u, reason=a))


def is_consistent(root, report):
    "The books balance, and the folder holds what they say and nothing else."
    assert report.saved+report.duplicate+report.failed==report.addresses==len(report.rows)
    assert sum(report.reasons.values())==report.duplicate+report.failed
    assert all(r['reason'] for r in report.rows if r['status']!='saved')
    for name,data in pictures(root).items():
        assert Path(name).stem==sha(data)[:16], f'{name} is not what its name says'
    assert {r['path'] for r in report.rows if r['status']=='saved'}<=set(pictures(root))
    for r in report.rows:
        if r['status']=='saved': assert sha((root/r['path']).read_bytes())==r['sha256']
    return True


# --- books

reasons = 'http 404', 'timeout', 'offline', 'cancelled', 'too large'
spoilt = [b'', b'<html>no</html>', jpeg(0, 16)[:300], b'GIF89a', b'\x89PNG\r\n\x1a\n\0']
answer = st.one_of(st.integers(0, 5).map(lambda n: jpeg(n, 16)), st.sampled_from(reasons), st.sampled_from(spoilt),
                   st.binary(max_size=40))
header = st.sampled_from(['content-disposition', 'content-type', 'location'])
pick = st.tuples(st.integers(0, 11), st.sampled_from(['black', 'teddy', 'Bär 🐻']))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(answers=st.lists(answer, min_size=1, max_size=12), picks=st.lists(pick, max_size=24),
       side=st.sampled_from([None, 8]))
def test_the_books_balance(answers, picks, side):
    "Whatever is answered, every address ends in one way, and a second run asks only whom the first did not."
    fake,lists = Fake({address(i): a for i,a in enumerate(answers)}), {}
    for i,label in picks: lists.setdefault(label, []).append(address(i%len(answers)))
    with tempfile.TemporaryDirectory() as d:
        root = Path(d)
        report = download(lists, root, fetch_all=fake, max_side=side)
        assert is_consistent(root, report) and report.addresses==len(picks)
        assert len(fake.asked)==len(set(fake.asked))          # an address is asked once, however often it stands there
        assert set(pictures(root))=={r['path'] for r in report.rows if r['status']=='saved'}
        first,before = set(fake.asked),pictures(root)
        fake.asked.clear()
        again = download(lists, root, fetch_all=fake, max_side=side)
        assert is_consistent(root, again) and pictures(root)==before
        assert set(fake.asked)=={u for u in first if fake.answers[u] in ('offline', 'cancelled')}
        said = lambda report: [(r['status'], r['reason'], r['path']) for r in report.rows]
        assert said(again)==said(report)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30), st.dictionaries(header, st.text(max_size=30), max_size=3))
def test_names_never_come_from_the_network(text, headers):
    data = jpeg(1, 16)
    def fake(urls, rules, on_done, **kw):
        on_done(0, Fetched(urls[0], 'http://x/../../etc/cron.d/'+text, True, 200, headers=headers, body=data))
    with tempfile.TemporaryDirectory() as d:
        report = download(['http://x/../../'+text+'.exe'], Path(d)/'root', 'teddy', fetch_all=fake)
        assert report.saved==1 and list(pictures(Path(d)/'root'))==[f'teddy/{sha(data)[:16]}.jpg']
        assert {f.name for f in Path(d).iterdir()}=={'root'}


# --- the hostile server

def test_hostile_list(tmp_path):
    "Every fault of the benchmark's list, in small: all that can be had is had, nothing else lies in the folder."
    root,rules = tmp_path/'bears', FetchRules(allow_local=True, connections=24, per_host=24, read_s=2., total_s=4.)
    with HostileServer() as server:
        urls = hostile_list(server, 20, 2)
        report = download(urls, root, 'bear', rules=rules)
        assert is_consistent(root, report) and (report.saved, report.duplicate, report.failed)==(24, 2, 10)
        twice = 'same picture', 'http 404', 'timeout', 'truncated', 'not an image', 'too large'
        assert report.reasons==dict.fromkeys(twice, 2)
        wanted = {f'bear/{sha(jpeg(n))[:16]}.jpg' for n in (*range(20), 1000, 1001, 10_000, 10_001)}
        assert set(pictures(root))==wanted
        before = sum(server.hits.values())
        assert download(urls, root, 'bear', rules=rules).saved==24 and sum(server.hits.values())==before
        assert retry_failed(root, rules=rules).reasons=={'timeout':2, 'truncated':2}   # no 404, HTML, size


def test_keys_are_used_and_never_written(tmp_path):
    "A signed address is asked as it is, known again later, and nowhere on the disk; without its key it is not asked."
    with HostileServer() as server:
        paths = [*(f'/ok/1.jpg?X-Amz-Signature=s3cr3t{i}' for i in range(2)), '/404/1.jpg?token=s3cr3t9']
        urls = [server.url(p) for p in paths]
        report = download(urls, tmp_path, 'x', rules=here)
        assert (report.saved, report.reasons)==(1, {'same picture':1, 'http 404':1})
        assert {r.target for r in server.requests}=={*paths}
        assert all(b's3cr3t' not in f.read_bytes() for f in tmp_path.rglob('*') if f.is_file())
        assert 's3cr3t' not in str(report)
        assert download(urls, tmp_path, 'x', rules=here).asked==0
        assert retry_failed(tmp_path, ['http 404'], rules=here).addresses==0 and len(server.requests)==3


# --- crashes

def dying(k):
    "Make the k-th call that changes the disk the last one of this process; half of a write goes through before."
    n = Counter()
    def step(before_the_end=lambda: None):
        n['calls'] += 1
        if n['calls']==k:
            before_the_end()
            os._exit(9)
    def around(f):
        def wrapped(*a, **kw):
            step()
            out = f(*a, **kw)
            step()
            return out
        return wrapped
    os.fsync,os.replace = around(os.fsync), around(os.replace)
    real_write,real_fdopen = os.write, os.fdopen
    def write(fd, data):   # lines of the manifest
        step(lambda: real_write(fd, bytes(data)[:len(data)//2]))
        return real_write(fd, data)
    class Torn(io.FileIO):   # a picture
        def write(self, data):
            step(lambda: io.FileIO.write(self, data[:len(data)//2]))
            return io.FileIO.write(self, data)
    os.write = write
    os.fdopen = lambda fd, mode='r', **kw: Torn(fd, mode) if 'b' in mode else real_fdopen(fd, mode, **kw)


def forked(f):
    "Run `f` in a copy of this process; its exit status."
    pid = os.fork()
    if pid==0:
        try: f()
        except BaseException: os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


crash_list = {'black':[address(i) for i in (0, 1, 2, 3)], 'teddy':[address(i) for i in (4, 5, 1)]}
crash_answers = {**{address(i): jpeg(i, 16) for i in range(4)}, address(4): 'http 404', address(5): jpeg(2, 16)}


@forks
@pytest.mark.parametrize('side', [None, 8])
def test_killed_anywhere_and_resumed(tmp_path, side, monkeypatch):
    "It dies at each write, fsync and rename in turn: what stands is whole, is not asked for again, and the rest comes."
    no_bar = SimpleNamespace(update=lambda n: None, close=lambda: None, disable=True)   # forks would share tqdm's lock
    monkeypatch.setattr(dl, 'progress', lambda *a, **kw: no_bar)
    def once(root):
        fake = Fake(crash_answers)
        report = download(crash_list, root, max_side=side, fetch_all=fake, n_workers=1)
        return fake.asked, report
    once(tmp_path/'clean')
    status = None
    for k in range(1, 200):
        root = tmp_path/f'{k}'
        status = forked(lambda: (dying(k), once(root)))
        assert status in (0, 9), f'crash point {k} ended with {status}'
        there = {Path(n): sha(d) for n,d in pictures(root).items() if not Path(n).name.startswith('.')}
        assert all(n.stem==h[:16] for n,h in there.items())
        asked,report = once(root)
        assert is_consistent(root, report) and pictures(root)==pictures(tmp_path/'clean'), f'crash point {k}'
        assert (report.saved, report.duplicate, report.failed)==(4, 2, 1)
        came = [crash_answers[u] for u in asked if u!=address(5)]
        again = {judge_picture(a, side).sha256 for a in came if isinstance(a, bytes)} & {*there.values()}
        assert not again, f'crash point {k}: a picture that stood was asked for again'
        assert not once(root)[0]
        if status==0: break
    assert k>30 and status==0, k


@pytest.mark.skipif(os.name=='nt', reason='Windows sends no SIGINT to one process')
def test_ctrl_c(tmp_path):
    "SIGINT while six pictures have come and one server hangs: soon over, all noted, and the next run goes on."
    code = textwrap.dedent('''
        import sys; from bearclass.gather.download import download; from bearclass.gather.fetch import FetchRules
        download(sys.argv[2:], sys.argv[1], 'bear', rules=FetchRules(allow_local=True, total_s=60, read_s=60))''')
    root = tmp_path/'bears'
    with HostileServer() as server:
        urls = [server.url(f'/ok/{i}.jpg') for i in range(6)] + [server.url(f'/hang/{i}.jpg') for i in range(3)]
        words = [sys.executable, '-c', code, str(root), *urls]
        proc = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=here_env())
        end = time.monotonic()+120
        ready = lambda: server.hits['/hang/2.jpg'] and len(list(root.rglob('*.jpg')))==6
        while time.monotonic()<end and not ready(): time.sleep(.02)
        proc.send_signal(signal.SIGINT)
        _,said = proc.communicate(timeout=120)
        assert said.strip().endswith('KeyboardInterrupt') and proc.returncode!=0
        report = read_report(root)
        assert (report.saved, report.reasons)==(6, {'cancelled':3}) and is_consistent(root, report)
        again = download(urls, root, 'bear', rules=quick)
        assert (again.saved, again.reasons, again.asked)==(6, {'timeout':3}, 3)


def failing(f, when, error):
    "`f`, but from its `when`-th call on the error."
    n = Counter()
    def wrapped(*a, **kw):
        n['calls'] += 1
        if n['calls']>=when: raise OSError(error, os.strerror(error))
        return f(*a, **kw)
    return wrapped


@pytest.mark.parametrize('when', range(1, 9))
def test_disk_full(tmp_path, monkeypatch, when):
    "No room at the n-th fsync, of a picture or of the manifest: the run stops, says so, and goes on later."
    answers = {address(i): jpeg(i, 16) for i in range(12)}
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', failing(os.fsync, when, errno.ENOSPC))
        report = download(list(answers), tmp_path, 'bear', fetch_all=Fake(answers), n_workers=1)
    assert is_consistent(tmp_path, report) and report.addresses==12
    assert 'disk is full' in str(report) and (when<9 and report.reasons['disk full']>0)
    assert not [n for n in pictures(tmp_path) if Path(n).name.startswith('.')]
    again = download(list(answers), tmp_path, 'bear', fetch_all=Fake(answers))
    assert again.saved==12 and is_consistent(tmp_path, again)


def test_read_only_is_found_out_before_any_request(tmp_path, monkeypatch):
    def refuse(*a, **kw): raise PermissionError(errno.EROFS, 'Read-only file system')
    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    fake = Fake({address(0): jpeg(0)})
    with pytest.raises(InputError, match='cannot be written to'):
        download([address(0)], tmp_path/'bears', 'bear', fetch_all=fake)
    assert not fake.asked


# --- real pictures


def test_nothing_of_a_forgotten_picture_is_written_again(tmp_path):
    "Neither by the same call, nor when the picture turns up at another address."
    from bearclass.gather.forget import forget, is_forgotten
    rows = [dict(url=address(i), creator='Joe Miller', page_url=f'https://joe.example/{i}') for i in range(3)]
    web = Fake({address(i): jpeg(min(i, 1)) for i in range(3)})   # 2 is the picture of 1
    download(rows[:2], tmp_path, 'x', fetch_all=web)
    assert manifest_path(tmp_path).read_text().count('Joe Miller')
    for i in range(2): forget(tmp_path, address(i))
    for _ in range(2):
        report = download(rows, tmp_path, 'x', fetch_all=web)
        assert report.reasons=={'forgotten':3} and not pictures(tmp_path)
        assert is_forgotten(tmp_path, url=address(2))
        text = manifest_path(tmp_path).read_text()
        assert 'Joe' not in text and 'joe.example' not in text and 'pictures.example' not in text
    assert report.asked==0 and retry_failed(tmp_path, ['http 404'], fetch_all=web).addresses==0


odd_rows = [dict(url=['x']), dict(label={}), dict(path=['q']), dict(sha256=['z']), dict(title=['t']),
            dict(status='failed', reason=['timeout']), dict(status=['saved']), dict(url=5),
            dict(path='../../../etc/passwd', sha256='0'*64), None]


@pytest.mark.parametrize('row', odd_rows)
def test_a_manifest_from_elsewhere(tmp_path, row):
    "Lines that somebody wrote by hand, or in malice, stop nothing."
    usual = dict(status='saved', url=address(9), label='x', path='x/y.jpg')
    line = json.dumps({**usual, **row}) if row else '['*100_000
    manifest_path(tmp_path).write_text(line+'\n')
    assert is_consistent(tmp_path, download([address(0)], tmp_path, 'x', fetch_all=Fake({address(0): jpeg(0)})))
    report = read_report(tmp_path)
    assert report.saved==1 and str(report) and report._repr_html_()
    gone = Fake({address(9): 'http 404'})
    assert is_consistent(tmp_path, retry_failed(tmp_path, ['removed'], fetch_all=gone))


