"Threats to the app: files it must not give out, code and errors it must not show, strangers, and processes that stay."
import json, time, urllib.error, urllib.request
import psutil
import pytest
from conftest import free_port, here_env, serving, started, write_notebook
from test_app_browser import expected, label, upload, visit
from bearclass.ship import app as A
from bearclass.ship.predictor import Predictor

PICTURE = 'golden/0.png'


class Stay(urllib.request.HTTPRedirectHandler):
    "No redirect is followed: the status is what the address itself gets."
    def redirect_request(self, *args): return None

def get(url, *handlers):
    "Status and text."
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=300) as r: return r.status, r.read().decode()
    except urllib.error.HTTPError as e: return e.code, e.read().decode()


def test_nothing_but_the_page_is_given_out(app_url, small_bundle):
    inside = [f'bundle/{f}' for f in Predictor(small_bundle).bundle.files]
    names = [A.APP_NOTEBOOK, 'voila.json', 'texts.json', 'bundle/', *inside]
    assert any(n.endswith('.png') or n.endswith('.jpg') for n in names)
    for name in names:
        for place in 'voila/files/', '', 'voila/render/', 'static/', 'voila/static/../../', 'voila/files/%2e%2e/app/':
            assert get(app_url+place+name)[0] in (403, 404), place+name
    for path in ('api/contents', 'api/kernels', 'api/sessions', 'voila/tree', 'voila/api/contents', 'files/', 'tree',
                 'voila/files/../voila.json'):
        assert get(app_url+path)[0] in (403, 404), path

def test_no_source_and_no_traceback(small_bundle, tmp_path):
    "A notebook that fails with a secret in its code, its values and its error."
    folder,port = A.write_app_folder(small_bundle, tmp_path/'site'), free_port()
    fails = "key = 'se'+'cret'\nraise ValueError(f'{key} in {__name__}')"
    write_notebook(folder/A.APP_NOTEBOOK, "print('this ran')", fails)
    with started(A.voila_command(port), port, cwd=folder, env=here_env()):
        text = get(f'http://127.0.0.1:{port}/')[1]
    assert 'this ran' in text and 'error when executing cell' in text
    assert not any(word in text for word in ('secret', 'cret', 'ValueError', 'Traceback', '__name__', str(tmp_path)))

@pytest.mark.browser
def test_strangers_need_the_token(small_bundle, browser_page):
    with serving(small_bundle, token='a secret/+') as (url,_):
        for guess in '', '?token=wrong', '?token=': assert get(url+guess, Stay)[0] in (302, 401, 403)
        visit(browser_page, url+'?token=a%20secret%2F%2B')
        upload(browser_page, small_bundle/PICTURE)
        assert label(browser_page) == expected(small_bundle, small_bundle/PICTURE)

def is_kernel(p):
    try: return 'ipykernel_launcher' in ' '.join(p.cmdline())
    except psutil.Error: return False   # it has just ended

def kernels(proc): return [p for p in psutil.Process(proc.pid).children(recursive=True) if is_kernel(p)]

def wait_for_kernels(proc, n):
    "Return when there are `n`; the bound is for a server that hangs."
    end = time.monotonic()+300
    while len(kernels(proc))!=n:
        assert time.monotonic()<end, f'{len(kernels(proc))} kernels, not {n}'
        time.sleep(.2)

@pytest.mark.browser
def test_kernels_end_after_the_visit(small_bundle, browser, tmp_path):
    "The folder's settings, with the five minutes of patience cut short. One kernel waits for the next visitor."
    patience = 15   # seconds: room for a slow browser between the kernel's answer and its own connection
    port = free_port()
    folder = A.write_app_folder(small_bundle, tmp_path/'site')
    config = json.loads((folder/'voila.json').read_text())
    soon = dict(cull_idle_timeout=patience, cull_interval=1)
    config['MappingKernelManager'] = {k: soon[k] for k in config['MappingKernelManager']}
    (folder/'voila.json').write_text(json.dumps(config))
    with started(A.voila_command(port), port, cwd=folder, env=here_env()) as proc:
        context = browser.new_context()
        page = context.new_page()
        visit(page, f'http://127.0.0.1:{port}/')
        wait_for_kernels(proc, 2)
        time.sleep(patience+3)
        upload(page, small_bundle/PICTURE)   # a page that is looked at keeps its kernel
        assert label(page) == expected(small_bundle, small_bundle/PICTURE)
        context.close()
        wait_for_kernels(proc, 1)
