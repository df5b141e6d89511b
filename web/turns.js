// Adds to the row of buttons below each message: its versions, to switch branches; the context and the replay of a reply;
// and Retry, which the Chatbot offers only for the last reply. The Chatbot redraws at any time, so missing controls are
// added again. Its own Copy copies the HTML of one part; here it copies the text of the message.
const { copy, make } = window.glassbox;
const COPY = 'button:has(path[d^="M28 10v18"])'; // by its icon: its title is in the browser's language
const COPIED_MS = 2000;
const chat = () => document.querySelector('#chat');

function button(label, text, act) {
  const node = make('button', { type: 'button', ariaLabel: label, title: label }, text);
  node.addEventListener('click', act);
  return node;
}

function versions(turn) {
  const at = turn.versions.indexOf(turn.id), all = turn.versions.length;
  const step = (label, text, to) => {
    const node = button(label, text, () => trigger('switch_branch', { id: turn.versions[to] }));
    node.disabled = to < 0 || to >= all;
    return node;
  };
  const count = make('span', { title: 'Versions of this message: each one has a branch of its own' }, `${at + 1}/${all}`);
  return make('span', { className: 'versions' }, step('Earlier version', '\u2039', at - 1), count, step('Later version', '\u203a', at + 1));
}

// The controls of a message; `native` if the Chatbot offers Retry.
function controls(turn, native) {
  const box = make('span', { className: 'turn' });
  if (turn.versions.length > 1) box.append(versions(turn));
  if (turn.asked && !native) box.append(button('Generate another reply', 'Retry', () => trigger('regenerate', { id: turn.asked })));
  if (turn.run) {
    const context = button('What the model was given for this reply', 'Context', () => {});
    context.dataset.context = turn.run;
    context.dataset.message = turn.asked ?? '';
    box.append(context, make('a', { href: `?run=${encodeURIComponent(turn.run)}`, title: 'Watch how this reply was written' }, 'Replay'));
  }
  return box;
}

// Pairs of a turn and the rows of buttons below its texts; none while the Chatbot shows other messages.
function rowsOf() {
  const turns = Array.isArray(props.value) ? props.value : [], rows = [...chat()?.querySelectorAll('.message-buttons') ?? []];
  if (rows.length !== turns.reduce((sum, turn) => sum + turn.rows, 0)) return [];
  return turns.map((turn) => [turn, rows.splice(0, turn.rows)]);
}

// Copies the text of a message without its notes.
async function copyMessage(event) {
  const pressed = event.target.closest?.(COPY), row = pressed?.closest('.message-buttons');
  const [turn] = (row && rowsOf().find(([, rows]) => rows.includes(row))) ?? [];
  if (!turn) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const plain = pressed.dataset.plain ??= pressed.title;
  const said = await copy(turn.text).then(() => 'Copied', () => 'Not allowed');
  pressed.title = pressed.ariaLabel = said;
  pressed.classList.toggle('copied', said === 'Copied');
  clearTimeout(pressed.timer);
  pressed.timer = setTimeout(() => { pressed.title = pressed.ariaLabel = plain; pressed.classList.remove('copied'); }, COPIED_MS);
}

function update() {
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

const drawn = new MutationObserver(update);
const begin = new MutationObserver(() => {
  if (!chat()) return;
  begin.disconnect();
  drawn.observe(chat(), { childList: true, subtree: true });
  chat().addEventListener('click', copyMessage, true);
  update();
});
begin.observe(document.documentElement, { childList: true, subtree: true });
watch('value', update);
