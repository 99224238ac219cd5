"Cassettes: killed recorders, read-only folders, forty readers, every bit that can flip, every place where a key can hide, and slices for a class."
import hashlib, json, os, random, shutil, socket, sqlite3, subprocess, sys, tempfile, threading, time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st

from bearclass.core import InputError, MissingError, OfflineError
from bearclass.gather import cassette as module
from bearclass.gather.cassette import (DAMAGED, NOT_ON_IT, Cassette, CassetteError, NotOnCassette, RecordedFailure, address_key, current_cassette, deal,
                                       never_record, taped_fetch, taped_fetch_all, taped_search, without_secrets)
from bearclass.gather.fetch import Fetched, FetchRules
from hostile import HostileServer

quick = FetchRules(allow_local=True, total_s=4., read_s=2., tries=1)


def body(i, n=2000): return random.Random(i).randbytes(n)


def picture(i, host='https://x.example', **kw):
    return Fetched(f'{host}/{i}.jpg', f'{host}/{i}.jpg', ok=True, status=200, headers={'content-type': 'image/jpeg'}, body=body(i), tries=1, seconds=.1, **kw)


def result(i, host='https://x.example', **kw): return dict(url=f'{host}/{i}.jpg', title=f'bear {i}', **kw)


def recorded(path, n=20, terms=('bear',)):
    "A cassette with `n` pictures and one search for all of them for each term."
    with Cassette(path, 'record') as tape:
        for t in terms: tape.put_search('p', t, {}, [result(f'{t}{i}') for i in range(n)])
        for t in terms:
            for i in range(n): tape.put_fetch(picture(f'{t}{i}'))
    return path


@contextmanager
def sockets_refused():
    "Any use of a socket is noted and refused."
    used = []
    def _refuse(*args, **kw):
        used.append(args)
        raise OSError('a socket was asked for')
    with pytest.MonkeyPatch.context() as m:
        for name in 'socket', 'create_connection', 'getaddrinfo', 'gethostbyname': m.setattr(socket, name, _refuse)
        yield used


@pytest.fixture
def no_sockets():
    with sockets_refused() as used: yield used


# --- killed, read-only, shared

RECORDER = '''
import sys
from bearclass.gather.cassette import Cassette
from bearclass.gather.fetch import Fetched
import random
with Cassette(sys.argv[1], 'record') as tape:
    for i in range(100_000):
        tape.put_fetch(Fetched(f'https://x.example/{i}.jpg', ok=True, status=200, body=random.Random(i).randbytes(2000)))
        tape.put_search('p', f'bear {i}', {}, [dict(url=f'https://x.example/{i}.jpg')])
        print(i, flush=True)
'''


def killed_after(path, n):
    "Record in another process, kill it without warning after `n` pictures, and say which was the last that it reported."
    p = subprocess.Popen([sys.executable, '-c', RECORDER, str(path)], stdout=subprocess.PIPE, text=True)
    for line in p.stdout:
        if int(line)>=n: break
    p.kill()
    last = [int(line)] + [int(l) for l in p.stdout.read().split('\n')[:-1]]
    p.wait()
    return last[-1]


@pytest.mark.parametrize('n', [0, 7, 900])   # 900 pictures: the log has been brought home in between
def test_a_killed_recorder_loses_nothing(tmp_path, n):
    path = tmp_path/'bears.cassette'
    last = killed_after(path, n)
    with Cassette(path) as tape:
        for i in {0, last//2, last-1, last} & set(range(last+1)):
            assert tape.get_fetch(f'https://x.example/{i}.jpg').body==body(i)
            assert tape.get_search('p', f'bear {i}', {})==[dict(url=f'https://x.example/{i}.jpg')]
        assert len(tape.searches()) in (last+1, last+2) and tape.damaged()==[]
    assert os.listdir(tmp_path)==['bears.cassette']          # one plain file again
    with Cassette(path, 'record') as tape: tape.put_fetch(picture('later'))
    with Cassette(path) as tape: assert tape.get_fetch('https://x.example/0.jpg').ok and tape.get_fetch('https://x.example/later.jpg').ok


def test_the_main_file_alone_is_always_a_cassette(tmp_path):
    "Whoever copies only the one file from under a recorder loses what is new, and gets no nonsense."
    with Cassette(tmp_path/'a.cassette', 'record') as tape:
        for i in range(50): tape.put_fetch(picture(i))
        shutil.copy(tmp_path/'a.cassette', tmp_path/'copy.cassette')
        for i in range(50, 60): tape.put_fetch(picture(i))
    with Cassette(tmp_path/'copy.cassette') as tape: assert tape.damaged()==[]


def test_reading_while_it_records(tmp_path):
    with Cassette(tmp_path/'a.cassette', 'record') as tape:
        tape.put_fetch(picture(1))
        with Cassette(tmp_path/'a.cassette') as reader:
            assert reader.get_fetch('https://x.example/1.jpg').ok
            tape.put_fetch(picture(2))
            assert reader.get_fetch('https://x.example/2.jpg').ok
        tape.put_fetch(picture(3))
    with Cassette(tmp_path/'a.cassette') as reader: assert reader.get_fetch('https://x.example/3.jpg').ok


AS_NOBODY = '''
import os, sys
sys.path[:0] = sys.argv[2:]
from bearclass.gather.cassette import Cassette
from bearclass.gather.fetch import Fetched
if hasattr(os, 'setuid') and os.getuid()==0: os.setuid(65534)
with Cassette(sys.argv[1]) as tape:
    print(len(tape.get_search('p', 'bear', {})), tape.get_fetch('https://x.example/bear3.jpg').ok)
try: Cassette(sys.argv[1], 'record')
except Exception as e: print(type(e).__name__)
'''


@pytest.mark.skipif(os.name=='nt', reason='folders have other rights there')
def test_replay_from_a_folder_where_nothing_may_be_written(tmp_path):
    with tempfile.TemporaryDirectory() as d:    # pytest's own folders may be entered by their owner only
        path = recorded(Path(d)/'bears.cassette')
        path.chmod(0o444)
        Path(d).chmod(0o555)
        try:
            out = subprocess.run([sys.executable, '-c', AS_NOBODY, str(path), *sys.path], capture_output=True, text=True, cwd='/')
            assert (out.stdout.split('\n')[:2], out.stderr)==(['20 True', 'CassetteError'], '')
            assert os.listdir(d)==['bears.cassette']
        finally: Path(d).chmod(0o755)


@pytest.mark.skipif(os.name=='nt' or not hasattr(os, 'getuid') or os.getuid()!=0, reason='needs another user to be')
def test_a_copy_from_under_a_recorder_in_a_folder_where_nothing_may_be_written():
    "With its log it says why it cannot be read; without, it reads."
    code = AS_NOBODY.split('with Cassette')[0]+"""
try: print([Cassette(sys.argv[1]).get_fetch(f'https://x.example/{i}.jpg') is not None for i in (1, 2)])
except Exception as e: print(type(e).__name__)
"""
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        for sub in 'with', 'alone': (d/sub).mkdir()
        with Cassette(d/'a.cassette', 'record') as tape: tape.put_fetch(picture(1))
        with Cassette(d/'a.cassette', 'record') as tape:
            tape.put_fetch(picture(2))
            for f,to in ('a.cassette', 'with'), ('a.cassette-wal', 'with'), ('a.cassette', 'alone'): shutil.copy(d/f, d/to/f)
        for p in d, d/'with', d/'alone': p.chmod(0o555)
        run = lambda sub: subprocess.run([sys.executable, '-c', code, str(d/sub/'a.cassette'), *sys.path], capture_output=True, text=True, cwd='/').stdout.strip()
        assert (run('with'), run('alone'))==('CassetteError', '[True, False]')
        with Cassette(d/'with/a.cassette') as tape: assert tape.get_fetch('https://x.example/2.jpg').ok     # where one may write, it is mended


def test_many_readers_after_a_crash(tmp_path):
    path = tmp_path/'bears.cassette'
    killed_after(path, 30)
    code = "import sys; from bearclass.gather.cassette import Cassette; print(Cassette(sys.argv[1]).get_fetch('https://x.example/30.jpg').ok)"
    runs = [subprocess.Popen([sys.executable, '-c', code, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(5)]
    assert [p.communicate()[0].strip() for p in runs]==['True']*5


def test_a_reader_that_stays_does_not_keep_records_in_the_log(tmp_path):
    tape = Cassette(tmp_path/'a.cassette', 'record')
    tape.put_fetch(picture(1))
    reader = Cassette(tmp_path/'a.cassette')
    tape.put_fetch(picture(2))
    tape.close()
    shutil.copy(tmp_path/'a.cassette', tmp_path/'copy.cassette')
    reader.close()
    with Cassette(tmp_path/'copy.cassette') as copy: assert copy.get_fetch('https://x.example/2.jpg').ok


READER = '''
import sys, hashlib
from bearclass.gather.cassette import Cassette
with Cassette(sys.argv[1]) as tape:
    got = [tape.get_fetch(r['url']).body for r in tape.get_search('p', 'bear', {})]
print(hashlib.sha256(b''.join(got)).hexdigest())
'''


def test_forty_readers_in_five_processes(tmp_path):
    path = recorded(tmp_path/'bears.cassette', 40)
    before = path.read_bytes()
    runs = [subprocess.Popen([sys.executable, '-c', READER, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    tapes = [Cassette(path) for _ in range(36)]
    got = []
    def _read(tape): got.append(hashlib.sha256(b''.join(tape.get_fetch(f'https://x.example/bear{i}.jpg').body for i in range(40))).hexdigest())
    threads = [threading.Thread(target=_read, args=[t]) for t in tapes]
    for t in threads: t.start()
    for t in threads: t.join()
    for t in tapes: t.close()
    got += [p.communicate()[0].strip() for p in runs]
    assert Counter(got)=={hashlib.sha256(b''.join(body(f'bear{i}') for i in range(40))).hexdigest(): 40}
    assert path.read_bytes()==before


def test_threads_and_two_recorders_share_a_file(tmp_path):
    with Cassette(tmp_path/'a.cassette', 'record') as one, Cassette(tmp_path/'a.cassette', 'record') as two:
        def _put(tape, start):
            for i in range(start, start+20): tape.put_fetch(picture(i))
        threads = [threading.Thread(target=_put, args=[t, s]) for t,s in ((one, 0), (one, 20), (two, 40), (two, 60), (two, 70))]
        for t in threads: t.start()
        for t in threads: t.join()
    with Cassette(tmp_path/'a.cassette') as tape:
        assert all(tape.get_fetch(f'https://x.example/{i}.jpg').body==body(i) for i in range(90))
    assert os.listdir(tmp_path)==['a.cassette']


# --- nothing but what was recorded

def answers(path, urls, terms):
    "Everything a replay gives, or the name of the error that it gives instead."
    out = []
    try: tape = Cassette(path)
    except CassetteError as e: return [str(e)]
    with tape:
        for t in terms:
            try: out.append(tape.get_search('p', t, {}))
            except CassetteError as e: out.append(str(e))
        for u in urls:
            got = tape.get_fetch(u)
            out.append(got and asdict(got))
    return out


def test_no_flipped_bit_gives_wrong_data(tmp_path):
    "Three hundred places, one bit each: every answer is the truth, or a failure that says so."
    path = recorded(tmp_path/'bears.cassette', 6)
    urls,data,rng = [f'https://x.example/bear{i}.jpg' for i in range(6)], path.read_bytes(), random.Random(3)
    truth = answers(path, urls, ['bear'])
    seen = Counter()
    for at in [*range(0, 100, 3), *rng.sample(range(100, len(data)), 270)]:
        path.write_bytes(data[:at]+bytes([data[at]^(1<<rng.randrange(8))])+data[at+1:])
        found = answers(path, urls, ['bear'])
        if len(found)==1:
            seen['refused'] += 1
            continue
        for got,true in zip(found, truth):
            named = got is None or isinstance(got, str) or (isinstance(got, dict) and got['reason']==DAMAGED)
            assert got==true or named, (at, got)
            seen['true' if got==true else 'named'] += 1
    assert min(seen.values())>=10 and len(seen)==3, seen


@pytest.mark.parametrize('share', [.1, .5, .9])
def test_a_cut_file_is_damaged_and_says_so(tmp_path, share):
    path = recorded(tmp_path/'bears.cassette')
    truth = answers(path, [f'https://x.example/bear{i}.jpg' for i in range(20)], ['bear'])
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size*share)])
    found = answers(path, [f'https://x.example/bear{i}.jpg' for i in range(20)], ['bear'])
    assert found!=truth
    assert all(g in truth or g is None or 'damaged' in str(g) for g in found)


def test_what_is_no_cassette(tmp_path):
    with pytest.raises(MissingError, match='there is no cassette'): Cassette(tmp_path/'gone')
    with pytest.raises(MissingError, match='there is no cassette'): Cassette(tmp_path)
    (tmp_path/'file').write_text('x')
    with pytest.raises(CassetteError, match='cannot be'): Cassette(tmp_path/'file'/'a.cassette', 'record')
    with pytest.raises(CassetteError, match='cannot be'): Cassette(tmp_path, 'record')
    (tmp_path/'zero').touch()
    with pytest.raises(CassetteError, match='no cassette'): Cassette(tmp_path/'zero')
    for name,data in dict(text=b'hello', html=b'<html>'*1000, jpeg=b'\xff\xd8\xff'+bytes(5000)).items():
        (tmp_path/name).write_bytes(data)
        for mode in 'record', 'replay':
            with pytest.raises(CassetteError, match='no cassette'): Cassette(tmp_path/name, mode)
        assert (tmp_path/name).read_bytes()==data
    with closing(sqlite3.connect(tmp_path/'other.db')) as db: db.executescript('CREATE TABLE searches(x); INSERT INTO searches VALUES (1);')
    was = (tmp_path/'other.db').read_bytes()
    for mode in 'record', 'replay':
        with pytest.raises(CassetteError, match='no cassette'): Cassette(tmp_path/'other.db', mode)
    assert (tmp_path/'other.db').read_bytes()==was
    recorded(tmp_path/'new.cassette', 1)
    with closing(sqlite3.connect(tmp_path/'new.cassette')) as db: db.execute('PRAGMA user_version=2')
    for mode in 'record', 'replay':
        with pytest.raises(CassetteError, match='schema 2'): Cassette(tmp_path/'new.cassette', mode)


def test_recording_adds_to_a_file_and_keeps_the_last_success(tmp_path):
    path = recorded(tmp_path/'bears.cassette', 3)
    with Cassette(path, 'record') as tape:
        tape.put_fetch(replace(picture('bear0'), body=b'newer'))
        tape.put_fetch(Fetched('https://x.example/bear1.jpg', reason='http 500', status=500))
        for r in 'http 500', 'timeout': tape.put_fetch(Fetched('https://x.example/bad.jpg', reason=r))
        tape.put_search('p', 'bear', {}, [result('other')])
        tape.put_search('p', 'bear', {}, [], failed='down')
    with Cassette(path) as tape:
        got = [tape.get_fetch(f'https://x.example/{n}.jpg') for n in ('bear0', 'bear1', 'bear2', 'bad')]
        assert [g.body for g in got]==[b'newer', body('bear1'), body('bear2'), b'']
        assert got[3].reason=='timeout'                      # of failures the last one
        assert tape.get_search('p', 'bear', {})==[result('other')]


def test_a_damaged_record_is_healed_by_recording_again(tmp_path):
    path = recorded(tmp_path/'bears.cassette', 3)
    data = path.read_bytes()
    at = data.index(body('bear1')[:50])
    path.write_bytes(data[:at]+bytes([data[at]^4])+data[at+1:])
    with Cassette(path) as tape: assert tape.damaged()==['https://x.example/bear1.jpg']
    with Cassette(path, 'record') as tape: tape.put_fetch(picture('bear1'))
    with Cassette(path) as tape: assert tape.damaged()==[] and tape.get_fetch('https://x.example/bear1.jpg').body==body('bear1')


# --- keys

SECRET = 'S3CR3T'   # every secret below has it in its middle


def secrets_everywhere(path):
    "Write a secret wherever one can be written, again and again, so that pages are freed and used again."
    n = iter(range(10_000))
    s = lambda: f'aaa{SECRET}{next(n):04}zzz'
    names = ('key api_key apikey token access_token auth_token sig signature X-Amz-Signature X-Amz-Credential X-Amz-Security-Token X-Goog-Signature '
             'subscription-key Ocp-Apim-Subscription-Key client_secret password jwt sessionid AWSAccessKeyId appid hmac').split()
    def _urls():
        for m in names:
            yield f'https://x.example/a.jpg?w=1&{m}={s()}&h=2'
            yield f'https://x.example/a.jpg?{m.upper()}={s()}%26{s()}%2B/{s()}=='
            yield f'https://x.example/a.jpg#{m}={s()}'
            yield f'https://x.example/a.jpg?{quote(m.replace("-", "_"), safe="").replace("_", "%5F")}={s()}'
            inner = f'https://y.example/b.jpg?q=1&{m}={s()}%3D%26&r=2'
            yield f'https://x.example/?url={quote(inner, safe="")}&page=1'
            yield f'https://x.example/?url={quote(quote(inner, safe=""), safe="")}'
        yield f'https://ann:{s()}@x.example/a.jpg'
        yield f'https://{s()}@x.example/a.jpg'
        yield f'https://x.example/?url={quote(f"https://ann:{s()}@y.example/")}'
        yield f'https://x.example/?url={quote(f"https://ann:{s()}@y.example/", safe="")}'
        yield f'https://x.example/a.jpg;jsessionid={s()}?w=1'
    for again in range(2):
        with Cassette(path, 'record') as tape:
            for i,u in enumerate(_urls()):
                k = s()
                tape.put_fetch(Fetched(u, u+f'&token={s()}', ok=bool(i%2), reason='' if i%2 else 'connection', status=200,
                    detail=f'GET {u} Authorization: Bearer {s()}; Cookie: id={s()}; b={s()}\nproxy http://u:{s()}@p:1 {{"api_key": "{s()}"}} token={s()} bearer {s()}',
                    headers={'location': f'/next?sig={s()}', 'set-cookie': f'id={s()}; HttpOnly', 'authorization': f'Basic {s()}', 'x-api-key': s(), 'link': f'<{u}>; rel=next',
                             'x-auth-token': s(), 'proxy-authorization': s(), 'cookie2': s(), 'etag': 'fine'},
                    body=b'picture' if i%2 else b''))
                tape.put_fetch(Fetched(f'https://x.example/{i}?key={k}', ok=True, detail=f'you are {k}', body=f'{{"you": "{k}", "n": {i}}}'.encode()))
                args = dict(n=3, api_key=k, headers={'Authorization': f'Bearer {s()}'}, base=u, nested=[dict(token=s())])
                tape.put_search('p', f'bear {i}', args, [dict(url=u, page_url=u, title=f'said {k} {u}', thumbnail=dict(url=u), key=s(), list=[u, (u,)])], failed='')
                tape.put_search('p', f'failed {i}', args, [], failed=f'401 for {u}: api_key={s()} and Authorization: Digest {s()} {k}')
    return next(n)


def test_no_secret_reaches_the_file(tmp_path):
    n = secrets_everywhere(tmp_path/'a.cassette')
    assert n>2000
    tape = Cassette(tmp_path/'a.cassette', 'record')        # and while it is open: the log beside it
    u = f'https://x.example/late?key=aaa{SECRET}zzz'
    tape.put_fetch(Fetched(u, u, ok=True, body=b'1'))
    assert (tmp_path/'a.cassette-wal').stat().st_size
    for f in tmp_path.iterdir(): assert SECRET.encode() not in f.read_bytes(), f.name
    tape.close()
    with Cassette(tmp_path/'a.cassette') as tape:
        assert SECRET not in repr(tape)+tape._repr_html_()+tape.table().to_csv()
        for i,f in enumerate(tape.slice_all(3, tmp_path/'class')): assert SECRET.encode() not in f.read_bytes()
        with pytest.raises(NotOnCassette) as e: taped_search(tape, 'p', 'none', dict(api_key=f'a{SECRET}'), None)
        assert SECRET not in str(e.value)
        assert SECRET not in taped_fetch(tape)(f'https://x.example/none?token=a{SECRET}').detail
        got = tape.get_fetch(f'https://x.example/0?key=aaa{SECRET}0000')
        assert got is None or SECRET not in got.body.decode()


def test_secrets_of_a_request_are_struck_out_of_its_answer(tmp_path):
    key = f'header-{SECRET}'
    never_record(f'env-{SECRET}')
    def _fetch(url, rules, **kw): return Fetched(url, url, ok=True, status=200, detail=f'hello {key}', body=f'{key} env-{SECRET} {SECRET}pass bear'.encode())
    rules = FetchRules(headers={'X-Api-Key': key, 'Cookie': f'a=1; session={SECRET}cookie'}, proxy=f'http://user:{SECRET}pass@proxy.example:8080')
    with Cassette(tmp_path/'a.cassette', 'record') as tape: taped_fetch(tape, _fetch)('https://x.example/who', rules)
    assert SECRET.encode() not in (tmp_path/'a.cassette').read_bytes()
    with Cassette(tmp_path/'a.cassette') as tape: assert tape.get_fetch('https://x.example/who').body.decode().endswith('* bear')


@pytest.mark.parametrize('piece', ['-', '.', '%', '%3f', '%2f', '%25', '?', '&a', '//', 'key', 'key=', '=', ';', '@', '%3fkey', 'cookie', ' bearer', '[', '_', '-key'])
def test_no_text_keeps_the_search_for_secrets_busy(piece):
    "Twice the longest address that is fetched: a moment, whatever it is made of."
    text = 'https://x.example/?'+piece*(16_000//len(piece))
    start = time.monotonic()
    without_secrets(text, words=True)
    address_key(text)
    assert time.monotonic()-start<5


@settings(deadline=None, max_examples=150)
@given(st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=40), st.sampled_from(['?key={}&w=1', '?w=1&token={}', '?u=https%3A%2F%2Fy%2F%3Fsig%3D{}', '#access_token={}']))
def test_whatever_the_secret_is_made_of(text, where):
    secret = 'q' + quote(text, safe='') + 'Q7'
    url = 'https://x.example/' + where.format(secret if '%3D' not in where else quote(secret, safe=''))
    struck = without_secrets(url)
    assert secret not in struck and 'Q7' not in struck
    assert without_secrets(struck)==struck
    assert address_key(url)==address_key(struck)==address_key(url.replace(secret, 'another'))


def test_any_address_header_and_body_comes_back(tmp_path):
    with Cassette(tmp_path/'any.cassette', 'record') as tape:
        @settings(deadline=None, max_examples=150)
        @given(st.text(max_size=60), st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=4), st.binary(max_size=300))
        def _try(text, headers, data):
            url = 'https://x.example/'+text
            tape.put_fetch(Fetched(url, url, ok=True, headers=headers, body=data))
            got = tape.get_fetch(url)
            assert (got.ok, got.url, got.body)==(True, url, data)
            assert {k: v for k,v in got.headers.items() if 'struck' not in v}.items() <= headers.items()
        _try()


def test_other_values_of_struck_out_parameters_match(tmp_path):
    with Cassette(tmp_path/'a.cassette', 'record') as tape:
        tape.put_fetch(replace(picture(1), url='https://x.example/a.jpg?w=3&key=mine&sig=1', final_url=''))
        tape.put_search('p', 'bear', dict(n=3, key='mine'), [result(1)])
    with Cassette(tmp_path/'a.cassette') as tape:
        for u in 'w=3&key=yours&sig=2', 'w=3', 'key=yours&w=3', 'w=3&key=mine&sig=1': assert tape.get_fetch(f'https://X.example/a.jpg?{u}').body==body(1), u
        for u in 'w=4&key=mine&sig=1', '': assert tape.get_fetch(f'https://x.example/a.jpg?{u}') is None
        for k in dict(key='yours'), {}: assert tape.get_search('p', 'bear', dict(n=3, **k))==[result(1)]


def test_a_struck_address_finds_its_own_picture_in_a_later_process(tmp_path, monkeypatch):
    path = tmp_path/'a.cassette'
    urls = [f'https://x.example/image.php?key=photo{i}' for i in range(3)]
    for run,news in ('aaaaaa', b''), ('bbbbbb', b'new'):
        monkeypatch.setattr(module, '_run', run)
        with Cassette(path, 'record') as tape:
            tape.put_search('p', f'bear {run}', {}, [dict(url=u) for u in urls])
            for i,u in enumerate(urls): tape.put_fetch(Fetched(u, u, ok=True, body=b'%d' % i + news))
        monkeypatch.setattr(module, '_numbers', {'something': 1})
    monkeypatch.setattr(module, '_run', 'cccccc')
    with Cassette(path) as tape:
        for run,news in ('aaaaaa', b''), ('bbbbbb', b'new'):
            assert [tape.get_fetch(r['url']).body for r in tape.get_search('p', f'bear {run}', {})]==[b'%d' % i + news for i in range(3)]
        assert tape.get_fetch(urls[0]) is None             # three pictures would do: no guessing


# --- no request

def test_a_replay_asks_nobody(tmp_path, no_sockets):
    path = recorded(tmp_path/'bears.cassette')
    with Cassette(path) as tape:
        found = taped_search(tape, 'p', 'bear', {}, lambda: pytest.fail('asked the provider'))
        got = taped_fetch_all(tape, lambda *a, **k: pytest.fail('asked the web'))([r['url'] for r in found] + ['https://x.example/never'], FetchRules())
        assert [g.reason for g in got]==['']*20+[NOT_ON_IT]
        assert taped_fetch(tape, lambda *a, **k: pytest.fail('asked the web'))('https://x.example/never').reason==NOT_ON_IT
    assert no_sockets==[]
    with pytest.raises(OSError): socket.create_connection(('127.0.0.1', 9))   # the guard does see


def test_every_fault_of_a_hostile_server_is_repeated(tmp_path):
    paths = ['/ok/1.jpg', '/404/2', '/truncated/3', '/html-as-image/4', '/redirect/5', '/redirect-loop', '/duplicate/6', '/lying-length', '/gzip-bomb', '/opt-out', '/empty', '/hang/7', '/huge/8']
    with HostileServer() as s:
        urls = [s.url(p) for p in paths]
        with Cassette(tmp_path/'a.cassette', 'record') as tape: live = taped_fetch_all(tape)(urls, quick)
    assert len({g.reason for g in live})>=3
    with Cassette(tmp_path/'a.cassette') as tape: assert [asdict(g) for g in taped_fetch_all(tape)(urls)]==[asdict(g) for g in live]


def test_only_what_the_web_did_is_recorded(tmp_path):
    def _fails(e):
        def _search(): raise e
        return _search
    with Cassette(tmp_path/'a.cassette', 'record') as tape:
        for e in InputError('a', 'b', 'c'), OfflineError('a', 'b', 'c'), KeyboardInterrupt():
            with pytest.raises(type(e)): taped_search(tape, 'p', 'bear', {}, _fails(e))
        assert tape.searches()==[]
        for e in TimeoutError('5 s'), RuntimeError('throttled'):
            with pytest.raises(type(e)): taped_search(tape, 'p', 'bear', {}, _fails(e))
    with Cassette(tmp_path/'a.cassette') as tape:
        with pytest.raises(RecordedFailure, match='RuntimeError: throttled'): taped_search(tape, 'p', 'bear', {}, None)


def test_an_interrupted_recording_keeps_what_came(tmp_path):
    def _fetch_all(urls, rules, on_done, **kw):
        for i,u in enumerate(urls): on_done(i, picture(i) if i<2 else Fetched(u, reason='cancelled'))
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        with Cassette(tmp_path/'a.cassette', 'record') as tape: taped_fetch_all(tape, _fetch_all)([f'https://x.example/{i}.jpg' for i in range(4)])
    with Cassette(tmp_path/'a.cassette') as tape: assert list(tape.table().ok)==[True, True]


def test_a_whole_run_by_environment(tmp_path, monkeypatch, no_sockets):
    recorded(tmp_path/'bears.cassette', 2)
    monkeypatch.setenv('BEARCLASS_REPLAY', str(tmp_path/'bears.cassette'))
    with current_cassette() as tape: assert taped_fetch(tape)('https://x.example/bear1.jpg').ok
    monkeypatch.setenv('BEARCLASS_RECORD', str(tmp_path/'b.cassette'))
    with pytest.raises(InputError, match='both BEARCLASS_RECORD and BEARCLASS_REPLAY'): current_cassette()
    with current_cassette(replay=tmp_path/'bears.cassette') as tape: assert tape.mode=='replay'
    assert not (tmp_path/'b.cassette').exists() and no_sockets==[]


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full here')
def test_a_full_disk_is_one_clear_error(tmp_path):
    with Cassette(tmp_path/'a.cassette', 'record') as tape:
        tape.put_fetch(picture(1))
        tape._db.execute('PRAGMA max_page_count=20')          # as full as a disk can be
        with pytest.raises(CassetteError, match='full'): tape.put_fetch(replace(picture(2), body=bytes(200_000)))
    with Cassette(tmp_path/'a.cassette') as tape: assert tape.get_fetch('https://x.example/1.jpg').ok and tape.damaged()==[]


# --- slices

def shares(files):
    "What each slice holds: [{term: addresses of its results}]."
    out = []
    for f in files:
        with Cassette(f) as t: out.append({s['term']: [r['url'] for r in s['results']] for s in t.searches()})
    return out


def test_forty_slices_of_two_hundred(tmp_path):
    path = recorded(tmp_path/'bears.cassette', 100, ('black', 'teddy'))
    with Cassette(path) as tape: files = tape.slice_all(40, tmp_path/'class')
    found = shares(files)
    assert files[0].name=='bears-01-of-40.cassette' and len(files)==40
    for term in 'black', 'teddy':
        every = [u for f in found for u in f[term]]
        assert sorted(every)==sorted(f'https://x.example/{term}{i}.jpg' for i in range(100))       # all, and nobody's twice
        assert {len(f[term]) for f in found}=={2, 3}
    assert {sum(len(us) for us in f.values()) for f in found}=={5}
    for f,mine in zip(files, found):
        with Cassette(f) as t:
            assert sorted(t.table().query("kind=='download'").name)==sorted(u for us in mine.values() for u in us)
            assert all(t.get_fetch(u).body==body(u[18:-4]) for us in mine.values() for u in us) and t.damaged()==[]
    with Cassette(path) as tape:
        with tape.slice(6, 40, path=tmp_path/'one.cassette') as one: assert shares([one.path])[0]==found[6]
        assert shares(tape.slice_all(40, tmp_path/'other', seed=1))!=found
        assert shares(tape.slice_all(40, tmp_path/'class'))==found                                  # cut again over the old ones


def test_the_same_slices_on_every_system(tmp_path):
    "Dealt by SHA-256: these are the same numbers everywhere, and in every version."
    who = deal([('bear', f'p{i}', 'ok') for i in range(16)], 4, seed=42)
    assert who==EXPECTED
    code = "from bearclass.gather.cassette import deal; print(deal([('bear', f'p{i}', 'ok') for i in range(16)], 4))"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'PYTHONHASHSEED': '7'})
    assert json.loads(out.stdout)==who


EXPECTED = [2, 3, 1, 0, 2, 1, 0, 3, 0, 2, 1, 3, 1, 0, 2, 3]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from('ab'), st.integers(0, 30), st.sampled_from(['ok', 'failed'])), max_size=60), st.integers(1, 9), st.integers())
def test_any_deal(cards, n, seed):
    cards = [(s, f'{k}{p}', k) for s,p,k in cards]     # a picture is of one kind
    who = deal(cards, n, seed)
    assert len(who)==len(cards) and set(who) <= set(range(n))
    assert len({(c[1], w) for c,w in zip(cards, who)})==len({c[1] for c in cards})               # one owner each
    for m in range(0, len(cards), 7): assert deal(cards[:m], n, seed)==who[:m]                    # later cards move no earlier one
    first = {c[1]: (c[0], c[2], w) for c,w in reversed(list(zip(cards, who))) if c[0]=='a'}
    for kind in 'ok', 'failed':
        if {c[0] for c in cards} != {'a'}: continue
        sizes = [sum(1 for _,k,w in first.values() if k==kind and w==s) for s in range(n)]
        assert max(sizes)-min(sizes)<=1


def test_duplicates_thumbnails_redirects_and_leftovers(tmp_path):
    path = tmp_path/'bears.cassette'
    with Cassette(path, 'record') as tape:
        tape.put_search('p', 'bear', {}, [result(i, thumbnail=f'https://t.example/{i}') for i in range(12)] + [result(0), result('twin'), result('moved'), result('gone'), result('unasked')])
        tape.put_search('p', 'grizzly', {}, [result(i) for i in range(6, 16)])
        for i in range(16):
            tape.put_fetch(picture(i))
            if i<12: tape.put_fetch(Fetched(f'https://t.example/{i}', ok=True, body=b'thumb %d' % (i//2)))
        tape.put_fetch(replace(picture('twin'), body=body(3)))                                    # picture 3 under a second address
        tape.put_fetch(replace(picture('moved'), final_url='https://x.example/9b.jpg'))
        tape.put_fetch(picture('9b'))                                                             # it has changed since
        tape.put_fetch(Fetched('https://x.example/gone.jpg', reason='http 404', status=404))
        for i in range(7): tape.put_fetch(picture(f'leftover{i}'))
    with Cassette(path) as tape:
        files = tape.slice_all(4, tmp_path/'class')
        all_rows = set(tape.table().name)
    holds = [set(Cassette(f).table().name) for f in files]
    assert set().union(*holds)==all_rows
    found = shares(files)
    owner = {}
    for s,f in enumerate(found):
        for u in f['bear']+f['grizzly']:
            assert owner.setdefault(u, s)==s, u                                                    # also across the two searches
            assert u in holds[s] or u.endswith('unasked.jpg')
    assert len(owner)==16+4 and sum(len(f['bear']) for f in found)==17 and sum(len(f['grizzly']) for f in found)==10
    x = 'https://x.example/'
    assert owner[x+'3.jpg']==owner[x+'twin.jpg']
    assert x+'9b.jpg' in holds[owner[x+'moved.jpg']]
    for i in range(12): assert f'https://t.example/{i}' in holds[owner[f'{x}{i}.jpg']]
    left = [sum('leftover' in u for u in h) for h in holds]
    assert sum(left)==7 and max(left)-min(left)<=1
    seen = Counter(hashlib.sha256(Cassette(f).get_fetch(u).body).hexdigest() for f,s in zip(files, found) for u in set(s['bear']+s['grizzly']) if Cassette(f).get_fetch(u))
    pictures = [{Cassette(f).get_fetch(u).body for u in s['bear']+s['grizzly'] if (g := Cassette(f).get_fetch(u)) and g.ok} for f,s in zip(files, found)]
    assert sum(map(len, pictures))==len(set().union(*pictures))                                    # no picture is in two slices


def test_more_students_than_results(tmp_path):
    with Cassette(recorded(tmp_path/'a.cassette', 3)) as tape: found = shares(tape.slice_all(5, tmp_path/'class'))
    assert sorted(len(f['bear']) for f in found)==[0, 0, 1, 1, 1]


def test_a_slice_never_replaces_what_is_no_slice(tmp_path):
    with Cassette(recorded(tmp_path/'a.cassette', 3)) as tape:
        (tmp_path/'mine.txt').write_text('mine')
        for target in 'a.cassette', 'mine.txt':
            with pytest.raises(InputError, match='is no slice'): tape.slice(0, 2, path=tmp_path/target)
        for i,n in (2, 2), (-1, 2), (0, 0):
            with pytest.raises(InputError, match='count from 0'): tape.slice(i, n)
        assert (tmp_path/'mine.txt').read_text()=='mine' and tape.damaged()==[]
    assert sorted(os.listdir(tmp_path))==['a.cassette', 'mine.txt']


def test_damage_stays_noticeable_in_a_slice(tmp_path):
    path = recorded(tmp_path/'a.cassette', 4)
    data = path.read_bytes()
    at = data.index(body('bear1')[:50])
    path.write_bytes(data[:at]+bytes([data[at]^4])+data[at+1:])
    with closing(sqlite3.connect(path)) as db, db: db.execute("UPDATE fetches SET record=replace(record, '200', '201') WHERE key LIKE '%bear2%'")
    with Cassette(path) as tape:
        assert tape.damaged()==['https://x.example/bear1.jpg', 'https://x.example/bear2.jpg']
        assert list(tape.table().reason)==['', '', '', DAMAGED, '']              # the table reads no bodies
        files = tape.slice_all(2, tmp_path/'class')
    assert sorted(d for f in files for d in Cassette(f).damaged())==['https://x.example/bear1.jpg', 'https://x.example/bear2.jpg']
    with closing(sqlite3.connect(path)) as db, db: db.execute("UPDATE searches SET record=replace(record, 'bear1.jpg', 'bear7.jpg')")
    with Cassette(path) as tape:
        assert tape.damaged()[0]=='["p", "bear", {}]'
        with pytest.raises(CassetteError, match='is damaged'): tape.slice(0, 2)


def test_a_row_in_the_wrong_place_is_damaged(tmp_path):
    "One bit makes bear1 out of bear0, in the columns that rows are found by."
    path = recorded(tmp_path/'a.cassette', 1, ('bear0', 'bear2'))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE searches SET key=replace(key, 'bear0', 'bear1')")
        db.execute("UPDATE fetches SET loose=replace(loose, 'bear00', 'bear10')")
        db.execute("UPDATE fetches SET key=replace(key, 'bear20', 'bear30')")
    with Cassette(path) as tape:
        with pytest.raises(CassetteError, match='is damaged'): tape.get_search('p', 'bear1', {})
        assert [tape.get_fetch(f'https://x.example/bear{i}0.jpg').reason for i in (0, 1, 3)]==['', DAMAGED, DAMAGED]


# --- a lesson, from search to pictures

def lesson(root, **kw):
    from bearclass.gather.download import gather_images
    return gather_images(root, {'black': 'black bear', 'teddy': 'teddy bear'}, n=40, provider='hostile', rules=quick, **kw)


def pictures_in(root): return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob('*.*') if p.parent!=root}


def faults(n0):
    "Forty addresses of a class: good ones with a secret each, and a few of each fault."
    good = [f'/ok/{n0+i}.jpg?w=9&token={SECRET}{n0+i}' for i in range(26)]
    return good + [f'/{k}/{n0+i}' for k in ('404', 'truncated', 'html-as-image', 'redirect', 'duplicate', 'opt-out', 'empty') for i in range(2)]


@pytest.fixture
def hostile_provider(monkeypatch):
    from bearclass.gather import search
    monkeypatch.setattr(search, '_providers', dict(search._providers))          # and nobody else's tests see it
    with HostileServer() as s:
        @search.register_provider('hostile')
        def hostile(term, n, ctx): return [dict(url=s.url(p), title=term) for p in faults(0 if 'black' in term else 100)]
        yield s


def test_a_teacher_records_and_every_student_replays_other_pictures(tmp_path, hostile_provider, monkeypatch):
    teacher = lesson(tmp_path/'teacher', record=tmp_path/'bears.cassette')
    assert teacher.addresses==80 and teacher.saved>=50 and teacher.failed>=20
    hostile_provider.hits.clear()
    with Cassette(tmp_path/'bears.cassette') as tape:
        assert tape.damaged()==[]
        files = tape.slice_all(4, tmp_path/'class')
    for f in [tmp_path/'bears.cassette', *files]: assert SECRET.encode() not in f.read_bytes()

    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    reports,trees = [],[]
    with sockets_refused() as used:
        again = lesson(tmp_path/'again', replay=tmp_path/'bears.cassette')     # the whole cassette: the very same folder
        for i,f in enumerate(files):
            monkeypatch.setenv('BEARCLASS_REPLAY', str(f))
            reports.append(lesson(tmp_path/f'student{i}'))
            trees.append(pictures_in(tmp_path/f'student{i}'))
            assert SECRET not in (tmp_path/f'student{i}/manifest.jsonl').read_text()
    assert pictures_in(tmp_path/'again')==pictures_in(tmp_path/'teacher') and again.reasons==teacher.reasons
    assert used==[] and sum(hostile_provider.hits.values())==0
    assert sum(map(len, trees))==len(pictures_in(tmp_path/'teacher'))          # no picture twice in the class, and none missing
    assert {k: v for t in trees for k,v in t.items()}==pictures_in(tmp_path/'teacher')
    assert all(r.saved+r.duplicate+r.failed==r.addresses for r in reports) and sum(r.addresses for r in reports)==80
    assert sum((r.reasons for r in reports), Counter())==teacher.reasons
    saved = [r.saved for r in reports]
    assert max(saved)-min(saved)<=4


LESSON = '''
import sys
sys.path[:0] = sys.argv[3:]
from bearclass.gather.download import download
from bearclass.gather.fetch import FetchRules
download(open(sys.argv[2]).read().split(), sys.argv[1], 'bear', rules=FetchRules(allow_local=True, per_host=2), record=sys.argv[1]+'.cassette')
'''


def test_a_download_killed_while_it_records(tmp_path):
    "What is on the cassette after the kill can be replayed, and a second run adds the rest."
    from bearclass.gather.download import download
    with HostileServer(latency=(.02, .03)) as s:
        urls = [s.url(f'/ok/{i}.jpg') for i in range(60)]
        (tmp_path/'urls.txt').write_text('\n'.join(urls))
        p = subprocess.Popen([sys.executable, '-c', LESSON, str(tmp_path/'bears'), str(tmp_path/'urls.txt')])
        until = time.monotonic()+30
        while sum(s.hits.values())<20 and time.monotonic()<until: time.sleep(.01)
        p.kill()
        p.wait()
        with Cassette(tmp_path/'bears.cassette') as tape:
            assert tape.damaged()==[]
            there = [u for u in urls if (g := tape.get_fetch(u)) and g.ok]
        assert 5<=len(there)<60
        part = download(urls, tmp_path/'part', 'bear', replay=tmp_path/'bears.cassette')
        assert (part.saved, part.reasons[NOT_ON_IT])==(len(there), 60-len(there))
        full = download(urls, tmp_path/'full', 'bear', rules=quick, record=tmp_path/'bears.cassette')
        assert full.saved==60
    rest = download(urls, tmp_path/'part', 'bear', replay=tmp_path/'bears.cassette')
    assert rest.saved==60 and pictures_in(tmp_path/'part')==pictures_in(tmp_path/'full')
