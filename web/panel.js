// Draws the panel's value in place, and passes it on to the other scripts.
const { drawList, emit, make, write } = window.glassbox;
const $ = (selector) => element.querySelector(selector);
const panel = $('.panel');
const NAMES = {
  idle: 'Idle', queued: 'Queued', waiting: 'Waiting for the first token', thinking: 'Thinking', streaming: 'Streaming',
  tool: 'Running a tool', approval: 'Waiting for your approval', stalled: 'Stalled', complete: 'Done',
  stopped: 'Stopped', error: 'Failed',
};
let value = null, at = 0, drawnAt = 0;

const seconds = (s) => s == null ? '–' : s < 10 ? `${s.toFixed(2)} s` : s < 100 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`;
const share = (part, whole) => `${Math.min(100, 100 * part / Math.max(whole, 1e-6)).toFixed(2)}%`;

function figure(name, number, unit) {
  const node = $(`[data-figure=${name}]`);
  if (!node.lastElementChild) node.replaceChildren(document.createTextNode(''), make('small'));
  node.firstChild.data !== number && (node.firstChild.data = number);
  write(node.lastElementChild, unit ? ` ${unit}` : '');
}

// Between two values, the page's own clock counts the time of a live run. A replay has the clock of its record.
const elapsed = () => value ? value.elapsed_s + (value.live && !value.replay ? (performance.now() - at) / 1000 : 0) : 0;

function drawTimes() {
  drawnAt = performance.now();
  const whole = elapsed(), age = value.since_s + (whole - value.elapsed_s);
  write($('.clock'), seconds(value.live ? age : whole));
  write($('[data-total]'), seconds(whole));
  const lasted = (s, i, all) => !['complete', 'stopped', 'error'].includes(s.phase) && (all[i + 1]?.start ?? whole) - s.start > 0.004;
  const stretches = value.stretches.filter(lasted);
  const ends = stretches.map((s, i) => stretches[i + 1]?.start ?? whole);
  drawList($('.stretches'), stretches, () => make('i'), (node, s, i) => {
    node.dataset.p = s.phase;
    node.style.width = share(ends[i] - s.start, whole);
    node.title = `${NAMES[s.phase]}: ${seconds(ends[i] - s.start)}`;
  });
  const sums = new Map();
  stretches.forEach((s, i) => sums.set(s.phase, (sums.get(s.phase) ?? 0) + ends[i] - s.start));
  drawList($('.legend'), [...sums], () => make('li', {}, make('i'), make('span')), (node, [phase, sum]) => {
    node.firstElementChild.dataset.p = phase;
    write(node.lastElementChild, `${phase} ${seconds(sum)}`);
  });
  drawBars(whole);
}

// Bars keep their elements by the id of the step, because a new bar moves the ones below it down.
function drawBars(whole) {
  const bars = $('.bars'), known = new Map([...bars.children].map((node) => [node.dataset.call, node]));
  const there = new Set(value.steps.map((step) => step.id));
  for (const [id, node] of known) if (!there.has(id)) node.remove(); // a replay also moves back
  value.steps.forEach((step, i) => {
    const node = known.get(step.id) ?? makeBar();
    if (bars.children[i] !== node) bars.insertBefore(node, bars.children[i] ?? null);
    fillBar(node, step, whole);
  });
}

function makeBar() {
  const cancel = make('button', { type: 'button' }, 'Cancel this call');
  const detail = make('div', { className: 'detail' }, make('p'), make('pre'), make('p'), make('pre'), cancel);
  const name = make('button', { type: 'button', ariaExpanded: 'false' }), track = make('span', { className: 'track' }, make('i'));
  return make('li', {}, name, track, make('span'), detail);
}

const LABELS = { tool: ['Input', 'Output'], chain: ['New input', 'New output'], model: ['', 'Tokens used'] };

function fillBar(node, step, whole) {
  const end = step.end ?? whole;
  node.dataset.kind = step.kind;
  node.dataset.call = step.id;
  node.toggleAttribute('data-failed', Boolean(step.error));
  node.title = step.error ? `${step.name}: ${step.error}` : step.name;
  write(node.children[0], step.name);
  node.children[0].style.paddingLeft = `${Math.min(step.depth, 4) * 10}px`;
  const bar = node.children[1].firstElementChild;
  bar.style.left = share(step.start, whole);
  bar.style.width = share(end - step.start, whole);
  write(node.children[2], seconds(end - step.start));
  const [inputLabel, input, outputLabel, output, cancel] = node.children[3].children;
  cancel.hidden = step.kind !== 'tool' || step.end != null || !value.live || Boolean(value.replay);
  if (step.input === undefined) return; // it has not changed
  const [inputText, outputText] = LABELS[step.kind];
  write(inputLabel, step.input ? inputText : '');
  write(input, step.input);
  write(outputLabel, step.error ? `Failed: ${step.error}` : step.end == null ? `${outputText} so far` : outputText);
  write(output, step.output || 'none');
}

function draw() {
  const next = props.value;
  if (!next?.run) {
    value = null;
    panel.dataset.phase = 'idle';
    write($('.phase'), NAMES.idle);
    for (const selector of ['.clock', '.step', '[data-made]', '[data-tools]', '[data-total]']) write($(selector), '');
    for (const name of ['ttft', 'tokens', 'rate', 'average']) figure(name, '–', '');
    for (const selector of ['.stretches', '.legend', '.bars']) $(selector).replaceChildren();
    $('.thoughts').hidden = true;
    return emit('panel', next);
  }
  if (next.run !== value?.run) $('.bars').replaceChildren();
  if (next.run !== value?.run || next.live !== value?.live) emit('run');
  value = next; at = performance.now();
  emit('panel', value);
  panel.dataset.phase = value.phase;
  write($('.phase'), NAMES[value.phase] ?? value.phase);
  write($('.step'), !value.live ? value.said : value.phase === 'thinking' && value.thoughts ? `… ${value.thoughts.slice(-90)}` : (value.step ?? ''));
  figure('ttft', value.ttft_s == null ? '–' : value.ttft_s.toFixed(2), value.ttft_s == null ? '' : 's');
  write($('[data-label=tokens]'), value.estimated ? 'Tokens ≈' : 'Tokens');
  figure('tokens', value.tokens.toLocaleString('en'), '');
  figure('rate', value.rate == null || value.ttft_s == null ? '–' : value.rate.toFixed(1), value.rate == null || value.ttft_s == null ? '' : '/s');
  figure('average', value.average == null ? '–' : value.average.toFixed(1), value.average == null ? '' : '/s');
  write($('[data-made]'), `${value.backend}${value.model ? ` (${value.model})` : ''} · memory: ${value.memory}${value.input_tokens ? ` · input ${value.input_estimated ? '≈ ' : ''}${value.input_tokens.toLocaleString('en')} tokens` : ''}`);
  write($('[data-tools]'), value.tools.length ? `Tools called: ${value.tools.join(', ')}` : '');
  $('.thoughts').hidden = !value.thoughts;
  if (value.thoughts) write($('.thoughts p'), value.thoughts);
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
// A live run sends a value at least once a second: silence means a lost connection, not a slow model.
const SILENT_MS = 4000;
const ticking = setInterval(() => {
  if (!element.isConnected) clearInterval(ticking);
  else if (value?.live && !value.replay && value.phase !== 'approval' && performance.now() - at > SILENT_MS) {
    panel.dataset.phase = 'stalled';
    write($('.phase'), 'Connection lost');
    write($('.step'), 'The run continues on the server. The page reconnects as soon as the server answers.');
    emit('lost');
  } else if (value?.live && !value.replay && !document.hidden && performance.now() - drawnAt > 150) drawTimes();
}, 100);
