// Behaviour of the page that belongs to no component: scrolling, the URL, dropped files, a lost connection.
const { conversationId, emit, on } = window.glassbox;
const $ = (selector) => document.querySelector(selector);
const NEAR = 24; // pixels from the end that still count as the end
const AWAY = 120; // and from where the page offers to jump there

// Follows the end while the reader is there; scrolling up stops that. Text may grow during a scroll, so the end that
// counts is the one that the reader saw, or aimed at with the wheel. A column that becomes shorter, as after an approval,
// also moves its text, but that is no scroll to the end.
function follow(column) {
  let following = true, last = column.scrollTop, known = column.scrollHeight, aim = Infinity;
  const button = $('#latest button');
  const toEnd = () => { column.scrollTop = column.scrollHeight; last = column.scrollTop; };
  const left = () => column.scrollHeight - column.scrollTop - column.clientHeight;
  const atEnd = () => Math.min(known, aim) - column.scrollTop - column.clientHeight <= NEAR;
  const offer = () => { if (button) button.hidden = following || left() < AWAY || Boolean($('#intro')?.offsetParent); };
  column.addEventListener('wheel', (e) => {
    aim = e.deltaY > 0 ? column.scrollHeight : Infinity;
    if (e.deltaY < 0) following = false;
    else if (left() <= NEAR) following = true;
  }, { passive: true });
  column.addEventListener('scroll', () => {
    if (column.scrollTop < last - 1 && !atEnd()) following = false;
    else if (column.scrollTop > last && atEnd()) { following = true; aim = Infinity; }
    last = column.scrollTop;
    offer();
  }, { passive: true });
  const grown = new ResizeObserver(() => {
    if (following && !$('#intro')?.offsetParent) toEnd();
    known = column.scrollHeight;
    last = column.scrollTop;
    offer();
  });
  button?.addEventListener('click', () => {
    following = true;
    toEnd();
    offer();
    emit('focus');
  });
  const watchChildren = () => { for (const child of column.children) grown.observe(child); };
  new MutationObserver(watchChildren).observe(column, { childList: true });
  watchChildren();
  grown.observe(column);
  document.addEventListener('click', (e) => { if (e.target.closest('#send, [data-prompt], #sidebar a, #sidebar .new')) following = true; }, true);
  document.addEventListener('keydown', (e) => { if (e.key === 'Enter' && e.target.closest?.('#prompt')) following = true; }, true);
}

// Dropped and pasted images belong to the message; other files become documents to search.
for (const kind of ['paste', 'drop']) document.addEventListener(kind, (e) => {
  const files = [...(e.clipboardData ?? e.dataTransfer)?.files ?? []];
  if (!files.length || !e.target.closest?.('#main')) return;
  if (e.clipboardData?.types.includes('text/plain')) return; // text with a picture of it, as from a spreadsheet
  e.preventDefault();
  e.stopImmediatePropagation();
  const images = files.filter((file) => file.type.startsWith('image/')), others = files.filter((file) => !images.includes(file));
  if (images.length) emit('images', images);
  if (others.length) emit('documents', others);
}, true);
document.addEventListener('dragover', (e) => { if (e.target.closest?.('#main')) e.preventDefault(); });

// Buttons that open the context viewer, or the comparison of memory modes.
document.addEventListener('click', (e) => {
  const button = e.target.closest('[data-context], [data-compare]'), { context: run, message } = button?.dataset ?? {};
  if (button?.hasAttribute('data-compare')) emit('compare', {});
  else if (run) emit('context', { run, message });
});

// With the first message, the URL becomes the conversation's, so that a reload finds it.
function setAddress(id) {
  const address = new URL(location.href);
  if ((id || null) === conversationId() && !address.searchParams.has('run')) return;
  emit('address');
  address.searchParams.delete('run');
  if (id) address.searchParams.set('conversation', id); else address.searchParams.delete('conversation');
  history.replaceState(history.state, '', address);
  emit('conversations');
}
on('panel', (value) => {
  if (value?.cleared) setAddress(null);
  if (value?.run && !value.replay) setAddress(value.conversation);
});

// A connection that died without being closed, as during sleep, stays silent. If the server answers a request and the
// connection does not, the page reloads and finds its run. Gradio notices a closed connection by itself.
const AGAIN_MS = 1000, ALIVE_MS = 2000;
let asked = 0, answered = 0;
on('lost', async () => {
  const now = Date.now();
  if (now - asked < AGAIN_MS) return;
  const silent = now - asked < 2 * AGAIN_MS; // it was silent at the previous check, too
  asked = now;
  if (silent && answered && now - answered >= ALIVE_MS) location.reload();
  if (!silent) answered = 0;
  const response = await fetch('healthz', { cache: 'no-store', signal: AbortSignal.timeout(AGAIN_MS) }).catch(() => null);
  answered = !response?.ok ? 0 : answered || Date.now();
});

// The server forgets a page two minutes after its last request, and Gradio does not restore a broken connection. So the
// page reports itself, and reloads if that comes too late, as after sleep.
const request = window.fetch;
let here;
window.fetch = (what, ...more) => {
  const [, api, session] = String(what?.url ?? what).match(/(.*)queue\/data\?session_hash=(\w+)/) ?? [];
  if (session) here = `${api}app_id?session_hash=${session}`;
  return request(what, ...more);
};
async function reportPresence() {
  const response = here && await request(here, { cache: 'no-store' }).catch(() => null);
  if (response?.status === 404) location.reload();
}
setInterval(reportPresence, 30_000);
addEventListener('online', reportPresence);
document.addEventListener('visibilitychange', reportPresence);
addEventListener('pageshow', reportPresence); // the browser may have kept the page while another one was shown

// The Chatbot labels a message with its HTML, which screen readers would read instead of the text.
function removeLabels(place) {
  const remove = () => { for (const node of place.querySelectorAll('[data-testid][aria-label]')) node.removeAttribute('aria-label'); };
  new MutationObserver(remove).observe(place, { childList: true, subtree: true, attributes: true, attributeFilter: ['aria-label'] });
}

// Notices stand at the top of the conversation, where they cover no control.
function placeNotices(column) {
  const place = () => {
    const { left, top, width, height } = column.getBoundingClientRect();
    for (const [name, pixels] of Object.entries({ left, top, width, height })) document.documentElement.style.setProperty(`--gb-notice-${name}`, `${pixels}px`);
  };
  new ResizeObserver(place).observe(column);
}

const begin = new MutationObserver(() => {
  const column = $('#scroll'), live = $('#live-reply');
  if (!column || !live || !$('#chat') || !$('#latest button')) return;
  begin.disconnect();
  follow(column);
  placeNotices(column);
  removeLabels($('#chat'));
  removeLabels(live);
});
begin.observe(document.documentElement, { childList: true, subtree: true });

// The live reply's element holds only its text: the style sheet in a hidden icon of the Chatbot would be text, too.
new MutationObserver(() => {
  for (const style of document.querySelectorAll('#live-reply .top-panel svg style')) style.remove();
}).observe(document.documentElement, { childList: true, subtree: true });
