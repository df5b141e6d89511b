// Opens the passage that a citation in a reply names. It stands in the nearest part above the citation.
let from = null; // the citation that was opened last

const isBefore = (node, other) => node.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;
function passage(cite) {
  const label = `Passage ${cite.value}`, all = [...cite.closest('#chat, #live-reply')?.querySelectorAll('.parts details > p') ?? []];
  return all.findLast((line) => line.textContent === label && isBefore(line, cite))?.nextElementSibling;
}

function open(cite) {
  const found = passage(cite);
  if (!found) return;
  for (const other of document.querySelectorAll('.parts pre.cited')) other.classList.remove('cited');
  found.closest('details').open = true;
  found.classList.add('cited');
  found.tabIndex = -1;
  from = cite;
  found.focus({ preventScroll: true });
  found.scrollIntoView({ block: 'center' });
}

document.addEventListener('click', (event) => {
  const cite = event.target.closest?.('#scroll .cite');
  if (cite) open(cite);
});
// Escape leads back to the citation.
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || !event.target.matches?.('.parts pre.cited') || !from?.isConnected) return;
  event.preventDefault();
  event.stopPropagation();
  from.focus();
}, true);

// Gradio removes `aria-label` from messages, so it is added here.
function name() {
  for (const cite of document.querySelectorAll('#scroll .cite:not([aria-label])')) cite.ariaLabel = cite.title;
}
const begin = new MutationObserver(() => {
  const scroll = document.querySelector('#scroll');
  if (!scroll) return;
  begin.disconnect();
  new MutationObserver(name).observe(scroll, { childList: true, subtree: true });
  name();
});
begin.observe(document.documentElement, { childList: true, subtree: true });
