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

function marked(text, words) {
  const literal = words.split(/\s+/).map((word) => word.replace(/[\\^$.*+?()[\]{}|\/]/g, '\\$&')).join('\\s+');
  const node = make('small'), found = words && new RegExp(literal, 'iu').exec(text);
  if (!found) return make('small', text);
  const end = found.index + found[0].length;
  let before = text.slice(0, found.index);
  if (before.length > BEFORE) before = `\u2026${before.slice(-BEFORE).replace(/^\S{0,12}\s+(?=.)/u, '')}`; // at a word
  node.append(before, make('mark', found[0]), text.slice(end));
  return node;
}
