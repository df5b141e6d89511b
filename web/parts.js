// Draws the thinking and the tool calls of the live reply, from the panel's value, into the empty blocks that
// components/live_reply.py puts between its texts. components/parts.py renders those of ended replies alike.
const { drawList, make, on, write } = window.glassbox;
const $ = (selector) => document.querySelector(selector);
const blocksIn = (place) => [...document.querySelectorAll(`${place} .thought-group`)];
const HAND_OVER_MS = 3000;
let groups = [], run = null; // of the run in the live reply
let moved = null; // what the reader has opened in a reply that has ended, until the conversation has it
let latest = null; // the run of the last reply in the conversation

const makePart = () => make('details', {}, make('summary', {}, make('b'), make('span'), make('small')));

// The server has checked the type and the letters of an image's address.
function drawImage(title, place, label, address) {
  write(title, label);
  if (place.tagName === 'IMG' && place.src === address) return;
  place.replaceWith(make('img', { src: address, alt: label }));
}

function fill(node, part) {
  const [title, hint, seconds] = node.firstElementChild.children;
  write(title, part.title);
  write(hint, part.hint);
  write(seconds, part.seconds ?? '');
  node.classList.toggle('failed', part.failed);
  node.classList.toggle('live', part.seconds == null);
  if (!part.blocks) return; // it has not changed
  while (node.children.length > 1 + 2 * part.blocks.length) node.lastElementChild.remove();
  while (node.children.length < 1 + 2 * part.blocks.length) node.append(make('p'), make('pre'));
  part.blocks.forEach(([label, text, image], i) => {
    if (image) return drawImage(node.children[1 + 2 * i], node.children[2 + 2 * i], label, image);
    if (node.children[2 + 2 * i].tagName !== 'PRE') node.children[2 + 2 * i].replaceWith(make('pre'));
    const pre = node.children[2 + 2 * i], atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
    write(node.children[1 + 2 * i], label);
    write(pre, text);
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  });
}

// Parts with equal offsets stand in one block.
function grouped(parts) {
  const found = [];
  parts.forEach((part, i) => (i && part.offset === parts[i - 1].offset ? found.at(-1) : (found[found.length] = [])).push(part));
  return found;
}

// Details are sent only while they change. A block that Gradio has drawn again needs those of before.
function keepDetails(before, now) {
  now.forEach((group, g) => group.forEach((part, i) => { part.blocks ??= before[g]?.[i]?.blocks; }));
  return now;
}

function draw() {
  blocksIn('#live-reply').forEach((block, i) => drawList(block, groups[i] ?? [], makePart, fill));
}

on('panel', (value) => {
  const same = value?.run && value.run === run;
  run = value?.run ?? null;
  groups = run ? keepDetails(same ? groups : [], grouped(value.parts)) : [];
  draw();
}, element);

// What was open in the live reply is opened in the conversation in the same frame: a page that is shorter for a moment would
// lose the scroll position.
function open() {
  const places = moved && moved.run === latest ? blocksIn('#chat').slice(-moved.open.length) : [];
  if (!moved || places.length !== moved.open.length || places.some((place, i) => place.children.length !== moved.open[i].length)) return;
  places.forEach((place, i) => moved.open[i].forEach((isOpen, j) => { if (isOpen) place.children[j].open = true; }));
  moved = null;
}

on('turns', (turns) => {
  latest = turns.at(-1)?.run ?? null;
  open();
}, element);

function changed(changes) {
  const blocks = blocksIn('#live-reply');
  if (blocks.some((block, i) => !block.children.length && groups[i])) draw();
  const removed = changes.flatMap(({ target, removedNodes }) => target.closest?.('#live-reply') ? [...removedNodes] : []);
  const gone = removed.flatMap((node) => [...node.querySelectorAll?.('.thought-group') ?? []]).filter((block) => block.children.length);
  if (!blocks.length && gone.length) {
    const mine = moved = { run, open: gone.map((block) => [...block.children].map((part) => part.open)) };
    setTimeout(() => { if (moved === mine) moved = null; }, HAND_OVER_MS);
  }
  open();
}

const begin = new MutationObserver(() => {
  if (!$('#chat') || !$('#live-reply')) return;
  begin.disconnect();
  const watching = new MutationObserver(changed);
  for (const place of ['#chat', '#live-reply']) watching.observe($(place), { childList: true, subtree: true });
  draw();
});
begin.observe(document.documentElement, { childList: true, subtree: true });
