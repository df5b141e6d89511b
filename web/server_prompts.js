// The prompts of the tools' servers on the empty page, beside the operator's. One fills in the message, and never sends it. A
// prompt with arguments asks for them first. The list is asked for again while a server is starting.
const { emit, make, makeForm, request } = window.glassbox;
const grid = element.querySelector('.prompts'), box = element.querySelector('.asked');
const EVERY_MS = 2000;
let drawn = '', waiting = false;

// Shows a sentence in the card, or without one below the prompts; `className` is `why` for a problem.
function tell(text, card, className = '') {
  const line = card?.querySelector('p') ?? make('p');
  line.className = className;
  line.setAttribute('role', className ? 'alert' : 'status');
  line.textContent = text;
  if (!card) box.replaceChildren(line);
  box.scrollIntoView({ block: 'nearest' });
}

async function fill(server, prompt, values, card) {
  if (waiting) return;
  waiting = true;
  tell(`Asking ${server} …`, card);
  const headers = { 'Content-Type': 'application/json' }, body = JSON.stringify({ prompt: prompt.name, arguments: values });
  try {
    const { message } = await request(`tool-servers/${encodeURIComponent(server)}/prompt`, { method: 'POST', headers, body });
    box.replaceChildren();
    emit('draft', { back: message });
    emit('focus');
  } catch (error) {
    tell(error.message, card, 'why');
  } finally {
    waiting = false;
  }
}

function ask(button, server, prompt) {
  const close = () => { box.replaceChildren(); button.focus(); };
  const answered = (values, card) => values ? fill(server, prompt, values, card) : close();
  const card = makeForm({ title: prompt.title, fields: prompt.form, yes: 'Fill in', no: 'Cancel', answered });
  card.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.preventDefault();
    event.stopPropagation();
    close();
  });
  box.replaceChildren(card);
  card.scrollIntoView({ block: 'nearest' });
  card.querySelector('input').focus({ preventScroll: true });
}

function makeButton(server, prompt) {
  const button = make('button', { type: 'button', className: 'served' }, make('b', {}, prompt.title), make('span', {}, [server, prompt.about].filter(Boolean).join(' · ')));
  button.addEventListener('click', () => prompt.form.length ? ask(button, server, prompt) : fill(server, prompt, {}));
  return button;
}

function draw(servers) {
  const now = JSON.stringify(servers.map((one) => [one.name, one.prompts]));
  if (now === drawn) return;
  drawn = now;
  for (const button of grid.querySelectorAll('.served')) button.remove();
  grid.append(...servers.flatMap((one) => one.prompts.map((prompt) => makeButton(one.name, prompt))));
}

async function load() {
  if (!element.isConnected) return;
  let starting = true;
  if (!document.hidden) {
    try {
      const servers = await request('tool-servers');
      draw(servers);
      starting = servers.some((one) => one.state === 'starting');
    } catch { /* the next try may succeed */ }
  }
  if (starting) setTimeout(load, EVERY_MS);
}
load();
