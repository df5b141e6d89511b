// The thinking and the tool calls of the live reply, from the panel's value. components/parts.py renders those of ended
// replies alike.
const { drawList, make, on, write } = window.glassbox;
const box = element.querySelector('.parts');
let drawn = null;

const makePart = () => make('details', {}, make('summary', {}, make('b'), make('span'), make('small')));

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
  part.blocks.forEach(([label, text], i) => {
    const pre = node.children[2 + 2 * i], atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
    write(node.children[1 + 2 * i], label);
    write(pre, text);
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  });
}

// The parts of an ended run stay until the conversation has them.
on('panel', (value) => {
  const run = value?.run ?? null;
  if (run && !value.live && !value.replay && drawn !== run) return;
  if (drawn !== run) box.replaceChildren();
  drawn = run;
  drawList(box, run ? value.parts : [], makePart, fill);
}, element);

// What the reader opened stays open in the conversation. The live parts disappear in the same frame in which those open: a
// page that is shorter for a moment would lose the scroll position.
watch('value', () => {
  if (props.value !== drawn) return;
  const moved = drawn;
  requestAnimationFrame(() => {
    if (drawn !== moved) return;
    const kept = [...document.querySelectorAll('#chat .parts')].at(-1)?.children ?? [];
    if (kept.length === box.children.length) [...box.children].forEach((node, i) => { if (node.open) kept[i].open = true; });
    box.replaceChildren();
    drawn = null;
  });
});
