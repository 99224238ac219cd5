"Cassettes: killed recorders, read-only folders, forty readers, flipped bits, keys that hide, slices for a class."
import hashlib, json, os, random, sqlite3, subprocess, sys, tempfile
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st

from bearclass.gather import cassette as module
from bearclass.gather.addresses import address_key, without_keys
from bearclass.gather.cassette import (
    DAMAGED, Cassette, CassetteError, NotOnCassette, never_record, share_out, taped_fetch_all, taped_search)
from bearclass.gather.fetch import Fetched, FetchRules

X = 'https://x.example/'
local = FetchRules(allow_local=True, tries=1)
many = settings(deadline=None, max_examples=150)


def sha(data): return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()


def body(name): return random.Random(name).randbytes(2000)


def answer(url, **kw): return Fetched(url, **{**dict(final_url=url, ok=True, status=200), **kw})


def picture(name): return answer(f'{X}{name}.jpg', body=body(name), headers={'content-type':'image/jpeg'}, tries=1)


def recorded(path, n):
    "A cassette with a search, and the `n` pictures it found."
    with Cassette(path, 'record') as tape:
        tape.put_search('p', 'bear', {}, [dict(url=f'{X}bear{i}.jpg') for i in range(n)])
        for i in range(n): tape.put_fetch(picture(f'bear{i}'))
    return path


def python(code, *args, **kw):
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, text=True, **kw)


# --- killed, read-only, shared

RECORDER = '''
import random, sys
from bearclass.gather.cassette import Cassette
from bearclass.gather.fetch import Fetched
with Cassette(sys.argv[1], 'record') as tape:
    for i in range(100_000):
        url,body = f'https://x.example/{i}.jpg', random.Random(str(i)).randbytes(2000)
        tape.put_fetch(Fetched(url, ok=True, status=200, body=body))
        tape.put_search('p', f'bear {i}', {}, [dict(url=url)])
        print(i, flush=True)
'''


@pytest.mark.parametrize('n', [0, 25])
def test_a_killed_recorder_loses_nothing(tmp_path, n):
    "Killed without warning after `n` pictures; everything that it had reported is there."
    path = tmp_path/'bears.cassette'
    p = python(RECORDER, path)
    for line in p.stdout:
        if int(line)>=n: break
    p.kill()
    last = [int(line), *map(int, p.stdout.read().split('\n')[:-1])][-1]
    p.wait()
    with Cassette(path) as tape:
        for i in {0, last//2, last}:
            assert tape.get_fetch(f'{X}{i}.jpg').body==body(str(i))
            assert tape.get_search('p', f'bear {i}', {})==[dict(url=f'{X}{i}.jpg')]
        assert len(tape.searches()) in (last+1, last+2) and tape.damaged()==[]
    assert os.listdir(tmp_path)==['bears.cassette']          # one plain file again


AS_NOBODY = '''
import os, sys
sys.path[:0] = sys.argv[2:]
from bearclass.gather.cassette import Cassette
if hasattr(os, 'setuid') and os.getuid()==0: os.setuid(65534)
with Cassette(sys.argv[1]) as tape:
    print(len(tape.get_search('p', 'bear', {})), tape.get_fetch('https://x.example/bear3.jpg').ok)
try: Cassette(sys.argv[1], 'record').put_search('p', 'panda', {}, [])
except Exception as e: print(type(e).__name__)
'''


@pytest.mark.skipif(os.name=='nt', reason='folders have other rights there')
def test_replay_from_a_folder_where_nothing_may_be_written():
    with tempfile.TemporaryDirectory() as d:    # pytest's own folders may be entered by their owner only
        path = recorded(Path(d)/'bears.cassette', 20)
        path.chmod(0o444)
        Path(d).chmod(0o555)
        try:
            out = python(AS_NOBODY, path, *sys.path, cwd='/').communicate()[0]
            assert out=='20 True\nCassetteError\n'
            assert os.listdir(d)==['bears.cassette']
        finally: Path(d).chmod(0o755)


def old_cassette(path):
    "As version 0.1.0 left it: keys struck out by number, times, and a log beside it when its recorder was killed."
    db = sqlite3.connect(path, isolation_level=None)
    db.execute('PRAGMA journal_mode=WAL')
    for sql in module._layout.split(';\n'): db.execute(sql)
    db.execute('CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL)')
    def put(table, **row):
        row['sha256'] = sha(row['record'])
        db.execute(f"INSERT INTO {table}({', '.join(row)}) VALUES ({', '.join('?'*len(row))})", list(row.values()))
    urls = [f'{X}a.jpg?w=9&token=struck-594d6a5288-{i}' for i in (1, 2)] + [f'{X}b.jpg']
    found = dict(provider='auto', term='bear', args=dict(license=None, n=5), results=[dict(url=u) for u in urls],
                 ok=True, failed='', time='2026-11-29T20:05:00.948607+00:00')
    put('searches', key='["auto", "bear", {"license": null, "n": 5}]', record=json.dumps(found, sort_keys=True))
    for url,data in zip(urls, (b'first', b'second', b'')):
        record = dict(bytes=len(data), detail='', final_url=url, headers={'set-cookie':'struck-594d6a5288-3'},
                      ok=bool(data), reason='' if data else 'http 404', seconds=0., sha256=sha(data), status=200,
                      stayed=True, time='2026-11-29T20:05:00.961000+00:00', tries=1, url=url)
        loose = url.partition('&')[0]
        put('fetches', key=url, loose=loose, body=sha(data), record=json.dumps(record, sort_keys=True))
        db.execute('INSERT INTO bodies VALUES (?, ?)', (sha(data), data))
    return db


def test_cassettes_of_version_0_1_0_are_read(tmp_path):
    db = old_cassette(tmp_path/'old.cassette')
    for f in tmp_path.iterdir(): (tmp_path/f.name.replace('old', 'killed')).write_bytes(f.read_bytes())   # with its log
    db.execute('PRAGMA journal_mode=DELETE')
    db.close()
    for name in 'old', 'killed':
        path = tmp_path/f'{name}.cassette'
        with Cassette(path) as tape:
            found = tape.get_search('auto', 'bear', dict(n=5, license=None))
            got = [tape.get_fetch(r['url']) for r in found]
            assert [(g.body, g.reason) for g in got]==[(b'first', ''), (b'second', ''), (b'', 'http 404')]
            assert tape.get_fetch(f'{X}a.jpg?w=9&token=third') is None and tape.damaged()==[]
            assert len(tape.slice_all(2, tmp_path/name))==2
        with Cassette(path, 'record') as tape: tape.put_fetch(picture('new'))
        with Cassette(path) as tape: assert tape.get_fetch(f'{X}new.jpg').ok


# --- nothing but what was recorded

def answers(path, n):
    "Everything a replay gives, or the error that it gives instead."
    try: tape = Cassette(path)
    except CassetteError as e: return [str(e)]
    with tape:
        try: out = [tape.get_search('p', 'bear', {})]
        except CassetteError as e: out = [str(e)]
        for i in range(n):
            got = tape.get_fetch(f'{X}bear{i}.jpg')
            out.append(got and asdict(got))
    return out


def test_no_flipped_bit_gives_wrong_data(tmp_path):
    "Three hundred places, one bit each: every answer is the truth, or a failure that says so."
    path = recorded(tmp_path/'bears.cassette', 6)
    data,rng,seen,truth = path.read_bytes(), random.Random(3), Counter(), answers(path, 6)
    for at in [*range(0, 100, 3), *rng.sample(range(100, len(data)), 270)]:
        path.write_bytes(data[:at]+bytes([data[at]^(1<<rng.randrange(8))])+data[at+1:])
        found = answers(path, 6)
        if len(found)==1:
            seen['refused'] += 1
            continue
        for got,true in zip(found, truth):
            named = got is None or isinstance(got, str) or (isinstance(got, dict) and got['reason']==DAMAGED)
            assert got==true or named, (at, got)
            seen['true' if got==true else 'named'] += 1
    assert min(seen.values())>=10 and len(seen)==3, seen


# --- keys

SECRET = 'S3CR3T'   # every secret below has it in its middle
NAMES = 'api_key token X-Amz-Signature X-Amz-Credential client_secret password sessionid appid'.split()
numbers = iter(range(10**6))


def new(): return f'aaa{SECRET}{next(numbers):06}zzz'


def addresses_with_keys():
    for m in NAMES:
        yield f'{X}a.jpg?w=1&{m}={new()}&h=2'
        yield f'{X}a.jpg?{m.upper()}={new()}%26{new()}%2B/{new()}=='
        yield f'{X}a.jpg#{m}={new()}'
        yield f'{X}a.jpg?{m.replace("_", "%5F").replace("-", "%5F")}={new()}'
        inner = f'https://y.example/b.jpg?q=1&{m}={new()}%3D%26&r=2'
        yield f'{X}?url={quote(inner, safe="")}&page=1'
        yield f'{X}?url={quote(quote(inner, safe=""), safe="")}'
    for safe in '/', '': yield f'{X}?url={quote(f"https://ann:{new()}@y.example/", safe=safe)}'
    yield f'https://ann:{new()}@x.example/a.jpg'
    yield f'https://{new()}@x.example/a.jpg'
    yield f'{X}a.jpg;jsessionid={new()}?w=1'


def record_keys_everywhere(tape):
    for i,u in enumerate(addresses_with_keys()):
        headers = {n: new() for n in 'set-cookie authorization x-api-key x-auth-token cookie2'.split()}
        said = (f'GET {u} Authorization: Bearer {new()}; Cookie: id={new()}\nproxy http://u:{new()}@p:1 '
                f'{{"api_key": "{new()}"}} token={new()} bearer {new()}')
        headers |= dict(location=f'/next?sig={new()}', link=f'<{u}>; rel=next')
        tape.put_fetch(answer(u, final_url=f'{u}&token={new()}', detail=said, headers=headers))
        k = new()
        tape.put_fetch(answer(f'{X}{i}?key={k}', detail=f'you are {k}', body=f'{{"you": "{k}"}}'.encode()))
        args = dict(n=3, api_key=k, headers={'Authorization': f'Bearer {new()}'}, base=u)
        tape.put_search('p', f'bear {i}', args, [dict(url=u, title=f'said {k} {u}', key=new(), list=[u, (u,)])])
        tape.put_search('p', f'no {i}', args, [], failed=f'401 for {u}: api_key={new()} and Authorization: {new()} {k}')


def test_no_secret_reaches_the_file(tmp_path):
    path = tmp_path/'a.cassette'
    with Cassette(path, 'record') as tape:
        record_keys_everywhere(tape)
    assert next(numbers)>500 and SECRET.encode() not in path.read_bytes()
    with Cassette(path) as tape:
        assert SECRET not in repr(tape)+tape.table().to_csv()
        for f in tape.slice_all(3, tmp_path/'class'): assert SECRET.encode() not in f.read_bytes()
        with pytest.raises(NotOnCassette) as e: taped_search(tape, 'p', 'none', dict(api_key=f'a{SECRET}'), None)
        assert SECRET not in str(e.value)
        assert SECRET not in taped_fetch_all(tape)([f'{X}none?token=a{SECRET}'])[0].detail


def test_secrets_of_a_request_are_struck_out_of_its_answer(tmp_path):
    never_record(f'env-{SECRET}')
    def _fetch_all(urls, rules, on_done, **kw):
        said = f'header-{SECRET} env-{SECRET} {SECRET}pass bear'
        on_done(0, answer(urls[0], detail=said, body=said.encode()))
    rules = FetchRules(headers={'X-Api-Key':f'header-{SECRET}', 'Cookie':f'a=1; session={SECRET}cookie'},
                       proxy=f'http://user:{SECRET}pass@proxy.example:8080')
    with Cassette(tmp_path/'a.cassette', 'record') as tape: taped_fetch_all(tape, _fetch_all)([f'{X}who'], rules)
    assert SECRET.encode() not in (tmp_path/'a.cassette').read_bytes()
    with Cassette(tmp_path/'a.cassette') as tape: assert tape.get_fetch(f'{X}who').body.decode().endswith('* bear')


PIECES = '- . % %3f %2f %25 ? &a // key key= = ; @ %3fkey cookie [ _ -key'.split() + [' bearer']

@pytest.mark.parametrize('piece', PIECES)
def test_no_text_keeps_the_search_for_secrets_busy(piece):
    "Twice the longest address that is fetched; a pattern that tries every way to divide it would not come to an end."
    text = f'{X}?'+piece*(16_000//len(piece))
    assert without_keys(text, words=True).startswith(X) and address_key(text)


@many
@given(st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=40),
       st.sampled_from(['?key={}&w=1', '?w=1&token={}', '?u=https%3A%2F%2Fy%2F%3Fsig%3D{}', '#access_token={}']))
def test_whatever_the_secret_is_made_of(text, where):
    secret = 'q' + quote(text, safe='') + 'Q7'
    url = X + where.format(secret if '%3D' not in where else quote(secret, safe=''))
    struck = without_keys(url)
    assert secret not in struck and 'Q7' not in struck and without_keys(struck)==struck
    assert address_key(url)==address_key(struck)==address_key(url.replace(secret, 'another'))


# --- no request


# --- slices


def test_the_same_slices_on_every_system():
    "Dealt by SHA-256: these are the same numbers everywhere, and in every version."
    who = share_out([('bear', f'p{i}') for i in range(16)], 4, seed=42)
    assert who==[2, 3, 1, 0, 2, 1, 0, 3, 0, 2, 1, 3, 1, 0, 2, 3]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from('ab'), st.integers(0, 30)), max_size=60), st.integers(1, 9), st.integers())
def test_any_deal(cards, n, seed):
    who = share_out(cards, n, seed)
    assert len(who)==len(cards) and set(who) <= set(range(n))
    owner = {(picture, w) for (_,picture),w in zip(cards, who)}
    assert len(owner)==len({picture for _,picture in cards})                        # one owner each
    for m in range(0, len(cards), 7): assert share_out(cards[:m], n, seed)==who[:m]   # later cards move none
    if len({group for group,_ in cards})==1:
        sizes = [sum(w==s for _,w in owner) for s in range(n)]
        assert max(sizes)-min(sizes)<=1


def test_damage_stays_noticeable_in_a_slice(tmp_path):
    path = recorded(tmp_path/'a.cassette', 4)
    raw = path.read_bytes()
    at = raw.index(body('bear1')[:50])
    path.write_bytes(raw[:at]+bytes([raw[at]^4])+raw[at+1:])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE fetches SET record=replace(record, '200', '201') WHERE key LIKE '%bear2%'")
    bad = [f'{X}bear1.jpg', f'{X}bear2.jpg']
    with Cassette(path) as tape:
        assert tape.damaged()==bad
        files = tape.slice_all(2, tmp_path/'class')
    assert sorted(d for f in files for d in Cassette(f).damaged())==bad
