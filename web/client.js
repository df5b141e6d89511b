// A client of Glassbox for browsers and for Node 20 and later, without dependencies: it follows runs over Server-Sent Events
// (streamChat, followRun) or a WebSocket (connectChat). Both deliver every event of a run once and in order, and resume after
// a lost connection: a run is a numbered log, and the client knows the number of the last event.
//
//   import { streamChat } from './client.js';
//   const run = streamChat('Hello', { token: (e) => console.log(e.content) });
//   console.log(await run.done); // complete, stopped or error

/**
 * An event of a run: `type`, `seq` (from 1, no gaps), `run_id`, `timestamp` and the fields of its type.
 * @typedef {{type: string, seq: number, run_id: string, timestamp: string, [field: string]: any}} RunEvent
 *
 * Each event goes to the handler of its type (`token`, `state`, `complete` …); these handlers get everything else. An
 * exception in a handler is reported and has no other effect.
 * @typedef {object} ConnectionHandlers
 * @property {(event: RunEvent) => any} [event] every event, before the handler of its type
 * @property {() => any} [connected] the connection is open, or open again
 * @property {(wait: {attempt: number, delay: number}) => any} [reconnecting] the connection was lost; the next attempt is in `delay` ms
 * @property {() => any} [disconnected] a WebSocket was lost between runs; the next message opens another
 * @property {(event: any) => any} [refused] a stop or an approval over a WebSocket was refused; `event` has `code` and `message`
 * @typedef {ConnectionHandlers & {[type: string]: ((event: any) => any) | undefined}} Handlers
 *
 * @typedef {object} Retry
 * @property {number} [attempts] attempts in a row without a new event; default 12
 * @property {number} [delay] the longest pause before the first attempt, in ms, doubled each time; a server's `retry:` has precedence; default 1000
 * @property {number} [maxDelay] the longest pause, in ms; a server's Retry-After has precedence, up to an hour; default 30000
 *
 * @typedef {object} Options
 * @property {string | URL} [url] the URL of Glassbox; default: the origin and folder of this file
 * @property {Record<string, string>} [headers] the headers of every request, but not of a WebSocket
 * @property {typeof fetch} [fetch]
 * @property {new (url: string) => any} [WebSocket] for a Node without a global one
 * @property {AbortSignal} [signal] leaves the run as close() does, and rejects `done` with its reason
 * @property {Retry} [retry]
 * @property {number} [silence] ms without a byte after which a connection counts as lost; default 35000
 * @property {number} [ping] ms between pings on a WebSocket; default 10000
 *
 * A message to send; only `message` is required. The names are those of GET /backends, /memory-modes and /tools, and so are
 * the parameters of the memory modes, such as `window_turns`.
 * @typedef {{message: string, backend?: string | null, model?: string | null, memory?: string | null, conversation_id?: string | null,
 *   system_prompt?: string | null, temperature?: number | null, max_tokens?: number | null,
 *   thinking?: boolean | null, tools?: string[] | null, documents?: boolean | null,
 *   mode_options?: Record<string, boolean | number | string> | null,
 *   logprobs?: number | null, continue_from?: {run_id: string, seq: number, token: string} | null,
 *   [parameter: string]: unknown}} Message
 */

const OPTIONS = ['url', 'headers', 'fetch', 'WebSocket', 'signal', 'retry', 'silence', 'ping'];
const LAST = ['complete', 'stopped', 'error'];
const SILENCE_MS = 35_000, PING_MS = 10_000, OPEN = 1;
const TEMPORARY = [408, 425, 429]; // statuses below 500 after which a retry may succeed
const MAX_RETRY_AFTER_MS = 3_600_000; // the longest Retry-After that is respected

/**
 * A refusal of the server (with its `code` and the `status` of its answer) or a failure of the connection: `lost` (the
 * message may have arrived), `unreachable`, `unexpected` (the answer is not from Glassbox), `closed`, or `busy` (a run is live).
 */
export class ChatError extends Error {
  /**
   * @param {string} code @param {string} message
   * @param {{status?: number | null, retryAfter?: number | null, cause?: unknown}} [more] `retryAfter` in seconds
   */
  constructor(code, message, { status = null, retryAfter = null, cause } = {}) {
    super(message, { cause });
    this.name = 'ChatError';
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * Parses text/event-stream from chunks that may be cut anywhere.
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 * @typedef {{type: string, data: string, lastEventId: string}} StreamEvent
 */
export class EventParser {
  retry = /** @type {number | null} */ (null); // ms to wait before reconnecting, as the stream requests
  lastEventId = '';
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true }); // Node 24 would remove two byte order marks instead of one
  #begun = false;
  #afterReturn = false;
  #rest = '';
  #id = '';
  #type = '';
  #data = /** @type {string[]} */ ([]);

  /** Returns the events that `bytes` complete. An event ends with a blank line. @param {Uint8Array} bytes */
  push(bytes) {
    const ends = /\r\n?|\n/g, events = /** @type {StreamEvent[]} */ ([]);
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text && !this.#begun) [this.#begun, text] = [true, text.replace(/^\ufeff/, '')];
    if (!text) return events;
    // A CR ends its line at once, although the LF that belongs to it may be in the next chunk.
    let start = ends.lastIndex = this.#afterReturn && text[0] === '\n' ? 1 : 0;
    this.#afterReturn = text.endsWith('\r');
    for (let end; (end = ends.exec(text)); start = ends.lastIndex) {
      const line = this.#rest + text.slice(start, end.index);
      this.#rest = '';
      if (line) this.#field(line);
      else this.#dispatch(events);
    }
    this.#rest += text.slice(start);
    return events;
  }

  /** @param {string} line */
  #field(line) {
    const [name] = line.split(':', 1), value = line.slice(name.length + 1).replace(/^ /, '');
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#type = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  /** @param {StreamEvent[]} events */
  #dispatch(events) {
    this.lastEventId = this.#id;
    if (this.#data.length) events.push({ type: this.#type || 'message', data: this.#data.join('\n'), lastEventId: this.#id });
    [this.#type, this.#data] = ['', []];
  }
}

/** @param {unknown} error */
const report = (error) => typeof reportError === 'function' ? reportError(error) : console.error(error);

/** @param {Handlers} handlers @param {string} name @param {any} [what] */
function tell(handlers, name, what) {
  try {
    const result = handlers[name]?.(what);
    if (result instanceof Promise) result.catch(report);
  } catch (error) {
    report(error);
  }
}

/** @param {Options} options */
function base({ url = './' }) {
  const found = new URL(url, import.meta.url);
  if (!/^https?:$/.test(found.protocol)) throw new TypeError('url: say where Glassbox is, such as http://localhost:7860');
  if (!found.pathname.endsWith('/')) found.pathname += '/';
  return found;
}

/** Returns the fields of a message that have values, without the options of the client beside them. @param {string | Message} given */
function fields(given) {
  const all = /** @type {Record<string, unknown>} */ (typeof given === 'string' ? { message: given } : given);
  return Object.fromEntries(Object.entries(all).filter(([name, value]) => value != null && !OPTIONS.includes(name)));
}

/** Parses a Retry-After, which may be a date, into seconds. @param {string | null} value */
function secondsOf(value) {
  const text = value?.trim() ?? '', seconds = /^[0-9.]+$/.test(text) ? parseFloat(text) : (Date.parse(text) - Date.now()) / 1000;
  return seconds > 0 ? seconds : null;
}

/** @param {string} id @param {boolean} approved @param {object} [input] */
const answerTo = (id, approved, input) => ({ tool_call_id: id, approved, ...(input && { input }) });

/** Calls `bark` when it was not fed for `ms`: a half-open connection stays silent. @param {number} ms @param {(why: Error) => void} bark */
function watch(ms, bark) {
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);
  const stop = () => clearTimeout(timer);
  const feed = () => { stop(); timer = setTimeout(() => bark(new Error(`No data for ${ms / 1000} s.`)), ms); };
  feed();
  return { feed, stop };
}

/** The progress of following a run over any transport: it delivers each event once and in order, and paces retries. */
class Following {
  over = false;
  asked = /** @type {number | null} */ (null); // the server's `retry:`
  conversationId = /** @type {string | null} */ (null);
  #attempt = 0;
  #leaving = new AbortController();
  #resolve = /** @type {(event: RunEvent | null) => void} */ (() => {});
  #reject = /** @type {(why: unknown) => void} */ (() => {});

  /** @param {Options} options @param {Handlers} handlers @param {string | null} [runId] @param {number} [last] */
  constructor({ retry, signal }, handlers, runId = null, last = 0) {
    this.limits = { attempts: 12, delay: 1000, maxDelay: 30_000, ...retry };
    this.handlers = handlers;
    this.runId = runId;
    this.last = last;
    this.left = this.#leaving.signal;
    /** @type {Promise<RunEvent | null>} */
    this.done = new Promise((resolve, reject) => { [this.#resolve, this.#reject] = [resolve, reject]; });
    signal?.addEventListener('abort', () => this.fail(signal.reason), { signal: this.left });
    if (signal?.aborted) this.fail(signal.reason);
  }

  /** Delivers an event. Returns false if events before it are missing. @param {RunEvent} event */
  take(event) {
    if (this.over || event.seq <= this.last) return true;
    if (event.seq !== this.last + 1) return false;
    [this.last, this.#attempt] = [event.seq, 0];
    this.runId ??= event.run_id;
    if (event.type === 'run') this.conversationId = event.conversation_id;
    this.tell('event', event);
    this.tell(event.type, event);
    if (LAST.includes(event.type)) this.end(event);
    return true;
  }

  /** @param {string} name @param {any} [what] */
  tell(name, what) { if (!this.over) tell(this.handlers, name, what); }

  /** Resolves `done`. @param {RunEvent | null} event null: the run was left, or there were no more events */
  end(event) {
    this.over = true;
    this.#resolve(event);
    if (!event) this.leave(); // after the last event the server closes the connection
  }

  /** @param {unknown} why */
  fail(why) {
    this.over = true;
    this.#reject(why);
    this.leave();
  }

  leave() { this.#leaving.abort(); }

  /** Waits before the next attempt, at least as long as the server requests. Returns false if there is none. @param {any} why */
  async pause(why) {
    const { attempts, delay: first, maxDelay } = this.limits;
    if (this.#attempt >= attempts) {
      this.fail(new ChatError('unreachable', `Glassbox could not be reached in ${attempts} attempts.`, { cause: why }));
      return false;
    }
    // A random pause: else all clients of a restarted server would reconnect in the same moment.
    const drawn = Math.random() * (this.asked ?? first) * 2 ** this.#attempt++, asked = 1000 * (why?.retryAfter ?? 0);
    const delay = Math.max(Math.min(maxDelay, drawn), Math.min(MAX_RETRY_AFTER_MS, asked));
    this.tell('reconnecting', { attempt: this.#attempt, delay });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.left.addEventListener('abort', () => { clearTimeout(timer); resolve(null); });
    });
    return !this.over;
  }
}

/** A run over Server-Sent Events. */
class Run {
  #options; #base; #following;
  #begin = () => {};
  #begun = /** @type {Promise<void>} */ (new Promise((resolve) => { this.#begin = resolve; }));

  /** @param {Options} options @param {Following} following @param {Record<string, unknown>} [message] starts a run */
  constructor(options, following, message) {
    this.#options = options;
    this.#base = base(options);
    this.#following = following;
    if (following.runId) this.#begin();
    void this.#follow(message);
  }

  /** Both ids are known when the response begins. */
  get runId() { return this.#following.runId; }
  get conversationId() { return this.#following.conversationId; }

  /**
   * Resolves to the run's last event, even if that is `error`; to null after close(), or if there were no more events.
   * Rejects with a ChatError if the run is refused or the connection cannot be restored.
   */
  get done() { return this.#following.done; }

  /** Stops the run. Its `stopped` event still arrives. @returns {Promise<{status: string}>} */
  stop() { return this.#post('stop', {}); }

  /** Ends the thinking of the model, which then answers. */
  endThinking() { return this.#post('end_thinking', {}); }

  /** Answers an `approval`. @param {string} id its tool_call_id @param {boolean} approved @param {object} [input] replaces the model's */
  approve(id, approved, input) { return this.#post('approve', answerTo(id, approved, input)); }

  /** Stops following the run, which continues. */
  close() { this.#following.end(null); }

  /** @param {Record<string, unknown>} [message] */
  async #follow(message) {
    for (const run = this.#following; !run.over; message = undefined) {
      const line = new AbortController(), watchdog = watch(this.#options.silence ?? SILENCE_MS, (why) => line.abort(why));
      run.left.addEventListener('abort', () => line.abort(), { signal: line.signal });
      let why = /** @type {any} */ (new Error('The connection closed before the run ended.'));
      try {
        const answer = message
          ? await this.#ask('stream', { method: 'POST', body: JSON.stringify(message), signal: line.signal })
          : await this.#ask(`${this.#path}/events?after=${run.last}`, { cache: 'no-store', signal: line.signal });
        if (answer.status === 204) return run.end(null);
        await this.#read(answer, watchdog);
      } catch (error) {
        why = error;
      } finally {
        watchdog.stop();
        line.abort();
      }
      if (run.over) run.leave();
      else if (why.status && (message || (why.status < 500 && !TEMPORARY.includes(why.status)))) run.fail(why);
      else if (run.runId) await run.pause(why);
      // Sending the message again could start a second run.
      else run.fail(new ChatError('lost', `No answer: the message may or may not have arrived. ${why.message}`, { cause: why }));
    }
  }

  /** @param {Response} answer @param {ReturnType<typeof watch>} watchdog */
  async #read({ body, headers, status }, watchdog) {
    const run = this.#following, parser = new EventParser(), reader = body?.getReader();
    if (headers.get('Content-Type')?.split(';')[0].trim().toLowerCase() !== 'text/event-stream') {
      throw new ChatError('unexpected', 'The answer is not an event stream. Is this the URL of Glassbox?', { status });
    }
    run.runId ??= headers.get('X-Run-Id');
    run.conversationId ??= headers.get('X-Conversation-Id');
    this.#begin();
    run.tell('connected');
    for (let got = await reader?.read(); got && !got.done; got = await reader?.read()) {
      if (!run.over) watchdog.feed();
      const events = parser.push(got.value);
      run.asked = parser.retry ?? run.asked;
      if (!events.every(({ data }) => run.take(JSON.parse(data)))) throw new Error('An event is missing.');
    }
  }

  get #path() { return `runs/${encodeURIComponent(this.runId ?? '')}`; }

  /** @param {string} what @param {object} body */
  async #post(what, body) {
    await Promise.race([this.#begun, this.done]);
    if (!this.runId) throw new ChatError('closed', 'The run was left before its id was known.');
    return (await this.#ask(`${this.#path}/${what}`, { method: 'POST', body: JSON.stringify(body) })).json();
  }

  /** @param {string} path @param {RequestInit} init */
  async #ask(path, init) {
    const { fetch: ask = globalThis.fetch, headers } = this.#options;
    const kind = /** @type {Record<string, string>} */ (init.body ? { 'Content-Type': 'application/json' } : {});
    const answer = await ask(new URL(path, this.#base), { ...init, headers: { ...kind, ...headers } }).catch((cause) => {
      throw new ChatError('unreachable', `Could not reach Glassbox: ${cause?.message}`, { cause });
    });
    if (answer.ok) return answer;
    const { status } = answer, { code = 'unexpected', message = `The server answered with status ${status}.` } = (await answer.json().catch(() => null)) ?? {};
    throw new ChatError(code, message, { status, retryAfter: secondsOf(answer.headers.get('Retry-After')) });
  }
}

/** Messages and their runs over a WebSocket, one run at a time. */
class Chat {
  #options; #handlers; #connect;
  #closed = false;
  #socket = /** @type {any} */ (null);
  #unwatch = () => {};
  #pings = /** @type {{resolve: () => void, reject: (why: unknown) => void}[]} */ ([]);
  #run = /** @type {Following | null} */ (null);
  #message = /** @type {Record<string, unknown> | null} */ (null); // until it is sent
  #held = /** @type {object[]} */ ([]); // a stop and approvals, until the server knows the run on this socket
  #ready = false; // the server knows the run
  #stopping = false;
  #alone = false; // nothing was sent after the message or the resume, so a refusal refers to that

  /** @param {Options} options @param {Handlers} handlers */
  constructor(options, handlers) {
    const { signal, WebSocket = globalThis.WebSocket } = options, address = new URL('ws/chat', base(options));
    if (!WebSocket) throw new TypeError('There is no global WebSocket: pass one as an option');
    address.protocol = address.protocol.replace('http', 'ws');
    this.#options = options;
    this.#handlers = handlers;
    this.#connect = () => new WebSocket(address.href);
    signal?.addEventListener('abort', () => this.close(signal.reason));
    if (signal?.aborted) this.#closed = true;
    else this.#open();
  }

  get runId() { return this.#run?.runId ?? null; }
  get conversationId() { return this.#run?.conversationId ?? null; }

  /** Starts a run once connected. Returns what a Run's `done` is. @param {string | Message} message */
  send(message) { return this.#start(this.#following(), fields(message)); }

  /** Follows an existing run. @param {string} runId @param {number} [after] the number of the last known event */
  resume(runId, after) { return this.#start(this.#following(runId, after), null); }

  /** Stops the run. Returns its last event. */
  stop() {
    this.#stopping = true;
    this.#hold({ type: 'stop' });
    return this.#run?.done ?? Promise.resolve(null);
  }

  /** Ends the thinking of the model, which then answers. */
  endThinking() { this.#hold({ type: 'end_thinking' }); }

  /** Answers an `approval`. @param {string} id its tool_call_id @param {boolean} approved @param {object} [input] replaces the model's */
  approve(id, approved, input) { this.#hold({ type: 'approve', ...answerTo(id, approved, input) }); }

  /** Measures the round trip in ms. @returns {Promise<number>} */
  ping() {
    const at = performance.now();
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== OPEN) return reject(new ChatError('closed', 'There is no connection.'));
      this.#pings.push({ resolve: () => resolve(performance.now() - at), reject });
      this.#put({ type: 'ping' });
    });
  }

  /** Closes the connection for good; a run continues. @param {unknown} [reason] */
  close(reason) {
    this.#closed = true;
    if (reason === undefined) this.#run?.end(null);
    else this.#run?.fail(reason);
    this.#drop(null);
  }

  /** @param {string} [runId] @param {number} [after] */
  #following(runId, after) { return new Following({ retry: this.#options.retry }, this.#handlers, runId, after); }

  /** @param {Following} run @param {Record<string, unknown> | null} message */
  #start(run, message) {
    if (this.#closed) run.fail(new ChatError('closed', 'This connection was closed.'));
    else if (this.#run && !this.#run.over) run.fail(new ChatError('busy', 'A reply is still being written: stop it, or wait for its end.'));
    else {
      [this.#run, this.#message, this.#held, this.#stopping] = [run, message, [], false];
      if (this.#socket?.readyState === OPEN) this.#greet();
      else this.#open();
    }
    return run.done;
  }

  #open() {
    if (this.#socket) return;
    const socket = this.#socket = this.#connect(), { silence = SILENCE_MS, ping = PING_MS } = this.#options;
    const watchdog = watch(silence, (why) => this.#drop(why));
    const pinging = setInterval(() => this.ping().catch(() => {}), ping);
    this.#unwatch = () => { watchdog.stop(); clearInterval(pinging); };
    /** Ignores a socket that was abandoned. @param {(what: any) => void} act */
    const mine = (act) => (/** @type {any} */ what) => { if (socket === this.#socket) act(what); };
    socket.onopen = mine(() => { tell(this.#handlers, 'connected'); this.#greet(); });
    socket.onmessage = mine(({ data }) => { watchdog.feed(); this.#hear(JSON.parse(data)); });
    socket.onclose = mine((why) => this.#drop(why));
    socket.onerror = () => {}; // `close` follows
  }

  #greet() {
    const run = this.#run;
    if (!run || run.over) return;
    [this.#ready, this.#alone] = [false, true];
    this.#put(run.runId ? { type: 'resume', run_id: run.runId, after: run.last } : this.#message ?? {});
    this.#message = null;
    // The pong proves that the run was not refused, even if the run is silent.
    this.ping().then(() => { if (run === this.#run) this.#settle(); }, () => {});
  }

  /** @param {any} event */
  #hear(event) {
    const run = this.#run;
    if (event.type === 'pong') this.#pings.shift()?.resolve();
    else if (event.seq != null) {
      if (run && !run.take(event)) return this.#drop(new Error('An event is missing.'));
      this.#alone = false;
      this.#settle();
    } else if (run && !run.over && this.#alone) {
      const why = new ChatError(event.code, event.message, { retryAfter: event.retry_after ?? null });
      if (run.runId && event.retryable) this.#drop(why);
      else run.fail(why);
    } else tell(this.#handlers, 'refused', event);
  }

  #settle() {
    this.#ready = true;
    this.#flush();
  }

  /** @param {object} frame */
  #hold(frame) {
    this.#held.push(frame);
    this.#flush();
  }

  #flush() {
    if (!this.#held.length || !this.#ready || !this.#run || this.#run.over || this.#socket?.readyState !== OPEN) return;
    this.#alone = false;
    for (const frame of this.#held.splice(0)) this.#put(frame);
  }

  /** @param {unknown} why */
  #drop(why) {
    const socket = this.#socket, run = this.#run;
    if (!socket) return;
    this.#socket = null;
    this.#unwatch();
    socket.close(); // closing a half-open one may take long, so nothing waits for it
    for (const { reject } of this.#pings.splice(0)) reject(new ChatError('lost', 'The connection was lost.'));
    if (this.#stopping) this.#held = [{ type: 'stop' }]; // the one that was sent may be lost
    if (this.#closed) return;
    if (!run || run.over) tell(this.#handlers, 'disconnected');
    else if (run.runId || this.#message) void run.pause(why).then((again) => { if (again) this.#open(); });
    else run.fail(new ChatError('lost', 'The connection was lost before the run began: the message may or may not have arrived.'));
  }

  /** @param {object} frame */
  #put(frame) { this.#socket.send(JSON.stringify(frame)); }
}

/** Sends a message and follows its run. @param {string | (Message & Options)} given @param {Handlers} [handlers] */
export function streamChat(given, handlers = {}) {
  const options = typeof given === 'string' ? {} : given;
  return new Run(options, new Following(options, handlers), fields(given));
}

/** Follows an existing run, from after a known event. @param {string} runId @param {Options & {after?: number}} [options] @param {Handlers} [handlers] */
export function followRun(runId, options = {}, handlers = {}) {
  return new Run(options, new Following(options, handlers, runId, options.after), undefined);
}

/** Opens a WebSocket for runs, one after the other. @param {Options} [options] @param {Handlers} [handlers] */
export function connectChat(options = {}, handlers = {}) {
  return new Chat(options, handlers);
}
