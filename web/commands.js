// The commands that there are, while one is typed: a list above the prompt, by arrows, Tab, Enter or a click.
const list = element.querySelector('ul');
let tools = null, loading = null, shown = [], at = 0, dismissed = '';

const box = () => document.querySelector('#prompt textarea');
const inputOf = (tool) => Object.keys(tool.input).slice(0, 1).map((name) => `<${name}>`).join('');

// Fetches the commands once. What counts is the text when they arrive, not the one for which they were fetched.
function load() {
  loading ??= fetch('tools').then((answer) => answer.json()).then((found) => { tools = found; look(); }).catch(() => { loading = null; });
}

function find() {
  const text = box()?.value ?? '', typed = text.match(/^\/([\w.-]*)$/)?.[1];
  if (typed == null) dismissed = '';
  else if (!tools) load();
  shown = typed == null || text === dismissed || document.activeElement !== box() ? [] : (tools ?? []).filter((tool) => tool.name.startsWith(typed));
  at = Math.min(at, Math.max(0, shown.length - 1));
}

function look() {
  find();
  draw();
}

function draw() {
  element.toggleAttribute('data-open', shown.length > 0);
  if (shown.length) box()?.setAttribute('aria-activedescendant', `command-${at}`); else box()?.removeAttribute('aria-activedescendant');
  list.replaceChildren(...shown.map((tool, i) => {
    const item = document.createElement('li');
    for (const [tag, text] of [['b', `/${tool.name}`], ['code', inputOf(tool)], ['span', tool.about]]) {
      item.append(Object.assign(document.createElement(tag), { textContent: text }));
    }
    item.id = `command-${i}`;
    item.setAttribute('role', 'option');
    item.ariaSelected = String(i === at);
    item.addEventListener('mousedown', (event) => { event.preventDefault(); take(tool); });
    return item;
  }));
  list.children[at]?.scrollIntoView({ block: 'nearest' });
}

// Types a command in full; one that needs nothing more is ready to be sent.
function take(tool) {
  window.glassboxType(`/${tool.name} `);
  box().focus();
}

document.addEventListener('input', (event) => { if (event.target === box()) look(); }, true);
document.addEventListener('focusout', (event) => { if (event.target === box()) { shown = []; draw(); } }, true);
document.addEventListener('focusin', (event) => { if (event.target === box()) look(); }, true);
// before the prompt's own Enter: a whole name is sent as it is
window.addEventListener('keydown', (event) => {
  if (event.target !== box()) return;
  find(); // a text that was sent is gone without an input event
  if (!shown.length) return;
  const whole = box().value === `/${shown[at].name}`;
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') at = (at + (event.key === 'ArrowDown' ? 1 : shown.length - 1)) % shown.length;
  else if (event.key === 'Tab' && !event.shiftKey || event.key === 'Enter' && !event.shiftKey && !whole) take(shown[at]);
  else if (event.key === 'Escape') { dismissed = box().value; shown = []; }
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
  draw();
}, true);
