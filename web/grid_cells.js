// The grid of the page that compares: a cell is one reply to one prompt, by one column (a backend with a memory mode).

import { record } from './grid_record.js';

const ENDS = ['complete', 'stopped', 'error'], MOST_POINTS = 400;
/** The most replies of one request: `_MAX_CELLS` in transports/batch.py. */
export const MOST_CELLS = 256;
/** The most trials of a prompt. */
export const MOST_TRIALS = 5;

export const ended = (cell) => ENDS.includes(cell.phase);
export const nameOf = (column) => `${column.backend} · ${column.memory}`;

const BEGINNING = {
  phase: 'queued', status: 'Waits for its turn', runId: null, begun: null, text: '', callStart: 0, tokens: 0, input: null,
  estimated: false, ttft: null, speed: null, duration: null, cost: null, error: null, answeredBy: null, approval: null,
  points: null, record: null, conversation: null, stopping: false, rating: 0,
};

/** Makes a grid. The number of a cell in `cells` is its index in the stream of `POST /batch`: trials are prompts sent again. */
export function makeGrid({ prompts, backends, memory, trials = 1, options = {} }) {
  const columns = backends.flatMap((backend) => memory.map((mode) => ({ backend, memory: mode })));
  const cells = [];
  for (let trial = 0; trial < trials; trial++) {
    for (let prompt = 0; prompt < prompts.length; prompt++) {
      for (let column = 0; column < columns.length; column++) cells.push(reset({ index: cells.length, prompt, column, trial }));
    }
  }
  return { prompts, backends, memory, trials, options, columns, cells, votes: {}, at: Date.now() };
}

/** Returns the body of `POST /batch` for a grid, or for one cell of it. */
export function batchOf(grid, cell = null) {
  if (!cell) return { ...grid.options, prompts: Array(grid.trials).fill(grid.prompts).flat(), backends: grid.backends, memory: grid.memory };
  const { backend, memory } = grid.columns[cell.column];
  return { ...grid.options, prompts: [grid.prompts[cell.prompt]], backends: [backend], memory: [memory] };
}

export const cellAt = (grid, trial, prompt, column) => grid.cells[(trial * grid.prompts.length + prompt) * grid.columns.length + column];

/** Puts a cell back to before its run. */
export const reset = (cell) => Object.assign(cell, BEGINNING, { points: [], record: { entries: [], length: 0 } });

/** Adds an event of its run to a cell, and to its record. */
export function take(cell, event) {
  record(cell, event);
  return apply(cell, event);
}

/** Adds an event of its run to a cell. */
export function apply(cell, event) {
  switch (event.type) {
    case 'run':
      cell.runId = event.run_id;
      cell.begun = Date.parse(event.timestamp);
      break;
    case 'status':
      if (cell.phase === 'approval' && event.phase !== 'approval') cell.approval = null;
      [cell.phase, cell.status] = [event.phase, event.content];
      if (event.backend) cell.answeredBy = [event.backend, event.model].filter(Boolean).join(', ');
      break;
    case 'model_start':
      cell.callStart = cell.text.length;
      break;
    case 'token':
      cell.text += event.content;
      break;
    case 'reasoning': // with `retracts`, the text of this call was thinking
      if (event.retracts) cell.text = cell.text.slice(0, cell.callStart);
      break;
    case 'approval':
      cell.approval = { tool: event.tool, id: event.tool_call_id, input: event.input };
      break;
    case 'state':
      [cell.tokens, cell.estimated] = [event.tokens_received, event.estimated];
      [cell.ttft, cell.speed] = [event.ttft_s ?? null, event.tokens_per_second || null];
      addPoint(cell, event);
      break;
    case 'complete':
    case 'stopped':
    case 'error':
      end(cell, event);
  }
  return cell;
}

function end(cell, event) {
  const { usage, timing } = event;
  [cell.phase, cell.approval, cell.stopping] = [event.type, null, false];
  cell.text = event.content ?? cell.text;
  cell.status = event.type === 'complete' ? 'Complete' : event.type === 'stopped' ? stoppedBecause(event.reason) : 'Failed';
  if (event.type === 'error') cell.error = { code: event.code, message: event.message, retryable: event.retryable };
  if (timing) [cell.ttft, cell.duration, cell.speed] = [timing.ttft_s ?? null, timing.duration_s ?? null, timing.tokens_per_s || null];
  if (!usage) return;
  cell.tokens = usage.output_tokens ?? cell.tokens;
  cell.input = usage.input_tokens ?? null;
  cell.estimated = Boolean(usage.estimated);
  cell.cost = usage.cost_usd ?? null;
  addPoint(cell, { ...event, tokens_received: cell.tokens });
}

const stoppedBecause = (reason) => reason === 'limit' ? 'Stopped: it reached a limit' : reason === 'shutdown' ? 'Stopped: the server ends' : 'Stopped';

/** Ends the cells that are still live, such as those of a lost connection. */
export function endLive(cells, phase, message) {
  const live = cells.filter((cell) => !ended(cell));
  for (const cell of live) {
    Object.assign(cell, { phase, approval: null, stopping: false, status: phase === 'error' ? 'Failed' : message });
    if (phase === 'error') cell.error = { code: 'lost', message, retryable: true };
  }
  return live;
}

// Keeps [seconds since the run's start, tokens]; of too many points every second one is dropped.
function addPoint(cell, { timestamp, tokens_received: tokens }) {
  const at = (Date.parse(timestamp) - cell.begun) / 1000, last = cell.points.at(-1);
  if (!Number.isFinite(at) || tokens == null || (last && last[1] === tokens)) return;
  cell.points.push([at, tokens]);
  if (cell.points.length > MOST_POINTS) cell.points = cell.points.filter((_, i) => i % 2 === 1);
}

/** Returns how many replies may be started at once, by the answer of `GET /limits`, and the name of what limits it. */
export function allowed(limits) {
  const { minute = null, day = null } = limits?.left ?? {};
  const bounds = [[MOST_CELLS, 'at once'], [minute, 'in this minute'], [day, 'today']].filter(([most]) => most != null);
  const [most, when] = bounds.reduce((least, bound) => (bound[0] < least[0] ? bound : least));
  return { most, when };
}
