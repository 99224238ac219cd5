"The course's own calls, run against a loopback server, drawn pictures and cassettes."
import ast, asyncio, importlib.util, inspect, json, sys, warnings
from pathlib import Path
import pytest
from hypothesis import given, settings, strategies as st
from fastcore.foundation import L
from PIL import Image
from bearclass.core import InputError, MissingError, OfflineError
from bearclass.gather import course
from bearclass.gather.course import Address, DownloadError, download_images, download_url, search_images_bing, search_images_ddg
from bearclass.gather.fetch import FetchRules
from bearclass.gather.manifest import latest_rows, manifest_path
from bearclass.gather.search import ImageResult, register_provider
from bearclass.gather.verify import get_image_files, verify_images
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
    from bearclass.gather import search
    @register_provider('loopback')
    def find(term, n, ctx):
        first = dict(grizzly=0, black=100, teddy=200)[term.split()[0]]
        for i in range(first, first+min(n, 12)): yield ImageResult(server.url(f'/ok/{i}.jpg?size=l'), page_url=server.url('/page'), creator='Zoë', license='by', title=f'{term} {i}')
    yield 'loopback'
    search._providers.pop('loopback', None)


def tree(root): return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob('*') if f.is_file()}


# --- the book

def test_the_books_cells(tmp_path, server, listed):
    key = 'XXX'
    results = search_images_bing(key, 'grizzly bear', provider=listed)
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
            results = search_images_bing(key, f'{o} bear', provider=listed)
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
    assert len(rows)==36 and {(r['creator'], r['license'], r['provider']) for r in rows}=={('Zoë', 'by', 'loopback')} and {r['label'] for r in rows}==set(bear_types)
    assert all('?size=l' in r['url'] for r in rows)


def test_the_helper_without_a_key(tmp_path, server, listed):
    urls = search_images_ddg('teddy bear', max_images=5, provider=listed)
    assert type(urls) is L and len(urls)==5 and all(isinstance(u, str) and u.startswith('http://127') for u in urls)
    assert json.loads(json.dumps(list(urls)))==list(urls)   # plain text for everyone else
    assert download_images(tmp_path/'bears/teddy', urls=urls[:3]).saved==3
    assert download_images(tmp_path/'bears/teddy', urls=[str(u)+'' for u in urls]).saved==5   # and without the papers too


def test_everything_on_one_cassette(tmp_path, server, listed):
    def lesson(path, **tape):
        for o in 'grizzly', 'black':
            results = search_images_bing(KEY, f'{o} bear', 64, 6, provider=listed, **tape)
            report = download_images(path/o, urls=results.attrgot('contentUrl'), **tape)
        one = download_url(results[0], path/'one.jpg', **tape)
        return report, one.read_bytes()
    report,one = lesson(tmp_path/'a', record=tmp_path/'tape')
    hits = sum(server.hits.values())
    again,two = lesson(tmp_path/'b', replay=tmp_path/'tape')
    assert sum(server.hits.values())==hits and again.saved==report.saved==6 and one==two
    pictures = lambda root: {n: b for n,b in tree(root).items() if n.endswith('.jpg')}
    assert pictures(tmp_path/'a')==pictures(tmp_path/'b') and len(pictures(tmp_path/'a'))==13
    assert not any(KEY.encode() in b for b in tree(tmp_path).values())   # neither in a manifest nor on the cassette


def test_in_a_running_loop(tmp_path, server):
    async def cell(): return download_images(tmp_path/'bears/teddy', urls=[server.url('/ok/1.jpg')])
    assert asyncio.run(cell()).saved==1


# --- the older course

def test_the_older_courses_cells(tmp_path, server):
    path = tmp_path/'data/bears'
    classes = ['teddys', 'grizzly', 'black']
    for k,folder in enumerate(classes):
        file = f'urls_{folder}.txt'
        path.mkdir(parents=True, exist_ok=True)
        bad = [server.url(p) for p in ('/404/1.jpg', '/html-as-image/1.jpg', '/truncated/1.jpg', '/hang/1.jpg')]
        (path/file).write_text('\n'.join([server.url(f'/ok/{100*k+i}.jpg?x=1&y=2') for i in range(5)] + bad + ['', 'data:image/png;base64,AAAA']))
        dest = path/folder
        dest.mkdir(parents=True, exist_ok=True)
        report = download_images(path/file, dest, max_pics=200, rules=LOCAL)
        assert (report.saved, report.failed, report.addresses)==(5, 5, 10)
        assert set(report.reasons)=={'http 404', 'not an image', 'truncated', 'timeout', 'not http'}
    for c in classes:
        assert verify_images(path/c, delete=True, max_size=500)==[]
    assert {f.parent.name: len(list(g)) for c in classes for f,g in [(path/c/'x', get_image_files(path/c))]}==dict.fromkeys(classes, 5)
    before,hits = tree(path),sum(server.hits.values())
    for folder in classes: download_images(path/f'urls_{folder}.txt', path/folder, max_pics=200, rules=LOCAL)
    assert tree(path)==before and sum(server.hits.values())==hits   # the cell run again


def test_errors_are_shown_with_no_workers(tmp_path, server, capsys):
    file = tmp_path/'urls.txt'
    file.write_text('\n'.join([server.url('/404/1.jpg'), server.url('/ok/1.jpg'), server.url('/svg/1')]))
    report = download_images(file, tmp_path/'bears/black', max_pics=20, max_workers=0)
    out = capsys.readouterr().out
    assert '/404/1.jpg: http 404' in out and '/svg/1: not an image' in out and report.saved==1 and server.most_open==1


def test_max_pics_says_what_it_left_out(tmp_path, server):
    file = tmp_path/'urls.txt'
    file.write_text('\n'.join(server.url(f'/ok/{i}.jpg') for i in range(9)))
    report = download_images(tmp_path/'bears/black', url_file=file, max_pics=4)
    assert report.saved==4 and '5 more addresses were left out' in report.note and '5 more' in report._repr_html_()


@pytest.mark.parametrize('workers', [1, 3])
def test_workers_are_requests_at_a_time(tmp_path, workers):
    with HostileServer(latency=(.03, .03)) as s:
        download_images(tmp_path/'bears/a', urls=[s.url(f'/ok/{i}.jpg') for i in range(12)], n_workers=workers)
        assert s.most_open==workers


# --- shapes

def test_names_are_fastais():
    spec = importlib.util.find_spec('fastai')
    source = (Path(spec.submodule_search_locations[0])/'vision/utils.py').read_text()
    theirs = {f.name: [a.arg for a in f.args.args] for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)}
    assert theirs['download_images']==course._book
    assert set(course._book) <= set(inspect.signature(download_images).parameters)
    if 'search_images_bing' in theirs: assert theirs['search_images_bing']==course._orders[True]


PATHS = st.sampled_from(['file', 'other', 'folder', 'missing', 'list', 'L', 'none', 'number', 'address'])

@settings(max_examples=150, deadline=None)
@given(args=st.lists(PATHS, max_size=3), kw=st.dictionaries(st.sampled_from(['dest', 'url_file', 'urls', 'max_pics', 'max_workers']), PATHS, max_size=3))
def test_any_mix_is_understood_or_refused(tmp_path_factory, args, kw):
    tmp = tmp_path_factory.mktemp('mix')
    for n in 'file', 'other': (tmp/n).write_text('https://example.org/1.jpg\n')
    (tmp/'folder').mkdir()
    value = dict(file=tmp/'file', other=tmp/'other', folder=tmp/'folder', missing=tmp/'missing', list=['https://example.org/1.jpg'], L=L('https://example.org/1.jpg'), none=None, number=5,
                 address='https://example.org/1.jpg')
    try: dest,source = course._sources(course._by_name([value[a] for a in args], {k: value[v] for k,v in kw.items()}))
    except (InputError, MissingError) as e:
        assert e.todo
        return
    assert isinstance(dest, Path) and not dest.is_file()
    named = {value[a] for a in [*args, *kw.values()] if a in ('file', 'other', 'folder', 'missing')}
    assert dest in named and not (course._is_path(source) and Path(source)==dest)


def test_bad_calls_ask_nobody(tmp_path, server):
    file,other = tmp_path/'a.txt', tmp_path/'b.txt'
    for f in file, other: f.write_text(server.url('/ok/1.jpg'))
    for args,kw,word in (((), {}, 'no addresses'), ((tmp_path/'d',), {}, 'no addresses'), ((file, other), {}, 'two files'), ((tmp_path/'d', tmp_path/'gone.txt'), {}, 'no file'),
                         ((tmp_path/'d',), dict(urls=[], url_file=file), 'both'), ((file,), {}, 'no folder'), ((tmp_path/'d', 5), {}, '5'), ((tmp_path/'d',), dict(urls=[7]), 'int 7'),
                         ((tmp_path/'d', None, None, 5, 5, 5, True, 8), {}, '8 arguments'), ((['http://x/1'], file), {}, 'is a file')):
        with pytest.raises((InputError, MissingError), match=word): download_images(*args, **kw)
    assert not server.hits and not (tmp_path/'d').exists()


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
    for path,word in (('/404/1.jpg', 'http 404'), ('/truncated/7.jpg', 'truncated'), ('/huge/7.jpg', 'max_bytes'), ('/hang/7.jpg', 'timeout'), ('/redirect-loop', 'redirect loop')):
        with pytest.raises(DownloadError, match=word): download_url(server.url(path), '7.jpg', rules=LOCAL)
    with pytest.raises(OSError): download_url('http://[', '7.jpg')   # what urllib raised is what is raised here
    with pytest.raises(OfflineError): download_url('http://example.com/a.jpg', '7.jpg')
    assert Path('7.jpg').read_bytes()==b'old' and {f.name for f in tmp_path.iterdir()}=={'7.jpg', 'deep'}
    assert download_url(server.url('/huge/7.bin'), 'big', rules=FetchRules(max_bytes=2**25)).stat().st_size==22*2**20


def test_private_addresses_are_refused_by_default(tmp_path, server, monkeypatch):
    monkeypatch.delenv('BEARCLASS_ALLOW_LOCAL')
    with pytest.raises(DownloadError, match='refused address'): download_url(server.url('/ok/1.jpg'), tmp_path/'x')
    assert download_images(tmp_path/'bears/a', urls=[server.url('/ok/1.jpg')]).reasons=={'refused address':1} and not server.hits


@settings(max_examples=200)
@given(st.text(max_size=40), st.text(max_size=40))
def test_names_of_files_stay_here(path, query):
    name = course._file_name(f'http://example.org/{path}?{query}')
    assert name and name==Path(name).name and not name.startswith('.') and '\\' not in name and ':' not in name


# --- keys

@settings(max_examples=200)
@given(st.text('0123456789abcdefABCDEF-_', min_size=24, max_size=60), st.text('abcdefg ', min_size=1, max_size=20).filter(str.strip), st.integers(1, 100))
def test_a_key_is_never_taken_for_words(key, term, n):
    assert course._bing_arguments((key, term), {}) == course._bing_arguments((term, key), {}) == course._bing_arguments((key,), dict(term=term)) == (term, 128, 150)
    assert course._bing_arguments((key, term, 99, n), {})==(term, 99, n) and course._bing_arguments((term, key, n), {})==(term, 128, n)
    for args,kw in (((key, key), {}), ((key,), {}), ((key, 5), {}), ((), dict(key=key)), ((key, term, n), dict(min_sz=n)), ((key, term, n, n, n), {})):
        with pytest.raises(InputError) as e: course._bing_arguments(args, kw)
        assert key not in str(e.value)


def test_the_retired_service_is_named_once(tmp_path):
    with pytest.warns(UserWarning, match='retired in August 2025'): found = search_images_bing(KEY, 'teddy bear', max_images=2, provider='drawn')
    assert len(found)==2 and KEY not in repr(found) and isinstance(found[0], Address)
