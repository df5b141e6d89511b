// The tool calls that wait for an answer, from the panel's value.
const { emit, make, makeForm, on } = window.glassbox;
const box = element.querySelector('.asked');
const WAKE_MS = 5000;
let timer = null, waiting = [];

function addButton(row, text, className, act) {
  const button = make('button', { type: 'button', className }, text);
  button.addEventListener('click', act);
  row.append(button);
}

// A question of an agent: the answer is a text, or Yes or No.
function makeQuestion(call) {
  const { question, answer, ...others } = call.input, more = Object.entries(others);
  const title = typeof question === 'string' ? question : 'The agent asks for your answer';
  const about = make('pre', { hidden: !more.length, tabIndex: 0 }, JSON.stringify(more.length ? others : '', null, 2));
  const box = make('textarea', { rows: 2, placeholder: 'Your answer' }), row = make('div', { className: 'row' });
  box.setAttribute('aria-label', `Answer to: ${title}`);
  const send = (approved, text) => {
    for (const button of row.children) button.disabled = true;
    trigger('answer', { call: call.tool_call_id, approved, input: text ? { ...call.input, answer: text } : null });
    emit('focus');
  };
  const add = (...button) => addButton(row, ...button);
  add('Answer', 'yes', () => (box.value.trim() ? send(true, box.value.trim()) : box.focus()));
  add('Yes', '', () => send(true));
  add('No', 'no', () => send(false));
  const card = make('div', { className: 'card' }, make('b', {}, title), about, box, row);
  card.dataset.call = call.tool_call_id;
  return card;
}

// A question with a form, which the server checks again.
function makeQuestionForm(call) {
  const { question, problem, form: fields, answer } = call.input;
  const answered = (values, card) => {
    for (const button of card.querySelectorAll('.row button')) button.disabled = true;
    trigger('answer', { call: call.tool_call_id, approved: values !== null, input: values && { ...call.input, answer: values } });
    emit('focus');
  };
  const card = makeForm({ title: question, problem, fields, values: answer, yes: 'Send', no: 'Decline', answered });
  card.dataset.call = call.tool_call_id;
  return card;
}

const isQuestion = (call) => call.tool === 'question' && typeof call.input?.answer === 'string';
const isForm = (call) => call.tool === 'question' && Array.isArray(call.input?.form);

function makeCard(call) {
  if (isForm(call)) return makeQuestionForm(call);
  if (isQuestion(call)) return makeQuestion(call);
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
  const add = (...button) => addButton(row, ...button);
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
