"""What the API promises whoever runs it: an answer to anything, nobody waits for ever, and no word of the inside.

As a process: many clients at once, slow ones, SIGTERM in the middle, memory, a browser. In a loop here: what is told
when it is busy, late or asked nonsense, and requests made up by chance.
"""
import asyncio, inspect, json, re, signal, socket, sys, threading
from concurrent.futures import ThreadPoolExecutor

import httpx, psutil, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.testclient import TestClient

from bearclass.ship.api import MAX_BODY, create_api
from bearclass.ship.predictor import Predictor
from conftest import end, free_port, here_env, png, started


COMMAND_LINE = sys.executable, '-c', 'from bearclass.cli import main; main()'


@pytest.fixture(scope='module')
def served(colours):
    "(address, process) of the command line's server."
    port = free_port()
    command = [*COMMAND_LINE, 'serve', colours, '--port', port]
    with started(command, port, env=here_env()) as proc: yield f'http://127.0.0.1:{port}', proc


def classify(address, data=None):
    files = dict(file=('a.png', data or png()))
    return httpx.post(f'{address}/classify', files=files, timeout=300, trust_env=False)


def counted(address, status):
    "How often `/metrics` has seen a status of `/classify`."
    said = httpx.get(f'{address}/metrics', timeout=300, trust_env=False)
    n = re.search(rf'requests_total.path="/classify",status="{status}". (\d+)', said.text)
    return int(n[1]) if n else 0


def test_32_clients_get_an_answer_or_are_told_to_come_back(served):
    large = png(size=(900, 900))
    with ThreadPoolExecutor(32) as pool: answers = list(pool.map(lambda _: classify(served[0], large), range(96)))
    assert {a.status_code for a in answers} <= {200, 429}
    away = [a for a in answers if a.status_code==429]
    assert all(a.headers['Retry-After']=='1' and set(a.json())==ABOUT for a in away)
    assert sum(a.status_code==200 for a in answers)>=10     # two at work and eight in line, at the least


def test_a_body_that_does_not_say_its_length_is_cut(served):
    def pieces():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(MAX_BODY//2**20+1): yield bytes(2**20)
    headers = {'Content-Type':'multipart/form-data; boundary=x'}
    said = httpx.post(f'{served[0]}/classify', content=pieces(), headers=headers, timeout=300, trust_env=False)
    assert said.status_code==413


def test_memory_stays_where_it_is(served):
    address,proc = served
    process = psutil.Process(proc.pid)
    with httpx.Client(base_url=address, timeout=300, trust_env=False) as client:
        def ask(n):
            for _ in range(n): assert client.post('/classify', files=dict(file=('a.png', data))).status_code==200
            return process.memory_info().rss
        data = png(size=(300, 300))
        before = ask(50)
        assert ask(1000)-before<50e6


def test_slow_uploads_hold_up_nobody(served):
    "Twelve clients, more than may wait, that never send the end of their picture."
    port = int(served[0].rsplit(':', 1)[1])
    form = b'Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 999\r\n\r\n--x'
    head = b'POST /classify HTTP/1.1\r\nHost: x\r\n' + form
    slow = [socket.create_connection(('127.0.0.1', port), timeout=60) for _ in range(12)]
    try:
        for s in slow: s.sendall(head)
        assert classify(served[0]).status_code==200
    finally:
        for s in slow: s.close()
    while counted(served[0], 400)<12: assert served[1].poll() is None   # each was told, no error is left
    assert counted(served[0], 500)==0


def test_the_page_in_a_browser(served, browser_page, screenshots, tmp_path):
    (tmp_path/'lime.png').write_bytes(png(size=(300, 300)))
    asked = []
    browser_page.on('request', lambda r: asked.append(r.url))
    for width in 1280, 390:
        browser_page.set_viewport_size(dict(width=width, height=900))
        browser_page.goto(served[0])
        browser_page.set_input_files('input[type=file]', tmp_path/'lime.png')
        browser_page.click('button')
        browser_page.wait_for_selector('.bc-label')
        assert browser_page.inner_text('.bc-label')=='green'
        assert browser_page.evaluate('document.documentElement.scrollWidth')<=width
        browser_page.screenshot(path=screenshots/f'api_{width}.png', full_page=True)
    assert all(url.startswith((served[0], 'data:')) for url in asked)


def test_two_workers_behind_one_port_and_an_end_in_order(colours):
    port = free_port()
    command = [*COMMAND_LINE, 'serve', colours, '--port', port, '--workers', 2]
    with started(command, port, env=here_env()) as proc:
        for _ in range(8): assert classify(f'http://127.0.0.1:{port}').json()['label']=='green'
        workers = [p for p in psutil.Process(proc.pid).children() if 'spawn_main' in ' '.join(p.cmdline())]
        assert len(workers)==2
        assert end(proc, signal.SIGTERM)==[]


SLOW = '''
import sys, time, threading
from pathlib import Path
from bearclass.ship import api
from bearclass.ship.predictor import Predictor
class Slow(Predictor):
    asked = 0
    def predict(self, image):
        Slow.asked += 1
        if Slow.asked>1:                      # the first are its golden pictures
            Path(sys.argv[3]).touch()
            while not Path(sys.argv[4]).exists(): time.sleep(.01)
        return super().predict(image)
api.uvicorn.run(api.create_api(Slow(sys.argv[1])), port=int(sys.argv[2]), log_level='warning', **api._limits)
'''


@pytest.mark.skipif(sys.platform=='win32', reason='Windows has no SIGTERM to catch')
def test_sigterm_lets_an_answer_finish(colours, tmp_path):
    port,begun,go = free_port(), tmp_path/'begun', tmp_path/'go'
    command = [sys.executable, '-c', SLOW, colours, port, begun, go]
    with started(command, port, env=here_env()) as proc, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(classify, f'http://127.0.0.1:{port}')
        while not begun.exists(): assert not answer.done() or answer.result()
        proc.send_signal(signal.SIGTERM)
        while True:      # until it takes no new one
            try: httpx.get(f'http://127.0.0.1:{port}/livez', timeout=60, trust_env=False)
            except httpx.TransportError: break
        go.touch()
        assert answer.result().json()['label']=='green'
        proc.wait(60)


# --- what is told

class Held(Predictor):
    "Answers when `go` is set, as a large picture on a slow machine would."
    def __init__(self, path):
        self.go = threading.Event()
        self.go.set()
        super().__init__(path)

    def predict(self, image):
        self.go.wait(60)
        return super().predict(image)


PICTURE = dict(files=dict(file=('a.png', png())))
ABOUT = {'error', 'expected', 'todo'}


def in_a_loop(api, talk):
    "What `await talk(client)` gives, with a client that hands its requests to `api`."
    async def hold():
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url='http://api') as client: return await talk(client)
    with ThreadPoolExecutor(1) as pool: return pool.submit(asyncio.run, hold()).result()   # a browser has a loop here


@pytest.fixture
def held(colours):
    model = Held(colours)
    model.go.clear()
    yield model
    model.go.set()


def test_too_late_for_an_answer_or_with_an_upload(held):
    async def endless():
        yield b'--x\r\n'
        await asyncio.Event().wait()
    headers = {'Content-Type':'multipart/form-data; boundary=x'}
    async def talk(client):
        return await asyncio.gather(
            client.post('/classify', **PICTURE),
            client.post('/classify', content=endless(), headers=headers))
    late,slow = in_a_loop(create_api(held, seconds=.3), talk)
    assert (late.status_code, slow.status_code)==(504, 408)
    assert set(late.json())==set(slow.json())==ABOUT
    assert inspect.signature(create_api).parameters['seconds'].default==30


def test_ready_until_it_goes(colours):
    api = create_api(Predictor(colours))
    with TestClient(api) as client: assert client.get('/readyz').status_code==200
    gone = TestClient(api)     # outside of `with`: its end has come
    assert gone.get('/readyz').status_code==503 and gone.get('/livez').status_code==200


# --- by chance

forms = st.dictionaries(st.sampled_from(['file', 'url', 'x', '']), st.binary(max_size=60) | st.just(png()), max_size=3)
kinds = st.sampled_from(['multipart/form-data; boundary=b', 'multipart/form-data', 'application/x-www-form-urlencoded',
                         'application/json', 'image/png', 'text/plain; charset=utf-7', ''])
paths = st.sampled_from(['/classify', '/classify-url', '/model', '/livez', '/readyz', '/metrics', '/openapi.json', '/',
                         '//', '/%00'])
methods = st.sampled_from(['POST', 'POST', 'GET', 'PUT', 'HEAD', 'OPTIONS', 'DELETE', 'BREW'])
texts = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters='\x7f'), max_size=20)


@pytest.fixture(scope='module')
def asked(colours):
    "A function that hands one request to an application that lives as long as the tests, in a loop of its own."
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    api = create_api(Predictor(colours), classify_url=True)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(api, raise_app_exceptions=False), base_url='http://api')
    yield lambda *a, **kw: asyncio.run_coroutine_threadsafe(client.request(*a, **kw), loop).result()
    loop.call_soon_threadsafe(loop.stop)


@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(method=methods, path=paths, files=forms, accept=st.sampled_from(['*/*', 'text/html', 'x']))
def test_forms_made_up_by_chance(asked, method, path, files, accept):
    files = {k: (k or 'n', v) for k,v in files.items()}
    check(asked(method, path, files=files or None, headers=dict(accept=accept)))


@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(method=methods, path=paths, body=st.binary(max_size=200), kind=kinds, url=texts, header=texts)
def test_bodies_made_up_by_chance(asked, method, path, body, kind, url, header):
    headers = {'Content-Type':kind, 'X-Any':header.strip().encode('latin-1')}
    check(asked(method, path, content=body, headers=headers, params=dict(url=url)))


def check(said):
    assert said.status_code<500, said.text
    assert not re.search(r'Traceback|File "|/(home|root|tmp|work)/', said.text)
    if said.status_code>=400 and 'json' in said.headers.get('content-type', '') and said.text:
        assert set(json.loads(said.text))==ABOUT
