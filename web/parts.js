// The thinking and the tool calls of the live reply, as the panel receives them; components/parts.py builds the ended
// ones alike. Texts are text, never markup.
const box = element.querySelector('.parts');
let drawn = null;

const make = (tag) => document.createElement(tag);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

function fit(parent, count, create) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append(create(parent.children.length));
}

function details() {
  const node = make('details'), summary = make('summary');
  summary.append(make('b'), make('span'), make('small'));
  node.append(summary);
  return node;
}

function fill(node, part) {
  const [title, hint, seconds] = node.firstElementChild.children;
  put(title, part.title);
  put(hint, part.hint);
  put(seconds, part.seconds ?? '');
  node.classList.toggle('failed', part.failed);
  node.classList.toggle('live', part.seconds == null);
  if (!part.blocks) return; // as it was
  fit(node, 1 + 2 * part.blocks.length, (place) => make(place % 2 ? 'p' : 'pre'));
  part.blocks.forEach(([label, text], i) => {
    const pre = node.children[2 + 2 * i], atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
    put(node.children[1 + 2 * i], label);
    put(pre, text);
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  });
}

// An ended run's parts stay until the conversation has them.
window.glassboxParts = (run, live, parts) => {
  if (run && !live && drawn !== run) return;
  if (drawn !== run) box.replaceChildren();
  drawn = run;
  fit(box, parts.length, details);
  parts.forEach((part, i) => fill(box.children[i], part));
};

// What the reader had opened stays open in the conversation. The live parts go in the same moment in which those open: a
// page that is shorter for a while loses the reader's place.
watch('value', () => {
  if (props.value !== drawn) return;
  const handed = drawn;
  requestAnimationFrame(() => {
    if (drawn !== handed) return;
    const kept = [...document.querySelectorAll('#chat .parts')].at(-1)?.children ?? [];
    if (kept.length === box.children.length) [...box.children].forEach((node, i) => { if (node.open) kept[i].open = true; });
    box.replaceChildren();
    drawn = null;
  });
});
