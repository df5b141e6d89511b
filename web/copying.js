// Copying gives what was written: a code block's button the code, and a selection the source of each formula and diagram
// in it. The button of a message is in turns.js.
const scope = (node) => (node?.nodeType === 1 ? node : node?.parentElement);

document.addEventListener('click', async (event) => {
  const button = event.target.closest?.('.copy-code');
  if (!button) return;
  const copied = await window.glassboxCopy(button.parentElement.querySelector('pre').textContent).then(() => true, () => false);
  button.classList.toggle('done', copied);
  setTimeout(() => button.classList.remove('done'), 1600);
});

// The selection, with formulas and diagrams taken whole.
function whole(range) {
  const [start, end] = [range.startContainer, range.endContainer].map((node) => scope(node)?.closest('[data-source]'));
  if (start) range.setStartBefore(start);
  if (end) range.setEndAfter(end);
  return range;
}

document.addEventListener('copy', (event) => {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed || !scope(selection.anchorNode)?.closest('#scroll')) return;
  const range = whole(selection.getRangeAt(0).cloneRange()), box = document.createElement('div');
  box.append(range.cloneContents());
  const parts = box.querySelectorAll('[data-source]');
  if (!parts.length) return;
  for (const part of parts) {
    const source = document.createElement(part.matches('figure') ? 'pre' : 'span');
    source.textContent = part.dataset.source;
    source.style.whiteSpace = 'pre-wrap';
    part.replaceWith(source);
  }
  box.className = 'prose copied';
  scope(range.commonAncestorContainer).append(box); // its text depends on how it is laid out
  event.clipboardData.setData('text/plain', box.innerText);
  event.clipboardData.setData('text/html', box.innerHTML);
  box.remove();
  event.preventDefault();
});
