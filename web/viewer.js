// The dialog, and its first view: the complete model input of each model call of a run.
const { byReason, copy, drawFill, drawLimit, drawList, drawLong, drawPictures, drawRest, emit, fillGroup, make, makeGroup, messages, number, on } = window.glassbox;
const { promptBox, request, textOf, write } = window.glassbox;
const dialog = element.querySelector('dialog'), view = element.querySelector('#viewer-context');
const [close, copyButton, views, title] = ['.close', '.copy', '.views', 'h2'].map((s) => dialog.querySelector(s));
const [total, unit, calls, bar, mark, legend, limit, made, status, scroll, note, given, rest, ofLeft, left] =
  ['.total strong', '.total span', '.calls', '.fill', '.mark', '.key', '.limit', '.made', '.notice', '.scroll', '.note', '.given', '.rest', '.of-left', '.left-out'].map((s) => view.querySelector(s));
let run = null, question = null, data = null, call = 0, reading = null, opener = null;

// Shows a view of the dialog. The focus returns to its element when the dialog closes.
element.show = (name) => {
  const opens = !dialog.open;
  views.hidden = !run; // without a turn, there is only the comparison
  write(title, run ? 'Context' : 'Compare memory modes');
  for (const tab of dialog.querySelectorAll('[data-view]')) {
    tab.ariaSelected = String(tab.dataset.view === name);
    tab.tabIndex = tab.dataset.view === name ? 0 : -1;
    dialog.querySelector(`#viewer-${tab.dataset.view}`).hidden = tab.dataset.view !== name;
  }
  if (!opens) return;
  opener = document.activeElement;
  dialog.showModal();
  (run ? dialog.querySelector(`[data-view=${name}]`) : title).focus();
};

function makeWhole() {
  const [part, why, count] = [['span', 'part'], ['small', 'why'], ['small', 'count']].map(([tag, className]) => make(tag, { className }));
  return make('li', {}, make('div', { className: 'head' }, make('b'), part, why, count), make('div', { className: 'pictures' }), make('p', { className: 'text' }));
}

function fillWhole(item, message) {
  const [role, part, why, count] = item.firstElementChild.children, text = textOf(message.content);
  item.dataset.part = message.part ?? '';
  write(role, message.role);
  write(part, message.part && message.part !== message.role ? message.part : '');
  write(why, message.why ?? '');
  write(count, `${number(message.tokens)} tokens`);
  drawPictures(item.children[1], message);
  write(item.lastElementChild, text || 'empty');
  item.lastElementChild.classList.toggle('nothing', !text);
}

function draw() {
  const context = data?.contexts[call], several = (data?.contexts.length ?? 0) > 1;
  const share = context && Math.round(100 * context.tokens / Math.max(context.limit, 1));
  write(total, context ? `${context.estimated ? '≈ ' : ''}${number(context.tokens)}` : '–');
  write(unit, context ? `of ${number(context.limit)} tokens${context.estimated ? ', estimated' : ''} · ${number(share)} %` : '');
  write(made, data ? `${data.backend}${data.model ? ` (${data.model})` : ''} · memory: ${data.memory}` : '');
  drawFill(bar, legend, context, undefined, true);
  drawLimit(mark, limit, context);
  drawList(calls, several ? data.contexts : [], () => make('button', { type: 'button', role: 'tab' }), (tab, _, i) => {
    write(tab, i === call ? `Call ${i + 1} of ${data.contexts.length}` : `${i + 1}`);
    Object.assign(tab, { ariaSelected: String(i === call), tabIndex: i === call ? 0 : -1, ariaLabel: `Call ${i + 1} of ${data.contexts.length}` });
  });
  write(note, context?.note ?? '');
  drawLong(given, context?.messages ?? [], makeWhole, fillWhole, 'ol');
  drawRest(rest, context);
  const out = context?.left_out ?? [];
  ofLeft.hidden = !out.length;
  write(ofLeft, out.length ? `Left out: ${messages(out.length)}, ${number(out.reduce((sum, m) => sum + m.tokens, 0))} tokens` : '');
  drawList(left, byReason(out), makeGroup, fillGroup);
}

async function read(id) {
  reading?.abort();
  const mine = reading = new AbortController();
  [run, data, call] = [id, null, 0];
  write(status, '');
  status.classList.remove('bad');
  draw();
  scroll.scrollTop = 0;
  try {
    const answer = await request(`runs/${encodeURIComponent(id)}/context`, { signal: mine.signal });
    if (mine !== reading) return;
    [data, call] = [answer, Math.max(0, answer.contexts.length - 1)];
    if (!answer.contexts.length) write(status, 'The model was not called in this turn.');
    draw();
  } catch (error) {
    if (mine !== reading || error.name === 'AbortError') return;
    status.classList.add('bad');
    write(status, error.message);
  }
}

// `message`: the id of the user's message that the run answers, if it is known.
on('context', ({ run: id, message = null }) => {
  [run, question] = [id, message];
  element.show('context');
  read(id);
}, element);

// Arrow keys move between tabs.
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
views.addEventListener('click', ({ target }) => {
  const name = target.dataset.view;
  if (name === 'prompt') { element.show(name); element.readPrompt(run, data ? call : null); }
  else if (name === 'compare') emit('compare', { run, message: question });
  else if (name && data) element.show(name);
  else if (name) emit('context', { run, message: question });
});
calls.addEventListener('click', ({ target }) => {
  const place = [...calls.children].indexOf(target);
  if (place < 0) return;
  call = place;
  draw();
});

copyButton.addEventListener('click', async () => {
  const texts = { 'viewer-context': () => data?.contexts[call], 'viewer-prompt': element.prompt, 'viewer-compare': element.compared };
  const shown = texts[dialog.querySelector('section:not([hidden])').id]();
  const said = !shown ? 'Nothing yet' : await copy(JSON.stringify(shown, null, 2)).then(() => 'Copied', () => 'Not allowed');
  write(copyButton, said);
  clearTimeout(copyButton.timer);
  copyButton.timer = setTimeout(() => write(copyButton, 'Copy as JSON'), 1600);
});

// A click on the backdrop closes the dialog, but not one that began inside it, as when text is selected.
let outside = false;
dialog.addEventListener('pointerdown', (event) => { outside = event.target === dialog; });
dialog.addEventListener('click', (event) => { if (outside && event.target === dialog) dialog.close(); });
close.addEventListener('click', () => dialog.close());
dialog.addEventListener('close', () => {
  reading?.abort();
  const back = opener?.isConnected && opener !== document.body ? opener : promptBox();
  back?.focus({ preventScroll: true });
});
