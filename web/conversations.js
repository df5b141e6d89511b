// The list of conversations: fetched from our own routes when something has changed, never by the clock. What is in it is
// text; nothing is read as markup. Opening one is a Gradio event, everything else a request.
const $ = (selector) => element.querySelector(selector);
const list = $('.list'), search = $('input[type=search]'), file = $('input[type=file]'), DAY = 86400000;
let shown = [], next = null, asking = null, timer = null, openMenu = null;

function make(tag, text, more = {}) {
  const node = Object.assign(document.createElement(tag), more);
  if (text != null) node.textContent = text;
  return node;
}
const act = (text, run, bad) => {
  const node = make('button', text, { type: 'button', className: bad ? 'bad' : '' });
  node.addEventListener('click', run);
  return node;
};
function tell(text, bad) {
  $('.told').textContent = text;
  $('.told').classList.toggle('bad', Boolean(bad));
}
const current = () => new URL(location.href).searchParams.get('conversation');
const where = (id) => `conversations/${encodeURIComponent(id)}`;

// Our routes tell a refusal as {code, message}.
async function ask(path, how) {
  const answer = await fetch(path, { cache: 'no-store', ...how });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  throw new Error((await answer.json().catch(() => null))?.message ?? `The server answered ${answer.status}.`);
}
const send = (method, path, body) => ask(path, { method, headers: { 'Content-Type': 'application/json' }, body });

async function load(more) {
  asking?.abort();
  const mine = asking = new AbortController(), words = search.value.trim();
  const query = new URLSearchParams({ limit: more ? 50 : Math.min(100, Math.max(50, shown.length)) });
  if (words) query.set('search', words);
  if (more) query.set('before', next);
  try {
    const told = await ask(`conversations?${query}`, { signal: mine.signal });
    shown = more ? [...shown, ...told.conversations] : told.conversations;
    next = told.next;
    tell(shown.length ? '' : words ? 'Nothing has these words.' : 'What you say here is kept in this list.');
    draw();
  } catch (e) {
    if (e.name !== 'AbortError') tell(`The list cannot be had: ${e.message}`, true);
  }
}

function group(updated) {
  const today = new Date().setHours(0, 0, 0, 0), at = Date.parse(updated);
  return at >= today ? 'Today' : at >= today - DAY ? 'Yesterday' : at >= today - 7 * DAY ? 'The last seven days' : 'Earlier';
}

function marked(text, words) {
  const node = make('small'), at = words ? text.toLowerCase().indexOf(words.toLowerCase()) : -1;
  if (at < 0) node.textContent = text;
  else node.append(text.slice(0, at), make('mark', text.slice(at, at + words.length)), text.slice(at + words.length));
  return node;
}

function draw() {
  const words = search.value.trim(), top = list.scrollTop, nodes = [], focused = element.contains(document.activeElement) && document.activeElement.closest('.one')?.dataset.id;
  let last = null;
  for (const one of shown) {
    const name = group(one.updated);
    if (name !== last) nodes.push(make('li', last = name, { className: 'group' }));
    nodes.push(entry(one, words));
    if (openMenu === one.id) nodes.push(menu(one));
  }
  list.replaceChildren(...nodes);
  list.scrollTop = top;
  if (focused) [...list.querySelectorAll('.one')].find((node) => node.dataset.id === focused)?.querySelector('a')?.focus();
}

function entry(one, words) {
  const item = make('li', null, { className: one.live ? 'one live' : 'one' }), link = make('a', null, { href: `?conversation=${encodeURIComponent(one.id)}`, title: one.title });
  item.dataset.id = one.id;
  item.ariaCurrent = String(one.id === current());
  link.append(make('b', one.title || 'Without a title'));
  if (one.found) link.append(marked(one.found, words));
  link.addEventListener('click', (e) => {
    if (e.metaKey || e.ctrlKey || e.shiftKey || e.button) return; // another tab
    e.preventDefault();
    go(one.id);
  });
  const more = make('button', '\u22ef', { type: 'button', className: 'more', ariaLabel: `More for ${one.title}`, ariaExpanded: String(openMenu === one.id) });
  more.addEventListener('click', () => { openMenu = openMenu === one.id ? null : one.id; draw(); });
  item.append(link, more);
  return item;
}

function menu(one) {
  const box = make('li', null, { className: 'menu' }), kept = (format, text) => make('a', text, { href: `${where(one.id)}?format=${format}`, download: format === 'json' ? `${one.title || 'conversation'}.json` : '' });
  box.append(
    act('Rename', () => rename(one)),
    act('Copy link', async (e) => {
      const link = new URL(`?conversation=${encodeURIComponent(one.id)}`, location.href).href, button = e.target;
      await navigator.clipboard?.writeText(link).then(() => { button.textContent = 'Copied'; }, () => prompt('The link', link));
    }),
    kept('markdown', 'Markdown'), kept('json', 'JSON'),
    act('Delete', () => box.replaceChildren(
      make('span', 'Delete it for good?'), act('Delete', () => remove(one), true), act('Keep', () => { openMenu = null; draw(); }),
    ), true),
  );
  return box;
}

function rename(one) {
  const item = [...list.querySelectorAll('.one')].find((node) => node.dataset.id === one.id), field = make('input', null, { value: one.title, maxLength: 200, ariaLabel: 'The title' });
  let done = false;
  const end = async (keep) => {
    if (done) return;
    done = true;
    openMenu = null;
    if (keep && field.value.trim() && field.value !== one.title) {
      try { one.title = (await send('PATCH', where(one.id), JSON.stringify({ title: field.value }))).title; tell(''); }
      catch (e) { tell(e.message, true); }
    }
    draw();
  };
  field.addEventListener('keydown', (e) => { if (e.key === 'Enter') end(true); else if (e.key === 'Escape') end(false); });
  field.addEventListener('blur', () => end(true));
  item.replaceChildren(field);
  field.focus();
  field.select();
}

async function remove(one) {
  try {
    await ask(where(one.id), { method: 'DELETE' });
    shown = shown.filter((other) => other !== one);
    openMenu = null;
    draw();
    if (one.id === current()) go(null);
  } catch (e) { tell(e.message, true); }
}

// A narrow page shows the list above everything else: it goes away with the choice.
const narrow = () => matchMedia('(max-width: 860px)').matches;
function go(id, replace) {
  if (narrow()) open(false);
  if (id !== current() && !replace) history.pushState(null, '', id ? `?conversation=${encodeURIComponent(id)}` : location.pathname);
  trigger('open', { id });
}

const KEY = 'glassbox conversations';
function open(wanted, keep) {
  document.body.classList.toggle('conversations', wanted);
  document.querySelector('#show-conversations')?.setAttribute('aria-expanded', String(wanted));
  if (keep && !narrow()) localStorage.setItem(KEY, wanted ? 'open' : 'closed');
  if (wanted) load();
  if (wanted && narrow()) $('.close').focus();
}

$('.new').addEventListener('click', () => go(null));
$('.close').addEventListener('click', () => open(false));
search.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(load, 200); });
list.addEventListener('scroll', () => { if (next && list.scrollTop + list.clientHeight > list.scrollHeight - 200) { load(true); next = null; } }, { passive: true });
$('.import').addEventListener('click', () => file.click());
file.addEventListener('change', async () => {
  const [chosen] = file.files;
  file.value = '';
  if (!chosen) return;
  try {
    const made = await send('POST', 'conversations', await chosen.text());
    tell('');
    go(made.conversation_id);
    load();
  } catch (e) { tell(`${chosen.name} was not imported: ${e.message}`, true); }
});
document.addEventListener('click', (e) => {
  if (e.target.closest('#show-conversations')) open(!document.body.classList.contains('conversations'), true);
});
document.addEventListener('keydown', (e) => {
  if (e.key !== 'Escape' || !narrow() || !document.body.classList.contains('conversations') || e.target.closest?.('.list input')) return;
  open(false);
  document.querySelector('#show-conversations')?.focus();
});
addEventListener('popstate', () => go(current(), true));

// Called by the panel when a conversation or a run begins or ends, and by the page when the address changes.
window.glassboxConversations = () => {
  if (!document.body.classList.contains('conversations')) return;
  clearTimeout(timer);
  timer = setTimeout(load, 60);
};
open(!narrow() && (localStorage.getItem(KEY) ?? (innerWidth >= 1200 ? 'open' : 'closed')) === 'open');
