// Copying gives what was written: a message's button its source, a code block's button the code, and a selection the
// source of each formula and diagram in it.
let wanted = null; // the text that the Chatbot's own button is to copy instead of its HTML

const scope = (node) => (node?.nodeType === 1 ? node : node?.parentElement);

function sourceOf(row) {
  const said = row.previousElementSibling?.querySelector('.said');
  return said ? said.textContent : window.glassboxSource?.(row) ?? null;
}

document.addEventListener('click', (event) => {
  const row = event.target.closest?.('#chat .message-buttons'), button = event.target.closest?.('button');
  const first = row?.querySelector('.icon-button-wrapper button');
  if (!first || button !== first || row.previousElementSibling?.querySelector('textarea')) return;
  wanted = sourceOf(row);
  setTimeout(() => { wanted = null; }, 0);
}, true);

if (navigator.clipboard) {
  const write = navigator.clipboard.writeText.bind(navigator.clipboard);
  navigator.clipboard.writeText = (text) => write(wanted ?? text);
}

async function writeText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  wanted = text;
  document.execCommand('copy');
  wanted = null;
}

document.addEventListener('click', async (event) => {
  const button = event.target.closest?.('.copy-code');
  if (!button) return;
  await writeText(button.parentElement.querySelector('pre').textContent).catch(() => {});
  button.classList.add('done');
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
  if (wanted !== null) {
    event.clipboardData.setData('text/plain', wanted);
    event.preventDefault();
    return;
  }
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
