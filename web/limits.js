// The limits of a visitor: a word in the footer of the page, and all of them on a click.
const { make, number, on } = window.glassbox;
const $ = (selector) => element.querySelector(selector), button = $('button'), rows = $('dl');
const time = (s) => s >= 120 ? `${number(Math.round(s / 60))} min` : `${number(s)} s`;
const size = (bytes) => `${number(Math.round(bytes / 1e5) / 10)} MB`;
const ROWS = [
  ['messages_per_minute', 'Messages per minute', number], ['messages_per_day', 'Messages per day', number],
  ['runs_per_visitor', 'Replies at once', number], ['runs', 'Replies at once, all visitors', number], ['waiting', 'Queue length', number],
  ['reply_tokens', 'Max reply length, tokens', number], ['run_seconds', 'Time for one reply', time],
  ['message_characters', 'Longest message, characters', number], ['document_bytes', 'Largest document', size],
  ['document_bytes_per_day', 'Documents and images added per day', size], ['document_characters_per_visitor', 'Text of all documents, characters', number],
  ['image_bytes', 'Largest image', size], ['images_per_visitor', 'Saved images', number],
  ['conversations_per_visitor', 'Saved conversations', number],
];
const KEY = 'After the daily limit you can continue with your own key, for a backend that takes one.';
let timer = null;

function summary({ limits, left }) {
  if (left.day != null && left.day <= Math.max(10, limits.messages_per_day / 5)) return `${number(left.day)} messages left today`;
  if (left.minute != null && left.minute <= 3) return left.minute ? `${number(left.minute)} more this minute` : 'Wait a moment';
  return 'Limits';
}

function draw(answer) {
  button.textContent = summary(answer);
  button.classList.toggle('near', button.textContent !== 'Limits');
  const nodes = [], left = { messages_per_minute: answer.left.minute, messages_per_day: answer.left.day };
  for (const [name, label, format] of ROWS) {
    if (answer.limits[name] == null) continue;
    const limit = format(answer.limits[name]);
    nodes.push(make('dt', {}, label), make('dd', {}, left[name] == null ? limit : `${number(left[name])} left of ${limit}`));
  }
  rows.replaceChildren(...nodes);
  $('p').textContent = answer.left.day == null ? '' : KEY;
  button.hidden = false;
}

async function load() {
  try {
    const response = await fetch('limits');
    if (response.ok) draw(await response.json());
  } catch { /* the panel shows a lost connection */ }
}

on('run', () => { clearTimeout(timer); timer = setTimeout(load, 100); }, element);
$('[popover]').addEventListener('toggle', (e) => { if (e.newState === 'open') load(); });
load();
