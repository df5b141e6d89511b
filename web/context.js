// What the panel and the viewer share to draw a model input: the bar of its parts, rows of messages, groups by reason.
const { drawList, imageAddress, make, number, write } = window.glassbox;
// The parts of a model input in the order of the bar: [name, label, description].
const PARTS = [
  ['system', 'system', 'The system prompt'], ['summary', 'summary', 'The summary of older turns'],
  ['recalled', 'recalled', 'Older turns that match the message'], ['recent', 'recent', 'The latest turns'],
  ['documents', 'documents', 'Passages of your documents that match the message'],
  ['message', 'message', 'The message'], ['calls', 'tool calls', "This turn's tool calls and their results"],
  ['tools', 'tools', 'The definitions of the tools that the model can call'],
  ['format', 'chat format', 'What the chat template adds once'], ['free', 'free', 'Room for more'],
];
const about = (part) => PARTS.find(([name]) => name === part) ?? [part, part || 'all', ''];
const tokens = (n) => n === 1 ? '1 token' : `${number(n)} tokens`;
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
  return context.parts ? PARTS.map(([part]) => [part, context.parts[part] ?? 0]).filter(([, n]) => n > 0) : [['', context.tokens]];
}

// The length of a bar in tokens. With a memory limit the bar ends a little after it; else it shows the model's limit, and
// tokens beyond that up to twice the limit.
const scaleOf = ({ tokens: n, limit, memory_limit: own }) => own == null ? Math.max(1, Math.min(2 * limit, Math.max(n, limit))) : 1.1 * Math.max(n, own, 1);

// Draws the bar and its legend, with marks at the limits.
function drawFill(bar, legend, context, scale = context ? scaleOf(context) : 1, free = false) {
  const found = partsOf(context), percent = (n) => `${(100 * n / Math.max(scale, 1)).toFixed(3)}%`, own = context?.memory_limit;
  drawList(bar, found, () => make('i'), (slice, [part, n]) => {
    slice.dataset.part = part;
    slice.style.width = percent(n);
    slice.title = `${about(part)[1]}: ${number(n)} tokens`;
  });
  bar.style.setProperty('--limit', context && scale > context.limit ? percent(context.limit) : '200%');
  bar.style.setProperty('--memory', own != null && own <= scale ? percent(own) : '200%');
  bar.toggleAttribute('data-over', Boolean(context && context.tokens > context.limit));
  const limits = context ? `${number(context.tokens)} of ${number(context.limit)} tokens${own == null ? '' : `, memory limit ${number(own)}`}` : '';
  if (bar.getAttribute('role')) bar.ariaLabel = context ? `${found.map(([part, n]) => `${about(part)[1]} ${number(n)}`).join(', ')}: ${limits}` : 'Nothing yet';
  if (!legend) return;
  const named = found.filter(([part]) => part);
  if (free && context && named.length && context.limit > context.tokens) named.push(['free', context.limit - context.tokens]);
  drawLegend(legend, named);
}

// `named`: [part, tokens]; without tokens only the name.
function drawLegend(legend, named) {
  drawList(legend, named, () => make('li', {}, make('i'), make('span'), make('b')), (item, [part, n]) => {
    const [, label, description] = about(part);
    item.dataset.part = part;
    item.title = description;
    write(item.children[1], label);
    write(item.children[2], n == null ? '' : number(n));
  });
}

// The legend of several bars: each part that one of them has.
function drawSharedLegend(legend, contexts) {
  const drawn = new Set(contexts.flatMap((context) => partsOf(context).map(([part]) => part)));
  drawLegend(legend, PARTS.filter(([part]) => drawn.has(part)).map(([part]) => [part]));
}

// The memory mode's own limit, at its mark on the bar (`label`) and in a sentence (`line`).
function drawLimit(label, line, context) {
  const own = context?.memory_limit, share = own == null ? 0 : Math.min(1, own / scaleOf(context));
  write(label, own == null ? '' : `memory limit ${number(own)}`);
  label.style.textAlign = share > 0.5 ? 'right' : '';
  label.style.padding = share > 0.5 ? `0 ${(100 * (1 - share)).toFixed(2)}% 0 0` : `0 0 0 ${(100 * share).toFixed(2)}%`;
  const over = own == null ? 0 : context.tokens - own, called = context?.parts?.calls;
  const why = `the limit holds for earlier turns only. The system prompt, the message and the tools are always sent${called ? ", and this turn's tool calls are added" : ''}.`;
  write(line, over > 0 ? `${number(over)} tokens above the memory limit: ${why}` : '');
}

// The parts that are no messages: the tools' definitions as one row that opens, and what the chat template adds.
function drawRest(box, context) {
  if (!box.children.length) {
    const tools = make('details', { className: 'message' }, make('summary', {}, make('b'), make('span', { className: 'preview' }), make('small')), make('div', { className: 'given-tools' }));
    const format = make('p', { className: 'format' }, make('b', {}, 'format'), make('span', {}, 'Added once by the chat template'), make('small'));
    tools.dataset.part = 'tools';
    format.dataset.part = 'format';
    box.append(tools, format);
  }
  const [tools, format] = box.children, [summary, list] = tools.children, offered = context?.tools ?? [];
  tools.hidden = !offered.length;
  write(summary.children[0], offered.length === 1 ? '1 tool' : `${offered.length} tools`);
  write(summary.children[1], offered.map((tool) => tool.name).join(', '));
  write(summary.children[2], tokens(offered.reduce((sum, tool) => sum + tool.tokens, 0)));
  drawList(list, offered.map(asRow), makeRow, fillRow);
  const added = context?.parts?.format ?? 0;
  format.hidden = !added;
  write(format.lastElementChild, tokens(added));
}

// The images of a message.
function drawPictures(box, { images = [] }) {
  drawList(box, images, () => make('img', { loading: 'lazy' }), (image, one, i) => {
    const address = imageAddress(one.id);
    if (image.getAttribute('src') !== address) image.src = address;
    image.alt = `Image ${i + 1}: ${one.width} by ${one.height} pixels`;
    image.title = `${image.alt}, ≈ ${tokens(one.tokens)}`;
  });
}

// How many images a message has, in front of its text.
const pictured = ({ images = [] }) => images.length ? `[${images.length === 1 ? '1 image' : `${images.length} images`}] ` : '';

// A message as one line that opens. Its whole text is drawn only when it is opened.
function makeRow() {
  const summary = make('summary', {}, make('b'), make('span', { className: 'preview' }), make('small'), make('em'));
  const row = make('details', { className: 'message' }, summary, make('div', { className: 'pictures' }), make('p', { className: 'whole', tabIndex: 0 }));
  row.addEventListener('toggle', () => {
    if (!row.open) return;
    drawPictures(row.children[1], row.message);
    write(row.lastElementChild, textOf(row.message.content) || 'empty');
  });
  return row;
}

function fillRow(row, message) {
  const [role, preview, count, why] = row.firstElementChild.children, text = textOf(message.content);
  if (row.message && (textOf(row.message.content) !== text || pictured(row.message) !== pictured(message))) row.open = false;
  if (row.open) drawPictures(row.children[1], message);
  row.message = message;
  row.dataset.part = message.part ?? '';
  write(role, message.role);
  write(preview, `${pictured(message)}${text.slice(0, 240)}` || 'empty');
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

Object.assign(window.glassbox, { messages, textOf, drawLong, drawFill, drawLimit, drawSharedLegend, drawRest, drawPictures, makeRow, fillRow, byReason, makeGroup, fillGroup });
