// A message is edited as plain text: the Chatbot's field begins with the HTML of the message. Enter submits the new text,
// Shift+Enter adds a line, and Escape cancels.
const { emit, type } = window.glassbox;

new MutationObserver((changes) => {
  for (const { addedNodes } of changes) for (const node of addedNodes) {
    const field = node.nodeType === 1 && (node.matches('#chat textarea') ? node : node.querySelector('#chat textarea'));
    if (!field || field.dataset.typed !== undefined) continue;
    field.dataset.typed = '';
    field.ariaLabel = 'Edit your message';
    const message = new DOMParser().parseFromString(field.value, 'text/html').querySelector('.said');
    if (message) type(field, message.textContent);
  }
}).observe(document.documentElement, { childList: true, subtree: true });

document.addEventListener('keydown', (event) => {
  if (!event.target.matches?.('#chat textarea')) return;
  const act = event.key === 'Escape' ? 1 : event.key === 'Enter' && !event.shiftKey ? 0 : null;
  if (act === null) return;
  event.preventDefault();
  event.target.closest('.message-row').nextElementSibling?.querySelectorAll('button')[act]?.click(); // Submit and Cancel
  emit('focus');
});
