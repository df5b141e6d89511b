// The dialog's second view: the tokens that each memory mode sends for the same turn, and the model inputs of two modes side
// by side, with their costs.
const { byReason, conversationId, drawFill, drawList, drawLong, drawRest, drawSharedLegend, fillGroup, fillRow, make, makeGroup } = window.glassbox;
const { makeRow, messages, number, on, promptBox, request, write } = window.glassbox;
const dialog = element.querySelector('dialog'), view = element.querySelector('#viewer-compare');
const [label, box, backends, list, legend, difference, grid, foot] = ['.ask span', '.ask textarea', '.by select', '.modes', '.of-modes', '.difference', '.columns', '.uses'].map((s) => view.querySelector(s));
const WAIT_MS = 300, MOST_ANSWERS = 100, LABELS = JSON.parse(dialog.dataset.labels);
const page = (selector) => document.querySelector(selector);
let modes = [], offered = [], turn = null, opened = 0, picked = [], asked = 0, waiting = null; // `picked`: at most two names
const answers = new Map(); // promises, by query

function makeColumn(place) {
  const root = dialog.querySelector('template').content.firstElementChild.cloneNode(true), use = make('button', { type: 'button', className: 'use' });
  const at = (selector) => root.querySelector(selector);
  const column = { root, use, select: at('.mode select'), fields: at('.fields'), own: {}, answer: null, asking: null, at };
  root.ariaLabel = place ? 'Right column' : 'Left column';
  column.select.addEventListener('change', () => {
    picked = columns.map((one) => one.select.value);
    showMode(column);
    update(column);
    drawModes();
  });
  column.fields.addEventListener('input', ({ target }) => {
    const { name, value } = target;
    column.own[column.select.value] = { ...column.own[column.select.value], [name]: value === '' ? undefined : Number(value) };
    update(column, WAIT_MS);
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

// A mode's parameters as set in a column, else as set on the page. The conversation's own apply to missing ones.
function parametersOf(mode, own = {}) {
  const set = {};
  for (const name of Object.keys(mode?.parameters ?? {})) {
    const there = page(`#${name.replaceAll('_', '-')} input`)?.value;
    const value = own[name] ?? (there ? Number(there) : undefined);
    if (value !== undefined) set[name] = value;
  }
  return set;
}

function showMode(column) {
  const mode = modes.find((one) => one.name === column.select.value), set = parametersOf(mode, column.own[mode?.name]);
  write(column.at('.about'), mode?.about ?? '');
  write(column.use, `Use this: ${column.select.value}`);
  column.fields.replaceChildren(...Object.entries(mode?.parameters ?? {}).map(([name, value]) => {
    const input = make('input', { type: 'number', name, min: 0, step: 1, value: set[name] ?? value, inputMode: 'numeric' });
    return make('label', {}, make('span', {}, LABELS[name] ?? name.replaceAll('_', ' ')), input);
  }));
}

function tell(column, text, bad) {
  column.at('.notice').classList.toggle('bad', bad);
  write(column.at('.notice'), text);
}

// The model chosen on the page, if this is the page's backend and it offers several.
function model() {
  const one = offered.find((backend) => backend.name === backends.value), names = one?.models?.map((each) => each.name) ?? [];
  return chosen('backend', offered.map((backend) => backend.name)) === one?.name ? chosen('model', names) : undefined;
}

// The turn as the page would send it, with a memory mode.
function query(memory, parameters) {
  const longest = page('#max-tokens input')?.value, prompt = page('#system-prompt textarea')?.value;
  const tools = [...document.querySelectorAll('#tools label')], documents = page('#search-first input');
  return {
    ...(box.value.trim() ? { message: box.value } : { message_id: turn.id }),
    ...(turn.conversation && { conversation_id: turn.conversation }),
    ...(backends.value && { backend: backends.value }),
    ...(model() && { model: model() }),
    ...(prompt != null && { system_prompt: prompt }),
    ...(longest && { max_tokens: Math.round(Number(longest)) }),
    ...(tools.length && { tools: tools.filter((one) => one.querySelector('input').checked).map((one) => one.textContent.trim()) }),
    ...(documents && { documents: documents.checked }),
    ...(window.glassbox.modeOptions?.(memory) && { mode_options: window.glassbox.modeOptions(memory) }),
    memory,
    ...parameters,
  };
}

// Requests a model input. Equal requests share their answer while the dialog is open.
function ask(memory, parameters) {
  const body = JSON.stringify(query(memory, parameters));
  if (answers.size >= MOST_ANSWERS) answers.clear();
  if (!answers.has(body)) {
    const answer = request('context', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
    answer.catch(() => answers.delete(body));
    answers.set(body, answer);
  }
  return answers.get(body);
}

const hasMessage = () => Boolean(turn && (box.value.trim() || turn.id));

// Requests the model input of every mode for the bars.
function updateModes(wait = 0) {
  const mine = asked += 1;
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    drawModes();
    if (hasMessage()) modes.forEach(async (mode) => {
      const [answer, wrong] = await ask(mode.name, parametersOf(mode)).then((found) => [found, ''], (error) => [null, error.message]);
      if (mine !== asked) return;
      Object.assign(mode, { answer, wrong });
      drawModes();
    });
  }, wait);
}

function makeMode() {
  const button = make('button', { type: 'button' }, make('b'), make('span', { className: 'fill', ariaHidden: 'true' }), make('small'), make('span', { className: 'what' }));
  return make('li', {}, button);
}

function drawModes() {
  const now = chosen('memory', modes.map((mode) => mode.name));
  const longest = Math.max(1, ...modes.map(({ answer }) => answer?.tokens ?? 0));
  drawList(list, modes, makeMode, (item, { name, about, answer, wrong }) => {
    const [title, fill, sum, what] = item.firstElementChild.children, known = hasMessage() ? answer : null;
    item.firstElementChild.dataset.mode = name;
    item.firstElementChild.ariaPressed = String(picked.includes(name));
    write(title, name);
    drawFill(fill, null, known, 1.02 * longest);
    write(sum, known ? `${known.estimated ? '≈ ' : ''}${number(known.tokens)}` : wrong ? 'failed' : '');
    write(what, [wrong || about, name === now && 'in use', known && !known.fits && 'does not fit'].filter(Boolean).join(' · '));
  });
  drawSharedLegend(legend, hasMessage() ? modes.map((mode) => mode.answer) : []);
  const both = picked.length === 2;
  for (const part of [grid, foot]) part.hidden = !both;
  if (both) return;
  difference.classList.remove('old');
  write(difference, !turn ? '' : !hasMessage() ? 'Write a message above to see what each mode would give the model.' : picked.length ? 'Choose one more mode to read the two side by side.' : 'Choose two modes to read them side by side.');
}

// A third choice replaces the older one.
function pick(name) {
  picked = picked.includes(name) ? picked.filter((one) => one !== name) : [...picked, name].slice(-2);
  drawModes();
  if (picked.length === 2) columns.forEach((column, i) => {
    column.select.value = picked[i];
    showMode(column);
    update(column);
  });
}
list.addEventListener('click', ({ target }) => {
  const name = target.closest('button')?.dataset.mode;
  if (name) pick(name);
});

function update(column, wait = 0) {
  const mine = column.asking = {};
  column.root.ariaBusy = 'true';
  column.use.disabled = true;
  difference.classList.add('old');
  clearTimeout(column.timer);
  column.timer = setTimeout(() => read(column, mine), wait);
}

async function read(column, mine) {
  let answer = null, wrong = '', hint = '';
  try {
    const mode = modes.find((one) => one.name === column.select.value);
    if (!turn || !mode) return;
    if (!hasMessage()) hint = 'There is no message yet.';
    else answer = await ask(mode.name, parametersOf(mode, column.own[mode.name]));
  } catch (error) {
    wrong = error.message;
  }
  if (mine !== column.asking) return;
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
  const scale = 1.02 * Math.max(1, ...found.filter(Boolean).map((answer) => Math.max(answer.tokens, answer.memory_limit ?? 0)));
  columns.forEach((column, i) => found[i] && drawColumn(column, found[i], scale, both ? only(found[i], found[1 - i]) : []));
  if (columns.some((column) => column.asking)) return;
  difference.classList.remove('old');
  write(difference, both ? sentence(...found) : '');
}

function drawColumn(column, answer, scale, marks) {
  const { at } = column, sign = answer.estimated ? '≈ ' : '';
  write(at('.total strong'), `${sign}${number(answer.tokens)}`);
  write(at('.total span'), `of ${number(answer.limit)} tokens · ${number(Math.round(100 * answer.tokens / Math.max(answer.limit, 1)))} %`);
  drawFill(at('.fill'), at('.key'), answer, scale);
  const { input_tokens: input, output_tokens: output, money } = answer.cost;
  const price = (sum) => new Intl.NumberFormat('en', { style: 'currency', currency: money.currency, maximumSignificantDigits: 3 }).format(sum);
  const sums = money ? ` · ${price(money.input)} + at most ${price(money.output)}` : '';
  write(at('.cost'), `Costs ${sign}${number(input)} tokens in, at most ${number(output)} out${sums}`);
  write(at('.over'), answer.fits ? '' : 'This does not fit: the turn would be rejected. Choose another mode or a smaller limit.');
  write(at('.note'), answer.note ?? '');
  write(at('.of-given'), `Given: ${messages(answer.messages.length)}`);
  drawRest(at('.rest'), answer);
  drawLong(at('.rows-given'), answer.messages, makeRow, (row, message, i) => {
    fillRow(row, message);
    row.toggleAttribute('data-only', Boolean(marks[i]));
  });
  const left = answer.left_out, sum = left.reduce((all, m) => all + m.tokens, 0);
  write(at('.of-left'), left.length ? `Left out: ${messages(left.length)}, ${number(sum)} tokens` : 'Nothing is left out');
  drawList(at('.left-out'), byReason(left), makeGroup, fillGroup);
}

// Marks the messages that only the first answer has, by role and text. Of equal messages the last ones are matched, because
// both inputs end alike.
function only(answer, other) {
  const keys = (one) => {
    const seen = new Map();
    return [...one.messages].reverse().map((m) => {
      const key = JSON.stringify([m.role, m.content]), n = seen.get(key) ?? 0;
      seen.set(key, n + 1);
      return `${n} ${key}`;
    }).reverse();
  };
  const there = new Set(keys(other));
  return keys(answer).map((key) => !there.has(key));
}

// Describes how two modes differ, from answers of POST /context.
function sentence(one, other) {
  const same = one.memory === other.memory, names = [one, other].map(({ memory }, i) => same ? `${memory} (${i ? 'right' : 'left'})` : memory);
  const [less, more] = one.tokens <= other.tokens ? [0, 1] : [1, 0], sums = [one.tokens, other.tokens], by = sums[more] - sums[less];
  const sign = one.estimated || other.estimated ? '≈ ' : '';
  const said = by ? `${names[less]} sends ${sign}${number(by)} fewer tokens than ${names[more]} (${Math.min(99, Math.max(1, Math.round(100 * by / sums[more])))} %).` : `Both send ${sign}${number(sums[0])} tokens.`;
  const alone = [only(one, other), only(other, one)].map((marks) => marks.filter(Boolean).length);
  const marked = alone.map((n, i) => n && `${number(n)} only in ${names[i]}`).filter(Boolean).join(', ');
  return marked ? `${said} Marked +: ${marked}.` : said;
}

element.compared = () => {
  const found = picked.length === 2 ? columns : modes, known = found.map((one) => one.answer).filter(Boolean);
  return known.length ? known : null;
};

// The previous comparison is inert while the page's choices are read.
const hold = (held) => { list.inert = grid.inert = foot.inert = backends.disabled = held; };

// The dropdowns' inputs hold labels that begin with the name.
const chosen = (id, names) => {
  const text = page(`#${id} input`)?.value ?? '';
  return names.filter((name) => text.startsWith(name)).sort((a, b) => b.length - a.length)[0];
};

// The user's message that a run answers (`message`, if its id is known), else the last one of the branch.
async function messageOf(conversation, run, message) {
  const { messages: all, head } = await request(`conversations/${encodeURIComponent(conversation)}`);
  if (message) return all.find((m) => m.id === message) ?? { id: message, content: '' };
  const last = (run && all.findLast((m) => m.run_id === run)) || all.find((m) => m.id === head) || all.at(-1);
  let at = all.indexOf(last);
  while (at >= 0 && all[at].role !== 'user') at = all[at].parent_id ? all.findIndex((m) => m.id === all[at].parent_id) : at - 1;
  return all[at];
}

const options = (select, all, value, text) => {
  select.replaceChildren(...all.map((one) => make('option', { value: one.name }, text(one))));
  select.value = value;
};

on('compare', async ({ run = null, message = null }) => {
  const mine = opened += 1, conversation = conversationId();
  element.show('compare');
  box.value = run ? '' : promptBox()?.value ?? '';
  [turn, picked] = [null, []];
  answers.clear();
  drawModes();
  hold(true);
  try {
    const [found, all, question] = await Promise.all([request('memory-modes'), request('backends'), conversation && !box.value.trim() ? messageOf(conversation, run, message) : null]);
    if (mine !== opened) return;
    modes = found;
    offered = all;
    turn = { conversation, id: question?.id ?? null, name: question ? (run ? 'This turn again' : 'Last turn again') : 'Message' };
    write(label, turn.name);
    box.placeholder = question ? question.content.slice(0, 300) : 'Write the next message';
    options(backends, all, chosen('backend', all.map((one) => one.name)) ?? all[0]?.name, (one) => one.ready ? one.name : `${one.name} · not ready`);
    columns.forEach((column, i) => {
      column.own = {};
      options(column.select, modes, modes[i]?.name, (mode) => mode.name);
    });
    updateModes();
  } catch (error) {
    if (mine === opened) write(difference, error.message);
  } finally {
    if (mine === opened) hold(false);
  }
}, element);

// The turn has changed.
function refresh(wait = 0) {
  updateModes(wait);
  if (picked.length === 2) columns.forEach((column) => update(column, wait));
}
box.addEventListener('input', () => {
  write(label, box.value.trim() ? 'Message' : turn?.name ?? 'Message');
  refresh(WAIT_MS);
});
backends.addEventListener('change', () => refresh());
dialog.addEventListener('close', () => {
  for (const timer of [waiting, ...columns.map((column) => column.timer)]) clearTimeout(timer);
  opened += 1;
});
