// The options: a sheet above the right side of the page, which moves nothing; on a phone, above all of the page. What the
// chosen backend does not use is hidden.
const { on, write } = window.glassbox;
const NAMES = { system_prompt: 'system prompt', temperature: 'temperature', max_tokens: 'max reply length', tools: 'tools' };
const BEHIND = '#header, #about, #main', WAIT_MS = 3000;
const sheet = element.closest('#options'), unused = element.querySelector('.unused'), phone = matchMedia('(max-width: 860px)');
const button = () => document.querySelector('#show-options');
const isOpen = () => document.body.classList.contains('options');
let before = null; // the element that had the focus

sheet.setAttribute('role', 'dialog');
sheet.setAttribute('aria-label', 'Options');

function settle() {
  sheet.ariaModal = String(isOpen() && phone.matches);
  for (const node of document.querySelectorAll(BEHIND)) node.inert = isOpen() && phone.matches;
}

function show(open) {
  document.body.classList.toggle('options', open);
  button()?.setAttribute('aria-expanded', String(open));
  settle();
}

// `selector`: the element that gets the focus as soon as the server has shown it.
function open(selector = '#options .close') {
  if (!isOpen()) before = document.activeElement;
  show(true);
  const until = performance.now() + WAIT_MS, here = document.activeElement;
  const focus = () => {
    const found = document.querySelector(selector);
    if (found?.offsetParent) found.focus();
    else if (performance.now() < until && document.activeElement === here) requestAnimationFrame(focus);
  };
  focus();
}

function close() {
  const inside = sheet.contains(document.activeElement);
  show(false);
  if (inside) (before?.isConnected && before !== document.body ? before : button())?.focus();
}

document.addEventListener('click', (event) => {
  if (!event.target.closest('#show-options')) return;
  if (isOpen()) close(); else open();
});
element.querySelector('.close').addEventListener('click', close);
sheet.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.defaultPrevented) return;
  event.preventDefault();
  event.stopPropagation();
  close();
});
phone.addEventListener('change', settle);
on('options', open, element);
on('documents', () => show(true), element); // dropped files are listed here

function hideUnused() {
  const one = window.glassbox.backend;
  if (!one) return;
  sheet.dataset.switchesThinking = one.takes.includes('thinking');
  const hidden = Object.keys(NAMES).filter((name) => name === 'tools' ? !one.tools : !one.takes.includes(name));
  sheet.dataset.unused = hidden.join(' ');
  unused.hidden = !hidden.length;
  const byName = hidden.includes('tools') ? ' Type /name to run a tool yourself.' : '';
  write(unused, `${one.name} does not use: ${hidden.map((name) => NAMES[name]).join(', ')}.${byName}`);
}
on('backend', hideUnused, element);
hideUnused();
