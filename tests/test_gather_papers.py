"A dataset's papers: credits that survive any text, Croissant that the reference reader takes, a forgetting that ends."
import errno, os, re, shutil, sys, threading
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from bearclass.core import InputError, file_sha256
from bearclass.dataset import Dataset
from bearclass.gather.credits import credits_text, write_credits
from bearclass.gather.datasheet import OPEN, datasheet
from bearclass.gather.forget import forget, forgotten_path, is_forgotten
from bearclass.manifest import append_rows, manifest_path
from conftest import tree

BY = 'https://creativecommons.org/licenses/by/4.0/'


def picture(path, i=0, format='JPEG', size=16):
    "A small picture that differs with `i`."
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (size, size), (i*37%256, i*91%256, i//7%256)).save(path, format)
    return path


def add(root, label, i, **row):
    "One picture under the name of its content, and its line in the manifest."
    f = picture(root/label/'new', i)
    sha = file_sha256(f)
    f = f.rename(f.with_name(f'{sha[:16]}.jpg'))
    known = dict(
        status='saved', label=label, url=f'https://x.example/{label}/{i}.jpg', title=f'Title {i}',
        creator=f'Maker {i}', license='by', license_url=BY, sha256=sha, path=f'{label}/{f.name}')
    append_rows(root, [{**known, **row}])
    return f


@pytest.fixture
def root(tmp_path):
    root = tmp_path/'bears'
    for i,label in enumerate(['black', 'black', 'grizzly', 'teddy']): add(root, label, i)
    return root


# credits

nasty = st.text(st.characters(codec=None), max_size=60) | st.text(
    '<>|[]()`*_\\!&;:/#\n\r\u2028\u202e"\'=javscriptomw.',
    max_size=60) | st.sampled_from(
    ['<script>alert(1)</script>', '[x](javascript:alert(1))', '](http://evil.example)', '\\', '`', '<!-- ',
     '- a\n- b', '# h\n## i', '&lt;b&gt;', 'www.evil.example', 'http://evil.example', 'a|b|c', '\u202eolleh',
     '![x](http://e.example/p.png)', '<https://evil.example>', '\ud83d', '\U0001f43b', '[a]: http://e.example',
     '---', '\x00', '~~x~~', '$$x$$', '    code'])


@pytest.fixture(scope='module')
def two_pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp('two')
    for name in 'bc': picture(root/f'a/{name}.jpg')
    return root


@settings(max_examples=300, deadline=None)
@given(title=nasty, creator=nasty, page=nasty, licence=nasty, url=nasty)
def test_any_text_from_the_web_stays_text(two_pictures, title, creator, page, licence, url):
    from markdown_it import MarkdownIt
    manifest_path(two_pictures).unlink(missing_ok=True)
    row = dict(status='saved', title=title, creator=creator, page_url=page, license=licence, license_url=url)
    append_rows(two_pictures, [{**row, 'path':f'a/{name}.jpg'} for name in 'bc'], sync=False)
    text = credits_text(two_pictures)
    assert '\n'.join(text.splitlines()) == text.rstrip('\n')   # no other character ends a line
    assert not re.search(r'<[a-zA-Z/!?]', text) and not set('\u202e\u200b\u2066') & set(text)
    flat = []
    for t in MarkdownIt('gfm-like', dict(html=True, linkify=False)).parse(text): flat += [t, *(t.children or [])]
    kinds = [t.type for t in flat]
    assert (kinds.count('list_item_open'), kinds.count('heading_open'))==(2, 2)   # a line each; the page and its group
    odd = 'html_inline html_block image code_inline fence code_block s_open strong_open table_open'.split()
    assert not {*odd} & {*kinds}
    assert all(re.match('https?://', t.attrs['href'], re.I) for t in flat if t.type=='link_open')


def test_no_manifest_torn_line_and_rows_without_fields(tmp_path):
    root = tmp_path/'bears'
    picture(root/'a/x.jpg')
    assert 'Origin unknown: 1 picture' in write_credits(root).read_text()
    assert 'no manifest' in datasheet(root).read_text()
    manifest_path(root).write_text(
        '{}\n[1]\nnull\n{"status": "saved"}\n'
        '{"status": "saved", "sha256": 7, "title": ["a", {"b": 1}], "path": "a/x.jpg", "url": 3}\n'
        '{"status": "saved", "path": "a/x.jpg"}\n'
        '{"status": "saved", "url": "http')
    text = write_credits(root).read_text()
    assert "a/x.jpg: " in text and 'Origin unknown' not in text
    datasheet(root)
    assert forget(root, root/'a/x.jpg').files == [root/'a/x.jpg']


# the datasheet

def test_a_person_s_words_survive_a_windows_editor(root):
    f = datasheet(root)
    text = f.read_text().replace(OPEN, 'MY ANSWER', 1) + '\n## My section\n'
    f.write_bytes(text.replace('\n', '\r\n').encode())
    add(root, 'teddy', 70)
    datasheet(root)
    new = f.read_text()
    assert all(s in new for s in ('MY ANSWER', '## My section', '5 pictures in 3 classes.'))
    assert 'by hand' not in new
    datasheet(root, dict(purpose='ANOTHER'))
    assert 'ANOTHER' in f.read_text() and 'MY ANSWER' not in f.read_text()


def test_missing_blocks_come_back_and_nothing_else_changes(root):
    f = datasheet(root)
    f.write_text('Only my text.\n')
    datasheet(root)
    text = f.read_text()
    assert text.startswith('Only my text.\n') and '4 pictures in 3 classes.' in text
    datasheet(root)
    assert f.read_text() == text
    f.write_bytes(b'\xff\xfe')
    with pytest.raises(InputError, match='not UTF-8'): datasheet(root)
    assert f.read_bytes() == b'\xff\xfe'


def test_the_facts_are_right(root):
    append_rows(root, [
        dict(status='started', url='https://x.example/late', label='teddy'),
        dict(status='failed', reason='http 404 | <b>', url='https://x.example/gone', label='teddy')])
    with open(manifest_path(root), 'a') as f: f.write('{"torn')
    shutil.copy(next((root/'black').iterdir()), root/'teddy/copy.jpg')
    (root/'teddy/broken.jpg').write_bytes(b'no picture')
    picture(root.with_name('bears_removed')/'black/a.jpg', 5)
    forget(root, 'https://z.example/', unseen=True)
    text = datasheet(root).read_text()
    for s in (
        '6 pictures in 3 classes', '| teddy | 3 | 50% |', 'JPEG 5;', '6 addresses.', '| saved | 4 |',
        '| still under way when the run ended | 1 |', r'| failed: http 404 \| &lt;b&gt; | 1 |',
        '1 line of the manifest cannot be read', '1 picture cannot be read as a picture', '1 picture an exact copy',
        '1 picture in more than one class', '1 picture taken out by hand', '1 entry on the list'):
        assert s in text, s
    assert '<b>' not in text


# Croissant, read by the reference implementation


def test_the_reference_reader_gives_each_file_its_label(tmp_path):
    mlcroissant = pytest.importorskip('mlcroissant')
    root,formats = tmp_path/'a set', {'.webp':'WEBP', '.png':'PNG'}
    names = [
        'black/a.jpg', 'black/b.JPG', 'gri[z]zly bär/c.png', 'train/teddy (soft)/d.jpeg', 'valid/teddy (soft)/e.png',
        '*x?/f.webp', "o'hara & sons/g.jpg"]
    for i,n in enumerate(names): picture(root/n, i, formats.get(Path(n).suffix, 'JPEG'), 16+i)
    (root/'black/broken.jpg').write_bytes(b'x')
    picture(root/'in_no_folder.jpg', 40)
    append_rows(root, [dict(
        status='saved', path=names[0], title='</script> "quoted"\n', creator='Å', license='by', license_url=BY,
        page_url='javascript:alert(1)')])
    datasheet(root)
    text = lambda v: v.decode() if isinstance(v, bytes) else v
    def records(name):
        rows = mlcroissant.Dataset(root/'croissant.json').records(name)
        return [{k.partition('/')[2]: text(v) for k,v in r.items()} for r in rows]
    got = records('pictures')
    assert {r['path']: (r['label'], r['image'].size[0]) for r in got}=={
        n: (Path(n).parent.name, 16+i) for i,n in enumerate(names)}
    papers = {r['path']: r for r in records('papers')}
    assert {n: (papers[n]['label'], papers[n]['sha256']) for n in names}=={
        n: (Path(n).parent.name, file_sha256(root/n)) for n in names}
    first = papers[names[0]]
    assert (first['creator'], first['license_url'], first['page_url'])==('Å', BY, '')


# forgetting

def test_everywhere(root):
    f = next((root/'teddy').iterdir())
    sha,data,url = file_sha256(f),f.read_bytes(),'https://x.example/teddy/3.jpg'
    copies = [
        root/'black/other name.jpg', root.with_name('bears_removed')/'teddy'/f.name,
        root.with_name('bears_quarantine')/'x 2.jpg', root.with_name('bears_test')/'teddy/y', root/'.cache/z.bin']
    thumb = picture(root/f'.thumbs/{sha[:16]}_128.png', 8)
    for c in copies:
        c.parent.mkdir(parents=True, exist_ok=True)
        c.write_bytes(data)
    append_rows(root, [
        dict(status='duplicate', url='https://mirror.example/t.jpg', sha256=sha, creator='Maker 3'),
        dict(status='failed', reason='timeout', url='HTTP://x.example:80/teddy/3.jpg#x', creator='Maker 3')])
    write_credits(root), datasheet(root)
    stay = set(tree(root.parent))-{p.relative_to(root.parent).as_posix() for p in (f, thumb, *copies)}
    done = forget(root, url)
    assert sorted(done.files) == sorted([f, thumb, *copies]) and done.rows == 3 and not done.left
    after = tree(root.parent)
    assert set(after) == stay|{'bears/forgotten.jsonl'}
    assert not any(b'Maker 3' in d or b'teddy/3.jpg' in d or b'mirror' in d.lower() for d in after.values())
    assert all(is_forgotten(root, url=u) for u in (url, 'https://mirror.example/t.jpg'))
    assert b'Maker 0' in after['bears/manifest.jsonl'] and b'Maker 0' in after['bears/ATTRIBUTION.md']
    for again in url, sha, sha[:12], str(f), f'teddy/{f.name}', None: assert forget(root, again).files == []
    assert tree(root.parent) == after


class Crash(BaseException): "The process dies here."


class Trap:
    "Dies at the n-th call that changes the disk."
    def __init__(self): self.left = None
    def __call__(self):
        if self.left is None: return
        self.left -= 1
        if self.left<0:
            self.left = None
            raise Crash
trap,_hooked = Trap(),[]


def hook(event, args):
    if trap.left is None: return
    if event in ('os.remove', 'os.rename', 'os.chmod', 'os.mkdir', 'tempfile.mkstemp') or (
        event=='open' and args[2] & (os.O_WRONLY|os.O_RDWR)):
        trap()


@pytest.mark.parametrize('how', ['url', 'path'])
def test_killed_anywhere_then_again(tmp_path, monkeypatch, how):
    if not _hooked: _hooked.append(sys.addaudithook(hook))
    real = os.fsync
    monkeypatch.setattr(os, 'fsync', lambda fd: (trap(), real(fd))[1])
    first = tmp_path/'first/bears'
    for i,label in enumerate(['black', 'teddy', 'teddy']): add(first, label, i)
    f = next((first/'black').iterdir())
    places = f'bears/black/{f.name}', 'bears/teddy/own name.jpg', 'bears_removed/x.jpg'
    (tmp_path/'first/bears_removed').mkdir()
    for p in places[1:]: shutil.copy(f, tmp_path/'first'/p)
    with open(manifest_path(first), 'a') as m: m.write('{"creator": "Maker 0", "to')
    write_credits(first), datasheet(first)
    sha,url,ends = file_sha256(f), 'https://x.example/black/0.jpg', []
    died = True
    while died:
        root = tmp_path/f'{len(ends)}/bears'
        shutil.copytree(tmp_path/'first', root.parent)
        target = url if how=='url' else root/'teddy/own name.jpg'
        trap.left,died = len(ends), False
        try: forget(root, target)
        except Crash: died = True
        finally: trap.left = None
        if died:
            gone = not all((root.parent/p).exists() for p in places)
            assert not gone or is_forgotten(root, sha256=sha)      # never deleted before it is on the list
            forget(root, target if how=='url' or target.exists() else None)
        assert is_forgotten(root, sha256=sha) and is_forgotten(root, url=url)
        after = tree(root.parent)   # a killed process may leave a temporary file, with no name in it
        assert not any(b'Maker 0' in v for v in after.values()), len(ends)
        left = {k: re.sub(rb'"time": "[^"]+"', b'', v) for k,v in after.items() if not Path(k).name.startswith('.')}
        ends.append({k: v for k,v in left.items() if k!='bears/forgotten.jsonl'})
        shutil.rmtree(root.parent)
    assert len(ends)>10 and all(e==ends[-1] for e in ends)


def test_what_cannot_be_deleted_is_said(root, monkeypatch):
    f = next((root/'teddy').iterdir())
    other = root/'black/copy.jpg'
    shutil.copy(f, other)
    real = Path.unlink
    def locked(self, missing_ok=False):
        if self==f: raise PermissionError(errno.EACCES, 'in use')
        return real(self, missing_ok=missing_ok)
    with monkeypatch.context() as m:
        m.setattr(Path, 'unlink', locked)
        done = forget(root, f)
    assert done.files == [other]
    assert done.left == {f: 'in use'}
    assert 'NOT deleted' in str(done)
    assert is_forgotten(root, sha256=file_sha256(f))
    assert forget(root).files == [f] and not f.exists()


@pytest.mark.parametrize('bad', [
    'https://x.example/teddy/33.jpg', 'deadbeef'*8, 'nothing.jpg', '', ' ', 'teddy', 'manifest.jsonl', '\0', 'x'*5000,
    '../..'], ids=lambda b: ascii(b[:12]))
def test_a_target_that_is_nothing_changes_nothing(root, bad):
    before = tree(root.parent)
    with pytest.raises(InputError, match='no picture of this dataset|got target='): forget(root, bad)
    assert tree(root.parent) == before


def test_links_are_cut_and_what_they_lead_to_stays(root, tmp_path):
    f = next((root/'teddy').iterdir())
    outside = shutil.copy(f, tmp_path/'outside.jpg')
    try: (root/'black/link.jpg').symlink_to(outside)
    except OSError: pytest.skip('no symlinks here')
    forget(root, f)
    assert outside.exists() and not (root/'black/link.jpg').is_symlink()


def test_a_manifest_that_grows_meanwhile_is_waited_for(root):
    "Another thread holds the folder and adds a line: nothing is written before it is done, and its line stays."
    thread = threading.Thread(target=forget, args=[root, 'https://x.example/teddy/3.jpg'])
    with Dataset(root).lock():
        thread.start()
        thread.join(.3)
        assert thread.is_alive() and not forgotten_path(root).exists()
        append_rows(root, [dict(status='saved', url='https://late.example/')])
    thread.join()
    text = manifest_path(root).read_text()
    assert 'https://late.example/' in text and 'Maker 3' not in text


def test_the_original_of_a_smaller_copy_goes_too(tmp_path):
    "Or `undo_quarantine` would bring it back."
    from bearclass.gather.quarantine import undo_quarantine
    from bearclass.gather.verify import verify_images
    root = tmp_path/'bears'
    for i in range(2): picture(root/'x'/f'{i}.jpg', i, size=64)
    verify_images(root, max_size=32, root=root)
    assert {g.parent.parent.name for g in forget(root, 'x/0.jpg').files}=={'bears', 'bears_quarantine'}
    undo_quarantine(root)
    assert [f.name for f in (root/'x').iterdir()]==['1.jpg']
