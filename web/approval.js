// The tool calls that wait for an answer, from the panel's value.
const { emit, make, on } = window.glassbox;
const box = element.querySelector('.asked');
const WAKE_MS = 5000;
let timer = null, waiting = [];

function makeCard(call) {
  const exact = JSON.stringify(call.input, null, 2);
  const input = make('textarea', { value: exact, readOnly: true, spellcheck: false, rows: Math.min(10, exact.split('\n').length) }, exact);
  input.setAttribute('aria-label', `Input of ${call.tool}`);
  const problem = make('p', { className: 'why' }), row = make('div', { className: 'row' });
  const tell = (text) => { problem.textContent = text; };
  const answer = (approved) => {
    let edited = null;
    if (approved && input.value !== exact) {
      try { edited = JSON.parse(input.value); } catch { return tell('This is not valid JSON. Fix it, or reload the page to start over.'); }
      if (Object.prototype.toString.call(edited) !== '[object Object]') return tell('The input must be a JSON object, in { and }.');
    }
    for (const button of row.children) button.disabled = true;
    trigger('answer', { call: call.tool_call_id, approved, input: edited });
    emit('focus');
  };
  const add = (text, className, act) => {
    const button = make('button', { type: 'button', className }, text);
    button.addEventListener('click', act);
    row.append(button);
  };
  add('Approve', 'yes', () => answer(true));
  add('Edit', 'edit', () => { input.readOnly = false; input.focus(); });
  add('Refuse', 'no', () => answer(false));
  const card = make('div', { className: 'card' }, make('b', {}, `${call.tool} waits for your approval`), input, problem, row);
  card.dataset.call = call.tool_call_id;
  return card;
}

// Existing cards stay: an edit in one is not lost when another one is answered.
on('panel', (value) => {
  waiting = value?.run ? value.approvals : [];
  const ids = new Set(waiting.map((call) => call.tool_call_id));
  for (const card of [...box.children]) if (!ids.has(card.dataset.call)) card.remove();
  for (const call of waiting) if (![...box.children].some((card) => card.dataset.call === call.tool_call_id)) box.append(makeCard(call));
  plan();
}, element);

// A waiting page follows nothing, so after a Stop or a cancel of its own it looks at once.
document.addEventListener('click', (event) => {
  if (!waiting.length || !event.target.closest('#stop, #agent-state .detail button')) return;
  for (const ms of [200, 1000]) setTimeout(() => { if (waiting.length) trigger('wake'); }, ms);
}, true);

function plan() {
  clearTimeout(timer);
  if (waiting.length && element.isConnected) timer = setTimeout(() => { if (!document.hidden) trigger('wake'); plan(); }, WAKE_MS);
}
