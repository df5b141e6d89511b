// The list of conversations: fetched from our own routes when something has changed, never by the clock. Opening one is a
// Gradio event, everything else a request.
const list = $('.list'), search = $('input[type=search]'), file = $('input[type=file]');
let shown = [], next = null, asked = '', asking = null, timer = null;
let menuOf = null, sure = false, renaming = false;
let notice = ''; // of an import, until something else is done here

async function load(more) {
  asking?.abort();
  const mine = asking = new AbortController(), words = search.value.trim(), cursor = next;
  const query = new URLSearchParams({ limit: 50 });
  if (words) query.set('search', words);
  if (more) { query.set('before', cursor); next = null; } // which is not asked for twice
  try {
    const told = await ask(`conversations?${query}`, { signal: mine.signal }), page = told.conversations;
    // a list that was scrolled keeps what is older than the answer
    const ids = new Set(page.map((one) => one.id)), last = page.at(-1)?.updated;
    const older = more || words !== asked || !told.next ? [] : shown.filter((one) => !ids.has(one.id) && one.updated <= last);
    shown = more ? [...shown, ...page] : [...page, ...older];
    if (!older.length) next = told.next;
    asked = words;
    tell(notice || (shown.length ? '' : words ? 'No results.' : 'Your conversations appear here.'));
    draw();
    if (next && list.clientHeight && list.scrollHeight <= list.clientHeight) load(true);
  } catch (e) {
    if (more) next = cursor;
    if (e.name !== 'AbortError') tell(`Could not load your conversations: ${e.message}`, true);
  }
}

// Everything is drawn again, except a title that is being edited. `focus` is the key of what then has it; otherwise
// what had it keeps it.
function draw(focus = element.contains(document.activeElement) && document.activeElement.dataset.key) {
  if (renaming) return;
  const top = list.scrollTop, nodes = [];
  let last = null;
  for (const one of shown) {
    const name = group(one.updated);
    if (name !== last) nodes.push(make('li', last = name, { className: 'group' }));
    nodes.push(entry(one));
    if (menuOf === one.id) nodes.push(menu(one));
  }
  list.replaceChildren(...nodes);
  list.scrollTop = top;
  if (focus) [...list.querySelectorAll('[data-key]')].find((node) => node.dataset.key === focus)?.focus();
}
const keyed = (node, one, name) => { node.dataset.key = `${one.id} ${name}`; return node; };
function showMenu(one, wanted, asks = false) {
  [menuOf, sure] = [wanted ? one.id : null, asks];
  draw(`${one.id} ${asks ? 'keep' : 'more'}`);
}

function entry(one) {
  const item = make('li', null, { className: one.live ? 'one live' : 'one' });
  const link = make('a', null, { href: `?conversation=${encodeURIComponent(one.id)}`, title: one.title });
  item.dataset.id = one.id;
  item.ariaCurrent = String(one.id === current());
  if (one.live) link.ariaDescription = 'A reply is being made';
  link.append(make('b', one.title || 'Without a title'));
  if (one.found) link.append(marked(one.found, one.mark));
  link.addEventListener('click', (e) => {
    if (e.metaKey || e.ctrlKey || e.shiftKey || e.button) return; // another tab
    e.preventDefault();
    choose(one.id);
  });
  const more = make('button', '\u22ef', { type: 'button', className: 'more', ariaLabel: `More for ${one.title}`, ariaExpanded: String(menuOf === one.id) });
  more.addEventListener('click', () => showMenu(one, menuOf !== one.id));
  item.append(keyed(link, one, 'link'), keyed(more, one, 'more'));
  return item;
}

function menu(one) {
  const box = make('li', null, { className: 'menu' });
  const add = (name, node) => box.append(keyed(node, one, name));
  const kept = (format, text, download) => add(format, make('a', text, { href: `${where(one.id)}?format=${format}`, download }));
  if (sure) {
    const [question, yes, no] = window.glassboxSure(() => remove(one), () => showMenu(one, false));
    box.append(question);
    add('delete', yes);
    add('keep', no);
    return box;
  }
  add('rename', act('Rename', () => rename(one)));
  add('copy', act('Copy link', (e) => copy(new URL(`?conversation=${encodeURIComponent(one.id)}`, location.href).href, e.target)));
  kept('markdown', 'Markdown', '');
  kept('json', 'JSON', `${one.title || 'conversation'}.json`);
  add('delete', act('Delete', () => showMenu(one, true, true), true));
  return box;
}

// Only a page that came over https, or from this machine, may write to the clipboard.
async function copy(link, button) {
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = 'Copied';
  } catch { prompt('The link', link); }
}

function rename(one) {
  const item = [...list.querySelectorAll('.one')].find((node) => node.dataset.id === one.id);
  const field = keyed(make('input', null, { value: one.title, maxLength: 200, ariaLabel: 'The title' }), one, 'link');
  let ended = false;
  const end = async (keep) => {
    if (ended) return;
    ended = field.readOnly = true;
    if (keep && field.value.trim() && field.value !== one.title) {
      try {
        const { title } = await send('PATCH', where(one.id), JSON.stringify({ title: field.value }));
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
    await ask(where(one.id), { method: 'DELETE' });
    const at = shown.findIndex((other) => other.id === one.id);
    shown = shown.filter((other) => other.id !== one.id);
    const beside = shown[at] ?? shown[at - 1];
    menuOf = null;
    draw(beside && `${beside.id} link`);
    if (one.id === current()) go(null, 'replaceState');
    if (!beside) load();
  } catch (e) { tell(e.message, true); }
}

function go(id, how = 'pushState') {
  const address = new URL(location.href);
  if (id) address.searchParams.set('conversation', id); else address.searchParams.delete('conversation');
  if (id !== current()) history[how](null, '', address);
  menuOf = null;
  draw();
  window.glassboxKeep?.();
  window.glassboxOpens?.();
  trigger('open', { id });
}
function choose(id) {
  notice = '';
  window.glassboxChosen?.();
  go(id);
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
    // the server would end the connection amid the upload, and the browser would only say "Failed to fetch"
    if (chosen.size > most) throw new Error(`it is too large: at most ${most / 1e6} MB. Of a ZIP file, import the conversations.json alone.`);
    const type = /\.zip$/i.test(chosen.name) ? 'application/zip' : 'application/json';
    const made = await ask('conversations', { method: 'POST', body: chosen, headers: { 'Content-Type': type } });
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
  const count = (n) => `${n.toLocaleString('en')} conversation${n === 1 ? '' : 's'}`;
  const told = [`${count(conversations.length)} imported.`];
  if (skipped) told.push(`${count(skipped)} could not be read: ${reasons[0].title || 'one without a title'}: ${reasons[0].reason}`);
  if (left) told.push(`${count(left)} left out: no more are kept here. Delete some and import the file again.`);
  return told.join(' ');
}
list.addEventListener('keydown', (e) => {
  const one = e.key === 'Escape' && !renaming && shown.find((other) => other.id === menuOf);
  if (!one) return;
  e.preventDefault();
  showMenu(one, false);
});
addEventListener('popstate', () => go(current()));

// Called by the panel when a conversation or a run begins or ends, and by the page when the address changes.
window.glassboxConversations = () => {
  if (!document.body.classList.contains('conversations')) return;
  clearTimeout(timer);
  timer = setTimeout(load, 60);
};
