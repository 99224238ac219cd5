"""A body with its BatchNorms folded into its convolutions, beside the same body as it is: pictures a second.

    python benchmarks/learn_features.py            # one thread, 224 px
    python benchmarks/learn_features.py --rounds 5

The two take turns in one process on the same batches of four, as `picture_features` gives them; both channels-last, in
processor seconds, for the clock of a busy machine tells little.
"""
import argparse, copy, os, statistics as st, time

os.environ |= {'BEARCLASS_OFFLINE': '1', 'BEARCLASS_PROGRESS': '0'}

import torch
from torch import nn
from bearclass.learn.features import fast_body
from bearclass.learn.models import build_body
from bearclass.learn.weights import arch_name, choose_weights, find_arch


def seconds(body, x):
    t = time.process_time()
    body(x)
    return time.process_time()-t


def norms(body): return sum(isinstance(m, nn.BatchNorm2d) for m in body.modules())
def middle(xs, digits=1): return f'{st.median(xs):.{digits}f} ({min(xs):.{digits}f} to {max(xs):.{digits}f}, n = {len(xs)})'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=15)
    p.add_argument('--size', type=int, default=224)
    args = p.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(4, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    print('| body | BatchNorms before, after | pictures a second before | after | ratio, pair by pair |')
    print('| --- | --- | --- | --- | --- |')
    for name in ('tf_efficientnet_lite0', 'resnet18'):
        arch = find_arch(name)
        body = build_body(arch, choose_weights(arch_name(arch), 'auto').source).eval().requires_grad_(False)
        before = copy.deepcopy(body).to(memory_format=torch.channels_last)
        after = fast_body(body, x)
        pairs = []
        with torch.inference_mode():
            for _ in range(args.rounds+1): pairs.append((4/seconds(before, x), 4/seconds(after, x)))
        b,a = zip(*pairs[1:])   # the first warms up
        print(f'| {name} | {norms(before)}, {norms(after)} | {middle(b)} | {middle(a)} '
              f'| {middle([q/p for p,q in zip(b, a)], 2)} |', flush=True)


if __name__=='__main__': main()
