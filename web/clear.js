// Clear deletes the conversation, so it asks first, in its place. Escape and leaving the conversation keep it.
const ask = element.querySelector('.sure'), button = () => document.querySelector('#clear');
let sure = false;

const isOpen = () => !ask.hidden;
// A page without a conversation has nothing to lose.
const isEmpty = () => !new URL(location.href).searchParams.has('conversation') && document.querySelector('#intro')?.offsetParent;

function show(open) {
  ask.hidden = !open;
  document.body.classList.toggle('clearing', open);
}

function keep() {
  show(false);
  button().focus();
}

function remove() {
  show(false);
  sure = true;
  button().click();
  sure = false;
  document.querySelector('#prompt textarea').focus();
}

ask.replaceChildren(...window.glassboxSure(remove, keep));
ask.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return;
  event.preventDefault();
  keep();
});
document.addEventListener('click', (event) => {
  if (!event.target.closest?.('#clear') || sure || isEmpty()) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  show(true);
  ask.lastElementChild.focus();
}, true);

// Called when the page shows another conversation: the question was about the one before.
window.glassboxKeep = () => { if (isOpen()) show(false); };
