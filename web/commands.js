// The list of commands above the prompt while one is typed: the tools, and the example prompts of the chosen backend. Arrows,
// Tab, Enter or a click choose one.
const { emit, make, promptBox } = window.glassbox;
const list = element.querySelector('ul');
const FRESH_MS = 10_000; // the tools of a server may come later
let tools = null, loading = null, loadedAt = 0, shown = [], at = 0, dismissed = '';

const inputOf = (tool) => Object.keys(tool.input).slice(0, 1).map((name) => `<${name}>`).join('');
const examples = () => Object.entries(window.glassbox.backend?.prompts ?? {}).map(([name, about]) => ({ name, about, text: name }));

// Fetches the commands, and then shows those for the current text.
function load() {
  loading ??= fetch('tools').then((response) => response.json()).then((found) => { [tools, loading, loadedAt] = [found, null, performance.now()]; update(); }).catch(() => { loading = null; });
}

function find() {
  const text = promptBox()?.value ?? '', typed = text.match(/^\/([\w.-]*)$/)?.[1];
  if (typed == null) dismissed = '';
  else if (!tools || performance.now() - loadedAt > FRESH_MS) load();
  shown = typed == null || text === dismissed || document.activeElement !== promptBox() ? [] : tools ? [...tools, ...examples()].filter((one) => one.name.startsWith(typed)) : [];
  at = Math.min(at, Math.max(0, shown.length - 1));
}

function update() {
  find();
  draw();
}

function draw() {
  element.toggleAttribute('data-open', shown.length > 0);
  if (shown.length) promptBox()?.setAttribute('aria-activedescendant', `command-${at}`); else promptBox()?.removeAttribute('aria-activedescendant');
  list.replaceChildren(...shown.map((tool, i) => {
    const command = tool.text ? [make('b', {}, tool.name)] : [make('b', {}, `/${tool.name}`), make('code', {}, inputOf(tool))];
    const item = make('li', { id: `command-${i}`, role: 'option', ariaSelected: String(i === at) }, ...command, make('span', {}, tool.about));
    item.addEventListener('mousedown', (event) => { event.preventDefault(); choose(tool); });
    return item;
  }));
  list.children[at]?.scrollIntoView({ block: 'nearest' });
}

function choose(tool) {
  emit('type', tool.text ?? `/${tool.name} `);
  promptBox().focus();
}

document.addEventListener('input', (event) => { if (event.target === promptBox()) update(); }, true);
document.addEventListener('focusout', (event) => { if (event.target === promptBox()) { shown = []; draw(); } }, true);
document.addEventListener('focusin', (event) => { if (event.target === promptBox()) update(); }, true);
// this runs before the prompt's own Enter, which sends a complete name
window.addEventListener('keydown', (event) => {
  if (event.target !== promptBox()) return;
  find(); // a sent text disappears without an input event
  if (!shown.length) return;
  const complete = !shown[at].text && promptBox().value === `/${shown[at].name}`;
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') at = (at + (event.key === 'ArrowDown' ? 1 : shown.length - 1)) % shown.length;
  else if (event.key === 'Tab' && !event.shiftKey || event.key === 'Enter' && !event.shiftKey && !complete) choose(shown[at]);
  else if (event.key === 'Escape') { dismissed = promptBox().value; shown = []; }
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
  draw();
}, true);
