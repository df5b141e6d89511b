// The record of a cell: its events with their times, within a bound, from which its run is replayed in the browser. The server
// keeps nothing of these runs.

/** The most characters of a cell's events; the record of a longer run is dropped. */
export const MOST_RECORD = 200_000;
const PER_ENTRY = 12;
const KEPT = ['run', 'status', 'model_start', 'token', 'reasoning', 'approval', 'state', 'complete', 'stopped', 'error'];
const STATE = ['tokens_received', 'estimated', 'tokens_per_second', 'ttft_s'];

/** Adds an event to the record of a cell: [milliseconds since the run's start, a token's text or the event]. */
export function record(cell, event) {
  if (!cell.record || !KEPT.includes(event.type) || (event.type === 'reasoning' && !event.retracts)) return;
  const { seq, run_id, timestamp, index, ...rest } = event, begun = event.type === 'run' ? Date.parse(timestamp) : cell.begun;
  const kept = event.type === 'token' ? event.content : event.type === 'state' ? STATE.map((name) => event[name] ?? null) : rest;
  cell.record.entries.push([Date.parse(timestamp) - begun, kept]);
  cell.record.length += PER_ENTRY + (typeof kept === 'string' ? kept.length : JSON.stringify(kept).length);
  if (cell.record.length > MOST_RECORD) cell.record = null;
}

/** Returns whether a cell can be replayed. */
export const hasRecord = (cell) => (cell.record?.entries.length ?? 0) > 1;

/** Returns the milliseconds from the start of a recorded run to its last event. */
export const lengthOf = (cell) => Math.max(0, cell.record.entries.at(-1)[0]);

/** Returns the event of an entry, as it came. */
export function eventOf(cell, [ms, kept]) {
  const timestamp = new Date(cell.begun + ms).toISOString();
  if (typeof kept === 'string') return { type: 'token', timestamp, content: kept };
  if (Array.isArray(kept)) return { type: 'state', timestamp, ...Object.fromEntries(STATE.map((name, i) => [name, kept[i]])) };
  return { ...kept, timestamp, ...(kept.type === 'run' ? { run_id: cell.runId } : {}) };
}
