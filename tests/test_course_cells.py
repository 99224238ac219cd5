"Cells of earlier years, row by row of the table: an old name answers and is told of once, or its error has the line."
from datetime import datetime
import pytest

pytest.importorskip('torch')
from bearclass.core import InputError
from bearclass.learn.course import OLD
from bearclass.samples.datasets import digits_folder

pytestmark = pytest.mark.usefixtures('one_thread')
cells = {
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
    'learn.data': 'learn.data.c',
    'max_lr': 'learn.fit_one_cycle(1, max_lr=slice(1e-4))',
    'learn.recorder.plot_losses': 'learn.recorder.plot_losses()',
    'learn.recorder.plot': 'learn.recorder.plot()',
    'DatasetFormatter': 'DatasetFormatter().from_toplosses(learn)',
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


def test_nothing_of_today_is_replaced():
    import bearclass.learn.course, fastai.vision.all
    new = set(bearclass.learn.course.__all__)
    assert not new & set(vars(fastai.vision.all))


@pytest.mark.parametrize('make', ['image_learner', 'vision_learner'])
def test_fewer_pictures_than_one_batch(make, notebook):
    exec("block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,\n"
         "                  splitter=GrandparentSplitter(), item_tfms=Resize(32))\n"
         "few = block.dataloaders(path, bs=64)", notebook)
    with pytest.raises(InputError, match='12 training pictures with bs=64'):
        exec(f'{make}(few, resnet18, pretrained=False)', notebook)
