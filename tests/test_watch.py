"The log of a model's answers: many writers, a disk that fills up, lines from a stranger."
import errno, json, os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from bearclass.ship.predictor import Predictor
from bearclass.ship.watch import Watch, read_watch, watch_report
from conftest import COMMITTED, REAL, here_env, needs


def picture(i): return Image.new('RGB', (8+i%5, 9), ('red', 'lime', 'blue')[i%3])


def test_programs_and_threads_write_into_one_log(colours, tmp_path):
    log = tmp_path/'log.jsonl'
    code = (f'from bearclass.ship.watch import Watch; from PIL import Image\n'
            f'w = Watch({str(colours)!r}, {str(log)!r}, n_threads=1)\n'
            f'for i in range(150): w.predict(Image.new("RGB", (9, 9), "red"))')
    other = subprocess.Popen([sys.executable, '-c', code], env=here_env())
    watched = Watch(colours, log, n_threads=1)
    with ThreadPoolExecutor(4) as pool: list(pool.map(lambda i: watched.predict(picture(i)), range(150)))
    assert other.wait(120)==0
    rows,bad = read_watch(log)
    assert (len(rows), bad, watched.lost)==(300, 0, 0)


def test_a_full_disk_stops_no_answer(colours, tmp_path, monkeypatch):
    log,write = tmp_path/'log.jsonl',os.write
    watched = Watch(colours, log)
    watched.predict(picture(0))
    def full(fd, data):
        "Half a line still fits."
        if len(data)<20: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, bytes(data[:len(data)//2]))
    monkeypatch.setattr(os, 'write', full)
    with pytest.warns(UserWarning, match='No space left'):
        answers = watched.predict_batch([picture(i) for i in range(5)])
    assert [a.label for a in answers]==['red', 'green', 'blue', 'red', 'green'] and watched.lost==5
    monkeypatch.setattr(os, 'write', write)
    watched.predict(picture(1))
    rows,bad = read_watch(log)
    assert rows.label.tolist()==['red', 'green'] and rows.lost.sum()==5 and bad==5   # the five halves
    assert '5 answers could not be written down' in str(watch_report(log))


def test_a_link_is_not_followed(colours, tmp_path):
    (tmp_path/'log.jsonl').symlink_to(tmp_path/'elsewhere')
    watched = Watch(colours, tmp_path/'log.jsonl')
    with pytest.warns(UserWarning, match='symlink'): assert watched.predict(picture(2)).label=='blue'
    assert not (tmp_path/'elsewhere').exists()


def test_it_stands_where_a_predictor_does(colours, tmp_path):
    from starlette.testclient import TestClient
    from bearclass.ship.api import create_api
    from bearclass.ship.predictor import predict_folder
    (tmp_path/'secret name').mkdir()
    for i in range(3): picture(i).save(tmp_path/f'secret name/{i}.png')
    watched = Watch(colours, tmp_path/'log.jsonl')
    assert len(predict_folder(watched, tmp_path/'secret name'))==3
    with TestClient(create_api(watched)) as api:
        files = {'file': ('secret name.png', (tmp_path/'secret name/1.png').read_bytes())}
        assert api.post('/classify', files=files).json()['label']=='green'
    text = (tmp_path/'log.jsonl').read_text()
    assert text.count('\n')==4 and 'secret' not in text and str(tmp_path) not in text


good = dict(time='2026-11-01T00:00:00+00:00', model='ab', label='red', confidence=.9, unknown=None, width=9, height=9,
            brightness=.5)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
odd = plain | st.lists(plain, max_size=2) | st.dictionaries(st.text(max_size=3), plain, max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from([*good, 'lost']), odd), max_size=4), st.binary(max_size=60))
def test_a_strangers_log_is_data(tmp_path_factory, changes, tail):
    log = tmp_path_factory.getbasetemp()/'stranger.jsonl'
    lines = [json.dumps({**good, **c}) for c in changes]
    log.write_bytes('\n'.join(lines).encode('utf-8', 'surrogatepass')+b'\n'+tail)
    rows,bad = read_watch(log)
    assert len(rows)+bad==len(lines)+len([l for l in tail.split(b'\n') if l.strip()])
    assert rows.confidence.between(0, 1).all() and np.isfinite(rows['size'].astype(float)).all()
    assert not watch_report(log, log).drifts


@needs('bears')
@pytest.mark.skipif(not COMMITTED.is_dir(), reason='no bundle beside the app')
def test_a_model_of_drawings_claims_more_than_it_holds_on_photos():
    "Every fourth of the photos of which the guide speaks."
    files = sorted((REAL/'bears').glob('*/*.jpg'))[::4]
    answers = Predictor(COMMITTED).predict_batch(files)
    wrong = np.array([a.label!=f.parent.name for a,f in zip(answers, files)])
    unknown = np.array([a.unknown for a in answers])
    assert len(files)>90 and .24<wrong.mean()<.45 and .28<unknown.mean()<.48
    assert 1-np.mean([a.probs.max() for a in answers])<wrong.mean()-.03
    assert wrong[unknown].mean()>wrong[~unknown].mean()+.15
