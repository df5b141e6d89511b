// The panel's tab *Run*: the time of each phase, and a bar for each step, on one time axis; and the curve of the rate, which
// has the same axis.
const { drawList, emit, make, on, write } = window.glassbox;
const $ = (selector) => element.querySelector(selector);
const bars = $('.bars'), empty = $('#timeline .empty');
const ENDS = ['complete', 'stopped', 'error'], TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
const MOST_TICKS = 5, HEIGHT = 32;
let value = null, end = 1;

const seconds = (s) => s < 10 ? `${s.toFixed(2)} s` : s < 100 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`;
const share = (s) => `${(100 * Math.min(1, Math.max(0, s / end))).toFixed(2)}%`;
const moment = (s) => s >= 60 && s % 60 === 0 ? `${s / 60} min` : `${Number(s.toFixed(1))} s`;

// The axis ends at a tick, so that it changes only a few times while a run grows. A replay's is that of the whole run.
function drawAxis(elapsed) {
  const whole = value.replay?.length_s ?? elapsed, tick = TICKS.find((one) => whole <= one * MOST_TICKS) ?? whole / MOST_TICKS;
  const count = Math.max(1, Math.ceil(whole / tick - 1e-6));
  end = count * tick;
  drawList($('.axis'), Array.from({ length: count + 1 }, (_, i) => i * tick), () => make('li', {}, make('span')), (item, at) => {
    item.style.left = share(at);
    write(item.firstChild, moment(at));
  });
}

// [phase, start, end] of the phases that took some time.
function spans(elapsed) {
  const all = value.stretches.map((one, i) => [one.phase, one.start, value.stretches[i + 1]?.start ?? elapsed]);
  return all.filter(([phase, from, until]) => !ENDS.includes(phase) && until - from > 0.004);
}

function place(node, [phase, from, until]) {
  node.dataset.p = phase;
  node.style.left = share(from);
  node.style.width = share(until - from);
}

function drawPhases(elapsed) {
  const found = spans(elapsed), sums = new Map();
  drawList($('.stretches'), found, () => make('i'), (node, span) => {
    place(node, span);
    node.title = `${span[0]}: ${seconds(span[2] - span[1])}`;
  });
  for (const [phase, from, until] of found) sums.set(phase, (sums.get(phase) ?? 0) + until - from);
  drawList($('.legend'), [...sums], () => make('li', {}, make('i'), make('span')), (node, [phase, sum]) => {
    node.firstElementChild.dataset.p = phase;
    write(node.lastElementChild, `${phase} ${seconds(sum)}`);
  });
  drawList($('.shades'), found.filter(([phase]) => ['tool', 'approval', 'stalled'].includes(phase)), () => make('i'), place);
}

// Neighbouring spans of the curve are averaged, because chunks come in bursts.
function drawCurve(elapsed) {
  const { span_s: span, rates } = value.curve, all = [...rates];
  while (all.length * span < elapsed - span) all.push(0);
  const even = all.map((rate, i) => ((all[i - 1] ?? 0) + 2 * rate + (all[i + 1] ?? 0)) / 4), top = Math.max(1, ...even);
  const points = even.map((rate, i) => `${(100 * (i + 0.5) * span / end).toFixed(2)} ${(HEIGHT - 1 - (HEIGHT - 3) * rate / top).toFixed(1)}`);
  const line = points.length && rates.length ? `M${points.join('L')}` : '';
  $('.line').setAttribute('d', line);
  $('.area').setAttribute('d', line && `${line}L${points.at(-1).split(' ')[0]} ${HEIGHT}L${points[0].split(' ')[0]} ${HEIGHT}Z`);
  $('.speed').title = line ? `Tokens a second, at most ${top.toFixed(0)}` : '';
}

function makeBar() {
  const cancel = make('button', { type: 'button' }, 'Cancel this call');
  const name = make('button', { type: 'button', ariaExpanded: 'false' }), track = make('span', { className: 'track' }, make('i'));
  return make('li', {}, name, track, make('span', { className: 'took' }), make('div', { className: 'detail' }, cancel));
}

function fillBar(node, step, elapsed) {
  const [name, track, took, detail] = node.children, until = step.end ?? elapsed, cancel = detail.lastElementChild;
  Object.assign(node.dataset, { kind: step.kind, call: step.call, row: step.id });
  node.marks = step.marks;
  node.toggleAttribute('data-failed', Boolean(step.error));
  node.toggleAttribute('data-cancelled', /^cancelled/.test(step.error ?? ''));
  node.title = `${step.name}${step.error ? `: ${step.error}` : ''}${step.wrappers.length ? ` (in ${step.wrappers.join(' › ')})` : ''}`;
  write(name, step.name);
  name.style.paddingLeft = `${4 + Math.min(step.depth, 4) * 10}px`;
  track.firstElementChild.style.left = share(step.start);
  track.firstElementChild.style.width = share(until - step.start);
  // the part of a model call in which the prompt was read
  track.firstElementChild.style.setProperty('--read', step.read_s ? `${(100 * Math.min(1, step.read_s / Math.max(until - step.start, 0.001))).toFixed(2)}%` : '0%');
  write(took, seconds(until - step.start));
  cancel.hidden = step.kind !== 'tool' || step.end != null || !value.live || Boolean(value.replay);
  if (!step.blocks) return; // they have not changed
  while (detail.children.length > 1 + 2 * step.blocks.length) detail.firstElementChild.remove();
  while (detail.children.length < 1 + 2 * step.blocks.length) cancel.before(make('p'), make('pre', { tabIndex: 0 }));
  step.blocks.forEach(([label, text], i) => {
    write(detail.children[2 * i], label);
    write(detail.children[2 * i + 1], text);
  });
}

// Bars keep their elements by the id of the step, because a new bar moves the ones below it down.
function drawBars(elapsed) {
  const known = new Map([...bars.children].map((node) => [node.dataset.row, node])), there = new Set(value.steps.map((step) => step.id));
  for (const [id, node] of known) if (!there.has(id)) node.remove(); // a replay also moves back
  value.steps.forEach((step, i) => {
    const node = known.get(step.id) ?? makeBar();
    if (bars.children[i] !== node) bars.insertBefore(node, bars.children[i] ?? null);
    fillBar(node, step, elapsed);
  });
}

on('shown', (next) => {
  if (next?.run !== value?.run) bars.replaceChildren();
  value = next?.run ? next : null;
  empty.hidden = Boolean(value);
  const play = !value && next?.latest ? make('a', { href: `?run=${encodeURIComponent(next.latest)}` }, next.example ? 'Play a recorded run' : 'Play your latest run') : '';
  empty.replaceChildren('Send a message to watch the model work. ', play);
  if (!value) for (const list of ['.axis', '.stretches', '.legend', '.shades']) $(list).replaceChildren();
}, element);
on('clock', (elapsed) => {
  drawAxis(elapsed);
  drawPhases(elapsed);
  drawBars(elapsed);
  drawCurve(elapsed);
}, element);

bars.addEventListener('click', ({ target }) => {
  const bar = target.closest('.bars > li');
  if (target.closest('.detail button')) emit('cancel', bar.dataset.call);
  else if (bar && !target.closest('.detail')) bar.children[0].ariaExpanded = String(bar.toggleAttribute('data-open'));
});
on('mark', ({ marks, from }) => {
  for (const bar of bars.children) bar.toggleAttribute('data-marked', from === 'chat' && bar.marks.some((one) => marks.includes(one)));
}, element);
