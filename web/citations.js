// Opens the passage that a citation in a reply names. It stands in the nearest part above the citation.
let from = null; // the citation that was opened last

const isBefore = (node, other) => node.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;
const startOf = (pre, number) => pre.textContent.search(new RegExp(`^\\[${number}\\] `, 'm'));
function passage(cite) {
  const all = [...cite.closest('#chat, #live-reply')?.querySelectorAll('.parts details > pre') ?? []];
  return all.findLast((pre) => {
    const label = pre.previousElementSibling.textContent, part = pre.parentElement.querySelector('summary b').textContent;
    const isIts = label === `Passage ${cite.value}` || (part === 'search' && label === 'Output' && startOf(pre, cite.value) >= 0);
    return isIts && isBefore(pre, cite);
  });
}

// Selects one of several passages in the output of a search.
function select(pre, number) {
  const start = startOf(pre, number), next = pre.textContent.slice(start + 1).search(/^\[\d+\] /m), text = pre.firstChild;
  getSelection().setBaseAndExtent(text, start, text, next < 0 ? text.length : start + 1 + next);
  pre.scrollTop += getSelection().getRangeAt(0).getBoundingClientRect().top - pre.getBoundingClientRect().top - 8;
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
  if (found.previousElementSibling.textContent === 'Output') select(found, cite.value);
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
