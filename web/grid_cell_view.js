// Draws one cell of the page that compares.

import './dom.js';
import { ended } from './grid_cells.js';
import { curve, sparkline } from './grid_chart.js';
import { MEASURES, ofTrials, rates, summary, written } from './grid_statistics.js';

const { drawList, make, marked, write } = window.glassbox;
/** The most characters of a text in a cell; the dialog has all of it. */
export const SHOWN = 1200;
const PHASES = { queued: 'Queued', waiting: 'Waiting', thinking: 'Thinking', streaming: 'Writing', tool: 'Running a tool', approval: 'Approval', stalled: 'Stalled', complete: 'Complete', stopped: 'Stopped', error: 'Failed' };
// What a button is called, in its cell and by a screen reader.
const ACTS = {
  open: ['Open', 'Open'], stop: ['Stop', 'Stop'], retry: ['Retry', 'Retry'], approve: ['Approve', 'Approve'], decline: ['Decline', 'Decline'],
  good: ['👍', 'Good reply'], bad: ['👎', 'Bad reply'],
};
export const phaseName = (phase) => PHASES[phase] ?? phase;

/** Makes the elements of a cell: its root, and its parts by name. */
export function makeCell(column) {
  const at = {
    name: make('h4'), phase: make('span', { className: 'phase' }), figures: make('dl', { className: 'figures' }), remark: make('p', { className: 'remark' }),
    text: make('div', { className: 'text' }), words: make('span'), footer: make('footer'), choose: make('input', { type: 'checkbox' }), spark: sparkline(),
  };
  for (const [act, [text]] of Object.entries(ACTS)) {
    at[act] = make('button', { type: 'button', hidden: true }, text);
    at[act].dataset.do = act;
  }
  at.open.hidden = false;
  at.text.append(at.words);
  at.footer.append(at.open, at.stop, at.retry, at.approve, at.decline, at.good, at.bad, make('label', {}, at.choose, 'Choose'));
  at.choose.dataset.do = 'choose';
  const root = make('article', { className: 'cell' }, make('div', { className: 'top' }, at.name, at.spark, at.phase), at.figures, at.text, at.remark, at.footer);
  root.dataset.column = column;
  return { root, at };
}

const makeFigure = () => make('div', {}, make('dt'), make('dd'));

/** Returns the figures of a cell: [name, value, whether it is the best of its row]. */
export function figuresOf(grid, cell, best = () => false) {
  return MEASURES.filter(({ id }) => cell[id] != null && !(id === 'tokens' && !cell.tokens)).map((measure) => {
    return [measure.short, written(measure, summary([cell[measure.id]]), cell.estimated), best(measure)];
  });
}

export function drawFigures(list, figures) {
  drawList(list, figures, makeFigure, (node, [name, value, best]) => {
    write(node.firstChild, name);
    write(node.lastChild, value);
    node.lastChild.className = best ? 'best' : '';
  });
}

// The remark below a cell's text: an error and what to do, the tool that waits, another backend, medians. In a blind test it
// names nothing.
function remarkOf(grid, cell, blind) {
  if (cell.error) return blind ? 'This reply failed.' : cell.error.message;
  if (cell.stopping) return cell.runId ? 'Stopping' : 'Will be stopped when its turn comes';
  if (cell.approval) return `${cell.approval.tool} waits for your approval: ${JSON.stringify(cell.approval.input)}`;
  if (blind) return '';
  const remarks = cell.phase === 'complete' ? [] : [cell.status];
  if (cell.answeredBy) remarks.push(`Answered by ${cell.answeredBy}`);
  if (grid.trials > 1) {
    const medians = MEASURES.map((measure) => [measure, ofTrials(grid, cell.prompt, cell.column, measure.id)]).filter(([, found]) => found?.n > 1);
    const texts = medians.map(([measure, found]) => `${measure.short} ${written(measure, found)}`);
    if (texts.length) remarks.push(`Medians of ${medians[0][1].n} trials: ${texts.join(' · ')}`);
  }
  return remarks.join(' · ');
}

/**
 * Draws a cell. `best` tells whether it is the best of its row in a measure.
 * @param {{grid: any, cell: any, name: string, blind: boolean, chosen: boolean, best: (measure: any) => boolean}} state
 */
export function drawCell({ root, at }, { grid, cell, name, blind, chosen, best }) {
  const live = !ended(cell), focused = document.activeElement, where = `${name}, prompt ${cell.prompt + 1}`;
  root.dataset.phase = cell.phase;
  root.toggleAttribute('data-live', live && cell.runId !== null);
  write(at.name, name);
  at.name.title = name;
  write(at.phase, phaseName(cell.phase));
  drawFigures(at.figures, blind ? [] : figuresOf(grid, cell, live ? undefined : best));
  at.figures.hidden = blind;
  at.spark.firstChild.setAttribute('d', blind ? '' : curve(rates(cell.points), 90, 22));
  const text = live ? cell.text.slice(-SHOWN).replace(/^[\udc00-\udfff]/, '') : cell.text.slice(0, SHOWN).replace(/[\ud800-\udbff]$/, '');
  write(at.words, marked(text));
  write(at.remark, remarkOf(grid, cell, blind));
  at.remark.classList.toggle('bad', cell.phase === 'error');
  at.stop.hidden = !live;
  at.stop.ariaDisabled = String(cell.stopping); // a disabled button would lose the focus
  at.retry.hidden = live;
  at.approve.hidden = at.decline.hidden = !cell.approval;
  at.choose.checked = chosen;
  at.good.hidden = at.bad.hidden = live || !cell.text;
  at.good.ariaPressed = String(cell.rating > 0);
  at.bad.ariaPressed = String(cell.rating < 0);
  for (const [act, [, said]] of Object.entries(ACTS)) at[act].ariaLabel = `${said}: ${where}`;
  at.choose.ariaLabel = `Choose: ${where}`;
  if (focused?.hidden && root.contains(focused)) at.open.focus();
}
