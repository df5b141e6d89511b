// What the panel and the viewer share to draw a model input: the bar of its parts, rows of messages, groups by reason.
const { drawList, make, number, write } = window.glassbox;
const PARTS = ['system', 'summary', 'recalled', 'recent', 'message', 'tools'];
const tokens = (n) => `${number(n)} tok`;
const messages = (n) => n === 1 ? '1 message' : `${number(n)} messages`;
const textOf = (content) => typeof content === 'string' ? content : JSON.stringify(content, null, 1);
const asRow = (tool) => ({ role: tool.name, content: tool.content, tokens: tool.tokens, part: 'tools' });

// Fills a list of thousands, in blocks that cost nothing out of sight, and a few at a time, so that the page stays
// responsive.
const BLOCK = 50;
function drawLong(parent, items, create, fill, tag = 'div') {
  const mine = parent.drawing = {}, blocks = Math.ceil(items.length / BLOCK);
  let at = 0;
  const go = () => {
    const until = performance.now() + 8;
    for (; at < blocks && performance.now() < until; at += 1) {
      const block = parent.children[at] ?? parent.appendChild(make(tag, { className: 'block' })), first = at * BLOCK, some = items.slice(first, first + BLOCK);
      block.style.setProperty('--rows', some.length);
      drawList(block, some, create, fill, first);
    }
    if (at < blocks) return requestAnimationFrame(() => parent.drawing === mine && go());
    while (parent.children.length > blocks) parent.lastElementChild.remove();
  };
  go();
}

// [part, tokens] of the parts that exist. Old records have only a total.
function partsOf(context) {
  if (!context) return [];
  return context.parts ? PARTS.map((part) => [part, context.parts[part] ?? 0]).filter(([, n]) => n > 0) : [['', context.tokens]];
}

// The length of a bar in tokens. It also shows tokens beyond the limit, up to twice the limit.
const scaleOf = (...contexts) => Math.max(1, ...contexts.map(({ tokens: n, limit }) => Math.min(2 * limit, Math.max(n, limit))));

// Draws the bar and its legend, with a mark at the limit.
function drawFill(bar, legend, context, scale = context ? scaleOf(context) : 1, free = false) {
  const found = partsOf(context), percent = (n) => `${(100 * n / Math.max(scale, 1)).toFixed(3)}%`;
  drawList(bar, found, () => make('i'), (slice, [part, n]) => {
    slice.dataset.part = part;
    slice.style.width = percent(n);
    slice.title = `${part || 'all'}: ${number(n)} tokens`;
  });
  bar.style.setProperty('--limit', context && scale > context.limit ? percent(context.limit) : '200%');
  bar.toggleAttribute('data-over', Boolean(context && context.tokens > context.limit));
  bar.ariaLabel = !context ? 'Nothing yet' : `${found.map(([part, n]) => `${part || 'all'} ${number(n)}`).join(', ')}: ${number(context.tokens)} of ${number(context.limit)} tokens`;
  const named = found.filter(([part]) => part);
  if (free && context && named.length && context.limit > context.tokens) named.push(['free', context.limit - context.tokens]);
  drawList(legend, named, () => make('li', {}, make('i'), make('span'), make('b')), (item, [part, n]) => {
    item.dataset.part = part;
    write(item.children[1], part);
    write(item.children[2], number(n));
  });
}

// A message as one line that opens. Its whole text is drawn only when it is opened.
function makeRow() {
  const summary = make('summary', {}, make('b'), make('span', { className: 'preview' }), make('small'), make('em'));
  const row = make('details', { className: 'message' }, summary, make('p', { className: 'whole' }));
  row.addEventListener('toggle', () => { if (row.open) write(row.lastElementChild, textOf(row.message.content) || 'empty'); });
  return row;
}

function fillRow(row, message) {
  const [role, preview, count, why] = row.firstElementChild.children, text = textOf(message.content);
  if (row.message && textOf(row.message.content) !== text) row.open = false;
  row.message = message;
  row.dataset.part = message.part ?? '';
  write(role, message.role);
  write(preview, text.slice(0, 240) || 'empty');
  write(count, tokens(message.tokens));
  write(why, message.why ?? '');
}

// Groups what was left out by reason: {reason, count, tokens, messages}.
function byReason(left) {
  const groups = new Map();
  for (const message of left) {
    const group = groups.get(message.reason) ?? { reason: message.reason, count: 0, tokens: 0, messages: [] };
    groups.set(message.reason, group);
    group.count += 1;
    group.tokens += message.tokens;
    group.messages.push(message);
  }
  return [...groups.values()];
}

function makeGroup() {
  const summary = make('summary', {}, make('span'), make('small'));
  const group = make('details', { className: 'group' }, summary, make('div', { className: 'rows-of' }));
  group.addEventListener('toggle', () => { if (group.open) group.fillRows(); });
  return group;
}

function fillGroup(group, { reason, count, tokens: sum, messages: listed }) {
  const [line, rows] = group.children;
  write(line.children[0], `${messages(count)}: ${reason}`);
  write(line.children[1], tokens(sum));
  if (group.reason && group.reason !== reason) group.open = false;
  group.reason = reason;
  group.fillRows = () => drawLong(rows, listed, makeRow, fillRow);
  if (group.open) group.fillRows(); else drawLong(rows, [], makeRow, fillRow);
}

Object.assign(window.glassbox, { messages, textOf, asRow, drawLong, scaleOf, drawFill, makeRow, fillRow, byReason, makeGroup, fillGroup });
