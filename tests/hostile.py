"""A web server on loopback that does to a client what the web does, each fault under a path of its own.

    with HostileServer() as s:
        s.url('/ok/3.jpg'); s.hits['/ok/3.jpg']
        s.add('/v1/images/', lambda req: (200, {'Content-Type': 'application/json'}, b'{}'))

`python tests/hostile.py [latency_low latency_high]` runs it as a process of its own and prints its address (for benchmarks).
Standard library and Pillow only: answers are written byte by byte, because a well-behaved server could not misbehave so well."""
import asyncio, gzip, hashlib, inspect, io, json, sys, threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

HUGE = 22*2**20       # bytes of /huge
BOMB = 64*2**20       # bytes that /gzip-bomb unpacks to
REASONS = {200:'OK', 206:'Partial Content', 301:'Moved Permanently', 302:'Found', 303:'See Other', 307:'Temporary Redirect', 308:'Permanent Redirect', 400:'Bad Request',
           401:'Unauthorized', 403:'Forbidden', 404:'Not Found', 408:'Request Timeout', 410:'Gone', 429:'Too Many Requests', 500:'Internal Server Error', 503:'Service Unavailable'}


@dataclass
class Request:
    "What a client sent; `n` counts the requests for this path, from 1."
    method:str
    path:str
    query:dict        # name -> last value
    headers:dict      # lower-case names
    n:int
    target:str = ''   # path and query exactly as they were sent
    body:bytes = b''


@lru_cache(maxsize=2048)
def jpeg(n, side=64, fmt='JPEG'):
    "A real picture, different for every `n`: soft noise under a coloured square."
    import numpy as np
    from PIL import Image
    rng = np.random.default_rng(n)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    img = Image.fromarray(small).resize((side, side), Image.BICUBIC)
    img.paste(tuple(int(x) for x in rng.integers(0, 256, 3)), (side//4, side//4, side//2, side//2))
    buf = io.BytesIO()
    img.save(buf, fmt, **(dict(quality=85) if fmt=='JPEG' else {}))
    return buf.getvalue()


@lru_cache(maxsize=4)
def bomb(n=BOMB): return gzip.compress(bytes(n), 9)


def _number(path):
    "The number in the last part of a path: 12 for /ok/12.jpg."
    digits = ''.join(c for c in path.rsplit('/', 1)[-1] if c.isdigit())
    return int(digits or 0)


def _float(req, name, default): return float(req.query.get(name, default))


class HostileServer:
    "`with HostileServer() as s:` a server on 127.0.0.1 and a free port; `s.url(path)`, `s.hits`, `s.requests`, `s.add(path, handler)`."
    def __init__(self, latency=(0., 0.), side=64):
        self.latency,self.side = latency,side
        self.hits,self.requests,self.handlers = Counter(), [], {}   # hits by path without the query
        self.open_now = self.most_open = 0                          # requests being answered at once
        for path,handler in FAULTS.items(): self.add(path, handler)

    def add(self, path, handler):
        "`handler(req) -> (status, headers, body)` or `async handler(req, writer)`; a path that ends in `*` stands for all that begin so."
        self.handlers[path] = handler
        return self

    def url(self, path='/'): return f'http://127.0.0.1:{self.port}{path}'

    # --- life
    def __enter__(self):
        up = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), name='hostile', daemon=True)
        self.thread.start()
        if not up.wait(10): raise RuntimeError('the hostile server did not start')
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self._down.set)
        self.thread.join(10)

    async def _serve(self, up):
        self.loop,self._down,self._tasks = asyncio.get_running_loop(), asyncio.Event(), set()
        server = await asyncio.start_server(self._client, '127.0.0.1', 0, limit=2**20, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        up.set()
        await self._down.wait()
        server.close()
        for t in list(self._tasks): t.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- one connection, one request after another
    async def _client(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer): continue
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError): self.broken = True
        finally:
            self._tasks.discard(task)
            with suppress(Exception): writer.close()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1').split('\r\n')
        method,target,_ = head[0].split(' ', 2)
        headers = {k.strip().lower(): v.strip() for k,_,v in (l.partition(':') for l in head[1:] if l)}
        body = await reader.readexactly(int(headers.get('content-length', 0)))
        parts = urlsplit(target)
        self.hits[parts.path] += 1
        req = Request(method, parts.path, {k: v[-1] for k,v in parse_qs(parts.query, keep_blank_values=True).items()},
                      headers, self.hits[parts.path], target, body)
        self.requests.append(req)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try: return await self._respond(req, reader, writer)
        finally: self.open_now -= 1

    async def _respond(self, req, reader, writer):
        lo,hi = self.latency
        if hi:   # the same wait for the same path in every run
            u = int.from_bytes(hashlib.sha256(req.path.encode()).digest()[:4], 'big')/2**32
            await asyncio.sleep(lo+(hi-lo)*u)
        handler = self._find(req.path)
        if inspect.iscoroutinefunction(handler):
            req.server,req.reader = self, reader
            await handler(req, writer)
            return False
        status,headers,body = handler(req)
        if callable(body): body = body(self)
        return await send(writer, status, headers, body, head_only=req.method=='HEAD')

    def _find(self, path):
        if path in self.handlers: return self.handlers[path]
        starts = [p for p in self.handlers if p.endswith('*') and path.startswith(p[:-1])]
        return self.handlers[max(starts, key=len)] if starts else (lambda req: (404, {}, b'<html>no such page</html>'))


def _head(status, headers):
    lines = [f'HTTP/1.1 {status} {REASONS.get(status, "Odd")}'] + [f'{k}: {x}' for k,v in headers.items() for x in (v if isinstance(v, list) else [v])]
    return ('\r\n'.join(lines)+'\r\n\r\n').encode('utf-8', 'surrogateescape')


async def send(writer, status, headers, body=b'', head_only=False):
    "A whole, honest answer; a list as a header's value is sent as several headers. Returns whether the connection stays open."
    headers = {'Content-Length': len(body), **headers}
    writer.write(_head(status, {k: v for k,v in headers.items() if v is not None}) + (b'' if head_only else body))
    await writer.drain()
    return headers.get('Connection')!='close'


def picture(req, n=None): return 200, {'Content-Type': 'image/jpeg'}, lambda s: jpeg(_number(req.path) if n is None else n, s.side)


def _page(text): return f'<!doctype html><html><body><p>{text}</p></body></html>'.encode()


# --- the faults
async def _hang(req, writer): await req.reader.read()   # until the client goes away

async def _hang_body(req, writer):
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Content-Length':5000}) + jpeg(0)[:100])
    await writer.drain()
    await req.reader.read()

async def _drip(req, writer):
    "One byte a second (`?every=` seconds), so that no wait for a single read is ever long."
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Content-Length':90_000}))
    for b in jpeg(0)*40:
        writer.write(bytes([b]))
        await writer.drain()
        await asyncio.sleep(_float(req, 'every', 1))

async def _drip_head(req, writer):
    "The same within the headers: a status line that never ends."
    writer.write(b'HTTP/1.1 200 OK\r\nX-Slow: ')
    for _ in range(5000):
        writer.write(b'a')
        await writer.drain()
        await asyncio.sleep(_float(req, 'every', 1))

async def _truncated(req, writer):
    data = jpeg(_number(req.path), req.server.side)
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Content-Length':len(data), 'Connection':'close'}) + data[:len(data)//2])
    await writer.drain()

async def _truncated_chunks(req, writer):
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Transfer-Encoding':'chunked'}) + b'ff\r\n' + jpeg(0)[:100])
    await writer.drain()

async def _lying_length(req, writer):
    "Promises 5,000,000 bytes, sends 1,000 and closes."
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Content-Length':5_000_000}) + (jpeg(0)*10)[:1000])
    await writer.drain()

async def _short_length(req, writer):
    "Promises 300 bytes and sends a whole picture."
    data = jpeg(_number(req.path))
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Content-Length':300}) + data)
    await writer.drain()

async def _no_length(req, writer):
    "A picture that ends where the connection ends."
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Connection':'close'}) + jpeg(_number(req.path)))
    await writer.drain()

async def _chunked(req, writer):
    data = jpeg(_number(req.path))
    writer.write(_head(200, {'Content-Type':'image/jpeg', 'Transfer-Encoding':'chunked', 'Connection':'close'}) + f'{len(data):x}\r\n'.encode() + data + b'\r\n0\r\n\r\n')
    await writer.drain()

async def _huge(req, writer):
    "22 MB, and honest about it."
    await _pour(writer, {'Content-Length':HUGE}, HUGE)

async def _endless(req, writer):
    "No length, no end."
    await _pour(writer, {}, None)

async def _pour(writer, headers, n):
    writer.write(_head(200, {'Content-Type':'image/jpeg', **headers}))
    block,sent = bytes(2**16), 0
    while n is None or sent<n:
        writer.write(block[:len(block) if n is None else n-sent])
        sent += len(block)
        await writer.drain()

async def _endless_header(req, writer):
    writer.write(b'HTTP/1.1 200 OK\r\n')
    for i in range(100_000):
        writer.write(b'X-%d: %s\r\n' % (i, b'a'*500))
        await writer.drain()

async def _drop(req, writer): writer.close()   # not a word

async def _reset_then_ok(req, writer):
    if req.n==1: writer.transport.abort()
    else: await send(writer, 200, {'Content-Type':'image/jpeg', 'Connection':'close'}, jpeg(_number(req.path), req.server.side))

async def _not_http(req, writer):
    writer.write(b'SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\0\0\0\0')
    await writer.drain()

async def _bad_header(req, writer):
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\nthis is no header\r\n\r\nhello')
    await writer.drain()

def _then_ok(status): return lambda req: (status, {}, b'') if req.n==1 else picture(req)

def _redirect_to(req): return int(req.query.get('status', 302)), {'Location': req.query.get('to', '/ok/0.jpg')}, b''

def _redirects(req):
    "/redirects/5 needs five redirects to come to a picture."
    n = _number(req.path)
    return picture(req, 0) if n==0 else (302, {'Location': f'/redirects/{n-1}'}, b'')

def _gzip_bomb(req): return 200, {'Content-Type':'image/jpeg', 'Content-Encoding':'gzip'}, bomb()

def _gzip(req): return 200, {'Content-Type':'image/jpeg', 'Content-Encoding':'gzip'}, gzip.compress(jpeg(_number(req.path)))

def _retry_after(req):
    "/429-retry-after?s=2 (or ?s=an HTTP date): refused once, then a picture; `&always=1`: refused for ever; `&status=503`."
    if req.n>1 and not req.query.get('always'): return picture(req)
    return int(req.query.get('status', 429)), {'Retry-After': req.query.get('s', '1')}, b''

def _status(req): return _number(req.path), {}, _page(f'error {_number(req.path)}')

def _opt_out(req): return 200, {'Content-Type':'image/jpeg', 'X-Robots-Tag': req.query.get('tag', 'noai').split('|')}, jpeg(_number(req.path))

def _echo(req): return 200, {'Content-Type':'application/json'}, json.dumps(dict(target=req.target, headers=req.headers)).encode()

FAULTS = {
    '/ok/*': picture,                                            # a picture of its own for every number
    '/png/*': lambda r: (200, {'Content-Type':'image/png'}, jpeg(_number(r.path), fmt='PNG')),
    '/webp/*': lambda r: (200, {'Content-Type':'image/webp'}, jpeg(_number(r.path), fmt='WEBP')),
    '/gif/*': lambda r: (200, {'Content-Type':'image/gif'}, jpeg(_number(r.path), fmt='GIF')),
    '/no-type/*': lambda r: (200, {}, jpeg(_number(r.path))),    # no Content-Type
    '/wrong-type/*': lambda r: (200, {'Content-Type':'text/html'}, jpeg(_number(r.path))),
    '/duplicate/*': lambda r: picture(r, 0),                     # the bytes of /ok/0.jpg
    '/no-length/*': _no_length, '/chunked/*': _chunked, '/gzip/*': _gzip,
    '/404/*': lambda r: (404, {'Content-Type':'text/html'}, _page('no such bear')),
    '/status/*': _status,                                        # /status/410
    '/500-then-ok/*': _then_ok(500), '/503-then-ok/*': _then_ok(503), '/408-then-ok/*': _then_ok(408), '/429-then-ok/*': _then_ok(429),
    '/reset-then-ok/*': _reset_then_ok,
    '/500/*': lambda r: (500, {}, _page('out of order')),
    '/429-retry-after*': _retry_after,
    '/hang/*': _hang, '/hang-body/*': _hang_body, '/drip*': _drip, '/drip-head*': _drip_head,
    '/truncated/*': _truncated, '/truncated-chunks*': _truncated_chunks,
    '/lying-length*': _lying_length, '/short-length/*': _short_length,
    '/html-as-image/*': lambda r: (200, {'Content-Type':'image/jpeg'}, _page('please enable cookies')),
    '/text-as-image/*': lambda r: (200, {'Content-Type':'image/jpeg'}, b'the picture has moved'),
    '/redirect/*': lambda r: (302, {'Location': f'/ok/{_number(r.path)+10_000}.jpg'}, b''),   # a picture that no /ok/<n> below 10,000 is
    '/redirects/*': _redirects, '/redirect-to*': _redirect_to,
    '/redirect-loop': lambda r: (302, {'Location': '/redirect-loop-2'}, b''),
    '/redirect-loop-2': lambda r: (302, {'Location': '/redirect-loop'}, b''),
    '/redirect-nowhere': lambda r: (302, {}, b''),               # no Location
    '/huge/*': _huge, '/endless*': _endless, '/endless-header*': _endless_header, '/gzip-bomb*': _gzip_bomb,
    '/gzip-broken*': lambda r: (200, {'Content-Encoding':'gzip'}, b'\x1f\x8b\x08\0 this is no gzip'),
    '/gzip-cut*': lambda r: (200, {'Content-Encoding':'gzip'}, gzip.compress(jpeg(0))[:-20]),
    '/brotli*': lambda r: (200, {'Content-Encoding':'br'}, jpeg(0)),
    '/opt-out*': _opt_out,                                       # ?tag=noai|otherbot:noindex sends two headers
    '/empty*': lambda r: (200, {'Content-Type':'image/jpeg'}, b''),
    '/no-content*': lambda r: (204, {}, b''),
    '/svg*': lambda r: (200, {'Content-Type':'image/svg+xml'}, b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
    '/drop*': _drop, '/not-http*': _not_http, '/bad-header*': _bad_header,
    '/echo*': _echo,
}


def hostile_list(server, n_good=300, n_bad=30):
    "The benchmark's list: `n_good` good addresses and `n_bad` of each of eight faults, mixed evenly; 360 of 540 are wanted with the defaults."
    kinds = {'ok':n_good, **dict.fromkeys('404 500-then-ok hang truncated html-as-image redirect duplicate huge'.split(), n_bad)}
    start = {'500-then-ok':1000, 'truncated':2000}   # their pictures are those of no /ok/<n>
    urls = [(j/n, kind, server.url(f'/{kind}/{start.get(kind, 0)+j}.jpg')) for kind,n in kinds.items() for j in range(n)]
    return [u for *_,u in sorted(urls)]


if __name__=='__main__':
    lo,hi,side = ([float(x) for x in sys.argv[1:]]+[0., 0., 256.][len(sys.argv)-1:])[:3]
    for start,n in (0, 300), (1000, 30), (2000, 30), (10_000, 30):   # drawn before, so that no answer waits for Pillow
        for i in range(start, start+n): jpeg(i, int(side))
    with HostileServer((lo, hi), int(side)) as server:
        print(server.url(''), flush=True)
        sys.stdin.read()   # until the parent goes away
