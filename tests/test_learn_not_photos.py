"Sounds and mouse tracks as pictures: every kind of WAV file, untidy logs, and the way to a learner."
import io, subprocess, sys, wave as wav
import numpy as np
import pytest
from scipy.signal import chirp

from bearclass.core import InputError
from bearclass.learn.not_photos import (SOUND_TFMS, TRACK_TFMS, mouse_track_image, picture_folder, read_wav,
                                        save_pictures, spectrogram, spectrogram_image)

tone = .8*np.sin(2*np.pi*440*np.arange(4000)/8000)


def pcm(a, width, channels=1, rate=8000):
    "A WAV file written by the standard library: whole numbers of `width` bytes."
    buf = io.BytesIO()
    with wav.open(buf, 'wb') as f:
        f.setnchannels(channels)
        f.setsampwidth(width)
        f.setframerate(rate)
        x = np.rint(np.repeat(a, channels)*(2**(8*width-1)-1)).astype('<i8') + (128 if width==1 else 0)
        f.writeframes(x.view(np.uint8).reshape(-1, 8)[:,:width].tobytes())
    return buf.getvalue()


@pytest.mark.parametrize('channels', [1, 2, 6])
@pytest.mark.parametrize('width', [1, 2, 3, 4])
def test_every_width_and_number_of_channels(width, channels):
    got,rate = read_wav(pcm(tone, width, channels))
    assert rate==8000 and got.dtype==np.float32 and got.shape==tone.shape
    np.testing.assert_allclose(got, tone, atol=.02 if width==1 else 1e-4)


def test_a_wav_cut_anywhere_is_an_error_or_whole():
    data = pcm(tone[:200], 2)
    for n in range(len(data)):
        with pytest.raises(InputError): read_wav(data[:n])
    assert len(read_wav(data)[0])==200


def test_a_spoilt_header_is_an_error_of_ours_or_a_sound():
    data,rng = pcm(tone[:200], 2),np.random.default_rng(0)
    for _ in range(300):
        a = bytearray(data)
        for i in rng.integers(0, 44, 3): a[i] = rng.integers(0, 256)
        try: got,rate = read_wav(bytes(a))
        except InputError: continue
        assert got.ndim==1 and len(got) and rate>0


def test_untidy_tracks():
    t = np.arange(40)/100
    x,y = 100*np.cos(9*t),80*np.sin(7*t)
    mixed = np.random.default_rng(0).permutation(40)
    clicks = [(.1, 'left'), (.3, 'right')]
    drawn = mouse_track_image(list(x), list(y), list(t), clicks)
    later = [(s+1e3, b) for s,b in clicks]
    assert drawn.tobytes()==mouse_track_image(x[mixed], y[mixed], t[mixed], clicks[::-1]).tobytes()
    assert drawn.tobytes()==mouse_track_image(x+1e4, y-1e4, t+1e3, later).tobytes()
    assert np.isfinite(np.asarray(mouse_track_image([0, 1e9], [0, 0], [0, 1e-3]), float)).all()


def test_a_bad_file_is_reported_and_a_bug_is_not_hidden(tmp_path):
    (tmp_path/'src/a').mkdir(parents=True)
    for i,data in enumerate((b'abc', b'', b'xyz')): (tmp_path/f'src/a/{i}.bin').write_bytes(data)
    def draw(f): return mouse_track_image(*[list(f.read_bytes())]*2, range(f.stat().st_size))
    made = picture_folder(tmp_path/'src', tmp_path/'dest', draw)
    assert list(made.ok)==[True, False, True] and 'x=[]' in made.reason[1] and made.path[1] is None
    with pytest.raises(ZeroDivisionError): picture_folder(tmp_path/'src', tmp_path/'dest', lambda f: 1/0)


def whistle(rising, i):
    "One second that glides between two pitches."
    t,low = np.arange(8000)/8000,500+40*i
    return chirp(t, low, 1, 2*low) if rising else chirp(t, 2*low, 1, low)

def track(smooth, i):
    "Straight or round."
    t = np.arange(100)/100
    y = 80*np.sin(6*t+i) if smooth else 30*np.cos(6*t+i)
    return dict(x=100*np.cos(6*t+i), y=y, t=t, clicks=[(t[5*i], 'left')])

def test_from_sounds_and_tracks_to_a_learner(tmp_path, one_thread):
    "Both ways end in fastai's objects, and the learner sees the picture that was drawn; drawn again, none is new."
    from fastai.vision.all import set_seed
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    drawings = [(SOUND_TFMS, lambda k, i: spectrogram_image(spectrogram(whistle(k, i), 8000), 64)),
                (TRACK_TFMS, lambda k, i: mouse_track_image(**track(k, i)))]
    for tfms,draw in drawings:
        root = tmp_path/str(len(tfms))
        pictures = [(name, draw(k, i)) for k,name in enumerate(('one', 'two')) for i in range(12)]
        once = save_pictures(pictures, root)
        stamps = [f.stat().st_mtime_ns for f in once]
        assert save_pictures(pictures, root)==once and [f.stat().st_mtime_ns for f in once]==stamps
        assert len(set(once))==len(list(root.rglob('*.png')))==24
        set_seed(0)
        dls = from_folder(root, size=64, bs=8, valid_pct=.4, **tfms)
        seen = dls.valid.one_batch()[0][0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(seen*255, np.asarray(dls.valid_ds[0][0]), atol=.6)
        learn = image_learner(dls, 'tiny_cnn', verbose=False)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 5e-3)
        assert set(learn.dls.vocab)=={'one', 'two'} and np.isfinite(learn.recorder.values[-1]).all()


def test_needs_no_torch():
    code = ('import sys, bearclass.learn.not_photos; '
            'print(sorted({"torch", "fastai", "scipy", "matplotlib", "pandas"} & set(sys.modules)))')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[]'
