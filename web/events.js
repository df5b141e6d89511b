// The raw events of the run, while their list is open: fetched as JSON lines, filtered by type and name. All is text.
const $ = (selector) => element.querySelector(`#events ${selector}`);
const [count, kinds, box, rows, told] = ['summary span', '.kinds', 'input', '.rows', '.told'].map($);
const MOST = 300, EVERY_MS = 500, LONGEST = 20_000;
const hidden = new Set(['token', 'reasoning', 'state']); // there are too many of them to read at first
let run = null, live = false, asking = false, timer = null, from = 0;
let events = [], names = new Map(), counts = new Map(), shown = [];

const make = (tag, text = '', more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });
const idOf = (event) => event.id ?? event.tool_call_id;
const nameOf = (event) => event.name ?? event.tool ?? names.get(idOf(event)) ?? '';

function summary(event) {
  const text = event.content ?? event.chunk ?? event.message ?? event.current_step ?? '';
  const name = nameOf(event);
  if (event.type === 'context') return `${event.messages.length} messages, ${event.tokens} of ${event.limit} tokens`;
  if (event.type === 'run') return `${event.backend} · ${event.memory}`;
  if (event.type === 'state') return `${event.status} · ${event.tokens_received} tokens`;
  return [name, event.error, typeof text === 'string' ? text : ''].filter(Boolean).join(' · ').slice(0, 200);
}

function matches(event) {
  const wanted = box.value.trim().toLowerCase();
  return !hidden.has(event.type) && (!wanted || nameOf(event).toLowerCase().includes(wanted));
}

function row(event) {
  const item = make('li'), button = make('button', '', { type: 'button' });
  const seconds = ((Date.parse(event.timestamp) - from) / 1000).toFixed(2);
  for (const text of [event.seq, seconds, event.type, summary(event)]) button.append(make('span', String(text)));
  button.dataset.type = event.type;
  button.ariaExpanded = 'false';
  button.addEventListener('click', () => {
    const open = item.children.length < 2;
    button.ariaExpanded = String(open);
    if (!open) return item.lastElementChild.remove();
    const json = JSON.stringify(event, null, 1);
    item.append(make('pre', json.length > LONGEST ? `${json.slice(0, LONGEST)}\n… ${json.length.toLocaleString('en')} characters` : json));
  });
  item.append(button);
  return item;
}

// Rows are only added at the end and taken from the beginning, so that open ones stay open.
function add(found) {
  const atEnd = rows.scrollTop + rows.clientHeight >= rows.scrollHeight - 8;
  shown = shown.concat(found);
  rows.append(...found.slice(-MOST).map(row));
  while (rows.children.length > MOST) rows.firstElementChild.remove();
  if (atEnd) rows.scrollTop = rows.scrollHeight;
  const latest = shown.length > MOST ? `the latest ${MOST} of ` : '';
  told.textContent = events.length ? `${latest}${shown.length.toLocaleString('en')} shown, ${events.length.toLocaleString('en')} in all` : '';
  count.textContent = events.length ? events.length.toLocaleString('en') : '';
}

function drawKinds() {
  const known = new Map([...kinds.children].map((node) => [node.dataset.type, node]));
  for (const [type, n] of counts) {
    const node = known.get(type) ?? make('button', '', { type: 'button' });
    node.dataset.type = type;
    node.ariaPressed = String(!hidden.has(type));
    node.textContent = `${type} ${n.toLocaleString('en')}`;
    if (!node.isConnected) kinds.append(node);
  }
}

function filter() {
  shown = [];
  rows.replaceChildren();
  add(events.filter(matches));
}

function take(fresh) {
  for (const event of fresh) {
    if (event.name ?? event.tool) names.set(idOf(event), event.name ?? event.tool);
    counts.set(event.type, (counts.get(event.type) ?? 0) + 1);
  }
  from ||= Date.parse(fresh[0]?.timestamp);
  events = events.concat(fresh);
  drawKinds();
  add(fresh.filter(matches));
}

async function ask() {
  clearTimeout(timer);
  if (asking || !run || !$('summary').parentElement.open || !element.isConnected) return;
  if (document.hidden) return plan();
  const [of, after] = [run, events.length];
  asking = true;
  let more = live;
  try {
    const answer = await fetch(`runs/${encodeURIComponent(of)}?after=${after}`);
    if (!answer.ok) throw new Error((await answer.json()).message);
    const lines = (await answer.text()).split('\n').filter(Boolean);
    more = answer.headers.get('X-Run-Live') === '1';
    if (of === run) take(lines.map((line) => JSON.parse(line)));
  } catch (error) {
    told.textContent = error.message || 'The events cannot be read at the moment.';
  } finally { asking = false; }
  if (more || of !== run) plan();
}

function plan() { clearTimeout(timer); timer = setTimeout(ask, EVERY_MS); }

window.glassboxEvents = (id, goesOn) => {
  const ended = live && !goesOn;
  live = goesOn;
  if (id !== run) {
    run = id;
    [events, names, counts, from] = [[], new Map(), new Map(), 0];
    kinds.replaceChildren();
    filter();
  } else if (!ended) return;
  ask();
};

kinds.addEventListener('click', (click) => {
  const type = click.target.closest('button')?.dataset.type;
  if (!type) return;
  if (!hidden.delete(type)) hidden.add(type);
  drawKinds();
  filter();
});
box.addEventListener('input', filter);
$('summary').parentElement.addEventListener('toggle', ask);
