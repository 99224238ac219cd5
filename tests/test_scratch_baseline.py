"The baseline where a notebook would be slow: many shapes, memory, a graphics card."
import os, subprocess, sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from conftest import REAL, needs
from bearclass.scratch.baseline import PixelSimilarity, is_3, mean_image, mnist_distance
from bearclass.scratch.digits import load_digits_3_7


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(1, 9), st.integers(0, 2**32-1), st.sampled_from(['l1', 'l2']))
def test_all_variants_agree(n, k, bs, seed, metric):
    g = torch.Generator().manual_seed(seed)
    x,y = torch.rand(n+k, 5, 4, generator=g), torch.cat([torch.arange(k), torch.randint(k, (n,), generator=g)])
    sim = PixelSimilarity(metric, bs=bs).fit(x, y)
    means = torch.stack([x[y==i].mean(0) for i in range(k)])
    gap = x[:,None]-means
    want = gap.abs().mean((-1,-2)) if metric=='l1' else gap.square().mean((-1,-2)).sqrt()
    assert torch.allclose(sim.distances(x), want, atol=1e-5)
    if metric=='l1': assert torch.allclose(mnist_distance(x, means[0]), want[:,0], atol=1e-5)


def test_arrays_and_any_labels_are_welcome():
    x,y = np.stack([np.zeros((4,4), np.float32), np.ones((4,4), np.float32)]), np.array([40, -2])
    sim = PixelSimilarity().fit(x, y)
    assert sim.predict(x).tolist()==[40, -2] and sim.score(x, y)==1


@pytest.mark.parametrize('idx', [None, pytest.param(REAL/'mnist', marks=needs('mnist'))], ids=['bundled', 'MNIST'])
def test_is_3_of_one_picture_and_of_a_pile(idx, monkeypatch, tmp_path):
    monkeypatch.setenv('BEARCLASS_OFFLINE', '1')
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path))
    monkeypatch.delenv('BEARCLASS_MNIST', raising=False)
    threes,sevens,valid_3,valid_7 = (o.float()/255 for o in load_digits_3_7(idx=idx)[:4])
    def is_three(x): return is_3(x, mean_image(threes), mean_image(sevens))
    one,pile = is_three(valid_3[0]), is_three(valid_3)
    assert (one.shape, one.dtype, one.item())==((), torch.bool, True)
    assert pile.tolist()[:30]==[is_three(o).item() for o in valid_3[:30]]
    assert torch.equal(is_three(valid_3[:30].view(5, 6, 28, 28)), pile[:30].view(5, 6))
    assert pile.float().mean()>.75 and is_three(valid_7).float().mean()<.05


memory = '''
import re, torch
from bearclass.scratch.baseline import PixelSimilarity
torch.set_num_threads(1)
status = lambda: open('/proc/self/status').read()   # getrusage's peak would count the parent's
peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', status())[1])/1024
start = peak()
x,y = torch.rand(10_000, 28, 28), torch.arange(10_000)%10
for metric in 'l1', 'l2': PixelSimilarity(metric).fit(x, y).predict(x)
print(peak()-start)
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads the peak where Linux keeps it, in /proc')
def test_predicting_ten_thousand_digits_stays_below_200_mb():
    env = {**os.environ, 'OMP_NUM_THREADS':'1'}
    out = subprocess.run([sys.executable, '-c', memory], capture_output=True, text=True, check=True, env=env)
    assert 25<=float(out.stdout)<=200   # the digits alone are 31 MB: less would mean that nothing was measured


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('metric', ['l1', 'l2'])
def test_the_same_on_a_graphics_card(metric):
    g = torch.Generator().manual_seed(42)
    x,y = torch.rand(3000, 28, 28, generator=g), torch.arange(3000)%10
    here,there = PixelSimilarity(metric).fit(x, y), PixelSimilarity(metric).fit(x.cuda(), y)
    assert there.means.is_cuda
    assert torch.allclose(here.distances(x), there.distances(x), atol=1e-5)           # pictures here, model there
    assert torch.allclose(here.distances(x), there.distances(x.cuda()).cpu(), atol=1e-5)
