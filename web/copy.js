// Copying gives the source: a code block's button copies the code, and a selection includes the source of each formula and
// diagram in it. The button of a message is in turns.js.
const { copy, make } = window.glassbox;
const elementOf = (node) => (node?.nodeType === 1 ? node : node?.parentElement);

document.addEventListener('click', async (event) => {
  const button = event.target.closest?.('.copy-code');
  if (!button) return;
  const copied = await copy(button.parentElement.querySelector('pre').textContent).then(() => true, () => false);
  button.classList.toggle('done', copied);
  setTimeout(() => button.classList.remove('done'), 1600);
});

// Extends a selection to whole formulas and diagrams.
function whole(range) {
  const [start, end] = [range.startContainer, range.endContainer].map((node) => elementOf(node)?.closest('[data-source]'));
  if (start) range.setStartBefore(start);
  if (end) range.setEndAfter(end);
  return range;
}

document.addEventListener('copy', (event) => {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed || !elementOf(selection.anchorNode)?.closest('#scroll')) return;
  const range = whole(selection.getRangeAt(0).cloneRange()), box = make('div', { className: 'prose copied' }, range.cloneContents());
  const parts = box.querySelectorAll('[data-source]');
  if (!parts.length) return;
  for (const part of parts) {
    const source = make(part.matches('figure') ? 'pre' : 'span', {}, part.dataset.source);
    source.style.whiteSpace = 'pre-wrap';
    part.replaceWith(source);
  }
  elementOf(range.commonAncestorContainer).append(box); // its text depends on its layout
  event.clipboardData.setData('text/plain', box.innerText);
  event.clipboardData.setData('text/html', box.innerHTML);
  box.remove();
  event.preventDefault();
});
