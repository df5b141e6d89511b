// Medians and ranges of the figures of cells, and the rank of columns.

import { cellAt } from './grid_cells.js';

const two = (value) => value < 10 ? value.toFixed(2) : value.toFixed(1);
const whole = (value) => Math.round(value).toLocaleString('en');
const MAY_BE_ESTIMATED = ['input', 'tokens', 'speed'];
/** The measures. Of those with `better` the least or the most is best. */
export const MEASURES = [
  { id: 'ttft', name: 'First token', short: 'first token', better: 'less', write: (value) => `${two(value)} s` },
  { id: 'speed', name: 'Tokens a second', short: 'tokens/s', better: 'more', write: (value) => value.toFixed(1) },
  { id: 'duration', name: 'Duration', short: 'duration', better: 'less', write: (value) => `${two(value)} s` },
  { id: 'input', name: 'Tokens in', short: 'tokens in', better: null, write: whole },
  { id: 'tokens', name: 'Tokens out', short: 'tokens out', better: null, write: whole },
  { id: 'cost', name: 'Cost', short: 'cost', better: 'less', write: (value) => `$${Number(value.toPrecision(3))}` },
];

/** Returns { n, median, least, most } of numbers, null without any. Numbers that are not known (null) are ignored. */
export function summary(values) {
  const known = values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b), n = known.length;
  if (!n) return null;
  const median = n % 2 ? known[(n - 1) / 2] : (known[n / 2 - 1] + known[n / 2]) / 2;
  return { n, median, least: known[0], most: known[n - 1] };
}

// Only complete replies count: the figures of a stopped or failed one describe a part.
const figures = (cells, id) => summary(cells.filter((cell) => cell.phase === 'complete').map((cell) => cell[id]));
const isEstimated = (cells) => cells.some((cell) => cell.phase === 'complete' && cell.estimated);

/** Returns the summary of a measure over the trials of a prompt in a column. */
export function ofTrials(grid, prompt, column, id) {
  return figures(Array.from({ length: grid.trials }, (_, trial) => cellAt(grid, trial, prompt, column)), id);
}

/** Returns for each column { column, complete, failed, good, rated, estimated, ttft, speed … }, with a summary or null for each measure. */
export function byColumn(grid) {
  return grid.columns.map((_, column) => {
    const cells = grid.cells.filter((cell) => cell.column === column), found = { column };
    found.complete = cells.filter((cell) => cell.phase === 'complete').length;
    found.failed = cells.filter((cell) => cell.phase === 'error').length;
    found.estimated = isEstimated(cells);
    found.good = cells.filter((cell) => cell.rating > 0).length;
    found.rated = cells.filter((cell) => cell.rating).length;
    for (const { id } of MEASURES) found[id] = figures(cells, id);
    return found;
  });
}

/** Returns the columns that have a value of a measure, the best first. */
export function ranked(columns, measure) {
  const known = columns.filter((one) => one[measure.id]), way = measure.better === 'less' ? 1 : -1;
  return known.sort((a, b) => way * (a[measure.id].median - b[measure.id].median));
}

/** Returns the numbers of the columns with the best median of a prompt's row; none if fewer than two are known. */
export function bestOf(grid, prompt, measure) {
  const found = grid.columns.map((_, column) => ofTrials(grid, prompt, column, measure.id)?.median ?? null);
  const known = found.filter((value) => value !== null);
  if (!measure.better || known.length < 2) return [];
  const best = measure.better === 'less' ? Math.min(...known) : Math.max(...known);
  return known.every((value) => value === best) ? [] : found.flatMap((value, column) => (value === best ? [column] : []));
}

/** Writes a summary as text: the median, and the range of several values. */
export function written(measure, found, estimated = false) {
  if (!found) return '–';
  const sign = estimated && MAY_BE_ESTIMATED.includes(measure.id) ? '≈ ' : '', { median, least, most } = found;
  const range = found.n > 1 && least !== most ? ` (${measure.write(least)} to ${measure.write(most)})` : '';
  return `${sign}${measure.write(median)}${range}`;
}

/** Returns the tokens a second over time, [seconds, rate], of points [seconds, tokens]; each rate is over at least half a second. */
export function rates(points, window = 0.5) {
  const found = [];
  for (let i = 1, from = 0; i < points.length; i++) {
    while (from + 1 < i && points[i][0] - points[from + 1][0] >= window) from++;
    const passed = points[i][0] - points[from][0];
    if (passed > 0) found.push([points[i][0], (points[i][1] - points[from][1]) / passed]);
  }
  return found;
}

/** Returns how often each column was chosen, and how often the replies were called equal. */
export function counts(grid) {
  const wins = grid.columns.map(() => 0), chosen = Object.values(grid.votes);
  for (const column of chosen) if (column >= 0) wins[column]++;
  return { wins, equal: chosen.filter((column) => column < 0).length, votes: chosen.length };
}

/** Returns what is counted for each column beside the measures, [name, a text for each column]. */
export function countedOf(grid, columns) {
  const { wins, votes } = counts(grid), counted = [['Failed', columns.map((one) => String(one.failed))]];
  if (votes) counted.push(['Preferred', columns.map((one) => String(wins[one.column]))]);
  if (columns.some((one) => one.rated)) counted.push(['Good', columns.map((one) => (one.rated ? `${one.good} of ${one.rated}` : '–'))]);
  return counted;
}

/** Returns the numbers below `n` in a random order. */
export function shuffled(n, random = Math.random) {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
