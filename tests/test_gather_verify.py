"Looking at files and setting them aside: odd pictures, spoilt copies of every format, a crash at every step of a move."
import io, itertools, json, os, shutil
from functools import partial
from pathlib import Path
import numpy as np
import pytest
from PIL import Image, ImageDraw

from conftest import REAL, crashes, needs, no_links, tree

import bearclass.gather.quarantine as aside
from bearclass.core import InputError, MissingError
from bearclass.dataset import quarantine_folder
from bearclass.gather.normalise import normalise
from bearclass.gather.quarantine import JOURNAL, quarantine, read_quarantine, undo_quarantine
from bearclass.gather.verify import REASONS, check_image, check_images, verify_images
from bearclass.images import open_rgb
from bearclass.samples.drawing import draw_bear

BEAR = draw_bear('grizzly', 9, 320)


def saved(im, fmt, **kw):
    buf = io.BytesIO()
    im.save(buf, fmt, **kw)
    return buf.getvalue()


def reason(folder, name, data):
    f = folder/name
    f.write_bytes(data)
    return check_image(f)


# --- the odd pictures: each looked at by eye -------------------------------------------------------------------------

ODD = {
    '': 'avif_hopper.avif avif_transparency.avif flower.webp hopper.jpg hopper.webp hopper_gray.jpg 1_trns.png '
        'icc_profile_big.jpg invalid-exif.jpg jpeg_ff00_header.jpg junk_jpeg_header.jpg l_trns.png p_16.png '
        'photoshop-200dpi-broken.jpg pil123rgba.png pil_sample_rgb.jpg rgb_trns.png sugarshack.mpo transparent.png',
    'not an image': 'avif_hopper.heif decompression_bomb.ico hopper.ico hopper_16bit.pgm hopper_1bit.pbm',
    'undecodable': 'broken.png broken_data_stream.png zero_width.gif',
    'too large': 'decompression_bomb.gif',
    'truncated': 'truncated_end_chunk.png truncated_image.png truncated_jpeg.jpg ultrahdr.jpg',
    'damaged': 'hopper_bad_exif.jpg',   # black and white streaks
    'too small': 'no_palette_with_transparency.gif orientation_rectangle.jpg',   # 2 x 2 and 2 x 1
    'blank': '16bit.cropped.tif apng_delay.png apng_mode_16bit.png broken_exif_dpi.jpg decompression_bomb_extents.gif',
    'animated': 'avif_star.avifs dispose_bgnd_transparency.gif iss634.gif iss634.webp',
    'unusual mode': 'i_trns.png p_trns_single.png pil_sample_cmyk.jpg',
    'EXIF rotated': 'avif_rot1mir0.avif hopper_orientation_3.jpg hopper_orientation_6.jpg hopper_orientation_6.webp '
                    'hopper_orientation_8.jpg',
}

@needs('odd_images')
def test_each_odd_picture_has_its_answer():
    expected = {n: r for r, names in ODD.items() for n in names.split()}
    files = sorted(f for f in (REAL/'odd_images').iterdir() if f.name != 'INDEX.md')
    df = check_images(files)
    assert {p.name: r for p, r in zip(df.path, df.reason)} == expected
    assert len(df) == 52
    assert (df.ok == ~df.severity.isin(['fault'])).all()

@needs('bears')
def test_sound_photos_are_not_suspected():
    df = check_images(REAL/'bears')
    assert len(df) > 400 and df.severity.isin(['fault', 'suspicious']).mean() <= .005

@needs('bears')
def test_holes_and_cuts_in_real_photos(tmp_path):
    rng, n = np.random.default_rng(42), 0
    for f in sorted((REAL/'bears').rglob('*.jpg'))[::6]:
        d = f.read_bytes()
        a, b = d.rfind(b'\xff\xda')+16, len(d)-4098
        (tmp_path/f'cut_{f.name}').write_bytes(d[:int(len(d)*rng.uniform(.05, .99))])
        if a < b:
            a, n = int(rng.integers(a, b)), n+1
            (tmp_path/f'hole_{f.name}').write_bytes(d[:a]+bytes(4096)+d[a+4096:])
    df = check_images(tmp_path)
    hole = df.path.map(lambda p: p.name.startswith('hole_'))
    assert n > 40 and df.severity[hole].isin(['fault', 'suspicious']).mean() >= .95
    assert not df.ok[~hole].any()


# --- spoilt copies of every format -----------------------------------------------------------------------------------

FORMATS = {
    'jpg': ('JPEG', {}), 'prog.jpg': ('JPEG', dict(progressive=True)), 'grey.jpg': ('JPEG', {}),
    'cmyk.jpg': ('JPEG', {}), 'png': ('PNG', {}), 'gif': ('GIF', {}), 'webp': ('WEBP', {}),
    'lossless.webp': ('WEBP', dict(lossless=True)),
    'bmp': ('BMP', {}), 'tif': ('TIFF', {}), 'lzw.tif': ('TIFF', dict(compression='tiff_lzw')), 'avif': ('AVIF', {}),
}

@pytest.fixture(scope='module')
def sound():
    im = {'grey.jpg': BEAR.convert('L'), 'cmyk.jpg': BEAR.convert('CMYK')}
    return {name: saved(im.get(name, BEAR), fmt, **kw) for name, (fmt, kw) in FORMATS.items()}

def motifs(w, h):
    "{name: picture}: what people and programs make."
    y,x = np.mgrid[:h, :w]
    def grey(a): return Image.fromarray(a.astype(np.uint8)).convert('RGB')
    bear = BEAR.resize((w, h))
    out = dict(
        photo=bear, noise=Image.effect_noise((w, h), 90).convert('RGB'), across=grey(x*255//w), down=grey(y*255//h),
        board=grey((x//8+y//8)%2*255), pixels=grey((x+y)%2*255), stripes=grey(x//16%2*255),
        text=Image.new('RGB', (w, h), 'white'), night=Image.new('RGB', (w, h)), letterbox=Image.new('RGB', (w, h)),
        border=bear.copy())
    draw = {name: ImageDraw.Draw(im) for name, im in out.items()}
    for k in range(5, h, 20): draw['text'].text((5, k), 'def f(x): return x', fill='black')
    draw['night'].ellipse((w//3, h//4, w//2, h//2), fill='#ffe')
    out['letterbox'].paste(bear.resize((w, h//2)), (0, h//4))
    out['border'].paste('white', (0, h*2//3, w, h))
    return out

def in_mode(im, mode):
    if mode=='F': return im.convert('F')
    if mode=='I;16': return Image.fromarray(np.asarray(im.convert('L')).astype(np.uint16)*257)
    im = im.convert(mode)
    if mode in ('RGBA', 'LA'): im.putalpha(Image.linear_gradient('L').resize(im.size))
    return im

ENCODERS = [('JPEG', m, dict(quality=q, progressive=p, optimize=not p))
            for m, q, p in itertools.product(('RGB', 'L', 'CMYK'), (50, 92), (True, False))]
ENCODERS += [('PNG', m, {}) for m in ('RGB', 'RGBA', 'L', 'LA', 'P', '1', 'I;16')]
ENCODERS += [('WEBP', m, dict(lossless=l, method=k, quality=q))
             for m, l, k, q in itertools.product(('RGB', 'RGBA'), (True, False), (0, 4), (10, 80))]
ENCODERS += [('TIFF', m, dict(compression=c)) for m in ('RGB', 'L', '1', 'RGBA', 'CMYK', 'I;16', 'F')
             for c in (None, 'tiff_lzw')]
ENCODERS += [('GIF', 'P', {}), ('GIF', 'P', dict(comment=b'a;b')), ('AVIF', 'RGB', dict(speed=10)),
             *[('BMP', m, {}) for m in ('RGB', 'L', 'P', '1')],
             *[(f, 'RGB', dict(save_all=True, append_images=[BEAR])) for f in ('GIF', 'PNG', 'WEBP', 'TIFF')]]

@pytest.mark.parametrize('fmt, mode, options', ENCODERS)
def test_sound_pictures_are_not_suspected(fmt, mode, options, tmp_path):
    for size in (321, 243), (40, 31):
        for name, im in motifs(*size).items():
            if 'save_all' in options: options['append_images'] = [im.rotate(9)]
            data = saved(in_mode(im, mode), fmt, **options)
            for tail in (b'', b'\n') if fmt not in ('BMP', 'TIFF') else (b'',):
                assert reason(tmp_path, 'a', data+tail)['severity'] in ('', 'note'), (name, size, tail)

@pytest.mark.parametrize('name', FORMATS)
def test_every_cut_zero_tail_and_hole_is_found(name, sound, tmp_path):
    d,flat = sound[name],name in ('bmp', 'tif')   # in these zeros are black pixels
    for share in (.1, .5, .9, .99):
        r = reason(tmp_path, f'a.{name}', d[:int(share*len(d))])
        assert not r['ok'] and r['reason'] in ('truncated', 'undecodable')
    for share in (.3, .6, .9):
        k = int(share*len(d))
        r = reason(tmp_path, f'a.{name}', d[:k]+bytes(len(d)-k))
        assert r['severity'] == ('suspicious' if flat else 'fault'), r
        assert flat or r['reason'] in ('zero-filled', 'truncated', 'undecodable')
    for share in (.4, .6, .8):
        k = int(share*len(d))
        assert flat or reason(tmp_path, f'a.{name}', d[:k]+bytes(500)+d[k+500:])['severity'] in ('fault', 'suspicious')

@pytest.mark.parametrize('name', FORMATS)
def test_a_flipped_byte_in_the_header_is_answered(name, sound, tmp_path):
    for i in range(0, 40, 3):
        d = bytearray(sound[name])
        d[i] ^= 0xff
        r = reason(tmp_path, f'a.{name}', bytes(d))
        assert r['reason'] in {'', *REASONS} and r['ok'] == (r['severity'] != 'fault')
        if r['ok']: open_rgb(tmp_path/f'a.{name}')   # what is called usable can be opened
    first = reason(tmp_path, f'b.{name}', b'\0'+sound[name][1:])
    assert first['ok'] == (name == 'avif')   # AVIF begins with the length of its first box

def test_animations_cut_after_the_first_picture(tmp_path):
    frames = [BEAR.rotate(9*k) for k in (1, 2, 3)]
    for name, fmt in {'a.gif': 'GIF', 'a.webp': 'WEBP', 'a.png': 'PNG'}.items():
        d = saved(BEAR, fmt, save_all=True, append_images=frames)
        assert reason(tmp_path, name, d)['reason'] == 'animated'
        assert reason(tmp_path, name, d[:len(d)*3//4])['severity'] in ('fault', 'suspicious')

def test_what_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path/'folder.jpg').mkdir()
    assert check_image(tmp_path/'folder.jpg')['reason'] == 'special file'
    if hasattr(os, 'mkfifo'):
        os.mkfifo(tmp_path/'pipe.jpg')
        assert check_image(tmp_path/'pipe.jpg')['reason'] == 'special file'   # and does not wait for a writer
        assert len(check_images(tmp_path)) == 0
    BEAR.save(tmp_path/'a.jpg')
    def forbidden(self): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(Path, 'read_bytes', forbidden)
    r = check_image(tmp_path/'a.jpg')
    assert (r['reason'], r['detail'], r['ok']) == ('unreadable', 'Permission denied', False)

# --- the quarantine --------------------------------------------------------------------------------------------------

def dataset(root):
    "Two classes of ten, one broken in each, with the same name."
    for label in ('black', 'teddy'):
        (root/label).mkdir(parents=True)
        for k in range(9):
            noise = np.random.default_rng(k).integers(0, 256, (30, 30, 3), np.uint8)
            Image.fromarray(noise).save(root/label/f'{k}.png')
        (root/label/'bad.jpg').write_bytes(f'no {label} bear'.encode())
    return bad_files(root)

def bad_files(root): return [root/label/'bad.jpg' for label in ('black', 'teddy')]


def whole(root, before):
    "Nothing is lost: each content is there, in the dataset or beside it."
    away = quarantine_folder(root)
    there = set(tree(root).values()) | set((tree(away) if away.is_dir() else {}).values())
    assert set(before.values()) <= there

crash_everywhere = partial(crashes, made=dataset, tree=tree, whole=whole)

@pytest.mark.parametrize('links', (True, False))
def test_a_crash_anywhere_while_setting_aside(tmp_path, monkeypatch, links):
    if not links: monkeypatch.setattr(os, 'link', no_links)
    def finished(root, before):
        assert set(tree(root)) == set(before)-{'black/bad.jpg', 'teddy/bad.jpg'}
        held = {k: v for k, v in tree(quarantine_folder(root)).items() if k != JOURNAL}
        assert held == {k: before[k] for k in ('black/bad.jpg', 'teddy/bad.jpg')}
        assert len(read_quarantine(root)) == 2
        undo_quarantine(root)
        assert tree(root) == before
    def act(root, bad): quarantine(bad, root)
    assert crash_everywhere(tmp_path, monkeypatch, bad_files, act, finished) > 20

def test_a_crash_anywhere_while_bringing_back(tmp_path, monkeypatch):
    def finished(root, before):
        assert tree(root) == before and len(read_quarantine(root)) == 0
        assert set(tree(quarantine_folder(root))) == {JOURNAL}
    def prepare(root): quarantine(bad_files(root), root)
    def act(root, _): undo_quarantine(root)
    assert crash_everywhere(tmp_path, monkeypatch, prepare, act, finished) > 20

def test_a_crash_anywhere_while_making_smaller(tmp_path, monkeypatch):
    def act(root, _): verify_images(root/'black', max_size=20)
    def finished(root, before):
        assert set(tree(root)) == set(before)
        assert {Image.open(root/f'black/{k}.png').size for k in range(2)} == {(20, 20)}
        undo_quarantine(root)
        assert tree(root) == before
    def few(root):
        "Two pictures in the class are enough: fewer calls."
        dataset(root)
        for k in range(2, 9): (root/f'black/{k}.png').unlink()
    assert crash_everywhere(tmp_path, monkeypatch, bad_files, act, finished, made=few) > 20

def test_nothing_is_ever_overwritten(tmp_path):
    root = tmp_path/'bears'
    bad = dataset(root)
    stranger = quarantine_folder(root)/'black/bad.jpg'
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b'was here first')
    assert quarantine(bad, root).to[0].name == 'bad-1.jpg' and stranger.read_bytes() == b'was here first'
    bad[0].write_bytes(b'a second broken one')
    assert quarantine(bad[:1], root).to[0].name == 'bad-2.jpg'
    assert set(undo_quarantine(root, bad[0]).status) == {'back', 'failed: another file is there'}
    assert len(read_quarantine(root)) == 2   # the third, and the one that found its place taken

def test_links_and_strangers(tmp_path):
    root = tmp_path/'bears'
    bad = dataset(root)
    outside = tmp_path/'mine.jpg'
    outside.write_bytes(b'dear to me')
    for f in (outside, root/'../mine.jpg', tmp_path):
        with pytest.raises(InputError, match='not inside'): quarantine([f], root)
    try: (root/'black/link.jpg').symlink_to(outside)
    except OSError: pytest.skip('no symlinks here')
    (root/'grizzly').symlink_to(root/'teddy')
    got = quarantine([root/'black/link.jpg', root/'grizzly/bad.jpg', root/'black', bad[0]], root)
    assert list(got.status) == ['refused: a symlink', 'refused: a symlink', 'refused: not an ordinary file', 'moved']
    assert outside.read_bytes() == b'dear to me' and bad[1].exists()
    (tmp_path/'alias').symlink_to(root)
    with pytest.raises(InputError, match='symlink'): quarantine([], tmp_path/'alias')
    with pytest.raises(MissingError): quarantine([], tmp_path/'nowhere')

def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    root = tmp_path/'bears'
    bad = dataset(root)
    before = tree(root)
    real = os.unlink
    def refused(path, **kw):
        if str(path).startswith(str(root/'black')): raise PermissionError(13, 'Permission denied')
        return real(path, **kw)
    monkeypatch.setattr(os, 'unlink', refused)
    got = quarantine(bad, root)
    assert list(got.status) == ['failed: Permission denied', 'moved']
    assert tree(root) == {k: v for k, v in before.items() if k != 'teddy/bad.jpg'}
    assert not (quarantine_folder(root)/'black/bad.jpg').exists()
    monkeypatch.undo()
    assert list(quarantine(bad, root).status) == ['moved', 'already']

def test_a_folder_that_nothing_may_be_written_beside_is_said_in_one_sentence(tmp_path, monkeypatch):
    root = tmp_path/'bears'
    bad = dataset(root)
    before = tree(root)
    quarantine(bad[:1], root)
    def forbidden(path, *args, **kw): raise PermissionError(13, 'Permission denied', str(path))
    monkeypatch.setattr(os, 'mkdir', forbidden)
    monkeypatch.setattr(os, 'write', forbidden)
    said = 'may not be written to .Permission denied.*copy it to a folder of yours'
    with pytest.raises(InputError, match=said): quarantine(bad[1:], root)
    with pytest.raises(InputError, match=said): verify_images(root, delete=True)
    with pytest.raises(InputError, match=said): undo_quarantine(root)
    monkeypatch.undo()
    undo_quarantine(root)
    assert tree(root) == before

def test_a_full_disk_moves_nothing(tmp_path, monkeypatch):
    root = tmp_path/'bears'
    bad = dataset(root)
    before = tree(root)
    def full(fd, data): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'write', full)
    with pytest.raises(OSError, match='No space'): quarantine(bad, root)
    assert tree(root) == before

def test_a_changed_file_does_not_come_back_as_if_it_were_the_old(tmp_path):
    root = tmp_path/'bears'
    bad = dataset(root)
    to = quarantine(bad, root).to
    to[0].write_bytes(b'edited')
    assert list(undo_quarantine(root).status) == ['failed: it has changed since', 'back']
    assert to[0].read_bytes() == b'edited' and not bad[0].exists()

def test_suspicious_files_go_only_when_asked(tmp_path):
    root = tmp_path/'bears'
    dataset(root)
    Image.new('RGB', (50, 50), 'red').save(root/'black/red.png')
    df = check_images(root)
    assert len(quarantine(df, root)) == 2
    assert list(quarantine(df, root, suspicious=True).status) == ['already', 'moved', 'already']

def test_the_journal_is_append_only_and_written_first(tmp_path, monkeypatch):
    root = tmp_path/'bears'
    bad = dataset(root)
    journal, seen = quarantine_folder(root)/JOURNAL, []
    real = os.link
    def looking(src, dst):
        seen.append(journal.read_bytes())
        return real(src, dst)
    monkeypatch.setattr(os, 'link', looking)
    quarantine(bad, root)
    undo_quarantine(root)
    end = journal.read_bytes()
    assert len(seen) == 4 and all(end.startswith(s) for s in seen)
    assert [b'"undo"' in s for s in seen] == [False, False, True, True]
    assert all(set(json.loads(l)) >= {'time', 'id', 'action'} for l in end.decode().split('\n') if l)


# --- the course's shapes, and plain pictures -------------------------------------------------------------------------

def test_verify_images_of_the_older_course(tmp_path, capsys):
    root = tmp_path/'bears'
    bad = dataset(root)
    before = tree(root)
    for c in ('black', 'teddy'): assert verify_images(root/c, delete=True, max_workers=8) == [root/c/'bad.jpg']
    said = capsys.readouterr().out
    assert said.count('1 of 10 files are set aside') == 2 and 'bears_quarantine' in said and 'not deleted' in said
    assert not any(f.exists() for f in bad) and not (root/'black_quarantine').exists()
    undo_quarantine(root)
    assert tree(root) == before
    assert verify_images(root, True) == bad   # the whole dataset at once: the same quarantine
    assert len(read_quarantine(tmp_path/'bears')) == 2
    verify_images(root/'black', n_channels=3, resume=True)
    assert 'No effect here: n_channels, resume' in capsys.readouterr().out

def test_verify_images_makes_smaller_in_every_format(tmp_path):
    root = tmp_path/'bears'
    (root/'a').mkdir(parents=True)
    for name, (fmt, kw) in FORMATS.items():
        (root/f'a/x.{name}').write_bytes(saved(BEAR.convert('CMYK') if 'cmyk' in name else BEAR, fmt, **kw))
    before = tree(root)
    assert verify_images(root/'a', max_size=100) == []
    df = check_images(root)
    assert set(df.reason) == {''} and (df[['width', 'height']].max(axis=1) == 100).all()
    assert set(undo_quarantine(root).status) == {'back'}
    assert tree(root) == before

@needs('odd_images')
def test_normalise_gives_what_training_reads(tmp_path):
    src = tmp_path/'odd'
    shutil.copytree(REAL/'odd_images', src)
    df = normalise(src, tmp_path/'plain')
    ok = check_images(df.path).ok
    assert (ok == (df.status != 'failed')).all() and df.dest.dropna().is_unique
    for r in df[ok].itertuples():
        a, b = open_rgb(r.path), open_rgb(r.dest)
        assert a.size == b.size and Image.open(r.dest).mode in ('RGB', 'L')
        if r.status == 'copied': assert r.path.read_bytes() == r.dest.read_bytes()
        elif r.dest.suffix == '.png': assert a.tobytes() == b.tobytes(), r.path.name
        elif 'CMYK' not in r.done: assert np.abs(np.asarray(a, float)-np.asarray(b, float)).mean() < 2, r.path.name

def test_a_colour_profile_is_used_and_a_broken_one_is_not(tmp_path, monkeypatch):
    from PIL import ImageCms
    cmyk = Image.new('CMYK', (40, 40), (0, 200, 200, 0))
    cmyk.save(tmp_path/'broken.jpg', icc_profile=b'nonsense')
    assert normalise(tmp_path/'broken.jpg', tmp_path/'a.jpg').status[0] == 'converted'
    seen = []
    def convert(im, profile, to, outputMode):
        seen.append((im.mode, outputMode))
        return Image.new('RGB', im.size, 'teal')
    monkeypatch.setattr(ImageCms, 'profileToProfile', convert)
    normalise(tmp_path/'broken.jpg', tmp_path/'b.jpg')
    assert seen == [('CMYK', 'RGB')] and abs(np.asarray(open_rgb(tmp_path/'b.jpg'), int)[5, 5]-(0, 128, 128)).max() < 4

def test_the_place_is_not_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    exif.get_ifd(0x8825)[1] = 'N'
    BEAR.save(tmp_path/'a.jpg', exif=exif)
    normalise(tmp_path/'a.jpg', tmp_path/'b.jpg')
    assert len(Image.open(tmp_path/'b.jpg').getexif()) == 0

@pytest.mark.skipif(os.name=='nt', reason='names are Unicode there')
def test_names_that_are_no_text_are_set_aside_and_come_back(tmp_path):
    root = tmp_path/'bears'
    (root/'x').mkdir(parents=True)
    name = os.fsdecode(b'\xff\xfe\n.jpg')
    try: (root/'x'/name).write_bytes(b'<html>')
    except OSError: pytest.skip('this disk takes no such name')
    assert list(quarantine(check_images(root), root, yes=True).status)==['moved'] and not list((root/'x').iterdir())
    assert list(undo_quarantine(root).status)==['back'] and (root/'x'/name).read_bytes()==b'<html>'


def test_one_file_that_cannot_be_read_stops_no_quarantine(tmp_path, monkeypatch, capsys):
    root = tmp_path/'bears'
    (root/'x').mkdir(parents=True)
    for n in 'a', 'b': (root/'x'/f'{n}.jpg').write_bytes(b'<html>')
    BEAR.save(root/'x/c.jpg')
    BEAR.save(root/'x/d.jpg')
    sha,small = aside.file_sha256,aside._small_copy
    def forbidden(f):
        if Path(f).name=='a.jpg': raise PermissionError(13, 'Permission denied')
        return sha(f)
    def spoilt(f, n):
        if Path(f).name=='c.jpg': raise SyntaxError('broken')
        return small(f, n)
    monkeypatch.setattr(aside, 'file_sha256', forbidden)
    monkeypatch.setattr(aside, '_small_copy', spoilt)
    assert list(quarantine(check_images(root), root, yes=True).status)==['failed: Permission denied', 'moved']
    verify_images(root, max_size=100, root=root)
    assert "c.jpg', failed: broken" in capsys.readouterr().out
    assert Image.open(root/'x/c.jpg').size==BEAR.size and max(Image.open(root/'x/d.jpg').size)==100


def test_the_command_line_says_names_that_the_terminal_cannot(tmp_path):
    "A pipe on Windows, or LC_ALL=C: a letter that is not there is written as its number."
    import subprocess, sys
    (tmp_path/'x').mkdir()
    (tmp_path/'x'/'b\u00e4r \U0001f43b.jpg').write_bytes(b'<html>')
    env = {**os.environ, 'PYTHONIOENCODING':'ascii:strict'}
    args = ['verify', str(tmp_path), '--quarantine', '--yes']
    code = f'import sys; from bearclass.cli import main; sys.exit(main({args!r}))'
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.returncode==0 and 'Traceback' not in done.stderr and '\\U0001f43b' in done.stdout


def test_made_smaller_twice_comes_back_whole_at_once(tmp_path):
    root = tmp_path/'bears'
    (root/'x').mkdir(parents=True)
    BEAR.save(root/'x/a.png')
    before = (root/'x/a.png').read_bytes()
    for n in 200, 100: verify_images(root, max_size=n, root=root)
    assert Image.open(root/'x/a.png').width<=100 and len(read_quarantine(root))==2
    assert list(undo_quarantine(root).status)==['back', 'back']
    assert (root/'x/a.png').read_bytes()==before and read_quarantine(root).empty
