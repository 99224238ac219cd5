"""Near-duplicates: what is recovered of copies of real photos, and how long the search takes beside a BK tree.

    python benchmarks/gather_duplicates.py                  # both; or `recall`, or `speed`
    python benchmarks/gather_duplicates.py speed --pictures 2000 --rounds 3

Both want the photos in BEARCLASS_TEST_DATA (`bears/`). `recall` makes one copy of every photo by each kind of edit, saved as JPEG of
quality 85, and looks for the pair of the two among all photos and all copies. `speed` takes the photos, pieces of them (halves, thirds) and
a sixth of copies, decodes them once, and times the search alone, taking turns: a BK tree over 64-bit difference hashes (plain Python, as
such trees are written; one look for the picture and one for its mirror image), all pairs of the same hashes by NumPy (XOR and popcount,
which checks the tree), and `find_duplicates`' own search over small grey pictures. Prints Markdown; `RESULTS.md` keeps it with the machine.
"""
import argparse, io, os, platform, random, statistics as st, time
from pathlib import Path
os.environ.setdefault('BEARCLASS_PROGRESS', '0')
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from bearclass.gather.duplicates import _gathered, _grey_blocks, find_duplicates, small_grey
from bearclass.dataset import get_image_files

top = Path(__file__).resolve().parent.parent
data = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'bears'


def cut(im, wide, high, rng):
    "A random window of the picture, `wide` and `high` as shares of its sides."
    w,h = round(im.width*wide), round(im.height*high)
    x,y = (int((a-b)*rng.random()) for a,b in ((im.width, w), (im.height, h)))
    return im.crop((x, y, x+w, y+h))


EDITS = {
    'saved again (JPEG 85)': lambda im, rng: im,
    'resized to half': lambda im, rng: im.resize((im.width//2, im.height//2), Image.LANCZOS),
    'squeezed to 160 x 160': lambda im, rng: im.resize((160, 160)),
    'mirrored': lambda im, rng: ImageOps.mirror(im),
    'brightened by 12 %': lambda im, rng: ImageEnhance.Brightness(im).enhance(1.12),
    'brightened by 30 %': lambda im, rng: ImageEnhance.Brightness(im).enhance(1.3),
    'darkened by 30 %': lambda im, rng: ImageEnhance.Brightness(im).enhance(.7),
    'contrast up 30 %': lambda im, rng: ImageEnhance.Contrast(im).enhance(1.3),
    'grey': lambda im, rng: im.convert('L'),
    'cropped to 95 %': lambda im, rng: cut(im, .95, .95, rng),
    'cropped to 90 %': lambda im, rng: cut(im, .9, .9, rng),
    'one side cropped to 90 %': lambda im, rng: cut(im, *((.9, 1) if rng.random()<.5 else (1, .9)), rng),
    'mirrored and cropped to 90 %': lambda im, rng: ImageOps.mirror(cut(im, .9, .9, rng)),
    'cropped to 85 %': lambda im, rng: cut(im, .85, .85, rng),
}


def jpeg(im, quality=85):
    buf = io.BytesIO()
    im.save(buf, 'JPEG', quality=quality)
    return buf.getvalue()


def dhash(im):
    "64 bits: whether each of 8 x 8 cells is brighter than its right neighbour."
    a = np.asarray(im.convert('L').resize((9, 8), Image.BILINEAR), int)
    return int(''.join('01'[int(b)] for b in (a[:, :-1]>a[:, 1:]).ravel()), 2)


def both_hashes(im): return dhash(im), dhash(ImageOps.mirror(im))


class BKTree:
    "Burkhard and Keller, 1973: children of a node are sorted by their distance from it; the triangle inequality prunes."
    def __init__(self): self.root = None

    def add(self, h, i):
        if self.root is None:
            self.root = (h, [i], {})
            return
        node = self.root
        while d := (h^node[0]).bit_count():
            if d not in node[2]:
                node[2][d] = (h, [i], {})
                return
            node = node[2][d]
        node[1].append(i)

    def near(self, h, radius):
        found,todo = [],[self.root] if self.root else []
        while todo:
            g,items,kids = todo.pop()
            d = (h^g).bit_count()
            if d<=radius: found += items
            todo += [kid for k,kid in kids.items() if d-radius<=k<=d+radius]
        return found


def tree_pairs(hashes, radius):
    "Pairs (i<j) of (hash, hash of the mirror image) within `radius` bits, either way round."
    tree,pairs = BKTree(),set()
    for i,(h,m) in enumerate(hashes):
        for j in {*tree.near(h, radius), *tree.near(m, radius)}: pairs.add((j, i))
        tree.add(h, i)
    return pairs


def popcount(x):
    "Bits set in each of an array of uint64; NumPy 2 has it as one instruction."
    if hasattr(np, 'bitwise_count'): return np.bitwise_count(x)
    return np.unpackbits(x.view(np.uint8).reshape(*x.shape, 8), axis=-1).sum(-1)


def xor_pairs(hashes, radius, block=256):
    "The same by comparing all with all."
    h,m = (np.array(col, np.uint64) for col in zip(*hashes))
    pairs = set()
    for k in range(0, len(h), block):
        hit = (popcount(h[k:k+block, None]^h)<=radius) | (popcount(m[k:k+block, None]^h).T<=radius).T
        pairs |= {(int(j), int(i)) for i,j in np.argwhere(hit)+[k, 0] if j<i}
    return pairs


def grey_pairs(greys):
    i,j,_,_ = _gathered(_grey_blocks(greys, .95))
    return set(zip(i.tolist(), j.tolist()))


def bench_recall(files, radius):
    "Recall of each edit, with our threshold and, for comparison, with difference hashes."
    photos = [Image.open(f).convert('RGB') for f in files]
    greys,hashes,n = np.stack([small_grey(f) for f in files]),[both_hashes(im) for im in photos],len(files)
    dups = find_duplicates(data)
    print(f'### recall\n\n{n} photos, a copy of each by each edit, all photos and copies compared; a pair is found at .95, certain at .97.\n')
    print(f'| edit | found | certain | difference hash, {radius} bits |\n| --- | --- | --- | --- |')
    for name,edit in EDITS.items():
        rng = random.Random(f'7 {name}')
        copies = [jpeg(edit(im, rng)) for im in photos]
        i,j,s,_ = _gathered(_grey_blocks(np.concatenate([greys, np.stack([small_grey(c) for c in copies])]), .95))
        own = s[j==i+n]
        theirs = [both_hashes(Image.open(io.BytesIO(c))) for c in copies]
        hashed = sum(min((a[0]^b[0]).bit_count(), (a[1]^b[0]).bit_count())<=radius for a,b in zip(hashes, theirs))
        print(f'| {name} | {len(own)/n:.3f} | {(own>=.97).sum()/n:.3f} | {hashed/n:.3f} |')
    pairs = dups.pairs
    print(f'\nAmong the photos themselves, {n*(n-1)//2:,} pairs: {len(pairs)} flagged: '
          + '; '.join(f'{a.parent.name}/{a.name} and {b.parent.name}/{b.name} {s:.3f}' for a,b,s in zip(pairs.a, pairs.b, pairs.similarity)))
    i,j,s,_ = _gathered(_grey_blocks(greys, .9))
    print(f'The highest similarities: {", ".join(f"{x:.3f}" for x in s[:6])}. Difference hashes within {radius} bits: {len(xor_pairs(hashes, radius))} pairs.\n')


def pieces(im):
    "The picture, its quarters and its ninths."
    yield im
    for n in 2, 3:
        for y in range(n):
            for x in range(n): yield im.crop((x*im.width//n, y*im.height//n, (x+1)*im.width//n, (y+1)*im.height//n))


def make_pictures(files, n):
    "`n` pictures as JPEG: different ones first, then copies of some by every edit; and the pairs that are copies."
    rng = random.Random(3)
    all_ = [p for f in files for p in pieces(Image.open(f).convert('RGB')) if np.asarray(p.convert('L')).std()>20]
    rng.shuffle(all_)
    n_copies = n//6
    if len(all_)<n-n_copies: raise SystemExit(f'only {len(all_)} different pictures: ask for at most {len(all_)*6//5}')
    ones,names = all_[:n-n_copies],list(EDITS)
    copies = [EDITS[names[k%len(names)]](ones[k], rng) for k in range(n_copies)]
    return [jpeg(im, 90) for im in (*ones, *copies)], {(k, len(ones)+k) for k in range(n_copies)}


def middle(xs, digits=2): return f'{st.median(xs):.{digits}f} ({min(xs):.{digits}f} to {max(xs):.{digits}f}, n = {len(xs)})'


def timed(f, *args):
    t = time.perf_counter()
    out = f(*args)
    return time.perf_counter()-t, out


def bench_speed(files, n, rounds, radius, tmp):
    pictures,true = make_pictures(files, n)
    for k,p in enumerate(pictures): (tmp/f'{k:05}.jpg').write_bytes(p)
    t_all,_ = timed(find_duplicates, tmp)
    greys,hashes = np.stack([small_grey(p) for p in pictures]),[both_hashes(Image.open(io.BytesIO(p))) for p in pictures]
    jobs = {f'BK tree, {radius} bits': lambda: tree_pairs(hashes, radius), 'the same hashes, all pairs, NumPy': lambda: xor_pairs(hashes, radius),
            'small grey pictures, mirrored and 16 windows': lambda: grey_pairs(greys)}
    got,found = {k: [] for k in jobs},{}
    for i in range(rounds+1):
        for k in list(jobs)[::1 if i%2 else -1]:
            s,found[k] = timed(jobs[k])
            if i: got[k].append(s)      # the first round only warms up
    tree,plain,ours = (found[k] for k in jobs)
    assert tree==plain, 'the tree misses pairs'
    print(f'### speed\n\n{n:,} pictures ({len(true):,} of them copies by all {len(EDITS)} edits), decoded beforehand; seconds of the search alone.\n')
    print('| | seconds | of the copies found | other pairs |\n| --- | --- | --- | --- |')
    for k,v in got.items(): print(f'| {k} | {middle(v)} | {len(found[k]&true)/len(true):.3f} | {len(found[k]-true):,} |')
    a,b,c = got.values()
    print(f'\nPair by pair, the tree takes {middle([x/y for x,y in zip(a, c)], 1)} times as long as the grey search. Tree and NumPy find the same {len(tree):,} pairs; '
          f'of the copies the tree finds, the grey search finds {len(tree&ours&true)/max(1, len(tree&true)):.3f}. '
          f'All of `find_duplicates`, from files of about {sum(map(len, pictures))//n//1000} kB: {t_all:.1f} s (n = 1).\n')


if __name__=='__main__':
    import tempfile
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('parts', nargs='*', help='recall, speed; both if nothing is said')
    p.add_argument('--pictures', type=int, default=6000)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--radius', type=int, default=6, help='bits by which two hashes may differ')
    args = p.parse_args()
    if not data.is_dir(): raise SystemExit(f'no photos in {data}: set BEARCLASS_TEST_DATA')
    files = list(get_image_files(data))
    print(f'{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}\n')
    with tempfile.TemporaryDirectory() as tmp:
        if not args.parts or 'recall' in args.parts: bench_recall(files, args.radius)
        if not args.parts or 'speed' in args.parts: bench_speed(files, args.pictures, args.rounds, args.radius, Path(tmp))
