// A message is edited as plain text: the Chatbot's field begins with the HTML of the message.
new MutationObserver((changes) => {
  for (const { addedNodes } of changes) for (const node of addedNodes) {
    const field = node.nodeType === 1 && (node.matches('#chat textarea') ? node : node.querySelector('#chat textarea'));
    if (!field || field.dataset.typed !== undefined) continue;
    field.dataset.typed = '';
    const message = new DOMParser().parseFromString(field.value, 'text/html').querySelector('.said');
    if (message) window.glassbox.type(field, message.textContent);
  }
}).observe(document.documentElement, { childList: true, subtree: true });
