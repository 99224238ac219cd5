"Download, where it is hardest: a hostile server, processes that die at every step, a full disk, Ctrl-C, two at once."
import asyncio, errno, hashlib, io, json, os, re, signal, subprocess, sys, tempfile, textwrap, time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from bearclass.core import InputError
from bearclass.gather import download as dl, manifest
from bearclass.gather.download import check_label, download, judge, read_report, retry_failed
from bearclass.gather.fetch import Fetched, FetchRules
from bearclass.gather.manifest import append_rows, latest_rows, read_manifest
from conftest import REAL, here_env, needs
from hostile import HostileServer, hostile_list, jpeg

ROOT = Path(__file__).resolve().parent.parent
here = FetchRules(allow_local=True, tries=2)
quick = FetchRules(allow_local=True, tries=2, read_s=.5, total_s=1.)   # only for servers that hang: a busy machine may be slow to answer
forks = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system cannot fork')


def sha(data): return hashlib.sha256(data).hexdigest()
def pictures(root): return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob('*') if f.is_file() and f.suffix!='.jsonl'}
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
answer = st.one_of(st.integers(0, 5).map(lambda n: jpeg(n, 16)), st.sampled_from(reasons),
                   st.sampled_from([b'', b'<html>no</html>', jpeg(0, 16)[:300], b'GIF89a', b'\x89PNG\r\n\x1a\n\0']), st.binary(max_size=40))


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(answer, min_size=1, max_size=12), picks=st.lists(st.tuples(st.integers(0, 11), st.sampled_from(['black', 'teddy', 'Bär 🐻'])), max_size=24),
       side=st.sampled_from([None, 8]))
def test_the_books_balance(answers, picks, side):
    "Any mixture of answers, repeated addresses and classes: every address ends in one way, and a second run asks nobody but whom the first did not."
    fake = Fake({address(i): a for i,a in enumerate(answers)})
    lists = {}
    for i,label in picks: lists.setdefault(label, []).append(address(i%len(answers)))
    with tempfile.TemporaryDirectory() as d:
        root = Path(d)
        report = download(lists, root, fetch_all=fake, max_side=side)
        assert is_consistent(root, report) and report.addresses==len(picks)
        assert len(fake.asked)==len(set(fake.asked))          # an address is asked once, however often it stands there
        assert set(pictures(root))=={r['path'] for r in report.rows if r['status']=='saved'}
        assert len({r['source_sha256'] for r in report.rows if r['status']=='saved'})==report.saved
        first,before = set(fake.asked),pictures(root)
        fake.asked.clear()
        again = download(lists, root, fetch_all=fake, max_side=side)
        assert is_consistent(root, again) and pictures(root)==before
        assert set(fake.asked)=={u for u in first if fake.answers[u] in ('offline', 'cancelled')}
        assert [(r['status'], r['reason'], r['path']) for r in again.rows]==[(r['status'], r['reason'], r['path']) for r in report.rows]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12) | st.sampled_from(['CON', 'nul.txt', 'a\\b', '../x', 'teddy ', '\u2028', 'ﬀ', 'İ', '..', '~', '$HOME', '%TEMP%', 'manifest.jsonl']))
def test_a_label_is_refused_or_is_one_folder(label):
    try: name = check_label(label)
    except InputError: return
    with tempfile.TemporaryDirectory() as d:
        root = Path(d)/'root'
        dl._prepare(root, [name])
        assert [f.parent for f in root.iterdir()]==[root] and [f for f in Path(d).iterdir()]==[root]
        assert not re.search(r'[<>:"/\\|?*\0-\x1f]', name) and name==name.strip(' .')


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30), st.dictionaries(st.sampled_from(['content-disposition', 'content-type', 'location']), st.text(max_size=30), max_size=3))
def test_names_never_come_from_the_network(text, headers):
    data = jpeg(1, 16)
    def fake(urls, rules, on_done, **kw):
        for i,u in enumerate(urls): on_done(i, Fetched(u, 'http://x/../../etc/cron.d/'+text, True, 200, headers=headers, body=data))
    with tempfile.TemporaryDirectory() as d:
        root = Path(d)/'root'
        report = download(['http://x/../../'+text+'.exe'], root, 'teddy', fetch_all=fake)
        assert report.saved==1 and list(pictures(root))==[f'teddy/{sha(data)[:16]}.jpg']
        assert {f.name for f in Path(d).iterdir()}=={'root'}
        assert len(read_manifest(root))==3 and 'damaged' not in set(read_manifest(root).status)


# --- the hostile server

def test_hostile_list(tmp_path):
    "Every fault of the benchmark's list, in small: all that can be had is had, nothing else lies in the folder."
    with HostileServer() as server:
        urls = hostile_list(server, 20, 2)
        rules = FetchRules(allow_local=True, connections=24, per_host=24, read_s=2., total_s=4.)
        report = download(urls, tmp_path/'bears', 'bear', rules=rules)
        assert is_consistent(tmp_path/'bears', report)
        assert (report.saved, report.duplicate, report.failed)==(24, 2, 10)
        assert report.reasons=={'same picture':2, 'http 404':2, 'timeout':2, 'truncated':2, 'not an image':2, 'too large':2}
        assert set(pictures(tmp_path/'bears'))=={f'bear/{sha(jpeg(n))[:16]}.jpg' for n in (*range(20), 1000, 1001, 10_000, 10_001)}
        before = sum(server.hits.values())
        assert download(urls, tmp_path/'bears', 'bear', rules=rules).saved==24 and sum(server.hits.values())==before
        assert retry_failed(tmp_path/'bears', rules=rules).reasons=={'timeout':2, 'truncated':2}     # 404, HTML and size stay what they are
        assert sum(server.hits.values())==before+4


def test_single_faults(tmp_path):
    with HostileServer() as server:
        want = {'/svg':'not an image', '/empty':'empty', '/opt-out?tag=noai':'opted out', '/redirect-loop':'redirect loop', '/gzip-bomb':'too large',
                '/lying-length':'truncated', '/text-as-image/1.jpg':'not an image', '/png/7.jpg':'', '/webp/8':'', '/gif/9.png':'', '/wrong-type/3.jpg':''}
        report = download([server.url(p) for p in want], tmp_path, 'x', rules=here)
        assert {p: r['reason'] for p,r in zip(want, report.rows)}==want
        assert download([server.url('/drip?every=.2')], tmp_path, 'x', rules=quick).reasons=={'timeout':1}
        assert sorted(p.suffix for p in report.paths)==['.gif', '.jpg', '.png', '.webp']
        assert is_consistent(tmp_path, report)


def test_inside_a_running_loop(tmp_path):
    "As in a notebook, where an event loop runs already."
    with HostileServer() as server:
        async def cell(): return download([server.url(f'/ok/{i}.jpg') for i in range(4)], tmp_path, 'x', rules=here)
        assert asyncio.run(cell()).saved==4


def test_forgotten_stays_away(tmp_path):
    "By address, by the address it leads to, by content: before and after."
    from bearclass.gather.passport import forget_key
    with HostileServer() as server:
        (tmp_path/'forgotten.jsonl').write_text(json.dumps(dict(addresses=[forget_key(server.url('/ok/1.jpg')), forget_key(server.url('/ok/10005.jpg'))], contents=[sha(jpeg(3))]))+'\n')
        urls = [server.url(p) for p in ('/ok/1.jpg', '/redirect/5.jpg', '/ok/3.jpg', '/ok/4.jpg')]
        report = download(urls, tmp_path, 'x', rules=here)
        assert [r['reason'] for r in report.rows]==['forgotten']*3+[''] and server.hits['/ok/1.jpg']==0
        n = len(read_manifest(tmp_path))
        assert download(urls, tmp_path, 'x', rules=here).reasons=={'forgotten':3} and len(read_manifest(tmp_path))==n
        assert retry_failed(tmp_path, ['http 404'], rules=here).addresses==0
        small = download([server.url('/duplicate/3.jpg')], tmp_path, 'y', rules=here, max_side=32)      # what came counts, not what would be kept
        assert small.saved==1


def test_what_is_kept_small_is_known_by_what_came(tmp_path):
    first = download([address(0)], tmp_path, 'x', max_side=16, fetch_all=Fake({address(0): jpeg(0)}))
    row = first.rows[0]
    assert row['sha256']!=row['source_sha256']==sha(jpeg(0)) and first.paths[0].stem==row['sha256'][:16]
    more = download({'x':[address(1)], 'y':[address(2)]}, tmp_path, max_side=16, fetch_all=Fake({address(i): jpeg(0) for i in (1, 2)}))
    assert more.reasons=={'same picture':1, 'same picture, other class':1} and more.two_classes[0]['path']==row['path']
    moved = tmp_path/'y'/first.paths[0].name
    first.paths[0].rename(moved)                                            # the cleaner gave it another label
    assert download([address(0)], tmp_path, 'x', fetch_all=Fake({})).paths==[moved]


def test_keys_are_used_and_never_written(tmp_path):
    "A signed address is asked as it is, known again in a second run, and nowhere on the disk; without its key it is not asked."
    with HostileServer() as server:
        urls = [server.url(f'/ok/1.jpg?X-Amz-Signature=s3cr3t{i}') for i in range(2)] + [server.url('/404/1.jpg?token=s3cr3t9'), server.url('/500/1.jpg?api_key=s3cr3t8')]
        report = download(urls, tmp_path, 'x', rules=here)
        assert (report.saved, report.reasons)==(1, {'same picture':1, 'http 404':1, 'http 500':1})
        assert {r.target.split('=')[1] for r in server.requests}=={'s3cr3t0', 's3cr3t1', 's3cr3t9', 's3cr3t8'}
        assert all(b's3cr3t' not in f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()) and 's3cr3t' not in str(report)
        n = len(server.requests)
        assert download(urls, tmp_path, 'x', rules=here).asked==0
        assert retry_failed(tmp_path, ['http 404', 'http 500'], rules=here).addresses==0 and len(server.requests)==n


def test_a_line_for_each_class(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv('BEARCLASS_PROGRESS', raising=False)
    answers = {address(i): jpeg(i, 16) for i in range(3)}
    download({'black':[address(0), address(1)], 'teddy':[address(2), address(2)]}, tmp_path, fetch_all=Fake(answers))
    said = ''.join(capfd.readouterr())
    assert 'black: 2 saved, 0 duplicate, 0 failed' in said and 'teddy: 1 saved, 1 duplicate, 0 failed' in said


# --- crashes

class Died(BaseException): "Stands for the end of the process."


def dying(k, half=False):
    "Make the k-th call that changes the disk the last one of this process; `half` lets half of a write through first."
    n = Counter()
    def step():
        n['calls'] += 1
        if n['calls']==k: os._exit(9)
    def around(f):
        def wrapped(*a, **kw):
            step()
            out = f(*a, **kw)
            step()
            return out
        return wrapped
    os.fsync,os.replace = around(os.fsync), around(os.replace)
    real_write,real_fdopen = os.write, os.fdopen
    class Torn:
        "A file whose write may be the last thing that happens."
        def __init__(self, f): self.f = f
        def write(self, data):
            n['calls'] += 1
            if n['calls']==k:
                self.f.write(data[:len(data)//2])
                self.f.flush()
                os._exit(9)
            return self.f.write(data)
        def __getattr__(self, name): return getattr(self.f, name)
        def __enter__(self): return self
        def __exit__(self, *e): self.f.close()
    os.fdopen = lambda *a, **kw: Torn(real_fdopen(*a, **kw))
    def write(fd, data):   # lines of the manifest
        n['calls'] += 1
        if n['calls']==k:
            real_write(fd, bytes(data)[:len(data)//2])
            os._exit(9)
        return real_write(fd, data)
    os.write = write
    return n


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
    "The process dies at each write, fsync and rename in turn. What stands is whole; the next run asks for nothing that stands, and ends as if nothing had been."
    monkeypatch.setattr(dl, 'progress', lambda *a, **kw: SimpleNamespace(update=lambda n: None, close=lambda: None, disable=True))   # tqdm shares a lock with its forks
    clean = tmp_path/'clean'
    whole = download(crash_list, clean, max_side=side, fetch_all=Fake(crash_answers), n_workers=1)
    assert (whole.saved, whole.duplicate, whole.failed)==(4, 2, 1)
    for k in range(1, 200):
        root = tmp_path/f'{k}'
        status = forked(lambda: (dying(k), download(crash_list, root, max_side=side, fetch_all=Fake(crash_answers), n_workers=1)))
        assert status in (0, 9), f'crash point {k} ended with {status}'
        there = {sha(d) for n,d in pictures(root).items() if not Path(n).name.startswith('.')} if root.is_dir() else set()
        for n,d in pictures(root).items(): assert Path(n).name.startswith('.') or Path(n).stem==sha(d)[:16]
        fake = Fake(crash_answers)
        report = download(crash_list, root, max_side=side, fetch_all=fake, n_workers=1)
        assert is_consistent(root, report) and pictures(root)==pictures(clean), f'crash point {k}'
        assert (report.saved, report.duplicate, report.failed)==(4, 2, 1)
        asked_again = {judge(a, side).sha256 for u,a in crash_answers.items() if u in fake.asked and u!=address(5) and isinstance(a, bytes)}
        assert not asked_again & there, f'crash point {k}: a picture that stood was asked for again'
        assert read_manifest(root).status.eq('damaged').sum()<=1
        third = Fake(crash_answers)
        assert download(crash_list, root, max_side=side, fetch_all=third).saved==4 and not third.asked
        if status==0: break
    assert k>30 and status==0, k


def test_killed_for_real(tmp_path):
    "SIGKILL, from outside and at some moment, with a server: the folder is whole, the lock is gone, the rest comes."
    code = textwrap.dedent('''
        import sys; from bearclass.gather.download import download; from bearclass.gather.fetch import FetchRules
        print('up', flush=True)
        download([f'{sys.argv[1]}ok/{i}.jpg' for i in range(60)], sys.argv[2], 'bear', rules=FetchRules(allow_local=True, per_host=2))''')
    with HostileServer(latency=(.02, .03)) as server:
        for wait in .0, .15, .3:
            proc = subprocess.Popen([sys.executable, '-c', code, server.url(), str(tmp_path/'bears')], stdout=subprocess.PIPE, text=True, env=here_env())
            assert proc.stdout.readline()=='up\n'
            while not (tmp_path/'bears/manifest.jsonl').exists(): time.sleep(.01)
            time.sleep(wait)
            proc.kill()
            proc.wait()
        whole = {n for n in pictures(tmp_path/'bears') if not Path(n).name.startswith('.')}
        server.hits.clear()
        report = download([server.url(f'/ok/{i}.jpg') for i in range(60)], tmp_path/'bears', 'bear', rules=FetchRules(allow_local=True, per_host=30))
        assert report.saved==60 and is_consistent(tmp_path/'bears', report)
        assert sum(server.hits.values())==60-len(whole)
        assert not [n for n in pictures(tmp_path/'bears') if Path(n).name.startswith('.')]


@pytest.mark.skipif(os.name=='nt', reason='Windows sends no SIGINT to one process')
def test_ctrl_c(tmp_path):
    "SIGINT while ten pictures have come and one server hangs: soon over, all noted, and the next run goes on."
    code = textwrap.dedent('''
        import sys; from bearclass.gather.download import download; from bearclass.gather.fetch import FetchRules
        download(sys.argv[2:], sys.argv[1], 'bear', rules=FetchRules(allow_local=True, total_s=60, read_s=60))''')
    with HostileServer() as server:
        urls = [server.url(f'/ok/{i}.jpg') for i in range(6)] + [server.url(f'/hang/{i}.jpg') for i in range(3)]
        proc = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'bears'), *urls], stderr=subprocess.PIPE, text=True, env=here_env())
        end = time.monotonic()+30
        while time.monotonic()<end and (server.hits['/hang/2.jpg']==0 or len(list((tmp_path/'bears').rglob('*.jpg')))<6): time.sleep(.02)
        proc.send_signal(signal.SIGINT)
        _,said = proc.communicate(timeout=20)
        assert said.strip().endswith('KeyboardInterrupt') and proc.returncode!=0
        report = read_report(tmp_path/'bears')
        assert (report.saved, report.reasons)==(6, {'cancelled':3}) and is_consistent(tmp_path/'bears', report)
        assert '3 may work later' in str(report)
        again = download(urls, tmp_path/'bears', 'bear', rules=quick)
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
    "No room at the n-th fsync, of a picture or of the manifest: the run stops, says so, and goes on when there is room."
    answers = {address(i): jpeg(i, 16) for i in range(12)}
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', failing(os.fsync, when, errno.ENOSPC))
        report = download(list(answers), tmp_path, 'bear', fetch_all=Fake(answers), n_workers=1)
    assert is_consistent(tmp_path, report) and report.addresses==12
    assert 'disk is full' in str(report) and (when<9 and report.reasons['disk full']>0)
    assert not [n for n in pictures(tmp_path) if Path(n).name.startswith('.')]
    again = download(list(answers), tmp_path, 'bear', fetch_all=Fake(answers))
    assert again.saved==12 and is_consistent(tmp_path, again)


def test_one_file_that_cannot_be_written(tmp_path, monkeypatch):
    "A virus scanner holds one file: that one is noted, the others come."
    answers = {address(i): jpeg(i, 16) for i in range(5)}
    name,real = judge(jpeg(2, 16)).name, dl.write_atomic
    def stubborn(path, data):
        if Path(path).name==name: raise PermissionError(errno.EACCES, 'Permission denied')
        return real(path, data)
    with monkeypatch.context() as m:
        m.setattr(dl, 'write_atomic', stubborn)
        report = download(list(answers), tmp_path, 'bear', fetch_all=Fake(answers))
    assert (report.saved, report.reasons)==(4, {'not written':1}) and report.rows[2]['detail']=='Permission denied'
    assert download(list(answers), tmp_path, 'bear', fetch_all=Fake(answers)).saved==5


def test_read_only_is_found_out_before_any_request(tmp_path, monkeypatch):
    def refuse(*a, **kw): raise PermissionError(errno.EROFS, 'Read-only file system')
    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    fake = Fake({address(0): jpeg(0)})
    with pytest.raises(InputError, match='cannot be written to'): download([address(0)], tmp_path/'bears', 'bear', fetch_all=fake)
    assert not fake.asked


def test_a_fetcher_that_fails_leaves_balanced_books(tmp_path):
    def broken(urls, rules, on_done, **kw):
        on_done(0, Fetched(urls[0], ok=True, body=jpeg(0, 16)))
        raise RuntimeError('a bug somewhere')
    with pytest.raises(RuntimeError, match='a bug'): download([address(i) for i in range(3)], tmp_path, 'x', fetch_all=broken)
    report = read_report(tmp_path)
    assert (report.saved, report.reasons)==(1, {'cancelled':2}) and is_consistent(tmp_path, report)


def test_two_at_once(tmp_path):
    "Another process downloads into the folder: refused with a clear word, and allowed as soon as that process is gone, even by SIGKILL."
    code = 'import sys\nfrom pathlib import Path\nfrom bearclass.gather.download import _alone\nwith _alone(Path(sys.argv[1])):\n    print("held", flush=True)\n    sys.stdin.read()'
    proc = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here_env())
    assert proc.stdout.readline()=='held\n'
    fake = Fake({address(0): jpeg(0)})
    with pytest.raises(InputError, match='another download is writing'): download([address(0)], tmp_path, 'x', fetch_all=fake)
    assert not fake.asked
    append_rows(tmp_path, [dict(url=address(9), status='failed', reason='http 404')])       # readers and other writers are not locked out
    proc.kill()
    proc.wait()
    proc.stdin.close()
    proc.stdout.close()
    assert download([address(0)], tmp_path, 'x', fetch_all=fake).saved==1


def test_a_damaged_file_under_the_right_name_is_mended(tmp_path):
    name = judge(jpeg(0, 16)).name
    (tmp_path/'x').mkdir()
    (tmp_path/'x'/name).write_bytes(b'half')
    assert is_consistent(tmp_path, download([address(0)], tmp_path, 'x', fetch_all=Fake({address(0): jpeg(0, 16)})))


def test_memory_is_bounded(tmp_path, monkeypatch):
    "However slow the judges are, no more than 64 MB wait for them."
    most = Counter()
    real = dl._Run.arrived
    def watched(self, *a, **kw):
        real(self, *a, **kw)
        most['held'] = max(most['held'], self.held)
    monkeypatch.setattr(dl._Run, 'arrived', watched)
    monkeypatch.setattr(dl, 'judge', lambda data, **kw: time.sleep(.005) or dl.Judged('not an image', 'slow'))
    answers = {address(i): bytes(8*2**20) for i in range(30)}
    assert download(list(answers), tmp_path, 'x', fetch_all=Fake(answers), n_workers=1).failed==30
    assert most['held']<=72*2**20


# --- real pictures

@needs('odd_images')
@pytest.mark.parametrize('side', [None, 50])
def test_odd_images(tmp_path, side):
    "Whatever the file, an answer; what is kept opens as a picture; what is no picture of ours is not kept."
    from bearclass.images import open_rgb
    files = sorted(f for f in (REAL/'odd_images').iterdir() if f.suffix!='.md')
    report = download(files, tmp_path, 'odd', max_side=side)
    assert is_consistent(tmp_path, report) and report.addresses==len(files)
    got = {f.name: r['reason'] for f,r in zip(files, report.rows)}
    for n in 'decompression_bomb.gif decompression_bomb.ico hopper.ico avif_hopper.heif hopper_16bit.pgm truncated_jpeg.jpg zero_width.gif'.split():
        if n in got: assert got[n], n
    for n in 'hopper.jpg hopper.webp pil_sample_cmyk.jpg hopper_orientation_6.jpg 1_trns.png transparent.png hopper_gray.jpg sugarshack.mpo'.split():
        if n in got: assert not got[n], (n, got[n])
    for p,r in zip(report.paths, (r for r in report.rows if r['status']=='saved')):
        im = open_rgb(p)
        assert side is None or max(im.size)<=side
        assert Image.open(p).size==(r['width'], r['height'])
    up = next(r for f,r in zip(files, report.rows) if f.name=='hopper_orientation_6.jpg')
    if side: assert Image.open(tmp_path/up['path']).getexif().get(0x0112, 1)==1


@needs('bears')
def test_real_photos_are_all_kept(tmp_path):
    files = sorted((REAL/'bears').rglob('*.jpg'))[:80]
    report = download(files, tmp_path, 'bear')
    assert not report.failed and is_consistent(tmp_path, report)
    assert {sha(f.read_bytes()) for f in files}=={r['sha256'] for r in report.rows if r['status']=='saved'}


def test_light():
    "Importing it brings no torch, no pandas, no plots and no HTTP client."
    code = 'import sys, bearclass.gather.download; print(sorted({"torch", "fastai", "pandas", "matplotlib", "aiohttp", "ddgs"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=here_env()).stdout.strip()=='[]'


def test_nothing_of_a_forgotten_picture_is_written_again(tmp_path):
    "Neither by the same call, nor when the picture turns up at another address."
    from bearclass.gather.passport import forget, is_forgotten
    from bearclass.gather.search import ImageResult
    result = lambda i: ImageResult(address(i), title='Joe at home', creator='Joe Miller', page_url=f'https://joe.example/{i}')
    web = {address(i): jpeg(min(i, 1)) for i in range(3)}
    download([result(0), result(1)], tmp_path, 'x', fetch_all=Fake(web))
    assert manifest.manifest_path(tmp_path).read_text().count('Joe Miller')
    forget(tmp_path, address(0))
    forget(tmp_path, address(1))
    for _ in range(2):
        report = download([result(i) for i in range(3)], tmp_path, 'x', fetch_all=Fake(web))   # 2 is the picture of 1
        assert report.reasons=={'forgotten':3} and not pictures(tmp_path) and is_forgotten(tmp_path, url=address(2))
        text = manifest.manifest_path(tmp_path).read_text()
        assert 'Joe' not in text and 'joe.example' not in text and 'pictures.example' not in text
    assert report.asked==0 and read_report(tmp_path).addresses==0


@pytest.mark.parametrize('row', [dict(url=['x']), dict(label={}), dict(path=['q']), dict(sha256=['z']), dict(status='failed', reason=['timeout']), dict(status='failed', reason='timeout', title=['t']),
                                 dict(status=['saved']), dict(url=5), dict(path='../../../etc/passwd', sha256='0'*64), None])
def test_a_manifest_from_elsewhere(tmp_path, row):
    "Lines that somebody wrote by hand, or in malice, stop nothing."
    line = json.dumps({**dict(status='saved', url=address(9), label='x', path='x/y.jpg'), **row}) if row else '['*100_000
    manifest.manifest_path(tmp_path).write_text(line+'\n')
    assert is_consistent(tmp_path, download([address(0)], tmp_path, 'x', fetch_all=Fake({address(0): jpeg(0)})))
    report = read_report(tmp_path)
    assert report.saved==1 and str(report) and report._repr_html_() and is_consistent(tmp_path, retry_failed(tmp_path, ['removed'], fetch_all=Fake({address(9): 'http 404'})))


def test_a_duplicate_is_named_where_it_lies_now(tmp_path):
    "Once the label is put right, nobody is asked to put it right again."
    jobs,web = {'x':[address(0)], 'y':[address(1)]}, {address(i): jpeg(0) for i in (0, 1)}
    first = download(jobs, tmp_path, fetch_all=Fake(web))
    assert len(first.two_classes)==1
    first.paths[0].rename(tmp_path/'y'/first.paths[0].name)
    again = download(jobs, tmp_path, fetch_all=Fake({}))
    assert not again.two_classes and not read_report(tmp_path).two_classes and all((tmp_path/r['path']).exists() for r in again.rows)


def test_no_class_is_called_like_a_paper_of_the_dataset():
    for name in 'manifest.jsonl', 'Forgotten.jsonl', 'DATASHEET.md':
        with pytest.raises(InputError, match='own files'): check_label(name)


def test_rows_of_a_table(tmp_path):
    "pandas has NaN for nothing and floats for numbers."
    nan = float('nan')
    report = download([dict(url=address(0), title=nan, creator=nan, license='by', width=640., height=nan, query=nan)], tmp_path, 'x', fetch_all=Fake({address(0): jpeg(0)}))
    assert (report.saved, report.rows[0]['title'], report.rows[0]['license'])==(1, None, 'by')
