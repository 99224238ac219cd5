"Fetch against a hostile server: every fault has its reason, no bad address is connected to, no limit is passed."
import _thread, ipaddress, json, random, re, shutil, socket, ssl, subprocess, threading, time, tracemalloc
from dataclasses import replace
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bearclass.core import InputError
from bearclass.gather.fetch import *
from hostile import HostileServer, jpeg

pytest.importorskip('aiohttp')
quick = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
here = FetchRules(allow_local=True)
PUBLIC = '93.184.215.14'


class FakeClock(Clock):
    "Never waits, remembers how long it was told to."
    def __init__(self): self.naps,self.dice = [], random.Random(42)
    def now(self): return 1_000_000.
    def random(self): return self.dice.random()
    async def sleep(self, seconds): self.naps.append(seconds)


def fetch_threads(): return [t for t in threading.enumerate() if t.name=='bearclass-fetch']


def loopback(host): return ['127.0.0.1']


@pytest.fixture(scope='module')
def server():
    with HostileServer() as s:
        # these close the connection, so that the next request must look the name up again
        s.add('/turn-away', lambda r: (302, {'Location':'/ok/1.jpg', 'Connection':'close'}, b''))
        s.add('/turn-500', lambda r: (500, {'Connection':'close'}, b''))
        yield s


@pytest.fixture
def public_web(server, monkeypatch):
    "A web in which `PUBLIC` leads to the hostile server; gives the list of all addresses that were connected to."
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    asked,connect = [], socket.socket.connect
    def through(self, address):
        if self.family==getattr(socket, 'AF_UNIX', None): return connect(self, address)
        asked.append(address[0])
        return connect(self, ('127.0.0.1', server.port if address[0]==PUBLIC else 9))
    monkeypatch.setattr(socket.socket, 'connect', through)
    return asked


def known(f):
    "What must hold for any outcome."
    assert f.ok == (f.reason=='')
    assert f.ok or f.reason in REASONS or re.fullmatch(r'http \d{3}', f.reason), f
    assert '\n' not in f.detail and len(f.detail)<200
    return f


# --- every fault

ONCE = {   # reason -> paths that are asked for once
    '': '/ok/1.jpg /chunked/1 /no-length/1 /gzip/1 /html-as-image/1 /svg /redirect/1 '
        '/redirects/5 /opt-out/3?tag=otherbot:noai',
    'http 404': '/404/1', 'http 410': '/status/410', 'http 403': '/status/403', 'http 206': '/status/206',
    'http 302': '/redirect-nowhere', 'http 429': '/429-retry-after/late?always=1&s=3600',
    'truncated': '/truncated/1 /truncated-chunks /lying-length /gzip-cut',
    'redirect loop': '/redirects/6 /redirect-loop',
    'not http': '/redirect-to?to=ftp://x/',
    'refused address': '/redirect-to/a?to=http://u:p@x/ /redirect-to/c?to=http://169.254.169.254/',
    'bad address': '/redirect-to/b?to=http://[1/ /redirect-to/d?to=http://a..b/',
    'too large': '/huge/1 /endless /gzip-bomb',
    'bad answer': '/endless-header /gzip-broken /brotli /not-http /bad-header',
    'opted out': '/opt-out /opt-out/2?tag=otherbot:noai|noimageindex /opt-out/4?tag=BearClass:NoAI',
    'empty': '/empty'}
AGAIN = {   # path -> (reason, attempts)
    **{f'/{k}-then-ok/1': ('', 2) for k in ('500', '503', '408', '429', 'reset')},
    '/500/1': ('http 500', 3), '/status/599': ('http 599', 3), '/status/408': ('http 408', 3),
    '/drop': ('connection', 3), '/429-retry-after?always=1&s=5': ('http 429', 3)}
FAULTS = {**{p: (reason, 1) for reason,paths in ONCE.items() for p in paths.split()}, **AGAIN}


@pytest.fixture(scope='module')
def outcomes(server):
    out = fetch_all([server.url(p) for p in FAULTS], here, clock=FakeClock())
    return {p: (known(f), server.hits[p.split('?')[0]]) for p,f in zip(FAULTS, out)}


@pytest.mark.parametrize('path', FAULTS)
def test_each_fault_has_its_reason_and_no_more_than_three_requests(outcomes, path):
    f,hits = outcomes[path]
    requests = 2 if path=='/redirects/5' else FAULTS[path][1]   # the second time on the way from /redirects/6
    assert (f.reason, f.tries, hits) == (*FAULTS[path], requests), f
    assert bool(f.body)==f.ok


# --- limits in seconds

@pytest.mark.parametrize('path', '/drip /drip-head /hang/7 /hang-body/7 /redirect-to?to=/drip'.split())
def test_the_deadline_is_around_the_whole_attempt(server, path):
    "These answers take hours, or for ever; it is no silence that ends them."
    f = fetch(server.url(path), replace(here, read_s=1000, total_s=.6))
    assert (f.reason, f.detail, f.tries) == ('timeout', 'not done within 0.6 s', 1)


def test_a_look_up_that_never_ends_does_not_hold_us():
    ended = threading.Event()
    rules = replace(here, connect_s=.2, tries=2)
    f = fetch('http://slow.example/', rules, resolver=lambda host: ended.wait(), clock=FakeClock())
    ended.set()
    assert (f.reason, f.detail, f.tries) == ('connection', 'slow.example not found out within 0.2 s', 2)


# --- limits in bytes


def test_a_bomb_takes_no_memory(server):
    fetch(server.url('/gzip-bomb'), here)   # the server's own copy, and all imports
    tracemalloc.start()
    try:
        assert fetch(server.url('/gzip-bomb'), replace(here, max_bytes=2**20)).reason=='too large'
        peak = tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()
    assert peak<8*2**20


# --- trying again

def test_connection_errors_are_tried_again_and_answers_about_names_are_not():
    for code,reason,tries in (socket.EAI_AGAIN, 'connection', 3), (socket.EAI_NONAME, 'unknown host', 1):
        def fail(host): raise socket.gaierror(code, 'as it is')
        f = fetch('http://bears.example/', here, resolver=fail, clock=FakeClock())
        assert (f.reason, f.tries) == (reason, tries)


# --- addresses that are nobody's business

BAD_IPS = '''
    127.0.0.1 127.255.255.254 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254 100.64.0.1
    100.100.100.200 168.63.129.16 0.0.0.0 0.1.2.3 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.7 203.0.113.9
    224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254
    ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1::1
    2001:0:7f00:1:: 2001:0:808:808::80ff:fffe 2001:db8::1 3fff::1 100::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1
    fe80::5efe:7f00:1 fec0::1 ff02::1 4000::1 2606:4700::5efe:10.0.0.1'''.split()
SPELT = '''
    http://127.1/ http://127.0.1/ http://2130706433/ http://0x7f000001/ http://0x7f.0.0.1/ http://0177.0.0.1/
    http://0x7f.1/ http://017700000001/ http://127.0.0.1./ http://127.0.0.01/ http://%31%32%37.0.0.1/
    http://127%2e0%2e0%2e1/ http://１２７.０.０.１/ http://127。0。0。1/ http://①②⑦.0.0.1/
    http://[0:0:0:0:0:ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[::1]:80/ http://3232235521/ http://0xa9fea9fe/
    http://0251.0376.0251.0376/ HTTP://127.0.0.1/ http://127.0.0.1:80/ http://127.0.0.1#x http://127.0.0.1?x
    http://u@127.0.0.1/ http://u:p@bears.example/ http://bears.example@127.0.0.1/ http://@bears.example/
    http://bears.example:22/ http://bears.example:8080/ https://bears.example:6379/ http://127.0.0.1\\@bears.example/
    http://bears.example\\@127.0.0.1/ http:\\\\127.0.0.1/ http:127.0.0.1/ http:/127.0.0.1/ http:///127.0.0.1/
    file:///etc/passwd ftp://bears.example/ gopher://127.0.0.1:70/ data:image/png;base64,AAAA javascript:alert(1)
    dict://127.0.0.1/ unix:/run/docker.sock http://256.0.0.1/ http://1.2.3.4.5/ http://127.0.0.1%00.bears.example/
    http://[::1%25lo]/ http://[fe80::1%25eth0]/ http://127.0.0.1%2f@bears.example/ http://bears.example:80:80/
    http://bears.example:+80/ http://bears.example:８０/ http://bears.example:65616/ http://bears..example/
    http://.127.0.0.1/ http://127.0.0.1../'''.split()
DIRECT = SPELT + [f'http://[{ip}]/' if ':' in ip else f'http://{ip}/' for ip in BAD_IPS]
NUMBERS = [int(ipaddress.ip_address(i)) for i in BAD_IPS if ':' not in i]
REFUSED = 'refused address', 'bad address', 'not http'


@pytest.mark.parametrize('url', DIRECT)
def test_bad_targets_are_refused_directly(url, public_web):
    with pytest.raises(InputError): check_url(url)
    f = known(fetch(url, resolver=lambda host: [PUBLIC], clock=FakeClock()))
    assert f.reason in REFUSED and f.tries==0 and public_web==[]


def test_bad_targets_are_refused_through_a_redirect(server, public_web):
    server.requests.clear()
    targets = [u for u in DIRECT if '://' in u and not u.startswith('http:///')]   # others are pages of this server
    codes = [301, 302, 303, 307, 308]*len(targets)
    urls = [f'http://bears.example/redirect-to?to={quote(u, safe="")}&status={code}' for u,code in zip(targets, codes)]
    for f in fetch_all(urls, resolver={'bears.example':[PUBLIC]}.__getitem__, clock=FakeClock()):
        assert known(f).reason in REFUSED and f.tries==1, f
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


def test_the_connection_goes_to_the_number_that_was_checked(public_web):
    calls = []
    f = fetch('http://bears.example/ok/1.jpg', resolver=lambda host: calls.append(host) or [PUBLIC])
    assert f.ok and f.body==jpeg(1) and public_web==[PUBLIC] and calls==['bears.example']   # looked up once, by us


def test_local_rules_let_local_ones_through_and_nothing_else(server, monkeypatch):
    for ip in BAD_IPS: assert address_allowed(ip, here) == (address_kind(ip) in ('loopback', 'private')), ip
    url = server.url('/ok/1')
    monkeypatch.delenv('BEARCLASS_ALLOW_LOCAL', raising=False)
    assert (check_url(url, here), fetch(url).reason)==(url, 'refused address')
    monkeypatch.setenv('BEARCLASS_ALLOW_LOCAL', '1')
    assert fetch(url).ok and fetch(url, FetchRules(allow_local=False)).reason=='refused address'


def test_offline(server, monkeypatch):
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    for url in 'http://bears.example/', 'http://8.8.8.8/': assert fetch(url, here).reason=='offline'
    assert fetch('http://bears.example/', here, resolver=lambda host: [PUBLIC]).reason=='offline'
    assert fetch('http://bears.example/', replace(here, proxy=server.url(''))).reason=='offline'
    assert fetch(f'http://localhost:{server.port}/ok/1', here).ok


# --- any address, any header, any answer

@given(st.one_of(st.text(max_size=60), st.from_regex(r'https?://[^\n]{0,40}', fullmatch=True),
                 st.builds('http://{}/{}'.format, st.text(max_size=20), st.text(max_size=20))))
@quick
def test_any_text_as_address(text):
    import yarl
    try: url = check_url(text)
    except InputError as e:
        assert re.match('(bad address|not http|refused address): ', str(e))
        return
    assert check_url(url)==url and url.isascii() and not re.search(r'[\x00-\x20\x7f\\"<>^`{|}#]', url)
    ours,theirs = urlsplit(url), yarl.URL(url, encoded=True)
    assert ours.hostname==theirs.raw_host and ours.port in (None, 80, 443)
    assert theirs.user is None and ours.scheme in ('http', 'https')
    host = ours.hostname
    if ':' in host or host.replace('.', '').isdigit():
        assert str(ipaddress.ip_address(host))==host and address_allowed(host)


@given(st.integers(0, 2**32-1) | st.sampled_from(NUMBERS))
@quick
def test_no_disguise_makes_a_bad_number_good(n):
    v4 = ipaddress.IPv4Address(n)
    if address_allowed(v4): assert v4.is_global and not v4.is_multicast
    else:
        teredo,eights = 0x20010000<<96, 0x08080808
        wrapped = [0xffff<<32|n, 0x64ff9b<<96|n, 0x2002<<112|n<<80|1, n, 0xffff<<48|n, 0x26064700<<96|0x5efe<<32|n,
                   teredo|eights<<64|(n^0xffffffff), teredo|n<<64|(eights^0xffffffff)]
        for ip in map(ipaddress.IPv6Address, wrapped): assert int(ip)<2 or not address_allowed(ip), ip


@given(st.integers(0, 2**128-1) | st.integers(0, 2**125-1).map(lambda n: n|1<<125))
@quick
def test_what_is_allowed_in_ipv6_is_global_to_python_too(n):
    ip = ipaddress.IPv6Address(n)
    if address_allowed(ip): assert ip.is_global and not ip.is_multicast and not ip.is_link_local


HEADERS = ('Content-Encoding Location Retry-After X-Robots-Tag Content-Type Transfer-Encoding Set-Cookie Connection '
           'Upgrade').split()

@given(st.binary(max_size=200) | st.builds(
    lambda name, v: f'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n{name}: {v}\r\n\r\nbear'.encode(),
    st.sampled_from(HEADERS), st.text(st.characters(exclude_categories=['Cs']), max_size=30)))
@settings(quick, max_examples=150)
def test_any_bytes_as_answer(server, answer):
    async def raw(req, writer):
        writer.write(answer)
        await writer.drain()
    server.add('/raw', raw)
    known(fetch(server.url('/raw'), replace(here, total_s=.5, tries=1), clock=FakeClock()))


# --- manners

def test_what_a_server_sees(server, monkeypatch):
    for name in 'http_proxy', 'HTTP_PROXY', 'https_proxy', 'all_proxy':
        monkeypatch.setenv(name, 'http://127.0.0.1:9')   # would fail, if it were asked
    seen = json.loads(fetch(server.url('/echo?sig=a%2Fb%2bc&x=%20é&&y'), here).body)
    assert seen['target']=='/echo?sig=a%2Fb%2bc&x=%20%C3%A9&&y'   # a signature survives to the byte
    server.add('/cookie', lambda r: (302, {'Set-Cookie':'a=b', 'Location':'/echo'}, b''))
    headers = json.loads(fetch(server.url('/cookie'), here).body)['headers']
    assert re.match(r'bearclass/\d', headers['user-agent']) and headers['accept-encoding']=='identity'
    assert not {'cookie', 'referer', 'authorization'} & set(headers)


def test_a_proxy_is_used_when_asked_for(server, monkeypatch):
    monkeypatch.setenv('BEARCLASS_OFFLINE', '0')
    proxied = FetchRules(proxy=server.url(''))
    f = fetch('http://bears.example/ok/5.jpg', proxied, resolver=lambda host: pytest.fail('nobody looks it up here'))
    assert f.ok and f.body==jpeg(5) and server.requests[-1].target=='http://bears.example/ok/5.jpg'
    assert fetch('http://10.0.0.1/', proxied).reason=='refused address'


def test_a_certificate_that_nobody_signed(tmp_path):
    if not shutil.which('openssl'): pytest.skip('no openssl to make a certificate with')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', tmp_path/'key', '-out',
                    tmp_path/'crt', '-subj', '/CN=localhost', '-days', '2'], check=True, capture_output=True)
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

def test_a_slow_taker_slows_the_web_and_memory_stays_bounded():
    with HostileServer() as s:
        ahead = []
        def slow(i, f):
            time.sleep(.005)
            ahead.append(sum(s.hits.values())-len(ahead))
        fetch_all([s.url(f'/ok/{i}.jpg') for i in range(60)], replace(here, per_host=48, connections=6), slow)
        assert len(ahead)==60 and max(ahead)<=6


def test_ctrl_c(server):
    "What has come stays, what runs is ended, the rest is cancelled, and only then goes the interrupt on its way."
    before,told,hung = server.open_now, {}, [server.url(f'/hang/{i}') for i in range(30)]
    def on_done(i, f):
        told[i] = f
        if len(told)==5: threading.Timer(.2, _thread.interrupt_main).start()
    rules = replace(here, per_host=48, total_s=1000, read_s=1000)
    with pytest.raises(KeyboardInterrupt): fetch_all([server.url(f'/ok/{i}') for i in range(5)]+hung, rules, on_done)
    assert [told[i].reason for i in range(35)]==['']*5+['cancelled']*30
    assert not fetch_threads()
    while server.open_now>before: time.sleep(.01)   # every connection is closed, and the server hears of it
