"Sounds and mouse tracks as pictures: every kind of WAV file, untidy logs, and the way through `from_folder` to a learner."
import io, subprocess, sys, wave as wav
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from scipy.signal import stft

from bearclass.core import BearclassError, InputError
from bearclass.images import open_rgb
from bearclass.learn.not_photos import (BUTTONS, SOUNDS, SOUND_TFMS, TRACKS, TRACK_TFMS, bytes_image, cut_or_pad, make_sound, make_track, mouse_track_image,
                                        picture_folder, plot_mouse_track, read_wav, save_pictures, spectrogram, spectrogram_image, track_speed)

tone = .8*np.sin(2*np.pi*440*np.arange(4000)/8000)


def pcm(a, width, channels=1, rate=8000):
    "A WAV file written by the standard library: whole numbers of `width` bytes."
    buf = io.BytesIO()
    with wav.open(buf, 'wb') as f:
        f.setnchannels(channels)
        f.setsampwidth(width)
        f.setframerate(rate)
        x = np.rint(np.repeat(a, channels)*(2**(8*width-1)-1)).astype('<i8')
        f.writeframes((x+128).astype(np.uint8).tobytes() if width==1 else x.view(np.uint8).reshape(-1, 8)[:,:width].tobytes())
    return buf.getvalue()


@pytest.mark.parametrize('channels', [1, 2, 6])
@pytest.mark.parametrize('width', [1, 2, 3, 4])
def test_every_width_and_number_of_channels(width, channels):
    got,rate = read_wav(pcm(tone, width, channels))
    assert rate==8000 and got.dtype==np.float32 and got.shape==tone.shape
    np.testing.assert_allclose(got, tone, atol=.02 if width==1 else 1e-4)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_floats_keep_their_scale(tmp_path, dtype):
    wavfile.write(tmp_path/'a.wav', 22050, tone.astype(dtype))
    got,rate = read_wav(tmp_path/'a.wav')
    assert rate==22050
    np.testing.assert_allclose(got, tone, atol=1e-6)


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


def test_spectrogram_agrees_with_scipys_stft():
    "The older `stft` with the same window and step finds the same loud frequency in every column."
    rng = np.random.default_rng(1)
    f = rng.uniform(300, 3000, 4)
    wave = np.concatenate([np.sin(2*np.pi*o*np.arange(4000)/8000) for o in f])
    spec = spectrogram(wave, 8000, n_mels=48)
    freqs,times,z = stft(wave, 8000, nperseg=512, noverlap=512-250)
    mel = lambda x: 2595*np.log10(1+x/700)
    edges = np.linspace(mel(50), mel(4000), 50)
    for at in (.25, .75, 1.25, 1.75):
        ours = edges[1:-1][::-1][spec[:,round(at*32)].argmax()]
        theirs = mel(freqs[np.abs(z[:,np.abs(times-at).argmin()]).argmax()])
        assert abs(ours-theirs)<=edges[1]-edges[0]


@pytest.mark.parametrize('rate', [8000, 11025, 16000, 22050, 44100, 48000])
def test_spectrogram_at_every_common_rate(rate):
    spec = spectrogram(np.sin(2*np.pi*1000*np.arange(rate)/rate), rate)
    assert spec.shape[0]==64 and abs(spec.shape[1]-32)<=1
    assert spec.min()>=0 and spec.max()==1 and np.isfinite(spec).all()


@pytest.mark.parametrize('wave', [np.zeros(8000), np.full(8000, .3), np.zeros(10), np.zeros(0), np.full(8000, np.nan), np.zeros((8000, 2))])
def test_no_sound_is_an_error(wave):
    with pytest.raises(InputError): spectrogram(wave, 8000)


@pytest.mark.parametrize('kw', [dict(n_mels=0), dict(f_min=5000), dict(f_max=5000), dict(window=0), dict(n_mels=500)])
def test_impossible_settings_are_errors(kw):
    with pytest.raises(InputError): spectrogram(tone, 8000, **kw)


def test_one_length_for_all():
    assert len(cut_or_pad(tone, 8000, 2))==16000 and not cut_or_pad(tone, 8000, 2)[4000:].any()
    assert {spectrogram_image(spectrogram(cut_or_pad(make_sound(k, 0, seconds=s), 8000, 2), 8000)).size for k in SOUNDS for s in (1, 2, 3)}=={(64, 64)}


def test_untidy_tracks():
    t = np.arange(40)/100
    x,y = 100*np.cos(9*t),80*np.sin(7*t)
    mixed = np.random.default_rng(0).permutation(40)
    clicks = [(.1, 'left'), (.3, 'right')]
    assert mouse_track_image(x, y, t, clicks).tobytes()==mouse_track_image(x[mixed], y[mixed], t[mixed], clicks[::-1]).tobytes()
    assert mouse_track_image(list(x), list(y), list(t), clicks).tobytes()==mouse_track_image(x+1e4, y-1e4, t+1e3, [(s+1e3, b) for s,b in clicks]).tobytes()
    assert (track_speed([0, 1e9], [0, 0], [0, 1e-3])>=1e12).all()
    assert np.isfinite(np.asarray(mouse_track_image([0, 1e9], [0, 0], [0, 1e-3]), float)).all()


@pytest.mark.parametrize('bad', [dict(x=[]), dict(x=[1, 2]), dict(t=[0, np.inf, 2]), dict(y=[0, np.nan, 0]), dict(x=[[1, 2, 3]]),
                                 dict(clicks=[(np.nan, 'left')]), dict(clicks=[(0, 'wheel')]), dict(size=0), dict(fast=0)])
def test_bad_tracks_are_errors(bad):
    with pytest.raises(InputError): mouse_track_image(**(dict(x=[0, 1, 2], y=[0, 1, 0], t=[0, 1, 2]) | bad))


def test_clicks_before_and_after_the_track_are_at_its_ends():
    track = dict(x=[0, 100], y=[0, 0], t=[1, 2])
    for early,at in ((.5, 1), (9, 2)):
        assert mouse_track_image(**track, clicks=[(early, 'left')]).tobytes()==mouse_track_image(**track, clicks=[(at, 'left')]).tobytes()


def test_buttons_look_different():
    pictures = {b: mouse_track_image([0, 100], [0, 0], [0, 1], [(.5, b)]).convert('L').tobytes() for b in BUTTONS}
    assert len(set(pictures.values()))==3


def test_plot_of_a_single_point():
    import matplotlib.pyplot as plt
    ax = plot_mouse_track([3], [4], [0], [(0, 'middle')])
    assert 'middle click' in [o.get_text() for o in ax.get_legend().get_texts()]
    plt.close(ax.figure)


def test_users_differ_where_they_should():
    "Scripts keep their speed, hands do not; tremors go a longer way between the same places."
    def spread(kind): return np.median([(v := track_speed(*(make_track(kind, i)[k] for k in 'xyt'))[5:40]).std()/v.mean() for i in range(20)])
    assert spread('script')<.5*spread('person')
    def way(kind): return np.median([track_speed(*(make_track(kind, i)[k] for k in 'xyt')).mean() for i in range(20)])
    assert way('tremor')>way('person')


def test_the_same_folder_twice(tmp_path):
    pictures = [(k, mouse_track_image(**make_track(k, i))) for k in TRACKS for i in range(3)]
    once = save_pictures(pictures, tmp_path/'set')
    stamps = [f.stat().st_mtime_ns for f in once]
    assert save_pictures(pictures, tmp_path/'set')==once and [f.stat().st_mtime_ns for f in once]==stamps
    assert len(list((tmp_path/'set').rglob('*.png')))==9


def test_a_bad_file_is_reported_and_a_bug_is_not_hidden(tmp_path):
    (tmp_path/'src/a').mkdir(parents=True)
    for i,data in enumerate((b'abc', b'', b'xyz')): (tmp_path/f'src/a/{i}.bin').write_bytes(data)
    made = picture_folder(tmp_path/'src', tmp_path/'dest', lambda f: bytes_image(f.read_bytes()))
    assert list(made.ok)==[True, False, True] and 'no bytes' in made.reason[1] and made.path[1] is None
    with pytest.raises(ZeroDivisionError): picture_folder(tmp_path/'src', tmp_path/'dest', lambda f: 1/0)


def test_from_sounds_and_tracks_to_a_learner(tmp_path, one_thread):
    "Both ways end in fastai's objects, and what the learner sees is the picture that was drawn."
    from fastai.vision.all import set_seed
    from bearclass.learn.blocks import from_folder
    from bearclass.learn.train import image_learner
    pairs = dict(sounds=[(k, spectrogram_image(spectrogram(make_sound(k, i), 8000))) for k in SOUNDS for i in range(12)],
                 tracks=[(k, mouse_track_image(**make_track(k, i))) for k in TRACKS for i in range(12)])
    for (name,pictures),tfms in zip(pairs.items(), (SOUND_TFMS, TRACK_TFMS)):
        save_pictures(pictures, tmp_path/name)
        set_seed(0)
        dls = from_folder(tmp_path/name, size=64, bs=8, valid_pct=.4, **tfms)
        whole = np.asarray(dls.valid_ds[0][0])
        seen = dls.valid.one_batch()[0][0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(seen*255, whole, atol=.6)
        learn = image_learner(dls, 'tiny_cnn', verbose=False)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 5e-3)
        assert set(learn.dls.vocab)=={k for k,_ in pictures} and np.isfinite(learn.recorder.values[-1]).all()


def test_needs_no_torch():
    code = 'import sys, bearclass.learn.not_photos; print(sorted({"torch", "fastai", "scipy", "matplotlib", "pandas"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[]'


def test_errors_are_of_the_family():
    assert issubclass(InputError, BearclassError)
    with pytest.raises(BearclassError): save_pictures([('a', b'no picture')], '.')
    assert isinstance(open_rgb(bytes_image(b'abc')), Image.Image)
