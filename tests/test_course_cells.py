"Cells of earlier years, row by row of the table: an old name answers and is told of once, or its error has the line."
import subprocess, sys
from datetime import datetime
import pytest

pytest.importorskip('torch')
from bearclass.core import InputError
from bearclass.learn.course import OLD
from bearclass.samples.datasets import digits_folder

pytestmark = pytest.mark.usefixtures('one_thread')
cells = {
    'fastai.vision': 'from fastai.vision import *',
    'fastai.widgets': 'from fastai.widgets import *',
    'fastbook': 'import fastbook; fastbook.setup_book()',
    'duckduckgo_search': 'from duckduckgo_search import ddg_images',
    'ImageDataBunch': 'ImageDataBunch.from_folder(path, size=26, bs=4)',
    'ImageDataBunch.single_from_classes': 'ImageDataBunch.single_from_classes(path, ["3", "7"], size=26)',
    'ImageList': 'ImageList.from_folder(path).split_by_rand_pct().label_from_folder()',
    'ImageItemList': 'ImageItemList(fnames)',
    'get_transforms': 'get_transforms(max_warp=0)',
    'open_image': 'open_image(fnames[0])',
    'data.classes': 'data.classes',
    'data.normalize': 'data.normalize(imagenet_stats)',
    'data.valid_ds.x': 'data.valid_ds.x[0]',
    'rows': 'data.show_batch(rows=2, figsize=(2, 2))',
    'create_cnn': 'create_cnn(data, tiny_cnn, metrics=error_rate)',
    'callback_fns': 'cnn_learner(data, resnet18, pretrained=False, callback_fns=partial(ShowGraphCallback))',
    'ShowGraph': 'ShowGraph()',
    'learn.data': 'learn.data.c',
    'max_lr': 'learn.fit_one_cycle(1, max_lr=slice(1e-4))',
    'learn.recorder.plot_losses': 'learn.recorder.plot_losses()',
    'learn.recorder.plot': 'learn.recorder.plot()',
    'DatasetFormatter': 'DatasetFormatter().from_toplosses(learn)',
    'DatasetType': 'learn.get_preds(ds_type=DatasetType.Train)',
    'plt.scatter(x, x@a)': 'plt.scatter(x, x@a)',
    'get_image_files_sorted': 'get_image_files_sorted(path)',
    'btn_upload.data': 'PILImage.create(btn_upload.data[-1])',
    'gv': "gv('model -> predictions')",
}


@pytest.fixture(scope='module')
def notebook(tmp_path_factory):
    "What a notebook knows after its first cells."
    names = {}
    exec('from bearclass.all import *', names)
    names['path'] = digits_folder(tmp_path_factory.mktemp('data')/'digits', limit=6)
    exec("fnames = get_image_files(path); img = fnames[0]\n"
         "data = from_folder(path, train='train', valid='valid', size=32, bs=4)\n"
         "learn = image_learner(data, tiny_cnn)\n"
         "learn.fit_one_cycle(1, 1e-3)\n"
         "x,a = torch.ones(3, 1), nn.Parameter(torch.ones(1))\n"
         "btn_upload = widgets.FileUpload()", names)
    content = memoryview(names['img'].read_bytes())
    file = dict(name='3.png', type='image/png', size=len(content), content=content, last_modified=datetime.now())
    names['btn_upload'].value = [file]
    return names


@pytest.mark.parametrize('row', OLD.values(), ids=OLD)
def test_old_name(row, notebook, capsys):
    try:
        for _ in range(2): exec(cells[row.name], notebook)
        said = capsys.readouterr().out
    except InputError as e: said = str(e)
    assert said.count(f'`{row.name}`')==said.count(f'`{row.now}`')==1


@pytest.mark.parametrize('row', OLD.values(), ids=OLD)
def test_line_of_today(row, notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if row.name=='gv': pytest.importorskip('graphviz')
    exec(row.now, notebook)


shared = '''
import inspect
import bearclass.all, fastai.vision.all
ours,theirs = vars(bearclass.all),vars(fastai.vision.all).copy()
both = {n: o for n,o in ours.items() if not n.startswith('_') and theirs.get(n, o) is not o}
for name,obj in both.items():
    needed = [p for p in inspect.signature(theirs[name]).parameters.values() if p.default is p.empty and p.kind<2]
    inspect.signature(obj, follow_wrapped=False).bind(*needed)   # what fastai's must be given, ours takes
from bearclass.all import *
from fastai.text.all import *
assert (untar_data, get_image_files) == (both['untar_data'], both['get_image_files'])
from fastai import *
from fastai.vision import *
from fastai.vision.all import *
from fastai.vision.widgets import *
assert all(globals()[name] is obj for name,obj in both.items())
assert ImageClassifierCleaner is ours['ImageClassifierCleaner'] and carousel
assert not {'mse', 'sgd_step'} & set(both)
'''


def test_what_shares_a_name_with_fastai_can_stand_for_it():
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', shared], capture_output=True, text=True)
    assert not run.returncode, run.stderr
    doors = ' '.join(line for line in run.stdout.splitlines() if 'of bearclass' in line)
    for name in 'untar_data', 'vision_learner', 'ImageClassifierCleaner': assert doors.count(f'`{name}`')==1


@pytest.mark.parametrize('make', ['image_learner', 'vision_learner'])
def test_fewer_pictures_than_one_batch(make, notebook):
    exec("block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,\n"
         "                  splitter=GrandparentSplitter(), item_tfms=Resize(32))\n"
         "few = block.dataloaders(path, bs=64)", notebook)
    with pytest.raises(InputError, match='12 training pictures with bs=64'):
        exec(f'{make}(few, resnet18, pretrained=False)', notebook)
