// Behaviour of the page that no component has: following the reply, the address, the clipboard, a lost connection.
const $ = (selector) => document.querySelector(selector);
const NEAR = 24; // pixels from the end that still count as being there

// Follows the end only while the reader is there; an upward wheel or scroll lets go. Text may grow while a scroll is on
// its way: the end that counts is the one that the reader could see, or aimed at with the wheel.
function follow(column) {
  let following = true, last = column.scrollTop, known = column.scrollHeight, aim = Infinity;
  const toEnd = () => { column.scrollTop = column.scrollHeight; last = column.scrollTop; };
  const atEnd = () => Math.min(known, aim) - column.scrollTop - column.clientHeight <= NEAR;
  column.addEventListener('wheel', (e) => {
    aim = e.deltaY > 0 ? column.scrollHeight : Infinity;
    if (e.deltaY < 0) following = false;
  }, { passive: true });
  column.addEventListener('scroll', () => {
    if (column.scrollTop < last - 1 && !atEnd()) following = false;
    else if (column.scrollTop >= last && atEnd()) { following = true; aim = Infinity; }
    last = column.scrollTop;
  }, { passive: true });
  const grown = new ResizeObserver(() => {
    if (following && !$('#intro')?.offsetParent) toEnd();
    known = column.scrollHeight;
  });
  const watchChildren = () => { for (const child of column.children) grown.observe(child); };
  new MutationObserver(watchChildren).observe(column, { childList: true });
  watchChildren();
  grown.observe(column);
  document.addEventListener('click', (e) => { if (e.target.closest('#send, [data-prompt], #sidebar a, #sidebar .new')) following = true; }, true);
  document.addEventListener('keydown', (e) => { if (e.key === 'Enter' && e.target.closest?.('#prompt')) following = true; }, true);
}

// The options are a row below the header, shown when asked for.
document.addEventListener('click', (e) => {
  const button = e.target.closest('#show-options');
  if (button) button.setAttribute('aria-expanded', document.body.classList.toggle('options'));
});

// Files that are dropped or pasted become documents to search; images and the like are refused by their names there.
for (const kind of ['paste', 'drop']) document.addEventListener(kind, (e) => {
  const files = [...(e.clipboardData ?? e.dataTransfer)?.files ?? []];
  if (!files.length || !e.target.closest?.('#main')) return;
  if (e.clipboardData?.types.includes('text/plain')) return; // text with a picture of it, as from a spreadsheet
  e.preventDefault();
  e.stopImmediatePropagation();
  document.body.classList.add('options');
  window.glassboxDocuments?.(files);
}, true);
document.addEventListener('dragover', (e) => { if (e.target.closest?.('#main')) e.preventDefault(); });

// What the model was given for a reply, and what other memory modes would give it: components/viewer.py shows both.
document.addEventListener('click', (e) => {
  const button = e.target.closest('[data-context], [data-compare]'), { context: run, message } = button?.dataset ?? {};
  if (button?.hasAttribute('data-compare')) window.glassboxCompare?.();
  else if (run) window.glassboxContext?.(run, message);
});

// With the first message the address becomes the conversation's, so that a reload finds it.
window.glassboxAddress = (id) => {
  const address = new URL(location.href), now = address.searchParams.get('conversation');
  if ((id || null) === now && !address.searchParams.has('run')) return;
  window.glassboxKeep?.();
  address.searchParams.delete('run');
  if (id) address.searchParams.set('conversation', id); else address.searchParams.delete('conversation');
  history.replaceState(history.state, '', address);
  window.glassboxConversations?.();
};

// Copies a text, also where a page has no clipboard of its own: over plain HTTP. Throws where the browser refuses.
window.glassboxCopy = async (text) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const focused = document.activeElement, box = Object.assign(document.createElement('textarea'), { value: text });
  (document.querySelector('dialog[open]') ?? document.body).append(box);
  box.select();
  const done = document.execCommand('copy');
  box.remove();
  focused?.focus();
  if (!done) throw new Error('The browser refused to copy.');
};

// Asks before a conversation is deleted: everywhere in these words, with the question, `Delete` and `Keep` as elements.
window.glassboxSure = (remove, keep) => {
  const make = (tag, text, more) => Object.assign(document.createElement(tag), { textContent: text, ...more });
  const yes = make('button', 'Delete', { type: 'button', className: 'bad' }), no = make('button', 'Keep', { type: 'button' });
  yes.addEventListener('click', remove);
  no.addEventListener('click', keep);
  return [make('span', 'Delete it for good?'), yes, no];
};

// A line that is dead without having been closed, as after a sleep, says nothing for ever: if the server answers another
// one and this one stays silent, the page is opened anew, and finds its run. A closed one Gradio notices by itself.
const AGAIN_MS = 1000, ALIVE_MS = 2000;
let asked = 0, answered = 0;
window.glassboxLost = async () => {
  const now = Date.now();
  if (now - asked < AGAIN_MS) return;
  const silent = now - asked < 2 * AGAIN_MS; // since it was asked before, too
  asked = now;
  if (silent && answered && now - answered >= ALIVE_MS) location.reload();
  if (!silent) answered = 0;
  const answer = await fetch('healthz', { cache: 'no-store', signal: AbortSignal.timeout(AGAIN_MS) }).catch(() => null);
  answered = !answer?.ok ? 0 : answered || Date.now();
};

// The server forgets a page that was silent for two minutes. Gradio never reopens its own stream after an error: so
// the page says itself that it is there, and opens itself anew where that comes too late, as after a sleep.
const ask = window.fetch;
let here;
window.fetch = (what, ...more) => {
  const [, api, session] = String(what?.url ?? what).match(/(.*)queue\/data\?session_hash=(\w+)/) ?? [];
  if (session) here = `${api}app_id?session_hash=${session}`;
  return ask(what, ...more);
};
async function sayHere() {
  const answer = here && await ask(here, { cache: 'no-store' }).catch(() => null);
  if (answer?.status === 404) location.reload();
}
setInterval(sayHere, 30_000);
addEventListener('online', sayHere);
document.addEventListener('visibilitychange', sayHere);
addEventListener('pageshow', sayHere); // it may have been kept while another page was shown

// The Chatbot would have the HTML of its messages read aloud instead of their texts.
function name(chat) {
  const look = () => {
    for (const node of chat.querySelectorAll("[data-testid][aria-label*='<']")) {
      if (node.ariaLabel.includes('<details')) node.ariaLabel = 'Thinking and tool calls'; else node.removeAttribute('aria-label');
    }
  };
  new MutationObserver(look).observe(chat, { childList: true, subtree: true, attributes: true, attributeFilter: ['aria-label'] });
}

const begin = new MutationObserver(() => {
  const column = $('#scroll'), chat = $('#chat');
  if (!column || !chat) return;
  begin.disconnect();
  follow(column);
  name(column);
});
begin.observe(document.documentElement, { childList: true, subtree: true });

// The live reply's element holds its text and nothing else: not the style sheet inside a hidden icon of the Chatbot.
new MutationObserver(() => {
  for (const style of document.querySelectorAll('#live-reply .top-panel svg style')) style.remove();
}).observe(document.documentElement, { childList: true, subtree: true });
