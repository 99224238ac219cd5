'use strict';

// What is known, and what has been chosen. A choice is an action and a label: to keep a picture is to say that its
// folder is right. A step is what one press changed, and what stood there before, so that it can be taken back.

const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const pictures = data.pictures, bySha = new Map(pictures.map(p => [p.sha256, p]));
let classes = [...data.classes];
let choices = new Map();      // sha256 -> {action, to, reason}: what was chosen on this page
let steps = [];               // [[sha256, choice before it or null], ...] for each press
let unsaved = false;          // something was chosen since the last download

const decision = p => choices.get(p.sha256) || p.before;
const same = (a, b) => Boolean(a && b && a.action === b.action && a.to === b.to);
const keep = (p, reason = '') => ({action: 'keep', to: p.given, reason});
const toLabel = (p, label) => label === p.given ? keep(p) : {action: 'relabel', to: label, reason: ''};
const away = {action: 'delete', to: null, reason: ''};

// Text from file names and labels is only ever shown as text, and characters that nobody sees get a sign.
const visible = s => String(s).replace(/[\u0000-\u001f]/g, c => String.fromCharCode(0x2400 + c.charCodeAt(0)));

function el(tag, props = {}, ...kids) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k.startsWith('aria-') || k === 'role') e.setAttribute(k, v);
    else e[k] = v;
  }
  e.append(...kids);
  return e;
}


// Answers are remembered by the browser, under the fingerprint of this set of pictures. Where it refuses that for
// files, the page says so and works without. What comes back is checked: any page opened from a file may have
// written it.

const key = 'bearclass decisions ' + data.fingerprint;

function isChoice(c) {
  if (!c || typeof c.reason !== 'string') return false;
  if (c.action === 'delete') return c.to === null;
  return ['keep', 'relabel'].includes(c.action) && typeof c.to === 'string';
}
const isKnown = c => Array.isArray(c) && bySha.has(c[0]);
const isStep = s => Array.isArray(s) && s.every(c => isKnown(c) && (c[1] === null || isChoice(c[1])));

function remember() {
  const all = {choices: [...choices], steps, classes, unsaved, by: $('by').value};
  try { localStorage.setItem(key, JSON.stringify(all)); }
  catch { $('forgetful').hidden = false; }     // refused, or full
}

function recall() {
  let was = null;
  try { was = JSON.parse(localStorage.getItem(key)); }
  catch { $('forgetful').hidden = false; }
  if (!was || !Array.isArray(was.choices)) return;
  choices = new Map(was.choices.filter(c => isKnown(c) && isChoice(c[1])));
  steps = Array.isArray(was.steps) ? was.steps.filter(isStep) : [];
  const chosen = [...choices.values()].map(c => c.to).filter(to => to !== null);
  classes = [...new Set([...data.classes, ...chosen])];
  unsaved = Boolean(was.unsaved) && choices.size > 0;
  $('by').value = typeof was.by === 'string' ? was.by : '';
}
addEventListener('storage', e => { if (e.key === key) { recall(); draw(); } });   // the same page in a second tab
addEventListener('beforeunload', e => { if (unsaved) { e.preventDefault(); e.returnValue = ''; } });


// A card is one picture with what is known about it and its buttons. Up to four classes get a button each; of more,
// only what the model says does, and the others are in a list: buttons that rearrange themselves would be a trap.

function percent(p) {         // never rounded to certainty
  if (p === null) return '';
  if (p > .995 && p < 1) return '\u00a0> 99\u00a0%';
  if (p < .005 && p > 0) return '\u00a0< 1\u00a0%';
  return '\u00a0' + Math.round(100 * p) + '\u00a0%';
}
const cards = new Map();      // sha256 -> its card, if it is drawn
const bdi = s => el('bdi', {}, visible(s));
const bold = s => el('b', {}, bdi(s));
const photo = (base64, alt) => el('img', {src: 'data:image/jpeg;base64,' + base64, alt, decoding: 'async'});

function prediction(p) {      // what the model says, and what it thinks of the label
  const line = el('p', {}, 'the model says ', bold(p.predicted), percent(p.p_predicted));
  if (p.predicted !== p.given && p.p_given !== null)
    line.append(el('span', {className: 'quiet'}, ', ', bdi(p.given), percent(p.p_given)));
  return line;
}

function tags(p) {
  const tag = (text, title = '') => el('span', {className: 'tag', textContent: visible(text), title});
  const out = [];
  if (p.kind) out.push(tag(p.kind));
  const why = 'The model is measured on this picture, so a change here changes the measure.';
  if (p.valid) out.push(tag('validation', why));
  if (p.also.length) out.push(tag(`${p.also.length + 1} copies`, visible(p.also.join(', '))));
  return out;
}

function decidedBefore(p) {
  const what = {delete: ['remove'], keep: ['keep']}[p.before.action] || ['it is ', bdi(p.before.to)];
  return el('p', {className: 'quiet'}, 'decided before: ', ...what);
}

function facts(p) {
  const out = el('div', {className: 'facts'}, el('p', {}, 'filed under ', bold(p.given)));
  if (p.predicted) out.append(prediction(p));
  out.append(el('p', {}, ...tags(p)));
  if (p.before) out.append(decidedBefore(p));
  out.append(el('p', {className: 'name', title: visible(p.path)}, bdi(p.path)));
  return out;
}

function button(p, choice, text) {
  const props = {type: 'button', className: choice.action, title: text, onclick: () => press(p, choice)};
  const b = el('button', props, el('bdi', {}, text));
  b.choice = choice;
  return b;
}

function others(p, shown) {   // the list of further classes
  const s = el('select', {'aria-label': 'another class'}, new Option('another \u2026', ''));
  for (const c of classes) if (!shown.includes(c)) s.add(new Option(visible(c), 'to ' + c));
  s.add(new Option('a new class \u2026', 'new'));
  s.onchange = () => {
    if (s.value === 'new') askClass(p);
    else if (s.value) press(p, toLabel(p, s.value.slice(3)));
    else paint(p);
  };
  return s;
}

function figures(p) {
  const out = [el('figure', {}, photo(p.picture, p.why ? 'cannot be shown: ' + p.why : 'the picture'))];
  if (p.twin) {
    const label = p.similar_to.split('/').at(-2) || '';
    const caption = el('figcaption', {title: visible(p.similar_to)}, 'nearly equal, filed under ', bold(label));
    out.push(el('figure', {}, photo(p.twin, 'a nearly equal picture'), caption));
  }
  return out;
}

function buttons(p) {
  if (!p.sha256) return el('p', {className: 'choices'}, 'Nothing can be decided about it: there is no file.');
  const near = data.classes.length <= 4 ? data.classes : [p.predicted];
  const shown = [p.given, ...near.filter(c => c && c !== p.given)];
  const each = shown.map((l, i) => button(p, toLabel(p, l), (i ? '' : 'Keep ') + visible(l)));
  return el('div', {className: 'choices'}, ...each, others(p, shown), button(p, away, 'Remove'));
}

function card(p) {
  let says = `filed under ${visible(p.given)}`;
  if (p.predicted) says += `, the model says ${visible(p.predicted)}${percent(p.p_predicted)}`;
  const c = el('article', {className: p.twin ? 'card twins' : 'card', tabIndex: -1, role: 'group', 'aria-label': says},
    el('div', {className: 'pictures'}, ...figures(p)), facts(p), buttons(p));
  c.addEventListener('focusin', () => { current = p; });
  cards.set(p.sha256, c);
  paint(p);
  return c;
}

function paint(p) {           // show on its card what is chosen
  const c = cards.get(p.sha256), now = decision(p);
  if (!c || !p.sha256) return;
  c.dataset.choice = now ? now.action : '';
  for (const b of c.querySelectorAll('button')) b.setAttribute('aria-pressed', same(now, b.choice));
  const s = c.querySelector('select'), to = now && now.action === 'relabel' ? 'to ' + now.to : '';
  s.value = [...s.options].some(o => o.value === to) ? to : '';
  s.classList.toggle('on', s.value !== '');
}


// Choosing, taking back, counting. Pressing what is pressed takes it back; pressing what the journal holds anyway is no
// new answer. A new class is asked for in a small window, and refused where no folder could have that name.

const plural = (n, word) => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;
const say = text => { $('said').textContent = text; };

function change(list) {       // [[picture, choice or null], ...]: one step
  steps.push(list.map(([p]) => [p.sha256, choices.get(p.sha256) || null]));
  put(list);
}

function put(list) {
  for (const [p, c] of list) c ? choices.set(p.sha256, c) : choices.delete(p.sha256);
  unsaved = choices.size > 0;
  remember();
  list.forEach(([p]) => paint(p));
  count();
}

function press(p, choice) {
  const off = same(choices.get(p.sha256), choice), old = same(p.before, choice);
  if (off || choices.has(p.sha256) || !old) change([[p, off || old ? null : choice]]);
  if (off) say('Taken back.');
  else if (choice.action === 'delete') say('Removed.');
  else say(`${choice.action === 'keep' ? 'Kept as' : 'Now'} ${visible(choice.to)}.`);
}

function undo() {
  const last = steps.pop();
  if (!last) return say('Nothing to take back.');
  put(last.map(([sha, c]) => [bySha.get(sha), c]));
  const p = bySha.get(last[0][0]);
  if (!shown.includes(p)) draw();
  go(p);
  say(last.length > 1 ? `${last.length} answers taken back.` : 'Taken back.');
}

const undecided = () => shown.filter(p => p.sha256 && !decision(p));
function keepRest() {
  const list = undecided().map(p => [p, keep(p, 'the rest of the page')]);
  if (list.length) { change(list); say(`${plural(list.length, 'picture')} kept.`); }
}

function count() {
  const all = pictures.filter(p => p.sha256), now = all.map(decision).filter(Boolean);
  const parts = [];
  for (const [action, word] of [['keep', 'kept'], ['relabel', 'changed'], ['delete', 'removed']]) {
    const n = now.filter(c => c.action === action).length;
    if (n) parts.push(`${n} ${word}`);
  }
  const more = el('span', {className: 'parts'}, (parts.length ? ': ' : '') + parts.join(', '));
  $('bar').max = all.length || 1;
  $('bar').value = now.length;
  $('count').replaceChildren(`${now.length} of ${all.length} decided`, more);
  $('undo').disabled = !steps.length;
  $('download').disabled = !choices.size;
  $('rest').textContent = `All others shown here are right: keep ${undecided().length}`;
  $('rest').disabled = !undecided().length;
}

// Why no folder can have this name, or '': the rules of `bearclass.dataset.why_no_folder`, in the same order.
const devices = /^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])$/;
const papers = ['manifest.jsonl', 'forgotten.jsonl', 'cleaning.jsonl', 'cleaning_moves.jsonl', 'attribution.md',
  'datasheet.md', 'croissant.json', 'merged.csv'];
const folded = s => s.normalize('NFC').toLowerCase();
function noFolder(name) {
  if (!name.trim()) return 'Type a name.';
  const twin = classes.find(c => c !== name && folded(c) === folded(name));
  if (twin) return `There is a class ${visible(twin)} already: to many computers these two are one.`;
  if (/[\p{Cc}\p{Cs}\p{Cn}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]/u.test(name))
    return 'It holds a character that nobody can see. Type it anew, please.';
  if (/[<>:"/\\|?*]|^[.\p{Zs}]|[.\p{Zs}]$/u.test(name))
    return 'A name without / \\ : * ? " < > | and without a dot at its begin or end, please.';
  if (devices.test(name.split('.')[0].trim().toLowerCase())) return 'Windows keeps this name for itself.';
  if (papers.includes(name.toLowerCase())) return 'A file of the dataset has this name.';
  return new TextEncoder().encode(name.normalize('NFC')).length > 150 ? 'A shorter name, please.' : '';
}

let asking = null;
function askClass(p) {
  paint(p);
  asking = p;
  $('label').value = $('wrong').textContent = '';
  $('ask').showModal();
}
function addClass() {
  const name = $('label').value.trim(), wrong = noFolder(name);
  $('wrong').textContent = wrong;
  if (wrong) return;
  if (!classes.includes(name)) offer(name);
  $('ask').close();
  press(asking, toLabel(asking, name));
}
function offer(name) {        // a new class, for all other pictures too
  classes.push(name);
  for (const s of $('list').querySelectorAll('select'))
    s.add(new Option(visible(name), 'to ' + name), s.options.length - 1);
  numbers();
}


// The list grows as one scrolls, sixty cards at a time, so that five thousand pictures open as fast as fifty. A card
// that has just been decided stays where it is until the filter changes: nothing flees from under the finger.

let shown = [], drawn = 0, current = null;
const watch = new IntersectionObserver(
  seen => { if (seen.some(e => e.isIntersecting)) more(); }, {rootMargin: '1500px'});

function more(n = 60) {
  $('list').append(...shown.slice(drawn, drawn + n).map(card));
  drawn = Math.min(shown.length, drawn + n);
  watch.disconnect();
  if (drawn < shown.length) watch.observe($('rest'));   // anew, so that it looks again at once
}

function draw() {
  const state = $('state').value, given = $('given').value, kind = $('kind').value;
  const wanted = p => (state === 'all' || (state === 'open') === !decision(p))
    && (!given || 'of ' + p.given === given) && (!kind || 'of ' + p.kind === kind);
  shown = pictures.filter(wanted);
  cards.clear();
  $('list').replaceChildren();
  drawn = 0;
  more();
  $('none').hidden = shown.length > 0;
  current = null;
  count();
  numbers();
}

function go(p) {              // to the card of this picture, drawing as far as it
  const i = shown.indexOf(p);
  if (i < 0) return;
  while (drawn <= i) more();
  const c = cards.get(p.sha256) || $('list').children[i];
  current = p;
  c.focus({preventScroll: true});
  c.scrollIntoView({block: 'nearest'});
}

function options(select, all, values) {
  const n = new Map();
  for (const v of values) if (v) n.set(v, (n.get(v) || 0) + 1);
  const sorted = [...n].sort((a, b) => a[0] < b[0] ? -1 : 1);
  select.replaceChildren(new Option(all, ''), ...sorted.map(([v, k]) => new Option(`${visible(v)} (${k})`, 'of ' + v)));
  select.onchange = () => draw();
  return n.size;
}
function numbers() {          // which number stands for which class
  const one = (c, i) => [el('kbd', {}, String(i + 1)), ' ', bdi(c), '\u2003'];
  $('numbers').replaceChildren(...classes.slice(0, 9).flatMap(one));
}


// Keys, for those who have two hundred pictures. After a choice the next picture comes up by itself.

const columns = () => getComputedStyle($('list')).gridTemplateColumns.split(' ').length;

function decide(p, choice) {  // by key: choose, then on to the next
  if (!same(choices.get(p.sha256), choice)) press(p, choice);
  go(shown[Math.min(shown.indexOf(p) + 1, shown.length - 1)]);
}

addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey || $('ask').open || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
  const i = shown.indexOf(current), p = current && current.sha256 ? current : null;
  const by = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns()}[e.key];
  const label = /^[1-9]$/.test(e.key) ? classes[e.key - 1] : null;
  if (by) go(shown[i < 0 ? 0 : Math.max(0, Math.min(shown.length - 1, i + by))]);
  else if (e.key === 'u') undo();
  else if (p && e.key === 'k') decide(p, keep(p));
  else if (p && e.key === 'd') decide(p, away);
  else if (p && e.key === 'n') askClass(p);
  else if (p && label) decide(p, toLabel(p, label));
  else return;
  e.preventDefault();
});
$('label').onkeydown = e => { if (e.key === 'Enter') { e.preventDefault(); addClass(); } };


// The file of decisions, in the form that `read_decisions` takes: what was decided about which content, and no picture.

function labelBefore(p) {     // this decision
  return p.before && choices.get(p.sha256).action !== 'keep' ? p.before.to || p.before.from : p.given;
}

function answers() {
  const row = p => ({sha256: p.sha256, ...choices.get(p.sha256), from: labelBefore(p),
    given_label: p.given, predicted_label: p.predicted || null, path: p.path});
  const created = new Date().toISOString().replace(/\.\d+Z$/, '+00:00');
  const decisions = pictures.filter(p => choices.has(p.sha256)).map(row);
  const all = {bearclass: 'decisions', schema: 1, dataset: data.dataset, created, by: $('by').value.trim(), decisions};
  return JSON.stringify(all, null, 1);
}

function download() {
  const words = ['decisions', data.dataset, $('by').value.trim()].join('-');
  const name = words.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/-+$/, '') + '.json';
  const url = URL.createObjectURL(new Blob([answers()], {type: 'application/json'}));
  const a = el('a', {href: url, download: name});
  document.body.append(a);    // Firefox wants it in the page
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  unsaved = false;
  remember();
  say(`Saved as ${name}: please send this file back.`);
}

recall();
options($('given'), 'any class', pictures.map(p => p.given));
$('kinds').hidden = !options($('kind'), 'any reason', pictures.map(p => p.kind));
$('state').replaceChildren(new Option('to do', 'open'), new Option('decided', 'done'), new Option('all', 'all'));
$('state').onchange = () => draw();
if (!pictures.some(p => !decision(p))) $('state').value = 'all';
$('left').hidden = !data.left_out;
$('left').textContent = `These are the ${plural(pictures.length, 'picture')} most in doubt; `
  + `${data.left_out.toLocaleString('en')} more are not on this page.`;
$('by').onchange = remember;
$('rest').onclick = keepRest;
$('undo').onclick = undo;
$('download').onclick = download;
$('copy').ontoggle = () => { $('text').value = answers(); };
$('add').onclick = addClass;
$('cancel').onclick = () => $('ask').close();
$('ask').onclose = () => { if (asking) { go(asking); asking = null; } };
draw();
