// The dialog, and its first view: what the model was given in each call of a run, all of it.
const dialog = element.querySelector('dialog'), view = element.querySelector('#viewer-context');
const [close, copy] = ['.close', '.copy'].map((s) => dialog.querySelector(s));
const [total, unit, calls, bar, legend, made, told, scroll, note, given, ofTools, tools, ofLeft, left] =
  ['.total strong', '.total span', '.calls', '.fill', '.key', '.made', '.told', '.scroll', '.note', '.given', '.of-tools', '.given-tools', '.of-left', '.left-out'].map((s) => view.querySelector(s));
let run = null, asked = null, data = null, call = 0, reading = null, opener = null;

// Shows a view of the dialog; what had the focus gets it back at the end.
element.show = (name) => {
  const opens = !dialog.open;
  dialog.querySelector('[data-view=context]').hidden = !run;
  for (const tab of dialog.querySelectorAll('[data-view]')) {
    tab.ariaSelected = String(tab.dataset.view === name);
    tab.tabIndex = tab.dataset.view === name ? 0 : -1;
    dialog.querySelector(`#viewer-${tab.dataset.view}`).hidden = tab.dataset.view !== name;
  }
  if (!opens) return;
  opener = document.activeElement;
  dialog.showModal();
  dialog.querySelector(`[data-view=${name}]`).focus();
};

function makeWhole() {
  const item = node('li'), head = node('div', 'head');
  head.append(node('b'), node('span', 'part'), node('small', 'why'), node('small', 'count'));
  item.append(head, node('p', 'text'));
  return item;
}

function fillWhole(item, message) {
  const [role, part, why, count] = item.firstElementChild.children, text = textOf(message.content);
  item.dataset.part = message.part ?? '';
  write(role, message.role);
  write(part, message.part && message.part !== message.role ? message.part : '');
  write(why, message.why ?? '');
  write(count, `${many(message.tokens)} tokens`);
  write(item.lastElementChild, text || 'empty');
  item.lastElementChild.classList.toggle('nothing', !text);
}

function draw() {
  const context = data?.contexts[call], several = (data?.contexts.length ?? 0) > 1;
  const share = context && Math.round(100 * context.tokens / Math.max(context.limit, 1));
  write(total, context ? `${context.estimated ? '≈ ' : ''}${many(context.tokens)}` : '–');
  write(unit, context ? `of ${many(context.limit)} tokens${context.estimated ? ', estimated' : ''} · ${many(share)} %` : '');
  write(made, data ? `${data.backend}${data.model ? ` (${data.model})` : ''} · memory: ${data.memory}` : '');
  drawFill(bar, legend, context, undefined, true);
  drawList(calls, several ? data.contexts : [], () => Object.assign(node('button'), { type: 'button', role: 'tab' }), (tab, _, i) => {
    write(tab, i === call ? `Call ${i + 1} of ${data.contexts.length}` : `${i + 1}`);
    Object.assign(tab, { ariaSelected: String(i === call), tabIndex: i === call ? 0 : -1, ariaLabel: `Call ${i + 1} of ${data.contexts.length}` });
  });
  write(note, context?.note ?? '');
  drawLong(given, context?.messages ?? [], makeWhole, fillWhole, 'ol');
  const offered = context?.tools ?? [], out = context?.left_out ?? [];
  ofTools.hidden = !offered.length;
  drawLong(tools, offered.map(asRow), makeWhole, fillWhole, 'ol');
  ofLeft.hidden = !out.length;
  write(ofLeft, out.length ? `Left out: ${messages(out.length)}, ${many(out.reduce((sum, m) => sum + m.tokens, 0))} tokens` : '');
  drawList(left, byReason(out), makeGroup, fillGroup);
}

async function read(id) {
  reading?.abort();
  const mine = reading = new AbortController();
  [run, data, call] = [id, null, 0];
  write(told, '');
  told.classList.remove('bad');
  draw();
  scroll.scrollTop = 0;
  try {
    const answer = await ask(`runs/${encodeURIComponent(id)}/context`, { signal: mine.signal });
    if (mine !== reading) return;
    [data, call] = [answer, Math.max(0, answer.contexts.length - 1)];
    if (!answer.contexts.length) write(told, 'The model has not been called in this turn.');
    draw();
  } catch (error) {
    if (mine !== reading || error.name === 'AbortError') return;
    told.classList.add('bad');
    write(told, error.message);
  }
}

// `message`: the id of the user's message that the run answers, if it is known.
window.glassboxContext = (id, message = null) => {
  [run, asked] = [id, message];
  element.show('context');
  read(id);
};

// Arrow keys go from tab to tab.
function choose(list, step) {
  const tabs = [...list.children].filter((tab) => !tab.hidden), at = tabs.findIndex((tab) => tab.ariaSelected === 'true');
  const next = tabs[(at + step + tabs.length) % tabs.length];
  next.click();
  next.focus();
}

dialog.addEventListener('keydown', (event) => {
  const list = event.target.closest('[role=tablist]'), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!list || !step) return;
  event.preventDefault();
  choose(list, step);
});
dialog.querySelector('.views').addEventListener('click', ({ target }) => {
  const name = target.dataset.view;
  if (name === 'compare') window.glassboxCompare({ run, message: asked });
  else if (name && data) element.show(name);
  else if (name) window.glassboxContext(run, asked);
});
calls.addEventListener('click', ({ target }) => {
  const place = [...calls.children].indexOf(target);
  if (place < 0) return;
  call = place;
  draw();
});

copy.addEventListener('click', async () => {
  const shown = view.hidden ? element.compared() : data?.contexts[call];
  const said = !shown ? 'Nothing yet' : await window.glassboxCopy(JSON.stringify(shown, null, 2)).then(() => 'Copied', () => 'Not allowed');
  write(copy, said);
  clearTimeout(copy.timer);
  copy.timer = setTimeout(() => write(copy, 'Copy as JSON'), 1600);
});

// A click that began inside, as when text is selected, is not one on the backdrop.
let outside = false;
dialog.addEventListener('pointerdown', (event) => { outside = event.target === dialog; });
dialog.addEventListener('click', (event) => { if (outside && event.target === dialog) dialog.close(); });
close.addEventListener('click', () => dialog.close());
dialog.addEventListener('close', () => {
  reading?.abort();
  const back = opener?.isConnected && opener !== document.body ? opener : document.querySelector('#prompt textarea');
  back?.focus({ preventScroll: true });
});
