// Behaviour of the page that no component has: following the reply, saying why nothing is sent, the address.
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
  document.addEventListener('click', (e) => { if (e.target.closest('#send, [data-prompt], #drawer a, #drawer .new')) following = true; }, true);
  document.addEventListener('keydown', (e) => { if (e.key === 'Enter' && e.target.closest?.('#prompt')) following = true; }, true);
}

// Says on the button why a message is not sent, before any work is done.
function whyNot() {
  const text = $('#prompt textarea')?.value ?? '', most = Number($('[data-most]')?.dataset.most ?? 0);
  if ($('#stop')?.offsetParent) return 'Stop first';
  if (!text.trim()) return 'Write first';
  if (most && text.length > most) return `Too long: ${text.length.toLocaleString('en')} of at most ${most.toLocaleString('en')} characters`;
  return null;
}

function guard(event) {
  const why = whyNot();
  if (!why) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  say((why.length > 12 ? null : $('#send')) ?? $('#hint span'), why); // during a run there is no Send
}

// Puts a short notice in the place of a text, for a moment.
function say(place, notice) {
  const plain = place.dataset.plain ??= place.textContent;
  place.textContent = notice;
  place.classList.add('why');
  clearTimeout(place.timer);
  place.timer = setTimeout(() => { place.textContent = plain; place.classList.remove('why'); }, 2200);
}
document.addEventListener('keydown', (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && e.target.closest?.('#prompt')) guard(e);
}, true);
document.addEventListener('click', (e) => { if (e.target.closest('#send')) guard(e); }, true);

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

// An example prompt is typed and sent as a person would.
document.addEventListener('click', (e) => {
  const text = e.target.closest('[data-prompt]')?.dataset.prompt, box = $('#prompt textarea');
  if (!text || !box) return;
  type(text);
  setTimeout(() => $('#send')?.click(), 60);
});

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
  address.searchParams.delete('run');
  if (id) address.searchParams.set('conversation', id); else address.searchParams.delete('conversation');
  history.replaceState(history.state, '', address);
  window.glassboxConversations?.();
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

// The server forgets a page that it has not heard of for two minutes. Gradio's own line is not mended once it broke: so
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

// What was typed and not sent is there again after a reload, whoever has asked for it.
const DRAFT = 'glassbox draft';
function type(text) {
  const box = $('#prompt textarea');
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(box, text);
  box.dispatchEvent(new Event('input', { bubbles: true }));
}
addEventListener('pagehide', () => {
  const text = $('#prompt textarea')?.value;
  if (text) sessionStorage.setItem(DRAFT, text); else sessionStorage.removeItem(DRAFT);
});

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
  if (!column || !chat || !$('#prompt textarea')) return;
  begin.disconnect();
  follow(column);
  name(column);
  const draft = sessionStorage.getItem(DRAFT);
  sessionStorage.removeItem(DRAFT);
  if (draft) type(draft);
});
begin.observe(document.documentElement, { childList: true, subtree: true });

// The live reply's element holds its text and nothing else: not the style sheet inside a hidden icon of the Chatbot.
new MutationObserver(() => {
  for (const style of document.querySelectorAll('#live-reply .top-panel svg style')) style.remove();
}).observe(document.documentElement, { childList: true, subtree: true });
