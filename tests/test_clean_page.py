"The page for friends, driven in a real Chromium; and that its answers mean what the same decisions in Python mean."
import json, random, re, shutil
from pathlib import Path
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from bearclass.gather.datasets import draw_bears
from bearclass.learn import clean_page as P
from bearclass.learn.decisions import CleaningJournal, _why_no_folder, add_decisions, read_decisions
from bearclass.learn.splits import content_sha256

KINDS = 'likely mislabelled', 'ambiguous', ''


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    "Thumbnails of a test stay with the tests."
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path_factory.getbasetemp()/'cache'))

@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    "Drawn bears, some in the wrong folder; copied by tests that change them."
    return draw_bears(tmp_path_factory.mktemp('page')/'bears', n_per_class=8, seed=5, label_noise=.2, size=128)

def table(drawn, root=None):
    "As `label_issues` returns it, from the truth."
    t = drawn.truth
    paths = [Path(p) if root is None else Path(root)/Path(p).relative_to(drawn.root) for p in t.path]
    df = pd.DataFrame(dict(path=paths, sha256=t.sha256, split=['valid' if i%5==0 else 'train' for i in range(len(t))], given_label=t.label,
        predicted_label=t.true_label, p_given=[.031 if a!=b else .9 for a,b in zip(t.label, t.true_label)], p_predicted=[.9685 if a!=b else .9 for a,b in zip(t.label, t.true_label)],
        kind=['likely mislabelled' if a!=b else KINDS[i%3] if i%3!=0 else '' for i,(a,b) in enumerate(zip(t.label, t.true_label))]))
    return df.sort_values('kind', ascending=False, kind='stable', ignore_index=True)

@pytest.fixture
def bears(drawn, tmp_path):
    "A copy of the bears, and its table."
    root = Path(shutil.copytree(drawn.root, tmp_path/'bears'))
    return root, table(drawn, root)


def visit(page, path):
    "Open the page as a file; anything it complains about is collected."
    page.complaints = []
    page.set_default_timeout(10_000)
    page.on('console', lambda m: page.complaints.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda e: page.complaints.append(str(e)))
    page.goto(Path(path).as_uri())
    page.wait_for_selector('.card, #none:not([hidden])')
    return page

def card(page, i): return page.locator('.card').nth(i)
def press(page, i, text): card(page, i).get_by_role('button', name=text, exact=True).click()
def choose(page, i, label): card(page, i).locator('select').select_option('to '+label)
def pressed(page, i): return [b.inner_text() for b in card(page, i).locator('[aria-pressed=true]').all()]
def count(page): return page.inner_text('#count')
def said(page): return page.inner_text('#said')

def download(page, folder):
    "Press the button; the file, under its suggested name."
    with page.expect_download() as got: page.click('#download')
    to = Path(folder)/got.value.suggested_filename
    got.value.save_as(to)
    return to

def new_class(page, i, name):
    card(page, i).locator('select').select_option('new')
    page.fill('#label', name)
    page.click('#add')


@pytest.mark.browser
def test_a_friend_looks_pictures_through(bears, browser_page, screenshots, tmp_path):
    root,issues = bears
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    assert page.title()=='bears: is every picture in the right class?' and count(page)=='0 of 24 decided'
    assert page.locator('#download').is_disabled() and page.locator('#undo').is_disabled()
    given,said_by = issues.given_label[0],issues.predicted_label[0]
    text = card(page, 0).inner_text()
    assert f'filed under {given}' in text and f'{said_by}\xa097\xa0%' in text and f'{given}\xa03\xa0%' in text and 'likely mislabelled' in text
    assert page.locator('.tag', has_text='validation').count()==(issues.split=='valid').sum()
    page.screenshot(path=screenshots/'clean_page.png')

    press(page, 0, said_by)
    press(page, 1, f'Keep {issues.given_label[1]}')
    press(page, 2, 'Remove')
    assert (pressed(page, 0), pressed(page, 1), pressed(page, 2)) == ([said_by], [f'Keep {issues.given_label[1]}'], ['Remove'])
    assert count(page)=='3 of 24 decided: 1 kept, 1 changed, 1 removed'
    press(page, 2, 'Remove')                       # pressed again: taken back
    assert pressed(page, 2)==[] and count(page).startswith('2 of 24')
    page.click('#undo')                            # and that is taken back as well
    assert pressed(page, 2)==['Remove'] and said(page)=='Taken back.'
    new_class(page, 3, 'panda')
    assert card(page, 3).locator('select').input_value()=='to panda' and count(page)=='4 of 24 decided: 1 kept, 2 changed, 1 removed'
    choose(page, 4, 'panda')                       # a class for the others from now on
    page.fill('#by', 'Aunt Ann')
    page.locator('#by').blur()

    got = download(page, tmp_path)
    assert got.name=='decisions-bears-Aunt-Ann.json'
    rows = read_decisions(got)
    assert (rows.by, rows.dataset, rows.skipped)==('Aunt Ann', 'bears', [])
    want = [('relabel', said_by), ('keep', issues.given_label[1]), ('delete', None), ('relabel', 'panda'), ('relabel', 'panda')]
    assert {r['sha256']: (r['action'], r['to']) for r in rows}==dict(zip(issues.sha256, want))
    assert [r['from'] for r in rows]==[r['given_label'] for r in rows]==issues.given_label[:5].tolist()
    page.click('#copy summary')
    assert json.loads(page.input_value('#text'))['decisions']==json.loads(got.read_text())['decisions']
    assert page.complaints==[]

@pytest.mark.browser
def test_answers_survive_a_reload_and_filters(bears, browser_page, tmp_path):
    root,issues = bears
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    press(page, 0, 'Remove')
    new_class(page, 1, 'Bär 🐻')
    page.fill('#by', 'Ann')
    page.locator('#by').blur()
    visit(page, tmp_path/'clean.html')
    assert count(page)=='2 of 24 decided: 1 changed, 1 removed' and page.input_value('#by')=='Ann'
    assert page.locator('.card').count()==22       # what is done need not be looked at again
    page.select_option('#state', 'done')
    assert (page.locator('.card').count(), pressed(page, 0), card(page, 1).locator('select').input_value())==(2, ['Remove'], 'to Bär 🐻')
    page.click('#undo')                            # steps are remembered too
    assert count(page).startswith('1 of 24')
    page.select_option('#state', 'all')
    for label in 'black', 'teddy':
        page.select_option('#given', f'of {label}')
        assert page.locator('.card').count()==(issues.given_label==label).sum()
    page.select_option('#given', '')
    page.select_option('#kind', 'of ambiguous')
    assert page.locator('.card').count()==(issues.kind=='ambiguous').sum()
    n = page.locator('.card').count()-page.locator('.card[data-choice]:not([data-choice=""])').count()
    page.click('#rest')                            # the others shown are right, in one step
    assert count(page)==f'{1+n} of 24 decided: {n} kept, 1 removed' and page.locator('#rest').is_disabled()
    page.click('#undo')
    assert count(page).startswith('1 of 24')
    again = P.cleaning_page(issues[:7], tmp_path/'seven.html', root)   # another set of pictures: another memory
    assert count(visit(page, again)).startswith('0 of 7') and page.complaints==[]

@pytest.mark.browser
def test_what_the_browser_kept_is_checked(bears, browser_page, tmp_path):
    "Any page opened from a file may have written there."
    root,issues = bears
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    sha = issues.sha256[0]
    for junk in '"', '[]', '7', 'null', '{"choices": 5}', json.dumps(dict(choices=[[sha, dict(action='burn', to=None, reason='')], ['x', dict(action='delete', to=None, reason='')], [sha], 3, [sha, None]], steps=[[['x', None]], 4, [[sha, 9]]], by=[1])):
        page.evaluate('j => localStorage.setItem(key, j)', junk)
        visit(page, tmp_path/'clean.html')
        assert count(page).startswith('0 of 24') and page.locator('#undo').is_disabled() and page.complaints==[]

@pytest.mark.browser
def test_keyboard(bears, browser_page, screenshots, tmp_path):
    root,issues = bears
    issues.attrs['vocab'] = ['teddy', 'black', 'grizzly']
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    at = lambda: page.evaluate('shown.indexOf(current)')
    for key in 'ArrowRight', 'k', 'd', '1', '3', '9': page.keyboard.press(key)   # there is no ninth class
    want = ['keep', None, 'delete'][:1] + ['delete'] + ['keep' if issues.given_label[2]=='teddy' else 'relabel', 'keep' if issues.given_label[3]=='grizzly' else 'relabel']
    assert [card(page, i).get_attribute('data-choice') for i in range(5)]==[*want, ''] and at()==4
    page.keyboard.press('u')
    assert card(page, 3).get_attribute('data-choice')=='' and at()==3
    n = page.evaluate('columns()')
    page.keyboard.press('ArrowDown')
    assert at()==3+n
    page.keyboard.press('ArrowUp')
    page.keyboard.press('ArrowLeft')
    assert at()==2 and page.evaluate('document.activeElement===cards.get(current.sha256)')
    page.keyboard.press('Control+d')               # the browser's own keys are left alone
    assert card(page, 2).get_attribute('data-choice')==want[2]
    page.keyboard.press('n')
    page.keyboard.type('den')                      # d and n are letters here
    page.keyboard.press('Enter')
    assert card(page, 2).locator('select').input_value()=='to den' and at()==2
    page.fill('#by', 'duke')
    assert count(page).startswith('3 of 24')
    for _ in range(30): page.keyboard.press('Tab')
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth")=='3px'
    page.screenshot(path=screenshots/'clean_page_keys.png')
    assert page.complaints==[]

@pytest.mark.browser
def test_names_of_new_classes(bears, browser_page, tmp_path):
    "The page asks for what `check_label` will take."
    root,issues = bears
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    for name in 'panda', 'Bär 🐻', 'a.b', 'sun bear', '', '.', '..', '.git', 'a/b', 'a\\b', 'a:b', 'a*', 'a?', '"a"', '<b>', 'a|b', 'a.', 'con', 'NUL.txt', 'com1', 'com11', 'a\u2028b', 'a\0b', 'x'*150, 'x'*151, 'ä'*76:
        assert bool(page.evaluate('n => noFolder(n)', name))==bool(_why_no_folder(name)), repr(name)
    assert 'already' in page.evaluate("noFolder('Teddy')") and page.evaluate("noFolder('teddy')")==''
    new_class(page, 0, 'a/b')
    assert 'without' in page.inner_text('#wrong') and page.locator('#ask').is_visible()
    page.keyboard.press('Escape')
    assert count(page).startswith('0 of') and card(page, 0).locator('select').input_value()==''
    new_class(page, 0, issues.given_label[0])      # its own class: kept
    assert pressed(page, 0)==[f'Keep {issues.given_label[0]}']

@pytest.mark.browser
def test_where_nothing_can_be_remembered(bears, browser_page, tmp_path):
    root,issues = bears
    browser_page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('denied', 'SecurityError'); }})")
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    assert page.locator('#forgetful').is_visible()
    press(page, 0, 'Remove')
    assert len(read_decisions(download(page, tmp_path)))==1 and page.complaints==[]

@pytest.mark.browser
def test_leaving_with_answers_in_hand(bears, browser_page, tmp_path):
    root,issues = bears
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    asked = []
    page.on('dialog', lambda d: (asked.append(d.type), d.accept()))
    visit(page, tmp_path/'clean.html')
    assert asked==[]
    press(page, 0, 'Remove')
    visit(page, tmp_path/'clean.html')             # still not downloaded
    assert asked==['beforeunload']
    press(page, 0, 'Remove')
    download(page, tmp_path)
    visit(page, tmp_path/'clean.html')
    assert asked==['beforeunload'] and count(page).startswith('2 of 24')

@pytest.mark.browser
def test_no_request_leaves_the_page(bears, browser_page, tmp_path):
    root,issues = bears
    asked = []
    browser_page.on('request', lambda r: asked.append(r.url))
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'clean.html', root))
    press(page, 0, 'Remove')
    download(page, tmp_path)
    assert {u.split(':')[0] for u in asked}<={'file', 'data', 'blob'} and [u for u in asked if u.startswith('file')]==[(tmp_path/'clean.html').as_uri()]
    page.evaluate("""() => { window.refused = []; addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective));
        window.ran = 0;
        for (const html of ['<img src="http://127.0.0.1:9/x.png">', '<img src="x.png">', '<iframe src="data:text/html,x"></iframe>', '<p style="color: red" onclick="ran = 1">x</p>']) {
            const d = document.createElement('div'); d.innerHTML = html; document.body.append(d); }
        const s = document.createElement('script'); s.textContent = 'ran = 1'; document.body.append(s);
        return fetch('http://127.0.0.1:9/').catch(() => 0); }""")
    page.wait_for_timeout(200)
    refused = set(page.evaluate('refused'))
    assert {'img-src', 'connect-src', 'script-src-elem', 'script-src-attr', 'style-src-attr'}<=refused and refused & {'frame-src', 'child-src'} and page.evaluate('ran')==0

@pytest.mark.browser
@pytest.mark.parametrize('width,scheme', [(360, 'light'), (360, 'dark'), (1280, 'dark')])
def test_screens(bears, browser, screenshots, tmp_path, width, scheme):
    "No sideways scrolling, targets as large as a fingertip, every control with a name."
    root,issues = bears
    issues.loc[1, 'similar_to'] = str(issues.path[4])
    issues['similar_to'] = issues.similar_to.astype(object)
    context = browser.new_context(viewport=dict(width=width, height=740), color_scheme=scheme, device_scale_factor=2, has_touch=width<500, is_mobile=width<500)
    page = visit(context.new_page(), P.cleaning_page(issues, tmp_path/'clean.html', root, n=12))
    press(page, 0, 'Remove')
    press(page, 1, f'Keep {issues.given_label[1]}')
    page.evaluate('scrollTo(0, 0)')
    page.screenshot(path=screenshots/f'clean_page_{width}_{scheme}.png')
    page.evaluate("cards.get(pictures[1].sha256).scrollIntoView()")
    page.screenshot(path=screenshots/f'clean_page_{width}_{scheme}_cards.png')
    page.evaluate('scrollTo(0, 1e6)')
    page.wait_for_timeout(200)                     # cards that come near are measured, and the page grows or shrinks
    page.evaluate('scrollTo(0, 1e6)')
    page.screenshot(path=screenshots/f'clean_page_{width}_{scheme}_end.png')
    assert '12 more are not on this page' in page.inner_text('#left') or width>500
    assert page.evaluate('document.documentElement.scrollWidth')<=width
    small = page.evaluate("[...document.querySelectorAll('button, select, input, summary')].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44).map(e => e.outerHTML)")
    nameless = page.evaluate("[...document.querySelectorAll('button, select, input, textarea, img, progress')].filter(e => !(e.textContent.trim() && e.tagName==='BUTTON') && !e.ariaLabel && !e.alt && !(e.labels && e.labels.length)).map(e => e.outerHTML)")
    covered = page.evaluate("(() => { const last = [...document.querySelectorAll('.end button, .end summary')].at(-1).getBoundingClientRect(), bar = document.querySelector('footer').getBoundingClientRect(); return last.bottom > bar.top + 1; })()")
    context.close()
    assert (small, nameless, covered)==([], [], False)

def luminance(colour):
    "WCAG 2.2, relative luminance."
    c = colour[1:] if len(colour)==7 else ''.join(2*x for x in colour[1:])
    r,g,b = [(v/12.92 if v<=.03928 else ((v+.055)/1.055)**2.4) for v in (int(c[i:i+2], 16)/255 for i in (0, 2, 4))]
    return .2126*r+.7152*g+.0722*b

def test_contrast():
    "4.5 for text, 3 for the edges of controls, in light and in dark (WCAG 2.2, 1.4.3 and 1.4.11)."
    light,dark = [dict(re.findall(r'--([\w-]+): (#\w+)', block)) for block in re.findall(r':root \{(.*?)\}', P._style, re.S)]
    assert light.keys()==dark.keys()
    for c in light, dark:
        ratio = lambda a, b: (max(luminance(c[a]), luminance(c[b]))+.05)/(min(luminance(c[a]), luminance(c[b]))+.05)
        for a,b in [(t, g) for t in ('ink', 'quiet') for g in ('page', 'card')] + [(k, f'{k}-soft') for k in ('keep', 'relabel', 'delete')] + [('card', 'relabel')]: assert ratio(a, b)>=4.5, (a, b)
        for a,b in [('edge', 'card'), ('edge', 'page'), ('focus', 'card'), ('focus', 'page')]: assert ratio(a, b)>=3, (a, b)


HTML = '<img src=x onerror="ran=1"><script>ran=1</script>'

@pytest.mark.browser
def test_odd_names(browser_page, screenshots, tmp_path):
    "Classes and files that contain HTML, quotes, newlines, emoji are shown as text, and decided about like others."
    root = tmp_path/'bears & <b>'
    labels = ['<img src=x onerror=ran=1>', 'a "quoted" \'class\' & more', 'two\nlines', 'Bär 🐻', 'keep', 'delete', '__proto__', '{title}']
    files = []
    for i,l in enumerate(labels):
        files.append(root/l/f'</script><!-- {i}\n\u202e🐻 "x".png'.replace('/', ''))
        files[-1].parent.mkdir(parents=True)
        Image.new('RGB', (40, 30), (i*30, 90, 60)).save(files[-1])
    issues = pd.DataFrame(dict(path=files, predicted_label=labels[1:]+labels[:1], kind=HTML))
    browser_page.add_init_script('window.ran = 0')
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'odd.html', root, title=HTML))
    assert page.inner_text('h1')==HTML and page.title()==HTML
    text = card(page, 0).inner_text()
    assert 'filed under <img src=x onerror=ran=1>' in text and HTML in text and '<script><!-- 0␊' in text
    page.screenshot(path=screenshots/'clean_page_odd.png')
    for i,l in enumerate(labels): choose(page, i, labels[(i+3)%8]) if i<6 else press(page, i, 'Remove')
    page.fill('#by', HTML)
    rows = read_decisions(download(page, tmp_path))
    assert {r['path']: r['to'] for r in rows}=={f.relative_to(root).as_posix(): labels[(i+3)%8] if i<6 else None for i,f in enumerate(files)} and rows.by==HTML
    assert add_decisions(root, rows).status.tolist()==['added']*8
    assert [r['to'] for r in CleaningJournal(root).in_force().values()]==[r['to'] for r in rows]
    assert page.evaluate('ran')==0 and page.complaints==[]

@given(st.recursive(st.text() | st.integers(-2**53, 2**53) | st.none(), lambda o: st.lists(o, max_size=3) | st.dictionaries(st.text(), o, max_size=3), max_leaves=8))
@settings(max_examples=200, deadline=None)
def test_any_text_in_the_page(data):
    block = P._json(data)
    assert json.loads(block)==data and '<' not in block and block.isascii()

@pytest.mark.browser
def test_decided_before(bears, browser_page, screenshots, tmp_path):
    root,issues = bears
    journal = CleaningJournal(root)
    other = next(l for l in ('black', 'teddy', 'grizzly') if l!=issues.given_label[0])
    third = next(l for l in ('black', 'teddy', 'grizzly') if l not in (issues.given_label[0], other))
    journal.mark(issues.path[0], other, by='a colleague')
    journal.mark(issues.path[1], 'delete')
    journal.mark(issues.path[2], 'keep')
    path = P.cleaning_page(issues, tmp_path/'clean.html', root)
    page = visit(browser_page, path)
    assert 'a colleague' not in path.read_text()
    assert count(page)=='3 of 24 decided: 1 kept, 1 changed, 1 removed' and page.locator('.card').count()==21
    page.select_option('#state', 'done')
    assert 'decided before: it is '+other in card(page, 0).inner_text() and 'decided before: remove' in card(page, 1).inner_text()
    assert [pressed(page, i) for i in range(3)]==[[other], ['Remove'], [f'Keep {issues.given_label[2]}']]
    press(page, 0, other)                          # that holds already: no answer
    assert page.locator('#download').is_disabled()
    press(page, 0, third)
    press(page, 1, f'Keep {issues.given_label[1]}')
    page.screenshot(path=screenshots/'clean_page_before.png')
    got = json.loads(download(page, tmp_path).read_text())['decisions']
    assert [(r['action'], r['from'], r['to']) for r in got]==[('relabel', other, third), ('keep', issues.given_label[1], issues.given_label[1])]
    press(page, 0, other)                          # back to what holds
    assert len(json.loads(download(page, tmp_path).read_text())['decisions'])==1
    assert add_decisions(root, got).status.tolist()==['added']*2 and add_decisions(root, got).status.tolist()==['already']*2

@pytest.mark.browser
def test_five_thousand_pictures(browser_page, tmp_path):
    "Only what is near is drawn, and the last picture is reached all the same."
    n = 5000
    issues = pd.DataFrame(dict(path=[tmp_path/f'bears/black/{i}.jpg' for i in range(n)], sha256=[f'{i:064x}' for i in range(n)], predicted_label='teddy', kind=[KINDS[i%3] for i in range(n)]))
    sha = issues.sha256[n-1]
    P._keep(P._cached(sha, 48), P._jpeg(Image.new('RGB', (48, 48), 'red')))   # the file is gone, its thumbnail is known
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'many.html', tmp_path/'bears', side=48))
    assert count(page).startswith('0 of 5000') and page.locator('.card').count()<=180
    press(page, 0, 'teddy')
    page.evaluate('go(shown.at(-1))')
    page.keyboard.press('d')
    assert count(page)=='2 of 5000 decided: 1 changed, 1 removed' and card(page, n-1).locator('img').get_attribute('alt')=='the picture'
    page.select_option('#kind', 'of ambiguous')
    assert page.locator('.card').count()<=180
    page.select_option('#kind', '')
    page.evaluate('keepRest()')
    assert count(page).startswith('5000 of 5000') and page.evaluate('JSON.parse(localStorage.getItem(key)).choices.length')==5000
    assert page.complaints==[]


# --- three ways, one meaning ---

def tree(root):
    "{name: content} of all pictures of a dataset, and of what was removed from it."
    here = [root, root.with_name(f'{root.name}_removed')]
    return {f.relative_to(root.parent).as_posix(): content_sha256(f) for d in here if d.is_dir() for f in d.rglob('*') if f.is_file() and f.suffix!='.jsonl'}

def meaning(root):
    "What is in force, apart from when, by whom and in which step."
    return {s: {k: v for k,v in r.items() if k not in ('time', 'step', 'by')} for s,r in CleaningJournal(root).in_force().items()}

def plan(issues):
    "Choices as a person makes them, with changes of mind: [(position, choice)]; None takes the last press back."
    others = lambda i: [l for l in ('black', 'grizzly', 'teddy') if l!=issues.given_label[i]]
    return [(0, issues.predicted_label[0]), (1, 'keep'), (2, 'delete'), (3, others(3)[0]), (3, others(3)[1]), (4, 'delete'), (4, 'keep'),
            (5, 'panda'), (6, others(6)[0]), None, (7, 'delete'), None, (7, others(7)[0]), (8, 'panda'), (9, 'keep'), (10, 'delete')]

def by_clicks(page, root, issues, tmp):
    visit(page, P.cleaning_page(issues, tmp/'page.html', root))
    for step in plan(issues):
        if step is None: page.click('#undo')
        else:
            i,choice = step
            if choice=='panda' and 'panda' not in page.evaluate('classes'): new_class(page, i, choice)
            elif choice=='panda': choose(page, i, choice)
            else: press(page, i, dict(keep=f'Keep {issues.given_label[i]}', delete='Remove').get(choice, choice))
    assert add_decisions(root, download(page, tmp), new_class=True).status.eq('added').all()

def by_journal(root, issues):
    journal = CleaningJournal(root)
    for step in plan(issues):
        if step is None: journal.undo()
        else:
            row = issues.iloc[step[0]]
            journal.mark(row.path, step[1], new_class=True, given_label=row.given_label, predicted_label=row.predicted_label)

def by_cleaner(root, issues):
    from bearclass.learn.clean import ImageCleaner
    cleaner = ImageCleaner(issues, root)
    for step in plan(issues):
        if step is None: cleaner.undo()
        else: cleaner.mark(issues.path[step[0]], step[1], new_class=True)

@pytest.mark.browser
def test_three_ways_mean_the_same(drawn, browser_page, tmp_path):
    from bearclass.learn.apply import apply_decisions
    roots = {way: Path(shutil.copytree(drawn.root, tmp_path/way/'bears')) for way in ('clicks', 'journal', 'cleaner')}
    tables = {way: table(drawn, r) for way,r in roots.items()}
    by_clicks(browser_page, roots['clicks'], tables['clicks'], tmp_path)
    by_journal(roots['journal'], tables['journal'])
    by_cleaner(roots['cleaner'], tables['cleaner'])
    said = {way: meaning(r) for way,r in roots.items()}
    changed = tables['clicks'].sha256[3]
    ways = {way: m[changed].pop('from') for way,m in said.items()}        # `from` is the label before this step, and the page writes the last step alone
    assert ways['clicks']==tables['clicks'].given_label[3] and ways['journal']==ways['cleaner']==plan(tables['clicks'])[3][1]
    assert len(said['clicks'])==10 and said['clicks']==said['journal']==said['cleaner']
    before = tree(roots['clicks'])
    moved = {way: apply_decisions(r) for way,r in roots.items()}
    trees = {way: tree(r) for way,r in roots.items()}
    assert trees['clicks']==trees['journal']==trees['cleaner']!=before
    assert sorted(trees['clicks'].values())==sorted(before.values())      # nothing is lost
    assert moved['clicks'].status.tolist()==moved['journal'].status.tolist()==moved['cleaner'].status.tolist()
    assert sum(n.startswith('bears_removed/') for n in trees['clicks'])==2 and sum(n.startswith('bears/panda/') for n in trees['clicks'])==2

@pytest.mark.browser
def test_the_file_straight_to_apply(drawn, browser_page, tmp_path):
    "Without a look at the journal between; and a second page made after it knows what was done."
    from bearclass.learn.apply import apply_decisions
    root = Path(shutil.copytree(drawn.root, tmp_path/'bears'))
    issues = table(drawn, root)
    page = visit(browser_page, P.cleaning_page(issues, tmp_path/'page.html', root))
    press(page, 0, issues.predicted_label[0])
    press(page, 1, 'Remove')
    apply_decisions(root, download(page, tmp_path))
    now = tree(root)
    assert f"bears/{issues.predicted_label[0]}/{issues.path[0].name}" in now and f"bears_removed/{issues.given_label[1]}/{issues.path[1].name}" in now and len(now)==24
    page = visit(page, P.cleaning_page(issues, tmp_path/'again.html', root))
    assert count(page)=='2 of 24 decided: 1 changed, 1 removed'

def test_real_photos(tmp_path):
    "Real photos: a few kB each, the same again from the cache, none of them larger than asked for."
    from conftest import REAL
    if not (REAL/'bears').is_dir(): pytest.skip('no bears in data: set BEARCLASS_TEST_DATA')
    import io
    files = random.sample(sorted((REAL/'bears').rglob('*.jpg')), 40)
    small = P.thumbnails(files, 120)
    assert P.thumbnails(files, 120)==small and all(max(Image.open(io.BytesIO(b)).size)==120 for b in small) and sum(map(len, small))/40<6000
