// The prompt: its keys, when its text is sent, and what answers of the server change in it.
const { emit, on, promptBox, type } = window.glassbox;
const $ = (selector) => document.querySelector(selector);

// `sent`: the message that the server was asked to accept, and whether it was edited since. `aside`: a text that is put
// back after that. Every text is in the prompt or in here, so that none is lost.
let sent = null, aside = '';

// The page ignores the keys of an input method: the Enter that ends a composition sends no message. Safari ends the
// composition before that key, which then has the code 229. On a touch keyboard, Return adds a line.
const coarse = matchMedia('(pointer: coarse)'), fine = matchMedia('(any-pointer: fine)'), KEYBOARD_PX = 120;
const isKeyboardShown = () => document.documentElement.clientHeight - visualViewport.height * visualViewport.scale > KEYBOARD_PX;
// A touch screen with a mouse or a pen also has a keyboard, unless the on-screen one is shown.
const isTouch = () => coarse.matches && (!fine.matches || isKeyboardShown());
let composing = false;

function filterKeys(event) {
  if (event.type === 'keydown') composing = event.isComposing || event.keyCode === 229;
  const addsLine = event.key === 'Enter' && event.target.matches?.('textarea') && isTouch() && !event.ctrlKey && !event.metaKey;
  if (composing || event.isComposing || addsLine) event.stopImmediatePropagation();
  if (composing && event.type === 'keypress' && event.key === 'Enter' && !addsLine) event.preventDefault();
}
for (const kind of ['keydown', 'keypress']) addEventListener(kind, filterKeys, true);

function showKeys() {
  const touch = isTouch();
  promptBox().enterKeyHint = touch ? 'enter' : 'send';
  $('#hint span').textContent = touch ? 'Return adds a new line' : 'Enter sends, Shift+Enter adds a new line';
}

function setText(text) {
  if (sent && !text.startsWith(sent.text)) sent.edited = true;
  type(promptBox(), text);
}
on('type', setText);

// Puts a text back, before what was typed since.
const putBack = (text) => setText([text, promptBox().value].filter(Boolean).join('\n'));

// The reason why the message cannot be sent, which the button shows.
function problem() {
  const text = promptBox()?.value ?? '', most = Number($('[data-most]')?.dataset.most ?? 0);
  if ($('#stop')?.offsetParent) return 'Stop first';
  if (!text.trim()) return 'Write first';
  if (most && text.length > most) return `Too long: ${text.length.toLocaleString('en')} of at most ${most.toLocaleString('en')} characters`;
  return window.glassbox.imageProblem?.() ?? null;
}

function guard(event) {
  const reason = problem();
  if (!reason) return remember(promptBox().value);
  event.preventDefault();
  event.stopImmediatePropagation();
  notify((reason.length > 12 ? null : $('#send')) ?? $('#hint span'), reason); // there is no Send during a run
}

// Shows a short notice in place of a text for a moment.
function notify(place, notice) {
  const plain = place.dataset.plain ??= place.textContent;
  place.textContent = notice;
  place.classList.add('why');
  clearTimeout(place.timer);
  place.timer = setTimeout(() => { place.textContent = plain; place.classList.remove('why'); delete place.dataset.plain; }, 2200);
}
document.addEventListener('keydown', (e) => {
  if (e.key === 'Enter' && !e.shiftKey && e.target.closest?.('#prompt')) guard(e);
}, true);
document.addEventListener('click', (e) => { if (e.target.closest('#send')) guard(e); }, true);

// A message stays in the prompt until the server has accepted it. Then it is removed from the beginning, unless it was
// edited: in that case all of the text stays.
function remember(text) {
  if (!sent || sent.edited || !text.startsWith(sent.text)) sent = { text, edited: false };
}
document.addEventListener('beforeinput', (e) => {
  if (!sent || e.target !== promptBox()) return;
  const { selectionStart: start, selectionEnd: end } = promptBox(), erases = start === end && e.inputType.startsWith('delete');
  if (start < sent.text.length || erases && start === sent.text.length) sent.edited = true;
}, true);

// `accepted`: the length of the text that was sent. `back`: a text to edit again.
on('draft', ({ accepted, back }) => {
  if (back != null) return putBack(back);
  if (accepted == null) return;
  const text = promptBox().value, rest = sent?.edited ? text : text.slice(accepted).replace(/^\n+/, '');
  sent = null;
  setText([rest, aside].filter(Boolean).join('\n'));
  aside = '';
});

// The focus returns to the prompt where the button that had it disappears.
on('focus', () => { if (!isTouch()) promptBox()?.focus({ preventScroll: true }); });
document.addEventListener('click', (e) => { if (e.target.closest('#stop')) emit('focus'); });
document.addEventListener('change', (e) => { if (e.target.matches?.('#documents input[type=file]')) emit('focus'); });

// Escape stops the run, unless it closes something. The keydown's own listeners may close it first, so it is looked for
// before they run.
const CLOSED_BY_ESCAPE = 'dialog[open], [popover], [role=dialog], [role=menu], [role=listbox], ul.options, .sure, #chat textarea';
let closes = false;
addEventListener('keydown', (e) => {
  closes = e.key === 'Escape' && [...document.querySelectorAll(CLOSED_BY_ESCAPE)].some((node) => node.getClientRects().length);
}, true);
document.addEventListener('keydown', (e) => {
  if (e.key !== 'Escape' || e.defaultPrevented || closes) return;
  if (e.target.matches?.('input[type=search]') && e.target.value) return;
  if (!$('#stop')?.offsetParent || $('#conversation').inert) return emit('escape');
  e.preventDefault();
  $('#stop').click();
});

// An example prompt is typed and sent; the visitor's draft comes back afterwards.
document.addEventListener('click', (e) => {
  const { prompt: text, backend, memory } = e.target.closest('[data-prompt]')?.dataset ?? {};
  if (!text || !promptBox()) return;
  if ($('#stop')?.offsetParent) return notify($('#hint span'), 'Stop first');
  emit('choose', { backend, memory });
  aside = [promptBox().value, aside].filter(Boolean).join('\n');
  setText(text);
  setTimeout(() => $('#send')?.click(), 60);
});

// The draft survives a reload.
const DRAFT = 'glassbox draft';
addEventListener('pagehide', () => {
  const text = [promptBox()?.value, aside].filter(Boolean).join('\n');
  try {
    if (text) sessionStorage.setItem(DRAFT, text); else sessionStorage.removeItem(DRAFT);
  } catch { /* a browser may refuse storage, as in a frame of another site */ }
});

const begin = new MutationObserver(() => {
  if (!promptBox() || !$('#hint span')) return;
  begin.disconnect();
  for (const query of [coarse, fine]) query.addEventListener('change', showKeys);
  visualViewport.addEventListener('resize', showKeys);
  showKeys();
  let draft = null;
  try {
    draft = sessionStorage.getItem(DRAFT);
    sessionStorage.removeItem(DRAFT);
  } catch { /* as above */ }
  if (draft) putBack(draft);
});
begin.observe(document.documentElement, { childList: true, subtree: true });
