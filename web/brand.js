// The skip link moves the focus itself: the address stays the conversation's.
element.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  window.glassbox.promptBox()?.focus();
});
