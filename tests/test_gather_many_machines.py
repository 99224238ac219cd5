"""Addresses out to img2dataset and shards back: hostile shards, crashes, and the real program where there is one.

img2dataset lives in an environment of its own; name its Python to run the tests that need it:
    python3 -m venv /tmp/img2dataset && /tmp/img2dataset/bin/pip install "img2dataset==1.47.*"
    BEARCLASS_IMG2DATASET=/tmp/img2dataset/bin/python pytest tests/test_gather_many_machines.py"""
import hashlib, importlib.util, io, json, os, random, subprocess, sys, tarfile, tracemalloc
from collections import Counter
from pathlib import Path
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from bearclass.core import DependencyError, InputError
from bearclass.gather import many_machines as mm
from bearclass.gather.fetch import FetchRules
from bearclass.gather.manifest import append_rows, latest_rows, read_manifest
from bearclass.gather.many_machines import from_img2dataset, to_img2dataset
from bearclass.gather.passport import forget_key, forgotten_path
from bearclass.gather.search import ImageResult
from hostile import HostileServer, jpeg

LOCAL = FetchRules(allow_local=True, tries=1, read_s=2, connections=8)


def add(tar, name, data=b'', **kw):
    m = tarfile.TarInfo(name)
    m.size = len(data)
    for k,v in kw.items(): setattr(m, k, v)
    tar.addfile(m, io.BytesIO(data))


def meta(n, label='teddy', data=None, **kw):
    data = jpeg(n) if data is None else data
    return dict(dict(url=f'https://example.org/{n}.jpg', label=label, key=f'{n:09}', status='success', error_message=None, width=None, height=None,
                     sha256=hashlib.sha256(data).hexdigest()), **kw)


def shard(folder, ns, stem='00000', fmt='tar', stats=True, **kw):
    "A shard of the pictures `ns` in img2dataset's form."
    folder.mkdir(exist_ok=True)
    if fmt=='tar':
        with tarfile.open(folder/f'{stem}.tar', 'w', format=tarfile.USTAR_FORMAT) as tar:
            for n in ns:
                add(tar, f'{n:09}.jpg', jpeg(n))
                add(tar, f'{n:09}.json', json.dumps(meta(n, **kw)).encode())
    else:
        (folder/stem).mkdir()
        for n in ns:
            (folder/stem/f'{n:09}.jpg').write_bytes(jpeg(n))
            (folder/stem/f'{n:09}.json').write_text(json.dumps(meta(n, **kw)))
    if stats: (folder/f'{stem}_stats.json').write_text(json.dumps(dict(count=len(ns), successes=len(ns), status_dict=dict(success=len(ns)))))
    return folder


def tree(root): return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob('*') if f.is_file()}
def pictures(root): return {n: b for n,b in tree(root).items() if not n.endswith('.jsonl')}
def rows(root): return [{k:v for k,v in r.items() if k!='time'} for r in read_manifest(root).astype(object).where(lambda d: d.notna(), None).to_dict('records')]
def whole(r): return r.saved+r.duplicate+r.failed==r.addresses and sum(r.reasons.values())==r.duplicate+r.failed


# --- out

def test_what_is_known_travels(tmp_path):
    r = ImageResult('https://example.org/1.jpg', page_url='https://example.org/p', title='two\nlines', creator='Zoë \ud800', license='by', provider='drawn', query='bear')
    job = to_img2dataset({'007': [r], 'b': ['https://example.org/1.jpg', 'https://example.org/1.jpg']}, tmp_path/'a.jsonl')
    got = [json.loads(l) for l in job.path.read_text().splitlines()]
    assert job.addresses==2 and {g['label'] for g in got}=={'007', 'b'}   # one address under two labels is two, twice under one is one
    one = next(g for g in got if g['label']=='007')
    assert one['creator']=='Zoë ?' and one['query']=='bear' and set(one)=={'url', *mm.COLUMNS}
    reserved = {'key', 'caption', 'url', 'width', 'height', 'original_width', 'original_height', 'status', 'error_message', 'exif', 'md5', 'sha256', 'sha512'}
    assert not reserved & set(job.settings['save_additional_columns'])


def test_only_what_is_missing_goes_out(tmp_path):
    root = tmp_path/'bears'
    root.mkdir()
    state = dict(saved='saved', dup='duplicate', failed='failed', started='started', forgotten='failed')
    append_rows(root, [dict(url=f'https://example.org/{k}', label='teddy', status='started') for k in state])
    append_rows(root, [dict(url=f'https://example.org/{k}', label='teddy', status=v) for k,v in state.items()])
    forgotten_path(root).write_text(json.dumps(dict(addresses=[forget_key('http://EXAMPLE.org/forgotten')], contents=[])))
    names = lambda job: sorted(json.loads(l)['url'].rsplit('/', 1)[1] for l in job.path.read_text().splitlines())
    job = to_img2dataset(root, tmp_path/'a.jsonl')
    assert names(job)==['failed', 'started'] and [r['reason'] for r in job.refused]==['forgotten']
    assert names(to_img2dataset(root, tmp_path/'b.jsonl', everything=True))==['dup', 'failed', 'saved', 'started']


def test_the_order_is_mixed_and_fixed(tmp_path):
    urls = [f'https://{h}.org/{i}.jpg' for h in 'ab' for i in range(50)]
    a,b = to_img2dataset(urls, tmp_path/'a.jsonl', label='x'), to_img2dataset(urls[::-1], tmp_path/'b.jsonl', label='x')
    assert a.path.read_bytes()==b.path.read_bytes()
    hosts = [json.loads(l)['url'][8] for l in a.path.read_text().splitlines()]
    assert sum(x!=y for x,y in zip(hosts, hosts[1:]))>25


@pytest.mark.parametrize('url', ['file:///etc/passwd', 'ftp://example.org/a.jpg', 'http://169.254.169.254/latest', 'http://[::1]/', 'http://2130706433/', 'http://u:p@example.org/',
                                 'http://example.org:22/', 'javascript:alert(1)', '', 'data:image/png;base64,AA', 'https://example.org/\nHost: x'])
def test_bad_addresses_stay_at_home(tmp_path, url):
    job = to_img2dataset([url, 'https://example.org/ok.jpg'], tmp_path/'a.jsonl', label='x', rules=FetchRules(allow_local=False))
    assert (job.addresses, len(job.refused))==(1, 1)


def test_parquet_without_pyarrow_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    with pytest.raises(DependencyError, match='pip install pyarrow'): to_img2dataset(['https://example.org/1.jpg'], tmp_path/'a.parquet', label='x')
    (tmp_path/'out').mkdir()
    (tmp_path/'out/00000.parquet').write_bytes(b'PAR1')
    with pytest.raises(DependencyError, match='pip install pyarrow'): from_img2dataset(tmp_path/'out', tmp_path/'root')


def test_an_opt_out_that_is_given_up_is_said(tmp_path):
    job = to_img2dataset(['https://example.org/1.jpg'], tmp_path/'a.jsonl', label='x', rules=FetchRules(respect_opt_out=False))
    assert dict((p,k) for p,k,_ in job.promises)['opt-out headers']=='no' and job.settings['disallowed_header_directives']==[]


# --- back

@pytest.mark.parametrize('fmt', ['tar', 'folder'])
def test_twice_is_once(tmp_path, fmt):
    out = shard(shard(tmp_path/'out', range(5), fmt=fmt), range(3, 9), '00001', fmt)
    r = from_img2dataset(out, tmp_path/'root')
    assert (r.saved, r.duplicate, r.failed)==(9, 2, 0) and whole(r)
    assert set(pictures(tmp_path/'root').values())=={jpeg(n) for n in range(9)}
    before = tree(tmp_path/'root')
    again = from_img2dataset(out, tmp_path/'root')
    assert tree(tmp_path/'root')==before and str(again)==str(r)


def test_the_same_picture_from_two_addresses(tmp_path):
    out = shard(tmp_path/'out', [1])
    shard(out, [1], '00001', url='https://example.org/mirror.jpg', label='black')
    r = from_img2dataset(out, tmp_path/'root')
    assert (r.saved, r.duplicate)==(1, 1) and [x['status'] for x in latest_rows(tmp_path/'root').values()]==['saved', 'duplicate']


def test_a_failure_becomes_a_success_later(tmp_path):
    root = tmp_path/'root'
    job = to_img2dataset([f'https://example.org/{n}.jpg' for n in range(4)], tmp_path/'a.jsonl', label='teddy')
    out = shard(tmp_path/'out', [0, 1])
    r = from_img2dataset(out, root, asked=job.path)
    assert (r.saved, r.failed, r.addresses)==(2, 2, 4) and whole(r) and r.reasons=={'not in the shards':2}
    shard(out, [2, 3], '00001')
    r = from_img2dataset(out, root, asked=job.path)
    assert (r.saved, r.failed, r.addresses)==(4, 0, 4) and {x['status'] for x in latest_rows(root).values()}=={'saved'}


def test_what_was_forgotten_stays_away(tmp_path):
    root = tmp_path/'root'
    root.mkdir()
    forgotten_path(root).write_text(json.dumps(dict(addresses=[forget_key('https://example.org/1.jpg')], contents=[hashlib.sha256(jpeg(2)).hexdigest()])))
    r = from_img2dataset(shard(tmp_path/'out', range(4)), root)
    assert (r.saved, r.reasons)==(2, {'forgotten':2}) and set(pictures(root).values())=={jpeg(0), jpeg(3), forgotten_path(root).read_bytes()}-{forgotten_path(root).read_bytes()}


def test_one_flipped_bit_is_seen(tmp_path):
    out = shard(tmp_path/'out', range(3))
    f = out/'00000.tar'
    data = bytearray(f.read_bytes())
    data[data.index(jpeg(1))+300] ^= 1
    f.write_bytes(data)
    r = from_img2dataset(out, tmp_path/'root')
    assert (r.saved, r.reasons)==(2, {'changed on the way':1})


def test_a_picture_with_too_many_pixels(tmp_path):
    buf = io.BytesIO()
    Image.new('1', (20_000, 3_000)).save(buf, 'PNG')   # 60 megapixels in a few kilobytes
    out = tmp_path/'out'
    out.mkdir()
    with tarfile.open(out/'00000.tar', 'w') as tar:
        add(tar, '0.jpg', buf.getvalue())
        add(tar, '0.json', json.dumps(meta(0, data=buf.getvalue())).encode())
    r = from_img2dataset(out, tmp_path/'root')
    assert (r.saved, r.reasons)==(0, {'too many pixels':1})


def test_counts_without_names(tmp_path):
    out = shard(tmp_path/'out', range(3))
    (out/'00000_stats.json').write_text(json.dumps(dict(count=7, successes=3, status_dict={'success':3, 'HTTP Error 404: Not Found':3, '<urlopen error timed out>':1})))
    r = from_img2dataset(out, tmp_path/'root')
    assert (r.addresses, r.failed, r.reasons)==(7, 4, {'http 404':3, 'timeout':1}) and whole(r)
    for odd in b'[]', b'{', b'{"count": -3}', b'{"count": "7", "status_dict": {"x": "y"}}', b'{"count": 1e9}', b'{"count": true}', b'{"status_dict": [1]}', b'['*100_000:
        (out/'00000_stats.json').write_bytes(odd)
        r = from_img2dataset(out, tmp_path/'root')
        assert r.saved==3 and whole(r)


def test_symlinks_in_a_folder_shard_are_not_followed(tmp_path):
    out = shard(tmp_path/'out', range(2), fmt='folder')
    (tmp_path/'secret.jpg').write_bytes(jpeg(77))
    (out/'00000/000000005.jpg').symlink_to(tmp_path/'secret.jpg')
    (out/'00000/000000005.json').write_text(json.dumps(meta(77, key='000000005')))
    (out/'00000/000000006.json').mkdir()
    r = from_img2dataset(out, tmp_path/'root')
    assert r.saved==2 and r.reasons=={'not an ordinary file':1} and jpeg(77) not in tree(tmp_path/'root').values()


LABELS = st.one_of(st.text(max_size=30), st.sampled_from(['..', '../up', '/etc', 'a/b', 'a\\b', 'C:x', 'nul', 'COM1.txt', '.', 'a.', ' a', 'a ', 'é', '\u202e', 'manifest.jsonl', 'x'*300, None, 7, ['x']]))
URLS = st.one_of(st.text(max_size=30), st.sampled_from(['https://example.org/ok', 'file:///etc/passwd', None, 5, {'a':1}, 'x'*9000]))

@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=LABELS, url=URLS, name=st.text(max_size=20), extra=st.dictionaries(st.sampled_from(['creator', 'status', 'key', 'sha256', 'width', 'error_message', 'junk']), st.one_of(st.none(), st.integers(), st.text(max_size=9), st.lists(st.none(), max_size=2)), max_size=4))
def test_nothing_leaves_the_root(tmp_path_factory, label, url, name, extra):
    tmp = tmp_path_factory.mktemp('any')
    out = shard(tmp/'out', [1])
    with tarfile.open(out/'00000.tar', 'a') as tar:
        add(tar, f'{name}.jpg', jpeg(2), pax_headers={}) if '\0' not in name else None
        add(tar, '5.jpg', jpeg(3))
        add(tar, '5.json', json.dumps({**meta(3), **extra, 'label':label, 'url':url}).encode())
    r = from_img2dataset(out, tmp/'root')
    assert whole(r) and r.saved>=1
    assert {p.name for p in tmp.iterdir()}=={'out', 'root'} and all(len(Path(n).parts)==2 for n in pictures(tmp/'root'))
    assert all(b in (jpeg(1), jpeg(3)) for b in pictures(tmp/'root').values())


def test_spoilt_tars_never_stop_the_run(tmp_path):
    good = shard(tmp_path/'good', range(6))/'00000.tar'
    data,rng = good.read_bytes(), random.Random(0)
    sound = {jpeg(n) for n in range(6)}
    for i in range(60):
        spoilt = bytearray(data)
        for _ in range(rng.choice([1, 5, 50])): spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        if i%3==0: spoilt = spoilt[:rng.randrange(len(spoilt))]
        out = tmp_path/f'o{i}'
        out.mkdir()
        (out/'00000.tar').write_bytes(spoilt)
        shard(out, [9], '00001')
        r = from_img2dataset(out, tmp_path/f'r{i}')
        assert whole(r) and jpeg(9) in pictures(tmp_path/f'r{i}').values()
        assert set(pictures(tmp_path/f'r{i}').values()) <= sound|{jpeg(9)}   # the hash in the JSON lets nothing changed through


def test_a_member_is_not_read_into_memory_unless_wanted(tmp_path):
    out = tmp_path/'out'
    out.mkdir()
    big = b'\xff\xd8\xff'+bytes(2**20)
    with tarfile.open(out/'00000.tar', 'w') as tar:
        for n in range(60):
            add(tar, f'{n}.seg.npy', big)             # of no interest
            add(tar, f'{n}.jpg', big+bytes([n]))      # 60 MB in all
            add(tar, f'{n}.json', json.dumps(meta(n, data=big+bytes([n]))).encode())
    from_img2dataset(shard(tmp_path/'warm', [1]), tmp_path/'warm_root')
    tracemalloc.start()
    r = from_img2dataset(out, tmp_path/'root')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert r.addresses==60 and peak<12*2**20, f'{peak/2**20:.1f} MB'


@pytest.mark.parametrize('call', ['write', 'fsync', 'replace', 'append'])
@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_a_crash_at_any_point_is_made_good(tmp_path, monkeypatch, call, error):
    out = shard(shard(tmp_path/'out', range(4)), range(4, 8), '00001')
    from_img2dataset(out, tmp_path/'clean')
    places = dict(write=(mm, 'write_atomic'), fsync=(os, 'fsync'), replace=(os, 'replace'), append=(mm, 'append_rows'))
    where,name = places[call]
    for k in range(2 if call=='append' else 4):   # the manifest is written once a shard
        root,real,n = tmp_path/f'root{k}', getattr(where, name), Counter()
        def boom(*a, **kw):
            n['calls'] += 1
            if n['calls']==k+1: raise error('injected')
            return real(*a, **kw)
        with monkeypatch.context() as m:
            m.setattr(where, name, boom)
            with pytest.raises(error): from_img2dataset(out, root)   # never in silence
        r = from_img2dataset(out, root)
        assert (r.saved, r.duplicate, r.failed)==(8, 0, 0)
        assert pictures(root)==pictures(tmp_path/'clean') and not list(root.rglob('.*'))
        assert {(x['url'], x['path']) for x in latest_rows(root).values()}=={(x['url'], x['path']) for x in latest_rows(tmp_path/'clean').values()}


# --- the real program

def _python():
    named = os.environ.get('BEARCLASS_IMG2DATASET')
    return named or (sys.executable if importlib.util.find_spec('img2dataset') else None)

real = pytest.mark.skipif(not _python(), reason='no img2dataset: `python3 -m venv v && v/bin/pip install "img2dataset==1.47.*"`, then BEARCLASS_IMG2DATASET=v/bin/python')


def call(job, **changes):
    "Run the job's own command with the img2dataset of the other environment."
    env = {k:v for k,v in os.environ.items() if k not in ('PYTHONPATH', 'OMP_NUM_THREADS')}
    done = subprocess.run([_python(), '-m', 'img2dataset.main', *job.argv(**changes)[1:]], capture_output=True, text=True, env={**env, 'no_proxy':'*', 'WANDB_MODE':'disabled'}, timeout=120)
    assert done.returncode==0, done.stderr[-2000:]
    return Path(job.shards)


def hostile_request(s):
    urls = dict(black=[s.url(f'/ok/{n}.jpg') for n in range(8)], **{'007': [s.url(f'/ok/{n}.jpg?size=l&x=%C3%A9') for n in range(8, 14)]})
    urls['007'] += [s.url(p) for p in ('/redirect/3.jpg', '/duplicate/1.jpg', '/404/1.jpg', '/html-as-image/1.jpg', '/truncated/1.jpg', '/opt-out/1.jpg', '/status/410', '/hang/1.jpg',
                                      '/huge/1.jpg', '/empty/1', '/svg/1', '/redirect-loop', '/drop/1')]
    return {l: [ImageResult(u, title='one\nline', creator='Zoë', license='by', query='bear', provider='urls') for u in us] for l,us in urls.items()}


EXPECTED = {'same picture, other class':1, 'http 404':1, 'http 410':1, 'not an image':2, 'empty':1, 'truncated':1, 'opted out':1, 'timeout':1, 'too large':1, 'redirect loop':1, 'connection':1}

@real
@pytest.mark.parametrize('output_format', ['webdataset', 'files'])
def test_there_and_back(tmp_path, output_format):
    with HostileServer() as s:
        wanted = hostile_request(s)
        job = to_img2dataset(wanted, tmp_path/'a.jsonl', output_format=output_format, per_shard=10, rules=LOCAL)
        assert job.addresses==27 and not job.refused
        out = call(job)
        r = from_img2dataset(out, tmp_path/'root', asked=job.path)
    last = latest_rows(tmp_path/'root')
    assert len(last)==job.addresses==r.addresses and whole(r) and (r.saved, r.duplicate)==(15, 1)
    for n in range(14):
        label = 'black' if n<8 else '007'
        row = next(x for x in last.values() if f'/ok/{n}.jpg' in x['url'])
        assert row['label']==label and row['sha256']==hashlib.sha256(jpeg(n)).hexdigest() and (row['creator'], row['license'], row['query'])==('Zoë', 'by', 'bear')
        if row['status']=='saved': assert (tmp_path/'root'/row['path']).read_bytes()==jpeg(n) and row['path'].startswith(label+'/')
    assert jpeg(10_003) in pictures(tmp_path/'root').values()   # what the redirect led to
    before = tree(tmp_path/'root')
    assert str(from_img2dataset(out, tmp_path/'root', asked=job.path))==str(r) and tree(tmp_path/'root')==before
    with_table = in_other(tmp_path, f'from_img2dataset({str(out)!r}, {str(tmp_path/"named")!r}, asked={str(job.path)!r})')
    if with_table: assert with_table['reasons']==EXPECTED and with_table['addresses']==27 and not any(l['note'] for l in with_table['lines'])


def in_other(tmp_path, expression):
    "Evaluate in a process that has pyarrow, borrowed from img2dataset's environment where ours has none; None where that cannot be."
    ask = 'import sys, json, pyarrow; print(json.dumps([list(sys.version_info[:2]), [p for p in sys.path if p.endswith("site-packages")]]))'
    version,paths = json.loads(subprocess.run([_python(), '-c', ask], capture_output=True, text=True).stdout)
    if version!=list(sys.version_info[:2]): return None
    code = (f'import sys, json; sys.path += {paths!r}\nfrom bearclass.gather.many_machines import *\nfrom bearclass.gather.fetch import FetchRules\n'
            f'r = {expression}\nprint(json.dumps(dict(saved=r.saved, duplicate=r.duplicate, failed=r.failed, addresses=r.addresses, reasons=r.reasons, lines=r.lines) if hasattr(r, "saved") else dict(n=r.addresses, refused=r.refused)))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'BEARCLASS_PROGRESS':'0'})
    assert done.returncode==0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@real
def test_parquet_there_and_back(tmp_path):
    "The list and the shards as Parquet, with labels that only Parquet can carry as they are."
    urls = '{%r: [f"{base}/ok/{n}.jpg" for n in range(5)] + [base+"/404/1.jpg"]}' % '2020-01-01'
    with HostileServer() as s:
        base = s.url('')
        make = f'(lambda base: to_img2dataset({urls}, {str(tmp_path/"a.parquet")!r}, output_format="parquet", per_shard=4, rules=FetchRules(allow_local=True, tries=1)))({base!r})'
        made = in_other(tmp_path, make)
        if made is None: pytest.skip('its Python is another version than ours, so its pyarrow cannot be borrowed')
        assert made==dict(n=6, refused=[])
        with pytest.raises(InputError, match='every label is a date'): to_img2dataset({'2020-01-01': [s.url('/ok/1.jpg')]}, tmp_path/'a.jsonl', rules=LOCAL)
        job = to_img2dataset({'x': [s.url('/ok/1.jpg')]}, tmp_path/'b.jsonl', output_format='parquet', rules=LOCAL)
        out = call(job, url_list=str(tmp_path/'a.parquet'), input_format='parquet', number_sample_per_shard=4)
    r = in_other(tmp_path, f'from_img2dataset({str(out)!r}, {str(tmp_path/"root")!r}, asked={str(tmp_path/"a.parquet")!r})')
    assert (r['saved'], r['failed'], r['addresses'], r['reasons'])==(5, 1, 6, {'http 404':1})
    assert set(pictures(tmp_path/'root').values())=={jpeg(n) for n in range(5)} and {x['label'] for x in latest_rows(tmp_path/'root').values()}=={'2020-01-01'}


@real
def test_resized_out_there_or_here(tmp_path):
    "Resizing out there loses the orientation, as the promises say; here it does not."
    buf = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6   # stored on its side
    Image.effect_noise((120, 60), 40).convert('RGB').save(buf, 'JPEG', exif=exif, quality=95)
    with HostileServer() as s:
        s.add('/phone.jpg', lambda req: (200, {'Content-Type':'image/jpeg'}, buf.getvalue()))
        there = to_img2dataset([s.url('/phone.jpg'), s.url('/ok/1.jpg')], tmp_path/'there.jsonl', label='x', max_side=50, rules=LOCAL)
        here = to_img2dataset([s.url('/phone.jpg'), s.url('/ok/1.jpg')], tmp_path/'here.jsonl', label='x', rules=LOCAL)
        call(there)
        call(here)
    assert dict((p,k) for p,k,_ in there.promises)['upright']=='no'
    sent = {hashlib.sha256(b).hexdigest() for b in (buf.getvalue(), jpeg(1))}
    for job,max_side,size in ((there, None, (50, 25)), (here, 50, (25, 50))):
        root = tmp_path/f'root_{size[0]}'
        r = from_img2dataset(job.shards, root, asked=job.path, max_side=max_side)
        last = {x['url'].rsplit('/', 1)[1]: x for x in latest_rows(root).values()}
        assert r.saved==2 and {x['source_sha256'] for x in last.values()}==sent
        assert (last['phone.jpg']['width'], last['phone.jpg']['height'])==size


def test_nothing_is_written_of_what_was_forgotten(tmp_path):
    root = tmp_path/'root'
    root.mkdir()
    forgotten_path(root).write_text(json.dumps(dict(addresses=[], contents=[hashlib.sha256(jpeg(2)).hexdigest()])))
    for _ in range(2): assert from_img2dataset(shard(tmp_path/'out', range(4)), root).reasons=={'forgotten':1}
    assert len(latest_rows(root))==3 and 'forgotten' not in (root/'manifest.jsonl').read_text()
