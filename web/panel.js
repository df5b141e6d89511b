// The head of the panel, its tabs, and the run that it shows: the page's own, or that of an earlier reply. The scripts of the
// tabs draw the events `shown` (the value) and `clock` (seconds since the run's start).
const { emit, make, number, on, write } = window.glassbox;
const $ = (selector) => element.querySelector(selector);
const panel = $('.panel'), tabs = [...element.querySelectorAll('[role=tab]')];
const NAMES = {
  idle: 'Idle', queued: 'Queued', waiting: 'Waiting', thinking: 'Thinking', streaming: 'Streaming', tool: 'Running a tool',
  approval: 'Waiting for your approval', stalled: 'Stalled', complete: 'Done', stopped: 'Stopped', error: 'Failed',
};
const EXPLAINED = ['queued', 'approval', 'stalled']; // phases whose sentence says more than their name
let latest = null, shown = null, wanted = null, at = 0, drawnAt = 0, lost = false; // `wanted`: the earlier run to show

const seconds = (s) => s < 10 ? `${s.toFixed(2)} s` : s < 100 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`;
const isLive = (value) => Boolean(value?.live && !value.replay);

function figure(name, text, unit) {
  const node = $(`[data-figure=${name}]`);
  if (!node.lastElementChild) node.replaceChildren(document.createTextNode(''), make('small'));
  if (node.firstChild.data !== text) node.firstChild.data = text;
  write(node.lastElementChild, text === '–' ? '' : unit);
}

const dollars = new Intl.NumberFormat('en', { style: 'currency', currency: 'USD', maximumSignificantDigits: 3 });
const rounded = (n, digits) => n == null ? '–' : n.toFixed(digits);

// The totals are known when the run has ended.
function drawCost({ cost_usd: own, conversation_cost_usd: all, day_cost_usd: day, estimated, input_estimated: guessed }) {
  figure('cost', `${estimated || guessed ? '≈ ' : ''}${dollars.format(own)}`, all == null ? '' : ` · ${dollars.format(all)} here, ${dollars.format(day)} today`);
  $('[data-cost]').title = all == null ? '' : `This conversation has cost ${dollars.format(all)}, all that you sent since midnight UTC ${dollars.format(day)}`;
}

// Between two values, the page's own clock counts the time of a live run. A replay has the clock of its record.
function drawClock() {
  drawnAt = performance.now();
  const elapsed = shown.elapsed_s + (isLive(shown) ? (drawnAt - at) / 1000 : 0);
  write($('.clock'), seconds(elapsed));
  emit('clock', elapsed);
}

// The second line: what the phase waits for, else what answers.
function sentence(value, retry) {
  if (lost) return 'The run continues. Reconnecting …';
  if (value.live && value.step && (retry || EXPLAINED.includes(value.phase))) return value.step;
  return `${value.backend}${value.model ? ` (${value.model})` : ''} · memory: ${value.memory}`;
}

function draw(value) {
  shown = value?.run ? value : null;
  panel.toggleAttribute('data-idle', !shown);
  panel.toggleAttribute('data-live', Boolean(shown?.live));
  panel.dataset.run = shown?.run ?? '';
  panel.dataset.phase = !shown ? 'idle' : lost ? 'stalled' : shown.phase;
  const retry = shown?.live && /Retrying: \d+ of \d+/.exec(shown.said)?.[0];
  write($('.phase'), lost ? 'Connection lost' : retry || NAMES[panel.dataset.phase] || panel.dataset.phase);
  $('.older').hidden = !shown?.inspected;
  write($('.older span'), shown?.inspected ? `Earlier reply${shown.inspected.question ? ` to “${shown.inspected.question}”` : ''}` : '');
  emit('shown', value);
  if (!shown) return write($('.clock'), '');
  const said = sentence(shown, retry), begun = shown.ttft_s != null;
  write($('.step'), said);
  $('.step').title = said;
  figure('ttft', rounded(shown.ttft_s, 2), ' s');
  write($('[data-label=input]'), shown.input_estimated ? 'Tokens in ≈' : 'Tokens in');
  figure('input', shown.input_tokens == null ? '–' : number(shown.input_tokens), '');
  write($('[data-label=tokens]'), shown.estimated ? 'Tokens out ≈' : 'Tokens out');
  figure('tokens', number(shown.tokens), '');
  $('[data-figure=input]').title = shown.cached_tokens ? `${number(shown.cached_tokens)} of them came from the provider's cache` : '';
  $('[data-cost]').hidden = shown.cost_usd == null;
  if (shown.cost_usd != null) drawCost(shown);
  figure('rate', begun ? rounded(shown.rate, 1) : '–', ' /s');
  figure('average', rounded(shown.average, 1), ' /s');
  drawClock();
}

// A value of an earlier run is drawn only if it is still wanted. A new run, or another conversation, is always drawn.
function take() {
  const value = props.value;
  if (value?.inspected) return value.run === wanted && draw(value);
  const other = value?.run !== latest?.run;
  if (value?.run && (other || value.live !== latest.live)) emit('run');
  [latest, at, lost] = [value, performance.now(), false];
  emit('panel', latest);
  if (other) wanted = null;
  if (!wanted) draw(latest);
}

function inspect(run) {
  if (run === latest?.run) return back();
  wanted = run;
  if (props.value?.inspected && props.value.run === run) draw(props.value); // an equal value is no change
  else trigger('inspect', { run });
}

// The values of a live run leave out what has not changed, so a whole one is requested.
function back() {
  wanted = null;
  draw(latest);
  if (isLive(latest)) trigger('inspect', { run: latest.run });
}

// The button below a reply. On a phone the panel opens.
document.addEventListener('click', (event) => {
  const button = event.target.closest?.('#chat .turn :is([data-inspect], [data-context])');
  if (!button || !element.isConnected) return;
  event.stopPropagation(); // else the page would open the context viewer
  inspect(button.dataset.inspect ?? button.dataset.context);
  if (panel.dataset.stop === 'line') stop('half');
  emit('inspected');
}, true);
$('.older button').addEventListener('click', back);

function select(tab, focus) {
  for (const one of tabs) {
    one.ariaSelected = String(one === tab);
    one.tabIndex = one === tab ? 0 : -1;
    $(`#${one.getAttribute('aria-controls')}`).hidden = one !== tab;
  }
  if (focus) tab.focus();
  emit('tab', tab.getAttribute('aria-controls'));
}
$('.tabs').addEventListener('click', ({ target }) => tabs.includes(target) && select(target));
$('.tabs').addEventListener('keydown', (event) => {
  const place = tabs.indexOf(event.target), last = tabs.length - 1;
  const next = { ArrowRight: place < last ? place + 1 : 0, ArrowLeft: place > 0 ? place - 1 : last, Home: 0, End: last }[event.key];
  if (place < 0 || next === undefined) return;
  event.preventDefault();
  select(tabs[next], true);
});
$('.wide').addEventListener('click', () => { $('.wide').ariaPressed = String(panel.toggleAttribute('data-wide')); });

// On a phone the panel is a sheet at the bottom with three stops.
const STOPS = ['line', 'half', 'full'], phone = matchMedia('(max-width: 860px)');
const LABELS = { line: 'Open the run panel', half: 'Show the run panel in full', full: 'Close the run panel' };
function stop(name) {
  panel.dataset.stop = name;
  $('.sheet').ariaExpanded = String(name !== 'line');
  $('.sheet').ariaLabel = LABELS[name];
}
// Its head can be dragged: the sheet follows the finger, and ends at the nearest stop.
const outer = element.closest('#agent-state') ?? element, SLACK_PX = 8;
let drag = null, dragged = false;
$('.sheet').addEventListener('pointerdown', (event) => {
  dragged = false;
  if (!phone.matches || !event.isPrimary || event.button) return;
  drag = { y: event.clientY, height: outer.offsetHeight };
  $('.sheet').setPointerCapture(event.pointerId);
});
$('.sheet').addEventListener('pointermove', ({ clientY }) => {
  if (!drag || !(dragged ||= Math.abs(drag.y - clientY) > SLACK_PX)) return;
  if (panel.dataset.stop === 'line') stop('half'); // shows what is pulled up
  outer.style.height = `${Math.max(44, Math.min(innerHeight - 48, drag.height + drag.y - clientY))}px`;
});
function drop({ type }) {
  if (drag && dragged) {
    const at = outer.offsetHeight, heights = [44, innerHeight / 2, innerHeight - 48], gaps = heights.map((height) => Math.abs(height - at));
    outer.style.height = '';
    stop(STOPS[gaps.indexOf(Math.min(...gaps))]);
  }
  drag = null;
  if (type === 'pointercancel') dragged = false;
}
for (const end of ['pointerup', 'pointercancel']) $('.sheet').addEventListener(end, drop);
$('.sheet').addEventListener('click', ({ detail }) => { // 0: from the keyboard
  if (!dragged || !detail) stop(STOPS[(STOPS.indexOf(panel.dataset.stop) + 1) % STOPS.length]);
  dragged = false;
});
element.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || !phone.matches || panel.dataset.stop === 'line') return;
  event.preventDefault();
  event.stopPropagation();
  stop(STOPS[STOPS.indexOf(panel.dataset.stop) - 1]);
  if (panel.dataset.stop === 'line') $('.sheet').focus();
});

on('cancel', (call) => trigger('cancel', { call }), element);
watch('value', take);
// The scripts of the tabs listen by then.
queueMicrotask(take);
// A live run sends a value at least once a second: silence means a lost connection, not a slow model.
const SILENT_MS = 4000;
const ticking = setInterval(() => {
  if (!element.isConnected) return clearInterval(ticking);
  if (isLive(latest) && latest.phase !== 'approval' && performance.now() - at > SILENT_MS) {
    emit('lost');
    if (!lost && !wanted) { lost = true; draw(latest); }
  } else if (isLive(shown) && !document.hidden && performance.now() - drawnAt > 150) drawClock();
}, 100);
