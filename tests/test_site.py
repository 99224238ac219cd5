"The site: four pages built as all are, or with BEARCLASS_SITE=build/site the whole; and links that settings.ini rules."
import json, os, re, shutil, subprocess, sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

top = Path(__file__).resolve().parent.parent


def run(*words, cwd=top): subprocess.run([sys.executable, *map(str, words)], cwd=cwd, check=True)


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "Some pages, built with the settings of all, where a warning is an error."
    if whole := os.environ.get('BEARCLASS_SITE'): return top/whole
    pytest.importorskip('furo', reason='the packages of the site are not installed: pip install -e .[docs]')
    out = tmp_path_factory.mktemp('site')/'site'
    pages = 'lessons/04_from_scratch.ipynb', 'guide/14_words.ipynb', 'reference/dataset.md', 'reference/learn/course.md'
    run('docs/build.py', '--out', out, '--only', *pages)
    return out


def test_every_public_name_stands_on_the_page_that_doc_names(site):
    from bearclass._modidx import d as index
    for module in 'dataset', 'learn.course':
        text = (site/'reference'/f"{module.replace('.', '/')}.html").read_text(encoding='utf-8')
        names = [n.removeprefix(f'bearclass.{module}.') for n in index['syms'][f'bearclass.{module}']]
        public = [n for n in names if not re.search(r'(^|\.)_', n)]
        assert len(public)>15 and not [n for n in public if f'id="{n}"' not in text]
        assert not [n for n in names if n not in public and f'id="{n}"' in text]


def test_docments_are_told(site):
    text = (site/'reference/dataset.html').read_text(encoding='utf-8')
    text = re.sub('<[^>]+>', '', text)
    for said in 'The picture files in a folder, by their extension', 'Parameters:', 'Returns', 'recurse –':
        assert said in text, said


def test_lessons_keep_their_outputs_and_lose_what_is_hidden(site):
    nb = json.loads((top/'nbs/lessons/04_from_scratch.ipynb').read_text(encoding='utf-8'))
    text = (site/'lessons/04_from_scratch.html').read_text(encoding='utf-8')
    pictures = [o for c in nb['cells'] for o in c.get('outputs', []) if 'image/png' in o.get('data', {})]
    assert text.count('<img')>=len(pictures)>3
    assert '<math' in text and '#| ' not in text


def links_of(text): return re.findall(r'<(a|link|script|img)[^>]*?\s(?:href|src)="([^"]+)"', text)


def test_nothing_comes_from_elsewhere_and_no_picture_or_anchor_is_missing(site):
    texts = {f: f.read_text(encoding='utf-8') for f in site.rglob('*.html')}
    ids = {f: set(re.findall(r'\sid="([^"]+)"', t)) for f,t in texts.items()}
    missing = []
    for page,text in texts.items():
        for kind,link in links_of(text):
            parts = urlsplit(link)
            if parts.scheme or link.startswith('//'):
                assert kind=='a' or parts.scheme=='data', (page, link)
                continue
            if 'BEARCLASS_SITE' not in os.environ and link[0]=='#': continue   # it may be for a page not built
            there = Path(os.path.normpath(page.parent/unquote(parts.path))) if parts.path else page
            lost = parts.fragment and there in ids and unquote(parts.fragment) not in ids[there]
            if lost or not there.exists(): missing.append((page.name, link))
    assert not missing, missing[:5]
    styles = ' '.join(f.read_text(encoding='utf-8') for f in (site/'_static').rglob('*.css'))
    assert not re.search(r'(?:url\(|@import)\s*["\']?(?:https?:)?//', styles)


def test_a_fork_changes_its_links_in_settings_alone(tmp_path):
    for name in 'tools', 'nbs/lessons', 'nbs/gather':
        shutil.copytree(top/name, tmp_path/name, ignore=shutil.ignore_patterns('__pycache__', 'images'))
    for name in 'nbs/index.ipynb', 'README.md', 'pyproject.toml': shutil.copy(top/name, tmp_path/name)
    settings = (top/'settings.ini').read_text(encoding='utf-8')
    old = [re.search(rf'^{k} = (.+)', settings, flags=re.M)[1] for k in ('user', 'repo', 'branch')]
    changed = settings
    for k,v in dict(user='ada', repo='bears-2', branch='trunk').items():
        changed = re.sub(rf'^{k} = .+', f'{k} = {v}', changed, flags=re.M)
    files = [f for f in tmp_path.rglob('*') if f.suffix in ('.md', '.toml', '.ipynb')]
    texts = lambda: {f: f.read_text(encoding='utf-8') for f in files}
    before = texts()
    (tmp_path/'settings.ini').write_text(changed, encoding='utf-8')
    run('tools/links.py', cwd=tmp_path)
    after = texts()
    for f,t in after.items():
        assert not re.search(rf'(?:github\.com|/github|/gh)/{old[0]}/|{old[0]}\.github\.io', t), f
    lesson = after[tmp_path/'nbs/lessons/01_first_model.ipynb']
    assert 'colab.research.google.com/github/ada/bears-2/blob/trunk/nbs/lessons/01' in lesson
    assert 'git+https://github.com/ada/bears-2' in lesson
    assert 'mybinder.org/v2/gh/ada/bears-2/trunk?urlpath' in after[tmp_path/'nbs/index.ipynb']
    assert 'https://ada.github.io/bears-2"' in after[tmp_path/'pyproject.toml']
    run('tools/links.py', cwd=tmp_path)
    assert texts()==after
    (tmp_path/'settings.ini').write_text(settings, encoding='utf-8')
    run('tools/links.py', cwd=tmp_path)
    assert texts()==before   # and the way back
