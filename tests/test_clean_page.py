"The page for friends, driven in a real Chromium; and that its answers mean what the same decisions in Python mean."
import json, shutil
from pathlib import Path
import pandas as pd
import pytest
from PIL import Image
from bearclass.clean.decisions import CleaningJournal, add_decisions, read_decisions
from bearclass.clean.page import cleaning_page
from bearclass.dataset import why_no_folder
from bearclass.samples.datasets import draw_bears

CLASSES = ['black', 'grizzly', 'teddy']
KINDS = 'likely mislabelled', 'ambiguous', ''
browser_test = pytest.mark.browser


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    "Thumbnails of a test stay with the tests."
    monkeypatch.setenv('BEARCLASS_CACHE', str(tmp_path_factory.getbasetemp()/'cache'))

@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    "Drawn bears, some in the wrong folder; copied by tests that change them."
    return draw_bears(tmp_path_factory.mktemp('page')/'bears', n_per_class=8, seed=5, label_noise=.2, size=128)

def table(drawn, root):
    "As `label_issues` returns it, from the truth."
    t = drawn.truth
    wrong = [a!=b for a,b in zip(t.label, t.true_label)]
    df = pd.DataFrame(dict(
        path=[Path(root)/Path(p).relative_to(drawn.root) for p in t.path], sha256=t.sha256,
        split=['valid' if i%5==0 else 'train' for i in range(len(t))],
        given_label=t.label, predicted_label=t.true_label,
        p_given=[.031 if w else .9 for w in wrong], p_predicted=[.9685 if w else .9 for w in wrong],
        kind=[KINDS[0] if w else KINDS[i%3] if i%3 else '' for i,w in enumerate(wrong)]))
    return df.sort_values('kind', ascending=False, kind='stable', ignore_index=True)

@pytest.fixture
def bears(drawn, tmp_path):
    "A copy of the bears, and its table."
    root = Path(shutil.copytree(drawn.root, tmp_path/'bears'))
    return root, table(drawn, root)


def visit(page, path):
    "Open the page as a file; anything it complains about is collected."
    page.complaints = []
    page.set_default_timeout(120_000)
    page.on('console', lambda m: page.complaints.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda e: page.complaints.append(str(e)))
    page.goto(Path(path).as_uri())
    page.wait_for_selector('.card, #none:not([hidden])')
    return page

@pytest.fixture
def opened(bears, browser_page, tmp_path):
    "The page for the bears, open in a browser."
    root,issues = bears
    return visit(browser_page, cleaning_page(issues, tmp_path/'clean.html', root))

def card(page, i): return page.locator('.card').nth(i)
def card_text(page, i): return card(page, i).text_content()   # also of a card that is not laid out yet
def press(page, i, text): card(page, i).get_by_role('button', name=text, exact=True).click()
def choose(page, i, label): card(page, i).locator('select').select_option('to '+label)
def chosen(page, i): return card(page, i).locator('select').input_value()
def pressed(page, i): return card(page, i).locator('[aria-pressed=true]').all_text_contents()
def count(page): return page.inner_text('#count')
def n_cards(page): return page.locator('.card').count()

def sign(page, name):
    page.fill('#by', name)
    page.locator('#by').blur()

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


@browser_test
def test_a_friend_looks_pictures_through(bears, opened, screenshots, tmp_path):
    page,issues = opened,bears[1]
    assert page.title()=='bears: is every picture in the right class?' and count(page)=='0 of 24 decided'
    assert page.locator('#download').is_disabled() and page.locator('#undo').is_disabled()
    label,said = issues.given_label[0],issues.predicted_label[0]
    text = card_text(page, 0)
    for words in f'filed under {label}', f'{said}\xa097\xa0%', f'{label}\xa03\xa0%', 'likely mislabelled':
        assert words in text
    assert page.locator('.tag', has_text='validation').count()==(issues.split=='valid').sum()
    page.screenshot(path=screenshots/'clean_page.png')

    press(page, 0, said)
    press(page, 1, f'Keep {issues.given_label[1]}')
    press(page, 2, 'Remove')
    press(page, 2, 'Remove')                       # pressed again: taken back
    assert pressed(page, 2)==[] and count(page).startswith('2 of 24')
    page.click('#undo')                            # and that is taken back as well
    assert pressed(page, 2)==['Remove'] and page.inner_text('#said')=='Taken back.'
    new_class(page, 3, 'panda')
    choose(page, 4, 'panda')                       # a class for the others from now on
    assert chosen(page, 3)=='to panda' and count(page)=='5 of 24 decided: 1 kept, 3 changed, 1 removed'
    sign(page, 'Aunt Ann')

    got = download(page, tmp_path)
    assert got.name=='decisions-bears-Aunt-Ann.json'
    rows = read_decisions(got)
    assert (rows.by, rows.dataset, rows.skipped)==('Aunt Ann', 'bears', [])
    want = [said, issues.given_label[1], None, 'panda', 'panda']
    assert [(r['sha256'], r['to']) for r in rows]==list(zip(issues.sha256, want))
    assert [r['from'] for r in rows]==[r['given_label'] for r in rows]==issues.given_label[:5].tolist()
    root = bears[0]
    assert add_decisions(root, got, new_class=True).status.eq('added').all()
    assert [r['to'] for r in CleaningJournal(root).in_force().values()]==want   # it means what was pressed
    page.click('#copy summary')
    page.wait_for_function("document.querySelector('#text').value")
    assert json.loads(page.input_value('#text'))['decisions']==json.loads(got.read_text())['decisions']
    assert page.complaints==[]

@browser_test
def test_answers_survive_a_reload_and_filters(bears, opened, tmp_path):
    (root,issues),page = bears,opened
    press(page, 0, 'Remove')
    new_class(page, 1, 'Bär 🐻')
    sign(page, 'Ann')
    visit(page, tmp_path/'clean.html')
    assert count(page)=='2 of 24 decided: 1 changed, 1 removed' and page.input_value('#by')=='Ann'
    assert n_cards(page)==22                       # what is done need not be looked at again
    page.select_option('#state', 'done')
    assert (n_cards(page), pressed(page, 0), chosen(page, 1))==(2, ['Remove'], 'to Bär 🐻')
    page.click('#undo')                            # steps are remembered too
    assert count(page).startswith('1 of 24')
    page.select_option('#state', 'all')
    page.select_option('#given', 'of teddy')
    assert n_cards(page)==(issues.given_label=='teddy').sum()
    page.select_option('#given', '')
    page.select_option('#kind', 'of ambiguous')
    assert n_cards(page)==(issues.kind=='ambiguous').sum()
    n = n_cards(page)-page.locator('.card[data-choice]:not([data-choice=""])').count()
    page.click('#rest')                            # the others shown are right, in one step
    assert count(page)==f'{1+n} of 24 decided: {n} kept, 1 removed' and page.locator('#rest').is_disabled()
    page.click('#undo')
    assert count(page).startswith('1 of 24')
    again = cleaning_page(issues[:7], tmp_path/'seven.html', root)   # another set of pictures: another memory
    assert count(visit(page, again)).startswith('0 of 7') and page.complaints==[]

@browser_test
def test_what_the_browser_kept_is_checked(bears, opened, tmp_path):
    "Any page opened from a file may have written there."
    sha = bears[1].sha256[0]
    gone = dict(action='delete', to=None, reason='')
    odd = dict(choices=[[sha, dict(gone, action='burn')], ['x', gone], [sha], 3, [sha, None]],
               steps=[[['x', None]], 4, [[sha, 9]]], by=[1])
    for junk in '"', '[]', '7', 'null', '{"choices": 5}', json.dumps(odd):
        opened.evaluate('j => localStorage.setItem(key, j)', junk)
        visit(opened, tmp_path/'clean.html')
        assert count(opened).startswith('0 of 24') and opened.locator('#undo').is_disabled() and opened.complaints==[]

@browser_test
def test_keyboard(bears, browser_page, screenshots, tmp_path):
    root,issues = bears
    issues.attrs['vocab'] = ['teddy', 'black', 'grizzly']
    page = visit(browser_page, cleaning_page(issues, tmp_path/'clean.html', root))
    at = lambda: page.evaluate('shown.indexOf(current)')
    choice = lambda i: card(page, i).get_attribute('data-choice')
    to = lambda i, label: 'keep' if issues.given_label[i]==label else 'relabel'
    for key in 'ArrowRight', 'k', 'd', '1', '3', '9': page.keyboard.press(key)   # there is no ninth class
    assert [choice(i) for i in range(5)]==['keep', 'delete', to(2, 'teddy'), to(3, 'grizzly'), ''] and at()==4
    for key in 'u', 'ArrowDown', 'ArrowUp', 'ArrowLeft': page.keyboard.press(key)
    assert choice(3)=='' and at()==2 and page.evaluate('document.activeElement===cards.get(current.sha256)')
    page.keyboard.press('Control+d')               # the browser's own keys are left alone
    assert choice(2)==to(2, 'teddy')
    page.keyboard.press('n')
    page.keyboard.type('den')                      # d and n are letters here
    page.keyboard.press('Enter')
    assert chosen(page, 2)=='to den' and at()==2
    page.fill('#by', 'duke')
    assert count(page).startswith('3 of 24')
    for _ in range(30): page.keyboard.press('Tab')
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth")=='3px'
    at_focus = "document.activeElement.closest('.card')===cards.get(current?.sha256)"
    assert page.evaluate(at_focus)                 # keys mean the card in which something has the focus
    page.screenshot(path=screenshots/'clean_page_keys.png')
    assert page.complaints==[]

GOOD = ['panda', 'Bär 🐻', 'a.b', 'sun bear', 'big\xa0cat', 'گربه\u200cها', 'com11', 'com1x', 'x'*150, 'a\u0308'*75]
BAD = '''. .. .git a/b a\\b a:b a* a? "a" <b> a|b a. con NUL.txt com1 com0 LPT¹ conin$ CONOUT$.x
    manifest.jsonl DATASHEET.md croissant.json cleaning.jsonl cleaning_moves.jsonl
    forgotten.jsonl attribution.md merged.csv
    '''.split()
BAD += ['', ' ', ' x', 'x\xa0', 'con .x', 'a\u2028b', 'a\0b', 'a\tb', 'a\u200eb', 'teddy\u202e', '\u2067a']
BAD += ['\u0378', '\uffff', 'x'*151, 'ä'*76]

@browser_test
def test_names_of_new_classes(bears, opened):
    "The page asks for what `check_label` will take."
    page,issues = opened,bears[1]
    for names,refused in (GOOD, False), (BAD, True):
        for name in names:
            assert bool(page.evaluate('n => noFolder(n)', name))==bool(why_no_folder(name))==refused, repr(name)
    for half in '\\ud800', 'a\\udc80': assert page.evaluate(f"noFolder('{half}')")
    assert 'already' in page.evaluate("noFolder('Teddy')") and page.evaluate("noFolder('teddy')")==''
    new_class(page, 0, 'a/b')
    assert 'without' in page.inner_text('#wrong') and page.locator('#ask').is_visible()
    page.keyboard.press('Escape')
    assert count(page).startswith('0 of') and chosen(page, 0)==''
    new_class(page, 0, issues.given_label[0])      # its own class: kept
    assert pressed(page, 0)==[f'Keep {issues.given_label[0]}']

@browser_test
def test_where_nothing_can_be_remembered(bears, browser_page, tmp_path):
    root,issues = bears
    denied = "{get() { throw new DOMException('denied', 'SecurityError'); }}"
    browser_page.add_init_script(f"Object.defineProperty(window, 'localStorage', {denied})")
    page = visit(browser_page, cleaning_page(issues, tmp_path/'clean.html', root))
    assert page.locator('#forgetful').is_visible()
    press(page, 0, 'Remove')
    assert len(read_decisions(download(page, tmp_path)))==1 and page.complaints==[]

@browser_test
def test_leaving_with_answers_in_hand(opened, tmp_path):
    page,asked = opened,[]
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

ATTACK = """() => {
    window.refused = [];
    window.ran = 0;
    addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective));
    for (const html of ['<img src="http://127.0.0.1:9/x.png">', '<img src="x.png">',
                        '<iframe src="data:text/html,x"></iframe>', '<p style="color: red" onclick="ran = 1">x</p>']) {
        const d = document.createElement('div'); d.innerHTML = html; document.body.append(d);
        d.firstChild.click(); }   // some browsers look at a handler only now
    const s = document.createElement('script'); s.textContent = 'ran = 1'; document.body.append(s);
    return fetch('http://127.0.0.1:9/').catch(() => 0); }"""

REFUSED = """['img-src', 'connect-src', 'script-src-elem', 'script-src-attr', 'style-src-attr']
    .every(d => refused.includes(d)) && (refused.includes('frame-src') || refused.includes('child-src'))"""

@browser_test
def test_no_request_leaves_the_page(bears, browser_page, tmp_path):
    root,issues = bears
    asked = []
    browser_page.on('request', lambda r: asked.append(r.url))
    page = visit(browser_page, cleaning_page(issues, tmp_path/'clean.html', root))
    press(page, 0, 'Remove')
    download(page, tmp_path)
    assert {u.split(':')[0] for u in asked}<={'file', 'data', 'blob'}
    assert [u for u in asked if u.startswith('file')]==[(tmp_path/'clean.html').as_uri()]
    page.evaluate(ATTACK)
    for _ in range(100):   # the page's policy allows no function that waits
        if page.evaluate(REFUSED): break
        page.wait_for_timeout(100)
    assert page.evaluate(REFUSED) and page.evaluate('ran')==0

SMALL = """[...document.querySelectorAll('button, select, input, summary')]
    .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44).map(e => e.outerHTML)"""
NAMELESS = """[...document.querySelectorAll('button, select, input, textarea, img, progress')]
    .filter(e => !(e.textContent.trim() && e.tagName==='BUTTON'))
    .filter(e => !e.ariaLabel && !e.alt && !(e.labels && e.labels.length))
    .map(e => e.outerHTML)"""
END_IN_VIEW = """() => { scrollTo(0, 1e6);   // cards that come near are measured, and the page grows or shrinks
    const last = [...document.querySelectorAll('.end button, .end summary')].at(-1).getBoundingClientRect();
    return last.bottom <= document.querySelector('footer').getBoundingClientRect().top + 1; }"""

@browser_test
@pytest.mark.parametrize('width,scheme', [(360, 'light'), (360, 'dark'), (1280, 'dark')])
def test_screens(bears, browser, screenshots, tmp_path, width, scheme):
    "No sideways scrolling, targets as large as a fingertip, every control with a name, nothing behind the bar."
    root,issues = bears
    issues['similar_to'] = pd.Series([None, str(issues.path[4])] + [None]*22, dtype=object)
    phone = width<500
    context = browser.new_context(viewport=dict(width=width, height=740), color_scheme=scheme, device_scale_factor=2,
                                  has_touch=phone, is_mobile=phone)
    page = visit(context.new_page(), cleaning_page(issues, tmp_path/'clean.html', root, n=12))
    press(page, 0, 'Remove')
    press(page, 1, f'Keep {issues.given_label[1]}')
    page.evaluate("cards.get(pictures[1].sha256).scrollIntoView()")
    page.screenshot(path=screenshots/f'clean_page_{width}_{scheme}.png')
    page.wait_for_function(END_IN_VIEW)
    page.screenshot(path=screenshots/f'clean_page_{width}_{scheme}_end.png')
    assert '12 more are not on this page' in page.inner_text('#left')
    assert page.evaluate('document.documentElement.scrollWidth')<=width
    assert (page.evaluate(SMALL), page.evaluate(NAMELESS))==([], [])
    context.close()

HTML = '<img src=x onerror="ran=1"><script>ran=1</script>'

@browser_test
def test_odd_names(browser_page, screenshots, tmp_path):
    "Classes and files that contain HTML, quotes, newlines, emoji are shown as text, and decided about like others."
    root = tmp_path/'bears & <b>'
    labels = ['<img src=x onerror=ran=1>', 'a "quoted" \'class\' & more', 'two\nlines', 'Bär 🐻', 'keep', 'delete',
              '__proto__', '$title']
    files = [root/l/f'<!-- {i}\n\u202e🐻 "x".png' for i,l in enumerate(labels)]
    for i,f in enumerate(files):
        f.parent.mkdir(parents=True)
        Image.new('RGB', (40, 30), (i*30, 90, 60)).save(f)
    issues = pd.DataFrame(dict(path=files, predicted_label=labels[1:]+labels[:1], kind=HTML))
    browser_page.add_init_script('window.ran = 0')
    page = visit(browser_page, cleaning_page(issues, tmp_path/'odd.html', root, title=HTML))
    assert page.inner_text('h1')==HTML and page.title()==HTML
    text = card_text(page, 0)
    assert 'filed under <img src=x onerror=ran=1>' in text and HTML in text and '<!-- 0␊' in text
    page.screenshot(path=screenshots/'clean_page_odd.png')
    want = [*(labels[(i+3)%8] for i in range(6)), None, None]
    for i,to in enumerate(want): choose(page, i, to) if to else press(page, i, 'Remove')
    page.fill('#by', HTML)
    rows = read_decisions(download(page, tmp_path))
    assert [r['to'] for r in rows]==want and rows.by==HTML
    assert add_decisions(root, rows).status.tolist()==['added']*8
    assert [r['to'] for r in CleaningJournal(root).in_force().values()]==want
    assert page.evaluate('ran')==0 and page.complaints==[]

@browser_test
def test_decided_before(bears, browser_page, tmp_path):
    root,issues = bears
    other,third = [l for l in CLASSES if l!=issues.given_label[0]]
    keep = f'Keep {issues.given_label[1]}'
    CleaningJournal(root).mark_many([(issues.path[0], other), (issues.path[1], 'delete'), (issues.path[2], 'keep')])
    page = visit(browser_page, cleaning_page(issues, tmp_path/'clean.html', root))
    assert count(page)=='3 of 24 decided: 1 kept, 1 changed, 1 removed' and n_cards(page)==21
    page.select_option('#state', 'done')
    assert 'decided before: it is '+other in card_text(page, 0)
    assert 'decided before: remove' in card_text(page, 1)
    assert [pressed(page, i) for i in range(2)]==[[other], ['Remove']]
    press(page, 0, other)                          # that holds already: no answer
    assert page.locator('#download').is_disabled()
    press(page, 0, third)
    press(page, 1, keep)
    got = json.loads(download(page, tmp_path).read_text())['decisions']
    assert [(r['action'], r['from'], r['to']) for r in got]==[
        ('relabel', other, third), ('keep', issues.given_label[1], issues.given_label[1])]
    press(page, 0, other)                          # back to what holds
    assert len(json.loads(download(page, tmp_path).read_text())['decisions'])==1

@browser_test
def test_five_thousand_pictures(browser_page, tmp_path):
    "Only what is near is drawn, and the last picture is reached all the same."
    n = 5000
    issues = pd.DataFrame(dict(
        path=[tmp_path/f'bears/black/{i}.jpg' for i in range(n)], sha256=[f'{i:064x}' for i in range(n)],
        predicted_label='teddy', kind=[KINDS[i%3] for i in range(n)]))
    page = visit(browser_page, cleaning_page(issues, tmp_path/'many.html', tmp_path/'bears', side=48))
    assert count(page).startswith('0 of 5000') and n_cards(page)<=180
    page.evaluate('go(shown.at(-1))')
    page.keyboard.press('d')
    assert count(page)=='1 of 5000 decided: 1 removed'
    page.select_option('#kind', 'of ambiguous')
    assert n_cards(page)<=180
    page.select_option('#kind', '')
    page.evaluate('keepRest()')
    assert count(page).startswith('5000 of 5000')
    assert page.evaluate('JSON.parse(localStorage.getItem(key)).choices.length')==5000
    assert page.complaints==[]


# --- three ways, one meaning ---

