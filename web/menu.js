// A menu of the header: a combobox, and a list with the name, the state and a line of text for each choice. A click, Enter,
// Space, the arrows and letters open it, the focus alone does not. The memory menu also has the parameters of its mode.
const { drawList, emit, make, on, write } = window.glassbox;
const field = element.querySelector('.menu'), input = element.querySelector('input'), list = element.querySelector('ul');
const owner = element.closest('#memory-control') ?? element.closest('.block'), { menu } = field.dataset; // a menu that was hidden has no props
const SEARCHED = 8; // a longer list is searched by typing; in a shorter one, letters move to a choice
const MARGIN = 8, TYPING_MS = 700, STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 5, PageUp: -5 };
let choices = props.choices ?? [], shown = [], at = 0, typed = '', typedAt = 0;

const isOpen = () => !list.hidden;
const isSearched = () => choices.length > SEARCHED;
const chosen = () => choices.find((choice) => choice.name === props.value);

function makeOption() {
  const item = make('li', { role: 'option' }, make('b'), make('span', { className: 'state' }), make('small'));
  item.addEventListener('click', () => choose(item.choice));
  return item;
}

function fillOption(item, choice, i) {
  const [name, state, about] = item.children;
  item.choice = choice;
  item.id = `${menu}-option-${i}`;
  item.ariaSelected = String(choice.name === props.value);
  item.ariaLabel = [choice.name, choice.state].filter(Boolean).join(' · ');
  item.ariaDescription = choice.about ?? '';
  item.toggleAttribute('data-bad', Boolean(choice.bad));
  write(name, choice.name);
  write(state, choice.state ? ` · ${choice.state}` : '');
  write(about, choice.about ?? '');
}

function drawChoices() {
  drawList(list, shown, makeOption, fillOption);
  at = Math.max(0, Math.min(at, shown.length - 1));
  [...list.children].forEach((item, i) => item.toggleAttribute('data-active', i === at));
  if (isOpen() && shown.length) input.setAttribute('aria-activedescendant', `${menu}-option-${at}`); else input.removeAttribute('aria-activedescendant');
}

// Draws what is seen while the menu is closed.
function draw() {
  const choice = chosen();
  input.readOnly = !isSearched();
  if (isOpen()) return;
  const parameters = [...owner.querySelectorAll('.parameter input')].map((number) => number.value).filter(Boolean);
  input.value = [choice?.shown ?? choice?.name ?? props.value ?? '', ...parameters].filter(Boolean).join(' · ');
  field.title = [choice?.state, choice?.about].filter(Boolean).join(': ');
}

function move(to) {
  at = Math.max(0, Math.min(to, shown.length - 1));
  drawChoices();
  list.children[at]?.scrollIntoView({ block: 'nearest' });
}

// With `select`, typing replaces the text of a searched menu.
function open(select = true) {
  shown = choices;
  list.hidden = false;
  list.ariaLabel = `${input.ariaLabel} menu`; // an unseen list has no name, so that a name finds one element
  owner.toggleAttribute('data-open', true);
  input.ariaExpanded = 'true';
  if (select && isSearched()) input.select();
  at = choices.findIndex((choice) => choice.name === props.value);
  drawChoices();
  const left = owner.getBoundingClientRect().left, most = document.documentElement.clientWidth - MARGIN - list.offsetWidth;
  owner.style.setProperty('--left', `${Math.max(MARGIN, Math.min(left, most)) - left}px`);
  owner.style.setProperty('--below', `${list.offsetHeight}px`);
  move(at); // scrolls, so it needs the place
  emit('opened', true);
}

function close() {
  if (!isOpen()) return;
  list.hidden = true;
  list.ariaLabel = null;
  owner.toggleAttribute('data-open', false);
  input.ariaExpanded = 'false';
  typed = '';
  shown = [];
  drawChoices();
  draw();
  emit('opened', false);
}

function choose(choice) {
  const differs = choice && choice.name !== props.value;
  if (differs) props.value = choice.name;
  close();
  if (!differs) return;
  tell(true);
  trigger('input');
}

// Tells the other scripts the choice; `visitor`: it was made here, not by an answer of the server.
function tell(visitor = false) {
  window.glassbox.chosen = { ...window.glassbox.chosen, [menu]: props.value };
  emit('choice', { menu, visitor });
}

function findTyped(letter) {
  const now = Date.now();
  typed = (now - typedAt < TYPING_MS ? typed : '') + letter.toLowerCase();
  typedAt = now;
  const from = typed.length > 1 ? at : at + 1, order = shown.map((_, i) => (from + i) % shown.length);
  const found = order.find((i) => shown[i].name.toLowerCase().startsWith(typed));
  if (found !== undefined) move(found);
}

input.addEventListener('keydown', (event) => {
  const { key } = event, letter = key.length === 1 && !isSearched();
  if (event.ctrlKey || event.metaKey || event.isComposing) return;
  if (key === 'Escape') {
    if (!isOpen()) return;
    close();
  } else if (key === 'Enter' || key === ' ' && letter && !(typed && Date.now() - typedAt < TYPING_MS)) {
    if (isOpen()) choose(shown[at]); else open();
  } else if (key in STEPS) {
    if (isOpen()) move(at + STEPS[key]); else open();
  } else if (isOpen() && !isSearched() && (key === 'Home' || key === 'End')) move(key === 'Home' ? 0 : shown.length - 1);
  else if (letter) {
    if (!isOpen()) open();
    findTyped(key);
  } else return;
  event.preventDefault();
  event.stopPropagation();
});

input.addEventListener('input', () => {
  const words = input.value.trim().toLowerCase();
  if (!isOpen()) open(false);
  shown = choices.filter((choice) => choice.name.toLowerCase().includes(words));
  move(0);
});

input.addEventListener('click', () => { if (isOpen()) { if (!isSearched()) close(); } else open(); });
// a click in the list, or on the label, leaves the focus where it is
list.addEventListener('mousedown', (event) => event.preventDefault());
field.addEventListener('mousedown', (event) => { if (event.target !== input) event.preventDefault(); });
owner.addEventListener('focusout', (event) => { if (!owner.contains(event.relatedTarget)) close(); });
owner.addEventListener('keydown', (event) => {
  if (!event.target.closest('.parameter') || event.key !== 'Escape' && event.key !== 'Enter') return;
  event.preventDefault();
  event.stopPropagation();
  close();
  input.focus();
});

// An open list keeps its choices: nothing changes its place under the pointer.
function update() {
  choices = window.glassbox.choices?.[menu] ?? choices;
  const names = (some) => some.map((choice) => choice.name).join('\n');
  if (!isOpen()) draw();
  else if (names(choices.filter((choice) => shown.some((one) => one.name === choice.name))) === names(shown)) {
    shown = shown.map((one) => choices.find((choice) => choice.name === one.name));
    drawChoices();
  }
}
on('choices', update, element);
on('choose', (names) => { if (names[menu]) choose(choices.find((choice) => choice.name === names[menu])); }, element);
on('parameters', () => setTimeout(draw), element); // their fields are drawn after the event
if (owner !== element.closest('.block')) new MutationObserver(draw).observe(owner, { childList: true, subtree: true });

watch('value', () => {
  draw();
  tell();
});
update();
tell();
