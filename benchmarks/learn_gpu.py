"""A training run of record on a GPU: images a second against plain fastai, what the card does meanwhile, and where the time goes.

    python benchmarks/learn_gpu.py                 # an NVIDIA card: resnet34 at 224, resnet50 at 320
    python benchmarks/learn_gpu.py --tiny          # any machine, seconds: to see that it runs

Weights are random, pictures are made up (JPEG, 500 x 375, as in ImageNet); both are as fast as real ones. Plain fastai is `vision_learner` with its
defaults and the same batch size, pictures and transforms: 32 bits, its own number of loading processes. Ours is `image_learner`. They take turns in
one process, epoch by epoch, the first of each left out. Prints Markdown; `RESULTS.md` keeps the figures with the machine they were taken on.
"""
import argparse, io, os, shutil, statistics as st, subprocess, sys, tempfile, threading, time, warnings
from pathlib import Path

os.environ['BEARCLASS_OFFLINE'],os.environ['BEARCLASS_PROGRESS'] = '1','0'
sys.path.insert(0, str(Path(__file__).parent))
from foundation import machine, middle

warnings.simplefilter('ignore')
import numpy as np
import torch, torchvision
from PIL import Image
from fastai.vision.all import (Callback, CategoryBlock, DataBlock, ImageBlock, PILImage, RandomResizedCrop, RandomSplitter, aug_transforms, error_rate,
                               get_image_files, parent_label, vision_learner)
from bearclass.images import open_rgb
from bearclass.learn.blocks import from_folder
from bearclass.learn.devices import DevicePlan, plan_device, this_machine
from bearclass.learn.models import build_model
from bearclass.learn.train import image_learner
from bearclass.learn.weights import find_arch

gpu = torch.cuda.is_available()


def wait():
    if gpu: torch.cuda.synchronize()


def make_photos(root, n, w=500, h=375):
    "n JPEG files in two classes; 64 different ones, smooth with some grain, about as large as photos."
    rng = np.random.default_rng(0)
    def one():
        soft = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((w, h), Image.BICUBIC)
        buf = io.BytesIO()
        Image.fromarray((np.asarray(soft, float)+rng.normal(0, 6, (h, w, 3))).clip(0, 255).astype(np.uint8)).save(
            buf,
            'JPEG',
            quality=88)
        return buf.getvalue()
    photos = [one() for _ in range(min(n, 64))]
    for i in range(n):
        folder = root/'ab'[i%2]
        folder.mkdir(parents=True, exist_ok=True)
        # bytes after the end: files differ, pictures need not
        (folder/f'{i:05}.jpg').write_bytes(photos[i%len(photos)] + i.to_bytes(4, 'big'))
    return root


class Clock(Callback):
    "Seconds of the training part of each epoch, the card's work included."
    order = 100
    def before_fit(self): self.seconds = []
    def before_train(self):
        wait()
        self.t = time.perf_counter()
    def after_train(self):
        wait()
        self.seconds.append(time.perf_counter()-self.t)


class Watch:
    "How busy the card is, in percent, asked of nvidia-smi twice a second."
    def __enter__(self):
        self.seen,self.end = [],threading.Event()
        if gpu and shutil.which('nvidia-smi'):
            self.thread = threading.Thread(target=self.look, daemon=True)
            self.thread.start()
        return self
    def look(self):
        ask = ['nvidia-smi', '--query-gpu=utilization.gpu', '--format=csv,noheader,nounits', '-i', '0']
        while not self.end.wait(.5):
            said = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
            if said.isdigit(): self.seen.append(int(said))
    def __exit__(self, *args):
        self.end.set()
        if hasattr(self, 'thread'): self.thread.join()
    def __str__(self): return f'{st.median(self.seen):.0f} %' if self.seen else 'not known'


def two_learners(root, arch, size, bs):
    "{name: learner}: plain fastai with its defaults, and ours, which sees pictures the same way."
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=RandomSplitter(.1, seed=42),
                      item_tfms=RandomResizedCrop(size, min_scale=.5), batch_tfms=aug_transforms())
    plain = vision_learner(
        block.dataloaders(root, bs=bs),
        getattr(torchvision.models, arch),
        pretrained=False,
        metrics=error_rate)
    ours = image_learner(from_folder(root, size=size, bs=bs, valid_pct=.1), arch, weights=False, verbose=False)
    return {'plain fastai': plain, 'image_learner': ours}


def bench_train(root, sizes, epochs):
    print(
        '### images a second, training\n\n| network | bs | | images/s | GPU busy | peak GPU memory, GB |\n| --- | --- | --- | --- | --- | --- |')
    ratios = []
    for arch,size,bs in sizes:
        learners = two_learners(root, arch, size, bs)
        got = {k: [] for k in learners}
        watches,peak = {k: Watch() for k in learners},dict.fromkeys(learners, 0.)
        seen = {k: [] for k in learners}
        for i in range(epochs+1):
            for k,l in learners.items():
                clock = Clock()
                if gpu: torch.cuda.reset_peak_memory_stats()
                with l.no_bar(), l.no_logging(), Watch() as watch: l.fit(1, 1e-3, cbs=clock)
                if not i: continue     # the first epoch warms up: memory, kernels, disk
                got[k].append(len(l.dls.train)*bs/clock.seconds[0])
                seen[k] += watch.seen
                if gpu: peak[k] = max(peak[k], torch.cuda.max_memory_allocated()/1e9)
        for k in learners:
            watches[k].seen = seen[k]
            print(f'| {arch}, {size} px | {bs} | {k} | {middle(got[k])} | {watches[k]} | {peak[k]:.1f} |', flush=True)
        a,b = got.values()
        ratios.append(f'{arch} at {size}: {middle([y/x for x,y in zip(a, b)])}')
        del learners
        if gpu: torch.cuda.empty_cache()
    print('\nOurs over plain fastai, pair by pair: ' + '; '.join(ratios) + '.\n', flush=True)


def step_rate(arch, size, bs, plan, steps):
    "(images a second, peak GB) of forward, backward and a step on one batch that is there already: no loading at all."
    device = torch.device(plan.device)
    model = build_model(find_arch(arch), 2, size=size).to(device).train()
    if plan.channels_last: model = model.to(memory_format=torch.channels_last)
    opt,x,y = torch.optim.SGD(model.parameters(), 1e-3),torch.randn(
        bs, 3, size, size, device=device),torch.zeros(bs, dtype=torch.long, device=device)
    dtype = dict(bf16=torch.bfloat16, fp16=torch.float16).get(plan.precision)
    if gpu: torch.cuda.reset_peak_memory_stats()
    def step():
        with torch.autocast(plan.device, dtype=dtype, enabled=dtype is not None):
            loss = torch.nn.functional.cross_entropy(model(x).float(), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
    for _ in range(max(2, steps//4)): step()
    wait()
    t = time.perf_counter()
    for _ in range(steps): step()
    wait()
    return bs*steps/(time.perf_counter()-t), torch.cuda.max_memory_allocated()/1e9 if gpu else 0.


def bench_sweep(sizes, batch_sizes, steps):
    plan = plan_device(this_machine())
    plain = DevicePlan(plan.device, plan.name)
    print(
        f'### batch sizes, computing alone\n\nForward, backward and a step of plain SGD on a batch that is on the device; 32 bits against {plan.precision}{", channels-last"*plan.channels_last}.\n')
    print(
        '| network | bs | images/s, 32 bits | GB | images/s, planned | GB | ratio |\n| --- | --- | --- | --- | --- | --- | --- |')
    for arch,size,_ in sizes:
        for bs in batch_sizes:
            try: (a,ga),(b,gb) = step_rate(arch, size, bs, plain, steps),step_rate(arch, size, bs, plan, steps)
            except torch.OutOfMemoryError:
                print(f'| {arch}, {size} px | {bs} | memory ran out | | | | |')
                break
            finally:
                if gpu: torch.cuda.empty_cache()
            print(f'| {arch}, {size} px | {bs} | {a:.0f} | {ga:.1f} | {b:.0f} | {gb:.1f} | {b/a:.2f} |', flush=True)
    print()


def timed(f, items, n):
    "Milliseconds an item, n rounds."
    def once():
        t = time.perf_counter()
        for o in items: f(o)
        wait()
        return (time.perf_counter()-t)*1000/len(items)
    return middle([once() for _ in range(n+1)][1:])


def bench_data(root, sizes, n):
    "Where a picture's time goes before it reaches the network; one process, one picture after the other."
    files = get_image_files(root)[:64]
    print('### the data path, step by step\n\n| | ms a picture |\n| --- | --- |')
    print(f'| decode, fastai `PILImage.create` | {timed(lambda f: PILImage.create(f).load(), files, n)} |')
    print(f'| decode, `open_rgb` | {timed(open_rgb, files, n)} |')
    opened = [PILImage(open_rgb(f)) for f in files]
    for size in sorted({s for _,s,_ in sizes}):
        crop = RandomResizedCrop(size, min_scale=.5)
        print(
            f'| cut and resize to {size}, `RandomResizedCrop` | {timed(lambda im: crop(im, split_idx=0), opened, n)} |',
            flush=True)
    for _,size,bs in sizes:
        dls = image_learner(
            from_folder(root, size=size, bs=bs, valid_pct=.1),
            'tiny_cnn',
            weights=False,
            verbose=False).dls
        def all_batches():
            for _ in dls.train: pass
            wait()
        all_batches()
        t = time.perf_counter()
        all_batches()
        rate = len(dls.train)*bs/(time.perf_counter()-t)
        print(
            f'| everything but the network, {size} px, bs {bs}, {dls.train.fake_l.num_workers} loading processes: {rate:.0f} images/s | {1000/rate:.2f} |',
            flush=True)
    print()


if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--tiny', action='store_true', help='a few small pictures and one epoch: to see that it runs')
    parser.add_argument('--bs', type=int, default=64, help='batch size, the same for both')
    a = parser.parse_args()
    print(f'## {machine()}, torch {torch.__version__}\n')
    print(
        f'{torch.cuda.get_device_name()}, driver asked through torch {torch.version.cuda}.\n' if gpu else 'There is no GPU here: these are figures of the CPU and say nothing about a card.\n')
    if not gpu and not a.tiny: sys.exit('Without a GPU only `--tiny` makes sense.')
    print(plan_device(this_machine(), batches=100, batch_bytes=a.bs*3*224*224), '\n')
    sizes = [('resnet18', 64, 8)] if a.tiny else [('resnet34', 224, a.bs), ('resnet50', 320, a.bs)]
    with tempfile.TemporaryDirectory() as d:
        root = make_photos(Path(d)/'photos', 80 if a.tiny else 6000, *((120, 90) if a.tiny else ()))
        bench_data(root, sizes, 1 if a.tiny else 5)
        bench_sweep(sizes, [4, 8] if a.tiny else [16, 32, 64, 128, 256, 512], 2 if a.tiny else 20)
        bench_train(root, sizes, 1 if a.tiny else 3)
