// Draws the panel's value in place. Nothing is ever read as markup: textContent only.
const $ = (selector) => element.querySelector(selector);
const panel = $('.panel');
const NAMES = {
  idle: 'Idle', queued: 'Queued', waiting: 'Waiting for the first token', thinking: 'Thinking', streaming: 'Streaming',
  tool: 'Running a tool', approval: 'Waiting for your approval', stalled: 'Stalled', complete: 'Done',
  stopped: 'Stopped', error: 'Failed',
};
let value = null, at = 0, drawnAt = 0, contextRun = null;

const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const seconds = (s) => s == null ? '–' : s < 10 ? `${s.toFixed(2)} s` : s < 100 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`;
const share = (part, whole) => `${Math.min(100, 100 * part / Math.max(whole, 1e-6)).toFixed(2)}%`;

function figure(name, number, unit) {
  const node = $(`[data-figure=${name}]`);
  if (!node.lastElementChild) node.replaceChildren(document.createTextNode(''), document.createElement('small'));
  node.firstChild.data !== number && (node.firstChild.data = number);
  put(node.lastElementChild, unit ? ` ${unit}` : '');
}

// Keeps a list's elements and only fills them anew, so that nothing blinks or loses its open state.
function list(parent, items, make, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(make());
  items.forEach((item, i) => fill(parent.children[i], item, i));
}

function make(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children.map((c) => document.createElement(c)));
  return node;
}

// A run that still goes on gets older between two values: the clock is the page's own.
// One that is replayed has the clock of its record.
const elapsed = () => value ? value.elapsed_s + (value.live && !value.replay ? (performance.now() - at) / 1000 : 0) : 0;

function drawTimes() {
  drawnAt = performance.now();
  const whole = elapsed(), age = value.since_s + (whole - value.elapsed_s);
  put($('.clock'), seconds(value.live ? age : whole));
  put($('[data-total]'), seconds(whole));
  const lasted = (s, i, all) => !['complete', 'stopped', 'error'].includes(s.phase) && (all[i + 1]?.start ?? whole) - s.start > 0.004;
  const stretches = value.stretches.filter(lasted);
  const ends = stretches.map((s, i) => stretches[i + 1]?.start ?? whole);
  list($('.stretches'), stretches, () => make('i'), (node, s, i) => {
    node.dataset.p = s.phase;
    node.style.width = share(ends[i] - s.start, whole);
    node.title = `${NAMES[s.phase]}: ${seconds(ends[i] - s.start)}`;
  });
  const sums = new Map();
  stretches.forEach((s, i) => sums.set(s.phase, (sums.get(s.phase) ?? 0) + ends[i] - s.start));
  list($('.legend'), [...sums], () => make('li', 'i', 'span'), (node, [phase, sum]) => {
    node.firstElementChild.dataset.p = phase;
    put(node.lastElementChild, `${phase} ${seconds(sum)}`);
  });
  drawBars(whole);
}

// Bars keep their elements by the step's id: a call is drawn below its step, so that others move down.
function drawBars(whole) {
  const bars = $('.bars'), known = new Map([...bars.children].map((node) => [node.dataset.call, node]));
  const there = new Set(value.steps.map((step) => step.id));
  for (const [id, node] of known) if (!there.has(id)) node.remove(); // a replay goes back, too
  value.steps.forEach((step, i) => {
    const node = known.get(step.id) ?? makeBar();
    if (bars.children[i] !== node) bars.insertBefore(node, bars.children[i] ?? null);
    fillBar(node, step, whole);
  });
}

function makeBar() {
  const li = make('li', 'button', 'span', 'span', 'div');
  Object.assign(li.children[0], { type: 'button', ariaExpanded: 'false' });
  li.children[1].className = 'track';
  li.children[1].append(document.createElement('i'));
  li.children[3].className = 'detail';
  li.children[3].append(make('p'), make('pre'), make('p'), make('pre'), make('button'));
  Object.assign(li.children[3].lastElementChild, { type: 'button', textContent: 'Cancel this call' });
  return li;
}

const LABELS = { tool: ['Input', 'Output'], chain: ['New to this step', 'What it added'], model: ['', 'Tokens used'] };

function fillBar(node, step, whole) {
  const end = step.end ?? whole;
  node.dataset.kind = step.kind;
  node.dataset.call = step.id;
  node.toggleAttribute('data-failed', Boolean(step.error));
  node.title = step.error ? `${step.name}: ${step.error}` : step.name;
  put(node.children[0], step.name);
  node.children[0].style.paddingLeft = `${Math.min(step.depth, 4) * 10}px`;
  const bar = node.children[1].firstElementChild;
  bar.style.left = share(step.start, whole);
  bar.style.width = share(end - step.start, whole);
  put(node.children[2], seconds(end - step.start));
  const [inputLabel, input, outputLabel, output, cancel] = node.children[3].children;
  cancel.hidden = step.kind !== 'tool' || step.end != null || !value.live || Boolean(value.replay);
  if (step.input === undefined) return; // as it was
  const [taken, given] = LABELS[step.kind];
  put(inputLabel, step.input ? taken : '');
  put(input, step.input);
  put(outputLabel, step.error ? `Failed: ${step.error}` : step.end == null ? `${given} so far` : given);
  put(output, step.output || 'none');
}

function draw() {
  const next = props.value;
  if (next?.cleared) window.glassboxAddress?.(null);
  if (!next?.run) {
    value = null;
    panel.dataset.phase = 'idle';
    put($('.phase'), NAMES.idle);
    for (const selector of ['.clock', '.step', '[data-made]', '[data-tools]', '[data-total]']) put($(selector), '');
    for (const name of ['ttft', 'tokens', 'rate', 'average']) figure(name, '–', '');
    for (const selector of ['.stretches', '.legend', '.bars']) $(selector).replaceChildren();
    $('.thoughts').hidden = true;
    window.glassboxApprovals?.(null, []);
    window.glassboxParts?.(null, false, []);
    window.glassboxEvents?.(null, false);
    window.glassboxReplay?.(null);
    contextRun = null;
    window.glassboxGiven?.(null, null);
    return;
  }
  if (next.run !== value?.run) $('.bars').replaceChildren();
  if (next.run !== value?.run || next.live !== value?.live) {
    window.glassboxConversations?.();
    window.glassboxLimits?.();
  }
  value = next; at = performance.now();
  if (!value.replay) window.glassboxAddress?.(value.conversation);
  window.glassboxReplay?.(value.replay ? value : null);
  window.glassboxApprovals?.(value.run, value.approvals);
  window.glassboxParts?.(value.run, value.live || Boolean(value.replay), value.parts);
  window.glassboxEvents?.(value.run, value.live && !value.replay);
  panel.dataset.phase = value.phase;
  put($('.phase'), NAMES[value.phase] ?? value.phase);
  put($('.step'), !value.live ? value.said : value.phase === 'thinking' && value.thoughts ? `… ${value.thoughts.slice(-90)}` : (value.step ?? ''));
  figure('ttft', value.ttft_s == null ? '–' : value.ttft_s.toFixed(2), value.ttft_s == null ? '' : 's');
  put($('[data-label=tokens]'), value.estimated ? 'Tokens ≈' : 'Tokens');
  figure('tokens', value.tokens.toLocaleString('en'), '');
  figure('rate', value.rate == null || value.ttft_s == null ? '–' : value.rate.toFixed(1), value.rate == null || value.ttft_s == null ? '' : '/s');
  figure('average', value.average == null ? '–' : value.average.toFixed(1), value.average == null ? '' : '/s');
  put($('[data-made]'), `${value.backend}${value.model ? ` (${value.model})` : ''} · memory: ${value.memory}${value.input_tokens ? ` · read ${value.input_estimated ? '≈ ' : ''}${value.input_tokens.toLocaleString('en')} tokens` : ''}`);
  put($('[data-tools]'), value.tools.length ? `Tools called: ${value.tools.join(', ')}` : '');
  $('.thoughts').hidden = !value.thoughts;
  if (value.thoughts) put($('.thoughts p'), value.thoughts);
  if (value.context !== undefined || contextRun !== value.run) window.glassboxGiven?.(value.run, value.context);
  contextRun = value.run;
  drawTimes();
}

element.addEventListener('click', (event) => {
  const bar = event.target.closest('.bars li');
  if (event.target.closest('.detail button')) trigger('cancel', { call: bar.dataset.call });
  else if (bar && !event.target.closest('.detail')) bar.children[0].ariaExpanded = String(bar.toggleAttribute('data-open'));
  if (event.target.closest('.head')) {
    const open = panel.toggleAttribute('data-open');
    $('.head').setAttribute('aria-expanded', String(open));
  }
});
watch('value', draw);
draw();
// A live run sends something every second; silence means a lost connection, not a slow model.
const SILENT_MS = 4000;
const ticking = setInterval(() => {
  if (!element.isConnected) clearInterval(ticking);
  else if (value?.live && !value.replay && value.phase !== 'approval' && performance.now() - at > SILENT_MS) {
    panel.dataset.phase = 'stalled';
    put($('.phase'), 'Connection lost');
    put($('.step'), 'The run goes on without this page; it is found again as soon as the server answers.');
    window.glassboxLost?.();
  } else if (value?.live && !value.replay && !document.hidden && performance.now() - drawnAt > 150) drawTimes();
}, 100);
