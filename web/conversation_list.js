// The list of conversations: fetched from our routes when something has changed, never by a timer. Opening a conversation is
// a Gradio event, everything else a request.
const { confirmation, conversationId, emit, make, number, on, request } = window.glassbox;
const $ = (selector) => element.querySelector(selector), DAY = 86400000;
const list = $('.list'), search = $('input[type=search]'), file = $('input[type=file]');
let shown = [], next = null, searched = '', loading = null, timer = null;
let menuOf = null, asks = false, renaming = false;
let notice = ''; // about an import, until the visitor does something else

const path = (id) => `conversations/${encodeURIComponent(id)}`;
function tell(text, bad = false) {
  $('.notice').textContent = text;
  $('.notice').classList.toggle('bad', bad);
}
function action(text, act, className = '') {
  const button = make('button', { type: 'button', className }, text);
  button.addEventListener('click', act);
  return button;
}

async function load(more) {
  loading?.abort();
  const mine = loading = new AbortController(), words = search.value.trim(), cursor = next;
  const query = new URLSearchParams({ limit: 50 });
  if (words) query.set('search', words);
  if (more) { query.set('before', cursor); next = null; } // so that it is not requested twice
  try {
    const answer = await request(`conversations?${query}`, { cache: 'no-store', signal: mine.signal }), page = answer.conversations;
    // a scrolled list keeps what is older than the answer
    const ids = new Set(page.map((one) => one.id)), last = page.at(-1)?.updated;
    const older = more || words !== searched || !answer.next ? [] : shown.filter((one) => !ids.has(one.id) && one.updated <= last);
    shown = more ? [...shown, ...page] : [...page, ...older];
    if (!older.length) next = answer.next;
    searched = words;
    tell(notice || (shown.length ? '' : words ? 'No matches' : 'Your conversations appear here.'));
    draw();
    if (next && list.clientHeight && list.scrollHeight <= list.clientHeight) load(true);
  } catch (e) {
    if (more) next = cursor;
    if (e.name !== 'AbortError') tell(`Could not load your conversations: ${e.message}`, true);
  }
}

function group(updated) {
  const today = new Date().setHours(0, 0, 0, 0), at = Date.parse(updated);
  return at >= today ? 'Today' : at >= today - DAY ? 'Yesterday' : at >= today - 7 * DAY ? 'The last seven days' : 'Earlier';
}

// Draws the list, but not while a title is being edited. `focus` is the key of the element that gets the focus; by default
// the focus stays where it is.
function draw(focus = element.contains(document.activeElement) && document.activeElement.dataset.key) {
  if (renaming) return;
  const top = list.scrollTop, nodes = [];
  let last = null;
  for (const one of shown) {
    const name = group(one.updated);
    if (name !== last) nodes.push(make('li', { className: 'group' }, last = name));
    nodes.push(entry(one));
    if (menuOf === one.id) nodes.push(menu(one));
  }
  list.replaceChildren(...nodes);
  list.scrollTop = top;
  if (focus) [...list.querySelectorAll('[data-key]')].find((node) => node.dataset.key === focus)?.focus();
}
const keyed = (node, one, name) => { node.dataset.key = `${one.id} ${name}`; return node; };
function showMenu(one, open, confirms = false) {
  [menuOf, asks] = [open ? one.id : null, confirms];
  draw(`${one.id} ${confirms ? 'keep' : 'more'}`);
}

const BEFORE = 24; // characters before a match at most, so that the match is in the two visible lines

// `mark` counts characters; a JavaScript string has two code units for an emoji.
function excerpt(text, mark) {
  if (!mark) return make('small', {}, text);
  const all = [...text], part = (from, to) => all.slice(from, to).join('');
  let before = part(0, mark[0]);
  if (mark[0] > BEFORE) before = `\u2026${part(mark[0] - BEFORE, mark[0]).replace(/^\S{0,12}\s+(?=.)/u, '')}`; // at a word
  return make('small', {}, before, make('mark', {}, part(...mark)), part(mark[1]));
}

function entry(one) {
  const link = make('a', { href: `?conversation=${encodeURIComponent(one.id)}`, title: one.title }, make('b', {}, one.title || 'Untitled'));
  if (one.live) link.ariaDescription = 'A reply is being written';
  if (one.found) link.append(excerpt(one.found, one.mark));
  link.addEventListener('click', (e) => {
    if (e.metaKey || e.ctrlKey || e.shiftKey || e.button) return; // a new tab
    e.preventDefault();
    choose(one.id);
  });
  const more = action('\u22ef', () => showMenu(one, menuOf !== one.id), 'more');
  Object.assign(more, { ariaLabel: `More for ${one.title}`, ariaExpanded: String(menuOf === one.id) });
  const item = make('li', { className: one.live ? 'one live' : 'one' }, keyed(link, one, 'link'), keyed(more, one, 'more'));
  item.dataset.id = one.id;
  item.ariaCurrent = String(one.id === conversationId());
  return item;
}

function menu(one) {
  const box = make('li', { className: 'menu' });
  const add = (name, node) => box.append(keyed(node, one, name));
  const addExport = (format, text, download) => add(format, make('a', { href: `${path(one.id)}?format=${format}`, download }, text));
  if (asks) {
    const [question, yes, no] = confirmation(() => remove(one), () => showMenu(one, false));
    box.append(question);
    add('delete', yes);
    add('keep', no);
    return box;
  }
  add('rename', action('Rename', () => rename(one)));
  add('copy', action('Copy link', (e) => copyLink(new URL(`?conversation=${encodeURIComponent(one.id)}`, location.href).href, e.target)));
  addExport('markdown', 'Markdown', '');
  addExport('json', 'JSON', `${one.title || 'conversation'}.json`);
  add('delete', action('Delete', () => showMenu(one, true, true), 'bad'));
  return box;
}

const PRIVATE = 'Only this browser can open it.';

// The clipboard needs HTTPS or this machine.
async function copyLink(link, button) {
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = 'Copied';
    tell(notice = `Link copied. ${PRIVATE}`);
  } catch { prompt(`Link. ${PRIVATE}`, link); }
}

function rename(one) {
  const item = [...list.querySelectorAll('.one')].find((node) => node.dataset.id === one.id);
  const field = keyed(make('input', { value: one.title, maxLength: 200, ariaLabel: 'Title' }), one, 'link');
  let ended = false;
  const end = async (save) => {
    if (ended) return;
    ended = field.readOnly = true;
    if (save && field.value.trim() && field.value !== one.title) {
      try {
        const body = JSON.stringify({ title: field.value }), headers = { 'Content-Type': 'application/json' };
        const { title } = await request(path(one.id), { method: 'PATCH', cache: 'no-store', headers, body });
        for (const same of shown) if (same.id === one.id) same.title = title;
        tell('');
      } catch (e) { tell(e.message, true); }
    }
    renaming = false;
    menuOf = null;
    draw();
  };
  field.addEventListener('keydown', (e) => {
    if (e.key !== 'Enter' && e.key !== 'Escape') return;
    e.preventDefault();
    end(e.key === 'Enter');
  });
  field.addEventListener('blur', () => end(true));
  item.replaceChildren(field);
  renaming = true;
  field.focus();
  field.select();
}

async function remove(one) {
  try {
    await request(path(one.id), { method: 'DELETE', cache: 'no-store' });
    const at = shown.findIndex((other) => other.id === one.id);
    shown = shown.filter((other) => other.id !== one.id);
    const neighbour = shown[at] ?? shown[at - 1];
    menuOf = null;
    draw(neighbour && `${neighbour.id} link`);
    if (one.id === conversationId()) open(null, 'replaceState');
    if (!neighbour) load();
  } catch (e) { tell(e.message, true); }
}

function open(id, how = 'pushState') {
  const address = new URL(location.href);
  if (id) address.searchParams.set('conversation', id); else address.searchParams.delete('conversation');
  if (id !== conversationId()) history[how](null, '', address);
  menuOf = null;
  draw();
  emit('open');
  trigger('open', { id });
}
function choose(id) {
  notice = '';
  emit('chosen');
  open(id);
}

$('.new').addEventListener('click', () => choose(null));
search.addEventListener('input', () => { notice = ''; clearTimeout(timer); timer = setTimeout(load, 200); });
list.addEventListener('scroll', () => { if (next && list.scrollTop + list.clientHeight > list.scrollHeight - 200) load(true); }, { passive: true });
$('.import').addEventListener('click', () => file.click());
file.addEventListener('change', async () => {
  const [chosen] = file.files, most = Number(file.dataset.bytes), button = $('.import');
  file.value = '';
  if (!chosen) return;
  button.disabled = true;
  tell(notice = `Importing ${chosen.name} \u2026`);
  try {
    // the server would close the connection during the upload, and the browser would only say "Failed to fetch"
    if (chosen.size > most) throw new Error(`it is too large: at most ${most / 1e6} MB. From a ZIP file, import only conversations.json.`);
    const type = /\.zip$/i.test(chosen.name) ? 'application/zip' : 'application/json';
    const made = await request('conversations', { method: 'POST', cache: 'no-store', body: chosen, headers: { 'Content-Type': type } });
    notice = made.conversations ? summary(made) : '';
    if (!made.conversations) choose(made.conversation_id); // of several none is opened: the list shows them
    load();
  } catch (e) {
    notice = '';
    tell(`${chosen.name} was not imported: ${e.message}`, true);
  } finally {
    button.disabled = false;
  }
});

function summary({ conversations, skipped_in_all: skipped, skipped: reasons, left_out: left }) {
  const count = (n) => `${number(n)} conversation${n === 1 ? '' : 's'}`;
  const texts = [`${count(conversations.length)} imported.`];
  if (skipped) texts.push(`${count(skipped)} could not be read: ${reasons[0].title || 'untitled'}: ${reasons[0].reason}`);
  if (left) texts.push(`${count(left)} left out: the limit of saved conversations is reached. Delete some and import the file again.`);
  return texts.join(' ');
}
list.addEventListener('keydown', (e) => {
  const one = e.key === 'Escape' && !renaming && shown.find((other) => other.id === menuOf);
  if (!one) return;
  e.preventDefault();
  showMenu(one, false);
});
addEventListener('popstate', () => open(conversationId()));

function refresh() {
  if (!document.body.classList.contains('conversations')) return;
  clearTimeout(timer);
  timer = setTimeout(load, 60);
}
for (const name of ['run', 'conversations']) on(name, refresh, element);
