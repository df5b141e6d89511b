// A selection in a reply survives the growth of the reply and its move into the conversation: it is stored as positions in
// the texts of messages, and restored when its elements have been replaced.
const MESSAGE = ':is(#chat, #live-reply) [data-testid]';
const BEGINS = 80; // characters by which a text is found again
let kept = null;

const closest = (node) => (node.nodeType === 1 ? node : node.parentElement)?.closest(MESSAGE) ?? null;

function position(node, offset) {
  const box = closest(node);
  if (!box) return null;
  const before = document.createRange();
  before.selectNodeContents(box);
  before.setEnd(node, offset);
  const live = Boolean(box.closest('#live-reply')), begins = live ? box.textContent.slice(0, BEGINS) : '';
  return { box, live, begins, index: [...document.querySelectorAll(MESSAGE)].indexOf(box), at: before.toString().length };
}

function read() {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed) return null;
  const anchor = position(selection.anchorNode, selection.anchorOffset), focus = position(selection.focusNode, selection.focusOffset);
  return anchor && focus ? { anchor, focus, text: selection.getRangeAt(0).toString() } : null;
}

// The current message of a position. A text of the live reply becomes the last one of the conversation that begins alike.
function messageOf(one, length) {
  if (one.box.isConnected) return one.box;
  const all = [...document.querySelectorAll(MESSAGE)];
  if (!one.live) return all[one.index] ?? null;
  const long = all.reverse().filter((box) => box.dataset.testid === 'bot' && box.textContent.length >= length);
  return long.find((box) => box.textContent.startsWith(one.begins)) ?? long.find((box) => !box.querySelector('.parts, .note, .failure')) ?? null;
}

function point(box, at) {
  const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(), left = at; node; node = walker.nextNode()) {
    if (left <= node.data.length) return [node, left];
    left -= node.data.length;
  }
  return null;
}

// If the text before a position has changed, as when a word becomes bold, the selected text is searched nearby.
function shift(box, { anchor, focus, text }) {
  const start = Math.min(anchor.at, focus.at), content = box.textContent;
  if (content.startsWith(text, start)) return 0;
  const found = content.indexOf(text, Math.max(0, start - 100));
  return found < 0 ? null : found - start;
}

function restore() {
  const now = read();
  if (now && now.anchor.box === kept.anchor.box && now.text === kept.text) return;
  const length = Math.max(kept.anchor.at, kept.focus.at);
  const [from, to] = [kept.anchor, kept.focus].map((one) => messageOf(one, length));
  if (!from || !to) return;
  const moved = from === to ? shift(from, kept) : 0;
  if (moved === null) return;
  const start = point(from, kept.anchor.at + moved), end = point(to, kept.focus.at + moved);
  if (start && end) getSelection().setBaseAndExtent(...start, ...end);
}

document.addEventListener('selectionchange', () => {
  const now = read();
  if (now) kept = now;
  else if (kept && kept.anchor.box.isConnected && kept.focus.box.isConnected) kept = null; // the reader removed it
});
document.addEventListener('pointerdown', () => { kept = null; }, true);

new MutationObserver((changes) => {
  if (kept && changes.some(({ target }) => target.nodeType === 1 && target.closest('#chat, #live-reply'))) restore();
}).observe(document.documentElement, { childList: true, subtree: true, characterData: true });
