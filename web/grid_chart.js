// Charts of the page that compares, as SVG: tokens over time of several cells on one axis, and a small curve of tokens a second.

const SVG = 'http://www.w3.org/2000/svg';

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Returns the steps of an axis up to `most`: at most five round numbers. */
export function ticks(most) {
  if (!(most > 0)) return [0];
  const rough = most / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(12)));
}

/**
 * Returns a chart of tokens over time.
 * @param {{name: string, points: number[][], duration: number | null}[]} series
 */
export function overlay(series, width = 640, height = 280) {
  const left = 48, right = 12, top = 12, bottom = 34;
  const ends = series.map(({ points, duration }) => Math.max(duration ?? 0, points.at(-1)?.[0] ?? 0));
  const mostTime = Math.max(0.1, ...ends), mostTokens = Math.max(1, ...series.flatMap(({ points }) => points.map(([, n]) => n)));
  const x = (at) => left + (width - left - right) * at / mostTime, y = (n) => height - bottom - (height - top - bottom) * n / mostTokens;
  const chart = draw('svg', { viewBox: `0 0 ${width} ${height}`, class: 'overlay', role: 'img' });
  for (const n of ticks(mostTokens)) {
    chart.append(draw('line', { x1: left, x2: width - right, y1: y(n), y2: y(n), class: 'rule' }));
    chart.append(draw('text', { x: left - 6, y: y(n) + 4, 'text-anchor': 'end' }, n.toLocaleString('en')));
  }
  for (const at of ticks(mostTime)) chart.append(draw('text', { x: x(at), y: height - bottom + 16, 'text-anchor': 'middle' }, `${at} s`));
  chart.append(draw('text', { x: left, y: height - 4 }, 'Tokens over seconds since each run began'));
  series.forEach(({ points }, i) => {
    let path = `M${x(0)} ${y(0)}`, before = 0;
    for (const [at, n] of points) {
      path += `L${x(at).toFixed(1)} ${y(before).toFixed(1)}L${x(at).toFixed(1)} ${y(n).toFixed(1)}`;
      before = n;
    }
    chart.append(draw('path', { d: `${path}L${x(ends[i]).toFixed(1)} ${y(before).toFixed(1)}`, class: `line line-${i}` }));
  });
  chart.setAttribute('aria-label', series.map(({ name, points }, i) => `${name}: ${points.at(-1)?.[1] ?? 0} tokens in ${ends[i].toFixed(2)} s`).join('. '));
  return chart;
}

/** Returns the path of a curve, [x, y] of any units, within a box. */
export function curve(points, width, height) {
  const most = Math.max(0, ...points.map(([, value]) => value)), begin = points[0]?.[0] ?? 0, end = points.at(-1)?.[0] ?? 0;
  if (points.length < 2 || !most || end <= begin) return '';
  const at = ([time, value]) => `${(width * (time - begin) / (end - begin)).toFixed(1)} ${(height - 1 - (height - 2) * value / most).toFixed(1)}`;
  return `M${points.map(at).join('L')}`;
}

/** Returns an empty small curve; `curve` makes its path. */
export const sparkline = () => draw('svg', { class: 'spark', viewBox: '0 0 90 22', 'aria-hidden': 'true', preserveAspectRatio: 'none' }, draw('path', { d: '' }));
