"What is too heavy for the notebooks on gradient descent: real MNIST, many seeds, films and widgets in a browser."
import os, subprocess, sys

import pytest

from conftest import REAL, needs
from bearclass.scratch.baseline import PixelSimilarity
from bearclass.scratch.classifier import LinearClassifier, TwoLayerNet, stack_3_7
from bearclass.scratch.moving import animate_fit, roll_ball
from bearclass.scratch.recorder import record
from bearclass.scratch.sabotage import BUGS, NO_BUG, check_answer, evidence, sabotage

needs_mnist = needs('mnist')
pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def mnist():
    "Threes and sevens of MNIST, as many as MNIST_SAMPLE has: (x, y), (x_valid, y_valid)."
    from bearclass.scratch.digits import load_digits_3_7
    d = load_digits_3_7(idx=REAL/'mnist')
    return stack_3_7(d.train_3, d.train_7), stack_3_7(d.valid_3, d.valid_7)


@needs_mnist
def test_models_beat_the_baseline_on_mnist(mnist):
    "The figures that the classifier's notebook states: three seeds, 12,396 to learn from, 2,038 to check with."
    train,valid = mnist
    assert (len(train[1]), len(valid[1]))==(12_396, 2_038)
    baseline = PixelSimilarity('l1').fit(*train).score(*valid)
    assert abs(baseline-.951)<.002
    for model,least in ((LinearClassifier, .96), (TwoLayerNet, .98)):
        scores = [model(seed=s, positive=3).fit(*train).score(*valid) for s in range(3)]
        print(model.__name__, scores)
        assert min(scores)>=least and min(scores)>baseline+.01


@needs_mnist
def test_recording_of_a_real_run(mnist):
    "A network on MNIST is kept in about a hundred moments."
    train,valid = mnist
    rec = record(TwoLayerNet(n_hidden=10, epochs=1), *train, valid=(valid[0][:200], valid[1][:200]))
    assert 90<=len(rec)<=220 and rec.scores[-1]>.9


@pytest.mark.parametrize('bug', (*BUGS, NO_BUG))
def test_every_bug_shows_its_sign_and_no_other(bug):
    "Six seeds beyond those in the notebook; the honest run shows none."
    for seed in range(10, 16):
        trace = sabotage(bug, seed)
        assert [name for name,(seen,_) in evidence(trace).items() if seen]==([] if bug==NO_BUG else [bug]), seed
        assert check_answer(trace, bug).right


def test_import_changes_nothing():
    "No seed, no number of threads, no plot style, no figure."
    code = '''
import torch, matplotlib, matplotlib.pyplot as plt, sys
state = lambda: (torch.get_num_threads(), torch.get_rng_state().sum().item(), dict(matplotlib.rcParams))
torch.manual_seed(3)
before = state()
from bearclass.scratch import sgd, classifier, moving, recorder, sabotage
assert before==state() and not plt.get_fignums()
heavy = {"fastai", "ipywidgets", "pandas", "sklearn"} & set(sys.modules)
assert not heavy, heavy
'''
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.browser
def test_film_plays_offline(tmp_path, browser_page, screenshots):
    "The film's page asks no server for anything, and its buttons and slider work."
    film = animate_fit(roll_ball(momentum=.9), max_frames=12).data
    (tmp_path/'film.html').write_text('<meta charset="utf-8">'+film, encoding='utf-8')
    page,asked,errors = browser_page, [], []
    page.on('request', lambda r: asked.append(r.url) if not r.url.startswith(('data:', 'file:')) else None)
    page.on('pageerror', lambda e: errors.append(str(e)))
    page.goto(f'file://{tmp_path}/film.html')
    frame = lambda: page.locator('.animation img').get_attribute('src')
    page.wait_for_function("document.querySelector('.animation img').src.startsWith('data:image/png')")
    first = frame()
    page.get_by_role('button', name='Next frame').click()
    second = frame()
    page.get_by_role('button', name='Last frame').click()
    last = frame()
    assert len({first, second, last})==3
    page.get_by_role('button', name='First frame').click()
    page.get_by_role('button', name='Play', exact=True).click()
    page.wait_for_function(f"document.querySelector('.animation img').src.length!={len(first)}")
    assert all(t.strip() for t in page.locator('.anim-buttons button').all_inner_texts())    # no button is empty
    page.screenshot(path=str(screenshots/'film.png'))
    assert asked==errors==[]


@pytest.mark.browser
def test_widgets_in_a_browser(tmp_path, browser_page, screenshots):
    "Sliders and scrubber in a served page: each picture follows its controls."
    from conftest import free_port, started, write_notebook
    cells = ['import torch; torch.set_num_threads(1)\nfrom bearclass.scratch.moving import explore_sgd\nexplore_sgd()',
             'from bearclass.scratch.classifier import LinearClassifier\n'
             'from bearclass.scratch.recorder import record, scrub\n'
             'x,y = torch.rand(40, 28, 28), torch.arange(40)%2\nscrub(record(LinearClassifier(epochs=2), x, y))']
    write_notebook(tmp_path/'widgets.ipynb', *cells)
    port = free_port()
    env = {**os.environ, 'BEARCLASS_OFFLINE':'1', 'OMP_NUM_THREADS':'1'}
    cmd = [sys.executable, '-m', 'voila', tmp_path/'widgets.ipynb', '--no-browser', f'--port={port}']
    with started(cmd, port, env=env):
        page = browser_page
        page.goto(f'http://127.0.0.1:{port}/')
        pictures = page.locator('img.widget-image')
        pictures.nth(1).wait_for()
        shown = lambda i: pictures.nth(i).get_attribute('src')
        is_new = "([i, old]) => document.querySelectorAll('img.widget-image')[i].src!=old"
        changed = lambda i, before: page.wait_for_function(is_new, arg=[i, before])
        handles = page.locator('.noUi-handle')
        before = shown(0)
        handles.nth(0).focus()
        page.keyboard.press('End')                                   # the largest learning rate
        page.get_by_text('diverging').first.wait_for()
        changed(0, before)
        before = shown(1)
        handles.nth(3).focus()
        page.keyboard.press('End')
        changed(1, before)
        assert all(pictures.nth(i).bounding_box()['width']<=900 for i in range(2))       # not stretched across the page
        page.set_viewport_size(dict(width=1280, height=2200))
        page.screenshot(path=str(screenshots/'scratch_widgets.png'))
