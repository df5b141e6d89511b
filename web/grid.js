// The page that compares: sends prompts to backends with memory modes over `POST /batch`, and shows all replies as they come.

import './dom.js';
import { MOST_CELLS, allowed, batchOf, endLive, ended, makeGrid, reset, take } from './grid_cells.js';
import { redrawDialog, showCell } from './grid_dialogs.js';
import { keep, kept } from './grid_kept.js';
import { Pair } from './grid_pair.js';
import { wireSaving } from './grid_save.js';
import { fill, offerChoices, plural, setup, showSize, sizeOf, wire } from './grid_setup.js';
import { approve, choices, limitsNow, runBatch, stopRun, store } from './grid_stream.js';
import { GridView } from './grid_view.js';

const { number, write } = window.glassbox;
const $ = (id) => document.getElementById(id);
const view = new GridView($('rows'), $('ranking')), pair = new Pair(view);
const lines = new Set(); // the AbortControllers of the open streams
const waiting = []; // cells to retry when the open streams have ended
const POLL_MS = 3000, LEFT = 'Stopped: the page was left';
let grid = null, frame = 0, perVisitor = null, left = false;
let starting = null; // an object until the first request is sent

const report = (text) => write($('problem'), text);
const announce = (text) => write($('announcement'), text);

// The state of the whole page.

function showBusy() {
  const busy = lines.size > 0 || starting !== null, focus = !busy && document.activeElement === $('stop');
  $('stop').hidden = !busy;
  $('run').ariaDisabled = String(busy); // a disabled button would lose the focus
  if (focus) $('run').focus(); // the button with the focus is gone
  return busy;
}

function draw() {
  frame = 0;
  if (!grid) return;
  const cells = grid.cells, done = cells.filter(ended).length, failed = cells.filter((cell) => cell.phase === 'error').length;
  const stopped = cells.filter((cell) => cell.phase === 'stopped').length, busy = showBusy();
  const parts = [`${number(done)} of ${plural(cells.length, 'reply', 'replies')}`, failed && `${number(failed)} failed`, stopped && `${number(stopped)} stopped`];
  write($('progress'), parts.filter(Boolean).join(' · '));
  $('retry-failed').hidden = busy || !failed;
  $('blind').disabled = grid.columns.length < 2;
  redrawDialog();
}
const schedule = () => { frame ||= requestAnimationFrame(draw); };

function changed(cell, rank = false) {
  view.mark(cell, rank);
  schedule();
}

function showGrid() {
  view.show(grid);
  pair.clear(grid);
  showBlind();
  $('results').hidden = false;
  $('trial-choice').hidden = grid.trials < 2;
  $('trial').replaceChildren(...Array.from({ length: grid.trials }, (_, i) => new Option(`${i + 1} of ${grid.trials}`, i)));
  write($('note'), '');
  schedule();
}

// Running.

// Follows one request. `cells` are its cells in the order of their index in the stream.
async function follow(cells, body) {
  const line = new AbortController(), own = grid;
  lines.add(line);
  schedule();
  let refused = '';
  try {
    await runBatch(body, (event) => {
      const cell = cells[event.index];
      if (own !== grid || !cell) return;
      const before = ended(cell);
      take(cell, event);
      if (event.type === 'run' && cell.stopping) void stopCell(cell);
      changed(cell, !before && ended(cell));
    }, line.signal);
  } catch (error) {
    if (error.refused) refused = error.message;
    const [phase, message] = line.signal.aborted ? ['stopped', 'Stopped'] : left ? ['stopped', LEFT] : ['error', error.message];
    for (const cell of endLive(cells, phase, message)) changed(cell, true);
  } finally {
    lines.delete(line);
    if (own === grid && !(refused && cells === grid.cells)) settle();
  }
  return refused;
}

// After a stream has ended: the next cell to retry, else the end.
function settle() {
  schedule();
  if (lines.size) return;
  const next = waiting.shift();
  if (next) return void follow([next], batchOf(grid, next)).then(report);
  requestAnimationFrame(() => view.drawSeen());
  const failed = grid.cells.filter((cell) => cell.phase === 'error').length;
  announce(`${plural(grid.cells.length, 'reply', 'replies')} ended, ${number(failed)} failed.`);
  if (!keep(grid)) write($('note'), 'These results are too long to be kept for a reload: save them.');
}

function problemOf({ prompts, backends, memory }) {
  if (!prompts.length) return 'Write a prompt, or open a file with prompts.';
  if (!backends.length) return 'Choose at least one model.';
  return memory.length ? '' : 'Choose at least one memory mode.';
}

function tooMany(size, limits) {
  const { most, when } = allowed(limits);
  if (size <= most) return '';
  const can = most ? `${plural(most, 'can be started', 'can be started')} ${when}` : `none can be started ${when}`;
  return `These are ${plural(size, 'reply', 'replies')}, and ${can}: choose fewer prompts, models, memory modes or trials${most < MOST_CELLS ? ', or wait' : ''}.`;
}

async function run() {
  if (lines.size || starting) return;
  const wanted = setup(), problem = problemOf(wanted);
  report(problem);
  if (problem) return;
  const mine = starting = {};
  showBusy();
  try {
    const limits = await limitsNow();
    if (starting !== mine) return;
    const earlier = grid, refusal = tooMany(sizeOf(wanted), limits);
    perVisitor = limits.limits.runs_per_visitor ?? null;
    report(refusal);
    if (refusal) return;
    grid = makeGrid(wanted);
    waiting.length = 0;
    showGrid();
    announce(`${plural(grid.cells.length, 'reply', 'replies')} started.`);
    starting = null;
    const refused = await follow(grid.cells, batchOf(grid));
    if (!refused) return;
    report(refused); // nothing was started: the earlier results stay
    grid = earlier;
    if (grid) showGrid();
    else $('results').hidden = true;
  } catch (error) {
    report(error.message);
  } finally {
    if (starting === mine) starting = null;
    showBusy();
  }
}

function stopAll() {
  for (const cell of waiting.splice(0)) changed(Object.assign(cell, { phase: 'stopped', status: 'Stopped' }), true);
  for (const line of lines) line.abort();
  starting = null;
  showBusy();
}

async function stopCell(cell) {
  const at = waiting.indexOf(cell);
  if (at >= 0) {
    waiting.splice(at, 1);
    Object.assign(cell, { phase: 'stopped', status: 'Stopped' });
    return changed(cell, true);
  }
  if (cell.stopping && !cell.runId) return;
  cell.stopping = true;
  changed(cell);
  if (!cell.runId) return; // it is stopped as soon as it begins
  try {
    await stopRun(cell.runId);
  } catch (error) {
    if (ended(cell)) return;
    cell.stopping = false;
    changed(cell);
    report(error.message);
  }
}

// With a limit of replies at once a retry waits, since the next cells of an open stream would be refused because of it.
async function retry(...cells) {
  report('');
  for (const cell of cells) {
    reset(cell);
    changed(cell, true);
  }
  if (perVisitor === null && cells.length === 1) return report(await follow(cells, batchOf(grid, cells[0])));
  waiting.push(...cells);
  if (!lines.size) settle();
}

async function answer(cell, approved) {
  const { id } = cell.approval;
  try {
    await approve(cell.runId, id, approved);
    if (cell.approval?.id === id) cell.approval = null;
    changed(cell);
  } catch (error) {
    report(error.message);
  }
}

// The blind test.

function showBlind() {
  write($('blind'), view.blind ? 'Reveal the names' : 'Blind test');
  $('blind').ariaPressed = String(view.blind);
  document.querySelector('.save').hidden = view.blind;
  $('setup').inert = view.blind;
}

function toggleBlind() {
  if (!view.blind) {
    grid.votes = {};
    write($('note'), 'The names are hidden, and the order of each row is random. Choose the better reply of each row, then reveal the names.');
  } else {
    const votes = Object.keys(grid.votes).length;
    write($('note'), votes ? '' : 'No reply was chosen.');
    announce(votes ? 'The names are shown, with how often each was preferred.' : 'The names are shown.');
    keep(grid);
  }
  view.setBlind(!view.blind);
  showBlind();
  pair.show();
}

function vote(prompt, column) {
  if (grid.votes[prompt] === column) delete grid.votes[prompt];
  else grid.votes[prompt] = column;
  const votes = Object.keys(grid.votes).length;
  write($('note'), `${number(votes)} of ${plural(grid.prompts.length, 'row')} judged.`);
  view.markAll();
}

// Opening a cell.

function open(cell) {
  const stored = async () => {
    cell.conversation ??= await store(grid, cell);
    keep(grid);
    return cell.conversation;
  };
  const trial = grid.trials > 1 ? `, trial ${cell.trial + 1}` : '';
  showCell({ grid, cell, name: `${view.nameOf(cell)}${trial}`, blind: view.blind, store: stored });
}

// A thumb; the same one again removes it.
function rate(cell, rating) {
  cell.rating = cell.rating === rating ? 0 : rating;
  changed(cell, true);
  keep(grid);
}

const ACTS = {
  open, stop: (cell) => void stopCell(cell), retry: (cell) => void retry(cell),
  approve: (cell) => void answer(cell, true), decline: (cell) => void answer(cell, false),
  good: (cell) => rate(cell, 1), bad: (cell) => rate(cell, -1),
};

$('rows').addEventListener('click', ({ target }) => {
  const button = target.closest('button[data-do]');
  if (!button) return;
  if (button.dataset.do === 'vote') return vote(Number(button.dataset.prompt), Number(button.dataset.column));
  const cell = view.cellOf(button);
  if (cell) ACTS[button.dataset.do](cell);
});
$('rows').addEventListener('change', ({ target }) => {
  const cell = target.matches('[data-do=choose]') && view.cellOf(target);
  if (cell) pair.choose(cell, target.checked);
});
$('setup').addEventListener('submit', (event) => {
  event.preventDefault();
  void run();
});
$('stop').addEventListener('click', stopAll);
$('blind').addEventListener('click', toggleBlind);
$('trial').addEventListener('change', () => view.setTrial(Number($('trial').value)));
$('retry-failed').addEventListener('click', () => void retry(...grid.cells.filter((cell) => cell.phase === 'error')));
// A browser ends the open streams of a page that is left, and may show that page again as it was.
addEventListener('pagehide', () => {
  left = true;
  if (grid) keep(grid);
});
addEventListener('pageshow', () => { left = false; });

async function load(chosenBefore) {
  try {
    const found = await choices();
    perVisitor = found.limits.limits.runs_per_visitor ?? null;
    offerChoices(found, chosenBefore);
    if (found.backends.some((one) => one.state === 'loading')) setTimeout(load, POLL_MS);
  } catch (error) {
    report(`Could not load the models: ${error.message}`);
  }
}

wire(report);
wireSaving(() => grid, report, (copied) => {
  announce(copied ? 'Copied.' : 'Saved.');
  write($('note'), copied ? 'Copied as Markdown.' : '');
});
const before = kept();
if (before) {
  grid = before;
  fill(grid);
  showGrid();
} else showSize();
void load(before ?? undefined);
