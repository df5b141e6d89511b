// Adds to the row of buttons below each message: its versions, to walk between branches; what the model was given for a
// reply; and asking again, which the Chatbot offers for the last one alone. The Chatbot draws anew as it likes, so what
// is missing is put back.
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

function put() {
  const turns = Array.isArray(props.value) ? props.value : [], rows = [...chat()?.querySelectorAll('.message-buttons') ?? []];
  if (rows.length !== turns.reduce((sum, turn) => sum + turn.rows, 0)) return;
  let last = -1;
  for (const turn of turns) {
    last += turn.rows;
    const row = rows[last], native = Boolean(row.querySelector('[title=Retry]')), key = JSON.stringify([turn, native]);
    if (row.dataset.turn === key && row.querySelector('.turn')) continue;
    row.dataset.turn = key;
    row.querySelector('.turn')?.remove();
    row.append(controls(turn, native));
    row.toggleAttribute('data-branched', turn.versions.length > 1);
  }
}

// The text of the message that a row of buttons belongs to: a message has a row for each of its parts.
window.glassboxSource = (row) => {
  let at = [...chat().querySelectorAll('.message-buttons')].indexOf(row);
  for (const turn of Array.isArray(props.value) ? props.value : []) {
    if (at < turn.rows) return turn.text;
    at -= turn.rows;
  }
  return null;
};

const drawn = new MutationObserver(put);
const begin = new MutationObserver(() => {
  if (!chat()) return;
  begin.disconnect();
  drawn.observe(chat(), { childList: true, subtree: true });
  put();
});
begin.observe(document.documentElement, { childList: true, subtree: true });
watch('value', put);
