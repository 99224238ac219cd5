"""Addresses out to img2dataset and shards back: hostile shards, and the real program where there is one.

img2dataset lives in an environment of its own; name its Python to run the test that needs it:
    python3 -m venv /tmp/img2dataset && /tmp/img2dataset/bin/pip install "img2dataset==1.47.*"
    BEARCLASS_IMG2DATASET=/tmp/img2dataset/bin/python pytest tests/test_gather_many_machines.py"""
import hashlib, importlib.util, io, json, os, random, subprocess, sys, tarfile, tracemalloc
from pathlib import Path
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from bearclass.gather.fetch import FetchRules
from bearclass.manifest import append_rows, latest_rows
from bearclass.gather.many_machines import from_img2dataset, to_img2dataset
from bearclass.gather.forget import forget_key, forgotten_path
from bearclass.gather.search import ImageResult
from conftest import tree
from hostile import HostileServer, jpeg

LOCAL = FetchRules(allow_local=True, tries=1, read_s=2, connections=8)


def add(tar, name, data=b''):
    m = tarfile.TarInfo(name)
    m.size = len(data)
    tar.addfile(m, io.BytesIO(data))


def meta(n, label='teddy', data=None, **kw):
    sha = hashlib.sha256(data or jpeg(n)).hexdigest()
    return dict(url=f'https://example.org/{n}.jpg', label=label, status='success', width=None, sha256=sha) | kw


def shard(folder, ns, stem='00000', **kw):
    "A shard of the pictures `ns` in img2dataset's form."
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder/f'{stem}.tar', 'w', format=tarfile.USTAR_FORMAT) as tar:
        for n in ns:
            add(tar, f'{n:09}.jpg', jpeg(n))
            add(tar, f'{n:09}.json', json.dumps(meta(n, **kw)).encode())
    return folder


def pictures(root): return {n: b for n,b in tree(root).items() if not n.endswith('.jsonl')}
def whole(r): return r.saved+r.duplicate+r.failed==r.addresses and sum(r.reasons.values())==r.duplicate+r.failed


# --- out

def test_only_what_is_missing_goes_out(tmp_path):
    state = dict(saved='saved', dup='duplicate', failed='failed', started='started', forgotten='failed')
    append_rows(tmp_path, [dict(url=f'https://example.org/{k}', label='x', status=v) for k,v in state.items()])
    forgotten_path(tmp_path).write_text(forget_key('http://EXAMPLE.org/forgotten'))
    names = lambda job: sorted(json.loads(l)['url'].rsplit('/', 1)[1] for l in job.path.read_text().splitlines())
    job = to_img2dataset(tmp_path, tmp_path/'a.jsonl')
    assert names(job)==['failed', 'started'] and [r['reason'] for r in job.refused]==['forgotten']
    everything = to_img2dataset(tmp_path, tmp_path/'b.jsonl', everything=True)
    assert names(everything)==['dup', 'failed', 'saved', 'started']


# --- back

def test_twice_is_once(tmp_path):
    out = shard(shard(tmp_path/'out', range(5)), range(3, 9), '00001')
    r = from_img2dataset(out, tmp_path/'root')
    assert (r.saved, r.duplicate, r.failed)==(9, 2, 0) and whole(r)
    assert set(pictures(tmp_path/'root').values())=={jpeg(n) for n in range(9)}
    before = tree(tmp_path/'root')
    again = from_img2dataset(out, tmp_path/'root')
    assert tree(tmp_path/'root')==before and (again.asked, again.saved)==(0, 9)


def test_a_failure_becomes_a_success_later(tmp_path):
    root = tmp_path/'root'
    job = to_img2dataset([f'https://example.org/{n}.jpg' for n in range(4)], tmp_path/'a.jsonl', label='teddy')
    out = shard(tmp_path/'out', [0, 1])
    r = from_img2dataset(out, root, asked=job.path)
    assert (r.saved, r.addresses, r.reasons)==(2, 4, {'not in the shards':2}) and whole(r)
    shard(out, [2, 3], '00001')
    r = from_img2dataset(out, root, asked=job.path)
    assert (r.saved, r.failed, r.addresses)==(4, 0, 4) and {x['status'] for x in latest_rows(root).values()}=={'saved'}


def test_what_was_forgotten_stays_away(tmp_path):
    hashes = forget_key('https://example.org/1.jpg'), hashlib.sha256(jpeg(2)).hexdigest()
    forgotten_path(tmp_path).write_text(json.dumps(hashes))
    for _ in range(2):
        r = from_img2dataset(shard(tmp_path/'out', range(4)), tmp_path)
        assert (r.saved, r.reasons)==(2, {'forgotten':2})
    assert set(pictures(tmp_path/'teddy').values())=={jpeg(0), jpeg(3)}
    assert not {f'https://example.org/{n}.jpg' for n in (1, 2)} & {url for _,url in latest_rows(tmp_path)}


LABELS = st.text(max_size=30) | st.sampled_from([
    '..', '../up', '/etc', 'a/b', 'a\\b', 'C:x', 'nul', 'COM1.txt', '.', 'a.', 'é', '\u202e', 'TEDDY',
    'manifest.jsonl', 'x'*300, None, 7, ['x']])
URLS = st.text(max_size=30) | st.sampled_from(
    ['https://example.org/ok', 'file:///etc/passwd', None, 5, {'a':1}, 'x'*9000])
EXTRA = st.dictionaries(
    st.sampled_from(['creator', 'status', 'provider', 'sha256', 'width', 'error_message', 'junk']),
    st.none() | st.integers() | st.text(max_size=9) | st.lists(st.none(), max_size=2), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=LABELS, url=URLS, name=st.text(max_size=20).filter(lambda s: '\0' not in s), extra=EXTRA)
def test_nothing_leaves_the_root(tmp_path_factory, label, url, name, extra):
    tmp = tmp_path_factory.mktemp('any')
    out = shard(tmp/'out', [1])
    with tarfile.open(out/'00000.tar', 'a') as tar:
        add(tar, f'{name}.jpg', jpeg(2))
        add(tar, '5.jpg', jpeg(3))
        add(tar, '5.json', json.dumps({**meta(3), **extra, 'label':label, 'url':url}).encode())
    r = from_img2dataset(out, tmp/'root')
    assert whole(r) and r.saved>=1
    assert {p.name for p in tmp.iterdir()}=={'out', 'root'}
    assert all(len(Path(n).parts)<=2 and b in (jpeg(1), jpeg(3)) for n,b in pictures(tmp/'root').items())


def test_spoilt_tars_never_stop_the_run(tmp_path):
    data,rng = (shard(tmp_path/'good', range(6))/'00000.tar').read_bytes(), random.Random(0)
    for i in range(60):
        spoilt = bytearray(data)
        for _ in range(rng.choice([1, 5, 50])): spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        if i%3==0: spoilt = spoilt[:rng.randrange(len(spoilt))]
        out = shard(tmp_path/f'o{i}', [9], '00001')
        (out/'00000.tar').write_bytes(spoilt)
        r = from_img2dataset(out, tmp_path/f'r{i}')
        kept = set(pictures(tmp_path/f'r{i}').values())
        assert whole(r) and jpeg(9) in kept
        assert kept <= {jpeg(n) for n in (*range(6), 9)}   # the hash in the JSON lets nothing changed through


def test_a_member_is_not_read_into_memory_unless_wanted(tmp_path):
    big = b'\xff\xd8\xff'+bytes(2**20)
    (tmp_path/'out').mkdir()
    with tarfile.open(tmp_path/'out/00000.tar', 'w') as tar:
        for n in range(60):
            add(tar, f'{n}.seg.npy', big)             # of no interest
            add(tar, f'{n}.jpg', big+bytes([n]))      # 60 MB in all
            add(tar, f'{n}.json', json.dumps(meta(n, data=big+bytes([n]))).encode())
    from_img2dataset(shard(tmp_path/'warm', [1]), tmp_path/'warm_root')
    tracemalloc.start()
    r = from_img2dataset(tmp_path/'out', tmp_path/'root', n_workers=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert r.addresses==60 and peak<16*2**20, f'{peak/2**20:.1f} MB'


# --- the real program

python = os.environ.get('BEARCLASS_IMG2DATASET') or (importlib.util.find_spec('img2dataset') and sys.executable)
EXPECTED = {
    'same picture, other class':1, 'http 404':1, 'http 410':1, 'not an image':2, 'empty':1, 'truncated':1,
    'opted out':1, 'timeout':1, 'too large':1, 'redirect loop':1, 'connection':1}


@pytest.mark.skipif(not python, reason='no img2dataset: see the first lines of this file')
def test_there_and_back(tmp_path):
    odd = ('/redirect/3.jpg /duplicate/1.jpg /404/1.jpg /html-as-image/1.jpg /truncated/1.jpg /opt-out/1.jpg '
           '/status/410 /hang/1.jpg /huge/1.jpg /empty/1 /svg/1 /redirect-loop /drop/1').split()
    env = {k: v for k,v in os.environ.items() if k not in ('PYTHONPATH', 'OMP_NUM_THREADS')}
    with HostileServer() as s:
        paths = {'black':[f'/ok/{n}.jpg' for n in range(8)], '007':[f'/ok/{n}.jpg?x=%C3%A9' for n in range(8, 14)]+odd}
        known = dict(title='one\nline', creator='Zoë', license='by', query='bear')
        wanted = {l: [ImageResult(s.url(p), **known) for p in ps] for l,ps in paths.items()}
        job = to_img2dataset(wanted, tmp_path/'a.jsonl', per_shard=10, rules=LOCAL)
        assert job.addresses==27 and not job.refused
        words = [python, '-m', 'img2dataset.main', *job.argv()[1:]]
        done = subprocess.run(words, capture_output=True, text=True, env={**env, 'no_proxy':'*'}, timeout=120)
        assert done.returncode==0, done.stderr[-2000:]
    r = from_img2dataset(job.settings['output_folder'], tmp_path/'root', asked=job.path)
    rows = latest_rows(tmp_path/'root')
    assert len(rows)==job.addresses==r.addresses and whole(r) and (r.saved, r.duplicate)==(15, 1)
    for (label,url),row in rows.items():
        assert (row['creator'], row['license'], row['query'])==('Zoë', 'by', 'bear')
        if row['status']=='saved': assert row['path'].startswith(f'{label}/')
    assert set(pictures(tmp_path/'root').values())=={jpeg(n) for n in (*range(14), 10_003)}
    if importlib.util.find_spec('pyarrow'): assert r.reasons==EXPECTED and not r.note
