// Shows the calls that wait for an answer, as the panel receives them. Inputs are text, never markup.
const box = element.querySelector('.asked');
const WAKE_MS = 5000;
let timer = null, asked = [];

const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });

function card(one) {
  const card = make('div', '', { className: 'card' });
  const exact = JSON.stringify(one.input, null, 2);
  const input = make('textarea', exact, { value: exact, readOnly: true, spellcheck: false, rows: Math.min(10, exact.split('\n').length) });
  input.setAttribute('aria-label', `Input of ${one.tool}`);
  const why = make('p', '', { className: 'why' });
  const row = make('div', '', { className: 'row' });
  const tell = (text) => { why.textContent = text; };
  const answer = (approved) => {
    let edited = null;
    if (approved && input.value !== exact) {
      try { edited = JSON.parse(input.value); } catch { return tell('This is no JSON: mend it, or reload to start over.'); }
      if (Object.prototype.toString.call(edited) !== '[object Object]') return tell('This is no JSON object: it needs its { and }.');
    }
    for (const button of row.children) button.disabled = true;
    trigger('answer', { call: one.tool_call_id, approved, input: edited });
  };
  const button = (text, name, act) => {
    const made = make('button', text, { type: 'button', className: name });
    made.addEventListener('click', act);
    row.append(made);
  };
  button('Approve', 'yes', () => answer(true));
  button('Edit', 'edit', () => { input.readOnly = false; input.focus(); });
  button('Refuse', 'no', () => answer(false));
  card.append(make('b', `${one.tool} waits for your approval`), input, why, row);
  card.dataset.call = one.tool_call_id;
  return card;
}

// Cards that are there stay as they are: an edit in one is not lost when another is answered.
window.glassboxApprovals = (run, approvals) => {
  asked = approvals;
  const wanted = new Set(approvals.map((one) => one.tool_call_id));
  for (const old of [...box.children]) if (!wanted.has(old.dataset.call)) old.remove();
  for (const one of approvals) if (![...box.children].some((old) => old.dataset.call === one.tool_call_id)) box.append(card(one));
  plan();
};

// A page that waits follows nothing: after a Stop or a cancel of its own it looks at once.
document.addEventListener('click', (event) => {
  if (!asked.length || !event.target.closest('#stop, #agent-state .detail button')) return;
  for (const ms of [200, 1000]) setTimeout(() => { if (asked.length) trigger('wake'); }, ms);
}, true);

function plan() {
  clearTimeout(timer);
  if (asked.length && element.isConnected) timer = setTimeout(() => { if (!document.hidden) trigger('wake'); plan(); }, WAKE_MS);
}
