// Adds to the row of buttons below each message: its versions, to walk between branches; what the model was given for a
// reply; and asking again, which the Chatbot offers for the last one alone. The Chatbot draws anew as it likes, so what
// is missing is put back. Its own Copy would copy one part of a message as it was drawn: here it copies the message.
const COPY = 'button:has(path[d^="M28 10v18"])'; // by its icon: its title is in the browser's language
const COPIED_MS = 2000;
const chat = () => document.querySelector('#chat');

function button(label, text, act) {
  const node = document.createElement('button');
  Object.assign(node, { type: 'button', ariaLabel: label, title: label, textContent: text });
  node.addEventListener('click', act);
  return node;
}

function versions(turn) {
  const box = document.createElement('span'), at = turn.versions.indexOf(turn.id), all = turn.versions.length;
  const step = (label, text, to) => {
    const node = button(label, text, () => trigger('walk', { id: turn.versions[to] }));
    node.disabled = to < 0 || to >= all;
    return node;
  };
  const count = document.createElement('span');
  count.textContent = `${at + 1}/${all}`;
  count.title = 'Versions of this message: each goes on as a branch of its own';
  box.className = 'versions';
  box.append(step('Earlier version', '\u2039', at - 1), count, step('Later version', '\u203a', at + 1));
  return box;
}

// The controls of a message, and a word that says whether those that are drawn are still the right ones.
function controls(turn, native) {
  const box = document.createElement('span');
  box.className = 'turn';
  if (turn.versions.length > 1) box.append(versions(turn));
  if (turn.asked && !native) box.append(button('Ask for another reply', 'Retry', () => trigger('again', { id: turn.asked })));
  if (turn.run) {
    const look = button('What the model was given for this reply', 'Context', () => {});
    look.dataset.context = turn.run;
    look.dataset.message = turn.asked ?? '';
    const replay = document.createElement('a');
    Object.assign(replay, { href: `?run=${encodeURIComponent(turn.run)}`, textContent: 'Replay', title: 'Watch this reply being written again' });
    box.append(look, replay);
  }
  return box;
}

// Each turn with the rows of buttons below its parts; none while the Chatbot draws others.
function rowsOf() {
  const turns = Array.isArray(props.value) ? props.value : [], rows = [...chat()?.querySelectorAll('.message-buttons') ?? []];
  if (rows.length !== turns.reduce((sum, turn) => sum + turn.rows, 0)) return [];
  return turns.map((turn) => [turn, rows.splice(0, turn.rows)]);
}

// Copies what was written, not its notes.
async function copy(event) {
  const pressed = event.target.closest?.(COPY), row = pressed?.closest('.message-buttons');
  const [turn] = (row && rowsOf().find(([, rows]) => rows.includes(row))) ?? [];
  if (!turn) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const plain = pressed.dataset.plain ??= pressed.title;
  const said = await window.glassboxCopy(turn.text).then(() => 'Copied', () => 'Not allowed');
  pressed.title = pressed.ariaLabel = said;
  pressed.classList.toggle('copied', said === 'Copied');
  clearTimeout(pressed.timer);
  pressed.timer = setTimeout(() => { pressed.title = pressed.ariaLabel = plain; pressed.classList.remove('copied'); }, COPIED_MS);
}

function put() {
  for (const [turn, rows] of rowsOf()) {
    for (const row of rows) row.toggleAttribute('data-empty', !turn.text);
    const row = rows.at(-1), native = Boolean(row.querySelector('[title=Retry]')), key = JSON.stringify([{ ...turn, text: '' }, native]);
    if (row.dataset.turn === key && row.querySelector('.turn')) continue;
    row.dataset.turn = key;
    row.querySelector('.turn')?.remove();
    row.append(controls(turn, native));
    row.toggleAttribute('data-branched', turn.versions.length > 1);
  }
}

const drawn = new MutationObserver(put);
const begin = new MutationObserver(() => {
  if (!chat()) return;
  begin.disconnect();
  drawn.observe(chat(), { childList: true, subtree: true });
  chat().addEventListener('click', copy, true);
  put();
});
begin.observe(document.documentElement, { childList: true, subtree: true });
watch('value', put);
