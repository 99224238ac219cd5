"Search: a server that speaks the providers' shapes and misbehaves, budgets without waiting, strangers' words."
import json, re, sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from bearclass.gather import services
from bearclass.gather.cassette import NotOnCassette
from bearclass.gather.providers import PROVIDERS, register_provider
from bearclass.gather.results import ImageResult, local_path, plain_text, read_addresses
from bearclass.gather.search import SearchError, SearchResults, search_images
from hostile import HostileServer, hang, jpeg

A,B = 'https://x.org/a.jpg', 'https://x.org/b,2.jpg?x=1,2'


class FastClock:
    "Time that passes only when somebody waits."
    def __init__(self): self.t,self.naps = 1.7e9, []
    def time(self): return self.t
    def sleep(self, s):
        self.naps.append(s)
        self.t += s


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    "A cache of its own, no web; providers that a test adds are gone afterwards."
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    for k in 'BEARCLASS_RECORD', 'BEARCLASS_REPLAY', 'BEARCLASS_ALLOW_LOCAL': monkeypatch.delenv(k, raising=False)
    before = dict(PROVIDERS)
    yield
    PROVIDERS.clear()
    PROVIDERS.update(before)


@pytest.fixture
def server():
    with HostileServer() as s: yield s


def ask(server, name='openverse', n=30, term='grizzly bear', **kw):
    "A search at the loopback server."
    where = {k: server.url(f'/{k}/') for k in ('openverse', 'wikimedia')}
    with pytest.MonkeyPatch.context() as m:
        m.setenv('BEARCLASS_OFFLINE', '0')
        m.setenv('BEARCLASS_ALLOW_LOCAL', '1')
        return search_images(term, n, name, services=where, **{'clock':FastClock(), 'verbose':False, **kw})


def says(status, headers=None, data=None):
    body = data if isinstance(data, bytes) else json.dumps(data or {}).encode()
    return lambda req: (status, headers or {}, body)


FIELDS = '''id title foreign_landing_url creator creator_url license license_version license_url provider source
    filesize filetype attribution height width thumbnail mature'''.split()


def openverse(total=50, row=lambda k: {}):
    "A handler that answers as Openverse's documentation says."
    def _answer(req):
        n,page = int(req.query['page_size']), int(req.query['page'])
        some = range((page-1)*n, min(page*n, total))
        rows = [{**dict.fromkeys(FIELDS), 'url':f'https://x.org/{k}.jpg', **row(k)} for k in some]
        return 200, {}, json.dumps(dict(page_count=-(-total//n), page=page, results=rows)).encode()
    return _answer


CC = 'https://creativecommons.org/licenses'


def commons_page(k, **info):
    meta = dict(LicenseShortName='CC BY-SA 4.0', LicenseUrl=f'{CC}/by-sa/4.0', Artist=f'<a href="//x.org">Zoë {k}</a>')
    full = dict(url=f'https://x.org/{k}.jpg', descriptionurl=f'https://x.org/File:{k}', width=500, height=400,
                extmetadata={name: {'value':v} for name,v in meta.items()}) | info
    return dict(pageid=k+1, ns=6, title=f'File:Bear {k}.jpg', index=k+1, imageinfo=[full])


def commons(total=5, step=50, page=commons_page):
    "A handler that answers as the Action API does, with `continue`, every key of which must come back."
    def _answer(req):
        at = int(req.query.get('gsroffset', 0))
        more = {'continue':dict(gsroffset=at+step, **{'continue':'gsroffset||'})} if at+step<total else {}
        if at and req.query.get('continue')!='gsroffset||': return 200, {}, b'{"error":{"code":"badcontinue"}}'
        pages = [page(k) for k in range(at, min(at+step, total))]
        return 200, {}, json.dumps({**more, 'query':{'pages':pages[::-1]}}).encode()
    return _answer


# --- Openverse

def test_openverse_is_asked_as_documented(server):
    "As many pages as are needed, a second between two, and each request says who asks."
    server.add('/openverse/', openverse(total=100))
    clock = FastClock()
    assert [r.url for r in ask(server, n=45, clock=clock)] == [f'https://x.org/{k}.jpg' for k in range(45)]
    assert [q.query for q in server.requests]==[dict(q='grizzly bear', page=str(p), page_size='20') for p in (1, 2, 3)]
    assert clock.naps==[1, 1] and all(re.match(r'bearclass/\d', q.headers['user-agent']) for q in server.requests)


def test_a_web_service_cannot_name_files_of_this_machine(server, tmp_path):
    secret = tmp_path/'private.jpg'
    secret.write_bytes(jpeg(1))
    evil = [secret.as_uri(), str(secret), 'file:///etc/passwd', 'FILE://localhost/etc/passwd',
            'data:image/png;base64,AAAA', 'javascript:alert(1)', 'ftp://x.org/a.jpg', '//x.org/a.jpg', 'https://',
            'https:// x.org/']
    rows = [dict(url=u, provider='folder') for u in evil]+[{}]
    server.add('/openverse/', openverse(total=len(rows), row=rows.__getitem__))
    rs = ask(server)
    assert len(rs)==1 and rs.dropped['no web address']==len(evil) and local_path(rs[0]) is None
    assert local_path(ImageResult(secret.as_uri(), provider='openverse')) is None
    assert local_path(ImageResult(secret.as_uri())) is None


# --- cache

def test_a_second_search_asks_nobody_until_a_day_has_passed(server, tmp_path):
    good,clock = openverse(total=30), FastClock()
    server.add('/openverse/', lambda req: (400, {}, b'{}') if req.n==1 else good(req))
    with pytest.raises(SearchError): ask(server, clock=clock)          # errors are not cached
    first = ask(server, clock=clock)
    assert list(ask(server, clock=clock))==list(first) and server.hits['/openverse/']==3
    clock.t += 24*3600
    ask(server, clock=clock)
    assert server.hits['/openverse/']==5
    written = b''.join(f.read_bytes() for f in (tmp_path/'cache').rglob('*') if f.is_file())
    assert b'127.0.0.1' not in written and b'q=' not in written   # an address may hold a key


# --- Wikimedia

def test_commons_is_asked_as_documented(server):
    server.add('/wikimedia/', commons(9, step=4))
    rs = ask(server, 'wikimedia')
    assert [(r.url, r.title, r.creator, r.license, r.page_url) for r in rs]==[
        (f'https://x.org/{k}.jpg', f'Bear {k}', f'Zoë {k}', 'by-sa', f'https://x.org/File:{k}') for k in range(9)]
    q = server.requests[0].query
    assert q.items() >= dict(action='query', format='json', formatversion='2', generator='search', gsrnamespace='6',
                             gsrlimit='50', prop='imageinfo', iiurlwidth='640', maxlag='5').items()
    assert q['gsrsearch']=='filetype:bitmap grizzly bear'
    assert {'url', 'size', 'extmetadata'} <= set(q['iiprop'].split('|'))


# --- ddg, through a fake package

@pytest.fixture
def fake(monkeypatch):
    "`fake(images)` puts a package in place whose `DDGS().images` is `images`; without a call it is not installed."
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    monkeypatch.setitem(sys.modules, 'ddgs', None)
    def _put(images):
        package = ModuleType('ddgs')
        package.DDGS = type('DDGS', (), dict(__init__=lambda self, **kw: None, images=staticmethod(images)))
        monkeypatch.setitem(sys.modules, 'ddgs', package)
    return _put


def hits(*ks):
    return [dict(title=f'Bear {k}', image=f'https://x.org/{k}.jpg', url='https://x.org/', height='480', width=640)
            for k in ks]


# --- auto

def test_auto_tops_up_and_says_how_many_came_from_where(server, fake, capsys):
    fake(lambda q, max_results, page=1: hits(*range(100, 110)) if page==1 else [])
    server.add('/openverse/', openverse(total=5, row=lambda k: dict(license='by'))).add('/wikimedia/', commons(9))
    rs = ask(server, 'auto', n=16, verbose=True)
    assert rs.counts==dict(openverse=5, wikimedia=4, ddg=7)
    said = capsys.readouterr().out
    assert said.count('\n')==1 and 'openverse 5 + wikimedia 4 + ddg 7: 16 pictures' in said
    assert '9 with a known licence' in said and '5 seen before' in said


def test_requests_and_seconds_are_bounded_for_all_together(server):
    small = dict(width=10, height=10)
    server.add('/openverse/', openverse(total=10**6, row=lambda k: small))
    server.add('/wikimedia/', commons(10**6, page=lambda k: commons_page(k, **small)))
    with pytest.raises(SearchError, match='all 9 requests of this search are used up'):
        ask(server, ['openverse', 'wikimedia'], n=100, tries=9, seconds=1e6)
    clock = FastClock()
    with pytest.raises(SearchError, match='used up|left alone'):
        ask(server, n=1000, term='panda', tries=10**6, seconds=30, clock=clock)
    assert sum(clock.naps)<=31


def test_a_service_that_hangs_leaves_time_for_the_next(server):
    server.add('/openverse/', hang).add('/wikimedia/', commons(3))
    rs = ask(server, ['openverse', 'wikimedia'], n=3, seconds=6)     # three seconds for the first
    assert rs.provider=='wikimedia' and 'no answer in time' in rs.tried[0].reason


# --- files and folders

@pytest.mark.parametrize('text, name', [
    (f'{A}\n{B}\n', 'a.txt'), (f'{A}\r\n{B}', 'a.csv'), (f'\n\n  {A}\n# mine\n{B}  ', 'a'),
    (f'"{A}"\n"{B}"\n', 'a.txt'),
    (f'\ufeff{A}\n{B}'.encode(), 'a.txt'), (f'{A}\n{B}'.encode('utf-16'), 'a.txt'), (f'url\n{A}\n"{B}"\n', 'a.csv'),
    (f'label,url\nblack,{A}\nblack,"{B}"\n', 'a.csv'), (f'label;Image_URL\nblack;{A}\nblack;{B}\n', 'a.csv'),
    (f'black\t{A}\nblack\t{B}\n', 'a.tsv'), (f'1,"{A}"\n2,"{B}"\n', 'a.csv')])
def test_lists_of_addresses(tmp_path, text, name):
    (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    rows,odd = read_addresses(tmp_path/name)
    assert [r['url'] for r in rows]==[A, B] and odd==[]


quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def examples(*texts):
    def _all(f):
        for t in texts: f = example(t)(f)
        return f
    return _all


@given(st.text(max_size=300))
@examples('"', '"a,b\nc', '\0', 'url\n', ',,,\n,', 'url,url\nhttps://x.org/1,')
@quick
def test_no_text_breaks_the_reader_and_no_line_is_lost(tmp_path, text):
    data = text.encode('utf-8', 'surrogatepass')
    (tmp_path/'list.txt').write_bytes(data)
    rows,odd = read_addresses(tmp_path/'list.txt')
    assert all(r['url'].lower().startswith('http') for r in rows)
    lines = [l.strip() for l in data.decode('utf-8-sig', 'replace').splitlines()]
    n = sum(l!='' and not l.startswith('#') for l in lines)
    assert len(rows)+len(odd) in (n, n-1)    # one less where the first is a heading


# --- providers of one's own

def test_a_provider_may_be_endless_or_broken_or_odd(tmp_path):
    register_provider('same')(lambda term, n, ctx: iter(lambda: A, None))       # the same for ever
    assert len(search_images('bear', 7, 'same', seconds=.4, verbose=False))==1
    register_provider('nothing')(lambda term, n, ctx: None)
    with pytest.raises(SearchError, match="TypeError: 'NoneType'"): search_images('bear', 7, 'nothing')
    file = ImageResult((tmp_path/'a').as_uri(), provider='folder')
    register_provider('odd')(lambda term, n, ctx: [None, 3, A, {'url':B, 'x':1}, Path('x.jpg'), {'no':1}, file])
    rs = search_images('bear', 7, 'odd', verbose=False)
    assert [r.url for r in rs]==[A, B] and rs.dropped=={'no result':3, 'no web address':2}


# --- questions


# --- words from strangers

@given(st.text(max_size=400))
@examples('<![x[', '<!--', '<script>', '&#x110000;', '&#0;', '<'*500, '<a '*200, '\ud800', '<?', '</script><script>',
          '<![CDATA[x]]>')
@settings(quick, max_examples=400)
def test_plain_text_is_one_printable_line_and_never_raises(text):
    out = plain_text(text)
    assert out is None or (out.isprintable() and out==' '.join(out.split()) and 0<len(out)<=300)


TEXT = st.none() | st.text(max_size=40) | st.sampled_from(['<script>a(1)</script>', '"><img src=x onerror=a(1)>'])


@given(st.builds(ImageResult, url=st.just(A), page_url=TEXT, title=TEXT, creator=TEXT, license=TEXT, provider=TEXT))
@quick
def test_no_result_can_put_a_tag_or_a_script_into_the_table(r):
    seen = set()
    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs): seen.update([tag, *dict(attrs)])
    Tags().feed(SearchResults([r])._repr_html_())
    assert seen<={'p', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'style', 'border', 'class'}


# --- cassettes, looking, manners

def test_a_search_is_replayed_with_no_request(server, tmp_path, monkeypatch):
    server.add('/openverse/', openverse(total=30, row=lambda k: dict(creator='Zoë', license='by')))
    first = ask(server, n=25, record=tmp_path/'tape')
    monkeypatch.setattr(services, 'fetch', lambda *a, **kw: pytest.fail('a request'))
    assert list(ask(server, n=25, replay=tmp_path/'tape', cache=False))==list(first)
    with pytest.raises(NotOnCassette, match='grizzly bear'): ask(server, n=25, term='panda', replay=tmp_path/'tape')


