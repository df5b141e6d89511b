// Marks in the chat what a bar of the waterfall stands for, and the bar that wrote a text or called a tool of the chat.
const { emit, on } = window.glassbox;
let shown = null, marked = '';

// The messages of the shown run's reply: of the growing one, or of the one whose buttons name the run, else of the last one.
function messagesOf() {
  const growing = [...document.querySelectorAll('#live-parts .parts, #live-reply [data-testid=bot]')];
  if (!shown.inspected && growing.some((node) => node.textContent.trim())) return growing;
  const run = CSS.escape(shown.run), row = document.querySelector(`#chat .turn :is([data-inspect="${run}"], [data-context="${run}"])`);
  const found = [];
  let node = row ? row.closest('.message-buttons') : shown.inspected ? null : [...document.querySelectorAll('#chat .message-row')].at(-1);
  for (; node && !node.matches('.user-row'); node = node.previousElementSibling) {
    if (node.matches('.bot-row')) found.unshift(...node.querySelectorAll('[data-testid=bot]'));
  }
  return found;
}

// [mark, element] of each block and text, in order: `part-N` is the part at place N, `text-N` a text after N parts.
function places() {
  let count = 0;
  return messagesOf().filter((node) => !node.querySelector('.note, .failure')).flatMap((node) => {
    const blocks = node.matches('.parts') ? [...node.children] : [...node.querySelectorAll('.parts details')];
    return blocks.length ? blocks.map((block) => [`part-${count++}`, block]) : [[`text-${count}`, node]];
  });
}

window.glassbox.replyTexts = () => shown ? places().filter(([name]) => name.startsWith('text-')).map(([, node]) => node) : [];

function mark(marks, from) {
  if (`${from} ${marks}` === marked) return;
  marked = `${from} ${marks}`;
  emit('mark', { marks, from });
}
on('mark', ({ marks, from }) => {
  for (const node of document.querySelectorAll(':is(#chat, #live-reply, #live-parts) .marked')) node.classList.remove('marked');
  if (from === 'bar' && marks.length) for (const [name, node] of places()) if (marks.includes(name)) node.classList.add('marked');
}, element);
on('shown', (value) => { shown = value?.run ? value : null; }, element);

// A bar stands for its marks, a place in the chat for its own.
function pointed({ target }) {
  if (!element.isConnected || !shown) return;
  const bar = target.closest?.('#timeline .bars > li');
  if (bar) return mark(bar.marks ?? [], 'bar');
  const inside = target.closest?.('#chat .bot-row, #live-reply, #live-parts');
  mark(inside ? places().filter(([, node]) => node.contains(target)).map(([name]) => name) : [], 'chat');
}
document.addEventListener('pointerover', pointed);
document.addEventListener('focusin', pointed);
document.addEventListener('pointerleave', () => mark([], 'chat'));
