// What the panel and the viewer draw a context with: the bar by part, rows, groups by reason. All texts are text.
const PARTS = ['system', 'summary', 'recalled', 'recent', 'message', 'tools'];
const many = (n) => Number(n).toLocaleString('en');
const tokens = (n) => `${many(n)} tok`;
const messages = (n) => n === 1 ? '1 message' : `${many(n)} messages`;
const textOf = (content) => typeof content === 'string' ? content : JSON.stringify(content, null, 1);
const asRow = (tool) => ({ role: tool.name, content: tool.content, tokens: tool.tokens, part: 'tools' });

function node(name, className = '', text = '') {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

// Keeps a list's elements and only fills them anew: nothing blinks, and what is open stays so.
function drawList(parent, items, create, fill, first = 0) {
  items.forEach((item, i) => fill(parent.children[i] ?? parent.appendChild(create()), item, first + i));
  while (parent.children.length > items.length) parent.lastElementChild.remove();
}

// The same for thousands: in blocks that cost nothing while they are out of sight, a few at a time, so that the page
// goes on answering.
const BLOCK = 50;
function drawLong(parent, items, create, fill, tag = 'div') {
  const mine = parent.drawing = {}, blocks = Math.ceil(items.length / BLOCK);
  let at = 0;
  const go = () => {
    const until = performance.now() + 8;
    for (; at < blocks && performance.now() < until; at += 1) {
      const block = parent.children[at] ?? parent.appendChild(node(tag, 'block')), first = at * BLOCK, some = items.slice(first, first + BLOCK);
      block.style.setProperty('--rows', some.length);
      drawList(block, some, create, fill, first);
    }
    if (at < blocks) return requestAnimationFrame(() => parent.drawing === mine && go());
    while (parent.children.length > blocks) parent.lastElementChild.remove();
  };
  go();
}

// [part, tokens] of what is there; a record from before there were parts has only a whole.
function partsOf(context) {
  if (!context) return [];
  return context.parts ? PARTS.map((part) => [part, context.parts[part] ?? 0]).filter(([, n]) => n > 0) : [['', context.tokens]];
}

// How many tokens a bar is long that shows what is beyond the limit, too, up to as much again.
const scaleOf = (...contexts) => Math.max(1, ...contexts.map(({ tokens: n, limit }) => Math.min(2 * limit, Math.max(n, limit))));

// What is beyond the limit stands behind a mark.
function drawFill(bar, legend, context, scale = context ? scaleOf(context) : 1, free = false) {
  const found = partsOf(context), percent = (n) => `${(100 * n / Math.max(scale, 1)).toFixed(3)}%`;
  drawList(bar, found, () => node('i'), (slice, [part, n]) => {
    slice.dataset.part = part;
    slice.style.width = percent(n);
    slice.title = `${part || 'all'}: ${many(n)} tokens`;
  });
  bar.style.setProperty('--limit', context && scale > context.limit ? percent(context.limit) : '200%');
  bar.toggleAttribute('data-over', Boolean(context && context.tokens > context.limit));
  bar.ariaLabel = !context ? 'Nothing yet' : `${found.map(([part, n]) => `${part || 'all'} ${many(n)}`).join(', ')}: ${many(context.tokens)} of ${many(context.limit)} tokens`;
  const named = found.filter(([part]) => part);
  if (free && context && named.length && context.limit > context.tokens) named.push(['free', context.limit - context.tokens]);
  drawList(legend, named, () => {
    const item = node('li');
    item.append(node('i'), node('span'), node('b'));
    return item;
  }, (item, [part, n]) => {
    item.dataset.part = part;
    write(item.children[1], part);
    write(item.children[2], many(n));
  });
}

// A message as one line that opens to the whole of it; the whole is only drawn once it is asked for.
function makeRow() {
  const row = node('details', 'message'), line = node('summary');
  line.append(node('b'), node('span', 'preview'), node('small'), node('em'));
  row.append(line, node('p', 'whole'));
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

// What was left out, by its reason: {reason, count, tokens, messages}.
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
  const group = node('details', 'group'), line = node('summary');
  line.append(node('span'), node('small'));
  group.append(line, node('div', 'rows-of'));
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

// Messages are the same if role and text are; of equal ones the last are matched, since two contexts end alike.
function only(answer, other) {
  const keys = (one) => {
    const seen = new Map();
    return [...one.messages, ...(one.tools ?? []).map(asRow)].reverse().map((m) => {
      const key = JSON.stringify([m.role, m.content]), n = seen.get(key) ?? 0;
      seen.set(key, n + 1);
      return `${n} ${key}`;
    }).reverse();
  };
  const there = new Set(keys(other));
  return keys(answer).map((key) => !there.has(key));
}

// How two modes differ, in words: answers of POST /context.
function sentence(one, other) {
  const same = one.memory === other.memory, names = [one, other].map(({ memory }, i) => same ? `${memory} (${i ? 'right' : 'left'})` : memory);
  const [less, more] = one.tokens <= other.tokens ? [0, 1] : [1, 0], sums = [one.tokens, other.tokens], by = sums[more] - sums[less];
  const sign = one.estimated || other.estimated ? '≈ ' : '';
  const said = by ? `${names[less]} sends ${sign}${many(by)} tokens less than ${names[more]} (${Math.min(99, Math.max(1, Math.round(100 * by / sums[more])))} %).` : `Both send ${sign}${many(sums[0])} tokens.`;
  const alone = [only(one, other), only(other, one)].map((marks) => marks.filter(Boolean).length);
  const marked = alone.map((n, i) => n && `${many(n)} only in ${names[i]}`).filter(Boolean).join(', ');
  return marked ? `${said} Marked +: ${marked}.` : said;
}

async function ask(path, options) {
  const answer = await fetch(new URL(path, document.baseURI), options).catch((error) => {
    throw error.name === 'AbortError' ? error : new Error('The server cannot be reached. Try again in a moment.');
  });
  if (answer.ok) return answer.json();
  throw new Error((await answer.json().catch(() => ({}))).message ?? `The server answered ${answer.status}.`);
}
