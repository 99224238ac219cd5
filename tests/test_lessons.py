"The lessons once more as a learner runs them: in a real Jupyter kernel, from the top, offline."
import importlib.util
from pathlib import Path

import nbformat, pytest
from nbclient import NotebookClient

lessons = Path(__file__).resolve().parent.parent/'nbs/lessons'


def runs_in_the_lab(name, request):
    "Whether `test_lab_browser.py` runs the same lesson here, in JupyterLab."
    if name!='02_bears.ipynb' or not all(map(importlib.util.find_spec, ('jupyterlab', 'playwright'))): return False
    try: return bool(request.getfixturevalue('chromium_path'))
    except pytest.skip.Exception: return False


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(p.name for p in lessons.glob('*.ipynb')))
def test_lesson_runs_in_a_kernel(name, request, tmp_path):
    if runs_in_the_lab(name, request): pytest.skip('test_lab_browser.py runs it in the lab')
    before = sorted(lessons.rglob('*'))
    nb = nbformat.read(lessons/name, as_version=4)
    for c in nb.cells:
        if c.cell_type=='code' and c.source.startswith('#| eval: false'): c.source = ''
    NotebookClient(nb, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}).execute()
    outputs = [o for c in nb.cells if c.cell_type=='code' for o in c.outputs]
    widgets = [o for o in outputs if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]
    assert widgets or name!='02_bears.ipynb', 'its page is shown as a widget'
    assert sorted(lessons.rglob('*'))==before
    assert {p.name for p in tmp_path.iterdir()}<={'data'}      # a lesson leaves nothing else behind
