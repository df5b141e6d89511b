// Keeps the results of the page that compares in this tab for an hour, so that a reload does not lose them.

import { endLive } from './grid_cells.js';

const KEY = 'glassbox compare 1', HOUR_MS = 3_600_000, MOST = 2_000_000, POINTS = 80; // of a cell's curve
const withoutRecord = (name, value) => (name === 'record' ? null : thin(name, value));
const thin = (name, value) => (name === 'points' && value.length > POINTS ? value.filter((_, i) => i % Math.ceil(value.length / POINTS) === 0 || i === value.length - 1) : value);

/** Keeps a grid, without the records of its cells if it is too long with them. Returns false if it is too long or the browser refuses. */
export function keep(grid) {
  try {
    const kept = { at: Date.now(), grid };
    let text = JSON.stringify(kept, thin);
    if (text.length > MOST) text = JSON.stringify(kept, withoutRecord);
    if (text.length > MOST) {
      sessionStorage.removeItem(KEY);
      return false;
    }
    sessionStorage.setItem(KEY, text);
    return true;
  } catch {
    return false;
  }
}

/** Returns the kept grid, null without one or after an hour. Replies that were being written are ended. */
export function kept() {
  try {
    const { at, grid } = JSON.parse(sessionStorage.getItem(KEY) ?? '{}');
    if (grid && Date.now() - at < HOUR_MS) {
      endLive(grid.cells, 'stopped', 'Stopped: the page was left');
      return grid;
    }
    sessionStorage.removeItem(KEY);
  } catch { /* a browser may refuse storage */ }
  return null;
}
