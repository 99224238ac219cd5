"""Build the site from the notebooks, with the outputs saved in them: nothing is run, nothing is fetched.

    python docs/build.py [--out FOLDER] [--only PAGE ...]

Prepares `build/site-pages` (the notebooks as readers want them, one reference page a module), which Sphinx turns into
`build/site`. A dead link, a missing picture or a broken formula ends it with an error.
"""
import argparse, ast, io, json, re, shutil, sys, tokenize, zlib
from pathlib import Path

top = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(top/'tools'))
from readme import settings

nbs,pages = top/'nbs',top/'build/site-pages'
pictures = '', '.png', '.jpg'   # and folders
texts = 'CONTRIBUTING.md', 'CHANGELOG.md', 'benchmarks/RESULTS.md'   # stand beside the notebooks in the site
rooms = {'': 'What all rooms share', 'samples': 'samples: pictures when the web is not there',
         'gather': 'gather: where pictures come from', 'learn': 'learn: from a folder to a model',
         'clean': 'clean: what is wrong with the pictures', 'ship': 'ship: a model that people use',
         'scratch': 'scratch: what happens behind the scenes'}
notebooks = sorted(f.relative_to(nbs) for f in nbs.rglob('*.ipynb')
                   if not {'.ipynb_checkpoints', 'app'} & set(f.parts))
cells = {f: json.loads((nbs/f).read_text(encoding='utf-8'))['cells'] for f in notebooks}
source = {f: [''.join(c['source']) for c in cs] for f,cs in cells.items()}
page_of = {m[1]: f for f,cs in source.items() for c in cs if (m := re.match(r'#\| default_exp (\S+)', c))}
linked = set(re.findall(r'#cell-id=(\w+)', ' '.join(c for cs in source.values() for c in cs)))


# reference: from the text of the modules, so that nothing is imported

def directive(kind, name, *body):
    "Sphinx's description of one name."
    text = '\n\n'.join(filter(None, body))
    fence = max(re.findall('`+', text), key=len, default='')+'````'   # longer than those inside
    return f'{fence}{{py:{kind}}} {name}\n\n{text}\n{fence}\n'


def decorations(node): return ' '.join(map(ast.unparse, node.decorator_list))


def call_of(node, comments, owner):
    "Signature of a function, and what is said of each argument and of the answer."
    a = node.args
    every = [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]
    back = node.returns.end_lineno if node.returns else 0   # a comment there is about the answer
    said = [f':param {o.arg}: {comments[o.end_lineno]}' for o in every if o.end_lineno in comments.keys()-{back}]
    if back in comments: said.append(f':returns: {comments[back]}')
    if owner and 'staticmethod' not in decorations(node) and a.args: del a.args[0]
    return f'({ast.unparse(a)})', '\n'.join(said)


def function(node, comments, owner=''):
    "A function or, of an owner, a method or property."
    call,said = call_of(node, comments, owner)
    if node.returns: call += f' -> {ast.unparse(node.returns)}'
    kind = 'method' if owner else 'function'
    if re.search('property|as_prop', decorations(node)): kind,call = 'property',''
    return directive(kind, owner+node.name+call, ast.get_docstring(node), said)


def public(nodes, *kinds):
    "Functions or classes among some definitions, without those that only set a property."
    found = [n for n in nodes if isinstance(n, kinds) and not n.name.startswith('_')]
    return [n for n in found if not re.search('setter|set_prop', decorations(n))]


def klass(node, comments):
    "What a class is made with, its docstring, and its methods."
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and not n.target.id.startswith('_')]
    for n in fields:
        if isinstance(n.value, (ast.Call, ast.JoinedStr)): n.value = ast.Constant(...)   # more than can be read
    call = f"({', '.join(map(ast.unparse, fields))})" if 'dataclass' in decorations(node) else ''
    said = '\n'.join(f':param {n.target.id}: {comments[n.end_lineno]}' for n in fields if n.end_lineno in comments)
    for n in node.body:
        if getattr(n, 'name', '')=='__init__': call,said = call_of(n, comments, node.name)
    methods = [function(n, comments, node.name+'.') for n in public(node.body, ast.FunctionDef)]
    return '\n'.join([directive('class', node.name+call, ast.get_docstring(node), said), *methods])


def reference(module):
    "The reference page of a module, such as `learn.train`: its public names, in the order of its page."
    file = module.replace('.', '/')+'.py'
    text = (top/'bearclass'/file).read_text(encoding='utf-8')
    tree,tokens = ast.parse(text),tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {t.start[0]: t.string.strip('# ') for t in tokens if t.type==tokenize.COMMENT}   # by line
    parts = []
    for n in public(tree.body, ast.FunctionDef, ast.ClassDef):
        owner = ast.unparse(n.args.args[0].annotation)+'.' if decorations(n).startswith('patch') else ''
        if owner.startswith('_'): continue
        parts.append(klass(n, comments) if isinstance(n, ast.ClassDef) else function(n, comments, owner))
    lead = f'From [](/{page_of[module].as_posix()}): the idea, the code, an example and its tests.'
    return '\n\n'.join([f'# {module}', ast.get_docstring(tree), lead, *parts])


names = {n.name for f in (top/'bearclass').rglob('*.py')
         for n in public(ast.parse(f.read_text(encoding='utf-8')).body, ast.FunctionDef, ast.ClassDef)
         if 'patch' not in decorations(n)}


# pages: the notebooks without what only the machine needs

def prose(text, page):
    "Markdown of a page: words of the glossary lead to cells, files of the top are beside it, badges are words."
    def name(m): return f'{{py:obj}}`{m[1]}`' if m[1] in names else m[0]
    parts = re.split(r'(```.*?```)', text, flags=re.S)   # every second one is code
    text = ''.join(p if p.startswith('```') else re.sub(r'(?<![\[`])`(\w+)`(?!`)', name, p) for p in parts)
    text = re.sub(r'\]\([^)\s]+#cell-id=(\w+)\)', r'](#\1)', text)
    text = re.sub(r'!\[([^]]*)\]\(https?:[^)]*\)', r'\1', text)   # a picture from outside
    def beside(m):
        there = (nbs/page).parent.joinpath(m[1]).resolve().relative_to(top).as_posix()
        return f'(/{there}' if there in texts else m[0]
    return re.sub(r'\((\.\./[^)\s#]+)', beside, text)


def write(name, text):
    "One file of the prepared pages."
    (pages/name).parent.mkdir(parents=True, exist_ok=True)
    (pages/name).write_text(text, encoding='utf-8')


def markdown(text): return dict(cell_type='markdown', id=f'site-{zlib.crc32(text.encode())}', metadata={}, source=text)


def write_page(page, s):
    "A notebook as the site shows it, with where its source and its reference are."
    shown = []
    for cell,text in zip(cells[page], source[page]):
        if re.match(r'#\|\s*(hide|default_exp)', text): continue
        if cell['id'] in linked and page.parent.name!='_practice': shown.append(markdown(f"({cell['id']})="))
        is_code = cell['cell_type']=='code'
        shown.append({**cell, 'source': re.sub(r'^#\|.*\n?', '', text, flags=re.M) if is_code else prose(text, page)})
    where = f"{s['user']}/{s['repo']}/blob/{s['branch']}/nbs/{page.as_posix()}"
    links = [f'[This notebook](https://github.com/{where})']
    links += [f"[Reference](/reference/{m.replace('.', '/')}.md)" for m,f in page_of.items() if f==page]
    shown.insert(1, markdown(' · '.join(links)))
    if page.name=='index.ipynb': shown.append(markdown(navigation()))
    about = dict(kernelspec=dict(name='python3', display_name='python3', language='python'),
                 language_info=dict(name='python', pygments_lexer='ipython3'))
    write(page, json.dumps(dict(cells=shown, metadata=about, nbformat=4, nbformat_minor=5)))


def toctree(names, caption, look):
    "Sphinx's list of pages."
    return '\n'.join(['```{toctree}', f':caption: {caption}', look, '', *names, '```', ''])


def by_room(title, names, folder=''):
    "A page that lists others, room by room."
    room = lambda name: name.removeprefix(folder).partition('/')[0] if '/' in name.removeprefix(folder) else ''
    lists = [toctree([f'/{n}' for n in names if room(n)==r], told, ':maxdepth: 1') for r,told in rooms.items()]
    return '\n'.join([f'# {title}\n', *lists])


def navigation():
    "In reading order: lessons, guides, then the pages and the reference of the modules."
    told = [f.as_posix() for f in notebooks if f.name!='index.ipynb']
    write('modules/index.md', by_room('Pages of the modules', told))
    modules = [f"reference/{m.replace('.', '/')}" for m in page_of]
    write('reference/index.md', by_room('Reference', modules, 'reference/'))
    behind = ['modules/index', 'reference/index', *(t.removesuffix('.md') for t in texts)]
    return '\n'.join([
        toctree([n for n in told if n.startswith('lessons/')], 'Lessons', ':hidden:'),
        toctree([n for n in told if n.startswith('guide/')], 'Guides', ':hidden:'),
        toctree(behind, 'Behind it', ':hidden:')])


def prepare():
    "All pages, anew."
    shutil.rmtree(pages, ignore_errors=True)
    def ignore(folder, names): return [n for n in names if n=='data' or Path(n).suffix not in pictures]   # a learner's
    shutil.copytree(nbs, pages, ignore=ignore)
    for f in notebooks: write_page(f, settings())
    for t in texts: write(t, re.sub(r'\((?:\.\./)?nbs/', '(/', (top/t).read_text(encoding='utf-8')))
    for module in page_of: write(f"reference/{module.replace('.', '/')}.md", reference(module))


def main():
    "Prepare, and call Sphinx; with names of pages, build only these, whose links to others are not looked at."
    from sphinx.cmd.build import main as sphinx
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--out', default=top/'build/site', help='folder of the site')
    p.add_argument('--only', nargs='*', default=[], help='such as lessons/01_first_model.ipynb')
    a = p.parse_args()
    global pages
    pages = Path(f'{a.out}-pages')
    prepare()
    part = []
    if a.only:
        for f in [*pages.rglob('*.ipynb'), *pages.rglob('*.md')]:
            if f.relative_to(pages).as_posix() not in [*a.only, 'index.ipynb']: f.unlink()
        part = ['-D', 'suppress_warnings=myst.xref_missing,toc.not_readable,toc.not_included']
    sys.exit(sphinx(['-q', '-W', '--keep-going', '-j', 'auto', '-E', *part, '-c', str(top/'docs'),
                     '-d', str(pages)+'-read', str(pages), str(a.out)]))


if __name__=='__main__': main()
