// Clear deletes the conversation, so it asks first. Escape and opening another conversation cancel the question.
const { confirmation, conversationId, on, promptBox } = window.glassbox;
const question = element.querySelector('.sure'), button = () => document.querySelector('#clear');
let confirmed = false;

// A page without a conversation has nothing to delete.
const isEmpty = () => conversationId() === null && document.querySelector('#intro')?.offsetParent;

function show(open) {
  question.hidden = !open;
  document.body.classList.toggle('clearing', open);
}

function keep() {
  show(false);
  button().focus();
}

function remove() {
  show(false);
  confirmed = true;
  button().click();
  confirmed = false;
  promptBox().focus();
}

question.replaceChildren(...confirmation(remove, keep));
question.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return;
  event.preventDefault();
  keep();
});
document.addEventListener('click', (event) => {
  if (!event.target.closest?.('#clear') || confirmed || isEmpty()) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  show(true);
  question.lastElementChild.focus();
}, true);

// The question was about the previous conversation.
for (const name of ['address', 'open']) on(name, () => { if (!question.hidden) show(false); }, element);
