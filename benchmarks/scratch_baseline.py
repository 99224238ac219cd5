"""Pixel similarity, measured: loops against broadcasting, whether all variants agree, and the memory of a prediction.

    python benchmarks/scratch_baseline.py

Takes full MNIST from BEARCLASS_TEST_DATA (`mnist/`) or ../shared/data, else digits made of noise, and says which.
Prints medians, ratios to the fastest way and the number of runs; `RESULTS.md` keeps them with the machine they were taken on.
"""
import os, statistics as st, subprocess, sys, time
from pathlib import Path

import torch
from bearclass.scratch.baseline import PixelSimilarity, mean_image, mnist_distance
from bearclass.scratch.digits import load_digits, load_digits_3_7

top = Path(__file__).resolve().parent.parent
mnist = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'mnist'


def threes_and_sevens():
    "(valid pictures, mean three, ten-class training set, ten-class validation set), floats from 0 to 1."
    if mnist.is_dir():
        d,ten = load_digits_3_7(idx=mnist),load_digits(idx=mnist)
        return torch.cat([d.valid_3, d.valid_7]).float()/255, mean_image(d.train_3.float()/255), (
            ten.x.float()/255,
            ten.y), (ten.x_valid.float()/255, ten.y_valid)
    print('no MNIST here: noise in its place')
    g = torch.Generator().manual_seed(42)
    x,y = torch.rand(10_000, 28, 28, generator=g), torch.arange(10_000)%10
    return x[:2038], x.mean(0), (x, y), (x, y)


def distances_by_pixel(x, mean):
    ideal = mean.flatten().tolist()
    return torch.tensor([sum(abs(p-q) for p,q in zip(img.flatten().tolist(), ideal))/len(ideal) for img in x])


def distances_by_picture(x, mean): return torch.stack([(img-mean).abs().mean() for img in x])
def cdist(x, mean): return torch.cdist(x.flatten(1), mean.flatten()[None], p=1)[:,0]/mean.numel()
def numpy_broadcast(x, mean): return torch.from_numpy(abs(x.numpy()-mean.numpy()).mean((-1,-2)))
variants = distances_by_pixel, distances_by_picture, mnist_distance, numpy_broadcast, cdist


def milliseconds(f, n):
    f()   # once to warm up
    times = []
    for _ in range(n):
        start = time.perf_counter()
        f()
        times.append((time.perf_counter()-start)*1000)
    return times


def bench_ways(x, mean, n=9):
    want = mnist_distance(x, mean)
    gap = max((f(x, mean)-want).abs().max().item() for f in variants)
    ms = {f.__name__: milliseconds(lambda: f(x, mean), n) for f in variants}
    base = st.median(ms['mnist_distance'])
    print(
        f'\n### L1 distances of {len(x):,} digits, one thread\n\n| way | ms, median of {n} (min to max) | to broadcasting |\n| --- | --- | --- |')
    for k,v in ms.items():
        print(f'| {k} | {st.median(v):.2f} ({min(v):.2f} to {max(v):.2f}) | {st.median(v)/base:.1f} x |')
    print(
        f'\nLargest difference between any two ways and broadcasting: {gap:.1e} (goal: 1e-5): {"met" if gap<=1e-5 else "MISSED"}')


def bench_predict(train, valid, n=5):
    print(
        f'\n### PixelSimilarity, {len(train[0]):,} to learn from, {len(valid[0]):,} to predict\n\n| metric | fit, ms | predict, ms | accuracy |\n| --- | --- | --- | --- |')
    for metric in 'l1', 'l2':
        sim = PixelSimilarity(metric)
        fit,predict = milliseconds(lambda: sim.fit(*train), 3),milliseconds(lambda: sim.predict(valid[0]), n)
        print(
            f'| {metric} | {st.median(fit):.0f} (n = 3) | {st.median(predict):.0f} (n = {n}) | {sim.score(*valid):.4f} |')


memory = '''
import re, sys, torch
from bearclass.scratch.baseline import PixelSimilarity
torch.set_num_threads(1)
peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])/1024   # getrusage's peak would count the parent's
start = peak()
x = torch.rand(10_000, 28, 28)
sim = PixelSimilarity(sys.argv[1]).fit(x[:1000], torch.arange(1000)%10)
sim.predict(x)
print(start, peak()-start)
'''


def bench_memory(n=5):
    if not Path('/proc/self/status').exists(): return print('\n(memory: measured on Linux only)')
    print(
        '\n### Peak memory of predicting 10,000 digits, the digits (31 MB) included\n\n| metric | interpreter with torch, MB | on top, MB | goal |\n| --- | --- | --- | --- |')
    for metric in 'l1', 'l2':
        runs = [
            tuple(
                map(float, subprocess.run([sys.executable, '-c', memory, metric], capture_output=True, text=True, check=True).stdout.split()))
            for _ in range(n)]
        over = st.median(r[1] for r in runs)
        print(
            f'| {metric} | {st.median(r[0] for r in runs):.0f} | {over:.0f} (n = {n}) | <= 200: {"met" if over<=200 else "MISSED"} |')


if __name__=='__main__':
    torch.set_num_threads(1)
    x,mean,train,valid = threes_and_sevens()
    bench_ways(x, mean)
    bench_predict(train, valid)
    bench_memory()
