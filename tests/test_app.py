"The app without a browser: what it shows, what it serves, and what it refuses."
import io, json, os, signal, socket, subprocess, sys, urllib.error, urllib.request
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
import pytest
from PIL import Image
from conftest import ROOT, colour_bundle, end, free_port, here_env, serving
from bearclass.core import BearclassError, BundleError, InputError, MissingError
from bearclass.ship import app as A
from bearclass.ship.predictor import Predictor


@pytest.fixture(scope='session')
def colours(tmp_path_factory): return colour_bundle(tmp_path_factory.mktemp('colours')/'bundle')

def png(colour, size=(40, 30)):
    buf = io.BytesIO()
    Image.new('RGB', size, colour).save(buf, 'PNG')
    return buf.getvalue()

def choose(app, name, data):
    app.upload.value = (dict(name=name, type='', size=len(data), content=memoryview(data), last_modified=datetime.now()),)


# ---- the widget

def test_a_visit(colours):
    app = A.classifier_app(colours)
    assert [type(c).__name__ for c in app.children] == ['HTML', 'FileUpload', 'HTML', 'HTML', 'HTML']
    assert 'Red, green or blue?' in app.children[0].value and 'up to 10 MB' in app.children[2].value and 'up to 25 MB' in A.app_from_bundle(colours).children[2].value
    assert 'This model knows only: red, green, blue.' in app.children[-1].value and app.result.value == ''
    for colour,label in (('lime', 'green'), ('blue', 'blue')):
        choose(app, 'a.png', png(colour))
        assert f'<div class="bc-label">{label}</div>' in app.result.value and '<img alt="Your picture, a.png"' in app.result.value
    choose(app, 'note.jpg', b'dear diary')
    assert '“note.jpg” is not a picture' in app.result.value
    assert 'bc-label' not in app.result.value and '<img' not in app.result.value

def test_no_answer_is_left_when_the_model_fails(colours):
    app = A.classifier_app(colours)
    choose(app, 'a.png', png('lime'))
    app.predictor = SimpleNamespace(predict=lambda img: 1/0)
    with pytest.raises(ZeroDivisionError): choose(app, 'b.png', png('red'))
    assert 'bc-label' not in app.result.value and 'something is wrong on this side' in app.result.value

def test_old_ipywidgets(colours):
    "In ipywidgets 7 the value is a dict, and is emptied through other attributes."
    upload = SimpleNamespace(value={'a.png': dict(metadata=dict(name='a.png'), content=png('red'))}, data=[b'x'], metadata=[{}], _counter=1)
    app = SimpleNamespace(upload=upload, result=SimpleNamespace(value=''), predictor=Predictor(colours), max_upload=A.MAX_UPLOAD)
    A.take_upload(app)
    assert '<div class="bc-label">red</div>' in app.result.value and (upload.data, upload._counter) == ([], 0)

def test_hostile_names(colours):
    nasty = '<img src=x onerror=alert(1)>.jpg'
    for data in png('red'), b'no picture':
        assert '<img src=x' not in A.page_html(Predictor(colours), [(nasty, data)])

def test_refused_bundle_shows_a_card(colours, tmp_path):
    import shutil
    shutil.copytree(colours, tmp_path/'changed')
    (tmp_path/'changed/config.json').write_text('{}')
    for path,why in (tmp_path/'gone', 'There is no folder'), (tmp_path/'changed', 'was changed: config.json'):
        card = A.app_from_bundle(path).children[0].value
        assert why in card and str(tmp_path) not in card


# ---- the folder

def test_committed_page_is_current():
    "If this fails: python -c \"from bearclass.ship.app import write_page; write_page('nbs/app')\""
    assert json.loads((ROOT/'nbs/app'/A.APP_NOTEBOOK).read_text(encoding='utf-8')) == A.app_notebook()
    assert json.loads((ROOT/'nbs/app/voila.json').read_text(encoding='utf-8')) == A.voila_config()

def test_cleaning_keeps_the_notebook():
    "`nbdev-clean` must leave the committed page as it is."
    from nbdev.clean import clean_nb
    nb = A.app_notebook()
    clean_nb(nb)
    assert nb == A.app_notebook()

def test_settings_fit_each_other():
    for server in A.voila_config()['Voila'], A.server_config()['ServerApp']:
        assert server['tornado_settings']['websocket_max_message_size'] > A.MAX_UPLOAD*1.5
    assert A.voila_config()['VoilaConfiguration']['show_tracebacks'] is False

def test_app_folder_holds_the_app_alone(colours, tmp_path):
    folder = A.write_app_folder(colours, tmp_path/'site', token='s3cret')
    assert {p.name for p in folder.iterdir()} == {A.APP_NOTEBOOK, 'voila.json', 'bundle'}
    assert Predictor(folder/'bundle').vocab == ['red', 'green', 'blue']
    with pytest.raises(InputError): A.write_app_folder(colours, folder)


# ---- serving

def get(url):
    "Status and text; no redirect is followed."
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args): return None
    try:
        with urllib.request.build_opener(Stay).open(url, timeout=60) as r: return r.status, r.read().decode()
    except urllib.error.HTTPError as e: return e.code, e.read().decode()

def listing(folder): return sorted(p.name for p in Path(folder).iterdir())

@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_serve_and_stop(colours, tmp_path, sig):
    "Ctrl-C, or a polite kill: nothing is left running, nothing is left on the disk."
    (tmp_path/'cwd').mkdir()
    (tmp_path/'tmp').mkdir()
    env = here_env(TMPDIR=str(tmp_path/'tmp'))
    with serving(colours, cwd=tmp_path/'cwd', env=env) as (url,proc):
        status,text = get(url)
        assert status==200 and 'Red, green or blue?' in text and 'app_from_bundle' not in text
        assert end(proc, sig) == []
        said = proc.stdout.read()
    assert proc.returncode==0 and f'The page is at {url}' in said and 'Ctrl-C' in said and 'Traceback' not in said
    assert listing(tmp_path/'tmp')==[] and listing(tmp_path/'cwd')==[]

def test_token_keeps_strangers_out(colours):
    with serving(colours, token='s3cret') as (url,_):
        assert get(url)[0] in (302, 401, 403) and get(url+'?token=wrong')[0] in (302, 401, 403)
        assert get(url+'?token=s3cret')[0] in (200, 302)

def test_refusals_start_nothing(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, 'Popen', None)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    with pytest.raises(MissingError, match='no folder'): A.serve_app(tmp_path/'gone')
    with pytest.raises(InputError, match='a token'): A.serve_app(colours, host='0.0.0.0')
    with pytest.raises(InputError, match='1 to 65535'): A.serve_app(colours, port=0)
    with socket.create_server(('127.0.0.1', 0)) as s, pytest.raises(InputError, match='use another, such as'):
        A.serve_app(colours, port=s.getsockname()[1])
    assert listing(tmp_path)==[]

def test_a_server_that_dies_says_why(colours, monkeypatch, capsys):
    monkeypatch.setattr(A, 'voila_command', lambda *a: [sys.executable, '-c', 'print("the reason"); raise SystemExit(3)'])
    with pytest.raises(BearclassError, match='the reason'): A.serve_app(colours, port=free_port())
