// The line below the prompt: on the slim page whether the conversation is kept, and where the panel is folded on a wide page,
// the button that shows it. A narrow page has the panel as a sheet at the bottom.
const { on, write } = window.glassbox;
const KEY = 'glassbox embedded'; // read by web/embedded.js
const note = element.querySelector('p'), button = element.querySelector('button');
const REASON = location.protocol === 'https:' ? 'This chat has no cookie here' : 'This chat is loaded over http';

function show(open) {
  document.body.classList.toggle('state', open);
  button.ariaExpanded = String(open);
}

function drawPhase() {
  const phase = document.querySelector('#agent-state .panel')?.dataset.phase ?? 'idle';
  button.dataset.phase = phase;
  write(button.querySelector('small'), phase === 'idle' ? '' : document.querySelector('#agent-state .phase')?.textContent ?? '');
}

// Without a visitor's cookie, the conversation has no owner.
function keep() {
  const kept = props.value?.visitor;
  note.hidden = kept !== false;
  write(note, kept === false ? `${REASON}, so nothing is kept: a reload of the page loses this conversation.` : '');
  try {
    const id = kept && window.glassbox.conversationId();
    if (id) sessionStorage.setItem(KEY, id); else if (kept != null) sessionStorage.removeItem(KEY);
  } catch { /* a browser may refuse storage */ }
}

// A remembered conversation that was deleted elsewhere is forgotten, so that the page does not miss it at each load.
function take() {
  const address = new URL(location.href);
  if (props.value?.found === false && address.searchParams.has('conversation')) {
    address.searchParams.delete('conversation');
    history.replaceState(history.state, '', address);
  }
  keep();
}

if (document.body.classList.contains('embed')) {
  on('conversations', keep, element); // the address has changed
  watch('value', take);
  take();
}
if (document.body.classList.contains('folds')) {
  button.addEventListener('click', () => show(!document.body.classList.contains('state')));
  addEventListener('keydown', (event) => { // before web/prompt.js, which stops the run
    if (event.key !== 'Escape' || !button.offsetParent || !event.target.closest?.('#agent-state')) return;
    event.preventDefault();
    show(false);
    button.focus();
  }, true);
  on('shown', () => queueMicrotask(drawPhase), element);
  on('inspected', () => show(true), element);
  drawPhase();
}
