// The controls of a replay, in place of the prompt. components/replay.py plays it, and the panel's value has its position.
const { on, write } = window.glassbox;
const bar = element.querySelector('.replay');
const [play, moment, label, speed, link] = ['.play', 'input', '.moment', 'select', 'a'].map((s) => bar.querySelector(s));
const AGAIN_MS = 100; // between two positions while the slider is dragged
let run = null, shown = null, held = false, timer = null;

const seconds = (s) => s < 100 ? s.toFixed(1) : String(Math.round(s));

function draw(at, length, playing) {
  write(label, `${seconds(at)} / ${seconds(length)} s`);
  write(play, playing ? '❚❚' : '▶');
  play.ariaLabel = playing ? 'Pause' : 'Play';
}

function go(playing, at = Number(moment.value)) {
  clearTimeout(timer);
  timer = null;
  shown.playing = playing;
  draw(at, shown.length_s, playing);
  trigger('play', { at, speed: Number(speed.value), playing });
}

on('panel', (value) => {
  const isReplay = Boolean(value?.run && value.replay);
  document.body.classList.toggle('replaying', isReplay);
  bar.hidden = !isReplay;
  if (!isReplay) { run = shown = null; return; }
  const first = value.run !== run;
  [run, shown] = [value.run, { ...value.replay }];
  moment.max = String(shown.length_s);
  link.href = value.conversation ? `?conversation=${encodeURIComponent(value.conversation)}` : location.pathname; // the example has none
  write(link, value.conversation ? 'Open the conversation' : 'Start a conversation');
  if (first) return setTimeout(() => { if (shown) go(true, 0); });
  if (held || timer) return; // the reader holds the slider
  moment.value = String(shown.at_s);
  draw(shown.at_s, shown.length_s, shown.playing);
}, element);

play.addEventListener('click', () => {
  const ended = Number(moment.value) >= shown.length_s - 0.005;
  if (!shown.playing && ended) moment.value = '0';
  go(!shown.playing);
});
moment.addEventListener('input', () => {
  held = true;
  draw(Number(moment.value), shown.length_s, false);
  timer ??= setTimeout(() => go(false), AGAIN_MS);
});
moment.addEventListener('change', () => { held = false; go(false); });
speed.addEventListener('change', () => go(shown.playing));
