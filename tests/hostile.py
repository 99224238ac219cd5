"""A web server on loopback that does to a client what the web does, each fault under a path of its own.

    with HostileServer() as s:
        s.url('/ok/3.jpg'); s.hits['/ok/3.jpg']
        s.add('/v1/images/', lambda req: (200, {'Content-Type': 'application/json'}, b'{}'))

Standard library and Pillow only: answers are written byte by byte, since a well-behaved server could not misbehave so.
"""
import asyncio, gzip, hashlib, inspect, io, json, threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

HUGE = 22*2**20       # bytes of /huge
BOMB = 64*2**20       # bytes that /gzip-bomb unpacks to
JPEG = {'Content-Type': 'image/jpeg'}


@dataclass
class Request:
    "What a client sent; `n` counts the requests for this path, from 1."
    path:str
    query:dict        # name -> last value
    headers:dict      # lower-case names
    n:int
    target:str        # path and query exactly as they were sent
    server:object
    reader:object

    @property
    def number(self):   # 12 of /ok/12.jpg
        return int(''.join(c for c in self.path.rsplit('/', 1)[-1] if c.isdigit()) or 0)


@lru_cache(maxsize=2048)
def jpeg(n, side=64):
    "A real picture, different for every `n`: soft noise under a coloured square."
    import numpy as np
    from PIL import Image
    rng = np.random.default_rng(n)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    img = Image.fromarray(small).resize((side, side), Image.BICUBIC)
    img.paste(tuple(int(x) for x in rng.integers(0, 256, 3)), (side//4, side//4, side//2, side//2))
    buf = io.BytesIO()
    img.save(buf, 'JPEG', quality=85)
    return buf.getvalue()


class HostileServer:
    "`with HostileServer() as s:` on 127.0.0.1 and a free port."
    def __init__(self, latency=(0., 0.), side=64):
        self.latency,self.side = latency,side
        self.hits,self.requests,self.handlers = Counter(), [], dict(FAULTS)   # hits by path without the query
        self.open_now = self.most_open = 0                                    # requests being answered at once

    def add(self, path, handler):
        """`handler(req)` gives (status, headers, body), or bytes as they are; `async handler(req, writer)` writes.
        A path that ends in `*` stands for all that begin so."""
        self.handlers[path] = handler
        return self

    def url(self, path='/'): return f'http://127.0.0.1:{self.port}{path}'

    # --- life
    def __enter__(self):
        self.up = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name='hostile', daemon=True)
        self.thread.start()
        self.up.wait()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.down.set)
        self.thread.join()

    async def _serve(self):
        self.loop,self.down,self.tasks = asyncio.get_running_loop(), asyncio.Event(), set()
        server = await asyncio.start_server(self._client, '127.0.0.1', 0, limit=2**20, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self.up.set()
        await self.down.wait()
        server.close()
        for t in list(self.tasks): t.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # --- one connection, one request after another
    async def _client(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            while await self._answer(reader, writer): continue
        self.tasks.discard(task)
        with suppress(Exception): writer.close()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1').split('\r\n')
        target = head[0].split(' ')[1]
        headers = {k.strip().lower(): v.strip() for k,_,v in (l.partition(':') for l in head[1:] if l)}
        parts = urlsplit(target)
        self.hits[parts.path] += 1
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        req = Request(parts.path, query, headers, self.hits[parts.path], target, self, reader)
        self.requests.append(req)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try: return await self._respond(req, writer)
        finally: self.open_now -= 1

    async def _respond(self, req, writer):
        lo,hi = self.latency
        if hi:   # the same wait for the same path in every run
            share = int.from_bytes(hashlib.sha256(req.path.encode()).digest()[:4], 'big')/2**32
            await asyncio.sleep(lo+(hi-lo)*share)
        handler = self._find(req.path)
        if inspect.iscoroutinefunction(handler):
            await handler(req, writer)
            return False
        answer = handler(req)
        if isinstance(answer, tuple): return await send(writer, *answer)
        writer.write(answer)
        await writer.drain()
        return False

    def _find(self, path):
        if path in self.handlers: return self.handlers[path]
        starts = [p for p in self.handlers if p.endswith('*') and path.startswith(p[:-1])]
        return self.handlers[max(starts, key=len)] if starts else (lambda req: (404, {}, b'<html>no such page</html>'))


def head(status, headers):
    "The beginning of an answer; a list as a header's value is sent as several headers."
    words = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else 'Odd'
    lines = [f'HTTP/1.1 {status} {words}']
    for k,v in headers.items(): lines += [f'{k}: {x}' for x in (v if isinstance(v, list) else [v])]
    return ('\r\n'.join(lines)+'\r\n\r\n').encode('utf-8', 'surrogateescape')


async def send(writer, status, headers, body=b''):
    "A whole, honest answer. Returns whether the connection stays open."
    writer.write(head(status, {'Content-Length': len(body), **headers})+body)
    await writer.drain()
    return headers.get('Connection')!='close'


def drawn(req): return jpeg(req.number, req.server.side)

def picture(req): return 200, JPEG, drawn(req)

def page(text): return f'<!doctype html><html><body><p>{text}</p></body></html>'.encode()

def then_ok(status): return lambda req: (status, {}, b'') if req.n==1 else picture(req)


# --- faults that take their time
async def hang(req, writer): await req.reader.read()   # until the client goes away

async def hang_body(req, writer):
    writer.write(head(200, {**JPEG, 'Content-Length':5000}) + jpeg(0)[:100])
    await hang(req, writer)

async def one_a_second(writer, start, byte):
    writer.write(start)
    while True:
        writer.write(byte)
        await writer.drain()
        await asyncio.sleep(1)

async def drip(req, writer):
    "So that no wait for a single read is ever long."
    await one_a_second(writer, head(200, {**JPEG, 'Content-Length':90_000}), b'\0')

async def drip_head(req, writer):
    "The same within the headers: a line that never ends."
    await one_a_second(writer, b'HTTP/1.1 200 OK\r\nX-Slow: ', b'a')

async def pour(writer, start, block, n):
    writer.write(start)
    for _ in range(n):
        writer.write(block)
        await writer.drain()

async def huge(req, writer): await pour(writer, head(200, {**JPEG, 'Content-Length':HUGE}), bytes(2**16), HUGE//2**16)

async def endless(req, writer): await pour(writer, head(200, JPEG), bytes(2**16), 10**9)   # no length, no end

async def endless_header(req, writer): await pour(writer, b'HTTP/1.1 200 OK\r\n', b'X-More: '+b'a'*500+b'\r\n', 100_000)

async def reset_then_ok(req, writer):
    if req.n==1: writer.transport.abort()
    else: await send(writer, *picture(req))


# --- faults that are said in one go
def broken(body, **headers): return head(200, {**JPEG, **{k.replace('_', '-'): v for k,v in headers.items()}})+body

def half(req):
    data = drawn(req)
    return broken(data[:len(data)//2], Content_Length=len(data))

def chunked(req):
    data = drawn(req)
    return broken(f'{len(data):x}\r\n'.encode()+data+b'\r\n0\r\n\r\n', Transfer_Encoding='chunked', Connection='close')

def redirects(req):
    "/redirects/5 needs five redirects to come to a picture."
    return (302, {'Location': f'/redirects/{req.number-1}'}, b'') if req.number else picture(req)

def retry_after(req):
    "/429-retry-after?s=2 (or ?s=an HTTP date): refused once, then a picture; `&always=1`: for ever; `&status=503`."
    if req.n>1 and 'always' not in req.query: return picture(req)
    return int(req.query.get('status', 429)), {'Retry-After': req.query.get('s', '1')}, b''

@lru_cache
def bomb(): return gzip.compress(bytes(BOMB), 9)

def packed(body, encoding='gzip'): return 200, {**JPEG, 'Content-Encoding':encoding}, body

FAULTS = {
    '/ok/*': picture,                                            # a picture of its own for every number
    '/duplicate/*': lambda r: (200, JPEG, jpeg(0, r.server.side)),   # the bytes of /ok/0.jpg
    '/no-length/*': lambda r: broken(drawn(r), Connection='close'),   # it ends where the connection ends
    '/chunked/*': chunked,
    '/404/*': lambda r: (404, {'Content-Type':'text/html'}, page('no such bear')),
    '/status/*': lambda r: (r.number, {}, page(f'error {r.number}')),   # /status/410
    **{f'/{status}-then-ok/*': then_ok(status) for status in (500, 503, 408, 429)},
    '/reset-then-ok/*': reset_then_ok,
    '/500/*': lambda r: (500, {}, page('out of order')),
    '/429-retry-after*': retry_after,
    '/hang/*': hang, '/hang-body/*': hang_body, '/drip*': drip, '/drip-head*': drip_head,
    '/truncated/*': half,
    '/truncated-chunks*': lambda r: broken(b'ff\r\n'+jpeg(0)[:100], Transfer_Encoding='chunked'),
    '/lying-length*': lambda r: broken(bytes(1000), Content_Length=5_000_000),
    '/html-as-image/*': lambda r: (200, JPEG, page('please enable cookies')),
    '/redirect/*': lambda r: (302, {'Location': f'/ok/{r.number+10_000}.jpg'}, b''),   # as no other is
    '/redirects/*': redirects,
    '/redirect-to*': lambda r: (int(r.query.get('status', 302)), {'Location': r.query['to']}, b''),
    '/redirect-loop': lambda r: (302, {'Location': '/redirect-loop-2'}, b''),
    '/redirect-loop-2': lambda r: (302, {'Location': '/redirect-loop'}, b''),
    '/redirect-nowhere': lambda r: (302, {}, b''),               # no Location
    '/huge/*': huge, '/endless*': endless, '/endless-header*': endless_header,
    '/gzip/*': lambda r: packed(gzip.compress(drawn(r))),
    '/gzip-bomb*': lambda r: packed(bomb()),
    '/gzip-broken*': lambda r: packed(b'\x1f\x8b\x08\0 this is no gzip'),
    '/gzip-cut*': lambda r: packed(gzip.compress(jpeg(0))[:-20]),
    '/brotli*': lambda r: packed(jpeg(0), 'br'),
    '/opt-out*': lambda r: (200, {**JPEG, 'X-Robots-Tag': r.query.get('tag', 'noai').split('|')}, drawn(r)),
    '/empty*': lambda r: (200, JPEG, b''),
    '/svg*': lambda r: (200, {'Content-Type':'image/svg+xml'}, b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    '/drop*': lambda r: b'',                                     # not a word
    '/not-http*': lambda r: b'SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\0\0\0\0',
    '/bad-header*': lambda r: head(200, {'Content-Length':['5', '7']})[:-2]+b'this is no header\r\n\r\nhello',
    '/echo*': lambda r: (200, {}, json.dumps(dict(target=r.target, headers=r.headers)).encode()),
}


def hostile_list(server, n_good=300, n_bad=30):
    "Good addresses and `n_bad` of each of eight faults, mixed evenly; with the defaults 360 of 540 are wanted."
    bad = '404 500-then-ok hang truncated html-as-image redirect duplicate huge'.split()
    kinds = {'ok':n_good, **dict.fromkeys(bad, n_bad)}
    start = {'500-then-ok':1000, 'truncated':2000}   # their pictures are those of no /ok/<n>
    urls = [(j/n, kind, server.url(f'/{kind}/{start.get(kind, 0)+j}.jpg'))
            for kind,n in kinds.items() for j in range(n)]
    return [u for *_,u in sorted(urls)]
