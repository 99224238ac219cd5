"Looking at files and setting them aside: odd pictures, spoilt copies of every format, and a crash at every step of a move."
import io, json, os, shutil
from pathlib import Path
import numpy as np
import pytest
from PIL import Image

from conftest import REAL, needs

from bearclass.core import InputError, MissingError
from bearclass.gather import verify
from bearclass.gather.drawing import draw_bear
from bearclass.gather.verify import (REASONS, check_image, check_images, normalise, quarantine, quarantine_folder, read_quarantine, sniff,
                                     undo_quarantine, verify_images)
from bearclass.images import open_rgb

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
    '': 'avif_hopper.avif avif_transparency.avif flower.webp hopper.jpg hopper.webp hopper_gray.jpg 1_trns.png icc_profile_big.jpg invalid-exif.jpg '
        'jpeg_ff00_header.jpg junk_jpeg_header.jpg l_trns.png p_16.png photoshop-200dpi-broken.jpg pil123rgba.png pil_sample_rgb.jpg rgb_trns.png '
        'sugarshack.mpo transparent.png',
    'not an image': 'avif_hopper.heif decompression_bomb.ico hopper.ico hopper_16bit.pgm hopper_1bit.pbm',   # real formats some of them, none that we read
    'undecodable': 'broken.png broken_data_stream.png zero_width.gif',
    'too large': 'decompression_bomb.gif',
    'truncated': 'truncated_end_chunk.png truncated_image.png truncated_jpeg.jpg ultrahdr.jpg',
    'damaged': 'hopper_bad_exif.jpg',   # black and white streaks
    'too small': 'no_palette_with_transparency.gif orientation_rectangle.jpg',   # 2 x 2 and 2 x 1
    'blank': '16bit.cropped.tif apng_delay.png apng_mode_16bit.png broken_exif_dpi.jpg decompression_bomb_extents.gif i_trns.png',   # black, red, red, green, red, black
    'animated': 'avif_star.avifs dispose_bgnd_transparency.gif iss634.gif iss634.webp',
    'unusual mode': 'p_trns_single.png pil_sample_cmyk.jpg',
    'EXIF rotated': 'avif_rot1mir0.avif hopper_orientation_3.jpg hopper_orientation_6.jpg hopper_orientation_6.webp hopper_orientation_8.jpg',
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
    pytest.importorskip('simplejpeg')
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

FORMATS = {'jpg': ('JPEG', {}), 'prog.jpg': ('JPEG', dict(progressive=True)), 'grey.jpg': ('JPEG', {}), 'cmyk.jpg': ('JPEG', {}), 'png': ('PNG', {}), 'gif': ('GIF', {}),
           'webp': ('WEBP', {}), 'lossless.webp': ('WEBP', dict(lossless=True)), 'bmp': ('BMP', {}), 'tif': ('TIFF', {}), 'lzw.tif': ('TIFF', dict(compression='tiff_lzw')),
           'avif': ('AVIF', {})}

@pytest.fixture(scope='module')
def sound():
    im = {'grey.jpg': BEAR.convert('L'), 'cmyk.jpg': BEAR.convert('CMYK')}
    return {name: saved(im.get(name, BEAR), fmt, **kw) for name, (fmt, kw) in FORMATS.items()}

@pytest.mark.parametrize('name', FORMATS)
def test_sound_pictures_are_sound(name, sound, tmp_path):
    assert reason(tmp_path, f'a.{name}', sound[name])['reason'] == ('unusual mode' if name == 'cmyk.jpg' else '')
    assert check_image(tmp_path/f'a.{name}')['strict'] is (True if name.endswith('jpg') else None)
    assert reason(tmp_path, f'b.{name}', sound[name]+bytes(3000))['severity'] in ('', 'note') or name in ('bmp', 'tif', 'lzw.tif')   # padded at the end: harmless

@pytest.mark.parametrize('name', FORMATS)
@pytest.mark.parametrize('share', (.1, .5, .9, .99))
def test_every_cut_is_found(name, share, sound, tmp_path):
    r = reason(tmp_path, f'a.{name}', sound[name][:int(share*len(sound[name]))])
    assert not r['ok'] and r['reason'] in ('truncated', 'undecodable')

@pytest.mark.parametrize('name', FORMATS)
@pytest.mark.parametrize('share', (.3, .6, .9))
def test_every_zero_tail_is_found(name, share, sound, tmp_path):
    k = int(share*len(sound[name]))
    r = reason(tmp_path, f'a.{name}', sound[name][:k]+bytes(len(sound[name])-k))
    assert r['severity'] == ('suspicious' if name in ('bmp', 'tif') else 'fault'), r
    assert name in ('bmp', 'tif') or r['reason'] in ('zero-filled', 'truncated', 'undecodable')

@pytest.mark.parametrize('name', [n for n in FORMATS if n not in ('bmp', 'tif')])   # zeros in the middle of a BMP are black pixels
def test_every_hole_is_found(name, sound, tmp_path):
    d = sound[name]
    for share in (.4, .6, .8):
        k = int(share*len(d))
        assert reason(tmp_path, f'a.{name}', d[:k]+bytes(500)+d[k+500:])['severity'] in ('fault', 'suspicious'), share

@pytest.mark.parametrize('name', FORMATS)
def test_a_flipped_byte_in_the_header_is_answered(name, sound, tmp_path):
    for i in range(0, 40, 3):
        d = bytearray(sound[name])
        d[i] ^= 0xff
        r = reason(tmp_path, f'a.{name}', bytes(d))
        assert r['reason'] in {'', *REASONS} and r['ok'] == (r['severity'] != 'fault')
        if r['ok']: open_rgb(tmp_path/f'a.{name}')   # what is called usable can be opened
    assert reason(tmp_path, f'b.{name}', b'\0'+sound[name][1:])['ok'] == (name == 'avif')   # AVIF begins with the length of its first box

@pytest.mark.parametrize('colour', ('white', 'black', '#345678'))
def test_flat_borders_are_no_damage(colour, tmp_path):
    big = BEAR.resize((1600, 1200))
    for low in (True, False):
        im = big.copy()
        im.paste(colour, (0, 700 if low else 0, 1600, 1200 if low else 500))
        for name, kw in {'a.jpg': dict(optimize=True), 'b.jpg': dict(progressive=True), 'c.webp': {}, 'd.webp': dict(quality=20), 'e.png': {}, 'f.gif': {}}.items():
            im.save(tmp_path/name, **kw)
    assert not set(check_images(tmp_path).reason)-{''}

def test_animations_cut_after_the_first_picture(tmp_path):
    frames = [BEAR.rotate(9*k) for k in (1, 2, 3)]
    for name, fmt in {'a.gif': 'GIF', 'a.webp': 'WEBP', 'a.png': 'PNG'}.items():
        d = saved(BEAR, fmt, save_all=True, append_images=frames)
        assert reason(tmp_path, name, d)['reason'] == 'animated'
        assert reason(tmp_path, name, d[:len(d)*3//4])['severity'] in ('fault', 'suspicious')

def test_other_kinds_in_disguise(tmp_path):
    for data in (b'%PDF-1.7', b'PK\3\4 zip', b'<svg xmlns="x"/>', b'<?xml version="1.0"?><svg/>', b'MZ\x90\0', b'\x7fELF', b'{"error": 404}', b'\n <HTML>', b'\0\0\0\x18ftypmp42', os.urandom(9)+b'\0'):
        assert reason(tmp_path, 'bear.jpg', data)['reason'] == 'not an image', data

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

def test_large_pictures_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, '_pixels', lambda *a: pytest.fail('decoded'))
    monkeypatch.setattr(verify, 'MAX_PIXELS', 1000)
    for name, fmt in {'a.jpg': 'JPEG', 'a.png': 'PNG', 'a.webp': 'WEBP'}.items(): assert reason(tmp_path, name, saved(BEAR, fmt))['reason'] == 'too large'

def test_placeholders_need_copies_and_one_colour(tmp_path):
    card, photo = Image.new('RGB', (90, 60), '#eeeeee'), BEAR.resize((90, 60))
    card.paste('#888888', (30, 25, 60, 35))
    for k in range(3):
        card.save(tmp_path/f'card{k}.png')
        photo.save(tmp_path/f'photo{k}.png')
    assert list(check_images(tmp_path).reason) == ['placeholder']*3+['']*3
    (tmp_path/'card0.png').unlink()
    assert set(check_images(tmp_path).reason) == {''}

def test_digits_are_not_too_small(tmp_path):
    im = Image.new('L', (28, 28))
    im.paste(255, (10, 4, 14, 24))
    im.save(tmp_path/'one.png')
    assert check_image(tmp_path/'one.png')['reason'] == ''
    assert check_image(tmp_path/'one.png', min_side=64)['reason'] == 'too small'

def test_broken_headers_never_raise():
    rng = np.random.default_rng(42)
    for fmt in ('JPEG', 'WEBP', 'AVIF', 'PNG', 'GIF', 'TIFF'):
        d = saved(BEAR.resize((40, 30)), fmt)
        for _ in range(60):
            x = bytearray(d)
            for i in rng.integers(0, min(len(d), 300), 4): x[i] = rng.integers(256)
            x = bytes(x[:rng.integers(1, len(x)+1)])
            assert sniff(x[:512])
            verify._header(x), list(verify._boxes(x)), verify._claims(x, fmt), verify._png_complaint(x), verify._pixel_data(x, 'WEBP'), verify._flat_is_zero(x)


# --- the quarantine --------------------------------------------------------------------------------------------------

def tree(root): return {f.relative_to(root).as_posix(): f.read_bytes() for f in sorted(root.rglob('*')) if f.is_file()}

def dataset(root):
    "Two classes of ten, one broken in each, with the same name."
    for label in ('black', 'teddy'):
        (root/label).mkdir(parents=True)
        for k in range(9): (root/label/f'{k}.png').write_bytes(saved(Image.fromarray(np.random.default_rng(k).integers(0, 256, (30, 30, 3), np.uint8)), 'PNG'))
        (root/label/'bad.jpg').write_bytes(f'no {label} bear'.encode())
    return [root/label/'bad.jpg' for label in ('black', 'teddy')]


class Crash(BaseException): "The power fails."


def crashing(monkeypatch, at):
    "Let the `at`-th call to the file system fail: every second one before it is done, every other after. Counts the calls."
    count = [0]
    def wrap(f, torn=False):
        def call(*args, **kw):
            k = count[0]
            count[0] += 1
            if k == at//2:
                if torn: f(args[0], bytes(args[1])[:len(args[1])//2])   # half a line
                elif at % 2: f(*args, **kw)
                raise Crash
            if k > at//2: raise Crash   # nothing happens after the end
            return f(*args, **kw)
        return call
    for name in 'link unlink rename replace mkdir fsync'.split(): monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    monkeypatch.setattr(os, 'write', wrap(os.write, torn=True))
    return count


def whole(root, before):
    "Nothing is lost: each content is there, in the dataset or beside it."
    away = quarantine_folder(root)
    there = set(tree(root).values()) | set((tree(away) if away.is_dir() else {}).values())
    assert set(before.values()) <= there

def crash_everywhere(tmp_path, monkeypatch, prepare, act, finished):
    "Crash `act` at every call, check that nothing is lost, run it again, and check the end."
    for at in range(1000):
        root = tmp_path/f'{at}/bears'
        bad = dataset(root)
        before = tree(root)
        prepare(root, bad)
        with monkeypatch.context() as m:
            crashing(m, at)
            try: act(root, bad)
            except Crash: ended = False
            else: ended = True
        whole(root, before)
        act(root, bad)
        finished(root, before)
        shutil.rmtree(tmp_path/str(at))
        if ended: return at
    raise AssertionError('never came to its end')

@pytest.mark.parametrize('links', (True, False))
def test_a_crash_anywhere_while_setting_aside(tmp_path, monkeypatch, links):
    if not links: monkeypatch.setattr(verify.os, 'link', no_links)
    def finished(root, before):
        assert set(tree(root)) == set(before)-{'black/bad.jpg', 'teddy/bad.jpg'}
        held = {k: v for k, v in tree(quarantine_folder(root)).items() if k != verify.JOURNAL}
        assert held == {k: before[k] for k in ('black/bad.jpg', 'teddy/bad.jpg')}
        assert len(read_quarantine(root)) == 2
        undo_quarantine(root)
        assert tree(root) == before
    n = crash_everywhere(tmp_path, monkeypatch, lambda root, bad: None, lambda root, bad: quarantine(bad, root), finished)
    assert n > 20

def no_links(src, dst): raise OSError(95, 'Operation not supported')

def test_a_crash_anywhere_while_bringing_back(tmp_path, monkeypatch):
    def finished(root, before):
        assert tree(root) == before and len(read_quarantine(root)) == 0
        assert set(tree(quarantine_folder(root))) == {verify.JOURNAL}
    assert crash_everywhere(tmp_path, monkeypatch, lambda root, bad: quarantine(bad, root), lambda root, bad: undo_quarantine(root), finished) > 20

def test_a_crash_anywhere_while_making_smaller(tmp_path, monkeypatch):
    def act(root, bad): verify_images(root/'black', max_size=20)
    def finished(root, before):
        assert set(tree(root)) == set(before)
        assert {Image.open(root/f'black/{k}.png').size for k in range(2)} == {(20, 20)}
        undo_quarantine(root)
        assert tree(root) == before
    real = dataset
    def few(root):
        "Two pictures in the class are enough: fewer calls."
        bad = real(root)
        for k in range(2, 9): (root/f'black/{k}.png').unlink()
        return bad
    monkeypatch.setitem(globals(), 'dataset', few)
    assert crash_everywhere(tmp_path, monkeypatch, lambda root, bad: None, act, finished) > 20

def test_a_torn_last_line_is_passed_over(tmp_path):
    bad = dataset(tmp_path/'bears')
    quarantine(bad[:1], tmp_path/'bears')
    with open(quarantine_folder(tmp_path/'bears')/verify.JOURNAL, 'a') as f: f.write('{"time": "2026-01-01", "id": 9, "act')
    quarantine(bad[1:], tmp_path/'bears')
    assert list(read_quarantine(tmp_path/'bears').path) == bad

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

def test_a_fifth_of_a_folder(tmp_path):
    root = tmp_path/'bears'
    dataset(root)
    files = [root/f'black/{k}.png' for k in range(3)]
    with pytest.raises(InputError, match='3 of the 10'): quarantine(files, root)
    assert not quarantine_folder(root).exists() and all(f.exists() for f in files)
    assert set(quarantine(files[:2], root).status) == {'moved'}
    assert set(quarantine(files, root, yes=True).status) == {'already', 'moved'}

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
    journal, seen = quarantine_folder(root)/verify.JOURNAL, []
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
    for name, (fmt, kw) in FORMATS.items(): (root/f'a/x.{name}').write_bytes(saved(BEAR.convert('CMYK') if 'cmyk' in name else BEAR, fmt, **kw))
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

def test_a_colour_profile_is_used_and_a_broken_one_is_not(tmp_path):
    from PIL import ImageCms
    cmyk = Image.new('CMYK', (40, 40), (0, 200, 200, 0))
    cmyk.save(tmp_path/'broken.jpg', icc_profile=b'nonsense')
    assert normalise(tmp_path/'broken.jpg', tmp_path/'a.jpg').status[0] == 'converted'
    seen = []
    def convert(im, profile, to, outputMode): seen.append((im.mode, outputMode)); return Image.new('RGB', im.size, 'teal')
    real = ImageCms.profileToProfile
    ImageCms.profileToProfile = convert
    try: normalise(tmp_path/'broken.jpg', tmp_path/'b.jpg')
    finally: ImageCms.profileToProfile = real
    assert seen == [('CMYK', 'RGB')] and abs(np.asarray(open_rgb(tmp_path/'b.jpg'), int)[5, 5]-(0, 128, 128)).max() < 4

def test_the_place_is_not_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    exif.get_ifd(0x8825)[1] = 'N'
    BEAR.save(tmp_path/'a.jpg', exif=exif)
    normalise(tmp_path/'a.jpg', tmp_path/'b.jpg')
    assert len(Image.open(tmp_path/'b.jpg').getexif()) == 0

def test_names_that_would_meet(tmp_path):
    (tmp_path/'in').mkdir()
    for name in ('a.gif', 'a.bmp', 'a.png'): BEAR.convert('P').save(tmp_path/'in'/name)
    df = normalise(tmp_path/'in', tmp_path/'out')
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == sorted(p.name for p in df.dest) and df.dest.is_unique
    assert len(df) == 3

def test_the_same_table_without_the_systems_list_of_types(tmp_path, monkeypatch):
    import mimetypes
    monkeypatch.setattr(mimetypes, 'guess_type', lambda *a, **k: pytest.fail('asked the system'))
    for name in ('a.jfif', 'b.AVIFS', 'c.jpe', 'd.mpo'): (tmp_path/name).write_bytes(saved(BEAR, 'JPEG'))
    assert list(check_images(tmp_path).reason) == ['', 'wrong extension', '', '']


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
    sha,small = verify.file_sha256,verify._small_copy
    def forbidden(f):
        if Path(f).name=='a.jpg': raise PermissionError(13, 'Permission denied')
        return sha(f)
    def spoilt(f, n):
        if Path(f).name=='c.jpg': raise SyntaxError('broken')
        return small(f, n)
    monkeypatch.setattr(verify, 'file_sha256', forbidden)
    monkeypatch.setattr(verify, '_small_copy', spoilt)
    assert list(quarantine(check_images(root), root, yes=True).status)==['failed: Permission denied', 'moved']
    verify_images(root, max_size=100, root=root)
    assert "'x/c.jpg', failed: broken" in capsys.readouterr().out and Image.open(root/'x/c.jpg').size==BEAR.size and max(Image.open(root/'x/d.jpg').size)==100


def test_the_command_line_says_names_that_the_terminal_cannot(tmp_path):
    "A pipe on Windows, or LC_ALL=C: a letter that is not there is written as its number."
    import subprocess, sys
    (tmp_path/'x').mkdir()
    (tmp_path/'x'/'b\u00e4r \U0001f43b.jpg').write_bytes(b'<html>')
    env = {**os.environ, 'PYTHONIOENCODING':'ascii:strict'}
    code = f"from bearclass.cli import main; import sys; sys.exit(main(['verify', {str(tmp_path)!r}, '--quarantine', '--yes']))"
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.returncode==0 and 'Traceback' not in done.stderr and '\\U0001f43b' in done.stdout


def test_made_smaller_twice_comes_back_whole_at_once(tmp_path):
    root = tmp_path/'bears'
    (root/'x').mkdir(parents=True)
    BEAR.save(root/'x/a.png')
    before = (root/'x/a.png').read_bytes()
    for n in 200, 100: verify_images(root, max_size=n, root=root)
    assert Image.open(root/'x/a.png').width<=100 and len(read_quarantine(root))==2
    assert list(undo_quarantine(root).status)==['back', 'back'] and (root/'x/a.png').read_bytes()==before and not len(read_quarantine(root))
