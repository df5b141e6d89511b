// What a visitor may use here, before they meet it: a word in the foot of the page, all of it at a click.
const $ = (selector) => element.querySelector(selector), button = $('button'), rows = $('dl');
const n = (value) => value.toLocaleString('en');
const time = (s) => s >= 120 ? `${n(Math.round(s / 60))} min` : `${n(s)} s`;
const size = (bytes) => `${n(Math.round(bytes / 1e5) / 10)} MB`;
const ROWS = [
  ['messages_per_minute', 'Messages in a minute', n], ['messages_per_day', 'Messages in a day', n],
  ['runs_per_visitor', 'Replies at once', n], ['runs', 'Replies at once, all visitors', n], ['waiting', 'In line behind them', n],
  ['reply_tokens', 'Longest reply, tokens', n], ['run_seconds', 'Time for one reply', time],
  ['message_characters', 'Longest message, characters', n], ['document_bytes', 'Largest document', size],
  ['document_bytes_per_day', 'Documents added in a day', size], ['document_characters_per_visitor', 'Text of all documents, characters', n],
  ['conversations_per_visitor', 'Conversations kept', n],
];
const KEY = 'After the messages of the day you can continue with your own key, for a model that takes one.';
let timer = null;

function word({ limits, left }) {
  if (left.day != null && left.day <= Math.max(10, limits.messages_per_day / 5)) return `${n(left.day)} messages left today`;
  if (left.minute != null && left.minute <= 3) return left.minute ? `${n(left.minute)} more this minute` : 'Wait a little';
  return 'Limits';
}

function draw(told) {
  button.textContent = word(told);
  button.classList.toggle('near', button.textContent !== 'Limits');
  const nodes = [], left = { messages_per_minute: told.left.minute, messages_per_day: told.left.day };
  for (const [name, label, write] of ROWS) {
    if (told.limits[name] == null) continue;
    const term = document.createElement('dt'), value = document.createElement('dd');
    term.textContent = label;
    value.textContent = left[name] == null ? write(told.limits[name]) : `${n(left[name])} left of ${write(told.limits[name])}`;
    nodes.push(term, value);
  }
  rows.replaceChildren(...nodes);
  $('p').textContent = told.left.day == null ? '' : KEY;
  button.hidden = false;
}

async function load() {
  try {
    const answer = await fetch('limits');
    if (answer.ok) draw(await answer.json());
  } catch { /* the page says elsewhere that its line is gone */ }
}

// Called by the panel when a run begins or ends.
window.glassboxLimits = () => { clearTimeout(timer); timer = setTimeout(load, 100); };
$('[popover]').addEventListener('toggle', (e) => { if (e.newState === 'open') load(); });
load();
