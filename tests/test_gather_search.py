"Search: providers against a server that speaks their shapes and then misbehaves, budgets without waiting, licences, and words from strangers."
import csv, html, io, json, os, pickle, re, string, subprocess, sys, threading, time
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from bearclass.core import BearclassError, DependencyError, InputError, MissingError
from bearclass.gather import search as module
from bearclass.gather.cassette import NotOnCassette, RecordedFailure
from bearclass.gather.fetch import FetchRules
from bearclass.gather.search import (LICENCES, ImageResult, SearchError, SearchResults, as_results, drawable, licence_code, licence_codes, local_path, plain_text,
                                     read_addresses, register_provider, search_images, show_results)
from conftest import REAL, needs
from hostile import HostileServer, jpeg


class FastClock:
    "Time that passes only when somebody waits."
    def __init__(self): self.t,self.naps = 1.7e9, []
    def now(self): return self.t
    def sleep(self, s):
        self.naps.append(s)
        self.t += s


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    for k in 'BEARCLASS_RECORD', 'BEARCLASS_REPLAY', 'BEARCLASS_ALLOW_LOCAL': monkeypatch.delenv(k, raising=False)


@pytest.fixture
def server():
    with HostileServer() as s: yield s


@pytest.fixture
def providers():
    "Providers that a test adds are gone afterwards."
    before = dict(module._providers)
    yield
    module._providers.clear()
    module._providers.update(before)


def ask(server, name='openverse', n=30, term='grizzly bear', **kw):
    "A search at one service of the loopback server."
    where = {k: server.url(f'/{k}/') for k in ('openverse', 'wikimedia')}
    return search_images(term, n, name, services=where, **{'clock':FastClock(), 'verbose':False, **kw})


NULLS = dict.fromkeys('id title foreign_landing_url creator creator_url license license_version license_url provider source filesize filetype attribution height width thumbnail mature'.split())


def openverse(total=50, size=20, row=lambda k: {}, headers=None):
    "A handler that answers as Openverse's documentation says."
    def _answer(req):
        n,page = int(req.query['page_size']), int(req.query['page'])
        if n>size: return 401, {}, json.dumps(dict(detail=f'page_size must be {size} or less')).encode()
        pages = -(-total//n)
        if page>pages and page>1: return 404, {}, b'{"detail":"Invalid page."}'
        rows = [{**NULLS, 'url':f'https://x.org/{k}.jpg', **row(k)} for k in range((page-1)*n, min(page*n, total))]
        if 'license' in req.query: rows = [r for r in rows if r['license'] in req.query['license'].split(',')]
        return 200, headers or {}, json.dumps(dict(result_count=total, page_count=pages, page_size=n, page=page, results=rows)).encode()
    return _answer


def says(status, headers=None, data=None): return lambda req: (status, headers or {}, data if isinstance(data, bytes) else json.dumps(data or {}).encode())


# --- Openverse

def test_pages_are_read_until_there_is_enough_and_no_further(server):
    server.add('/openverse/', openverse(total=100))
    assert [r.url for r in ask(server, n=45)] == [f'https://x.org/{k}.jpg' for k in range(45)]
    assert server.hits['/openverse/']==3
    assert [(q.query['q'], q.query['page'], q.query['page_size']) for q in server.requests] == [('grizzly bear', str(p), '20') for p in (1, 2, 3)]


def test_every_request_says_who_asks_and_a_second_passes_between_two(server):
    server.add('/openverse/', openverse(total=100))
    clock = FastClock()
    ask(server, n=60, clock=clock)
    assert clock.naps==[1, 1]
    agents = {q.headers['user-agent'] for q in server.requests}
    assert len(agents)==1 and re.match(r'bearclass/\d', min(agents)) and 'Mozilla' not in min(agents) and '+http' in min(agents)


def test_two_searches_share_the_pause(server):
    server.add('/openverse/', openverse(total=5))
    clock = FastClock()
    for term in 'grizzly', 'teddy', 'panda': ask(server, n=5, term=term, clock=clock)
    assert clock.naps==[1, 1]


def test_the_end_of_the_pages_is_the_end(server):
    server.add('/openverse/', openverse(total=25))
    rs = ask(server, n=200)
    assert (len(rs), server.hits['/openverse/'])==(25, 2) and '(200 asked for)' in repr(rs)


def test_a_service_that_forgets_how_many_pages_there_are(server):
    good = openverse(total=25)
    def _without(req):
        status,headers,body = good(req)
        return status, headers, json.dumps({k:v for k,v in json.loads(body).items() if k in ('results', 'detail')}).encode()
    server.add('/openverse/', _without)
    assert len(ask(server, n=200))==25


def test_nulls_everywhere(server):
    server.add('/openverse/', openverse(total=3, row=lambda k: {'url':None} if k==1 else {}))
    rs = ask(server)
    assert [r.url for r in rs]==['https://x.org/0.jpg', 'https://x.org/2.jpg'] and rs.dropped==Counter({'no web address':1})
    assert all(r.attribution and not r.licence_known and r.title is None for r in rs)


@pytest.mark.parametrize('odd', [None, 7, 'text', [], {}, [None], ['x'], [7, [], {}], [{'url': 7}], [{'url': ['https://x.org']}], {'a': 1}, True])
def test_results_of_another_shape_are_survived(server, odd):
    server.add('/openverse/', says(200, data=dict(results=odd, page_count='many')))
    with pytest.raises(SearchError, match='openverse: nothing'): ask(server)


@pytest.mark.parametrize('body', [b'', b'[]', b'null', b'"x"', b'<html>', b'{"results"', b'\xff\xfe\x00', b'['*100_000, b'1'*5000, b'{"a":1e999}'])
def test_answers_that_are_no_json_object(server, body):
    server.add('/openverse/', says(200, data=body))
    with pytest.raises(SearchError, match='openverse: '): ask(server)


def test_a_page_too_large_for_the_service_is_made_smaller(server):
    server.add('/openverse/', openverse(total=12, size=5))
    assert len(ask(server, n=12))==12
    assert [q.query['page_size'] for q in server.requests]==['20', '10', '5', '5', '5']


def test_refused_for_good_is_not_asked_again(server):
    server.add('/openverse/', says(400, data=dict(error='InputError', detail='Invalid input given for fields.', fields=['q'])))
    with pytest.raises(SearchError, match='http 400 InputError: Invalid input given for fields'): ask(server)
    assert server.hits['/openverse/']==1


@pytest.mark.parametrize('status', [408, 429, 500, 502, 503])
def test_what_may_pass_is_tried_three_times(server, status):
    server.add('/openverse/', says(status))
    clock = FastClock()
    with pytest.raises(SearchError, match=f'http {status}'): ask(server, clock=clock)
    assert server.hits['/openverse/']==3 and len(clock.naps)==2 and .5<=clock.naps[0]<=clock.naps[1]<=2


def test_busy_then_well(server):
    good = openverse(total=5)
    server.add('/openverse/', lambda req: (503, {'Retry-After':'4'}, b'') if req.n<3 else good(req))
    clock = FastClock()
    assert len(ask(server, n=5, clock=clock))==5 and clock.naps==[4, 4]


def test_a_date_to_come_back_at(server):
    from email.utils import formatdate
    clock,good = FastClock(), openverse(total=5)
    server.add('/openverse/', lambda req: (429, {'Retry-After':formatdate(clock.t+9, usegmt=True)}, b'') if req.n<2 else good(req))
    assert len(ask(server, n=5, clock=clock))==5 and clock.naps==[pytest.approx(9, abs=1)]


def test_asked_to_wait_for_an_hour_we_go_elsewhere(server):
    server.add('/openverse/', says(429, {'Retry-After':'3600'}, dict(detail='Request was throttled.')))
    server.add('/wikimedia/', commons(3))
    clock = FastClock()
    rs = ask(server, ['openverse', 'wikimedia'], n=3, clock=clock)
    assert rs.provider=='wikimedia' and clock.naps==[] and 'left alone for 3600 s' in rs.tried[0].reason and server.hits['/openverse/']==1


def test_the_counters_of_what_is_left_are_obeyed(server):
    def counted(req):
        left = 2-req.n%3
        return openverse(total=100, headers={'X-RateLimit-Limit-anon_burst':'3/min', 'X-RateLimit-Available-anon_burst':left, 'X-RateLimit-Limit-anon_sustained':'200/day',
                                             'X-RateLimit-Available-anon_sustained':150})(req)
    server.add('/openverse/', counted)
    clock = FastClock()
    assert len(ask(server, n=80, clock=clock, seconds=600))==80
    assert clock.naps==[1, 60, 1]


def test_a_used_up_day_ends_the_search_but_keeps_what_came(server):
    server.add('/openverse/', openverse(total=100, headers={'X-RateLimit-Limit-anon_sustained':'200/day', 'X-RateLimit-Available-anon_sustained':'0'}))
    rs = ask(server, n=80)
    assert len(rs)==20 and 'left alone for 86400 s' in rs.tried[0].reason and 'Not all went well' in repr(rs)


def test_html_in_the_makers_name(server):
    row = lambda k: dict(creator='<a href="javascript:alert(1)">Zoë</a><script>alert(2)</script> &amp; <b>Søn</b>', title='<img src=x onerror=alert(3)>Grizzly &lt;3', license='by',
                         license_url='https://creativecommons.org/licenses/by/2.0/', foreign_landing_url='https://x.org/photo')
    server.add('/openverse/', openverse(total=1, row=row))
    r = ask(server)[0]
    assert (r.creator, r.title)==('Zoë & Søn', 'Grizzly <3')
    assert r.attribution=='"Grizzly <3" by Zoë & Søn, https://x.org/photo, CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/)'


def test_the_services_own_line_of_credit_is_kept(server):
    server.add('/openverse/', openverse(total=1, row=lambda k: dict(attribution='"Bear" by <i>Zoë</i> is licensed under CC BY 2.0.')))
    assert ask(server)[0].attribution=='"Bear" by Zoë is licensed under CC BY 2.0.'


def test_a_web_service_cannot_name_files_of_this_machine(server, tmp_path):
    secret = tmp_path/'private.jpg'
    secret.write_bytes(jpeg(1))
    evil = [secret.as_uri(), str(secret), 'file:///etc/passwd', 'FILE://localhost/etc/passwd', 'data:image/png;base64,AAAA', 'javascript:alert(1)', 'ftp://x.org/a.jpg', '//x.org/a.jpg', 'https://', 'https:// x.org/']
    server.add('/openverse/', openverse(total=len(evil)+1, row=lambda k: dict(url=evil[k], provider='folder') if k<len(evil) else {}))
    rs = ask(server)
    assert len(rs)==1 and rs.dropped['no web address']==len(evil) and local_path(rs[0]) is None
    assert local_path(ImageResult(secret.as_uri(), provider='openverse')) is None and local_path(ImageResult(secret.as_uri())) is None


def test_duplicates_are_counted_also_across_providers(server):
    server.add('/openverse/', openverse(total=6, row=lambda k: dict(url=f'https://x.org/{k//2}.jpg')))
    server.add('/wikimedia/', commons(5))
    rs = ask(server, ['openverse', 'wikimedia'], n=50)
    assert [r.url for r in rs]==[f'https://x.org/{k}.jpg' for k in range(5)] and rs.dropped['seen before']==6
    assert rs.counts==Counter(openverse=3, wikimedia=2) and 'openverse 3 + wikimedia 2' in repr(rs)


# --- cache

def test_a_second_search_asks_nobody_until_a_day_has_passed(server):
    server.add('/openverse/', openverse(total=30))
    clock = FastClock()
    first = ask(server, clock=clock)
    assert list(ask(server, clock=clock))==list(first) and server.hits['/openverse/']==2
    ask(server, clock=clock, cache=False)
    assert server.hits['/openverse/']==4
    clock.t += 24*3600
    ask(server, clock=clock)
    assert server.hits['/openverse/']==6


@pytest.mark.parametrize('damage', [b'', b'{', b'[]', b'null', b'\xff\xff', b'{"time":"x","page":"{}","sha256":""}', b'{"time":1700000000,"page":3,"sha256":"x"}', 'flip', 'folder'])
def test_a_damaged_page_is_fetched_anew(server, tmp_path, damage):
    server.add('/openverse/', openverse(total=5))
    ask(server, n=5)
    f, = (tmp_path/'cache/search').glob('*.json')
    if damage=='flip': f.write_bytes(f.read_bytes().replace(b'x.org', b'y.org'))
    elif damage=='folder':
        f.unlink()
        f.mkdir()
    else: f.write_bytes(damage)
    assert [r.url for r in ask(server, n=5)]==[f'https://x.org/{k}.jpg' for k in range(5)]
    assert server.hits['/openverse/']==2


def test_without_a_place_for_the_cache_the_search_goes_on(server, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('no folder')
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'file'))
    server.add('/openverse/', openverse(total=5))
    assert len(ask(server, n=5))==5


def test_errors_are_not_cached_and_no_address_is_written(server, tmp_path):
    good = openverse(total=5)
    server.add('/openverse/', lambda req: (400, {}, b'{}') if req.n==1 else good(req))
    with pytest.raises(SearchError): ask(server, n=5)
    assert len(ask(server, n=5))==5
    written = b''.join(f.read_bytes() for f in (tmp_path/'cache').rglob('*') if f.is_file())
    assert b'127.0.0.1' not in written and b'q=' not in written   # a provider of one's own may have a key in its address


# --- Wikimedia

def meta(**kw): return {k: {'value':v, 'source':'commons-desc-page'} for k,v in kw.items()}


def commons_page(k, **info):
    info = dict(url=f'https://x.org/{k}.jpg', descriptionurl=f'https://x.org/File:{k}', width=500, height=400, mime='image/jpeg', extmetadata=meta(LicenseShortName='CC BY-SA 4.0',
                LicenseUrl='https://creativecommons.org/licenses/by-sa/4.0', Artist=f'<a href="//x.org">Zoë {k}</a>')) | info
    return dict(pageid=k+1, ns=6, title=f'File:Bear {k}.jpg', index=k+1, imageinfo=[info])


def commons(total=5, step=50, page=commons_page):
    "A handler that answers as the Action API does, with `continue`."
    def _answer(req):
        at = int(req.query.get('gsroffset', 0))
        more = {'continue':dict(gsroffset=at+step, **{'continue':'gsroffset||'})} if at+step<total else {}
        if at and req.query.get('continue')!='gsroffset||': return 200, {}, b'{"error":{"code":"badcontinue","info":"all keys must come back"}}'
        pages = [page(k) for k in range(at, min(at+step, total))]
        return 200, {}, json.dumps({'batchcomplete':True, **more, 'query':{'pages':pages[::-1]}}).encode()
    return _answer


def test_commons_is_asked_as_documented(server):
    server.add('/wikimedia/', commons(5))
    rs = ask(server, 'wikimedia')
    q = server.requests[0].query
    assert dict(action='query', format='json', formatversion='2', generator='search', gsrnamespace='6', gsrlimit='50', prop='imageinfo', iiurlwidth='640', maxlag='5').items() <= q.items()
    assert q['gsrsearch']=='filetype:bitmap grizzly bear' and set('url size mime sha1 user extmetadata'.split())==set(q['iiprop'].split('|'))
    assert [(r.url, r.title, r.creator, r.license, r.page_url) for r in rs]==[(f'https://x.org/{k}.jpg', f'Bear {k}', f'Zoë {k}', 'by-sa', f'https://x.org/File:{k}') for k in range(5)]


def test_every_key_of_continue_is_sent_back(server):
    server.add('/wikimedia/', commons(9, step=4))
    assert len(ask(server, 'wikimedia', n=50))==9 and server.hits['/wikimedia/']==3


def test_a_continue_that_never_ends_is_left(server):
    server.add('/wikimedia/', says(200, data={'continue':{'gsroffset':5, 'continue':'-||'}, 'query':{'pages':[commons_page(1)]}}))
    assert len(ask(server, 'wikimedia', n=50))==1 and server.hits['/wikimedia/']==2


def test_overload_comes_with_status_200(server):
    good = commons(3)
    lag = {'error':{'code':'maxlag', 'info':'Waiting for <b>db1</b>: 7.2 seconds lagged', 'lag':7.2}}
    server.add('/wikimedia/', lambda req: (200, {'Retry-After':'5'} if req.n==1 else {}, json.dumps(lag).encode()) if req.n<3 else good(req))
    clock = FastClock()
    assert len(ask(server, 'wikimedia', n=3, clock=clock))==3 and clock.naps==[5, 5]
    server.add('/wikimedia/', says(200, data=lag))
    with pytest.raises(SearchError, match='maxlag Waiting for db1'): ask(server, 'wikimedia', n=3, term='another bear')
    server.add('/wikimedia/', says(200, data={'error':{'code':'badvalue', 'info':'no'}}))
    before = server.hits['/wikimedia/']
    with pytest.raises(SearchError, match='badvalue no'): ask(server, 'wikimedia', n=3, term='third bear')
    assert server.hits['/wikimedia/']==before+1


@pytest.mark.parametrize('page', [dict(title='File:A.jpg'), dict(title='File:A.jpg', imageinfo=None), dict(title='File:A.jpg', imageinfo=[]), dict(imageinfo=[{}]), dict(title=3, imageinfo=['x']),
                                  dict(title=None, imageinfo=[dict(url=None)]), dict(title='File:A.jpg', missing=True, index='x')])
def test_pages_without_an_address_are_counted(server, page):
    server.add('/wikimedia/', commons(3, page=lambda k: page if k==1 else commons_page(k)))
    rs = ask(server, 'wikimedia')
    assert len(rs)==2 and rs.dropped==Counter({'no address':1})


@pytest.mark.parametrize('info', [dict(extmetadata=None), dict(extmetadata=[]), dict(extmetadata={'Artist':None, 'LicenseUrl':{'value':3}}), dict(width=None, height='x'), dict(descriptionurl=7),
                                  dict(thumburl=7, thumbwidth='x'), dict(extmetadata=meta(LicenseShortName={'a':1}))])
def test_details_that_are_missing_are_survived(server, info):
    server.add('/wikimedia/', commons(1, page=lambda k: commons_page(k, **info)))
    r, = ask(server, 'wikimedia')
    assert r.url=='https://x.org/0.jpg' and r.attribution


def test_the_smaller_version_is_taken_where_it_is_large_enough(server):
    big = dict(url='https://x.org/scan.tif', width=9000, height=6000, thumburl='https://x.org/640px-scan.jpg', thumbwidth=640, thumbheight=427)
    server.add('/wikimedia/', commons(1, page=lambda k: commons_page(k, **big)))
    assert [(r.url, r.width, r.height) for r in ask(server, 'wikimedia')]==[('https://x.org/640px-scan.jpg', 640, 427)]
    assert [(r.url, r.width) for r in ask(server, 'wikimedia', min_size=600)]==[('https://x.org/scan.tif', 9000)]


@pytest.mark.parametrize('said, code', [(dict(LicenseShortName='CC BY-SA 3.0 de', LicenseUrl='//creativecommons.org/licenses/by-sa/3.0/de/deed.en'), 'by-sa'), (dict(LicenseShortName='Public domain'), 'pdm'),
                                        (dict(LicenseShortName='CC0', LicenseUrl='http://creativecommons.org/publicdomain/zero/1.0/deed.en'), 'cc0'), (dict(LicenseShortName='GFDL 1.2'), 'gfdl'),
                                        (dict(LicenseShortName='FAL'), 'fal'), (dict(LicenseShortName='Copyrighted free use'), None), ({}, None)])
def test_licences_of_commons(server, said, code):
    server.add('/wikimedia/', commons(1, page=lambda k: commons_page(k, extmetadata=meta(**said))))
    assert ask(server, 'wikimedia')[0].license==code


@pytest.mark.parametrize('name, slots', [('wikimedia', 3), ('openverse', 1)])
def test_ten_searches_at_once_keep_to_the_services_limit(name, slots):
    with HostileServer(latency=(.05, .051)) as server:
        server.add('/wikimedia/', commons(2)).add('/openverse/', openverse(total=2))
        where = {k: server.url(f'/{k}/') for k in ('openverse', 'wikimedia')}
        class NoGap(FastClock):
            def sleep(self, s): time.sleep(.001)
        clock,found = NoGap(), []
        jobs = [threading.Thread(target=lambda i=i: found.append(search_images(f'bear {i}', 2, name, services=where, clock=clock, verbose=False))) for i in range(10)]
        for j in jobs: j.start()
        for j in jobs: j.join()
        assert len(found)==10 and server.most_open<=slots


# --- ddg, through fake packages

@pytest.fixture
def fake(monkeypatch):
    "`fake(images, name)` puts a package in place whose `DDGS().images` is `images`; without a call neither is installed."
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    for name in 'ddgs', 'duckduckgo_search': monkeypatch.setitem(sys.modules, name, None)
    def _put(images, name='ddgs'):
        class DDGS:
            def __init__(self, **kw): self.kw = kw
            def images(self, *args, **kw): return images(*args, **kw)
        package = ModuleType(name)
        package.DDGS = DDGS
        monkeypatch.setitem(sys.modules, name, package)
    return _put


class DDGSException(Exception): "As in ddgs 9."
class RatelimitException(DDGSException): "As in ddgs 9."
class TimeoutException(DDGSException): "As in ddgs 9."
class DuckDuckGoSearchException(Exception): "As in duckduckgo_search 8."


def hits(*ks): return [dict(title=f'Bear {k}', image=f'https://x.org/{k}.jpg', thumbnail='', url='https://x.org/', height='480', width=640, source='Bing') for k in ks]


def test_ddgs_gives_addresses_without_licence(fake):
    calls = []
    def images(query, max_results=10, page=1):
        calls.append((query, page))
        if page>2: raise DDGSException('No results found.')
        return hits(*range((page-1)*3, page*3))
    fake(images)
    rs = search_images('teddy bear', 50, 'ddg')
    assert len(rs)==6 and not any(r.licence_known for r in rs) and calls==[('teddy bear', p) for p in (1, 2, 3)] and rs[0].page_url=='https://x.org/' and (rs[0].width, rs[0].height)==(640, 480)


def test_the_old_package_is_used_where_it_is_all_there_is(fake):
    def images(keywords, region='wt-wt', max_results=None): return hits(*range(min(4, max_results)))
    fake(images, 'duckduckgo_search')
    assert len(search_images('teddy bear', 50, 'ddg'))==4


def test_neither_package(fake):
    with pytest.raises(DependencyError, match='pip install ddgs'): search_images('teddy bear', provider='ddg')


@pytest.mark.parametrize('error, words', [(RatelimitException('202 Ratelimit'), 'too many requests'), (TimeoutException('timed out'), 'no answer in time'), (DDGSException('DNSError'), 'DDGSException: DNSError'),
                                          (DDGSException('No results found.'), 'nothing found'), (DuckDuckGoSearchException('202'), 'DuckDuckGoSearchException: 202'), (KeyError('vqd'), "KeyError: 'vqd'"),
                                          (AssertionError(), 'AssertionError')])
def test_what_ddgs_raises_becomes_a_reason(fake, error, words):
    def images(*a, **kw): raise error
    fake(images)
    with pytest.raises(SearchError, match=re.escape(words)) as e: search_images('teddy bear', provider='ddg')
    assert e.value.tried[0].provider=='ddg' and e.value.tried[0].found==0


def test_an_error_on_the_second_page_keeps_the_first_and_is_told(fake):
    def images(query, max_results=10, page=1):
        if page>1: raise RatelimitException('202')
        return hits(0, 1)
    fake(images)
    rs = search_images('teddy bear', 50, 'ddg')
    assert len(rs)==2 and 'too many requests' in repr(rs)


@pytest.mark.parametrize('found', [None, [], [None], [{}], [dict(image=None)], [dict(image='x')], 'abc', [7]])
def test_odd_answers_of_ddgs(fake, found):
    fake(lambda *a, **kw: found)
    with pytest.raises(SearchError, match='ddg: nothing'): search_images('teddy bear', provider='ddg')


def test_a_call_that_hangs_is_bounded_by_the_wall_clock(fake):
    done = threading.Event()
    fake(lambda *a, **kw: done.wait(60))
    start = time.monotonic()
    with pytest.raises(SearchError, match='no end after'): search_images('teddy bear', provider='ddg', seconds=.3)
    assert time.monotonic()-start<1.3
    done.set()


def test_a_licence_filter_drops_all_of_ddg_and_says_so(fake):
    fake(lambda *a, **kw: hits(*range(7)))
    with pytest.raises(SearchError, match='7 licence unknown') as e: search_images('teddy bear', provider='ddg', license='any-cc')
    assert 'loosen `license=`' in str(e.value)


def test_offline_ddg_is_not_even_imported(fake, monkeypatch):
    fake(lambda *a, **kw: hits(1))
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    with pytest.raises(SearchError, match='the web is off'): search_images('teddy bear', provider='ddg')


# --- auto

def test_auto_stops_at_the_first_that_has_enough(server, fake):
    fake(lambda *a, **kw: pytest.fail('not needed'))
    server.add('/openverse/', openverse(total=50)).add('/wikimedia/', commons(50))
    rs = ask(server, 'auto', n=20)
    assert rs.provider=='openverse' and len(rs)==20 and [t.provider for t in rs.tried]==['openverse'] and server.hits['/wikimedia/']==0


def test_auto_tops_up_and_says_how_many_came_from_where(server, fake, capsys):
    fake(lambda q, max_results, page=1: hits(*range(100, 110)) if page==1 else [])
    server.add('/openverse/', openverse(total=5, row=lambda k: dict(license='by'))).add('/wikimedia/', commons(9))
    rs = ask(server, 'auto', n=16, verbose=True)
    assert rs.counts==Counter(openverse=5, wikimedia=4, ddg=7)
    said = capsys.readouterr().out
    assert said.count('\n')==1 and 'openverse 5 + wikimedia 4 + ddg 7: 16 pictures' in said and '9 with a known licence' in said and '5 seen before' in said


def test_auto_with_a_licence_asks_for_it_and_leaves_ddg_out(server, fake):
    fake(lambda *a, **kw: pytest.fail('it has no licences'))
    kinds = ['by', 'by-nc', None, 'cc0', 'by-sa']
    server.add('/openverse/', openverse(total=10, row=lambda k: dict(license=kinds[k%5]))).add('/wikimedia/', commons(2, page=lambda k: commons_page(k+50)))
    rs = ask(server, 'auto', n=50, license='commercial')
    assert {r.license for r in rs}=={'by', 'cc0', 'by-sa'} and rs.counts==Counter(openverse=6, wikimedia=2)
    assert set(server.requests[0].query['license'].split(','))=={'by', 'by-sa', 'by-nd', 'cc0', 'pdm'}
    assert [t.reason for t in rs.tried if t.provider=='ddg']==['it tells no licence'] and 'ddg (it tells no licence)' in repr(rs)


def test_when_all_fail_one_error_names_each_and_what_to_do(server, fake):
    server.add('/openverse/', says(503)).add('/wikimedia/', says(200, data=b'<html>'))
    with pytest.raises(SearchError) as e: ask(server, 'auto', term='black bear')
    text = str(e.value)
    for words in 'openverse: 127.0.0.1: http 503', 'wikimedia: 127.0.0.1: an answer that is not JSON', 'ddg: the package ddgs is not installed', 'pip install ddgs', "provider='drawn'", "provider='urls'", 'What to do:':
        assert words in text
    assert '\n' not in text and [t.provider for t in e.value.tried]==['openverse', 'wikimedia', 'ddg', 'drawn']
    assert isinstance(e.value, BearclassError) and pickle.loads(pickle.dumps(e.value)).tried[0].reason==e.value.tried[0].reason


def test_auto_never_draws_while_the_web_is_on(server, fake):
    server.add('/openverse/', says(503)).add('/wikimedia/', says(503))
    with pytest.raises(SearchError, match='drawn: only when the web is off'): ask(server, 'auto', term='black bear')


def test_auto_offline_draws_bears_and_says_so(capsys):
    rs = search_images('teddy bear', 3)
    said = capsys.readouterr().out
    assert rs.provider=='drawn' and all(local_path(r).is_file() for r in rs) and 'drawings, not photos' in said and 'web is off' in said and said.count('\n')==1
    with pytest.raises(SearchError, match='it can only draw black, grizzly, teddy bears'): search_images('black cat', 3)


def test_drawn_bears_are_those_of_draw_bears(tmp_path):
    from bearclass.gather.datasets import draw_bears
    truth = draw_bears(tmp_path/'bears', n_per_class=2).truth
    import hashlib
    found = {hashlib.sha256(local_path(r).read_bytes()).hexdigest() for k in ('black', 'grizzly', 'teddy') for r in search_images(k, 2, 'drawn', verbose=False)}
    assert found==set(truth.sha256)


def test_the_number_of_requests_is_bounded_for_all_together(server):
    server.add('/openverse/', openverse(total=10**6, row=lambda k: dict(width=10, height=10))).add('/wikimedia/', commons(10**6, page=lambda k: commons_page(k, width=9, height=9)))
    with pytest.raises(SearchError, match='all 9 requests of this search are used up'): ask(server, ['openverse', 'wikimedia'], n=100, tries=9, seconds=1e6)
    assert server.hits['/openverse/']+server.hits['/wikimedia/']==9


def test_the_seconds_are_bounded_for_all_together(server):
    server.add('/openverse/', openverse(total=10**6, row=lambda k: dict(width=10, height=10))).add('/wikimedia/', commons(3))
    clock = FastClock()
    with pytest.raises(SearchError, match='used up|left alone'): ask(server, n=1000, tries=10**6, seconds=30, clock=clock)
    assert sum(clock.naps)<=31 and server.hits['/openverse/']<=32


def test_a_service_that_hangs_leaves_time_for_the_next(server):
    async def _hang(req, writer): await __import__('asyncio').sleep(60)
    server.add('/openverse/', _hang).add('/wikimedia/', commons(3))
    start = time.monotonic()
    rs = ask(server, ['openverse', 'wikimedia'], n=3, seconds=2., clock=module._Clock())
    assert rs.provider=='wikimedia' and time.monotonic()-start<3 and 'no answer in time' in rs.tried[0].reason


def test_nothing_listens(fake):
    where = dict(openverse='http://127.0.0.1:9/o', wikimedia='http://127.0.0.1:9/w')
    with pytest.raises(SearchError, match='openverse: 127.0.0.1: connection'): search_images('bear', provider=['openverse', 'wikimedia'], services=where, clock=FastClock())


def test_an_interface_may_ask_search_engines_to_stay_away(server):
    server.add('/openverse/', openverse(total=3, headers={'X-Robots-Tag':'noindex, nofollow'}))
    assert len(ask(server, n=3))==3


# --- files and folders

def lists(tmp_path, text, name='bears.txt', **kw):
    (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_addresses(tmp_path/name)


A,B = 'https://x.org/a.jpg', 'https://x.org/b,2.jpg?x=1,2'


@pytest.mark.parametrize('text, name', [(f'{A}\n{B}\n', 'a.txt'), (f'{A}\r\n{B}', 'a.csv'), (f'\n\n  {A}\n# mine\n{B}  ', 'a'), (f'"{A}"\n"{B}"\n', 'a.txt'), (f'\ufeff{A}\n{B}'.encode(), 'a.txt'),
                                        (f'{A}\n{B}'.encode('utf-16'), 'a.txt'), (f'url\n{A}\n"{B}"\n', 'a.csv'), (f'label,url\nblack,{A}\nblack,"{B}"\n', 'a.csv'), (f'label;Image_URL\nblack;{A}\nblack;{B}\n', 'a.csv'),
                                        (f'black\t{A}\nblack\t{B}\n', 'a.tsv'), (f'1,"{A}"\n2,"{B}"\n', 'a.csv')])
def test_lists_of_addresses(tmp_path, text, name):
    rows,odd = lists(tmp_path, text, name)
    assert [r['url'] for r in rows]==[A, B] and odd==[]


def test_odd_lines_are_counted_and_the_first_is_shown(tmp_path, capsys):
    (tmp_path/'black.txt').write_text(f'{A}\ndata:image/gif;base64,R0lGOD\nhttps://\nfile:///etc/passwd\nhttps://x.org/a b.jpg\n{A}\n{B}\n')
    rs = search_images('black bear', provider='urls', source=tmp_path/'black.txt')
    assert [r.url for r in rs]==[A, B] and rs.dropped==Counter({'no address':4, 'seen before':1}) and rs[0].query=='black bear'
    assert "line 2 of black.txt is 'data:image" in capsys.readouterr().out


@given(st.text(max_size=300))
@example('"')
@example('"a,b\nc')
@example('\0')
@example('url\n')
@example(',,,\n,')
@example('url,url\nhttps://x.org/1,')
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_breaks_the_reader_and_no_line_is_lost(tmp_path, text):
    rows,odd = lists(tmp_path, text.encode('utf-8', 'surrogatepass'))
    assert all(r['url'].lower().startswith('http') for r in rows)
    lines = [l for l in text.encode('utf-8', 'surrogatepass').decode('utf-8-sig', 'replace').splitlines() if l.strip() and not l.lstrip().startswith('#')]
    assert len(rows)+len(odd) in (len(lines), len(lines)-1)    # one less where the first is a heading


def test_a_table_of_results_can_be_read_again(tmp_path):
    rs = SearchResults([ImageResult(A, 'https://x.org/p', 'A, "quoted" title', 'Zoë', 'by', LICENCES['by'].url, None, 'openverse', 640, 480, 'bear'), ImageResult(B)])
    rs.table().to_csv(tmp_path/'t.csv', index=False)
    again = search_images('bear', provider='urls', source=tmp_path/'t.csv', verbose=False)
    assert [replace(r, provider=None, query=None) for r in again]==[replace(r, provider=None, query=None) for r in rs]


def test_more_than_asked_for_is_told(tmp_path):
    (tmp_path/'l.txt').write_text('\n'.join(f'https://x.org/{k}.jpg' for k in range(5000)))
    rs = search_images(tmp_path/'l.txt', provider='urls', verbose=False)
    assert len(rs)==200 and rs.dropped==Counter({'beyond max_images':4800})
    assert len(search_images(str(tmp_path/'l.txt'), 10_000, 'urls', verbose=False))==5000


def test_a_folder_keeps_what_its_manifest_knows(tmp_path):
    from bearclass.gather.manifest import append_rows
    (tmp_path/'bears/teddy').mkdir(parents=True)
    for k in range(3): (tmp_path/f'bears/teddy/{k} ü#.jpg').write_bytes(jpeg(k, side=200))
    (tmp_path/'bears/teddy/small.jpg').write_bytes(jpeg(9, side=40))
    (tmp_path/'bears/teddy/odd.png').write_bytes(b'\x89PNG')
    append_rows(tmp_path/'bears', [dict(url=A, status='saved', path='teddy/0 ü#.jpg', creator='Zoë', license='by-sa', title='Ted')])
    rs = search_images(tmp_path/'bears', provider='folder', verbose=False)
    assert [local_path(r).name for r in rs]==['0 ü#.jpg', '1 ü#.jpg', '2 ü#.jpg', 'odd.png'] and rs.dropped==Counter({'too small':1})
    assert [(r.creator, r.license) for r in rs][:2]==[('Zoë', 'by-sa'), (None, None)] and rs[0].query=='bears' and rs[3].width is None
    assert str(tmp_path) not in rs[1].attribution
    assert len(search_images(tmp_path/'bears', provider='folder', license='commercial', verbose=False))==1


def test_missing_files_speak_for_themselves(tmp_path):
    with pytest.raises(MissingError, match='no file'): search_images(tmp_path/'x.txt', provider='urls')
    with pytest.raises(MissingError, match='no folder'): search_images(tmp_path/'x', provider='folder')
    with pytest.raises(MissingError, match='no folder'): search_images('bear', provider='folder', source=tmp_path/'x')
    (tmp_path/'empty').mkdir()
    with pytest.raises(SearchError, match='folder: nothing found'): search_images(tmp_path/'empty', provider='folder')


@needs('bears')
def test_a_folder_of_real_photos():
    rs = search_images(REAL/'bears', 10_000, 'folder', verbose=False)
    assert len(rs)>100 and all(r.width for r in rs)


# --- providers of one's own

def test_three_lines_make_a_provider(providers):
    @register_provider('zoo')
    def zoo(term, n, ctx):
        for k in range(n): yield f'https://zoo.example/{k}.jpg'
    rs = search_images('polar bear', 4, 'zoo', verbose=False)
    assert [r.url for r in rs]==[f'https://zoo.example/{k}.jpg' for k in range(4)] and rs[0].provider=='zoo' and rs[0].query=='polar bear'


def test_a_provider_may_be_endless_or_broken_or_odd(providers, tmp_path):
    @register_provider('endless')
    def endless(term, n, ctx):
        k = 0
        while True:
            yield f'https://x.org/{k}.jpg'
            k += 1
    assert len(search_images('bear', 7, 'endless', verbose=False))==7
    register_provider('same')(lambda term, n, ctx: iter(lambda: A, None))       # the same for ever
    start = time.monotonic()
    assert len(search_images('bear', 7, 'same', seconds=.4, verbose=False))==1 and time.monotonic()-start<1.4
    register_provider('nothing')(lambda term, n, ctx: None)
    with pytest.raises(SearchError, match="TypeError: 'NoneType'"): search_images('bear', 7, 'nothing')
    register_provider('odd')(lambda term, n, ctx: [None, 3, A, {'url':B, 'x':1}, Path('x.jpg'), {'no':1}, ImageResult((tmp_path/'a.jpg').as_uri(), provider='folder')])
    rs = search_images('bear', 7, 'odd', verbose=False)
    assert [r.url for r in rs]==[A, B] and rs.dropped==Counter({'no result':3, 'no web address':2})


def test_a_provider_of_ones_own_may_use_the_polite_client(server, providers):
    @register_provider('mine')
    def mine(term, n, ctx): return [d['u'] for d in ctx.get_json(server.url('/mine'), dict(q=term))['all']]
    server.add('/mine', says(200, data=dict(all=[dict(u=A)])))
    assert search_images('bear', 3, 'mine', verbose=False)[0].url==A and server.requests[0].query=={'q':'bear'}


def test_a_search_runs_inside_a_running_event_loop(server):
    import asyncio
    server.add('/openverse/', openverse(total=3))
    async def cell(): return ask(server, n=3)
    assert len(asyncio.run(cell()))==3


# --- questions

@pytest.mark.parametrize('kw, words', [(dict(term=''), 'a search for'), (dict(term=' \n\t '), 'a search for'), (dict(term=None), 'a search for'), (dict(term=['bear']), 'a search for'), (dict(term='x'*201), '201 characters'),
                                       (dict(max_images=0), 'max_images=0'), (dict(max_images=-3), 'max_images=-3'), (dict(max_images=10_000), '1000 at most'), (dict(max_images=1.5), 'max_images=1.5'), (dict(max_images=True), 'max_images'),
                                       (dict(provider='wikimdia'), "did you mean 'wikimedia'"), (dict(provider='bing'), "provider='bing'"), (dict(provider=[]), 'provider='), (dict(provider=None), 'provider=None'),
                                       (dict(license='free'), "license='free'"), (dict(license='comercial'), "use license='commercial'"), (dict(license=7), 'license=7'), (dict(license=['by', 'nonsense']), 'nonsense'),
                                       (dict(min_size=-1), 'min_size=-1'), (dict(min_size='big'), "min_size='big'"), (dict(tries=0), 'tries=0'), (dict(seconds=0), 'seconds=0'), (dict(source='x.txt'), "source='x.txt'")])
def test_bad_questions_get_their_answer_at_once(kw, words):
    with pytest.raises(InputError, match=re.escape(words)): search_images(**{'term':'bear', **kw})


@given(st.text(max_size=230))
@example('🐻')
@example('a\nb')
@example('bear&license=by#x')
@example('\ud800')
@example('../../etc')
@example('"; DROP TABLE')
@example('%00')
@example('\u202ebear')
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_arrive_as_they_are_or_are_refused(shared_server, term):
    server = shared_server
    del server.requests[:]
    try: rs = ask(server, n=1, term=term, cache=False)
    except InputError as e:
        assert not ' '.join(''.join(c if c.isprintable() else ' ' for c in term).split()) or len(term)>200
        return
    assert server.requests[-1].query['q']==rs.term and len(rs.term)<=200 and rs[0].query==rs.term and '\n' not in rs.term
    assert set(server.requests[-1].query)=={'q', 'page', 'page_size'}


@pytest.fixture(scope='module')
def shared_server():
    with HostileServer() as s: yield s.add('/openverse/', openverse(total=1))


# --- words from strangers

@given(st.text(max_size=400))
@example('<![x[')
@example('<!--')
@example('<script>')
@example('&#x110000;')
@example('&#0;')
@example('<'*500)
@example('<a '*200)
@example('\ud800')
@example('<?')
@example('</script><script>')
@example('<![CDATA[x]]>')
@settings(max_examples=400, deadline=None)
def test_plain_text_is_one_printable_line_and_never_raises(text):
    out = plain_text(text)
    assert out is None or (out.isprintable() and out==' '.join(out.split()) and 0<len(out)<=300)


WORDS = st.text(string.ascii_letters+'äß é', min_size=1, max_size=12).map(lambda s: ' '.join(s.split())).filter(bool)


@given(WORDS, st.sampled_from(['<b>{}</b>', '<a href="javascript:x">{}</a>', '<p><i>{}</i></p>', '<span onclick=\'x\' title="a > b">{}</span>', '{}<script>alert("x")</script>', '<style>b{{}}</style>{}', '<!-- no -->{}', '<div><div>{}']))
@settings(max_examples=100, deadline=None)
def test_what_a_reader_sees_is_what_is_kept(words, wrap): assert plain_text(wrap.format(html.escape(words)))==words


TEXT = st.none() | st.text(max_size=40) | st.sampled_from(['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "javascript:alert('x')", 'https://x.org/"onmouseover="alert(1)'])


@given(st.builds(ImageResult, url=st.text(max_size=40) | st.just(A), page_url=TEXT, title=TEXT, creator=TEXT, license=TEXT | st.sampled_from(list(LICENCES)), license_url=TEXT, provider=TEXT))
@settings(max_examples=200, deadline=None)
def test_no_result_can_put_a_tag_or_a_script_into_the_table(r):
    class Tags(HTMLParser):
        seen = []
        def handle_starttag(self, tag, attrs): self.seen.append((tag, dict(attrs)))
    tags = Tags()
    tags.seen = []
    tags.feed(SearchResults([r])._repr_html_())
    assert {t for t,_ in tags.seen}<={'p', 'table', 'tr', 'th', 'td', 'a'}
    for t,attrs in tags.seen:
        assert set(attrs)<={'style', 'href', 'rel', 'target'} and (t!='a' or re.match('https?://', attrs['href'], re.I))


def test_every_result_can_be_credited():
    full = ImageResult(A, 'https://x.org/p', 'Bear', 'Zoë', 'by-nc', 'https://creativecommons.org/licenses/by-nc/2.0/jp/')
    assert full.attribution=='"Bear" by Zoë, https://x.org/p, CC BY-NC 2.0 (https://creativecommons.org/licenses/by-nc/2.0/jp/)'
    for r in ImageResult(A), ImageResult(A, license='cc0'), ImageResult(A, title=''), ImageResult(A, attribution=''):
        assert A in r.attribution and 'unknown maker' in r.attribution


def test_the_licence_table():
    nc = {c for c,l in LICENCES.items() if not l.commercial}
    assert nc=={'by-nc', 'by-nc-sa', 'by-nc-nd', 'sampling+', 'nc-sampling+'} and {c for c,l in LICENCES.items() if not l.modification}=={'by-nd', 'by-nc-nd'}
    assert {c for c,l in LICENCES.items() if not l.credit}=={'cc0', 'pdm'} and all(l.url.startswith('https://') for l in LICENCES.values())
    assert set(module._openverse_codes)<=set(LICENCES)
    assert all(licence_code(c)==c and licence_code(l.name)==c and licence_codes(c)=={c} for c,l in LICENCES.items())
    assert all(licence_code(url=l.url)==c for c,l in LICENCES.items() if 'creativecommons' in l.url)


@given(st.text(max_size=40), st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_licence_is_known_or_none(name, url): assert licence_code(name, url) in {None, *LICENCES}


# --- cassettes

def test_a_search_is_replayed_with_no_request(server, tmp_path, monkeypatch, capsys):
    server.add('/openverse/', openverse(total=30, row=lambda k: dict(creator='Zoë', license='by')))
    first = ask(server, n=25, record=tmp_path/'tape')
    server.requests.clear()
    monkeypatch.setattr(module, 'fetch', lambda *a, **kw: pytest.fail('a request'))
    again = ask(server, n=25, replay=tmp_path/'tape', cache=False, verbose=True)
    assert list(again)==list(first) and not server.requests and capsys.readouterr().out.startswith('replayed, openverse: 25')
    with pytest.raises(NotOnCassette, match='grizzly bear'): ask(server, n=25, term='panda', replay=tmp_path/'tape')
    monkeypatch.setenv('BEARCLASS_REPLAY', str(tmp_path/'tape'))
    assert list(ask(server, n=25))==list(first)


def test_a_failure_is_replayed_as_one(server, tmp_path):
    server.add('/openverse/', says(400))
    with pytest.raises(SearchError): ask(server, record=tmp_path/'tape')
    with pytest.raises(RecordedFailure, match='http 400'): ask(server, replay=tmp_path/'tape')


# --- looking

def test_pictures_are_shown_and_what_cannot_be_is_named(server, monkeypatch, tmp_path):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    monkeypatch.setenv('BEARCLASS_ALLOW_LOCAL', '1')
    (tmp_path/'mine.jpg').write_bytes(jpeg(3))
    items = [server.url('/ok/1.jpg'), server.url('/404/1'), server.url('/html-as-image/1'), server.url('/truncated/1'), 'file:///etc/passwd', tmp_path/'mine.jpg', 'not an address']
    axs = show_results([replace(r, title='$x_$ <b>') for r in as_results(items)], n=7)
    axs[0, 0].figure.canvas.draw()
    assert [len(ax.images) for ax in axs.flat][:7]==[1, 0, 0, 0, 0, 1, 0]
    texts = [ax.texts[0].get_text().replace('\n', ' ') for ax in axs.flat if ax.texts]
    assert texts[0]=='http 404' and texts[-2:]==['not http', 'bad address'] and all(texts)
    plt.close('all')


# --- manners

def test_import_is_light():
    code = "import sys, bearclass.gather.search; print([m for m in ('torch','fastai','pandas','matplotlib','aiohttp','ddgs','numpy','PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()=='[]'


def test_results_travel():
    rs = SearchResults([ImageResult(A, provider='ddg')], 'bear', 5, dropped={'too small':1})
    again = pickle.loads(pickle.dumps(rs))
    assert list(again)==list(rs) and (again.term, again.dropped)==(rs.term, rs.dropped) and repr(again)==repr(rs)
    assert repr(SearchResults())


def test_a_cell_may_go_on_over_lines(tmp_path):
    "As spreadsheets write it (RFC 4180); a stray quote swallows no row."
    f = tmp_path/'list.csv'
    f.write_text('url,title,license\nhttps://x.example/1.jpg,"a ""bear""\nat home",by\nhttps://x.example/2.jpg,5" wide,by\nhttps://x.example/3.jpg,"left open,by\nhttps://x.example/4.jpg,7" wide,by\n')
    rows,odd = read_addresses(f)
    assert rows[0]==dict(url='https://x.example/1.jpg', title='a "bear" at home', license='by') and not odd
    assert [r['url'][-5] for r in rows[:2]]==['1', '2'] and rows[1]['license']=='by'


@pytest.mark.skipif(os.name=='nt', reason='names are Unicode there')
def test_a_file_whose_name_is_no_text(tmp_path):
    f = tmp_path/os.fsdecode(b'\xff b%41.jpg')
    assert local_path(as_results([f])[0])==f.resolve()
