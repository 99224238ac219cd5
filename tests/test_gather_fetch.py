"Fetch against a hostile server: every fault has its reason, no bad address is ever connected to, and no limit is passed."
import asyncio, _thread, ipaddress, json, os, random, re, shutil, socket, ssl, subprocess, sys, threading, time
from contextlib import closing
from dataclasses import replace
from email.utils import formatdate
from urllib.parse import quote, urlsplit
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from bearclass.core import InputError
from bearclass.gather.fetch import *
from hostile import BOMB, HUGE, HostileServer, hostile_list, jpeg

pytest.importorskip('aiohttp')
quick = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
here = FetchRules(allow_local=True, read_s=2., total_s=4.)
PUBLIC = '93.184.215.14'


class FakeClock(Clock):
    "Never waits, remembers how long it was told to."
    def __init__(self, now=1_000_000.): self.t,self.naps,self.dice = now, [], random.Random(42)
    def now(self): return self.t
    def random(self): return self.dice.random()
    async def sleep(self, seconds): self.naps.append(seconds)


@pytest.fixture(scope='module')
def server():
    with HostileServer() as s: yield s


@pytest.fixture
def public_web(server, monkeypatch):
    "A web in which `PUBLIC` leads to the hostile server; gives the list of all addresses that were connected to."
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    asked,connect = [], socket.socket.connect
    def through(self, address):
        if self.family==getattr(socket, 'AF_UNIX', None): return connect(self, address)
        asked.append(address[0])
        return connect(self, ('127.0.0.1', server.port) if address[0]==PUBLIC else ('127.0.0.1', 9))
    monkeypatch.setattr(socket.socket, 'connect', through)
    return asked


def known(f):
    "What must hold for any outcome."
    assert f.ok == (f.reason=='')
    assert f.ok or f.reason in REASONS or re.fullmatch(r'http \d{3}', f.reason), f
    assert '\n' not in f.detail and len(f.detail)<200
    return f


# --- every fault

FAULTS = {   # path -> (reason, attempts, requests that the server saw)
    '/ok/1.jpg':('', 1, 1), '/png/1':('', 1, 1), '/chunked/1':('', 1, 1), '/no-length/1':('', 1, 1), '/no-type/1':('', 1, 1), '/wrong-type/1':('', 1, 1), '/gzip/1':('', 1, 1),
    '/html-as-image/1':('', 1, 1), '/svg':('', 1, 1), '/redirect/1':('', 1, 1), '/redirects/5':('', 1, 2),   # the second time on the way from /redirects/6
   
    '/404/1':('http 404', 1, 1), '/status/410':('http 410', 1, 1), '/status/403':('http 403', 1, 1), '/status/206':('http 206', 1, 1), '/no-content':('http 204', 1, 1),
    '/500-then-ok/1':('', 2, 2), '/503-then-ok/1':('', 2, 2), '/408-then-ok/1':('', 2, 2), '/429-then-ok/1':('', 2, 2), '/reset-then-ok/1':('', 2, 2),
    '/500/1':('http 500', 3, 3), '/status/599':('http 599', 3, 3), '/status/408':('http 408', 3, 3), '/drop':('connection', 3, 3),
    '/429-retry-after?always=1&s=5':('http 429', 3, 3), '/429-retry-after/late?always=1&s=3600':('http 429', 1, 1),
    '/hang/1':('timeout', 1, 1), '/hang-body/1':('timeout', 1, 1), '/drip?every=.1':('timeout', 1, 1), '/drip-head?every=.1':('timeout', 1, 1),
    '/truncated/1':('truncated', 1, 1), '/truncated-chunks':('truncated', 1, 1), '/lying-length':('truncated', 1, 1), '/gzip-cut':('truncated', 1, 1),
    '/redirects/6':('redirect loop', 1, 1), '/redirect-loop':('redirect loop', 1, 1), '/redirect-nowhere':('http 302', 1, 1),
    '/redirect-to?to=ftp://x/':('not http', 1, 1), '/redirect-to/a?to=http://u:p@x/':('refused address', 1, 1), '/redirect-to/b?to=http://[1/':('bad address', 1, 1),
    '/redirect-to/c?to=http://169.254.169.254/':('refused address', 1, 1), '/redirect-to/d?to=http://a..b/':('bad address', 1, 1),
    '/huge/1':('too large', 1, 1), '/endless':('too large', 1, 1), '/gzip-bomb':('too large', 1, 1),
    '/endless-header':('bad answer', 1, 1), '/gzip-broken':('bad answer', 1, 1), '/brotli':('bad answer', 1, 1), '/not-http':('bad answer', 1, 1), '/bad-header':('bad answer', 1, 1),
    '/opt-out':('opted out', 1, 1), '/opt-out/2?tag=otherbot:noai|noimageindex':('opted out', 1, 1), '/opt-out/3?tag=otherbot:noai':('', 1, 1), '/opt-out/4?tag=BearClass: NoAI':('opted out', 1, 1),
    '/empty':('empty', 1, 1),
}


@pytest.fixture(scope='module')
def outcomes(server):
    clock = FakeClock()
    rules = replace(here, max_bytes=10*2**20)
    return {p: (known(f), server.hits[p.split('?')[0]]) for p,f in zip(FAULTS, fetch_all([server.url(p) for p in FAULTS], rules, clock=clock))}


@pytest.mark.parametrize('path', FAULTS)
def test_each_fault_has_its_reason_and_no_more_than_three_requests(outcomes, path):
    f,hits = outcomes[path]
    assert (f.reason, f.tries, hits) == FAULTS[path], f
    assert bool(f.body)==f.ok


def test_bodies_are_whole(outcomes):
    for p in '/ok/1.jpg', '/chunked/1', '/no-length/1', '/gzip/1', '/no-type/1', '/500-then-ok/1': assert outcomes[p][0].body==jpeg(1), p
    assert outcomes['/redirect/1'][0].body==jpeg(10_001) and outcomes['/redirect/1'][0].final_url.endswith('/ok/10001.jpg')


def test_a_length_that_is_too_small_never_gives_a_whole_picture(server):
    f = known(fetch(server.url('/short-length/1'), here))
    assert len(f.body)<=300


def test_the_hostile_list(server):
    "The benchmark's list in small: 12 good addresses and two of each of eight faults."
    urls = hostile_list(server, 12, 2)
    out = fetch_all(urls, here, clock=FakeClock())
    assert len(out)==28 and all(known(f) for f in out) and [f.url for f in out]==urls
    assert {k: sum(f.reason==k for f in out) for k in ('', 'http 404', 'timeout', 'truncated', 'too large')}=={'':20, 'http 404':2, 'timeout':2, 'truncated':2, 'too large':2}


# --- limits in seconds

@pytest.mark.parametrize('path', ['/drip?every=.2', '/drip-head?every=.2', '/hang/7', '/hang-body/7', '/redirect-to?to=/drip?every=.2'])
def test_the_deadline_is_around_the_whole_attempt(server, path):
    start = time.monotonic()
    f = fetch(server.url(path), replace(here, read_s=10, total_s=.6))
    assert f.reason=='timeout' and time.monotonic()-start<1.6


def test_a_look_up_that_never_ends_does_not_hold_us(server):
    never = threading.Event()
    start = time.monotonic()
    f = fetch('http://slow.example/', replace(here, connect_s=.2, tries=2), resolver=lambda host: never.wait(60), clock=FakeClock())
    assert (f.reason, f.tries) == ('connection', 2) and time.monotonic()-start<1.4
    never.set()


def test_a_real_drip_of_one_byte_a_second(server):
    f = fetch(server.url('/drip'), replace(here, read_s=10, total_s=1.5))
    assert f.reason=='timeout' and 1.5<=f.seconds<2.5


# --- limits in bytes

def test_bytes_are_counted_as_they_come(server):
    n = len(jpeg(3))
    for path in '/ok/3.jpg', '/chunked/3', '/no-length/3', '/gzip/3':
        assert fetch(server.url(path), replace(here, max_bytes=n)).ok, path
        assert fetch(server.url(path), replace(here, max_bytes=n-1)).reason=='too large', path
    assert BOMB>HUGE>FetchRules().max_bytes


def test_a_declared_length_is_believed_when_it_is_too_large(server):
    async def only_says_so(req, writer):
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n')
        await req.reader.read()
    server.add('/says-so', only_says_so)
    assert fetch(server.url('/says-so'), here).reason=='too large'   # and no waiting for the first byte


def test_a_bomb_takes_no_memory(server):
    import tracemalloc
    fetch(server.url('/gzip-bomb'), here)   # the server's own copy, and all imports
    tracemalloc.start()
    try: assert fetch(server.url('/gzip-bomb'), replace(here, max_bytes=2**20)).reason=='too large'
    finally: peak = (tracemalloc.get_traced_memory()[1], tracemalloc.stop())[0]
    assert peak<8*2**20


# --- trying again

def test_retry_after_in_seconds_and_as_a_date(server):
    for i,(asked,low) in enumerate({'7':7, formatdate(1_000_042, usegmt=True):42, '60':60}.items()):
        clock = FakeClock()
        f = fetch(server.url(f'/429-retry-after/{i}?s={quote(asked)}'), here, clock=clock)
        assert f.ok and len(clock.naps)==1 and low<=clock.naps[0]<=low+.5
    clock = FakeClock()
    f = fetch(server.url('/429-retry-after/9?s=61&status=503'), here, clock=clock)
    assert (f.reason, clock.naps) == ('http 503', []) and 'wait 61 s' in f.detail


def test_pauses_grow_and_differ(server):
    clock = FakeClock()
    fetch_all([server.url(f'/500/{i}') for i in range(10)], here, clock=clock)
    short,long = sorted(clock.naps)[:10], sorted(clock.naps)[10:]
    assert len(set(clock.naps))==20 and .25<=short[0] and short[-1]<=.5<=long[0] and long[-1]<=1


def test_connection_errors_are_tried_again_and_answers_about_names_are_not():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        closed = s.getsockname()[1]
    f = fetch(f'http://127.0.0.1:{closed}/', here, clock=FakeClock())
    assert (f.reason, f.tries) == ('connection', 3)
    def fail(code):
        def look_up(host): raise socket.gaierror(code, 'as it is')
        return look_up
    for code,reason,tries in (socket.EAI_AGAIN, 'connection', 3), (socket.EAI_NONAME, 'unknown host', 1):
        f = fetch('http://bears.example/', here, resolver=fail(code), clock=FakeClock())
        assert (f.reason, f.tries) == (reason, tries)


def test_a_resolver_that_answers_nonsense(server):
    for answer in ['127.1'], ['bear'], None, 7, ['fe80::1%eth0'], []:
        f = known(fetch('http://bears.example/', here, resolver=lambda host: answer, clock=FakeClock()))
        assert not f.ok and f.reason in ('unknown host', 'bad answer', 'refused address')


# --- addresses that are nobody's business

BAD_IPS = '''127.0.0.1 127.255.255.254 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254 100.64.0.1 100.100.100.200 168.63.129.16 0.0.0.0 0.1.2.3
    192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1::1
    2001:0:7f00:1:: 2001:0:808:808::80ff:fffe 2001:db8::1 3fff::1 100::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::5efe:7f00:1 fec0::1 ff02::1 4000::1 2606:4700::5efe:10.0.0.1'''.split()
SPELT = '''http://127.1/ http://127.0.1/ http://2130706433/ http://0x7f000001/ http://0x7f.0.0.1/ http://0177.0.0.1/ http://0x7f.1/ http://017700000001/ http://127.0.0.1./ http://127.0.0.01/
    http://%31%32%37.0.0.1/ http://127%2e0%2e0%2e1/ http://１２７.０.０.１/ http://127。0。0。1/ http://①②⑦.0.0.1/ http://[0:0:0:0:0:ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[::1]:80/ http://3232235521/ http://0xa9fea9fe/ http://0251.0376.0251.0376/
    HTTP://127.0.0.1/ http://127.0.0.1:80/ http://127.0.0.1#x http://127.0.0.1?x http://u@127.0.0.1/ http://u:p@bears.example/ http://bears.example@127.0.0.1/ http://@bears.example/
    http://bears.example:22/ http://bears.example:8080/ https://bears.example:6379/ http://127.0.0.1\\@bears.example/ http://bears.example\\@127.0.0.1/ http:\\\\127.0.0.1/ http:127.0.0.1/ http:/127.0.0.1/ http:///127.0.0.1/
    file:///etc/passwd ftp://bears.example/ gopher://127.0.0.1:70/ data:image/png;base64,AAAA javascript:alert(1) dict://127.0.0.1/ unix:/run/docker.sock http://256.0.0.1/ http://1.2.3.4.5/ http://127.0.0.1%00.bears.example/
    http://[::1%25lo]/ http://[fe80::1%25eth0]/ http://127.0.0.1%2f@bears.example/ http://bears.example:80:80/ http://bears.example:+80/ http://bears.example:８０/ http://bears.example:65616/ http://bears..example/ http://.127.0.0.1/ http://127.0.0.1../'''.split()
DIRECT = SPELT + [f'http://[{ip}]/' if ':' in ip else f'http://{ip}/' for ip in BAD_IPS]


def test_there_are_more_than_forty(): assert len(set(DIRECT))>=100 and len(set(BAD_IPS))>=40


@pytest.mark.parametrize('url', DIRECT)
def test_bad_targets_are_refused_directly(url, public_web):
    with pytest.raises(InputError): check_url(url)
    f = known(fetch(url, resolver=lambda host: [PUBLIC], clock=FakeClock()))
    assert f.reason in ('refused address', 'bad address', 'not http') and f.tries==0 and public_web==[]


def test_bad_targets_are_refused_through_a_redirect(server, public_web):
    server.requests.clear()
    urls = [f'http://bears.example/redirect-to?to={quote(u, safe="")}&status={code}' for u,code in zip(DIRECT, [301, 302, 303, 307, 308]*len(DIRECT))]
    out = fetch_all(urls, resolver={'bears.example':[PUBLIC]}.__getitem__, clock=FakeClock())
    for url,f in zip(DIRECT, out):
        if url.startswith(('http:1', 'http:/1', 'http:///', 'http:\\')): assert f.final_url.startswith('http://bears.example/'), f   # RFC 3986: a page of the same server
        else: assert known(f).reason in ('refused address', 'bad address', 'not http') and f.tries==1, (url, f)
    assert set(public_web)=={PUBLIC}
    assert {r.headers['host'] for r in server.requests}=={'bears.example'}


@pytest.mark.parametrize('ip', BAD_IPS)
def test_bad_targets_are_refused_behind_a_name(ip, public_web):
    for answer in [ip], [PUBLIC, ip], [ip, PUBLIC]:
        f = fetch('http://bears.example/ok/1.jpg', resolver=lambda host: answer, clock=FakeClock())
        assert (f.reason, public_web) == ('refused address', []), f


@pytest.mark.parametrize('ip', BAD_IPS)
def test_bad_targets_are_refused_when_the_name_server_changes_its_mind(ip, server, public_web):
    "A good answer for the first connection and a bad one for the next: at a redirect, and at a second attempt."
    for path in '/turn-away', '/turn-500':
        answers = iter([[PUBLIC]]+[[ip]]*9)
        f = fetch(f'http://bears.example{path}', resolver=lambda host: next(answers), clock=FakeClock())
        assert f.reason=='refused address' and set(public_web)=={PUBLIC}, f


@pytest.fixture(scope='module', autouse=True)
def turning(server):
    "Answers that close the connection, so that the next request must look the name up again."
    server.add('/turn-away', lambda r: (302, {'Location':'/ok/1.jpg', 'Connection':'close'}, b''))
    server.add('/turn-500', lambda r: (500, {'Connection':'close'}, b''))


def test_the_connection_goes_to_the_number_that_was_checked(server, public_web):
    calls = []
    f = fetch('http://bears.example/ok/1.jpg', resolver=lambda host: calls.append(host) or [PUBLIC])
    assert f.ok and f.body==jpeg(1) and public_web==[PUBLIC] and calls==['bears.example']   # looked up once, by us


def test_local_rules_let_local_ones_through_and_nothing_else(server, public_web):
    for ip in BAD_IPS:
        kind = address_kind(ip)
        assert address_allowed(ip, here) == (kind in ('loopback', 'private')), ip
    assert check_url(server.url('/ok/1'), here)==server.url('/ok/1')


def test_the_switch_is_off_by_default(server, monkeypatch):
    monkeypatch.delenv('BEARCLASS_ALLOW_LOCAL', raising=False)
    assert fetch(server.url('/ok/1')).reason=='refused address'
    monkeypatch.setenv('BEARCLASS_ALLOW_LOCAL', '1')
    assert fetch(server.url('/ok/1')).ok
    assert fetch(server.url('/ok/1'), FetchRules(allow_local=False)).reason=='refused address'


def test_offline(server, monkeypatch):
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    for url in 'http://bears.example/', 'http://8.8.8.8/', 'https://[2606:4700::1111]/': assert fetch(url, here).reason=='offline'
    assert fetch('http://bears.example/', here, resolver=lambda host: [PUBLIC]).reason=='offline'
    assert fetch('http://bears.example/', replace(here, proxy=server.url(''))).reason=='offline'
    assert fetch(f'http://localhost:{server.port}/ok/1', here).ok


# --- any address, any header, any answer

@given(st.one_of(st.text(max_size=60), st.from_regex(r'https?://[^\n]{0,40}', fullmatch=True), st.builds('http://{}/{}'.format, st.text(max_size=20), st.text(max_size=20))))
@quick
def test_any_text_as_address(text):
    import yarl
    try: url = check_url(text)
    except InputError as e: return None if re.match('(bad address|not http|refused address): ', str(e)) else pytest.fail(str(e))
    assert check_url(url)==url and url.isascii() and not re.search(r'[\x00-\x20\x7f\\"<>^`{|}#]', url)
    ours,theirs = urlsplit(url), yarl.URL(url, encoded=True)
    assert ours.hostname==theirs.raw_host and ours.port in (None, 80, 443) and theirs.user is None and ours.scheme in ('http', 'https')
    host = ours.hostname
    if ':' in host or host.replace('.', '').isdigit(): assert str(ipaddress.ip_address(host))==host and address_allowed(host)


number = st.sampled_from([str, hex, lambda n: '0'+oct(n)[2:], lambda n: hex(n).upper().replace('X', 'x')])

@given(st.integers(0, 2**32-1) | st.sampled_from([int(ipaddress.ip_address(i)) for i in BAD_IPS if '.' in i and ':' not in i]), st.integers(1, 4), st.lists(number, min_size=4, max_size=4), st.sampled_from(['', '.']))
@quick
def test_every_spelling_of_a_number(n, k, writes, end):
    parts = [n>>8*(3-i) & 255 for i in range(k-1)] + [n & (256**(5-k)-1)]
    text = '.'.join(w(p) for w,p in zip(writes, parts))
    assert int.from_bytes(socket.inet_aton(text), 'big')==n   # as C reads it
    ip = ipaddress.IPv4Address(n)
    if address_allowed(ip): assert check_url(f'http://{text}{end}/')==f'http://{ip}/'
    else:
        with pytest.raises(InputError, match='refused address'): check_url(f'http://{text}{end}/')


@given(st.integers(0, 2**32-1) | st.sampled_from([int(ipaddress.ip_address(i)) for i in BAD_IPS if ':' not in i]))
@quick
def test_no_disguise_makes_a_bad_number_good(n):
    v4 = ipaddress.IPv4Address(n)
    wrapped = [0xffff<<32|n, 0x64ff9b<<96|n, 0x2002<<112|n<<80|1, n, 0xffff<<48|n, 0x20010000<<96|0x08080808<<64|(n^0xffffffff), 0x20010000<<96|n<<64|(0x08080808^0xffffffff), 0x26064700<<96|0x5efe<<32|n]
    for w in wrapped:
        if w<2: continue
        if not address_allowed(v4): assert not address_allowed(ipaddress.IPv6Address(w)), ipaddress.IPv6Address(w)
    if address_allowed(v4): assert v4.is_global and not v4.is_multicast


@given(st.integers(0, 2**128-1) | st.integers(0, 2**125-1).map(lambda n: n|1<<125))
@quick
def test_what_is_allowed_in_ipv6_is_global_to_python_too(n):
    ip = ipaddress.IPv6Address(n)
    if address_allowed(ip): assert ip.is_global and not ip.is_multicast and not ip.is_link_local


@given(st.text(max_size=40), st.floats(0, 2e9))
@quick
def test_any_text_as_header(text, now):
    wait = retry_after(text, now)
    assert wait is None or wait>=0
    word = opted_out([text, text])
    assert word=='' or word in text.lower()


@given(st.binary(max_size=200) | st.builds(lambda s, h, b: b'HTTP/1.1 %d X\r\n%s\r\n\r\n%s' % (s, h, b), st.integers(0, 999), st.binary(max_size=60), st.binary(max_size=60))
       | st.builds(lambda n, v: b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n' + n.encode() + b': ' + v.encode() + b'\r\n\r\nbear',
                   st.sampled_from('Content-Encoding Location Retry-After X-Robots-Tag Content-Type Transfer-Encoding Set-Cookie Connection Upgrade'.split()), st.text(max_size=30)))
@settings(quick, max_examples=150)
def test_any_bytes_as_answer(server, answer):
    async def raw(req, writer):
        writer.write(answer)
        await writer.drain()
    server.add('/raw', raw)
    known(fetch(server.url('/raw'), replace(here, total_s=.5, tries=1), clock=FakeClock()))


@given(st.text(alphabet=st.characters(exclude_characters='\r\n\0', exclude_categories=['Cs']), max_size=60))
@settings(quick, max_examples=150)
def test_any_text_as_redirect(server, to):
    server.add('/to-anything', lambda r: (302, {'Location':to}, b''))
    known(fetch(server.url('/to-anything'), replace(here, ports=(), total_s=.5, tries=1), resolver=lambda host: [], clock=FakeClock()))


# --- manners

def test_what_a_server_sees(server, monkeypatch):
    for name in 'http_proxy', 'HTTP_PROXY', 'https_proxy', 'all_proxy': monkeypatch.setenv(name, 'http://127.0.0.1:9')   # would fail, if it were asked
    seen = json.loads(fetch(server.url('/echo?sig=a%2Fb%2bc&x=%20é&&y'), here).body)
    assert seen['target']=='/echo?sig=a%2Fb%2bc&x=%20%C3%A9&&y'   # a signature survives to the byte
    assert re.match(r'bearclass/\d', seen['headers']['user-agent']) and seen['headers']['accept-encoding']=='identity'
    assert not {'cookie', 'referer', 'authorization'} & set(seen['headers'])


def test_a_proxy_is_used_when_asked_for(server, monkeypatch):
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    f = fetch('http://bears.example/ok/5.jpg', FetchRules(proxy=server.url('')), resolver=lambda host: pytest.fail('nobody looks the name up here'))
    assert f.ok and f.body==jpeg(5) and server.requests[-1].target=='http://bears.example/ok/5.jpg'
    assert fetch('http://10.0.0.1/', FetchRules(proxy=server.url(''))).reason=='refused address'


def test_own_headers_stay_with_the_first_server(server):
    rules = replace(here, headers={'Authorization':'secret'})
    to = lambda url: json.loads(fetch(url, rules, resolver=lambda host: ['127.0.0.1']).body)['headers']
    assert to(server.url('/redirect-to?to=/echo'))['authorization']=='secret'
    assert 'authorization' not in to(server.url(f'/redirect-to?to=http://other.example:{server.port}/echo'))


def test_no_cookie_is_kept(server):
    server.add('/cookie', lambda r: (302, {'Set-Cookie':'a=b', 'Location':'/echo'}, b''))
    f = fetch(f'http://bears.example:{server.port}/cookie', here, resolver=lambda host: ['127.0.0.1'])
    assert f.final_url.endswith('/echo') and 'cookie' not in json.loads(f.body)['headers']


def test_error_pages_on_request(server):
    assert fetch(server.url('/404/1'), here).body==b''
    assert fetch(server.url('/404/1'), replace(here, keep_errors=15)).body==b'<!doctype html>'
    assert fetch(server.url('/404/1'), replace(here, keep_errors=10**6)).body.endswith(b'</html>')


@pytest.mark.parametrize('per_host, connections', [(8, 48), (3, 48), (48, 5)])
def test_limits_of_connections(per_host, connections):
    with HostileServer(latency=(.02, .03)) as s:
        out = fetch_all([s.url(f'/ok/{i}.jpg') for i in range(60)], replace(here, per_host=per_host, connections=connections))
        assert all(f.ok for f in out) and s.most_open==min(per_host, connections)


def test_waiting_for_ones_turn_is_not_in_the_deadline():
    with HostileServer(latency=(.1, .1)) as s:
        assert all(f.ok for f in fetch_all([s.url(f'/ok/{i}') for i in range(20)], replace(here, per_host=2, total_s=.6)))


def test_who_waits_for_another_try_lets_others_pass(server):
    came = []
    class Patient(FakeClock):
        async def sleep(self, seconds):
            for _ in range(200):
                if came: return
                await asyncio.sleep(.01)
    urls = [server.url('/500-then-ok/77'), f'http://other.example:{server.port}/ok/77']   # lanes of their own, one connection for all
    out = fetch_all(urls, replace(here, connections=1), lambda i, f: came.append(i), resolver=lambda host: ['127.0.0.1'], clock=Patient())
    assert came==[1, 0] and all(f.ok for f in out)


def test_a_slow_host_does_not_hold_up_the_others(server):
    order = []
    urls = [f'http://slow.example:{server.port}/hang/{i}' for i in range(20)] + [f'http://fast.example:{server.port}/ok/{i}' for i in range(20)]
    fetch_all(urls, replace(here, total_s=.4), lambda i, f: order.append(f.ok), resolver=lambda host: ['127.0.0.1'])
    assert order[:20]==[True]*20 and len(order)==40


def test_a_certificate_that_nobody_signed(tmp_path, monkeypatch):
    if not shutil.which('openssl'): pytest.skip('no openssl to make a certificate with')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', tmp_path/'key', '-out', tmp_path/'crt', '-subj', '/CN=localhost', '-days', '2'], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path/'crt', tmp_path/'key')
    with socket.create_server(('127.0.0.1', 0)) as listener:
        def serve():
            try: context.wrap_socket(listener.accept()[0], server_side=True)
            except OSError: return
        threading.Thread(target=serve, daemon=True).start()
        f = fetch(f'https://localhost:{listener.getsockname()[1]}/', here, clock=FakeClock())
    assert (f.reason, f.tries) == ('bad certificate', 1), f


# --- many at once, from anywhere

def test_order_threads_and_bodies(server):
    seen,main = {}, threading.current_thread()
    def on_done(i, f):
        assert threading.current_thread() is main
        seen[i] = len(f.body)
    urls = [server.url(f'/ok/{i}.jpg') for i in range(40)]
    out = fetch_all(iter(urls), here, on_done, keep=False)
    assert [f.url for f in out]==urls and all(f.ok and f.body==b'' for f in out)
    assert seen=={i: len(jpeg(i)) for i in range(40)}


def test_a_slow_taker_slows_the_web_and_memory_stays_bounded():
    with HostileServer() as s:
        taken = ahead = 0
        for i,f in fetch_iter([s.url(f'/ok/{i}.jpg') for i in range(60)], replace(here, per_host=48, connections=6)):
            time.sleep(.005)
            ahead = max(ahead, sum(s.hits.values())-taken)
            taken += 1
        assert taken==60 and ahead<=6


def test_an_error_of_the_callers_own_ends_it_in_order(server):
    def on_done(i, f): raise ZeroDivisionError('mine')
    with pytest.raises(ZeroDivisionError): fetch_all([server.url(f'/hang/{i}') for i in range(5)]+[server.url('/ok/1')], replace(here, total_s=30, read_s=30), on_done)
    assert not [t for t in threading.enumerate() if t.name=='bearclass-fetch']


def test_leaving_early(server):
    start = time.monotonic()
    with closing(fetch_iter([server.url('/hang/1'), server.url('/ok/1')], replace(here, total_s=30, read_s=30))) as arriving: assert next(arriving)[0]==1
    assert time.monotonic()-start<2 and not [t for t in threading.enumerate() if t.name=='bearclass-fetch']


def test_inside_a_running_loop(server):
    async def cell(): return fetch(server.url('/ok/1'), here).ok, len(fetch_all([server.url(f'/ok/{i}') for i in range(9)], here))
    assert asyncio.run(cell())==(True, 9)


def test_beside_nest_asyncio(server):
    pytest.importorskip('nest_asyncio2')
    code = f'''
import asyncio, nest_asyncio2
from bearclass.gather.fetch import *
nest_asyncio2.apply()
async def cell(): return fetch({server.url('/ok/1')!r}, FetchRules(allow_local=True)).ok
print(asyncio.run(cell()), fetch({server.url('/ok/1')!r}, FetchRules(allow_local=True)).ok)'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert out.stdout.split()==['True', 'True'], out.stderr


def test_several_at_the_same_time(server):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(4) as pool: assert all(pool.map(lambda i: fetch(server.url(f'/ok/{i}'), here).body==jpeg(i), range(12)))


def test_ctrl_c(server):
    "What has come stays, what runs is ended, the rest is said to be cancelled, and only then goes the interrupt on its way."
    before,told,hung = server.open_now, {}, [server.url(f'/hang/{i}') for i in range(30)]
    def on_done(i, f):
        told[i] = f
        if len(told)==5: threading.Timer(.2, _thread.interrupt_main).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt): fetch_all([server.url(f'/ok/{i}') for i in range(5)]+hung, replace(here, per_host=48, total_s=30, read_s=30), on_done)
    assert time.monotonic()-start<3
    assert sorted(told)==list(range(35)) and [told[i].reason for i in range(35)]==['']*5+['cancelled']*30
    assert not [t for t in threading.enumerate() if t.name=='bearclass-fetch']
    end = time.monotonic()+3
    while server.open_now>before and time.monotonic()<end: time.sleep(.01)
    assert server.open_now==before   # every connection is closed


def test_light_import_and_what_is_missing_is_named():
    code = '''
import sys, bearclass.gather.fetch as f
assert not {'aiohttp', 'pandas', 'numpy', 'torch'} & set(sys.modules)
sys.modules['aiohttp'] = None
try: f.fetch('http://127.0.0.1/')
except ImportError as e: print(e)'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert 'pip install -U aiohttp' in out.stdout, out.stderr
