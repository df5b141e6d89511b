// Says what there is to say about the chosen backend and offers what it can be asked at a click. Asks for news while one
// loads, while the chosen one is not ready, and after each run; never while the page is hidden.
const line = element.querySelector('p'), menu = element.querySelector('.menu');
const chosen = () => document.querySelector('#backend input')?.value ?? '';
const chosenModel = () => document.querySelector('#model input')?.value ?? '';
const phase = () => document.querySelector('#agent-state [data-phase]')?.dataset.phase ?? '';
const ENDED = ['complete', 'stopped', 'error'];
let backends = [], told = 0, timer = null, asked = 0, untold = false; // `told`: how often what is known was asked for or given

function current() {
  const name = chosen();
  return backends.filter((b) => name.startsWith(b.name)).sort((a, b) => b.name.length - a.name.length)[0];
}

// The model in use: the chosen one of several, or the backend's only one.
function modelOf(one) {
  const offered = one.models ?? [], name = chosenModel();
  const found = offered.filter((m) => name.startsWith(m.name)).sort((a, b) => b.name.length - a.name.length)[0];
  return found ?? offered.find((m) => m.name === one.model) ?? { ...one, name: one.model, reason: null };
}

// What its provider says of it.
function facts(model) {
  const able = [model.thinking && 'thinking', model.images && 'image input'].filter(Boolean);
  return model.name ? ` Model ${[model.name, `context of ${model.context.toLocaleString('en')} tokens`, ...able].join(', ')}.` : '';
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
    case 'rate_limited': return `${one.name} is rate limited until ${until.toLocaleTimeString()}: wait, or pick another backend.`;
    default: return `${one.name} is not ready: ${one.reason}`;
  }
}

function draw() {
  const one = current(), text = sentence(one);
  if (line.textContent !== text) line.textContent = text;
  line.dataset.state = one?.state ?? '';
  line.style.setProperty('--done', one?.state === 'loading' && one.progress != null ? `${100 * one.progress}%` : '0%');
  const prompts = Object.entries(one?.prompts ?? {});
  if (menu.dataset.of !== (one?.name ?? '')) {
    menu.dataset.of = one?.name ?? '';
    menu.replaceChildren(...prompts.map(([prompt, what]) => {
      const button = document.createElement('button');
      Object.assign(button, { type: 'button', textContent: prompt, title: what });
      button.dataset.prompt = prompt;
      return button;
    }));
  }
}

const known = (backends) => JSON.stringify(backends.map((b) => [b.name, b.state, b.ttft_s, b.models?.map((m) => [m.name, m.ready])]));
const news = (before, after) => known(before) !== known(after);

async function ask() {
  clearTimeout(timer);
  timer = null;
  asked = performance.now();
  const before = backends, mine = ++told;
  try {
    const answer = await (await fetch('backends')).json();
    if (mine === told) backends = answer; // else something newer came first, such as what a key has changed
  } catch { /* the next question may be answered */ }
  draw();
  untold ||= news(before, backends);
  tell();
  plan();
}

// The dropdowns' labels change only while nobody chooses from them: a list that is drawn anew under a pointer is lost.
function tell() {
  if (!untold || [...document.querySelectorAll('#backend input, #model input')].some((input) => input.ariaExpanded === 'true')) return;
  untold = false;
  trigger('news');
}

// A backend's server may come back by itself; a key that is missing or refused does not.
function plan() {
  if (timer || !element.isConnected) return;
  const waits = ['unreachable', 'rate_limited', 'unavailable'].includes(current()?.state);
  const pause = backends.some((b) => b.state === 'loading') ? 700 : waits ? 5000 : null;
  if (pause) timer = setTimeout(() => document.hidden ? (timer = null, plan()) : ask(), pause);
}

watch('value', () => {
  told += 1;
  backends = props.value ?? [];
  draw();
  plan();
});
// the dropdown's own value and the panel's phase have no event to listen to from here, and looking costs next to nothing
let seen = null, was = '';
const selected = () => `${chosen()}\n${chosenModel()}`;
const looking = setInterval(() => {
  if (!element.isConnected) return clearInterval(looking);
  if (selected() !== seen) { seen = selected(); draw(); plan(); }
  const now = phase();
  if (now !== was && ENDED.includes(now) && was && !ENDED.includes(was)) setTimeout(ask, 400);
  was = now;
  tell();
}, 200);
// An open dropdown shows the current health; it may be drawn later than this, and again.
function opened({ target }) {
  if (!element.isConnected) return document.removeEventListener('focusin', opened);
  if (target.closest('#backend, #model') && performance.now() - asked > 3000) ask();
}
document.addEventListener('focusin', opened);
