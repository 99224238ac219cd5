"Seeing and shrinking: every kind of file, interruptions, links, real photos."
import errno, signal, subprocess, sys, time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from conftest import REAL, here_env, needs
from bearclass.core import InputError, MissingError
from bearclass.samples.drawing import draw_bear
from bearclass.dataset import get_image_files
from bearclass.images import open_rgb
from bearclass.learn import seeing
from bearclass.learn.seeing import image_stats, plot_class_counts, plot_odd_ones, plot_sizes, resize_folder


def noisy(size=(640, 480), seed=0):
    "Something with detail at every scale."
    a = np.asarray(draw_bear('teddy', seed, 320).resize(size, Image.BICUBIC), float)
    a += np.random.default_rng(seed).normal(0, 8, (size[1], size[0], 1))
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


def psnr(a, b): return 10*np.log10(255**2/max(1e-9, np.mean((np.asarray(a, float)-np.asarray(b, float))**2)))


@pytest.fixture
def zoo(tmp_path):
    "(folder, names of good files, names of bad ones): every format and mode, and every kind of trouble."
    root = tmp_path/'zoo'
    (root/'a/deep').mkdir(parents=True)
    im,exif = noisy(),Image.Exif()
    exif[0x0112] = 8
    holes = im.convert('RGBA')
    holes.putalpha(Image.linear_gradient('L').resize(im.size))
    deep,tiny = Image.fromarray(np.asarray(im.convert('L'), np.uint16)*257),(20, 30)
    good = {f'a/{n}': im for n in 'x.jpg x.png deep/g.gif w.webp b.bmp t.tif turned.jpg turned.tif turned.png'.split()}
    good |= {'a/grey.jpg':im.convert('L'), 'a/cmyk.jpg':im.convert('CMYK'), 'a/palette.png':im.convert('P'),
             'a/X.jpg':noisy(seed=1), 'a/holes.png':holes, 'a/deep16.png':deep, 'a/long.png':im.resize((900, 3)),
             'a/tiny.png':im.resize(tiny), 'a/tiny_holes.png':holes.resize(tiny), 'a/tiny_turned.jpg':im.resize(tiny)}
    for name,picture in good.items(): picture.save(root/name, **dict(exif=exif) if 'turned' in name else {})
    (root/'a/really_png.jpg').write_bytes((root/'a/x.png').read_bytes())
    whole = (root/'a/x.jpg').read_bytes()
    bad = {'a/empty.jpg':b'', 'a/page.png':b'<html>404</html>', 'a/cut.jpg':whole[:len(whole)//2],
           'a/cut.png':(root/'a/x.png').read_bytes()[:9000], 'a/text.gif':b'GIF8 no'}
    for name,data in bad.items(): (root/name).write_bytes(data)
    (root/'labels.csv').write_text('not,a,picture')
    return root, [*good, 'a/really_png.jpg'], list(bad)


def test_every_kind_of_file(zoo, tmp_path):
    root,good,bad = zoo
    def state(): return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in root.rglob('*') if f.is_file()}
    before = state()
    df = resize_folder(root, tmp_path/'small', max_side=160)
    assert state()==before                                                    # originals are only read
    assert len(df)==len(good)+len(bad)==df.path.nunique()==df.dest.nunique()   # one row each
    assert Counter(df.status)==dict(resized=len(good)-1, copied=1, failed=len(bad))
    assert {p.relative_to(root).as_posix() for p in df.path[df.status=='failed']}==set(bad)
    done = df[df.status!='failed']
    assert all(df.reason[df.status=='failed']) and not any(done.reason)
    assert {f for f in (tmp_path/'small').rglob('*') if f.is_file()}==set(done.dest)      # nothing half-written
    assert len({str(d).casefold() for d in df.dest})==len(df)                 # also where case does not count
    for r in done.itertuples():
        old,new = open_rgb(r.path),open_rgb(r.dest)
        assert (*old.size, *new.size)==(r.width, r.height, r.new_width, r.new_height) and max(new.size)<=160, r.path
        assert Image.open(r.dest).getexif().get(0x0112, 1)==1, r.path
        if min(new.size)>9: assert psnr(old.resize(new.size, Image.BICUBIC), new)>25, r.path   # a GIF has 256 colours
    assert set(resize_folder(root, tmp_path/'small', max_side=160).status)=={'there already', 'failed'}


def test_a_full_disk_fails_single_files(zoo, tmp_path, monkeypatch):
    root,good,bad = zoo
    real = seeing.write_atomic
    def full(path, data):
        if path.name=='w.webp': raise OSError(errno.ENOSPC, 'No space left on device')
        return real(path, data)
    monkeypatch.setattr(seeing, 'write_atomic', full)
    df = resize_folder(root, tmp_path/'small', max_side=160)
    row = df[[p.name=='w.webp' for p in df.path]].iloc[0]
    assert (row.status, row.reason)==('failed', 'No space left on device') and (df.status=='failed').sum()==len(bad)+1
    monkeypatch.undo()
    again = Counter(resize_folder(root, tmp_path/'small', max_side=160).status)
    assert again=={'there already':len(good)-1, 'resized':1, 'failed':len(bad)}


def test_killed_and_run_again(tmp_path):
    "kill -9 in the middle: whole files only, and the second run does the rest."
    (tmp_path/'src').mkdir()
    data = tmp_path/'one.jpg'
    noisy((1600, 1200)).save(data, quality=95)
    for i in range(150): (tmp_path/f'src/{i:03}.jpg').write_bytes(data.read_bytes())
    src,small = str(tmp_path/'src'),str(tmp_path/'small')
    code = f'from bearclass.learn.seeing import resize_folder; resize_folder({src!r}, {small!r}, 200)'
    p = subprocess.Popen([sys.executable, '-c', code], env=here_env(BEARCLASS_PROGRESS='0'))
    while len(list(tmp_path.glob('small/*.jpg')))<3 and p.poll() is None: time.sleep(.002)
    p.send_signal(signal.SIGKILL)
    p.wait()
    there = get_image_files(tmp_path/'small')
    assert 3<=len(there)<150
    for f in there: assert open_rgb(f).size==(200, 150)
    df = resize_folder(tmp_path/'src', tmp_path/'small', 200)
    assert Counter(df.status)=={'there already':len(there), 'resized':150-len(there)}


def test_a_changed_original_is_done_again(tmp_path):
    (tmp_path/'src').mkdir()
    noisy().save(tmp_path/'src/a.jpg')
    resize_folder(tmp_path/'src', tmp_path/'small', 100)
    old = (tmp_path/'small/a.jpg').read_bytes()
    noisy(seed=5).save(tmp_path/'src/a.jpg')
    assert resize_folder(tmp_path/'src', tmp_path/'small', 100).status.tolist()==['resized']
    assert (tmp_path/'small/a.jpg').read_bytes()!=old
    (tmp_path/'small/a.jpg').write_bytes(b'')            # a copy that was spoilt
    assert resize_folder(tmp_path/'src', tmp_path/'small', 100).status.tolist()==['resized']


def test_no_way_into_the_originals(tmp_path):
    (tmp_path/'src/teddy').mkdir(parents=True)
    noisy().save(tmp_path/'src/teddy/a.jpg')
    data = (tmp_path/'src/teddy/a.jpg').read_bytes()
    (tmp_path/'small').mkdir()
    (tmp_path/'small/teddy').symlink_to(tmp_path/'src/teddy')
    (tmp_path/'alias').symlink_to(tmp_path/'src')
    for dest in 'small', 'alias', 'src/x/../../src/teddy', 'src/teddy/new':
        with pytest.raises(InputError): resize_folder(tmp_path/'src', tmp_path/dest, 100)
    assert (tmp_path/'src/teddy/a.jpg').read_bytes()==data and len(list((tmp_path/'src').rglob('*')))==2
    with pytest.raises(MissingError): resize_folder(tmp_path/'gone', tmp_path/'x')


def test_photos_of_many_megapixels_are_shrunk(tmp_path):
    "A 54-megapixel JPEG is decoded at a fraction of its size; a PNG cannot be, and says so."
    (tmp_path/'src').mkdir()
    big = Image.new('RGB', (9000, 6000), 'peru')
    big.save(tmp_path/'src/a.jpg')
    big.save(tmp_path/'src/b.png', compress_level=1)
    df = resize_folder(tmp_path/'src', tmp_path/'small')
    assert df.status.tolist()==['resized', 'failed'] and 'too many pixels' in df.reason[1]
    assert image_stats(tmp_path/'src').reason.tolist()[0]=='' and open_rgb(tmp_path/'small/a.jpg').size==(400, 267)


def test_stats_of_every_kind_of_file(zoo):
    root,good,bad = zoo
    df = image_stats(root)
    assert len(df)==len(good)+len(bad) and df.width.notna().sum()==len(good)
    unread = df[df.width.isna()]
    assert {p.relative_to(root).as_posix() for p in unread.path}==set(bad)
    assert unread.reason.str.startswith('unreadable: ').all() and np.isinf(unread.oddness).all()
    assert not unread.reason.str.contains(str(root), regex=False).any()
    for r in df[df.width.notna()].itertuples(): assert open_rgb(r.path).size==(r.width, r.height)
    nothing = image_stats([root/b for b in bad])
    for plot in plot_class_counts, plot_sizes, plot_odd_ones:
        plot(df)
        plot(nothing)


def test_stats_find_the_planted_ones_among_many(tmp_path):
    "Precision and recall on folders with six spoilt pictures among sixty."
    from PIL import ImageFilter
    changes = dict(dark=lambda im: im.point(lambda v: v*.06), bright=lambda im: im.point(lambda v: 200+v*.2),
                   blurred=lambda im: im.filter(ImageFilter.GaussianBlur(7)), small=lambda im: im.resize((20, 16)),
                   wide=lambda im: im.resize((600, 90)),
                   noisy=lambda im: Image.effect_noise(im.size, 110).convert('RGB'))
    for i in range(60): draw_bear(('black', 'teddy')[i%2], f'plain {i}', 128).save(tmp_path/f'{i:02}.jpg', quality=90)
    for i,(word,change) in enumerate(changes.items()):
        change(draw_bear('teddy', f'odd {i}', 128)).save(tmp_path/f'odd_{word}.jpg', quality=90)
    df = image_stats(tmp_path)
    found = {p.stem: r for p,r in zip(df.path, df.reason) if r}
    for word in changes: assert word in found.get(f'odd_{word}', ''), (word, found)
    assert len(found)<=len(changes)+4, found


@needs('odd_images')
def test_odd_files_never_stop_a_batch(tmp_path):
    files = get_image_files(REAL/'odd_images')
    assert len(image_stats(REAL/'odd_images'))==len(files)==len(resize_folder(REAL/'odd_images', tmp_path/'small', 100))
