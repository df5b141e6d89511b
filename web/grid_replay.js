// Replays the run of a cell from its record, in its recorded time or faster.

import './dom.js';
import { apply, reset } from './grid_cells.js';
import { eventOf, lengthOf } from './grid_record.js';

const { make, write } = window.glassbox;
const SPEEDS = [1, 2, 5, 10];

/** Returns a function that returns the cell as it was some milliseconds after its run had begun. */
export function player(cell) {
  const { entries } = cell.record;
  let shown = null, next = 0, last = 0;
  return (ms) => {
    if (!shown || ms < last) {
      shown = reset({ index: cell.index, prompt: cell.prompt, column: cell.column, trial: cell.trial });
      next = 0;
    }
    last = ms;
    while (next < entries.length && entries[next][0] <= ms) apply(shown, eventOf(cell, entries[next++]));
    return shown;
  };
}

/**
 * Makes the controls of a replay: play or pause, the position, the speed. `draw` gets the cell to show, the cell itself at the end.
 * @param {any} cell @param {(shown: any) => void} draw
 */
export function replayControls(cell, draw) {
  const end = lengthOf(cell), cellAt = player(cell), play = make('button', { type: 'button' }, 'Replay'), time = make('span', { className: 'quiet' });
  const position = make('input', { type: 'range', min: 0, max: end, step: 1, value: end, ariaLabel: 'Position in the replay, in milliseconds' });
  const speed = make('select', { ariaLabel: 'Speed of the replay' }, ...SPEEDS.map((one) => new Option(`${one} ×`, one)));
  let frame = 0, before = 0, at = end;
  const show = () => {
    position.value = at;
    write(time, `${(at / 1000).toFixed(1)} of ${(end / 1000).toFixed(1)} s`);
    draw(at < end ? cellAt(at) : cell);
  };
  const pause = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    write(play, 'Replay');
  };
  const step = (now) => {
    frame = 0;
    if (!play.isConnected) return; // the dialog shows something else
    at = Math.min(end, at + (now - before) * Number(speed.value));
    before = now;
    show();
    if (at < end) frame = requestAnimationFrame(step);
    else pause();
  };
  play.addEventListener('click', () => {
    if (frame) return pause();
    if (at >= end) at = 0;
    before = performance.now();
    write(play, 'Pause');
    show();
    frame = requestAnimationFrame(step);
  });
  position.addEventListener('input', () => {
    at = Number(position.value);
    show();
  });
  write(time, `${(end / 1000).toFixed(1)} s`);
  return make('div', { className: 'bar replay' }, play, position, time, speed);
}
