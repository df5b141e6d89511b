// The panel's tab *Context*: what the model was given, and what became of the earlier turns.
const { drawFill, drawLimit, drawList, drawRest, emit, fillGroup, fillRow, make, makeGroup, makeRow, messages, number, on, write } = window.glassbox;
const root = element.querySelector('#context');
const [total, bar, mark, reuse, legend, limit, note, memory, list, rest, left, empty, open] =
  ['[data-context-total]', '.fill', '.mark', '.reuse', '.key', '.limit', '.note', '.memory', '.given', '.rest', '.left-out', '.empty', '[data-context]'].map((s) => root.querySelector(s));
const STATES = { kept: 'kept', summarised: 'summarised', recalled: 'recalled', left_out: 'left out' };
let drawnRun = null, earlier = false;

// What the provider says it had in its cache, and so did not read again.
function drawReuse(context) {
  const cached = context?.cached, [line, sentence] = reuse.children;
  reuse.hidden = cached == null;
  if (reuse.hidden) return;
  const all = Math.max(context.tokens, cached), read = all - cached;
  line.firstElementChild.style.width = `${(100 * cached / Math.max(1, all)).toFixed(2)}%`;
  const said = !cached ? `The model read all of it: nothing was in its cache.` : `${number(cached)} ${cached === 1 ? 'token was' : 'tokens were'} in the model's cache. It read ${context.estimated ? '≈ ' : ''}${number(read)}.`;
  write(sentence, said);
  line.ariaLabel = said;
}

// The first message of which less than half was in the cache: the template's own tokens make the places uncertain by a few.
// The definitions of tools stand before or after the first message, so a break before the second one is not known.
function firstRead(context) {
  if (context.cached == null || context.estimated || context.gap) return -1;
  let end = context.parts?.tools ?? 0;
  return context.messages.findIndex((message, i) => (end += message.tokens) - message.tokens / 2 > context.cached && i > 0);
}

// A shortened list has a row that counts the missing messages.
function rowsOf(context) {
  const first = firstRead(context), rows = context.messages.map((message, i) => ({ ...message, readFirst: i === first }));
  if (context.gap) rows.splice(context.gap.after, 0, { gap: context.gap });
  return rows;
}

function fillItem(item, row) {
  const cut = Boolean(row.gap);
  if (item.cut !== cut) item.replaceChildren(cut ? make('p', { className: 'gap' }) : makeRow());
  item.cut = cut;
  item.toggleAttribute('data-read', Boolean(row.readFirst));
  if (cut) write(item.firstElementChild, `${messages(row.gap.count)} not shown, ${number(row.gap.tokens)} tokens: Open shows them`);
  else fillRow(item.firstElementChild, row);
}

// The rows that were sent of each reason; there may be more of them.
function groupsOf(context) {
  return context.reasons.map((group) => ({ ...group, messages: context.left_out.filter((m) => m.reason === group.reason) }));
}

// A block for each earlier turn; the oldest ones share blocks. The last block is this turn.
function drawTurns(blocks) {
  const [, strip, key] = memory.children, sums = {};
  memory.hidden = !blocks.length;
  drawList(strip, blocks.length ? [...blocks, null] : [], () => make('li', {}, make('span')), (item, block) => {
    const states = Object.entries(block?.states ?? {}).sort((a, b) => b[1] - a[1]), count = block ? block.last - block.first + 1 : 1;
    for (const [state, n] of states) sums[state] = (sums[state] ?? 0) + n;
    item.dataset.state = states[0]?.[0] ?? 'now';
    item.style.flexGrow = String(Math.min(4, count));
    write(item.firstElementChild, count > 1 ? number(count) : '');
    const said = states.map(([state, n]) => states.length > 1 ? `${number(n)} ${STATES[state]}` : STATES[state]).join(', ');
    item.title = !block ? 'This turn' : `${count > 1 ? `Turns ${number(block.first)} to ${number(block.last)}` : `Turn ${number(block.first)}`}: ${said}`;
    item.ariaLabel = item.title;
  });
  drawList(key, Object.entries(sums), () => make('li', {}, make('i'), make('span'), make('b')), (item, [state, n]) => {
    item.dataset.state = state;
    write(item.children[1], STATES[state]);
    write(item.children[2], number(n));
  });
}

function draw(run, context) {
  empty.hidden = Boolean(context);
  bar.hidden = !context;
  legend.hidden = !context?.parts;
  open.hidden = !context;
  open.dataset.context = run ?? '';
  write(total, context ? `${context.estimated ? '≈ ' : ''}${number(context.tokens)} of ${number(context.limit)} tokens` : '');
  drawFill(bar, legend, context);
  drawLimit(mark, limit, context);
  drawReuse(context);
  drawTurns(context?.turns ?? []);
  write(note, context?.note ?? '');
  drawList(list, context ? rowsOf(context) : [], () => make('li'), fillItem);
  drawRest(rest, context);
  left.hidden = !context?.left_out_count;
  if (left.hidden) return;
  const listed = context.left_out.length < context.left_out_count ? `, the latest ${context.left_out.length} listed` : '';
  write(left.firstElementChild, `Left out: ${messages(context.left_out_count)}, ${number(context.left_out_tokens)} tokens${listed}`);
  drawList(left.lastElementChild, groupsOf(context), makeGroup, fillGroup);
}

// A value without a context keeps the one that was drawn for the same run.
on('shown', (value) => {
  const run = value?.run ?? null;
  earlier = Boolean(value?.inspected);
  if (!run || value.context !== undefined || run !== drawnRun) draw(run, (run && value.context) ?? null);
  drawnRun = run;
}, element);

// An earlier reply is compared for its own turn.
root.addEventListener('click', (event) => {
  if (!earlier || !event.target.closest('[data-compare]')) return;
  event.stopPropagation();
  emit('compare', { run: drawnRun });
});
