// What the scripts of the list of conversations share. What is in it is text; nothing is read as markup.
const $ = (selector) => element.querySelector(selector), DAY = 86400000;

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

function group(updated) {
  const today = new Date().setHours(0, 0, 0, 0), at = Date.parse(updated);
  return at >= today ? 'Today' : at >= today - DAY ? 'Yesterday' : at >= today - 7 * DAY ? 'The last seven days' : 'Earlier';
}

const BEFORE = 24; // characters at most before what was found: it must be in the two lines that are shown

// `mark` counts characters, of which a string of JavaScript has two for an emoji.
function marked(text, mark) {
  const node = make('small');
  if (!mark) return make('small', text);
  const all = [...text], part = (from, to) => all.slice(from, to).join('');
  let before = part(0, mark[0]);
  if (mark[0] > BEFORE) before = `\u2026${part(mark[0] - BEFORE, mark[0]).replace(/^\S{0,12}\s+(?=.)/u, '')}`; // at a word
  node.append(before, make('mark', part(...mark)), part(mark[1]));
  return node;
}
