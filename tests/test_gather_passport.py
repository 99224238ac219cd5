"The papers of a dataset: credits that survive any text from the web, Croissant that the reference reader takes, and forgetting that finishes."
import errno, hashlib, json, os, re, shutil, sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from bearclass.core import InputError, file_sha256
from bearclass.gather import passport
from bearclass.gather.manifest import append_rows, manifest_path, read_manifest
from bearclass.gather.passport import (OPEN, forget_key, credits, credits_text, croissant, datasheet, forget, forgotten_path,
                                       is_forgotten, licence_name, origins)

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
    append_rows(root, [{**dict(status='saved', label=label, url=f'https://x.example/{label}/{i}.jpg', title=f'Title {i}', creator=f'Maker {i}', license='by', license_url=BY,
                               sha256=sha, path=f'{label}/{f.name}'), **row}])
    return f


@pytest.fixture
def root(tmp_path):
    root = tmp_path/'bears'
    for i,label in enumerate(['black', 'black', 'grizzly', 'teddy']): add(root, label, i)
    return root


def tree(top): return {f.relative_to(top).as_posix(): f.read_bytes() for f in sorted(top.rglob('*')) if f.is_file()}


def entries(text): return [l for l in text.split('\n') if l.startswith('- ')]


# credits

nasty = st.text(st.characters(codec=None), max_size=60) | st.text('<>|[]()`*_\\!&;:/#\n\r\u2028\u202e"\'=javscriptomw.', max_size=60) | st.sampled_from(
    ['<script>alert(1)</script>', '[x](javascript:alert(1))', '](http://evil.example)', '\\', '`', '<!-- ', '- a\n- b', '# h\n## i', '&lt;b&gt;', 'www.evil.example', 'http://evil.example',
     'a|b|c', '\u202eolleh', '![x](http://e.example/p.png)', '<https://evil.example>', '\ud83d', '\U0001f43b', '[a]: http://e.example', '---', '\x00', '~~x~~', '$$x$$', '    code'])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=nasty, creator=nasty, page=nasty, licence=nasty, url=nasty, attribution=nasty)
def test_any_text_from_the_web_stays_text(tmp_path_factory, title, creator, page, licence, url, attribution):
    from markdown_it import MarkdownIt
    row = dict(title=title, creator=creator, page_url=page, license=licence, license_url=url, attribution=attribution, path='a/b.jpg', url=None, sha256=None, source_sha256=None)
    rows = [row, {**row, 'path':'a/c.jpg'}]
    with pytest.MonkeyPatch.context() as m:
        m.setattr(passport, '_dataset', lambda root: Path(root))
        m.setattr(passport, 'origins', lambda root: pytest.importorskip('pandas').DataFrame([{**{k: passport._said(v) for k,v in r.items()}, 'known':True} for r in rows], dtype=object))
        text = credits_text('x')
    assert len(entries(text)) == 2
    assert '\n'.join(text.splitlines()) == text.rstrip('\n')   # no other character ends a line
    assert not re.search(r'<[a-zA-Z/!?]', text)
    flat = []
    for t in MarkdownIt('gfm-like', dict(html=True, linkify=False)).parse(text): flat += [t, *(t.children or [])]
    assert sum(t.type=='list_item_open' for t in flat) == 2
    assert not [t.type for t in flat if t.type in ('html_inline', 'html_block', 'image', 'code_inline', 'fence', 'code_block', 's_open', 'strong_open', 'table_open')]
    assert all(re.match('https?://', t.attrs['href'], re.I) for t in flat if t.type=='link_open')
    assert sum(t.type=='link_open' for t in flat) <= 4
    heads = sum(t.type=='heading_open' for t in flat)
    assert heads == 2                                       # the page, and the one group


def test_reversed_and_invisible_characters_are_gone(root):
    add(root, 'teddy', 9, title='a\u202eb\u200bc\u2066', creator='new\nline \u2028 two')
    text = credits(root).read_text()
    assert 'abc' in text and 'new line two' in text and not set('\u202e\u200b\u2066\u2028') & set(text)


def test_only_pictures_that_are_there(root):
    gone = next((root/'grizzly').iterdir())
    gone.unlink()
    picture(root/'teddy/mine | \U0001f43b.jpg', 99)
    text = credits(root).read_text()
    assert len(entries(text)) == 4 and 'Maker 2' not in text
    assert 'Origin unknown: 1 picture' in text and '4 pictures: 0 without a known licence, 1 of unknown origin, 3 with a licence.' in text
    before = text
    assert credits(root).read_text() == before


def test_no_manifest_torn_line_and_rows_without_fields(tmp_path):
    root = tmp_path/'bears'
    picture(root/'a/x.jpg')
    assert 'Origin unknown: 1 picture' in credits(root).read_text()
    assert 'no manifest' in datasheet(root).read_text()
    manifest_path(root).write_text('{}\n[1]\nnull\n{"status": "saved"}\n{"status": "saved", "sha256": 7, "title": ["a", {"b": 1}], "path": "a/x.jpg", "url": 3}\n{"status": "saved", "path": "a/x.jpg"}\n{"status": "saved", "url": "http')
    text = credits(root).read_text()
    assert "a/x.jpg: " in text and 'Origin unknown' not in text
    datasheet(root)
    assert forget(root, root/'a/x.jpg').files == [root/'a/x.jpg']


def test_of_two_rows_the_one_with_a_licence_counts(root):
    f = next((root/'teddy').iterdir())
    sha = file_sha256(f)
    append_rows(root, [dict(status='duplicate', sha256=sha, url='https://y.example/1', title='No licence', creator='N')])
    assert 'Maker 3' in credits_text(root) and 'No licence' not in credits_text(root)
    f2 = add(root, 'black', 50, license=None, license_url=None, creator=None)
    append_rows(root, [dict(status='duplicate', sha256=file_sha256(f2), url='https://y.example/2', title='T', creator='Known', license='cc0')])
    assert f'{f2.relative_to(root).as_posix()}: [T](https://y.example/2), by Known, [CC0](https://creativecommons.org/publicdomain/zero/1.0/)' in credits_text(root)


def test_a_file_is_known_by_name_content_or_path_in_this_order(root):
    a,b = sorted((root/'black').iterdir())
    by_name = {r['path']: r['creator'] for r in origins(root).to_dict('records')}
    maker = by_name[f'black/{a.name}']
    moved = a.rename(root/'teddy'/a.name)                                     # another class
    renamed = b.rename(root/'grizzly/renamed \U0001f43b.jpg')                 # another name: by its content
    now = {r['path']: r['creator'] for r in origins(root).to_dict('records')}
    assert now[f'teddy/{a.name}'] == maker and now[renamed.relative_to(root).as_posix()] == by_name[f'black/{b.name}']
    picture(moved, 77)                                                        # changed in place, as `normalise` does
    assert dict(zip(origins(root).path, origins(root).creator))[f'teddy/{a.name}'] == maker


def test_five_thousand_pictures_are_known_by_name_alone(tmp_path, monkeypatch):
    root,rows = tmp_path/'many',[]
    (root/'a').mkdir(parents=True)
    for i in range(5000):
        sha = hashlib.sha256(str(i).encode()).hexdigest()
        (root/'a'/f'{sha[:16]}.jpg').write_bytes(b'x')
        rows.append(dict(status='saved', sha256=sha, url=f'https://x.example/{i}', title=f't{i}', creator=f'c{i%50}', license='by', license_url=BY, path=f'a/{sha[:16]}.jpg', label='a'))
    append_rows(root, rows)
    def never(f): raise AssertionError(f'{f} was read')
    monkeypatch.setattr(passport, 'file_sha256', never)
    assert len(entries(credits(root).read_text())) == 5000


def test_atomic(root, monkeypatch):
    old = credits(root).read_text()
    add(root, 'teddy', 60)
    monkeypatch.setattr(os, 'replace', lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left on device')))
    with pytest.raises(OSError): credits(root)
    assert (root/'ATTRIBUTION.md').read_text() == old and not list(root.glob('.ATTR*'))


@pytest.mark.parametrize('given_,name', [(('by-nc-nd', None), 'CC BY-NC-ND'), (('Public domain', None), 'Public Domain Mark'), ((None, 'http://creativecommons.org/publicdomain/mark/1.0/'), 'Public Domain Mark 1.0'),
                                         (('  ', float('nan')), None), (('None', 'unknown'), None), ((None, 'https://example.org/terms'), 'https://example.org/terms')])
def test_licence_name(given_, name): assert licence_name(*given_) == name


# the datasheet

def test_a_person_s_words_survive(root):
    f = datasheet(root)
    text = f.read_text().replace(OPEN, 'MY ANSWER', 1) + '\n## My section\n\nmine\n'
    text = text.replace('4 pictures in 3 classes.', '4 pictures in 3 classes. MY NOTE')
    f.write_bytes(text.replace('\n', '\r\n').encode())      # an editor on Windows
    add(root, 'teddy', 70)
    datasheet(root)
    new = f.read_text()
    assert all(s in new for s in ('MY ANSWER', '## My section', 'MY NOTE', '5 pictures in 3 classes.'))
    assert new.count('MY NOTE') == 1
    datasheet(root)
    assert f.read_text() == new
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
    append_rows(root, [dict(status='started', url='https://x.example/late', label='teddy'), dict(status='failed', reason='http 404 | <b>', url='https://x.example/gone', label='teddy'),
                       dict(status='failed', reason='timeout', url='https://x.example/again', label='teddy'), dict(status='saved', url='https://x.example/again', label='teddy')])
    with open(manifest_path(root), 'a') as f: f.write('{"torn')
    shutil.copy(next((root/'black').iterdir()), root/'teddy/copy.jpg')
    (root/'teddy/broken.jpg').write_bytes(b'no picture')
    picture(root.with_name('bears_removed')/'black/a.jpg', 5)
    (root/'cleaning.jsonl').write_text('{"action": "delete"}\n{"action": "relabel"}\n{"action": "delete"}\n')
    forget(root, 'https://z.example/', unseen=True)
    text = datasheet(root).read_text()
    for s in ('6 pictures in 3 classes', '| teddy | 3 | 50% |', 'JPEG 5;', '7 addresses: 5 saved, 0 a copy of a picture that was there, 1 failed. 1 were still under way', r'| http 404 \| &lt;b&gt; | 1 |',
              '1 line of the manifest cannot be read', '1 picture cannot be read as a picture', '1 picture an exact copy', '1 picture in more than one class', '1 picture taken out by hand', '1 entry on the list', 'delete 2, relabel 1'):
        assert s in text, s
    assert 'timeout' not in text and '<b>' not in text


def test_an_empty_folder_has_papers_too(tmp_path):
    root = tmp_path/'empty'
    root.mkdir()
    assert '0 pictures' in credits(root).read_text()
    assert 'Nothing: there is no picture' in datasheet(root).read_text()
    assert json.loads((root/'croissant.json').read_text())['recordSet'] == []


# Croissant, read by the reference implementation

def records(root, name):
    mlcroissant = pytest.importorskip('mlcroissant')
    text = lambda v: v.decode() if isinstance(v, bytes) else v
    return [{k.partition('/')[2]: text(v) for k,v in r.items()} for r in mlcroissant.Dataset(root/'croissant.json').records(name)]


def test_the_reference_reader_gives_each_file_its_label(tmp_path):
    root = tmp_path/'a set'
    names = ['black/a.jpg', 'black/b.JPG', 'gri[z]zly bär/c.png', 'train/teddy (soft)/d.jpeg', 'valid/teddy (soft)/e.png', '*x?/f.webp', "o'hara & sons/g.jpg"]
    for i,n in enumerate(names): picture(root/n, i, 'WEBP' if n.endswith('webp') else 'PNG' if n.endswith('png') else 'JPEG', 16+i)
    for n in 'black/.hidden.jpg', 'black/broken.jpg', '.cache/z.jpg': (root/n).parent.mkdir(exist_ok=True); (root/n).write_bytes(b'x')
    picture(root/'in_no_folder.jpg', 40)
    append_rows(root, [dict(status='saved', path=names[0], sha256=file_sha256(root/names[0]), title='</script> "quoted"\n', creator='Å', license='by', license_url=BY, page_url='javascript:alert(1)')])
    datasheet(root)
    got = records(root, 'pictures')
    assert {r['path']: r['label'] for r in got} == {n: Path(n).parent.name for n in names}
    assert {r['path']: r['image'].size[0] for r in got} == {n: 16+i for i,n in enumerate(names)}
    papers = {r['path']: r for r in records(root, 'papers')}
    assert {n: papers[n]['sha256'] for n in names} == {n: file_sha256(root/n) for n in names}
    assert papers[names[0]]['creator'] == 'Å' and papers[names[0]]['license_url'] == BY and papers[names[0]]['page_url'] == ''
    assert all(papers[n]['label'] == Path(n).parent.name for n in names)


def test_the_reference_reader_has_nothing_to_complain_about(root, caplog):
    mlcroissant = pytest.importorskip('mlcroissant')
    datasheet(root)
    ds = mlcroissant.Dataset(root/'croissant.json')
    assert not ds.metadata.ctx.issues.errors and ds.metadata.ctx.conforms_to.value.endswith('/1.0')
    assert not any('not standard' in r.getMessage() for r in caplog.records)
    assert {w for w in ds.metadata.ctx.issues.warnings if 'recommended' in w} == {w for w in ds.metadata.ctx.issues.warnings if 'cite' in w.lower() or 'date_published' in w or 'datePublished' in w}
    m = next(d for d in ds.metadata.distribution if d.id=='manifest.jsonl')
    assert m.sha256 == file_sha256(manifest_path(root))
    assert ds.metadata.license == [BY]


def test_a_pattern_never_takes_in_what_is_no_picture(root):
    (root/'black/broken.jpg').write_bytes(b'x')
    files = croissant(root)['distribution'][0]
    assert 'teddy/[!.]*.jpg' in files['includes'] and sum('black/' in p for p in files['includes']) == 2 and not any('broken' in p for p in files['includes'])


# forgetting

def test_everywhere(root):
    f = next((root/'teddy').iterdir())
    sha,data,url = file_sha256(f),f.read_bytes(),'https://x.example/teddy/3.jpg'
    copies = [root/'black'/f.name, root/'black/other name.jpg', root.with_name('bears_removed')/'teddy'/f.name, root.with_name('bears_quarantine')/'x 2.jpg', root.with_name('bears_test')/'teddy/y', root/'.cache/z.bin']
    thumb = root/f'.thumbs/{sha[:16]}_128.png'
    for c in copies: c.parent.mkdir(parents=True, exist_ok=True); c.write_bytes(data)
    picture(thumb, 8)
    append_rows(root, [dict(status='duplicate', url='https://mirror.example/t.jpg', sha256=sha, title='Mirror', creator='Maker 3'),
                       dict(status='failed', reason='timeout', url='HTTP://x.example:80/teddy/3.jpg#x', creator='Maker 3', label='black')])
    credits(root), datasheet(root)
    stay = set(tree(root.parent))-{p.relative_to(root.parent).as_posix() for p in (f, thumb, *copies)}
    done = forget(root, url)
    assert sorted(done.files) == sorted([f, thumb, *copies]) and done.rows == 3 and not done.left
    after = tree(root.parent)
    assert set(after) == stay|{'bears/forgotten.jsonl'}
    assert not any(b'Maker 3' in d or b'teddy/3.jpg' in d or b'mirror' in d.lower() for d in after.values())
    assert all(is_forgotten(root, url=u) for u in (url, 'https://mirror.example/t.jpg')) and is_forgotten(root, sha256=sha)
    assert b'Maker 0' in after['bears/manifest.jsonl'] and b'Maker 0' in after['bears/ATTRIBUTION.md']
    assert len(read_manifest(root)) == 6
    bare = tree(root.parent)
    for again in url, sha, sha[:12], str(f), f'teddy/{f.name}', copies[1], None: assert forget(root, again).files == []
    assert tree(root.parent) == bare


def test_changed_in_place_and_shrunk_on_the_way_in(root):
    f = next((root/'teddy').iterdir())
    sha = file_sha256(f)
    picture(f, 88)                                    # same name, other bytes
    now = file_sha256(f)
    append_rows(root, [dict(status='saved', url='https://big.example/', sha256=now, source_sha256='ab'*32, path='teddy/x')])
    forget(root, 'https://x.example/teddy/3.jpg')
    assert not f.exists() and all(is_forgotten(root, sha256=s) for s in (sha, now, 'ab'*32)) and is_forgotten(root, url='https://big.example')


def test_what_a_killed_run_left_and_a_sheet_that_cannot_be_read(root):
    credits(root), datasheet(root)
    left = [root/'.ATTRIBUTION.md.k3_x9a', root/'.manifest.jsonl.abc']
    for f in left: f.write_text('by Maker 3')
    (root/'DATASHEET.md').write_bytes(b'\xff')
    with pytest.raises(InputError, match='not UTF-8'): forget(root, 'https://x.example/teddy/3.jpg')
    assert not any(b'Maker 3' in v for v in tree(root).values()) and not any(f.exists() for f in left)
    (root/'DATASHEET.md').unlink()
    forget(root)
    assert '3 pictures in 3 classes' not in (root/'DATASHEET.md').read_text() and '3 pictures in 2 classes' in (root/'DATASHEET.md').read_text()


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
    if event in ('os.remove', 'os.rename', 'os.chmod', 'os.mkdir', 'tempfile.mkstemp') or (event=='open' and args[2] & (os.O_WRONLY|os.O_RDWR)): trap()


@pytest.mark.parametrize('how', ['url', 'sha', 'path', 'own name'])
def test_killed_anywhere_then_again(tmp_path, monkeypatch, how):
    if not _hooked: _hooked.append(sys.addaudithook(hook))
    real = os.fsync
    monkeypatch.setattr(os, 'fsync', lambda fd: (trap(), real(fd))[1])
    first = tmp_path/'first/bears'
    for i,label in enumerate(['black', 'teddy', 'teddy']): add(first, label, i)
    f = next((first/'black').iterdir())
    shutil.copy(f, first/'teddy/own name.jpg')
    (tmp_path/'first/bears_removed').mkdir(); shutil.copy(f, tmp_path/'first/bears_removed/x.jpg')
    with open(manifest_path(first), 'a') as m: m.write('{"creator": "Maker 0", "to')
    credits(first), datasheet(first)
    sha = file_sha256(f)
    def target(root): return dict(url='https://x.example/black/0.jpg', sha=sha, path=root/f.relative_to(first)).get(how) or root/'teddy/own name.jpg'
    n,ends = 0,[]
    while True:
        top = tmp_path/f'{n}'
        shutil.copytree(tmp_path/'first', top)
        trap.left = n
        try: forget(top/'bears', target(top/'bears')); died = False
        except Crash: died = True
        finally: trap.left = None
        if died:
            gone = [p for p in ('bears/black/'+f.name, 'bears/teddy/own name.jpg', 'bears_removed/x.jpg') if not (top/p).exists()]
            assert not gone or is_forgotten(top/'bears', sha256=sha)      # never deleted before it is on the list
            try: forget(top/'bears', target(top/'bears'))
            except InputError: raise AssertionError(f'killed at step {n}, the second call did not know the picture')
        assert is_forgotten(top/'bears', sha256=sha) and is_forgotten(top/'bears', url='https://x.example/black/0.jpg')
        left = {k: v for k,v in tree(top).items() if not Path(k).name.startswith('.')}   # a killed process may leave a temporary file
        assert not any(b'Maker 0' in v for v in tree(top).values()), n
        time = re.compile(rb'"time": "[^"]+"')
        ends.append({k: time.sub(b'', v) for k,v in left.items() if k!='bears/forgotten.jsonl'})
        shutil.rmtree(top)
        if not died: break
        n += 1
    assert n>10 and all(e==ends[-1] for e in ends)


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
    assert done.files == [other] and done.left == {f: 'in use'} and 'NOT deleted' in str(done) and is_forgotten(root, sha256=file_sha256(f))
    assert forget(root).files == [f] and not f.exists()


def test_a_preview_changes_nothing_and_an_error_neither(root):
    credits(root), datasheet(root)
    before = tree(root.parent)
    seen = forget(root, 'https://x.example/teddy/3.jpg', dry_run=True)
    assert len(seen.files) == 1 and seen.rows == 1 and 'would be deleted' in str(seen)
    for bad in 'https://x.example/teddy/33.jpg', 'deadbeef'*8, 'nothing.jpg', '', ' ', 'teddy', 'manifest.jsonl', '\0', 'x'*5000, '../..':
        with pytest.raises(InputError): forget(root, bad)
    with pytest.raises(InputError, match='https://x.example/teddy/3.jpg'): forget(root, 'https://x.example/teddy/33.jpg')
    assert tree(root.parent) == before


def test_links_are_cut_and_what_they_lead_to_stays(root, tmp_path):
    f = next((root/'teddy').iterdir())
    outside = shutil.copy(f, tmp_path/'outside.jpg')
    try: (root/'black/link.jpg').symlink_to(outside)
    except OSError: pytest.skip('no symlinks here')
    forget(root, f)
    assert outside.exists() and not (root/'black/link.jpg').is_symlink()


def test_half_a_hash_and_two_that_begin_alike(root):
    for s in ('abcdef01'+'0'*56, 'abcdef01'+'1'*56): append_rows(root, [dict(status='saved', sha256=s, url=f'https://x.example/{s}')])
    with pytest.raises(InputError, match='begins 2 hashes'): forget(root, 'ABCDEF01')
    forget(root, 'abcdef010')
    assert is_forgotten(root, sha256='abcdef01'+'0'*56) and not is_forgotten(root, sha256='abcdef01'+'1'*56)


def test_a_manifest_that_grows_meanwhile_is_not_overwritten(root, monkeypatch):
    real = passport._json_lines
    def slow(f):
        out = list(real(f))
        if f==manifest_path(root): append_rows(root, [dict(status='saved', url='https://late.example/')])
        return out
    monkeypatch.setattr(passport, '_json_lines', slow)
    with pytest.raises(InputError, match='grew meanwhile'): forget(root, 'https://x.example/teddy/3.jpg')
    monkeypatch.undo()
    forget(root)
    assert 'https://late.example/' in set(read_manifest(root).url) and 'Maker 3' not in manifest_path(root).read_text()


def test_the_list_forgets_nothing_when_torn_or_edited(tmp_path):
    a,b,c = (hashlib.sha256(x).hexdigest() for x in (b'a', b'b', b'c'))
    forgotten_path(tmp_path).write_text(f'{{"addresses": ["{a}"], "contents": []}}\n\nnot json {b}\n{{"contents": ["{c.upper()}", "{c[:40]}')
    assert all(is_forgotten(tmp_path, sha256=x) for x in (a, b, c, c.upper())) and not is_forgotten(tmp_path, sha256=c[:40])
    forget(tmp_path, 'https://new.example', unseen=True)
    assert is_forgotten(tmp_path, url='new.example:443/'.join(['http://', ''])) and is_forgotten(tmp_path, sha256=c)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.builds('{}://{}{}{}'.format, st.sampled_from(['http', 'https', 'HTTP']), st.sampled_from(['x.org', 'X.ORG', 'x.org.', 'b\u00fccher.de', '[::1]', '127.0.0.1:80', 'u:p@x.org']), st.text('/%aA0.b? &=#\u00e9', max_size=12), st.text(max_size=5)))
def test_any_address_has_one_key(url):
    k = forget_key(url)
    assert re.fullmatch('[0-9a-f]{64}', k) and forget_key(f' {url} ') == k
    url = url.strip()
    try: urlsplit(url).port
    except ValueError: return   # no address
    if url.startswith('http://'): assert forget_key('https://'+url[7:]) == forget_key('HTTPS://'+url[7:]+'#there'*('#' not in url)) == k


def test_it_never_comes_back(root, tmp_path):
    download = pytest.importorskip('bearclass.gather.download').download
    pictures = [picture(tmp_path/f'src/{i}.jpg', i+200) for i in range(3)]
    report = download(pictures, root, 'black')
    assert report.saved == 3
    data = pictures[1].read_bytes()
    sha = file_sha256(pictures[1])
    forget(root, sha)
    pictures.append(tmp_path/'src/elsewhere.jpg'); pictures[-1].write_bytes(data)
    again = download(pictures, root, 'teddy')
    assert again.reasons['forgotten'] == 2 and again.saved+again.duplicate+again.failed == 4
    assert sha not in {file_sha256(f) for f in root.rglob('*') if f.is_file()}


def test_a_line_that_is_nested_too_deep(root):
    manifest_path(root).write_text(manifest_path(root).read_text()+'['*100_000+'\n')
    forgotten_path(root).write_text('['*100_000+'\n')
    f = forget(root, 'https://x.example/black/0.jpg')
    assert len(f.files)==1 and 'Maker 0' not in manifest_path(root).read_text() and is_forgotten(root, url='https://x.example/black/0.jpg')


def test_the_original_of_a_smaller_copy_goes_too(tmp_path):
    "Or `undo_quarantine` would bring it back."
    from bearclass.gather.verify import quarantine_folder, undo_quarantine, verify_images
    root = tmp_path/'bears'
    for i in range(2): picture(root/'x'/f'{i}.jpg', i, size=64)
    verify_images(root, max_size=32, root=root)
    assert (quarantine_folder(root)/'x/0.jpg').exists()
    f = forget(root, 'x/0.jpg')
    assert {g.parent.parent for g in f.files}=={root, quarantine_folder(root)}
    undo_quarantine(root)
    assert not (root/'x/0.jpg').exists() and (root/'x/1.jpg').exists() and not (quarantine_folder(root)/'x/0.jpg').exists()
