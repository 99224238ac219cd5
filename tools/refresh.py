"""Run notebooks in a real Jupyter kernel, offline, and save their outputs clean.

    python tools/refresh.py nbs/lessons/02_bears.ipynb ...

Outputs keep what teaches (text, tables, small pictures) and lose what does not: counts, timings of progress bars,
widget state, and the paths of this machine.
"""
import base64, io, json, os, re, sys, tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

notes = tempfile.TemporaryDirectory()   # a cache in which nothing is known from an earlier run
top = Path(__file__).resolve().parent.parent
quiet = dict(
    BEARCLASS_OFFLINE='1', BEARCLASS_PROGRESS='0', OMP_NUM_THREADS='1',
    PYTHONPATH=os.pathsep.join([str(top), str(top/'tools/offline')]), BEARCLASS_CACHE=notes.name)
paths = [(str(top)+'/', ''), (str(Path.home()), '~')]


def clean_text(s):
    "Without this machine's paths and without what a bar has overwritten."
    for old,new in paths: s = s.replace(old, new)
    s = re.sub(re.escape(tempfile.gettempdir())+r'/[\w.-]+/?', '', s)
    return '\n'.join(l.split('\r')[-1] for l in s.split('\n'))


def smaller_png(b64, enough=40_000):
    "The picture in 256 colours when it is large: a third of the size, and hardly a difference to see."
    if len(b64)<enough: return b64
    buf = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(b64))).convert('RGB').quantize(256).save(buf, 'PNG', optimize=True)
    return min(b64, base64.b64encode(buf.getvalue()).decode(), key=len)


def is_empty(out):
    "Whether an output shows nothing: a style sheet, or an empty box."
    page = out.get('data', {}).get('text/html', None)
    return page is not None and not re.sub(r'<style.*?</style>|<[^>]+>', '', page, flags=re.S).strip()


def clean_output(out):
    "The output to keep, or None."
    if out.output_type=='stream':
        if out.name=='stderr': return None
        return nbformat.v4.new_output('stream', name='stdout', text=clean_text(out.text))
    view = out.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
    if view and 'text/html' not in out.data: return None
    if is_empty(out): return None
    if 'execution_count' in out: out.execution_count = None
    if 'image/png' in out.data:
        out.data.pop('image/jpeg', None)   # Pillow offers both
        out.data['image/png'] = smaller_png(out.data['image/png'].replace('\n', ''))
    out.metadata = {}
    for k,v in out.data.items():
        if isinstance(v, str) and not k.startswith('image/'): out.data[k] = clean_text(v)
    return None if not ''.join(str(v) for v in out.data.values()).strip() else out


def merged(outs):
    "Neighbouring pieces of printed text as one."
    res = []
    for o in outs:
        if res and o.output_type==res[-1].output_type=='stream': res[-1].text += o.text
        else: res.append(o)
    return res


def refresh(path):
    "Run and save one notebook; an error in it stops here and saves nothing."
    nb = nbformat.read(path, as_version=4)
    run = nbformat.from_dict(json.loads(json.dumps(nb)))
    for c in run.cells:
        left_out = re.search(r'^#\|\s*(eval:\s*false|notest|network|slow|gpu)', c.source, re.M)
        if c.cell_type=='code' and left_out: c.source = ''
    place = {'metadata': {'path': str(Path(path).parent)}}
    NotebookClient(run, timeout=900, kernel_name='python3', resources=place).execute()
    for c,r in zip(nb.cells, run.cells):
        if c.cell_type!='code': continue
        c.outputs = merged(filter(None, map(clean_output, r.outputs)))
        c.execution_count,c.metadata = None,{}
    nb.metadata = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    text = nbformat.writes(nb)+'\n'
    Path(path).write_text(text, encoding='utf-8')
    print(f'{path}: {len(text)/1000:.0f} kB')


if __name__=='__main__':
    os.environ.update(quiet)
    for p in sys.argv[1:]: refresh(p)
