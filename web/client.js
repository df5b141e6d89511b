// A client of Glassbox for browsers and for Node 20 and later, without dependencies: a run over Server-Sent Events
// (streamChat, followRun) or a WebSocket (connectChat). Both deliver every event of a run once and in order, and take
// it up where it was when the line drops: a run is a numbered log, and the client knows the number it has come to.
//
//   import { streamChat } from './client.js';
//   const run = streamChat('Hello', { token: (e) => console.log(e.content) });
//   console.log(await run.done); // complete, stopped or error

/**
 * An event of a run: `type`, `seq` (from 1, no gaps), `run_id`, `timestamp` and the fields of its type.
 * @typedef {{type: string, seq: number, run_id: string, timestamp: string, [field: string]: any}} RunEvent
 *
 * What is told: an event to the handler of its type (`token`, `state`, `complete` …), all else by these names. An
 * exception of a handler is reported and breaks nothing.
 * @typedef {object} Told
 * @property {(event: RunEvent) => any} [event] every event, before the handler of its type
 * @property {() => any} [connected] the line is there, or there again
 * @property {(wait: {attempt: number, delay: number}) => any} [reconnecting] it dropped, and is tried again in `delay` ms
 * @property {() => any} [disconnected] a WebSocket dropped between runs: the next message opens another
 * @property {(event: any) => any} [refused] a stop or an approval over a WebSocket; `event` has `code` and `message`
 * @typedef {Told & {[type: string]: ((event: any) => any) | undefined}} Handlers
 *
 * @typedef {object} Retry
 * @property {number} [attempts] in a row without a new event; 12
 * @property {number} [delay] ms before the first at most, doubled each time; a server's `retry:` goes before it; 1000
 * @property {number} [maxDelay] ms; 30000; a server's Retry-After goes before it, up to an hour
 *
 * @typedef {object} Options
 * @property {string | URL} [url] where Glassbox is; by default where this file came from
 * @property {Record<string, string>} [headers] of every request, not of a WebSocket
 * @property {typeof fetch} [fetch]
 * @property {new (url: string) => any} [WebSocket] for a Node without one of its own
 * @property {AbortSignal} [signal] leaves the run as close() does; `done` is rejected with its reason
 * @property {Retry} [retry]
 * @property {number} [silence] ms without a byte after which a line counts as dead; 35000
 * @property {number} [ping] ms between the pings on a WebSocket; 10000
 *
 * What is sent; only `message` has to be. The names are those of GET /backends, /memory-modes and /tools.
 * @typedef {{message: string, backend?: string | null, model?: string | null, memory?: string | null, conversation_id?: string | null,
 *   system_prompt?: string | null, temperature?: number | null, max_tokens?: number | null, tools?: string[] | null}} Message
 */

const FIELDS = ['message', 'backend', 'model', 'memory', 'conversation_id', 'system_prompt', 'temperature', 'max_tokens', 'tools'];
const LAST = ['complete', 'stopped', 'error'];
const SILENCE_MS = 35_000, PING_MS = 10_000, OPEN = 1;
const PASSING = [408, 425, 429]; // statuses below 500 that say: come back later
const MOST_TOLD_MS = 3_600_000; // the longest that a server's Retry-After is waited for

/**
 * What a server refuses (with its own `code`, and the `status` of its answer) or the line prevents: `lost` (a message may
 * have arrived), `unreachable`, `unexpected` (not the answer of a Glassbox), `closed`, and `busy` before a message is sent.
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
 * Reads text/event-stream as it comes, wherever its chunks are cut.
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 * @typedef {{type: string, data: string, lastEventId: string}} StreamEvent
 */
export class EventParser {
  retry = /** @type {number | null} */ (null); // ms that the stream asks to wait before a reconnection
  lastEventId = '';
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true }); // Node 24 takes away two byte order marks; one is right
  #begun = false;
  #afterReturn = false;
  #rest = '';
  #id = '';
  #type = '';
  #data = /** @type {string[]} */ ([]);

  /** The events that `bytes` complete. What has no blank line after it never is one. @param {Uint8Array} bytes */
  push(bytes) {
    const ends = /\r\n?|\n/g, events = /** @type {StreamEvent[]} */ ([]);
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text && !this.#begun) [this.#begun, text] = [true, text.replace(/^\ufeff/, '')];
    if (!text) return events;
    // A CR ends its line at once, though whether an LF belongs to it is only seen in the next chunk.
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
    const told = handlers[name]?.(what);
    if (told instanceof Promise) told.catch(report);
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

/** The fields of a message that are given. @param {string | Message} given */
function fields(given) {
  const all = /** @type {Record<string, unknown>} */ (typeof given === 'string' ? { message: given } : given);
  return Object.fromEntries(FIELDS.filter((name) => all[name] != null).map((name) => [name, all[name]]));
}

/** A Retry-After in seconds, also where it is a date. @param {string | null} value */
function secondsOf(value) {
  const text = value?.trim() ?? '', seconds = /^[0-9.]+$/.test(text) ? parseFloat(text) : (Date.parse(text) - Date.now()) / 1000;
  return seconds > 0 ? seconds : null;
}

/** @param {string} id @param {boolean} approved @param {object} [input] */
const answerTo = (id, approved, input) => ({ tool_call_id: id, approved, ...(input && { input }) });

/** Calls `bark` when it is not fed for a while: a half-dead line says nothing. @param {number} ms @param {(why: Error) => void} bark */
function watch(ms, bark) {
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);
  const stop = () => clearTimeout(timer);
  const feed = () => { stop(); timer = setTimeout(() => bark(new Error(`Nothing was heard for ${ms / 1000} s.`)), ms); };
  feed();
  return { feed, stop };
}

/** How far a run has been followed, over whatever line: each event once and in order, and when to try again. */
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

  /** False if something is missing before the event. @param {RunEvent} event */
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

  /** @param {RunEvent | null} event null: it was left, or nothing more was to come */
  end(event) {
    this.over = true;
    this.#resolve(event);
    if (!event) this.leave(); // after a last event the server ends the line
  }

  /** @param {unknown} why */
  fail(why) {
    this.over = true;
    this.#reject(why);
    this.leave();
  }

  leave() { this.#leaving.abort(); }

  /** Waits before the next attempt, as long as the server says; false if there is to be none. @param {any} why */
  async pause(why) {
    const { attempts, delay: first, maxDelay } = this.limits;
    if (this.#attempt >= attempts) {
      this.fail(new ChatError('unreachable', `Glassbox could not be reached in ${attempts} attempts.`, { cause: why }));
      return false;
    }
    // Anywhere below the bound: else all clients of a server that has restarted would come back in the same moment.
    const drawn = Math.random() * (this.asked ?? first) * 2 ** this.#attempt++, told = 1000 * (why?.retryAfter ?? 0);
    const delay = Math.max(Math.min(maxDelay, drawn), Math.min(MOST_TOLD_MS, told));
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

  /** Both are known when the answer begins. */
  get runId() { return this.#following.runId; }
  get conversationId() { return this.#following.conversationId; }

  /**
   * The run's last event, also if that is `error`; null after close(), or if nothing more was to come. Rejected with a
   * ChatError if the run is refused or the connection cannot be restored.
   */
  get done() { return this.#following.done; }

  /** Ends the run; it is followed on, to its `stopped`. @returns {Promise<{status: string}>} */
  stop() { return this.#post('stop', {}); }

  /** Answers an `approval`. @param {string} id its tool_call_id @param {boolean} approved @param {object} [input] instead of the model's */
  approve(id, approved, input) { return this.#post('approve', answerTo(id, approved, input)); }

  /** Leaves the run, which may go on. */
  close() { this.#following.end(null); }

  /** @param {Record<string, unknown>} [message] */
  async #follow(message) {
    for (const run = this.#following; !run.over; message = undefined) {
      const line = new AbortController(), watchdog = watch(this.#options.silence ?? SILENCE_MS, (why) => line.abort(why));
      run.left.addEventListener('abort', () => line.abort(), { signal: line.signal });
      let why = /** @type {any} */ (new Error('The line ended before the run.'));
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
      else if (why.status && (message || (why.status < 500 && !PASSING.includes(why.status)))) run.fail(why);
      else if (run.runId) await run.pause(why);
      // Sent again, a message could start a second run.
      else run.fail(new ChatError('lost', `No answer came: the message may or may not have arrived. ${why.message}`, { cause: why }));
    }
  }

  /** @param {Response} answer @param {ReturnType<typeof watch>} watchdog */
  async #read({ body, headers, status }, watchdog) {
    const run = this.#following, parser = new EventParser(), reader = body?.getReader();
    if (headers.get('Content-Type')?.split(';')[0].trim().toLowerCase() !== 'text/event-stream') {
      throw new ChatError('unexpected', 'The answer is no event stream: is this the address of a Glassbox?', { status });
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
      throw new ChatError('unreachable', `Glassbox cannot be reached: ${cause?.message}`, { cause });
    });
    if (answer.ok) return answer;
    const { status } = answer, { code = 'unexpected', message = `The answer was ${status}.` } = (await answer.json().catch(() => null)) ?? {};
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
  #held = /** @type {object[]} */ ([]); // a stop and approvals, until the server has the run on this socket
  #ready = false; // it has
  #stopping = false;
  #alone = false; // nothing was sent after the message or the resume: a refusal can only mean that

  /** @param {Options} options @param {Handlers} handlers */
  constructor(options, handlers) {
    const { signal, WebSocket = globalThis.WebSocket } = options, address = new URL('ws/chat', base(options));
    if (!WebSocket) throw new TypeError('WebSocket: there is none here, give one as an option');
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

  /** Starts a run when there is a connection, and answers as a Run's `done`. @param {string | Message} message */
  send(message) { return this.#start(this.#following(), fields(message)); }

  /** Follows a run that there is. @param {string} runId @param {number} [after] the last event that is known */
  resume(runId, after) { return this.#start(this.#following(runId, after), null); }

  /** Ends the run; answers with its last event. */
  stop() {
    this.#stopping = true;
    this.#hold({ type: 'stop' });
    return this.#run?.done ?? Promise.resolve(null);
  }

  /** Answers an `approval`. @param {string} id its tool_call_id @param {boolean} approved @param {object} [input] instead of the model's */
  approve(id, approved, input) { this.#hold({ type: 'approve', ...answerTo(id, approved, input) }); }

  /** How long an answer takes, in ms. @returns {Promise<number>} */
  ping() {
    const at = performance.now();
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== OPEN) return reject(new ChatError('closed', 'There is no connection.'));
      this.#pings.push({ resolve: () => resolve(performance.now() - at), reject });
      this.#put({ type: 'ping' });
    });
  }

  /** Leaves for good; a run may go on. @param {unknown} [reason] */
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
    /** Events of an abandoned socket are ignored. @param {(what: any) => void} act */
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
    // Its pong says that the run was not refused, where the run itself is silent.
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
    socket.close(); // of a half-dead one the end may take long: it is not waited for
    for (const { reject } of this.#pings.splice(0)) reject(new ChatError('lost', 'The connection dropped.'));
    if (this.#stopping) this.#held = [{ type: 'stop' }]; // the one that was sent may be lost
    if (this.#closed) return;
    if (!run || run.over) tell(this.#handlers, 'disconnected');
    else if (run.runId || this.#message) void run.pause(why).then((again) => { if (again) this.#open(); });
    else run.fail(new ChatError('lost', 'The connection dropped before the run began: the message may or may not have arrived.'));
  }

  /** @param {object} frame */
  #put(frame) { this.#socket.send(JSON.stringify(frame)); }
}

/** Sends a message and follows its run. @param {string | (Message & Options)} given @param {Handlers} [handlers] */
export function streamChat(given, handlers = {}) {
  const options = typeof given === 'string' ? {} : given;
  return new Run(options, new Following(options, handlers), fields(given));
}

/** Follows a run that there is, from after a known event. @param {string} runId @param {Options & {after?: number}} [options] @param {Handlers} [handlers] */
export function followRun(runId, options = {}, handlers = {}) {
  return new Run(options, new Following(options, handlers, runId, options.after), undefined);
}

/** Opens a WebSocket for one run after the other. @param {Options} [options] @param {Handlers} [handlers] */
export function connectChat(options = {}, handlers = {}) {
  return new Chat(options, handlers);
}
