"A page of one's own widgets, as the course has it typed, served by Voila, with ipywidgets 8 and 7, in a real Chromium."
import re, sys
import pytest
from PIL import Image
from conftest import colour_bundle, free_port, started, write_notebook
from bearclass.core import InputError

pytest.importorskip('torch')
COLOURS = 'red', 'green', 'blue'

with_button = '''
btn_upload = widgets.FileUpload()
out_pl = widgets.Output()
lbl_pred = widgets.Label()
btn_run = widgets.Button(description='Classify')

def on_click_classify(change):
    img = PILImage.create(btn_upload.data[-1])
    out_pl.clear_output()
    with out_pl: display(img.to_thumb(128, 128))
    pred,pred_idx,probs = learn_inf.predict(img)
    lbl_pred.value = f'Prediction: {pred}; Probability: {probs[pred_idx]:.04f}'

btn_run.on_click(on_click_classify)
VBox([widgets.Label('Select your colour!'), btn_upload, btn_run, out_pl, lbl_pred])'''

by_itself = '''
import ipywidgets
own_upload, own_out, own_label = FileUpload(), Output(), Label()

def on_data_change(change):
    own_label.value = ''
    img = PILImage.create(own_upload.data[-1])
    own_out.clear_output()
    with own_out: display(img.to_thumb(128, 128))
    pred,pred_idx,probs = predictor.predict(img)
    own_label.value = f'It is {pred}: {probs[pred_idx]:.04f}, of {len(change.new)} file'

own_upload.observe(on_data_change, names=['data'])
display(VBox([Label(f'ipywidgets {ipywidgets.__version__}'), own_upload, own_out, own_label]))'''

beside = '''
import torch
from bearclass.quiz import quiz
from bearclass.scratch.draw import draw_digit
from bearclass.scratch.moving import explore_sgd
display(quiz('05'), explore_sgd(), draw_digit({'a coin': lambda x: torch.full((len(x), 2), .5)}))'''


@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    "A network that has learnt nothing, for pictures of three colours."
    from bearclass.all import from_folder, image_learner, tiny_cnn
    root = tmp_path_factory.mktemp('colours')/'data'
    for colour in COLOURS:
        (root/colour).mkdir(parents=True)
        for i in range(8): Image.new('RGB', (40+i, 40), colour).save(root/colour/f'{i}.png')
    return image_learner(from_folder(root, size=32, bs=4), tiny_cnn)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, learn):
    "What a learner has after an afternoon: an exported model in two forms, a picture, and the page."
    folder = tmp_path_factory.mktemp('mine')
    learn.export(folder/'export.pkl')
    colour_bundle(folder/'model')
    Image.new('RGB', (300, 200), 'blue').save(folder/'sky.png')
    opened = "learn_inf = load_learner('export.pkl')\npredictor = Predictor('model')"
    typed = 'from bearclass.all import *', opened, with_button, by_itself
    write_notebook(folder/'with_8.ipynb', *typed)
    write_notebook(folder/'with_7.ipynb', *typed, beside)   # with 8 these have tests of their own
    return folder


def choose(page, i, path):
    "Upload with the i-th button; it counts what has arrived."
    from playwright.sync_api import expect
    button = page.get_by_role('button', name='Upload').nth(i)
    with page.expect_file_chooser() as chooser: button.click()
    chooser.value.set_files(path)
    expect(button).to_contain_text('(1)', timeout=300_000)


def try_what_stands_beside(page):
    "A question, a slider, and the pad to draw a digit on."
    from playwright.sync_api import expect
    patience = dict(timeout=300_000)
    one,pad = page.locator('.bcq-one').first, page.locator('.bearclass-pad')
    one.get_by_role('radio').first.check()
    one.get_by_role('button', name='Check 1').click()
    expect(one.get_by_role('status')).to_contain_text(re.compile('Right|Not yet'), **patience)
    page.locator('.ui-slider-handle').first.press('End')   # the largest learning rate
    expect(page.get_by_text('diverging').first).to_be_visible(**patience)
    pad.locator('svg').hover()
    page.mouse.down()
    page.mouse.move(*(pad.locator('svg').bounding_box()[side]+60 for side in 'xy'))
    page.mouse.up()
    expect(pad.locator('img')).to_be_visible(**patience)


@pytest.mark.browser
@pytest.mark.slow
def test_typed_as_taught(ipywidgets, widgets_env, folder, learn, browser_page, screenshots, tmp_path):
    from playwright.sync_api import expect
    page, port, sky = browser_page, free_port(), folder/'sky.png'
    said = lambda text: expect(page.get_by_text(text, exact=True)).to_be_visible(timeout=300_000)
    label,i,probs = learn.predict(sky)
    options = f'--port={port}', '--Voila.ip=127.0.0.1', '--no-browser'
    voila = [sys.executable, '-m', 'voila', f'with_{ipywidgets}.ipynb', *options]
    with started(voila, port, cwd=folder, env={**widgets_env, 'BEARCLASS_CACHE':str(tmp_path)}):
        page.route(lambda url: '//127.0.0.1' not in url, lambda route: route.abort())   # Voila's own style sheets
        page.goto(f'http://127.0.0.1:{port}/', wait_until='commit')
        choose(page, 0, sky)
        expect(page.get_by_text(f'ipywidgets {ipywidgets}.')).to_be_visible()
        page.get_by_role('button', name='Classify').click()
        said(f'Prediction: {label}; Probability: {probs[i]:.04f}')
        choose(page, 1, sky)
        said('It is blue: 0.9647, of 1 file')
        expect(page.locator('.widget-output img')).to_have_count(2)
        if ipywidgets==7: try_what_stands_beside(page)
        for width in 1280, 390:
            page.set_viewport_size(dict(width=width, height=900))
            assert page.evaluate('document.documentElement.scrollWidth') <= width
            page.screenshot(path=screenshots/f'hand_built_{ipywidgets}_{width}.png', full_page=True)


def test_a_learner_as_it_is(learn, folder, capsys):
    "Right after training, with no bundle yet; the answer is the learner's own."
    from bearclass.all import classifier_app, load_learner, serve_app
    app = classifier_app(learn)
    assert "`export_bundle(learn, 'model')` keeps one" in capsys.readouterr().out
    label,_,probs = learn.predict(folder/'sky.png')
    answer = app.predictor.predict(folder/'sky.png')
    assert answer.label==label and abs(answer.probs-probs.numpy()).max()<1e-4
    with pytest.raises(InputError, match='1 to 65535'): serve_app(learn, port=0)
    with pytest.raises(InputError, match=r"export_bundle\(learn, 'model', golden="):   # it came without its pictures
        classifier_app(load_learner(folder/'export.pkl'))
