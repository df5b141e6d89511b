// A message is edited as the text that it is: the Chatbot's field begins with the HTML that it draws.
new MutationObserver((changes) => {
  for (const { addedNodes } of changes) for (const node of addedNodes) {
    const field = node.nodeType === 1 && (node.matches('#chat textarea') ? node : node.querySelector('#chat textarea'));
    if (!field || field.dataset.typed !== undefined) continue;
    field.dataset.typed = '';
    const said = new DOMParser().parseFromString(field.value, 'text/html').querySelector('.said');
    if (!said) continue;
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(field, said.textContent);
    field.dispatchEvent(new Event('input', { bubbles: true }));
  }
}).observe(document.documentElement, { childList: true, subtree: true });
