"What tests share: a small exported model, the app as a running server, and a page in a real Chromium."
import hashlib, io, json, os, random, shutil, signal, socket, subprocess, sys, time
from contextlib import contextmanager
from pathlib import Path
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT/'nbs/app/bundle'
WIDGETS7 = ROOT/'build/ipywidgets7'   # made by make
# real photos, MNIST, weights: never part of the project
REAL = Path(os.environ.get('BEARCLASS_TEST_DATA') or ROOT.parent/'shared/data')
CHROMIUM_FLAGS = (
    '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
    '--disable-component-update --disable-sync').split()


def needs(name):
    "Skip a test where a folder of real data is missing."
    return pytest.mark.skipif(not (REAL/name).is_dir(), reason=f'no {name} in {REAL.name}: set BEARCLASS_TEST_DATA')


# a shell that starts us in the background switches Ctrl-C off, also for our children
if signal.getsignal(signal.SIGINT)==signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    "The lessons take longest and begin first, so that all processes end together."
    items.sort(key=lambda item: item.path.name not in ('test_lessons.py', 'test_lab_browser.py'))


@pytest.fixture(autouse=True)
def seeded():
    "Every test begins with the same chance, also that from which fastai's DataLoaders draw the order of batches."
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get('torch'): torch.manual_seed(0)


@pytest.fixture(scope='session')
def mnist_files():
    "The folder of MNIST's four files, or a skip."
    if not (REAL/'mnist').is_dir(): pytest.skip(f'no mnist in {REAL.name}: set BEARCLASS_TEST_DATA')
    return REAL/'mnist'


@pytest.fixture(scope='module')
def one_thread():
    "Small tensors: a second thread costs more than it brings, above all on a busy machine."
    import torch
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def seal(path, **about):
    "Write the manifest of a bundle anew, as its maker would; `about`: more that it says."
    sha = lambda data: hashlib.sha256(data).hexdigest()
    for name in 'MANIFEST.json', 'MANIFEST.sha256': (path/name).unlink(missing_ok=True)
    files = {
        f.relative_to(path).as_posix(): dict(bytes=f.stat().st_size, sha256=sha(f.read_bytes()))
        for f in path.rglob('*') if f.is_file()}
    (path/'MANIFEST.json').write_text(json.dumps(dict(format=1, files=files, **about)))
    (path/'MANIFEST.sha256').write_text(sha((path/'MANIFEST.json').read_bytes()))
    return path


def colour_bundle(path, vocab=('red', 'green', 'blue'), **about):
    "A bundle made by hand in a blink: its model calls a picture by its strongest colour."
    from onnx import TensorProto, helper
    path.mkdir(parents=True)
    x = helper.make_tensor_value_info('image', TensorProto.FLOAT, ['batch', 3, 8, 8])
    y = helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['batch', 3])
    nodes = [helper.make_node('GlobalAveragePool', ['image'], ['m']), helper.make_node('Flatten', ['m'], ['logits'])]
    m = helper.make_model(
        helper.make_graph(nodes, 'g', [x], [y]),
        opset_imports=[helper.make_opsetid('', 18)],
        ir_version=9)
    (path/'model.onnx').write_bytes(m.SerializeToString())
    (path/'config.json').write_text(
        json.dumps(dict(vocab=list(vocab), size=8, method='crop', zoom=1., mean=[0.]*3, std=[1.]*3, temperature=.25)))
    (path/'golden').mkdir()
    Image.new('RGB', (8, 8), 'red').save(path/'golden/0.png')
    e = np.exp(np.array([1, 0, 0])/.25)
    (path/'golden/golden.json').write_text(json.dumps(dict(pictures=[dict(file='0.png', probs=list(e/e.sum()))])))
    return seal(path, **about)


def png(colour='lime', size=(40, 30)):
    "A picture as a file's bytes."
    buf = io.BytesIO()
    Image.new('RGB', size, colour).save(buf, 'PNG')
    return buf.getvalue()


@pytest.fixture(scope='session')
def colours(tmp_path_factory):
    "The path of such a bundle."
    return colour_bundle(tmp_path_factory.mktemp('colours')/'bundle')


@pytest.fixture(scope='session')
def reds(tmp_path_factory):
    "A predictor of reds, greens and blues that has learnt from reds alone."
    import onnx
    from bearclass.ship.predictor import Predictor
    from bearclass.ship.unknown import fit_bank
    bundle = colour_bundle(tmp_path_factory.mktemp('reds')/'bundle')
    model = onnx.load(bundle/'model.onnx')
    model.graph.node.append(onnx.helper.make_node('Identity', ['logits'], ['features']))
    model.graph.output.append(onnx.helper.make_tensor_value_info('features', onnx.TensorProto.FLOAT, ['batch', 3]))
    onnx.save(model, bundle/'model.onnx')
    learnt = np.random.default_rng(0).uniform([.7, 0, 0], [1, .3, .1], (60, 3))
    (bundle/'unknown.safetensors').write_bytes(fit_bank(learnt).to_bytes())
    return Predictor(seal(bundle))


@pytest.fixture(scope='session')
def small_bundle(tmp_path_factory):
    "The model that is committed beside the app, or one made by hand where there is none."
    return COMMITTED if COMMITTED.is_dir() else colour_bundle(tmp_path_factory.mktemp('model')/'bundle')


class Crash(BaseException): "The power fails."

CALLS = 'link unlink rename replace mkdir rmdir fsync write utime chmod'.split()

def crashing(monkeypatch, at):
    "The power fails at a file system call: before it where `at` is even, after it where odd. A write is cut in half."
    count = [0]
    def wrap(name, f):
        def call(*args, **kw):
            k = count[0]
            count[0] += 1
            if k<at//2: return f(*args, **kw)
            if k>at//2: raise Crash   # nothing happens after the end
            if name=='write': f(args[0], bytes(args[1])[:len(args[1])//2])
            elif at%2: f(*args, **kw)
            raise Crash
        return call
    for name in CALLS: monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
    real = shutil.copyfileobj
    def half(a, b, *more):   # a copy is cut in half, too
        k = count[0]
        count[0] += 1
        if k<at//2: return real(a, b, *more)
        if k==at//2: b.write(a.read()[:2])
        raise Crash
    monkeypatch.setattr(shutil, 'copyfileobj', half)


def no_links(src, dst): raise OSError(95, 'Operation not supported')


def crashes(tmp_path, monkeypatch, prepare, act, finished, made, tree, whole):
    "Crash `act` at every call, check that nothing is lost, run it again, and check the end; gives how many there are."
    monkeypatch.setattr(os, 'fsync', lambda fd: None)   # it is played: nobody has to wait for the disk
    for at in range(2000):
        root = tmp_path/f'{at}/bears'
        made(root)
        before = tree(root)
        known = prepare(root)
        with monkeypatch.context() as m:
            crashing(m, at)
            try: act(root, known)
            except Crash: ended = False
            else: ended = True
        whole(root, before)
        act(root, known)
        whole(root, before)
        finished(root, before)
        shutil.rmtree(tmp_path/str(at))
        if ended: return at
    raise AssertionError('never came to its end')


def tree(root):
    "{path: content} of all files below a folder."
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in sorted(root.rglob('*')) if f.is_file()}


def here_env(**kw):
    "This environment for a process that runs in another folder."
    path = os.pathsep.join(os.path.abspath(p) for p in os.environ.get('PYTHONPATH', '').split(os.pathsep) if p)
    return {**os.environ, 'PYTHONPATH':path, **kw}


@pytest.fixture(scope='module', params=[8, 7])
def ipywidgets(request):
    "The version that a page is tried with; Colab has 7."
    return request.param


@pytest.fixture(scope='module')
def widgets_env(ipywidgets):
    "The environment with that version, for a server and its kernels."
    env = here_env(JUPYTER_PREFER_ENV_PATH='1')
    if ipywidgets==8: return env
    if not WIDGETS7.is_dir(): pytest.skip('no ipywidgets 7 here: make build/ipywidgets7')
    path = os.pathsep.join([str(WIDGETS7), env['PYTHONPATH']])
    return {**env, 'PYTHONPATH':path, 'JUPYTER_PATH':str(WIDGETS7/'share/jupyter')}   # Python's half and the browser's


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for_port(port, proc, seconds=300):
    end = time.monotonic()+seconds
    while time.monotonic()<end:
        assert proc.poll() is None, f'the server ended with status {proc.returncode}'
        try: return socket.create_connection(('127.0.0.1', port), timeout=1).close()
        except OSError: time.sleep(.1)
    raise AssertionError(f'no server on port {port} after {seconds} s')


def end(proc, sig=signal.SIGINT, seconds=25):
    "Ask a process that a test started to stop, and see to it that it and all it started are gone."
    import psutil
    tree = [psutil.Process(proc.pid)] + psutil.Process(proc.pid).children(recursive=True) if proc.poll() is None else []
    if proc.poll() is None: proc.send_signal(sig)
    try: proc.wait(seconds)
    except subprocess.TimeoutExpired: pass
    left = psutil.wait_procs(tree, timeout=5)[1]
    for p in left: p.kill()
    return [p.pid for p in left]


@pytest.fixture
def new_children():
    "A function that gives the processes started since the test began and still there; other tests' do not count."
    import psutil
    here = psutil.Process()
    before = set(here.children(recursive=True))
    def left(seconds=10):
        end = time.monotonic()+seconds
        while (
            now := [p for p in here.children(recursive=True) if p not in before and works(p)]) and time.monotonic()<end:
            time.sleep(.1)
        return now
    def works(p):
        try: return 'resource_tracker' not in ' '.join(p.cmdline())
        except psutil.Error: return False   # it has just ended
    return left


@contextmanager
def started(cmd, port, **kw):
    "A server as a process, up and later gone."
    proc = subprocess.Popen([str(c) for c in cmd], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    try:
        wait_for_port(port, proc)
        yield proc
    finally: end(proc)


@contextmanager
def serving(bundle, python=sys.executable, cwd=None, env=None, **kw):
    "`serve_app(bundle, **kw)` in a process of its own; gives (address, process)."
    port = free_port()
    args = ''.join(f', {k}={v!r}' for k,v in kw.items())
    code = f'from bearclass.ship.app import serve_app\nserve_app({str(bundle)!r}, port={port}{args})'
    with started([python, '-c', code], port, cwd=cwd, env=env) as proc: yield f'http://127.0.0.1:{port}/', proc


def write_notebook(path, *cells):
    "A notebook of some code cells."
    import nbformat
    kernel = dict(name='python3', display_name='python3', language='python')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=dict(kernelspec=kernel))
    nbformat.write(nb, path)


@pytest.fixture(scope='session')
def app_url(small_bundle):
    "The app, served for all tests that only look at it."
    with serving(small_bundle) as (url,_): yield url


@pytest.fixture(scope='session')
def chromium_path():
    "A Chromium to drive, or a skip that says what to do."
    pytest.importorskip('playwright', reason='playwright is not installed')
    for name in os.environ.get('BEARCLASS_CHROMIUM'), 'chromium', 'chromium-browser', 'google-chrome':
        if name and (path := shutil.which(name)): return path
    pytest.skip('no Chromium here: install it, or set BEARCLASS_CHROMIUM to its path')


@pytest.fixture(scope='module')
def browser(chromium_path):
    "Closed with the module: while it is open an event loop runs here, in the way of tests that start their own."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=chromium_path, args=CHROMIUM_FLAGS)
        yield b
        b.close()


@pytest.fixture
def browser_page(browser):
    "An empty page, 1280 x 1000."
    context = browser.new_context(viewport=dict(width=1280, height=1000))
    context.set_default_timeout(300_000)   # however busy the machine is
    yield context.new_page()
    context.close()


@pytest.fixture(scope='session')
def screenshots():
    "Folder for pictures of what the tests saw; git does not track it."
    path = ROOT/'test-output'
    path.mkdir(exist_ok=True)
    return path
