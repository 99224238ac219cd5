"""Every error that `heal` knows is raised here, in the words of the packages of today, and its advice is run.

PROGRAMS fail in one process and COMMANDS in their own, with the real libraries. What needs a GPU, another package or a
read-only disk is STAGED: the real exception with the words that its source reports."""
import json, os, ssl, subprocess, sys
from urllib.error import URLError

import pytest

from bearclass.heal import KNOWN, heal

SETUP = '''
from fastai.vision.all import *
import ipywidgets as widgets, pickle, signal, types
from datetime import datetime

path = Path('bears')
for label in 'black', 'teddy':
    (path/label).mkdir(parents=True)
    for i in range(8):
        noise = np.random.default_rng(i).integers(0, 255, (20+i, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path/label/f'{i}.png')
fn = get_image_files(path)[0]

def is_cat(x): return x.parent.name
db = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=is_cat, item_tfms=Resize(16))
dls = db.dataloaders(path, bs=4, num_workers=0)
learn = Learner(dls, nn.Sequential(nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(3, 2)), metrics=error_rate, path='.')
learn.fit(1)
learn.save('stage-1')
learn.export('export.pkl', pickle_module=pickle)   # as fastai did until 2.8
btn_upload = widgets.FileUpload()
btn_upload.value = dict(
    name='a.png', type='image/png', size=1, content=memoryview(fn.read_bytes()), last_modified=datetime.now()),

class Gone: "What a package defined that is not here."
def save_as_from(module, fn):
    "A file that holds something of a module, which then is no more."
    was,sys.modules[module] = sys.modules.get(module),types.ModuleType(module)
    Gone.__module__,sys.modules[module].Gone = module,Gone
    torch.save(Gone(), fn)
    del sys.modules[module]
    if was: sys.modules[module] = was

class Dying:
    "Pictures whose loading ends the process."
    def __len__(self): return 2
    def __getitem__(self, i): os.kill(os.getpid(), signal.SIGKILL)
'''

# row of the table, and a cell that ends in that error; `w`, `x`, `fn` ... are the names that the advice uses
PROGRAMS = [
    ('max_lr', 'learn.fit_one_cycle(1, max_lr=1e-3)'),
    ('data.classes', 'data = learn.dls\nprint(data.classes)'),
    ('data.classes', 'data.normalize(imagenet_stats)'),
    ('recorder.plot', 'learn.recorder.plot_losses()'),
    ('recorder.plot', 'learn.recorder.plot()'),
    ('lr_find', 'lr_min, lr_steep = learn.lr_find()'),
    ('lr_find', 'learn.lr_find(suggestions=True)'),
    ('modules of fastai', 'from fastai.widgets import *'),
    ('modules of fastai', 'from fastai2.vision.all import *'),
    ('old package', 'import torch._six'),
    ('old package', 'from collections import Iterable'),
    ('ANTIALIAS', 'Image.open(fn).resize((9, 9), Image.ANTIALIAS)'),
    ('np.float', 'np.ones(3, dtype=np.float)'),
    ('np.float', 'np.float_(3)'),
    ('notebook2script', '''
(Path('app.ipynb')).write_text(json.dumps(dict(
    cells=[dict(cell_type='code', metadata={}, outputs=[], source='#| default_exp app')],
    metadata={}, nbformat=4, nbformat_minor=4)))
from nbdev.export import notebook2script'''),
    ('FileUpload', 'img = PILImage.create(btn_upload.data[-1])'),
    ('FileUpload', 'for name,file in btn_upload.value.items(): pass'),
    ('FileUpload', "img = PILImage.create(btn_upload.value[-1]['content'])"),
    ('file missing', "learn = load_learner('models/export.pkl')"),
    ('sizes differ', 'ImageDataLoaders.from_folder(path, valid_pct=0.2, bs=4, num_workers=0).one_batch()'),
    ('no pictures', "Path('new').mkdir()\nImageDataLoaders.from_folder('new', valid_pct=0.2)"),
    ('no pictures', 'ImageDataLoaders.from_folder(path, item_tfms=Resize(16))   # no folders train and valid'),
    ('no batches', 'ImageDataLoaders.from_folder(path, valid_pct=0.2, item_tfms=Resize(16)).show_batch()'),
    ('too many classes', 'F.cross_entropy(torch.zeros(2, 2), torch.tensor([0, 2]))'),
    ('grey pictures', '''
grey = Image.open(fn).convert('L')
nn.Conv2d(3, 8, 3)(TensorImage(image2tensor(grey))[None].float())'''),
    ("can't get attribute", "del is_cat\nlearn_inf = load_learner('export.pkl')"),
    ('WindowsPath', '''
Path.cwd().__reduce__()[0]   # a path in a pickle names its class
pickle.loads(pickle.dumps(Path('x'), protocol=0).replace(b'PosixPath', b'WindowsPath'))'''),
    ('no CUDA here', '''
tag,torch.serialization.location_tag = torch.serialization.location_tag,lambda storage: 'cuda:0'
torch.save(learn.model.state_dict(), 'model.pth')   # as on a machine with a GPU
torch.serialization.location_tag = tag
torch.load('model.pth')'''),
    ('weights only', "torch.load('export.pkl')"),
    ('no model in the file', "Path('lfs.pkl').write_text('version https://git-lfs')\nload_learner('lfs.pkl')"),
    ('no model in the file', "torch.load('lfs.pkl')"),
    ('fastai before 2.8', "save_as_from('fastcore.transform', 'old.pkl')\nload_learner('old.pkl')"),
    ('load_learner and a missing package', "save_as_from('someones_package', 'new.pkl')\nload_learner('new.pkl')"),
    ('weights are no learner', "load_learner('models/stage-1.pth')"),
    ('size mismatch', '''
Learner(dls, nn.Sequential(nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(3, 5)), path='.').load('stage-1')'''),
    ('worker died', 'next(iter(DataLoader(Dying(), bs=2, num_workers=1)))'),
    ('disk full', "torch.save(torch.zeros(9), open('/dev/full', 'wb'))"),
    ('step in place', 'lr,w = .1,torch.ones(2, requires_grad=True)\n(w**2).sum().backward()\nw -= lr*w.grad'),
    ('backward twice', 'loss = (w**2).sum()\nloss.backward()\nloss.backward()'),
    ('grad is None', 'w = torch.ones(2, requires_grad=True)\nw.data -= w.grad*lr'),
    ('grad is None', 'w = torch.ones(2, requires_grad=True)\nw.grad.zero_()'),
    ('numpy and gradients', 'plt.plot(w)'),
    ('shapes', 'x = torch.ones(4, 28, 28)\nx@torch.ones(784, 1)'),
    ('no gradient wanted', 'w = torch.ones(2)\n(w**2).sum().backward()'),
    ('label only in valid', '''
df = pd.DataFrame(dict(fn=get_image_files(path)[:4], label=['black']*3+['teddy'], valid=[False]*3+[True]))
dls_df = ImageDataLoaders.from_df(df, path='.', valid_col='valid', item_tfms=Resize(16), bs=2, num_workers=0)
dls_df.valid.one_batch()'''),
    ('broken picture', '''
path = shutil.copytree(path, Path('downloads'))
(path/'teddy/9.jpg').write_text('<html>')
PILImage.create(path/'teddy/9.jpg')'''),
    ('broken picture', '''
Image.effect_noise((90, 90), 50).save(path/'black/9.jpg')
half = (path/'black/9.jpg').read_bytes()[:1500]
(path/'black/9.jpg').write_bytes(half)
PILImage.create(path/'black/9.jpg')'''),
    ('fastbook', 'import fastbook'),
    ('duckduckgo_search', 'from duckduckgo_search import ddg_images'),
    ('duckduckgo_search', 'from ddgs import ddg_images'),
    ('duckduckgo_search', "from ddgs import DDGS\nDDGS().images(keywords='grizzly bear')"),
    ('search refused', "DDGS(proxy='http://127.0.0.1:9').images('grizzly bear')   # nobody listens there"),
    ('search empty', "def search_images(term): return L()\nsearch_images('grizzly bear')[0]"),
    ('no network', "urlread('http://127.0.0.1:9/bears.tgz')"),
    ('fastai 1', "data = ImageDataBunch.from_folder(path)"),
    ('fastai 1', 'from fastai.vision import ImageDataBunch'),
]

COMMANDS = {
    'graphviz': [sys.executable, '-S', '-c', 'import graphviz'],
    'not installed': [sys.executable, '-S', '-c', 'from fastai.vision.all import *'],   # a Python without packages
    'pinned version': [sys.executable, '-m', 'pip', 'install', '--no-index', '--no-deps', 'no-such-package==1.6.0'],
    'bootstrapping': [sys.executable, 'script.py'],
}
SCRIPT = '''
import multiprocessing
multiprocessing.get_context('spawn').Process(target=print).start()   # as on Windows and Mac
'''


def of_torch(name, message):
    "An exception of PyTorch, which a test without PyTorch does not import."
    return lambda: getattr(pytest.importorskip('torch'), name)(message)


STAGED = {
    'certificate': lambda: URLError(ssl.SSLCertVerificationError(
        1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate')),
    'gradio': lambda: AttributeError("module 'gradio' has no attribute 'inputs'"),
    'libGL': lambda: ImportError('libGL.so.1: cannot open shared object file: No such file or directory'),
    'read-only': lambda: OSError(30, 'Read-only file system', '/kaggle/input/bears/models'),
    'out of memory': of_torch('OutOfMemoryError', 'CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total'),
    'too many classes': of_torch('AcceleratorError', 'CUDA error: device-side assert triggered\nCUDA kernel errors'),
    'torchvision': lambda: RuntimeError('operator torchvision::nms does not exist'),
    'two devices': lambda: RuntimeError(
        'Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!'),
}

RUNNER = '''
import json, sys, traceback, types, warnings
from pathlib import Path
warnings.simplefilter('ignore')
jobs = json.loads(Path('jobs.json').read_text())
learner = sys.modules['__main__'] = types.ModuleType('__main__')   # a session in which only the learner's names are

def run(code, fn):
    "What an error prints, in Python and in IPython; '' where there is none."
    Path(fn).write_text(code)
    try: exec(compile(code, fn, 'exec'), vars(learner))
    except BaseException: return [traceback.format_exc(), formatter.text(*sys.exc_info())]
    return ['', '']

from IPython.core.ultratb import AutoFormattedTB
formatter = AutoFormattedTB(mode='Context')
setup = run(jobs['setup'], 'setup.py')[0]
cells,names,advice = [],{},{}
for i,(row,cell) in enumerate(jobs['cells']):
    cells.append(run(cell, f'cell_{i}.py'))
    names[row] = dict(vars(learner))
for row,code in jobs['advice'].items():   # after all cells: some bring bearclass, with which some cells run
    vars(learner).update(names[row])
    advice[row] = run(code, 'advice.py')[0]
Path('seen.json').write_text(json.dumps([setup, cells, advice]))
'''

rows = {known.name: known for known in KNOWN}


def python_of(known):
    "The part of an advice that is Python, not a line for the shell."
    return '\n'.join(line for line in known.now.split('\n') if not line.startswith(('%', '!')))


@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    "The error of each program as Python and as IPython print it; for each row the error of its advice, mostly ''."
    pytest.importorskip('fastai')
    here = tmp_path_factory.mktemp('heal')
    advice = {name: python_of(rows[name]) for name,_ in PROGRAMS}
    (here/'jobs.json').write_text(json.dumps(dict(setup=SETUP, cells=PROGRAMS, advice=advice)))
    env = {**os.environ, 'MPLBACKEND':'Agg', 'BEARCLASS_OFFLINE':'1'}
    env['PYTHONPATH'] = os.pathsep.join(os.path.abspath(p) for p in env.get('PYTHONPATH', '').split(os.pathsep) if p)
    run = subprocess.run([sys.executable, '-c', RUNNER], cwd=here, env=env, capture_output=True, text=True)
    assert run.returncode==0, run.stderr[-3000:]
    setup,*rest = json.loads((here/'seen.json').read_text())
    assert not setup, setup
    return rest


def test_every_row_is_raised_here():
    "At least 25 of them by a program that fails today; what is staged is counted apart."
    real = {name for name,_ in PROGRAMS} | set(COMMANDS)
    assert real | set(STAGED) | {'bearclass'}==set(rows)
    assert len(real)>=25


@pytest.mark.slow
@pytest.mark.parametrize('i', range(len(PROGRAMS)), ids=lambda i: f'{PROGRAMS[i][0]} {i}')
def test_a_program_is_recognised(seen, i):
    in_python,in_ipython = seen[0][i]
    answer = heal(in_python)
    assert answer.known==rows[PROGRAMS[i][0]], in_python
    assert f' of cell_{i}.py: ' in answer.place
    assert heal(in_ipython).known==answer.known, in_ipython


@pytest.mark.slow
@pytest.mark.parametrize('name', dict(PROGRAMS))
def test_the_advice_runs(seen, name):
    assert not seen[1][name]


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_is_recognised(name, tmp_path):
    (tmp_path/'script.py').write_text(SCRIPT)
    run = subprocess.run(COMMANDS[name], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode or name=='bootstrapping'
    assert heal(run.stderr).known==rows[name], run.stderr


@pytest.mark.parametrize('name', STAGED)
def test_a_staged_error_is_recognised(name):
    try: raise STAGED[name]()
    except Exception as e: answer = heal(e)
    assert answer.known==rows[name]
    assert answer.place.endswith('raise STAGED[name]()')


@pytest.mark.parametrize('known', KNOWN[1:], ids=lambda known: known.name)
def test_advice_is_short_and_has_a_source(known):
    assert known.source.split('/')[2] in ('issues', 'pull') and known.source.split('/')[3].isdigit()
    assert len(known.why)<=112 and known.now.count('\n')<=2


def test_an_unknown_error_says_where_and_what_to_ask_with():
    try: {}['bear']
    except KeyError as e: answer = heal(e)
    assert answer.known is None and answer.place.endswith("{}['bear']")
    assert 'not known' in str(answer) and 'bearclass doctor' in str(answer)


def test_the_last_known_error_of_a_chain_counts_and_what_followed_is_named():
    try:
        try:
            try: raise NameError("name 'create_cnn' is not defined")
            except NameError: raise AttributeError("module 'PIL.Image' has no attribute 'ANTIALIAS'")
        except AttributeError: 1/0
    except ZeroDivisionError as e: answer = heal(e)
    assert answer.known==rows['ANTIALIAS']
    assert answer.error.endswith("'ANTIALIAS'\nfollowed by ZeroDivisionError: division by zero")


def test_the_text_may_be_quoted_and_coloured():
    error = "> \x1b[31mModuleNotFoundError\x1b[39m: No module named 'fastbook'\n"
    assert heal(f'They wrote:\n> Traceback (most recent call last):\n{error}').known==rows['fastbook']


def test_heal_is_light():
    code = 'import sys, bearclass.heal; print({"torch", "fastai", "IPython"} & set(sys.modules))'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip()=='set()'


@pytest.mark.slow
def test_the_star_import_brings_the_magic():
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in 'from bearclass.all import *', '# look\\nbears.show_batch()', '%heal': shell.run_cell(cell)"""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert "NameError: name 'bears' is not defined\nYour code: line 2 of your cell: bears.show_batch()" in run.stdout


def test_the_command(tmp_path):
    "A file or a pipe; 0 for what is known, 1 for what is not, 2 for what is no error."
    bearclass = [sys.executable, '-c', 'import sys; from bearclass.cli import main; sys.exit(main())', 'heal']
    (tmp_path/'error.txt').write_text("NameError: name 'create_cnn' is not defined", encoding='utf-8')
    run = subprocess.run([*bearclass, tmp_path/'error.txt'], capture_output=True, text=True)
    assert run.returncode==0 and 'fastai 1' in run.stdout
    for text,status in ('KeyError: 3', 1), ('all is well', 2):
        run = subprocess.run(bearclass, input=text, capture_output=True, text=True)
        assert run.returncode==status and 'Traceback' not in run.stderr
