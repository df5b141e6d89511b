// Follows `POST /batch` for the page that compares, and acts on the runs of its cells.

import { EventParser } from './client.js';
import './dom.js';

const SILENCE_MS = 35_000; // the server sends a comment at least every 15 s
const { request } = window.glassbox;
const LOST = 'The connection was lost before this reply ended. Press Retry.';

const post = (path, body) => request(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

/**
 * Starts a batch and gives each event to `take`. Resolves at its end; rejects if it is refused (`refused` is true), lost, or
 * left by the signal.
 */
export async function runBatch(body, take, signal) {
  const line = new AbortController();
  let timer;
  const feed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => line.abort(), SILENCE_MS);
  };
  const leave = () => line.abort();
  signal.addEventListener('abort', leave);
  try {
    const answer = await fetch(new URL('batch', document.baseURI), {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal: line.signal,
    }).catch(() => { throw refusal('Could not reach the server. Try again in a moment.'); });
    if (!answer.ok) throw refusal((await answer.json().catch(() => null))?.message ?? `The server answered with status ${answer.status}.`);
    const parser = new EventParser(), reader = answer.body.getReader();
    let done = false;
    feed();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      feed();
      for (const { data } of parser.push(read.value)) {
        const event = JSON.parse(data);
        if (event.type === 'batch_done') done = true;
        else take(event);
      }
    }
    if (!done) throw new Error(LOST);
  } catch (error) {
    throw error.refused ? error : new Error(LOST, { cause: error });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', leave);
  }
}

const refusal = (message) => Object.assign(new Error(message), { refused: true });

export const stopRun = (id) => post(`runs/${encodeURIComponent(id)}/stop`, {});
export const approve = (id, call, approved) => post(`runs/${encodeURIComponent(id)}/approve`, { tool_call_id: call, approved });

/**
 * Stores what a cell's model was given and its reply as a conversation: the system prompt, the prompt, the reply. Returns the
 * address of the conversation, which continues with the same model and memory mode.
 */
export async function store(grid, cell) {
  const { backend, memory } = grid.columns[cell.column], system = grid.options.system_prompt;
  const standing = { complete: 'whole', stopped: 'stopped', error: 'failed' }[cell.phase] ?? 'interrupted';
  const reply = { role: 'assistant', content: cell.text, standing, backend };
  const messages = [{ role: 'user', content: grid.prompts[cell.prompt] }, reply];
  if (system) messages.unshift({ role: 'system', content: system });
  const { conversation_id: conversation } = await post('conversations', { messages });
  return new URL(`./?${new URLSearchParams({ conversation, backend, memory })}`, document.baseURI).href;
}

/** Returns the backends, the memory modes and the limits of this visitor. */
export async function choices() {
  const [backends, modes, limits] = await Promise.all(['backends', 'memory-modes', 'limits'].map((path) => request(path)));
  return { backends, modes, limits };
}
export const limitsNow = () => request('limits');
