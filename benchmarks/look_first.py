"""Look at your data: how many of 16 spoilt pictures are found among real photos, and how many photos are suspected.

    python benchmarks/look_first.py                # three rounds, each with other photos spoilt

Wants the photos in BEARCLASS_TEST_DATA (`bears/`). In a copy of the folder 16 files are added: four photos with black borders, four
with a text laid over them, four that lie on their side, two screenshots and two drawings. Prints Markdown for `RESULTS.md`.
"""
import argparse, os, random, shutil, tempfile
from collections import Counter
from pathlib import Path
os.environ.setdefault('BEARCLASS_PROGRESS', '0')
from PIL import Image, ImageDraw, ImageFont, ImageOps
from bearclass.dataset import get_image_files
from bearclass.images import open_rgb
from bearclass.samples.drawing import draw_bear

top = Path(__file__).resolve().parent.parent
data = Path(os.environ.get('BEARCLASS_TEST_DATA') or top.parent/'shared/data')/'bears'


def bordered(im, dice):
    "Bars of a film above and below, or at both sides, or all around."
    w,h = im.size
    x,y = dice.choice([(0, h//8), (w//7, 0), (w//12, h//12)])
    return ImageOps.expand(im, (x, y, x, y), 'black')


def captioned(im, dice):
    "A line of text, white, yellow or black, with or without an outline."
    im,text = im.copy(), dice.choice(['WHO TOOK MY HONEY', 'www.bear-photos.example', '12.08.2019 14:33', 'Bear Park 2021'])
    size = dice.uniform(.05, .09)*im.width
    fill,outline = dice.choice([('white', 'black'), ('white', None), ('yellow', None), ('black', 'white')])
    xy = (im.width*dice.uniform(.03, .2), im.height*dice.choice([.04, .45, .85]))
    width = max(1, int(size/15)) if outline else 0
    ImageDraw.Draw(im).text(xy, text, fill, ImageFont.load_default(size), stroke_width=width, stroke_fill=outline)
    return im


def screenshot(dice):
    "A page in a browser: a bar, a column, lines of text, and sometimes a photo."
    dark = dice.random()<.3
    im = Image.new('RGB', (640, 400), '#1e1e1e' if dark else 'white')
    pen = ImageDraw.Draw(im)
    pen.rectangle((0, 0, 640, 36), fill='#dee1e6')
    pen.rectangle((0, 36, 130, 400), fill='#2b2b2b' if dark else '#f2f2f2')
    for k in range(12):
        pen.text((10, 50+28*k), dice.choice(['Home', 'Pictures', 'About bears', 'Search']), fill='#4a7ebb')
        pen.text((150, 60+26*k), 'the brown bear lives in the forest and '[:dice.randint(20, 39)]*2, fill='#aaa' if dark else '#222')
    return im


def sketch(dice):
    "A few strokes of a pen on paper."
    im = Image.new('RGB', (500, 420), dice.choice(['white', '#f8f4e8']))
    pen = ImageDraw.Draw(im)
    for _ in range(9):
        pen.line([(dice.randint(60, 440), dice.randint(50, 370)) for _ in range(5)], fill='black', width=4, joint='curve')
    pen.ellipse((150, 100, 350, 320), outline='black', width=5)
    return im


def spoil(root, seed):
    "Add 16 files to `root`; {file: what was done}."
    dice = random.Random(seed)
    photos,truth = dice.sample(get_image_files(root), 12),{}
    def keep(im, name, k, **kw):
        f = root/'black'/f'planted-{name}-{k}.jpg'
        im.save(f, quality=90, **kw)
        truth[f] = name
    for k,f in enumerate(photos[:4]): keep(bordered(open_rgb(f), dice), 'borders', k)
    for k,f in enumerate(photos[4:8]): keep(captioned(open_rgb(f), dice), 'text', k)
    for k,f in enumerate(photos[8:]):
        exif = Image.Exif()
        if k<2: exif[0x0112] = (6, 8)[k]
        turned = open_rgb(f) if k<2 else open_rgb(f).rotate((90, 270)[k-2], expand=True)
        keep(turned, 'turned', k, exif=exif)
    for k in range(2): keep(screenshot(dice), 'screenshot', k)
    keep(sketch(dice), 'drawing', 0)
    keep(draw_bear('teddy', seed, 400), 'drawing', 1)
    return truth


def main(a):
    from bearclass.learn.seeing import look_at_your_data
    print('| round | ' + ' | '.join(['borders', 'text', 'turned', 'screenshot', 'drawing', 'found', 'photos suspected']) + ' |')
    print('| --- '*8 + '|')
    for seed in range(a.rounds):
        with tempfile.TemporaryDirectory() as tmp:
            root = Path(tmp)/'bears'
            shutil.copytree(data, root)
            for k,f in enumerate(get_image_files(root)):
                if k%a.every: f.unlink()
            n,truth = len(get_image_files(root)),spoil(root, seed)
            df = look_at_your_data(root)
            seen = set(df.path)
            hit,all_ = Counter(k for f,k in truth.items() if f in seen),Counter(truth.values())
            wrong = df[~df.path.isin(list(truth))]
            cells = [f'{hit[k]} of {all_[k]}' for k in all_]
            print(f'| {seed} | '+' | '.join(cells)+f' | {sum(hit.values())} of {len(truth)} | {len(wrong)} of {n}, {len(wrong)/n:.1%} '
                  f'({dict(wrong.kind.value_counts())}) |', flush=True)


if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--every', type=int, default=1, help='take only every n-th photo')
    main(p.parse_args())
