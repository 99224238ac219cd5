"Threats to those who give feedback: it is asked for, local and append-only, and a picture says nothing but its pixels."
import errno, io, json, subprocess, sys
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from conftest import serving
from test_app_browser import label, upload, visit
from bearclass.moves import read_lines
from bearclass.ship import app as A, feedback as F
from bearclass.ship.predictor import Prediction, Predictor

SAID = Prediction('red', 0, np.array([.7, .2, .1]), ['red', 'green', 'blue'], False, .2)
SECRETS = b'ACME Phone 7', b'at our hut', b'47.123N', b'<x:xmpmeta', b'Exif'


def photo(form='JPEG', size=(900, 600), **more):
    "A photo as a phone takes it: maker, remark, place."
    img = Image.new('RGB', size, (30, 160, 60))
    exif = img.getexif()
    exif[0x010f],exif[0x010e] = 'ACME Phone 7', 'at our hut, 47.123N'
    exif.get_ifd(0x8825).update({1: 'N', 2: (47., 7., 23.), 3: 'E', 4: (9., 12., 1.)})
    out = io.BytesIO()
    img.save(out, form, exif=exif, **more)
    return out.getvalue()

def png_text():
    text = PngInfo()
    text.add_text('Description', 'at our hut')
    text.add_itxt('XML:com.adobe.xmp', '<x:xmpmeta>47.123N</x:xmpmeta>')
    return text

PHOTOS = dict(
    jpeg=photo(comment='at our hut', xmp=b'<x:xmpmeta>47.123N</x:xmpmeta>'), png=photo('PNG', pnginfo=png_text()),
    webp=photo('WEBP', xmp=b'<x:xmpmeta>47.123N</x:xmpmeta>'))

def rows(folder): return read_lines(folder/F.CORRECTIONS)[0]
def names(folder): return sorted(f.name for f in folder.rglob('*'))

def place(data): return dict(Image.open(io.BytesIO(data)).getexif().get_ifd(0x8825))


@pytest.mark.parametrize('form', PHOTOS)
def test_gps_in_none_out(form, tmp_path):
    assert place(PHOTOS[form])[1]=='N' and any(s in PHOTOS[form] for s in SECRETS)
    sha = F.keep_correction(tmp_path, SAID, 'green', PHOTOS[form])['sha256']
    kept = (tmp_path/f'{sha[:16]}.jpg').read_bytes()
    assert place(kept)=={} and dict(Image.open(io.BytesIO(kept)).getexif())=={}
    assert not any(s in kept+(tmp_path/F.CORRECTIONS).read_bytes() for s in SECRETS)
    assert Image.open(io.BytesIO(kept)).size==(640, 427) and len(names(tmp_path))==2


def test_nothing_is_kept_unasked(colours, tmp_path, monkeypatch):
    "Off: no form, no file, and the page says so. On: no picture unless the box was ticked for this one."
    monkeypatch.chdir(tmp_path)
    files = [('a.jpg', PHOTOS['jpeg']), ('b.png', PHOTOS['png'])]
    off = A.classifier_app(colours)
    A.show_answers(off, files)
    assert off.form is None and names(tmp_path)==[] and 'the page keeps no copy' in off.children[2].value
    on = A.classifier_app(colours, feedback=tmp_path/'kept')
    A.show_answers(on, files)
    assert names(tmp_path)==[] and 'keeps no copy' not in on.children[2].value
    for _ in files:
        assert on.form.consent.value is False and on.form.send.disabled
        on.form.shows.value = 'blue'
        on.form.send.click()
    assert [r['sha256'] for r in rows(tmp_path/'kept')]==[None, None] and names(tmp_path)==[F.CORRECTIONS, 'kept']
    said = (tmp_path/'kept'/F.CORRECTIONS).read_text()
    assert 'a.jpg' not in said and 'b.png' not in said   # a file's name may tell who is in it

def test_appended_by_many_at_once(tmp_path):
    "Several visitors are several processes: no line is lost, torn or changed, also after one that was cut off."
    F.keep_correction(tmp_path, SAID, None)
    log = tmp_path/F.CORRECTIONS
    with open(log, 'a') as f: f.write('{"schema": 1, "lab')
    before = log.read_bytes()
    code = f"""
import sys, numpy as np
from bearclass.ship.feedback import keep_correction
from bearclass.ship.predictor import Prediction
said = Prediction('red', 0, np.array([.7, .3]), ['red', sys.argv[1]])
for i in range(20): keep_correction({str(tmp_path)!r}, said, sys.argv[1], np.full((9, 9, 3), i, np.uint8))"""
    visitors = [subprocess.Popen([sys.executable, '-c', code, name]) for name in 'xyz']
    assert [p.wait(300) for p in visitors]==[0, 0, 0]
    assert log.read_bytes().startswith(before)
    good,torn = read_lines(log)
    assert torn==1 and sorted(r['label'] or '' for r in good)==['', *'x'*20, *'y'*20, *'z'*20]
    assert len(list(tmp_path.glob('*.jpg')))==20   # by content: the same picture lies there once

@pytest.mark.parametrize('full', ['append_lines', 'write_atomic'])
def test_a_full_disk_is_said(full, colours, tmp_path, monkeypatch):
    app = A.classifier_app(colours, feedback=tmp_path/'kept')
    A.show_answers(app, [('a.jpg', PHOTOS['jpeg'])])
    def no_room(*args): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(F, full, no_room)
    app.form.shows.value,app.form.consent.value = 'blue',True
    app.form.send.click()
    assert 'No space left' in app.form.said.value and str(tmp_path) not in app.form.said.value
    assert 'green' in app.result.value and not list((tmp_path/'kept').glob('*.jpg'))
    monkeypatch.undo()
    app.form.send.click()   # it can be tried again
    assert 'with the picture' in app.form.said.value and len(list((tmp_path/'kept').glob('*.jpg')))==1

@pytest.mark.skipif(sys.platform!='linux', reason='another place where nobody may write')
def test_a_folder_that_may_not_be_written(colours, monkeypatch):
    "Said when the page is started."
    monkeypatch.setattr(subprocess, 'Popen', None)
    with pytest.raises(F.InputError, match='cannot be written'): A.serve_app(colours, feedback='/proc/corrections')


@pytest.mark.browser
def test_a_visitor_says_it_was_wrong(small_bundle, browser, screenshots, tmp_path):
    "On a phone; nobody can fetch what was kept."
    kept,vocab = tmp_path/'kept', Predictor(small_bundle).vocab
    (tmp_path/'photo.jpg').write_bytes(PHOTOS['jpeg'])
    with serving(small_bundle, feedback=str(kept), texts={'send': 'Absenden'}) as (url,_):
        page = browser.new_context(viewport=dict(width=390, height=800)).new_page()
        visit(page, url)
        assert page.locator('.bc-form select').first.is_hidden()
        upload(page, tmp_path/'photo.jpg')
        said = label(page)
        page.get_by_label('It shows').select_option(vocab[1])
        page.get_by_label('Keep this picture').check()
        page.screenshot(path=screenshots/'app_feedback.png', full_page=True)
        assert page.evaluate('document.documentElement.scrollWidth') <= 390
        page.get_by_role('button', name='Absenden').click()
        page.get_by_text('Noted, with the picture').wait_for()
        row, = rows(kept)
        assert (row['label'], row['predicted_label'])==(vocab[1], said if said in vocab else row['predicted_label'])
        picture, = kept.glob('*.jpg')
        assert place(picture.read_bytes())=={}
        for name in (F.CORRECTIONS, picture.name):
            for where in 'voila/files/', 'voila/files/../', 'voila/files/%2e%2e/kept/', '', 'static/':
                assert page.request.get(f'{url}{where}{name}').status in (403, 404)
        page.context.close()
    assert json.loads((kept/F.CORRECTIONS).read_text())==row
