// Adds to each message what the Chatbot lacks: its author, for screen readers; its versions, to switch branches; Retry, the
// context and the replay of a reply; and the buttons of a failed reply's card. The Chatbot redraws at any time, so missing
// elements are added again. Its own Copy copies the HTML of one row; here it copies the text of the message.
const { copy, emit, make, write } = window.glassbox;
const COPY = 'button:has(path[d^="M28 10v18"])'; // by its icon: its title is in the browser's language
const COPIED_MS = 2000;
const chat = () => document.querySelector('#chat');

function button(className, label, act, ...children) {
  const node = make('button', { type: 'button', className, title: label }, ...children);
  if (!children.length) node.ariaLabel = label;
  node.addEventListener('click', act);
  return node;
}

function versions(turn) {
  const at = turn.versions.indexOf(turn.id), all = turn.versions.length;
  const step = (label, text, to) => {
    const node = button('', label, () => trigger('switch_branch', { id: turn.versions[to] }), text);
    node.ariaLabel = label;
    node.disabled = to < 0 || to >= all;
    return node;
  };
  const count = make('span', { title: 'Versions of this message: each one has a branch of its own' }, `${at + 1}/${all}`);
  return make('span', { className: 'versions' }, step('Earlier version', '\u2039', at - 1), count, step('Later version', '\u203a', at + 1));
}

function retry(turn) {
  trigger('regenerate', { id: turn.asked });
  emit('focus');
}

function controls(turn) {
  const box = make('span', { className: 'turn' });
  if (turn.versions.length > 1) box.append(versions(turn));
  if (turn.asked) box.append(button('retry', 'Retry', () => retry(turn)));
  if (turn.run) {
    const context = button('context', 'Inspect this reply: its run, what the model was given, and its events', () => {}, make('span', {}, 'Inspect'));
    context.dataset.context = turn.run;
    context.dataset.message = turn.asked ?? '';
    box.append(context, make('a', { className: 'recorded', href: `?run=${encodeURIComponent(turn.run)}`, title: 'Replay: watch how this reply was written', ariaLabel: 'Replay' }));
  }
  return box;
}

// Pairs of a turn and the rows of buttons below its texts; none while the Chatbot shows other messages.
function rowsOf() {
  const turns = Array.isArray(props.value) ? props.value : [], rows = [...chat()?.querySelectorAll('.message-buttons') ?? []];
  if (rows.length !== turns.reduce((sum, turn) => sum + turn.rows, 0)) return [];
  return turns.map((turn) => [turn, rows.splice(0, turn.rows)]);
}
const turnOf = (row) => rowsOf().find(([, rows]) => rows.includes(row))?.[0];

// Copies the text of a message without its notes.
async function copyMessage(event, pressed) {
  const turn = turnOf(pressed.closest('.message-buttons'));
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

// The error of a run, as its record has it.
async function readError(run) {
  const response = await fetch(new URL(`runs/${encodeURIComponent(run)}`, document.baseURI));
  if (!response.ok) throw new Error('The details are no longer available.');
  return JSON.parse((await response.text()).trim().split('\n').at(-1));
}

async function showDetails(pressed, turn) {
  const card = pressed.closest('.failure'), known = card.querySelector('dl');
  const shown = known?.hidden ?? true;
  write(pressed, shown ? 'Hide details' : 'Show details');
  pressed.ariaExpanded = String(shown);
  if (known) { known.hidden = !shown; return; }
  const list = make('dl');
  const add = (name, text) => { if (text != null) list.append(make('dt', {}, name), make('dd', {}, String(text))); };
  card.append(list);
  try {
    if (!turn.run) throw new Error('This reply was imported, without the details of its error.');
    const { code, message, retryable, retry_after: wait } = await readError(turn.run);
    add('Code', code);
    add('Retryable', retryable ? 'Yes' : 'No');
    add('Try again after', wait == null ? null : `${Math.ceil(wait)} s`);
    add('Provider\u2019s answer', message.match(/\((HTTP [^)]*)\)/)?.[1]);
    add('Run', turn.run);
  } catch (error) { add('Details', error.message); }
}

function press(event) {
  const pressed = event.target.closest?.(`.message-buttons ${COPY}, .failure button`);
  if (!pressed) return;
  if (!pressed.closest('.failure')) return void copyMessage(event, pressed);
  const turn = turnOf(pressed.closest('.message-row').nextElementSibling);
  if (pressed.matches('.switch')) {
    const menu = document.querySelector('#backend input');
    menu?.focus();
    menu?.click();
  } else if (turn && pressed.matches('.retry')) retry(turn);
  else if (turn) showDetails(pressed, turn);
}

function sign(row, author) {
  const message = row.previousElementSibling, known = message?.querySelector(':scope > .author');
  if (!author) known?.remove();
  else if (known) write(known, author);
  else message?.prepend(make('span', { className: 'author' }, author));
}

function update() {
  for (const [turn, rows] of rowsOf()) {
    rows.forEach((row, i) => {
      sign(row, i === 0 ? turn.author : null);
      row.toggleAttribute('data-empty', !turn.text);
      row.toggleAttribute('data-last', i === rows.length - 1);
      if (i < rows.length - 1) row.querySelector('.turn')?.remove();
    });
    const row = rows.at(-1), key = JSON.stringify({ ...turn, text: '' });
    if (row.dataset.turn === key && row.querySelector('.turn')) continue;
    row.dataset.turn = key;
    row.querySelector('.turn')?.remove();
    row.append(controls(turn));
    row.toggleAttribute('data-branched', turn.versions.length > 1);
  }
}

const drawn = new MutationObserver(update);
const begin = new MutationObserver(() => {
  if (!chat()) return;
  begin.disconnect();
  drawn.observe(chat(), { childList: true, subtree: true });
  chat().addEventListener('click', press, true);
  update();
});
begin.observe(document.documentElement, { childList: true, subtree: true });
watch('value', () => {
  update();
  emit('turns', Array.isArray(props.value) ? props.value : []);
});
