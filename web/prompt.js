// The prompt: what is typed into it, when that is sent, and what answers of the server may do to it.
const $ = (selector) => document.querySelector(selector), box = () => $('#prompt textarea');

// `sent`: the message that the server was asked to accept, and whether it was edited since; `aside`: a text that is put
// back when it has. All of it is in the prompt or here, so that nothing is lost.
let sent = null, aside = '';

// Keys of an input method are not the page's: the Enter that ends a composition sends nothing, takes no command, ends no
// title. Safari ends the composition before that key, whose code is 229 then. On a touch keyboard Return breaks the line.
const coarse = matchMedia('(pointer: coarse)'), fine = matchMedia('(any-pointer: fine)'), KEYBOARD_PX = 120;
const isKeyboardShown = () => document.documentElement.clientHeight - visualViewport.height * visualViewport.scale > KEYBOARD_PX;
// With a mouse or a pen beside the touch screen there is a keyboard, unless the one on the screen is shown.
const isTouch = () => coarse.matches && (!fine.matches || isKeyboardShown());
let composing = false;

function keepFromPage(event) {
  if (event.type === 'keydown') composing = event.isComposing || event.keyCode === 229;
  const breaks = event.key === 'Enter' && event.target.matches?.('textarea') && isTouch() && !event.ctrlKey && !event.metaKey;
  if (composing || event.isComposing || breaks) event.stopImmediatePropagation();
  if (composing && event.type === 'keypress' && event.key === 'Enter' && !breaks) event.preventDefault();
}
for (const kind of ['keydown', 'keypress']) addEventListener(kind, keepFromPage, true);

function showKeys() {
  const touch = isTouch();
  box().enterKeyHint = touch ? 'enter' : 'send';
  $('#hint span').textContent = touch ? 'Return breaks the line, Send sends' : 'Enter sends, Shift+Enter breaks the line';
}

// Types a text into the prompt as a person would.
function type(text) {
  if (sent && !text.startsWith(sent.text)) sent.edited = true;
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(box(), text);
  box().dispatchEvent(new Event('input', { bubbles: true }));
}
window.glassboxType = type;

// Puts a text back, before what was typed meanwhile.
const putBack = (text) => type([text, box().value].filter(Boolean).join('\n'));

// Says on the button why a message is not sent, before any work is done.
function whyNot() {
  const text = box()?.value ?? '', most = Number($('[data-most]')?.dataset.most ?? 0);
  if ($('#stop')?.offsetParent) return 'Stop first';
  if (!text.trim()) return 'Write first';
  if (most && text.length > most) return `Too long: ${text.length.toLocaleString('en')} of at most ${most.toLocaleString('en')} characters`;
  return null;
}

function guard(event) {
  const why = whyNot();
  if (!why) return remember(box().value);
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
  place.timer = setTimeout(() => { place.textContent = plain; place.classList.remove('why'); delete place.dataset.plain; }, 2200);
}
document.addEventListener('keydown', (e) => {
  if (e.key === 'Enter' && !e.shiftKey && e.target.closest?.('#prompt')) guard(e);
}, true);
document.addEventListener('click', (e) => { if (e.target.closest('#send')) guard(e); }, true);

// A message stays in the prompt until the server has accepted it, and is taken out then. It is at the beginning still,
// unless it was edited meanwhile: then all of the text is the visitor's.

function remember(text) {
  if (!sent || sent.edited || !text.startsWith(sent.text)) sent = { text, edited: false };
}
document.addEventListener('beforeinput', (e) => {
  if (!sent || e.target !== box()) return;
  const { selectionStart: start, selectionEnd: end } = box(), erases = start === end && e.inputType.startsWith('delete');
  if (start < sent.text.length || erases && start === sent.text.length) sent.edited = true;
}, true);

// `accepted`: how much of the text was sent. `back`: a text to be edited again.
window.glassboxDraft = ({ accepted, back }) => {
  if (back != null) return putBack(back);
  if (accepted == null) return;
  const text = box().value, rest = sent?.edited ? text : text.slice(accepted).replace(/^\n+/, '');
  sent = null;
  type([rest, aside].filter(Boolean).join('\n'));
  aside = '';
};

// An example prompt is typed and sent as a person would; what was being written is there again afterwards.
document.addEventListener('click', (e) => {
  const text = e.target.closest('[data-prompt]')?.dataset.prompt;
  if (!text || !box()) return;
  if ($('#stop')?.offsetParent) return say($('#hint span'), 'Stop first');
  aside = [box().value, aside].filter(Boolean).join('\n');
  type(text);
  setTimeout(() => $('#send')?.click(), 60);
});

// Text that was typed and not sent is restored after a reload.
const DRAFT = 'glassbox draft';
addEventListener('pagehide', () => {
  const text = [box()?.value, aside].filter(Boolean).join('\n');
  if (text) sessionStorage.setItem(DRAFT, text); else sessionStorage.removeItem(DRAFT);
});

const begin = new MutationObserver(() => {
  if (!box() || !$('#hint span')) return;
  begin.disconnect();
  for (const query of [coarse, fine]) query.addEventListener('change', showKeys);
  visualViewport.addEventListener('resize', showKeys);
  showKeys();
  const draft = sessionStorage.getItem(DRAFT);
  sessionStorage.removeItem(DRAFT);
  if (draft) putBack(draft);
});
begin.observe(document.documentElement, { childList: true, subtree: true });
