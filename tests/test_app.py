"The app without a browser: what it shows, what it serves, and what it refuses."
import re, signal, sys, urllib.request
from pathlib import Path
from types import SimpleNamespace
import pytest
from conftest import ROOT, end, free_port, here_env, png, serving
from bearclass.core import BearclassError
from bearclass.samples.datasets import draw_bears
from bearclass.ship import app as A
from bearclass.ship.answer import MAX_MESSAGE
from bearclass.ship.bundle import attribution
from bearclass.ship.predictor import Predictor


# ---- the widget

def test_old_ipywidgets(colours):
    "In ipywidgets 7 the value is a dict, and is emptied through other attributes."
    app = A.classifier_app(colours)
    value = {'a.png': dict(metadata=dict(name='a.png'), content=png('red'))}
    app.upload = SimpleNamespace(value=value, data=[b'x'], metadata=[{}], _counter=1)
    A.take_upload(app)
    assert '<div class="bc-label">red</div>' in app.result.value and (app.upload.data, app.upload._counter) == ([], 0)

def test_drawings_are_no_photos(colours, tmp_path):
    "A model that has learnt from the bears we draw says so on its page."
    draw_bears(tmp_path/'bears', n_per_class=1)
    model = Predictor(colours)
    foot = lambda: A.classifier_app(model).children[-1].value
    assert 'This model knows only' in foot() and 'drawings' not in foot()
    model.bundle.files['ATTRIBUTION.md'] = attribution(tmp_path/'bears').encode()
    assert 'This model knows only' in foot() and 'drawings' in foot()


def test_cleaning_keeps_the_notebook():
    "`nbdev-clean` must leave the committed page as it is."
    from nbdev.clean import clean_nb
    nb = A.app_notebook()
    clean_nb(nb)
    assert nb == A.app_notebook()


# ---- serving

def listing(folder): return sorted(p.name for p in Path(folder).iterdir())

@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_serve_and_stop(colours, tmp_path, sig):
    "Ctrl-C, or a polite kill: nothing is left running, nothing is left on the disk."
    (tmp_path/'cwd').mkdir()
    (tmp_path/'tmp').mkdir()
    env = here_env(TMPDIR=str(tmp_path/'tmp'))
    with serving(colours, cwd=tmp_path/'cwd', env=env) as (url,proc):
        assert 'Red, green or blue?' in urllib.request.urlopen(url, timeout=300).read().decode()
        assert end(proc, sig) == []
        said = proc.stdout.read()
    assert proc.returncode==0 and f'The page is at {url}' in said and 'Ctrl-C' in said and 'Traceback' not in said
    assert listing(tmp_path/'tmp')==[] and listing(tmp_path/'cwd')==[]

def test_make_lab_takes_large_photos():
    "Jupyter's server throws 10 MiB away without a word; this one lets the widget say what is wrong."
    from jupyter_server.serverapp import ServerApp
    option, = re.findall('(--ServerApp.tornado_settings=)"(.+)"', (ROOT/'Makefile').read_text())
    server = ServerApp()
    server.parse_command_line([''.join(option)])
    assert server.tornado_settings==dict(websocket_max_message_size=MAX_MESSAGE)

def test_a_server_that_dies_says_why(colours, monkeypatch, capsys):
    dies = [sys.executable, '-c', 'print("the reason"); raise SystemExit(3)']
    monkeypatch.setattr(A, 'voila_command', lambda *a: dies)
    with pytest.raises(BearclassError, match='the reason'): A.serve_app(colours, port=free_port())
