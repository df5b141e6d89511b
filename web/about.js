// The line about the chosen backend, which is seen while it is not ready, and the choices of the menus. It polls the backends
// while one loads, while the chosen one is not ready, and after each run; never while the page is hidden.
const { emit, number, on, request, write } = window.glassbox;
const [line, share, enterKey, download] = ['p', '.percent', '.enter-key', '.download'].map((selector) => element.querySelector(selector));
const STATES = {
  loading: 'Loading', key_missing: 'Needs a key', key_refused: 'Key rejected', unreachable: 'Unreachable',
  rate_limited: 'Rate limited', unavailable: 'Unavailable', not_loaded: 'Not loaded', not_downloaded: 'Not downloaded',
};
const WAITS = ['ready', 'loading', 'not_loaded', 'not_downloaded']; // states that are no failure
let backends = [], version = 0, timer = null, loaded = 0, unseen = false; // `version` counts requests and values

const chosen = () => window.glassbox.chosen ?? {};
const current = () => backends.find((one) => one.name === chosen().backend);
const needsKey = (one) => one?.state === 'key_missing' || one?.state === 'key_refused';
const size = (one) => one.download_bytes ? ` ${(one.download_bytes / 1e9).toFixed(1)} GB` : '';
const percent = (one) => one.progress == null ? '' : ` ${Math.round(100 * one.progress)} %`;

// The model in use: the chosen one, or the backend's only one.
function modelOf(one) {
  const offered = one.models ?? [], called = (name) => offered.find((model) => model.name === name);
  return called(chosen().model) ?? called(one.model) ?? { ...one, name: one.model, reason: null };
}

// What the provider says about a model.
const able = (model) => [model.thinking && 'thinking', model.images && 'image input'].filter(Boolean);
const contextOf = (model) => [`context of ${number(model.context)} tokens`, ...able(model)].join(', ');
const asSentence = (text) => text ? text[0].toUpperCase() + text.slice(1) : '';
const facts = (model) => model.name ? `Model ${model.name}, ${contextOf(model)}.` : '';

function sentence(one) {
  const model = modelOf(one);
  if (one.state === 'ready' && model.reason) return `${one.name} is not ready: ${model.reason}`;
  const until = one.until && new Date(1000 * one.until).toLocaleTimeString();
  const about = [one.about || `${one.name} is ready.`, one.key === 'yours' && 'It uses your key.', facts(model)];
  switch (one.state) {
    case 'ready': return about.filter(Boolean).join(' ');
    case 'loading': return `${one.name}: ${one.reason || 'loading'} …`;
    case 'not_loaded': return `${one.about || `${one.name} is on this machine.`} It is loaded with the first message.`;
    case 'not_downloaded': return [one.about, `${one.name} is not on this machine yet.`, !one.can_download && 'Only the operator can download it.'].filter(Boolean).join(' ');
    case 'rate_limited': return `${one.name} is rate limited until ${until}. Wait, or choose another model.`;
    default: return `${one.name} is not ready: ${one.reason}`;
  }
}

function backendChoice(one) {
  const first = one.ttft_s == null ? '' : `First token ${one.ttft_s.toFixed(1)} s`;
  const ready = one.kind === 'scripted' ? 'No model' : first || 'Ready', model = modelOf({ ...one, models: [] });
  const bad = !WAITS.includes(one.state);
  return {
    name: one.name,
    state: one.state === 'ready' ? ready : `${STATES[one.state] ?? one.state}${one.state === 'loading' ? percent(one) : one.state === 'not_downloaded' ? size(one) : ''}`,
    about: bad ? asSentence(one.reason) : one.about || facts(model),
    bad,
  };
}
const modelChoice = (model) => ({
  name: model.name, state: model.ready ? '' : 'Not available', about: asSentence(model.reason || contextOf(model)), bad: !model.ready,
});

function draw() {
  const one = current(), model = one && modelOf(one);
  write(line, one ? sentence(one) : '');
  line.dataset.state = one?.state === 'ready' && model.reason ? 'unavailable' : one?.state ?? '';
  write(share, one?.state === 'loading' ? percent(one) : ''); // not announced, as it changes all the time
  enterKey.hidden = !needsKey(one);
  download.hidden = !one?.can_download;
  if (one?.can_download) write(download, `Download${size(one)}`);
  if (backends.length) {
    window.glassbox.choices = { backend: backends.map(backendChoice), model: (one?.models ?? []).map(modelChoice) };
    emit('choices');
  }
  window.glassbox.backend = one && { ...one, takes: model.takes, images: model.images, takers: backends.filter((each) => each.images !== false).map((each) => each.name) };
  emit('backend');
}

const digest = (backends) => JSON.stringify(backends.map((b) => [b.name, b.state, b.ttft_s, b.models?.map((m) => [m.name, m.ready])]));

async function load() {
  clearTimeout(timer);
  timer = null;
  loaded = performance.now();
  const before = digest(backends), mine = ++version;
  try {
    const answer = await (await fetch('backends')).json();
    if (mine === version) backends = answer; // else a newer value came first, as after a key was saved
  } catch { /* the next request may succeed */ }
  draw();
  unseen ||= before !== digest(backends);
  report();
  plan();
}

// Reports a change to the server, which shows or hides the menu of models; not while a menu is open.
function report() {
  if (!unseen || document.querySelector('#header [data-open]')) return;
  unseen = false;
  trigger('changed');
}

// An unreachable server may come back by itself; a missing or rejected key does not.
function plan() {
  if (timer || !element.isConnected) return;
  const waits = ['unreachable', 'rate_limited', 'unavailable'].includes(current()?.state);
  const pause = backends.some((b) => b.state === 'loading') ? 700 : waits ? 5000 : null;
  if (pause) timer = setTimeout(() => document.hidden ? (timer = null, plan()) : load(), pause);
}

watch('value', () => {
  version += 1;
  backends = props.value ?? [];
  draw();
  plan();
});

on('choice', ({ menu, visitor }) => {
  if (menu === 'memory') return;
  draw();
  plan();
  if (visitor && menu === 'backend' && needsKey(current())) emit('options', '#key input');
}, element);
download.addEventListener('click', async () => {
  download.hidden = true;
  const { name } = current();
  try {
    await request(`backends/${encodeURIComponent(name)}/download`, { method: 'POST' });
    load();
  } catch (error) { write(line, error.message); }
});
enterKey.addEventListener('click', () => emit('options', '#key input'));
on('opened', (open) => {
  if (!open) report();
  else if (performance.now() - loaded > 3000) load();
}, element);

// After a run, the time to its first token or the reason of its failure is known.
let live = false;
on('panel', (value) => {
  if (live && !value?.live) setTimeout(load, 400);
  live = Boolean(value?.live);
}, element);
