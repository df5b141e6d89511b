// The dialog of the page that compares: a whole reply, two replies with their differences, two runs on one time axis.

import './dom.js';
import { ended } from './grid_cells.js';
import { overlay } from './grid_chart.js';
import { difference } from './grid_diff.js';
import { drawFigures, figuresOf, phaseName } from './grid_cell_view.js';
import { hasRecord } from './grid_record.js';
import { replayControls } from './grid_replay.js';

const { copy, make, marked, write } = window.glassbox;
const dialog = document.querySelector('#dialog'), title = dialog.querySelector('h2'), body = dialog.querySelector('.body');
let redraw = null; // draws the shown cell again

dialog.querySelector('.close').addEventListener('click', () => dialog.close());
dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); }); // beside it
dialog.addEventListener('close', () => { redraw = null; });

function show(heading, ...content) {
  write(title, heading);
  body.replaceChildren(...content);
  body.scrollTop = 0;
  if (!dialog.open) dialog.showModal();
}

// The width of a chart in the dialog: its text is not scaled.
const chartWidth = () => Math.min(1080, innerWidth - 24) - 34;

/** Draws the shown cell again, if one is shown. */
export const redrawDialog = () => redraw?.();

const button = (text, act) => {
  const made = make('button', { type: 'button' }, text);
  made.addEventListener('click', act);
  return made;
};

/**
 * Shows a cell. `store` makes a conversation of it and returns its address.
 * @param {{grid: any, cell: any, name: string, blind: boolean, store: () => Promise<string>}} shown
 */
export function showCell({ grid, cell, name, blind, store }) {
  const text = make('div', { className: 'prose' }), figures = make('dl', { className: 'figures' }), phase = make('p', { className: 'quiet' });
  const problem = make('p', { className: 'bad', role: 'alert' }), chart = make('div'), replay = make('div');
  const copying = button('Copy reply', async () => {
    try {
      await copy(cell.text);
      write(copying, 'Copied');
    } catch (error) { write(problem, error.message); }
    setTimeout(() => write(copying, 'Copy reply'), 1500);
  });
  const opening = button('Open as a conversation', () => void open(opening, problem, store));
  const prompt = make('div', { className: 'prose quote' }, marked(grid.prompts[cell.prompt]));
  let drawn = -1, played = null;
  const drawState = (shown) => {
    write(text, marked(shown.text));
    const error = shown.error && (blind ? 'This reply failed.' : shown.error.message);
    write(phase, error || (blind || shown.phase === 'complete' ? phaseName(shown.phase) : `${phaseName(shown.phase)}: ${shown.status}`));
    phase.className = error ? 'bad' : 'quiet';
    drawFigures(figures, blind ? [] : figuresOf(grid, shown));
  };
  const draw = () => {
    if (ended(cell) && !blind && hasRecord(cell) && played !== cell.runId) {
      played = cell.runId;
      replay.replaceChildren(replayControls(cell, drawState));
    } else if (!ended(cell) && played) {
      played = null;
      replay.replaceChildren();
    } else if (played) return; // the replay draws
    drawState(cell);
    opening.disabled = !ended(cell) || blind;
    if (blind || drawn === cell.points.length) return;
    drawn = cell.points.length;
    chart.replaceChildren(...(drawn > 1 ? [overlay([{ name, points: cell.points, duration: cell.duration }], chartWidth(), 180)] : []));
  };
  draw();
  show(`${name} · prompt ${cell.prompt + 1}`, make('div', { className: 'bar' }, copying, opening), replay, problem, make('h3', {}, 'Prompt'), prompt,
    make('h3', {}, 'Reply'), phase, text, figures, chart);
  redraw = draw;
}

// Opens the conversation in a new tab, which a browser allows only at once after the click.
async function open(opening, problem, store) {
  const tab = window.open('', '_blank');
  opening.disabled = true;
  write(problem, '');
  try {
    const address = await store();
    if (tab) tab.location.replace(address);
    opening.replaceWith(make('a', { href: address, target: '_blank', rel: 'noopener' }, 'The conversation'));
  } catch (error) {
    tab?.close();
    opening.disabled = false;
    write(problem, error.message);
  }
}

const word = { one: 'del', other: 'ins' };

/** Shows two replies side by side; words that only one of them has are marked. @param {{name: string, text: string}[]} replies */
export function showDifference([one, other]) {
  redraw = null;
  const { parts, exact } = difference(one.text, other.text), sides = make('div', { className: 'sides' });
  const column = (reply, own) => {
    const text = make('div', { className: 'prose' });
    text.append(...parts.filter(([kind]) => kind === 'same' || kind === own).map(([kind, said]) => (kind === 'same' ? marked(said) : make(word[kind], {}, marked(said)))));
    return make('section', {}, make('h3', {}, reply.name), text);
  };
  sides.append(column(one, 'one'), column(other, 'other'));
  const changes = parts.filter(([kind]) => kind !== 'same').length;
  const about = !exact ? 'The replies differ in too many words to compare them word by word.' : changes ? 'Underlined: what only one of the two replies has.' : 'The replies are equal.';
  show('Differences', make('p', { className: 'quiet' }, about), sides);
}

/** Shows the tokens over time of two cells on one axis. @param {{name: string, cell: any}[]} chosen */
export function showOverlay(grid, chosen) {
  redraw = null;
  const chart = overlay(chosen.map(({ name, cell }) => ({ name, points: cell.points, duration: cell.duration })), chartWidth());
  const key = make('ul', { className: 'key' }, ...chosen.map(({ name }) => make('li', {}, name)));
  const figures = chosen.map(({ name, cell }) => {
    const list = make('dl', { className: 'figures' });
    drawFigures(list, figuresOf(grid, cell));
    return make('section', {}, make('h3', {}, name), list);
  });
  show('On one time axis', chart, key, make('div', { className: 'sides', style: 'margin-top: 14px' }, ...figures));
}
