// A picture of the table of columns, as PNG.

import { nameOf } from './grid_cells.js';
import { byColumn, countedOf, ranked, written } from './grid_statistics.js';
import { known } from './grid_export.js';

const ROW = 44, HEAD = 96, FOOT = 40, EDGE = 28, NAME = 300, FIELD = 170, SCALE = 2, FONT = 'system-ui, "Segoe UI", Roboto, sans-serif';

// Shortens a text to a width.
function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}

/** Returns the picture as a Blob, in the colours of the page. @param {string} title the page's title */
export async function asPicture(grid, title) {
  const columns = byColumn(grid), shown = known(columns), counted = countedOf(grid, columns), style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--gb-${name}`).trim();
  const page = getComputedStyle(document.body), fields = shown.length + counted.length;
  const canvas = document.createElement('canvas'), width = 2 * EDGE + NAME + FIELD * fields, height = HEAD + ROW * columns.length + FOOT;
  Object.assign(canvas, { width: width * SCALE, height: height * SCALE });
  const context = canvas.getContext('2d');
  context.scale(SCALE, SCALE);
  context.textBaseline = 'middle';
  const text = (words, x, y, { size = 14, weight = 400, tint = page.color, room = FIELD - 16 } = {}) => {
    context.font = `${weight} ${size}px ${FONT}`;
    context.fillStyle = tint;
    context.fillText(fit(context, words, room), x, y);
  };
  context.fillStyle = page.backgroundColor;
  context.fillRect(0, 0, width, height);
  text('Comparison', EDGE, 32, { size: 20, weight: 650, room: width - 2 * EDGE });
  const at = (i) => EDGE + NAME + FIELD * i, heads = [...shown.map(({ name }) => name), ...counted.map(([name]) => name)];
  heads.forEach((name, i) => text(name, at(i), HEAD - 18, { size: 12, tint: colour('quiet') }));
  columns.forEach((one, n) => {
    const middle = HEAD + ROW * n + ROW / 2 - 4;
    context.fillStyle = colour('line');
    context.fillRect(EDGE, HEAD + ROW * n, width - 2 * EDGE, 1);
    text(nameOf(grid.columns[one.column]), EDGE, middle, { weight: 600, room: NAME - 16 });
    shown.forEach((measure, i) => {
      const found = one[measure.id], best = measure.better && columns.length > 1 && ranked(columns, measure)[0].column === one.column;
      text(written(measure, found, one.estimated), at(i), middle, { weight: best ? 700 : 400, size: 13 });
      if (!found) return;
      const most = Math.max(...columns.map((other) => other[measure.id]?.median ?? 0)) || 1;
      context.fillStyle = colour(best ? 'accent' : 'edge');
      context.fillRect(at(i), middle + 12, Math.max(2, (FIELD - 24) * found.median / most), 4);
    });
    counted.forEach(([name, texts], i) => {
      text(texts[n], at(shown.length + i), middle, { tint: name === 'Failed' && one.failed ? colour('bad') : page.color });
    });
  });
  const count = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`, day = new Date(grid.at).toISOString().slice(0, 10);
  const about = `${count(grid.prompts.length, 'prompt')} · ${count(grid.trials, 'trial')} · medians of complete replies · ${title} · ${day}`;
  text(about, EDGE, height - FOOT / 2, { size: 12, tint: colour('quiet'), room: width - 2 * EDGE });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('The browser could not make the picture.'))), 'image/png');
  });
}
