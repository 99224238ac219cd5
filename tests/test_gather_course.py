"The course's own calls, run against a loopback server, drawn pictures and cassettes."
import ast, importlib.util, warnings
from pathlib import Path
import pytest
from hypothesis import given, settings, strategies as st
from fastcore.foundation import L
from PIL import Image
from bearclass.core import InputError
from bearclass.gather import course
from bearclass.gather.course import (
    DownloadError, download_images, download_url, search_images_bing)
from bearclass.gather.fetch import FetchRules
from bearclass.manifest import latest_rows, manifest_path
from bearclass.gather.search import ImageResult, register_provider
from bearclass.gather.verify import verify_images
from bearclass.dataset import get_image_files
from conftest import tree
from hostile import HostileServer, jpeg

LOCAL = FetchRules(allow_local=True, tries=1, read_s=2., total_s=4.)
KEY = '0123456789abcdef0123456789abcdef'


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv('BEARCLASS_ALLOW_LOCAL', '1')
    warnings.filterwarnings('ignore', message='Bing image search was retired')


@pytest.fixture
def server():
    with HostileServer() as s: yield s


@pytest.fixture
def listed(server):
    "A provider that finds pictures on the loopback server, with their papers."
    from bearclass.gather.providers import PROVIDERS
    @register_provider('loopback')
    def find(term, n, ctx):
        first = dict(grizzly=0, black=100, teddy=200)[term.split()[0]]
        for i in range(first, first+min(n, 12)):
            yield ImageResult(
                server.url(f'/ok/{i}.jpg?size=l'), page_url=server.url('/page'), creator='Zoë', license='by',
                title=f'{term} {i}')
    yield 'loopback'
    PROVIDERS.pop('loopback', None)


# --- the book

def test_the_books_cells(tmp_path, server, listed):
    results = search_images_bing('XXX', 'grizzly bear', provider=listed)
    ims = results.attrgot('contentUrl')
    assert type(ims) is L and len(ims)==12
    dest = tmp_path/'images/grizzly.jpg'
    download_url(ims[0], dest)
    with Image.open(dest) as im: assert im.size==(64, 64)
    bear_types = 'grizzly','black','teddy'
    path = tmp_path/'bears'
    if not path.exists():
        path.mkdir()
        for o in bear_types:
            dest = (path/o)
            dest.mkdir(exist_ok=True)
            results = search_images_bing('XXX', f'{o} bear', provider=listed)
            report = download_images(dest, urls=results.attrgot('contentUrl'))
            assert (report.saved, report.addresses)==(12, 12)
    fns = get_image_files(path)
    assert type(fns) is L and len(fns)==36 and fns==fns.sorted() and {f.parent.name for f in fns}==set(bear_types)
    (path/'black/no picture.jpg').write_bytes(b'<html>')
    failed = verify_images(get_image_files(path))
    assert failed==[path/'black/no picture.jpg']
    failed.map(Path.unlink)
    assert len(get_image_files(path))==36
    rows = latest_rows(path).values()   # one manifest for all classes, and nothing was forgotten on the way
    assert {(r['creator'], r['license'], r['provider']) for r in rows}=={('Zoë', 'by', 'loopback')}
    assert {r['label'] for r in rows}==set(bear_types) and all('?size=l' in r['url'] for r in rows)


def test_everything_on_one_cassette(tmp_path, server, listed):
    def lesson(path, **tape):
        results = search_images_bing(KEY, 'grizzly bear', 64, 6, provider=listed, **tape)
        report = download_images(path/'grizzly', urls=results.attrgot('contentUrl'), **tape)
        return report.saved, download_url(results[0], path/'one.jpg', **tape).read_bytes()
    first = lesson(tmp_path/'a', record=tmp_path/'tape')
    hits = sum(server.hits.values())
    assert lesson(tmp_path/'b', replay=tmp_path/'tape')==first and sum(server.hits.values())==hits
    assert not any(KEY.encode() in b for b in tree(tmp_path).values())   # neither in a manifest nor on the cassette


# --- the older course

def test_the_older_courses_cells(tmp_path, server):
    path = tmp_path/'data/bears'
    path.mkdir(parents=True)
    bad = ['/404/1.jpg', '/html-as-image/1.jpg', '/truncated/1.jpg', '/hang/1.jpg']
    for k,c in enumerate(['teddys', 'grizzly']):
        urls = [server.url(p) for p in [*(f'/ok/{100*k+i}.jpg?x=1&y=2' for i in range(5)), *bad]]
        (path/f'urls_{c}.txt').write_text('\n'.join([*urls, '', 'data:image/png;base64,AAAA']))
        report = download_images(path/f'urls_{c}.txt', path/c, max_pics=200, rules=LOCAL)
        assert (report.saved, report.failed, report.addresses)==(5, 5, 10)
        assert set(report.reasons)=={'http 404', 'not an image', 'truncated', 'timeout', 'not http'}
        assert verify_images(path/c, delete=True, max_size=500)==[] and len(get_image_files(path/c))==5
    before,hits = tree(path),sum(server.hits.values())
    download_images(path/'urls_grizzly.txt', path/'grizzly', max_pics=200, rules=LOCAL)
    assert tree(path)==before and sum(server.hits.values())==hits   # the cell run again


# --- shapes

def test_names_are_fastais():
    spec = importlib.util.find_spec('fastai')
    source = (Path(spec.submodule_search_locations[0])/'vision/utils.py').read_text()
    theirs = {f.name: [a.arg for a in f.args.args] for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)}
    assert theirs['download_images']==course._book
    if 'search_images_bing' in theirs: assert theirs['search_images_bing']==course._orders[True]


def test_where_the_diary_lies(tmp_path, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    one = [server.url('/ok/1.jpg')]
    download_images('loose', urls=one)
    assert manifest_path('loose').exists() and not manifest_path('.').exists()
    download_images('bears/grizzly', urls=one)
    assert manifest_path('bears').exists() and not manifest_path('bears/grizzly').exists()
    monkeypatch.chdir(tmp_path/'bears')
    download_images('black', urls=[server.url('/ok/2.jpg')])   # the dataset goes on where its diary is
    assert not manifest_path('black').exists() and {r['label'] for r in latest_rows('.').values()}=={'grizzly', 'black'}
    twice = download_images('teddy', urls=one)
    assert (twice.duplicate, len(twice.two_classes))==(1, 1)


# --- one file

def test_download_url(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert download_url(server.url('/ok/7.jpg?x=1'))==Path('7.jpg') and Path('7.jpg').read_bytes()==jpeg(7)
    assert download_url(server.url('/ok/8.jpg'), 'deep/er/8.jpg', show_progress=False)==Path('deep/er/8.jpg')
    Path('7.jpg').write_bytes(b'old')
    for path,word in ('/truncated/7.jpg', 'truncated'), ('/huge/7.jpg', 'max_bytes'), ('/hang/7.jpg', 'timeout'):
        with pytest.raises(DownloadError, match=word): download_url(server.url(path), '7.jpg', rules=LOCAL)
    with pytest.raises(OSError): download_url('http://[', '7.jpg')   # what urllib raised is what is raised here
    assert Path('7.jpg').read_bytes()==b'old' and {f.name for f in tmp_path.iterdir()}=={'7.jpg', 'deep'}


# --- keys

@settings(max_examples=200)
@given(
    st.text('0123456789abcdefABCDEF-_', min_size=24, max_size=60),
    st.text('abcdefg ', min_size=1, max_size=20).filter(str.strip), st.integers(1, 100))
def test_a_key_is_never_taken_for_words(key, term, n):
    read = course._bing_arguments
    assert read((key, term), {})==read((term, key), {})==read((key,), dict(term=term))==(term, 128, 150)
    assert read((key, term, 99, n), {})==(term, 99, n) and read((term, key, n), {})==(term, 128, n)
    for args in (key, key), (key,), (key, 5), (key, term, n, n, n):
        with pytest.raises(InputError) as e: read(args, {})
        assert key not in str(e.value)
