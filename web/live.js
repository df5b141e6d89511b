// The live line says what a run does while its reply does not grow. Its place is reserved below the reply, so that nothing
// moves when the next text comes. Screen readers announce the changes of the phase and the ended reply, but no growing text.
const { emit, on, write } = window.glassbox;
const $ = (selector) => document.querySelector(selector);
const [line, status, alert, answer] = ['.line', '[role=status]', '[role=alert]', 'button'].map((s) => element.querySelector(s));
const TICK_MS = 100, SETTLED_MS = 400, LEFT_MS = 3000, MOST = 10_000;
const SPOKEN = {
  queued: 'Queued', waiting: 'Waiting for the model', thinking: 'Thinking', streaming: 'Writing', tool: 'Running a tool',
  approval: 'Waiting for your approval', stalled: 'Stalled', stopped: 'Stopped',
};
let value = null, at = 0, lost = false; // the panel's latest value of a run, and when it came
let announced = null, phase = '', retry = ''; // the run that is announced, its phase and its latest retry
let saying = 0, leaving = 0;

const seconds = (s) => `${s < 100 ? s.toFixed(1) : Math.round(s)} s`;

function running(elapsed) {
  const open = value.steps.filter((step) => step.kind === 'tool' && step.end == null);
  if (!open.length) return `Running tools · ${seconds(value.since_s)}`;
  const since = elapsed - Math.min(...open.map((step) => step.start));
  return `Running ${open.length === 1 ? open[0].name : `${open.length} tools`} · ${seconds(Math.max(0, since))}`;
}

// What the run does, in a few words; empty while its text or its thinking grows.
function activity() {
  const late = value.replay ? 0 : (performance.now() - at) / 1000, age = seconds(value.since_s + late), said = value.said ?? '';
  if (lost) return 'Connection lost · reconnecting';
  if (value.phase === 'tool') return running(value.elapsed_s + late);
  if (value.phase === 'stalled') return `Stalled · ${age}`;
  if (value.phase === 'streaming') return said.startsWith('Writing a call') ? said : '';
  if (value.phase !== 'queued' && value.phase !== 'waiting') return '';
  const [, again] = said.match(/(?:Attempt|Retrying:?) (\d+ of \d+)/) ?? [], [, ahead] = said.match(/(\d+) ahead of you/) ?? [];
  const [, work, , share] = said.match(/^((Reading|Loading) .+?)(?:, (\d+)\s?%)?$/) ?? [];
  if (again) return `Retrying: ${again} · ${age}`;
  if (ahead) return `Queued · ${ahead} before you`;
  if (work) return share ? `${work} · ${share} %` : work;
  return `${value.phase === 'queued' ? 'Queued' : 'Waiting'} · ${age}`;
}

// Some models can end their thinking and answer. The button stands in the line, which is empty meanwhile.
function canAnswer() {
  const one = window.glassbox.backend;
  return Boolean(value?.live && !value.replay && !lost && value.phase === 'thinking' && one?.continues_replies && one.name === value.backend);
}
answer.addEventListener('click', () => {
  answer.disabled = true;
  trigger('end_thinking');
  emit('focus');
});

function draw() {
  const text = value?.live ? activity() : '';
  if (answer.hidden === canAnswer()) Object.assign(answer, { hidden: !answer.hidden, disabled: false });
  write(line, text);
  line.dataset.phase = text ? value.phase : '';
}

// The line of an ended run keeps its place until the conversation has the reply.
function leave() {
  if (value?.live) return;
  clearTimeout(leaving);
  line.hidden = true;
}

function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => write(status, text), SETTLED_MS); // a phase that is over at once is not worth a word
}

on('panel', (next) => {
  value = next?.run ? next : null;
  at = performance.now();
  lost = false;
  clearTimeout(leaving);
  if (value?.live) line.hidden = false; else if (value) leaving = setTimeout(leave, LEFT_MS); else leave();
  draw();
  announce();
}, element);
on('lost', () => {
  if (!lost && announced) say('Connection lost. Reconnecting');
  lost = true;
  draw();
}, element);

function announce() {
  if (!value || value.replay) { announced = null; return; }
  if (value.live && announced !== value.run) { announced = value.run; phase = retry = ''; write(alert, ''); }
  if (announced !== value.run) return;
  const again = value.live && /Retrying: \d+ of \d+/.exec(value.said ?? '')?.[0];
  if (again && again !== retry) {
    [retry, phase] = [again, value.phase];
    return say(again);
  }
  if (phase === value.phase) return;
  phase = value.phase;
  clearTimeout(saying);
  if (phase === 'error') { write(status, ''); write(alert, `The reply failed. ${value.said}`); }
  else if (SPOKEN[phase]) say(SPOKEN[phase]);
}

// The text of the last reply, with the note below it and without its thinking and tool calls.
function replyText() {
  const rows = [...document.querySelectorAll('#chat .message-row')], start = rows.findLastIndex((row) => row.matches('.user-row'));
  const texts = rows.slice(start + 1).map((row) => row.querySelector('[data-testid]:not(:has(.parts))')?.innerText ?? '');
  return texts.filter(Boolean).join('\n').slice(0, MOST);
}

on('turns', (turns) => {
  leave();
  if (!value || value.live || announced !== value.run || turns.at(-1)?.run !== announced) return;
  announced = null;
  if (value.phase === 'error') return;
  clearTimeout(saying);
  setTimeout(() => {
    write(status, replyText());
    saying = setTimeout(() => write(status, ''), LEFT_MS); // else the page would have the reply twice
  });
}, element);

// The Chatbots are logs, which announce each token.
function silence(place, name) {
  const log = $(`${place} [role=log]`);
  if (log) Object.assign(log, { role: 'group', ariaLive: 'off', ariaLabel: name });
}
const begin = new MutationObserver(() => {
  if (!$('#chat [role=log]') || !$('#live-reply [role=log]')) return;
  begin.disconnect();
  silence('#chat', 'Conversation');
  silence('#live-reply', 'The reply so far');
});
begin.observe(document.documentElement, { childList: true, subtree: true });

line.hidden = true;
const ticking = setInterval(() => {
  if (!element.isConnected) clearInterval(ticking);
  else if (value?.live && line.textContent && !document.hidden) draw();
}, TICK_MS);
