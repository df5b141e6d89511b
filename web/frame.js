// The first frame: a box to type into before Gradio has drawn the page. What is typed moves into the page's own box, and
// is sent then if the visitor has sent it. Runs after web/early.js, in a function of its own.
const frame = document.querySelector('#first-frame'), box = frame.querySelector('textarea');
const button = frame.querySelector('button'), note = frame.querySelector('#first-note');
const KEPT = ['glassbox draft', 'glassbox first draft']; // the first is that of web/prompt.js
const SLOW_MS = 20_000, ANSWER_MS = 10_000;
let composing = false, waits = false, loaded = false, giveUp; // `waits`: the visitor has sent the message

const query = new URLSearchParams(location.search);
if (frame.querySelector('.side').dataset.panel === 'closed') document.body.classList.add('folds');
frame.classList.toggle('opens', query.has('conversation') || query.has('run'));
frame.classList.toggle('replays', query.has('run'));
if (query.has('__theme')) frame.classList.add(query.get('__theme')); // as Gradio does

// The list of conversations has its place where web/sidebar.js will show it.
let list = null;
try { list = localStorage.getItem('glassbox conversations'); } catch { /* a browser may refuse storage */ }
frame.classList.toggle('drawer', innerWidth >= 1100 && (list ?? (innerWidth >= 1200 ? 'open' : '')) === 'open');

// A draft survives a reload.
try {
  box.value = KEPT.map((key) => sessionStorage.getItem(key)).filter(Boolean).join('\n');
  for (const key of KEPT) sessionStorage.removeItem(key);
} catch { /* as above */ }
addEventListener('pagehide', () => { if (frame.isConnected && box.value) sessionStorage.setItem(KEPT[1], box.value); });

// A link may bring a message and choices: `?q=…&backend=…&memory=…`. The message is never sent by itself, and a reload does
// not bring it again.
const LINKED = ['q', 'backend', 'memory'], link = Object.fromEntries(LINKED.map((name) => [name, query.get(name)]));
if (LINKED.some((name) => query.has(name))) {
  for (const name of LINKED) query.delete(name);
  history.replaceState(history.state, '', `${location.pathname}${String(query) && `?${query}`}${location.hash}`);
  if (link.q && !box.value.includes(link.q)) box.value = [box.value, link.q].filter(Boolean).join('\n');
  document.addEventListener('glassbox:loaded', () => window.glassbox.emit('choose', link), { once: true });
}

// As tall as its text, as the page's own box is.
function fit() {
  box.style.height = 'auto';
  box.style.height = `${box.scrollHeight + 2}px`;
}

function setWaits(yes) {
  waits = yes;
  box.readOnly = yes;
  button.textContent = yes ? 'Edit' : 'Send';
  note.textContent = yes ? 'Will be sent when the page is ready.' : '';
  box.focus();
}
frame.querySelector('form').addEventListener('submit', (event) => {
  event.preventDefault();
  if (waits || box.value.trim()) setWaits(!waits);
});
box.addEventListener('input', fit);
box.addEventListener('keydown', (event) => {
  if (event.isComposing || event.keyCode === 229) return; // the keys of an input method
  if (event.key === 'Escape' && waits) setWaits(false);
  else if (event.key === 'Escape') document.dispatchEvent(new CustomEvent('glassbox:escape'));
  const adds = event.shiftKey || matchMedia('(pointer: coarse)').matches && !matchMedia('(any-pointer: fine)').matches;
  if (event.key !== 'Enter' || adds && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  if (!waits && box.value.trim()) setWaits(true);
});
box.addEventListener('compositionstart', () => { composing = true; });
box.addEventListener('compositionend', () => { composing = false; setTimeout(replace); }); // after the text has arrived

// A message is sent when the server has answered the page's load: before that, the page does not know its conversation.
document.addEventListener('glassbox:loaded', () => { loaded = true; replace(); }, { once: true });

// Gradio draws the prompt before its HTML components, and shows a sign of loading until it has drawn all.
const isDrawn = () => document.querySelector('#agent-state [data-phase]') && !document.querySelector('gradio-app .main > [data-testid=status-tracker]:not(.hide)');

function replace() {
  const prompt = window.glassbox?.promptBox();
  if (!prompt || !isDrawn() || composing || !frame.isConnected) return;
  if (waits && !loaded) {
    giveUp ??= setTimeout(() => { waits = false; replace(); }, ANSWER_MS); // then the text is not sent, and stays
    return;
  }
  drawn.disconnect();
  clearInterval(watch);
  const { value, selectionStart, selectionEnd, selectionDirection } = box, typing = document.activeElement === box;
  document.querySelector('gradio-app').inert = false;
  frame.remove();
  if (value) window.glassbox.type(prompt, value);
  if (typing) {
    prompt.focus();
    prompt.setSelectionRange(selectionStart, selectionEnd, selectionDirection);
  }
  if (waits) setTimeout(() => document.querySelector('#send')?.click(), 60); // Gradio takes the text over first
}
const drawn = new MutationObserver(replace);
drawn.observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ['class'] });

// Says what to do if nothing more arrives.
let arrived = 0, since = performance.now();
const watch = setInterval(() => {
  const now = performance.now(), count = performance.getEntriesByType('resource').length;
  if (count !== arrived) [arrived, since] = [count, now];
  if (now - since < SLOW_MS || note.querySelector('a')) return;
  const reload = Object.assign(document.createElement('a'), { href: '', textContent: 'Reload.' });
  note.replaceChildren('The page could not be loaded completely. ', reload);
}, 1000);
fit();
// `autofocus` waits until the page is drawn. A frame takes no focus from the page around it.
if (!document.body.classList.contains('embed') || document.hasFocus()) box.focus();
