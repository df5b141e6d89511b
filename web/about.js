// The note about the chosen backend, and its example prompts. It polls the backends while one loads, while the chosen one is
// not ready, and after each run; never while the page is hidden.
const { make, number, write } = window.glassbox;
const line = element.querySelector('p'), menu = element.querySelector('.menu');
const chosen = () => document.querySelector('#backend input')?.value ?? '';
const chosenModel = () => document.querySelector('#model input')?.value ?? '';
const phase = () => document.querySelector('#agent-state [data-phase]')?.dataset.phase ?? '';
const ENDED = ['complete', 'stopped', 'error'];
let backends = [], version = 0, timer = null, loaded = 0, unseen = false; // `version` counts requests and values

function current() {
  const name = chosen();
  return backends.filter((b) => name.startsWith(b.name)).sort((a, b) => b.name.length - a.name.length)[0];
}

// The model in use: the chosen one, or the backend's only one.
function modelOf(one) {
  const offered = one.models ?? [], name = chosenModel();
  const found = offered.filter((m) => name.startsWith(m.name)).sort((a, b) => b.name.length - a.name.length)[0];
  return found ?? offered.find((m) => m.name === one.model) ?? { ...one, name: one.model, reason: null };
}

// What the provider says about a model.
function facts(model) {
  const able = [model.thinking && 'thinking', model.images && 'image input'].filter(Boolean);
  return model.name ? ` Model ${[model.name, `context of ${number(model.context)} tokens`, ...able].join(', ')}.` : '';
}

function sentence(one) {
  if (!one) return '';
  const model = modelOf(one);
  if (one.state === 'ready' && model.reason) return `${one.name} is not ready: ${model.reason}`;
  const share = one.progress == null ? '' : `, ${Math.round(100 * one.progress)} %`;
  const until = one.until && new Date(1000 * one.until);
  const first = one.ttft_s == null ? '' : ` Last time to first token: ${one.ttft_s.toFixed(1)} s.`;
  const key = { yours: ' It uses your key.', "everybody's": '', missing: '' }[one.key] ?? '';
  switch (one.state) {
    case 'ready': return `${one.about || `${one.name} is ready.`}${key}${facts(model)}${first}`;
    case 'loading': return `${one.name}: ${one.reason || 'loading'}${share} …`;
    case 'rate_limited': return `${one.name} is rate limited until ${until.toLocaleTimeString()}. Wait, or choose another backend.`;
    default: return `${one.name} is not ready: ${one.reason}`;
  }
}

function draw() {
  const one = current();
  write(line, sentence(one));
  line.dataset.state = one?.state ?? '';
  line.style.setProperty('--done', one?.state === 'loading' && one.progress != null ? `${100 * one.progress}%` : '0%');
  const prompts = Object.entries(one?.prompts ?? {});
  if (menu.dataset.of !== (one?.name ?? '')) {
    menu.dataset.of = one?.name ?? '';
    menu.replaceChildren(...prompts.map(([prompt, what]) => {
      const button = make('button', { type: 'button', title: what }, prompt);
      button.dataset.prompt = prompt;
      return button;
    }));
  }
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
  tell();
  plan();
}

// Updates the dropdowns' labels, but not while one is open: a list that is redrawn under the pointer closes.
function tell() {
  if (!unseen || [...document.querySelectorAll('#backend input, #model input')].some((input) => input.ariaExpanded === 'true')) return;
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
// the dropdowns' values and the panel's phase have no events for this script, and polling them costs little
let seen = null, was = '';
const selected = () => `${chosen()}\n${chosenModel()}`;
const polling = setInterval(() => {
  if (!element.isConnected) return clearInterval(polling);
  if (selected() !== seen) { seen = selected(); draw(); plan(); }
  const now = phase();
  if (now !== was && ENDED.includes(now) && was && !ENDED.includes(was)) setTimeout(load, 400);
  was = now;
  tell();
}, 200);
// Opening a dropdown loads the current health. The dropdowns may be drawn later than this, so the document listens.
function opened({ target }) {
  if (!element.isConnected) return document.removeEventListener('focusin', opened);
  if (target.closest('#backend, #model') && performance.now() - loaded > 3000) load();
}
document.addEventListener('focusin', opened);
