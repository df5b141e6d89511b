// The dialog's second view: what two memory modes would give the model for the same turn, and what it would cost.
const dialog = element.querySelector('dialog'), view = element.querySelector('#viewer-compare');
const [label, box, backends, difference, grid, foot] = ['.ask span', '.ask textarea', '.by select', '.difference', '.columns', '.uses'].map((s) => view.querySelector(s));
const WAIT_MS = 300;
const NAMES = { window_turns: 'Turns kept', token_limit: 'Token limit', summary_tokens: 'Summary tokens', recall_turns: 'Turns recalled' };
const page = (selector) => document.querySelector(selector);
let modes = [], offered = [], turn = null, opened = 0;

function makeColumn(place) {
  const root = dialog.querySelector('template').content.firstElementChild.cloneNode(true), use = node('button', 'use');
  const at = (selector) => root.querySelector(selector);
  const column = { root, use, select: at('.mode select'), fields: at('.fields'), own: {}, answer: null, asking: null, at };
  root.ariaLabel = place ? 'Right column' : 'Left column';
  use.type = 'button';
  column.select.addEventListener('change', () => { showMode(column); look(column); });
  column.fields.addEventListener('input', ({ target }) => {
    const { name, value } = target;
    column.own[column.select.value] = { ...column.own[column.select.value], [name]: value === '' ? undefined : Number(value) };
    look(column, WAIT_MS);
  });
  use.addEventListener('click', () => {
    trigger('use', { memory: column.answer.memory, parameters: column.answer.parameters });
    dialog.close();
  });
  grid.append(root);
  foot.append(use);
  return column;
}
const columns = [0, 1].map(makeColumn);

// A mode's parameters as they were set here, else as they stand on the page; what is left out is the conversation's own.
function parametersOf(column, mode = modes.find((one) => one.name === column.select.value)) {
  const set = {}, own = column.own[column.select.value] ?? {};
  for (const name of Object.keys(mode?.parameters ?? {})) {
    const there = page(`#${name.replaceAll('_', '-')} input`)?.value;
    const value = own[name] ?? (there ? Number(there) : undefined);
    if (value !== undefined) set[name] = value;
  }
  return set;
}

function showMode(column) {
  const mode = modes.find((one) => one.name === column.select.value), set = parametersOf(column, mode);
  write(column.at('.about'), mode?.about ?? '');
  write(column.use, `Use this: ${column.select.value}`);
  column.fields.replaceChildren(...Object.entries(mode?.parameters ?? {}).map(([name, value]) => {
    const field = node('label'), input = node('input');
    Object.assign(input, { type: 'number', name, min: 0, step: 1, value: set[name] ?? value, inputMode: 'numeric' });
    field.append(node('span', '', NAMES[name] ?? name.replaceAll('_', ' ')), input);
    return field;
  }));
}

function tell(column, text, bad) {
  column.at('.told').classList.toggle('bad', bad);
  write(column.at('.told'), text);
}

// The model that is chosen on the page, where this is the page's backend and it has several.
function model() {
  const one = offered.find((backend) => backend.name === backends.value), names = one?.models?.map((each) => each.name) ?? [];
  return chosen('backend', offered.map((backend) => backend.name)) === one?.name ? chosen('model', names) : undefined;
}

// The turn as the page would send it now.
function query(column) {
  const longest = page('#max-tokens input')?.value, prompt = page('#system-prompt textarea')?.value;
  const tools = [...document.querySelectorAll('#tools label')];
  return {
    ...(box.value.trim() ? { message: box.value } : { message_id: turn.id }),
    ...(turn.conversation && { conversation_id: turn.conversation }),
    ...(backends.value && { backend: backends.value }),
    ...(model() && { model: model() }),
    ...(prompt != null && { system_prompt: prompt }),
    ...(longest && { max_tokens: Math.round(Number(longest)) }),
    ...(tools.length && { tools: tools.filter((one) => one.querySelector('input').checked).map((one) => one.textContent.trim()) }),
    memory: column.select.value,
    ...parametersOf(column),
  };
}

function look(column, wait = 0) {
  column.asking?.abort();
  const mine = column.asking = new AbortController();
  column.root.ariaBusy = 'true';
  column.use.disabled = true;
  difference.classList.add('old');
  clearTimeout(column.timer);
  column.timer = setTimeout(() => read(column, mine), wait);
}

async function read(column, mine) {
  let answer = null, wrong = '', hint = '';
  try {
    if (!turn || !column.select.value) return;
    if (!box.value.trim() && !turn.id) hint = 'Write a message above, and see what this mode would give the model for it.';
    else answer = await ask('context', { method: 'POST', signal: mine.signal, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(query(column)) });
  } catch (error) {
    wrong = error.message;
  }
  if (mine !== column.asking || mine.signal.aborted) return;
  [column.answer, column.asking] = [answer, null];
  column.root.ariaBusy = 'false';
  column.root.classList.toggle('stale', !answer);
  column.use.disabled = !answer;
  tell(column, wrong || hint, Boolean(wrong));
  for (const input of column.fields.querySelectorAll('input')) {
    const used = answer?.parameters?.[input.name];
    if (used != null && input !== document.activeElement) input.value = used;
  }
  draw();
}

function draw() {
  const found = columns.map((column) => column.answer), both = found.every(Boolean);
  const scale = scaleOf(...found.filter(Boolean));
  columns.forEach((column, i) => found[i] && drawColumn(column, found[i], scale, both ? only(found[i], found[1 - i]) : []));
  if (columns.some((column) => column.asking)) return;
  difference.classList.remove('old');
  write(difference, both ? sentence(...found) : '');
}

function drawColumn(column, answer, scale, marks) {
  const { at } = column, sign = answer.estimated ? '≈ ' : '', rows = [...answer.messages, ...(answer.tools ?? []).map(asRow)];
  write(at('.total strong'), `${sign}${many(answer.tokens)}`);
  write(at('.total span'), `of ${many(answer.limit)} tokens · ${many(Math.round(100 * answer.tokens / Math.max(answer.limit, 1)))} %`);
  drawFill(at('.fill'), at('.key'), answer, scale);
  const { input_tokens: input, output_tokens: output, money } = answer.cost;
  const price = (sum) => new Intl.NumberFormat('en', { style: 'currency', currency: money.currency, maximumSignificantDigits: 3 }).format(sum);
  const sums = money ? ` · ${price(money.input)} + at most ${price(money.output)}` : '';
  write(at('.cost'), `Costs ${sign}${many(input)} tokens in, at most ${many(output)} out${sums}`);
  write(at('.over'), answer.fits ? '' : 'This does not fit: the turn would be refused. Choose another mode or a smaller limit.');
  write(at('.note'), answer.note ?? '');
  write(at('.of-given'), `Given: ${messages(answer.messages.length)}${answer.tools?.length ? `, ${answer.tools.length} tools` : ''}`);
  drawLong(at('.rows-given'), rows, makeRow, (row, message, i) => {
    fillRow(row, message);
    row.toggleAttribute('data-only', Boolean(marks[i]));
  });
  const left = answer.left_out, sum = left.reduce((all, m) => all + m.tokens, 0);
  write(at('.of-left'), left.length ? `Left out: ${messages(left.length)}, ${many(sum)} tokens` : 'Nothing is left out');
  drawList(at('.left-out'), byReason(left), makeGroup, fillGroup);
}

element.compared = () => columns.some((column) => column.answer) ? columns.map((column) => column.answer) : null;

// What is drawn from before is not to be chosen from while the page's own choices are read.
const hold = (held) => { grid.inert = foot.inert = backends.disabled = held; };

// The dropdowns' inputs hold labels that begin with the name.
const chosen = (id, names) => {
  const text = page(`#${id} input`)?.value ?? '';
  return names.filter((name) => text.startsWith(name)).sort((a, b) => b.length - a.length)[0];
};

// The user's message that a run answers (`message`, if its id is known), else the last one of the branch.
async function messageOf(conversation, run, message) {
  const { messages: all, head } = await ask(`conversations/${encodeURIComponent(conversation)}`);
  if (message) return all.find((m) => m.id === message) ?? { id: message, content: '' };
  const last = (run && all.findLast((m) => m.run_id === run)) || all.find((m) => m.id === head) || all.at(-1);
  let at = all.indexOf(last);
  while (at >= 0 && all[at].role !== 'user') at = all[at].parent_id ? all.findIndex((m) => m.id === all[at].parent_id) : at - 1;
  return all[at];
}

const options = (select, all, value, text) => {
  select.replaceChildren(...all.map((one) => Object.assign(node('option', '', text(one)), { value: one.name })));
  select.value = value;
};

window.glassboxCompare = async ({ run = null, message = null } = {}) => {
  const mine = opened += 1, conversation = new URL(location.href).searchParams.get('conversation');
  element.show('compare');
  box.value = run ? '' : page('#prompt textarea')?.value ?? '';
  turn = null;
  hold(true);
  try {
    const [found, all, asked] = await Promise.all([ask('memory-modes'), ask('backends'), conversation && !box.value.trim() ? messageOf(conversation, run, message) : null]);
    if (mine !== opened) return;
    modes = found;
    offered = all;
    turn = { conversation, id: asked?.id ?? null, name: asked ? (run ? 'This turn again' : 'Last turn again') : 'Message' };
    write(label, turn.name);
    box.placeholder = asked ? asked.content.slice(0, 300) : 'Write the next message';
    const names = modes.map((mode) => mode.name), now = chosen('memory', names) ?? modes.find((mode) => mode.default)?.name ?? names[0];
    const before = columns[1].select.value, other = [before, 'summary', 'full', ...names].find((name) => names.includes(name) && name !== now);
    options(backends, all, chosen('backend', all.map((one) => one.name)) ?? all[0]?.name, (one) => one.ready ? one.name : `${one.name} · not ready`);
    columns.forEach((column, i) => {
      column.own = {};
      options(column.select, modes, i ? other : now, (mode) => mode.name);
      showMode(column);
      look(column);
    });
  } catch (error) {
    if (mine === opened) for (const column of columns) tell(column, error.message, true);
  } finally {
    if (mine === opened) hold(false);
  }
};

box.addEventListener('input', () => {
  write(label, box.value.trim() ? 'Message' : turn?.name ?? 'Message');
  columns.forEach((column) => look(column, WAIT_MS));
});
backends.addEventListener('change', () => columns.forEach((column) => look(column)));
dialog.addEventListener('close', () => { for (const column of columns) { clearTimeout(column.timer); column.asking?.abort(); } opened += 1; });
