"The baseline where a notebook would be slow: broadcasting against NumPy on thousands of shapes, memory, a real graphics card."
import os, subprocess, sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from bearclass.core import InputError
from bearclass.scratch.baseline import (PixelSimilarity, broadcast_clash, broadcast_rule, distances_by_picture, distances_by_pixel, mnist_distance,
                                        plot_broadcast)

shape = st.lists(st.integers(0, 4), max_size=5).map(tuple)


@settings(max_examples=2000, deadline=None)
@given(shape, shape)
def test_broadcast_rule_is_numpys(a, b):
    try: want = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(InputError) as e: broadcast_rule(a, b)
        k = broadcast_clash(a, b)
        assert a[k]!=b[k] and 1 not in (a[k], b[k])
        assert str(a) in str(e.value) and str(b) in str(e.value) and f'axis {k}' in str(e.value)
    else:
        assert broadcast_rule(a, b)==want and broadcast_clash(a, b) is None
        assert tuple((torch.zeros(a)+torch.zeros(b)).shape)==want


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=3).map(tuple), st.lists(st.integers(1, 5), max_size=3).map(tuple))
def test_every_pair_of_shapes_can_be_drawn(a, b):
    import matplotlib.pyplot as plt
    axs = plot_broadcast(a, b)
    fits = broadcast_clash(a, b) is None
    assert axs[2].get_title().startswith('result')==fits
    assert any('no:' in t.get_text() for t in axs[2].texts)==(not fits)
    plt.close('all')


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
    if metric=='l1':
        for f in distances_by_pixel, distances_by_picture, mnist_distance: assert torch.allclose(f(x, means[0]), want[:,0], atol=1e-5)


def test_labels_may_be_any_numbers():
    x = torch.stack([torch.zeros(4,4), torch.ones(4,4)])
    assert PixelSimilarity().fit(x, [40, -2]).predict(x.flip(0)).tolist()==[-2, 40]


def test_numpy_arrays_are_welcome():
    x = np.stack([np.zeros((4,4), np.float32), np.ones((4,4), np.float32)])
    sim = PixelSimilarity().fit(x, np.array([0,1]))
    assert sim.predict(x).tolist()==[0,1] and sim.score(x, np.array([0,1]))==1


memory = '''
import re, torch
from bearclass.scratch.baseline import PixelSimilarity
torch.set_num_threads(1)
peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])/1024   # getrusage's peak would count the parent's
start = peak()
x,y = torch.rand(10_000, 28, 28), torch.arange(10_000)%10
for metric in 'l1', 'l2': PixelSimilarity(metric).fit(x, y).predict(x)
print(peak()-start)
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads the peak where Linux keeps it, in /proc')
def test_predicting_ten_thousand_digits_stays_below_200_mb():
    out = subprocess.run([sys.executable, '-c', memory], capture_output=True, text=True, check=True, env={**os.environ, 'OMP_NUM_THREADS':'1'})
    assert 25<=float(out.stdout)<=200   # the digits alone are 31 MB: less would mean that nothing was measured


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('metric', ['l1', 'l2'])
def test_the_same_on_a_graphics_card(metric):
    g = torch.Generator().manual_seed(42)
    x,y = torch.rand(3000, 28, 28, generator=g), torch.arange(3000)%10
    here,there = PixelSimilarity(metric).fit(x, y), PixelSimilarity(metric, device='cuda').fit(x, y)
    assert torch.allclose(here.distances(x), there.distances(x), atol=1e-5)                     # pictures here, model there
    assert torch.allclose(here.distances(x), there.distances(x.cuda()).cpu(), atol=1e-5)
    assert PixelSimilarity(metric).fit(x.cuda(), y).means.is_cuda
