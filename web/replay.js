// The controls of a replay, in the place of the prompt; the panel is told where it is, components/replay.py plays it.
const bar = element.querySelector('.replay');
const [play, moment, told, speed, link] = ['.play', 'input', '.moment', 'select', 'a'].map((s) => bar.querySelector(s));
const AGAIN_MS = 100; // between two places while the slider is drawn along
let run = null, shown = null, held = false, timer = null;

const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const seconds = (s) => s < 100 ? s.toFixed(1) : String(Math.round(s));

function draw(at, length, playing) {
  put(told, `${seconds(at)} / ${seconds(length)} s`);
  put(play, playing ? '❚❚' : '▶');
  play.ariaLabel = playing ? 'Pause' : 'Play';
}

function go(playing, at = Number(moment.value)) {
  clearTimeout(timer);
  timer = null;
  shown.playing = playing;
  draw(at, shown.length_s, playing);
  trigger('play', { at, speed: Number(speed.value), playing });
}

// What the panel shows of a run that is replayed; null for anything else.
window.glassboxReplay = (value) => {
  document.body.classList.toggle('replaying', Boolean(value));
  bar.hidden = !value;
  if (!value) { run = shown = null; return; }
  const first = value.run !== run;
  [run, shown] = [value.run, { ...value.replay }];
  moment.max = String(shown.length_s);
  link.href = `?conversation=${encodeURIComponent(value.conversation)}`;
  if (first) return setTimeout(() => { if (shown) go(true, 0); });
  if (held || timer) return; // the slider is where the reader has it
  moment.value = String(shown.at_s);
  draw(shown.at_s, shown.length_s, shown.playing);
};

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
