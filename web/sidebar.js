// Shows the sidebar: beside the page, above it where there is less room, or above all of it on a phone.
const { emit, on } = window.glassbox;
const KEY = 'glassbox conversations', WIDE = 1200;
const BEHIND = '#header, #about, #options, #conversation, #agent-state';
const narrow = matchMedia('(max-width: 1099.98px)'), button = () => document.querySelector('#show-conversations');
const close = element.querySelector('.close'), isOpen = () => document.body.classList.contains('conversations');

// Reads or sets the remembered state. A browser may refuse storage, as in a frame of another site.
function remembered(value) {
  try {
    if (value) localStorage.setItem(KEY, value);
    return localStorage.getItem(KEY);
  } catch { return null; }
}

function show(open) {
  document.body.classList.toggle('conversations', open);
  for (const node of document.querySelectorAll(BEHIND)) node.inert = open && narrow.matches;
  button()?.setAttribute('aria-expanded', String(open));
  if (open) emit('conversations');
}

// Moves the focus too, because its element is now behind the sidebar, or gone with it.
function showAbove(open) {
  show(open);
  (open ? close : button())?.focus();
}

// A page that becomes narrow closes the sidebar.
function settle() {
  const state = remembered() ?? (innerWidth >= WIDE ? 'open' : 'closed');
  show(!narrow.matches && state === 'open');
}

document.addEventListener('click', (e) => {
  if (narrow.matches && isOpen() && !e.target.closest('#sidebar')) return showAbove(false); // a click beside the sidebar
  if (!e.target.closest('#show-conversations')) return;
  if (narrow.matches) return showAbove(true);
  remembered(isOpen() ? 'closed' : 'open');
  show(!isOpen());
});
close.addEventListener('click', () => showAbove(false));
document.addEventListener('keydown', (e) => {
  if (e.key !== 'Escape' || e.defaultPrevented || !narrow.matches || !isOpen()) return;
  e.preventDefault();
  showAbove(false);
});
narrow.addEventListener('change', settle);
on('chosen', () => { if (narrow.matches) showAbove(false); }, element);
settle();
