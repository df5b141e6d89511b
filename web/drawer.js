// Whether the list of conversations is shown: beside the page, or above all of it where that is narrow.
const KEY = 'glassbox conversations', WIDE = 1200;
const BEHIND = '#header, #about, #options, #key-row, #tool-row, #conversation, #agent-state';
const narrow = matchMedia('(max-width: 860px)'), button = () => document.querySelector('#show-conversations');
const isOpen = () => document.body.classList.contains('conversations');

// A browser may refuse to keep anything, as in a frame of another site.
function kept(value) {
  try {
    if (value) localStorage.setItem(KEY, value);
    return localStorage.getItem(KEY);
  } catch { return null; }
}

function show(wanted) {
  document.body.classList.toggle('conversations', wanted);
  for (const node of document.querySelectorAll(BEHIND)) node.inert = wanted && narrow.matches;
  button()?.setAttribute('aria-expanded', String(wanted));
  if (wanted) window.glassboxConversations?.();
}

// What had the focus is now behind the list, or gone with it.
function showAbove(wanted) {
  show(wanted);
  (wanted ? $('.close') : button())?.focus();
}

// A page that becomes narrow is not covered by a list that nobody asked for.
function settle() {
  const asBefore = kept() ?? (innerWidth >= WIDE ? 'open' : 'closed');
  show(!narrow.matches && asBefore === 'open');
}

document.addEventListener('click', (e) => {
  if (!e.target.closest('#show-conversations')) return;
  if (narrow.matches) return showAbove(!isOpen());
  kept(isOpen() ? 'closed' : 'open');
  show(!isOpen());
});
$('.close').addEventListener('click', () => showAbove(false));
document.addEventListener('keydown', (e) => {
  if (e.key === 'Escape' && !e.defaultPrevented && narrow.matches && isOpen()) showAbove(false);
});
narrow.addEventListener('change', settle);

// Called when something was chosen: what is above the page makes room for it.
window.glassboxChosen = () => { if (narrow.matches) showAbove(false); };
settle();
