"""An exported model behind an address: predictions a second and waiting times with 1, 8 and 32 clients, photos of 1 MB.

    python benchmarks/ship_serve.py            # about two minutes on two cores
    python benchmarks/ship_serve.py --seconds 10

The peer is the twenty lines that a web programmer writes: the course's Starlette endpoint with fastai's `learn.predict`
in the event loop. Both serve the net in the box, trained for a moment on drawn bears. Clients of ours that are told to
come back (429) do so after a second, as the answer says.
"""
import argparse, io, os, statistics as st, subprocess, sys, tempfile, threading, time

os.environ |= {'BEARCLASS_OFFLINE':'1', 'BEARCLASS_PROGRESS':'0'}
import httpx, numpy as np, psutil
from PIL import Image

MAKE = '''
import sys
from bearclass.all import *
root = draw_bears(sys.argv[1]+'/bears', 20).root
learn = image_learner(from_folder(root, size=224, bs=8), verbose=False)
quick_tune(learn, verbose=False)
export_bundle(learn, sys.argv[1]+'/bundle')
learn.export(sys.argv[1]+'/export.pkl')
'''
PEER = '''
import sys, warnings, uvicorn
warnings.simplefilter('ignore')
from fastai.vision.all import *
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
learn = load_learner(sys.argv[1]+'/export.pkl')
async def classify(request):
    data = await (await request.form())['file'].read()
    with learn.no_bar(): pred,_,probs = learn.predict(PILImage.create(data))
    return JSONResponse({'label': pred, 'probs': probs.tolist()})
uvicorn.run(Starlette(routes=[Route('/classify', classify, methods=['POST'])]), port=int(sys.argv[2]), log_level='error')
'''
OURS = 'import sys\nfrom bearclass.ship.api import serve_api\nserve_api(sys.argv[1]+"/bundle", int(sys.argv[2]))'


def photo():
    "A JPEG of about 1 MB, 2000 x 1500: smooth, with some noise."
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize((2000, 1500), Image.BICUBIC)
    noisy = np.clip(np.asarray(small)+rng.normal(0, 8, (1500, 2000, 3)), 0, 255).astype(np.uint8)
    buf = io.BytesIO()
    Image.fromarray(noisy).save(buf, 'JPEG', quality=82)
    return buf.getvalue()


def client(address, data, until, took, told):
    with httpx.Client(trust_env=False, timeout=120) as web:
        while time.monotonic()<until:
            start = time.monotonic()
            status = web.post(f'{address}/classify', files=dict(file=('a.jpg', data))).status_code
            told.append(status)
            if status==200: took.append(time.monotonic()-start)
            else: time.sleep(1)


def load(address, data, n, seconds):
    "(predictions a second, median and 95th percentile of seconds, statuses)."
    took,told,until = [], [], time.monotonic()+seconds
    threads = [threading.Thread(target=client, args=(address, data, until, took, told)) for _ in range(n)]
    for t in threads: t.start()
    for t in threads: t.join()
    took.sort()
    return len(took)/seconds, st.median(took), took[int(.95*(len(took)-1))], {s: told.count(s) for s in sorted(set(told))}


def served(code, tmp, port):
    proc = subprocess.Popen([sys.executable, '-c', code, tmp, str(port)], stdout=subprocess.DEVNULL)
    address,data = f'http://127.0.0.1:{port}', photo()
    while True:
        try:
            files = dict(file=("a.jpg", data))
            if httpx.post(f"{address}/classify", files=files, timeout=120, trust_env=False).status_code==200: break
        except httpx.TransportError: time.sleep(.2)
    return proc, address, data


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=15)
    seconds = p.parse_args().seconds
    print('| | clients | predictions a second | median, s | 95th percentile, s | statuses | MB |')
    print('| --- '*7+'|')
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([sys.executable, '-c', MAKE, tmp], check=True, stdout=subprocess.DEVNULL)
        for name,code,port in (('Starlette and `learn.predict`', PEER, 8751), ('`bearclass serve`', OURS, 8752)):
            proc,address,data = served(code, tmp, port)
            for n in (1, 8, 32):
                rate,middle,late,told = load(address, data, n, seconds)
                mb = psutil.Process(proc.pid).memory_info().rss/1e6
                print(f'| {name} | {n} | {rate:.1f} | {middle:.2f} | {late:.2f} | {told} | {mb:.0f} |', flush=True)
            proc.terminate()
            proc.wait()


if __name__=='__main__': main()
