// How web/client.js follows a run when the line drops: over Server-Sent Events against a scripted HTTP server, over a
// WebSocket against one that the test plays.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { mock, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const { ChatError, connectChat, followRun, streamChat } = await import(process.env.GLASSBOX_CLIENT ?? '../web/client.js');

const QUICK = { attempts: 4, delay: 2, maxDelay: 20 };
const RUN = 'a-run', CONVERSATION = 'a-conversation';
const IDS = { 'X-Run-Id': RUN, 'X-Conversation-Id': CONVERSATION };

/** A run of ten events, with a reply that needs two, three and four bytes a character. */
const EVENTS = ['run', 'status', ...'Añ€𝄞 so'].map((what, i) => {
  const more = what === 'run' ? { conversation_id: CONVERSATION } : what === 'status' ? { phase: 'waiting' } : { content: what };
  return { type: i < 2 ? what : 'token', seq: i + 1, run_id: RUN, ...more };
}).concat([{ type: 'complete', seq: 10, run_id: RUN, content: 'Añ€𝄞 so' }]);
const [FIRST, LAST] = [EVENTS[0], EVENTS.at(-1)];
const EVERY = EVENTS.map((event) => event.seq);

const wire = (event) => `id: ${event.seq}\nevent: ${{ complete: 'done', error: 'failed' }[event.type] ?? event.type}\ndata: ${JSON.stringify(event)}\n\n`;
const bytes = (...events) => Buffer.from(events.map(wire).join(''));
const upTo = (seq) => bytes(...EVENTS.slice(0, seq));
const after = (seq) => bytes(...EVENTS.slice(seq));

const sse = (answer, headers = IDS) => answer.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8', ...headers });
const send = (body, headers) => (answer) => sse(answer, headers).end(body);
/** Sends, then cuts the line as a broken proxy does: the answer never gets its end. */
const cut = (body, headers) => (answer) => { sse(answer, headers).write(body, () => setTimeout(() => answer.destroy(), 5)); };
const hang = (body) => (answer) => { sse(answer).write(body); };
const refuse = (status, body, headers = {}) => (answer) => answer.writeHead(status, headers).end(body && JSON.stringify(body));

/** A server that gives one answer after the other, and tells what it was asked. */
async function serving(t, ...answers) {
  const asked = [];
  const server = createServer(async (request, answer) => {
    const parts = await request.toArray(), text = Buffer.concat(parts).toString();
    asked.push({ what: `${request.method} ${request.url}`, body: text && JSON.parse(text), headers: request.headers });
    const next = answers.shift();
    if (next) next(answer, request);
    else refuse(500, { code: 'internal', message: 'the script has ended' })(answer);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.close(); server.closeAllConnections(); });
  return { url: `http://127.0.0.1:${server.address().port}/`, asked, whats: () => asked.map((one) => one.what) };
}

/** Handlers that keep what they receive. */
function listening() {
  const received = { seqs: [], text: '', waits: [], connected: 0 };
  return {
    received,
    event: (event) => received.seqs.push(event.seq),
    token: (event) => { received.text += event.content; },
    reconnecting: (wait) => received.waits.push(wait),
    connected: () => { received.connected += 1; },
  };
}

const refused = (code, more = {}) => (error) => {
  assert.ok(error instanceof ChatError, String(error));
  assert.deepEqual({ code: error.code, ...more }, { code, ...Object.fromEntries(Object.keys(more).map((key) => [key, error[key]])) });
  return true;
};

async function quietly(act) {
  const said = mock.method(console, 'error', () => {});
  try {
    await act();
    return said.mock.calls.map((call) => call.arguments[0]);
  } finally {
    said.mock.restore();
  }
}

test('a run is sent, followed and described by its events', async (t) => {
  const { url, asked } = await serving(t, send(upTo(10)));
  const types = [], handlers = { ...listening(), complete: (event) => types.push(event.type), run: (event) => types.push(event.type) };
  const run = streamChat({ message: 'Hello', backend: 'Script', memory: null, temperature: 0, tools: [], window_turns: 7, url, headers: { 'X-Mine': '1' } }, handlers);
  assert.equal(run.runId, null);
  assert.deepEqual(await run.done, LAST);
  assert.deepEqual([run.runId, run.conversationId], [RUN, CONVERSATION]);
  assert.deepEqual([handlers.received.seqs, handlers.received.text, types], [EVERY, 'Añ€𝄞 so', ['run', 'complete']]);
  assert.deepEqual([handlers.received.connected, handlers.received.waits], [1, []]);
  assert.deepEqual(asked[0].body, { message: 'Hello', backend: 'Script', temperature: 0, tools: [], window_turns: 7 });
  assert.deepEqual([asked.length, asked[0].what, asked[0].headers['x-mine']], [1, 'POST /stream', '1']);
  assert.equal(asked[0].headers['content-type'], 'application/json');
});

test('wherever the line is cut, each event comes once and in order', async (t) => {
  const whole = upTo(10);
  for (let at = 0; at < whole.length; at += 13) {
    const seen = EVENTS.filter((event) => upTo(event.seq).length <= at).length;
    const { url, whats } = await serving(t, cut(whole.subarray(0, at)), send(after(seen)));
    const handlers = listening();
    assert.deepEqual(await streamChat({ message: 'x', url, retry: QUICK }, handlers).done, LAST);
    assert.deepEqual([handlers.received.seqs, handlers.received.text], [EVERY, 'Añ€𝄞 so'], `cut at ${at}`);
    assert.deepEqual(whats(), ['POST /stream', `GET /runs/${RUN}/events?after=${seen}`]);
    assert.deepEqual(handlers.received.waits.map((wait) => wait.attempt), [1]);
  }
});

test('an answer that ends too early is a line that dropped', async (t) => {
  const { url, whats } = await serving(t, send(upTo(4)), send(''), send(after(4)));
  const handlers = listening();
  assert.deepEqual(await streamChat({ message: 'x', url, retry: QUICK }, handlers).done, LAST);
  assert.deepEqual(handlers.received.seqs, EVERY);
  assert.deepEqual(whats().slice(1), [4, 4].map((seq) => `GET /runs/${RUN}/events?after=${seq}`));
});

test('a run that was cut before its first event is found by its header', async (t) => {
  const { url, whats } = await serving(t, cut(': hello\n\n'), send(upTo(10)));
  const run = streamChat({ message: 'x', url, retry: QUICK });
  assert.deepEqual(await run.done, LAST);
  assert.deepEqual(whats(), ['POST /stream', `GET /runs/${RUN}/events?after=0`]);
});

test('without the header nobody knows which run it is, and nothing is sent again', async (t) => {
  const { url, whats } = await serving(t, cut(': hello\n\n', {}));
  await assert.rejects(streamChat({ message: 'x', url, retry: QUICK }).done, refused('lost'));
  assert.deepEqual(whats(), ['POST /stream']);
});

test('events that have been there are dropped', async (t) => {
  const { url } = await serving(t, cut(upTo(6)), send(after(2)));
  const handlers = listening();
  await streamChat({ message: 'x', url, retry: QUICK }, handlers).done;
  assert.deepEqual(handlers.received.seqs, EVERY);
});

test('a gap is never skipped: the run is taken up before it', async (t) => {
  const gap = Buffer.concat([upTo(3), after(5)]);
  const { url, whats } = await serving(t, send(gap), send(after(3)));
  const handlers = listening();
  await streamChat({ message: 'x', url, retry: QUICK }, handlers).done;
  assert.deepEqual(handlers.received.seqs, EVERY);
  assert.equal(whats()[1], `GET /runs/${RUN}/events?after=3`);
});

test('data that is no JSON is a line that dropped', async (t) => {
  const { url } = await serving(t, send(`${upTo(3)}data: {"type":\n\n`), send(after(3)));
  const handlers = listening();
  await streamChat({ message: 'x', url, retry: QUICK }, handlers).done;
  assert.deepEqual(handlers.received.seqs, EVERY);
});

test('204 is the end, without an event', async (t) => {
  const { url } = await serving(t, cut(upTo(3)), refuse(204));
  assert.equal(await streamChat({ message: 'x', url, retry: QUICK }).done, null);
});

test('a run that is gone, or is not ours any more, is not asked for again', async (t) => {
  for (const [status, code] of [[404, 'not_found'], [401, 'authentication'], [403, 'authentication']]) {
    const { url, asked } = await serving(t, cut(upTo(3)), refuse(status, { code, message: 'no' }));
    await assert.rejects(streamChat({ message: 'x', url, retry: QUICK }).done, refused(code, { status, message: 'no' }));
    assert.equal(asked.length, 2);
  }
});

test('a server that is not there yet is asked again', async (t) => {
  const { url } = await serving(t, cut(upTo(3)), refuse(503, { code: 'backend_unavailable', message: 'starting' }), refuse(502), send(after(3)));
  const handlers = listening();
  assert.deepEqual(await streamChat({ message: 'x', url, retry: QUICK }, handlers).done, LAST);
  assert.deepEqual(handlers.received.seqs, EVERY);
});

test('attempts are bounded, and counted anew after progress', async (t) => {
  const one = (seq) => cut(bytes(EVENTS[seq]));
  const { url, asked } = await serving(t, cut(upTo(1)), cut(''), cut(''), one(1), cut(''), cut(''), one(2), cut(''), cut(''), cut(''));
  const handlers = listening();
  const run = streamChat({ message: 'x', url, retry: { ...QUICK, attempts: 3 } }, handlers);
  await assert.rejects(run.done, refused('unreachable'));
  assert.deepEqual(handlers.received.seqs, [1, 2, 3]);
  assert.deepEqual(handlers.received.waits.map((wait) => wait.attempt), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
  assert.equal(asked.length, 10);
});

test('waits double, are drawn from nought up, and have a bound', async (t) => {
  const random = mock.method(Math, 'random', () => 0.5);
  t.after(() => random.mock.restore());
  const { url } = await serving(t, cut(upTo(1)), ...Array.from({ length: 5 }, () => cut('')));
  const handlers = listening();
  await assert.rejects(streamChat({ message: 'x', url, retry: { attempts: 5, delay: 4, maxDelay: 20 } }, handlers).done);
  assert.deepEqual(handlers.received.waits.map((wait) => wait.delay), [2, 4, 8, 16, 20]);
});

test('a server that says when to come back is left alone until then', async (t) => {
  const random = mock.method(Math, 'random', () => 0);
  t.after(() => random.mock.restore());
  const { url } = await serving(t, cut(upTo(3)), refuse(503, null, { 'Retry-After': '0.05' }), send(after(3)));
  const handlers = listening();
  await streamChat({ message: 'x', url, retry: { ...QUICK, maxDelay: 1000 } }, handlers).done;
  assert.deepEqual(handlers.received.waits.map((wait) => wait.delay), [0, 50]);
});

test('a refusal that passes is waited for as long as it says, beyond our own bound and by a date', async (t) => {
  const random = mock.method(Math, 'random', () => 0);
  t.after(() => random.mock.restore());
  const limited = { code: 'rate_limited', message: 'wait' }, soon = new Date(Date.now() + 2000).toUTCString();
  const { url, whats } = await serving(t, cut(upTo(3)), refuse(429, limited, { 'Retry-After': '0.08' }), refuse(429, limited),
    refuse(408), refuse(425), refuse(503, 'no object', { 'Retry-After': soon }), send(after(3)));
  const handlers = listening();
  assert.deepEqual(await streamChat({ message: 'x', url, retry: { ...QUICK, attempts: 6 } }, handlers).done, LAST);
  const delays = handlers.received.waits.map((wait) => wait.delay), dated = delays.pop();
  assert.deepEqual([handlers.received.seqs, delays], [EVERY, [0, 80, 0, 0, 0]]);
  assert.ok(dated > 0 && dated <= 2000, `${dated} ms`);
  assert.deepEqual(whats().slice(1), Array(6).fill(`GET /runs/${RUN}/events?after=3`));
});

test('refusals that pass are bounded, too', async (t) => {
  const { url, asked } = await serving(t, cut(upTo(3)), ...Array.from({ length: 9 }, () => refuse(429, { code: 'rate_limited', message: 'wait' })));
  await assert.rejects(streamChat({ message: 'x', url, retry: QUICK }).done, refused('unreachable'));
  assert.equal(asked.length, 1 + QUICK.attempts);
});

test("a server's retry goes before our own", async (t) => {
  const { url } = await serving(t, cut(Buffer.concat([Buffer.from('retry: 10\n\n'), upTo(3)])), send(after(3)));
  const handlers = listening();
  await streamChat({ message: 'x', url, retry: { delay: 100_000, maxDelay: 100_000 } }, handlers).done;
  assert.ok(handlers.received.waits[0].delay <= 10);
});

test('a line without a byte is given up, a heartbeat keeps it', async (t) => {
  const beating = (answer) => {
    sse(answer).write(upTo(3));
    const beat = setInterval(() => answer.write(': ping\n\n'), 40);
    setTimeout(() => { clearInterval(beat); answer.end(after(3)); }, 600);
  };
  const { url, asked } = await serving(t, beating, hang(upTo(3)), send(after(3)));
  const steady = listening(), dead = listening();
  await streamChat({ message: 'x', url, retry: QUICK, silence: 250 }, steady).done;
  assert.deepEqual([steady.received.seqs, steady.received.waits], [EVERY, []]);
  await streamChat({ message: 'x', url, retry: QUICK, silence: 250 }, dead).done;
  assert.deepEqual([dead.received.seqs, dead.received.waits.length, asked.length], [EVERY, 1, 3]);
});

test('a resumption that is not answered is given up, too', async (t) => {
  const { url, asked } = await serving(t, cut(upTo(3)), () => {}, send(after(3)));
  assert.deepEqual(await streamChat({ message: 'x', url, retry: QUICK, silence: 100 }).done, LAST);
  assert.equal(asked.length, 3);
});

test("a message that was refused is reported in the server's words", async (t) => {
  const { url, asked } = await serving(t, refuse(400, { code: 'invalid_request', message: 'message: write one' }),
    refuse(429, { code: 'rate_limited', message: 'wait' }, { 'Retry-After': '12' }), refuse(503, { code: 'backend_unavailable', message: 'later' }), refuse(500), refuse(502, 'no object'));
  const options = { message: 'x', url, retry: QUICK };
  await assert.rejects(streamChat(options).done, refused('invalid_request', { status: 400, message: 'message: write one', retryAfter: null }));
  await assert.rejects(streamChat(options).done, refused('rate_limited', { status: 429, retryAfter: 12 }));
  await assert.rejects(streamChat(options).done, refused('backend_unavailable', { status: 503 }));
  await assert.rejects(streamChat(options).done, refused('unexpected', { status: 500, message: 'The server answered with status 500.' }));
  await assert.rejects(streamChat(options).done, refused('unexpected', { status: 502 }));
  assert.equal(asked.length, 5); // none was sent twice
});

test('a message without an answer is not sent again', async (t) => {
  const { url, asked } = await serving(t, (answer) => answer.destroy(), () => {});
  await assert.rejects(streamChat({ message: 'x', url, retry: QUICK }).done, refused('lost'));
  await assert.rejects(streamChat({ message: 'x', url, retry: QUICK, silence: 50 }).done, refused('lost'));
  assert.equal(asked.length, 2);
  await assert.rejects(streamChat({ message: 'x', url: 'http://127.0.0.1:9/', retry: QUICK }).done, refused('lost'));
});

test('format-mime: only an event stream is read as one', async (t) => {
  for (const kind of ['text/event-stream', 'text/event-stream;', 'text/event-stream; charset=windows-1252', 'Text/Event-Stream;x bogus']) {
    const { url } = await serving(t, send(upTo(10), { ...IDS, 'Content-Type': kind }));
    const handlers = listening();
    assert.deepEqual(await streamChat({ message: 'x', url }, handlers).done, LAST, kind);
    assert.equal(handlers.received.text, 'Añ€𝄞 so', kind); // always UTF-8
  }
  for (const kind of ['text/html', 'x bogus', 'text/x-bogus', 'text/event-streams', '']) {
    const { url, asked } = await serving(t, send(upTo(10), { ...IDS, 'Content-Type': kind }));
    await assert.rejects(streamChat({ message: 'x', url, retry: QUICK }).done, refused('unexpected', { status: 200 }), kind);
    assert.equal(asked.length, 1);
  }
});

test('a run that fails resolves: it has a last event', async (t) => {
  const failed = { type: 'error', seq: 2, run_id: RUN, code: 'timeout', message: 'too slow', retryable: true, content: '' };
  const { url } = await serving(t, send(bytes(FIRST, failed)));
  const heard = [];
  assert.deepEqual(await streamChat({ message: 'x', url }, { error: (event) => heard.push(event.code) }).done, failed);
  assert.deepEqual(heard, ['timeout']);
});

test('what comes after the last event is not reported', async (t) => {
  const { url } = await serving(t, send(bytes(...EVENTS, { ...FIRST, seq: 11 })));
  const handlers = listening();
  await streamChat({ message: 'x', url }, handlers).done;
  await sleep(20);
  assert.deepEqual(handlers.received.seqs, EVERY);
});

test('a handler that throws breaks nothing and is reported', async (t) => {
  const { url } = await serving(t, send(upTo(10)));
  const handlers = { ...listening(), token: () => { throw new Error('mine'); }, status: async () => { throw new Error('mine, later'); } };
  const said = await quietly(async () => assert.deepEqual(await streamChat({ message: 'x', url }, handlers).done, LAST));
  assert.deepEqual(handlers.received.seqs, EVERY);
  assert.deepEqual(new Set(said.map((error) => error.message)), new Set(['mine', 'mine, later']));
  assert.equal(said.length, 8);
});

test('a run is stopped and its calls are answered by its id', async (t) => {
  let stream;
  const { url, asked } = await serving(t, (answer) => { stream = sse(answer); stream.write(upTo(3)); },
    refuse(200, { status: 'tool' }), refuse(200, { status: 'tool' }), refuse(409, { code: 'busy', message: 'not waiting' }), refuse(200, { status: 'stopped' }));
  const run = streamChat({ message: 'x', url });
  assert.deepEqual(await run.approve('call-1', true), { status: 'tool' }); // waits for the id
  await run.approve('call-2', false, { words: 'x' });
  await assert.rejects(run.approve('call-3', true), refused('busy', { status: 409 }));
  assert.deepEqual(await run.stop(), { status: 'stopped' });
  stream.end(bytes({ type: 'stopped', seq: 4, run_id: RUN, reason: 'user', content: 'A' }));
  assert.equal((await run.done).type, 'stopped');
  assert.deepEqual(asked.slice(1).map((one) => one.what), [...Array(3).fill(`POST /runs/${RUN}/approve`), `POST /runs/${RUN}/stop`]);
  assert.deepEqual(asked.slice(1, 3).map((one) => one.body), [{ tool_call_id: 'call-1', approved: true }, { tool_call_id: 'call-2', approved: false, input: { words: 'x' } }]);
});

test('a run that is left says nothing more, and is not asked for again', async (t) => {
  let gone;
  const left = (answer) => { gone = once(answer, 'close'); hang(upTo(4))(answer); };
  const { url, asked } = await serving(t, left, hang(upTo(3)), cut(upTo(3)));
  const seen = [];
  const run = streamChat({ message: 'x', url, retry: QUICK }, { event: (event) => { if (seen.push(event.type) === 3) run.close(); }, token: () => seen.push('received') });
  assert.equal(await run.done, null);
  assert.deepEqual(seen, ['run', 'status', 'token']);
  await gone; // the line, too

  const leaving = new AbortController();
  const other = streamChat({ message: 'x', url, retry: QUICK, signal: leaving.signal }, { token: () => leaving.abort(new Error('enough')) });
  await assert.rejects(other.done, /enough/);

  const waiting = streamChat({ message: 'x', url, retry: { delay: 1e6, maxDelay: 1e6 } }, { reconnecting: () => setTimeout(() => waiting.close(), 5) });
  assert.equal(await waiting.done, null);
  await assert.rejects(streamChat({ message: 'x', url, signal: AbortSignal.abort(new Error('before')) }).done, /before/);
  await sleep(20);
  assert.equal(asked.length, 3);
});

test('a run that is left before its id is known cannot be stopped', async (t) => {
  const { url } = await serving(t, () => {});
  const run = streamChat({ message: 'x', url });
  const stopping = run.stop();
  run.close();
  await assert.rejects(stopping, refused('closed'));
});

test('a run that there is can be followed from any place, below any path', async (t) => {
  const { url, whats } = await serving(t, cut(bytes(...EVENTS.slice(3, 5))), send(after(5)));
  const handlers = listening();
  const run = followRun('a run/ö', { url: `${url}below/here?x=1`, after: 3, retry: QUICK }, handlers);
  assert.equal(run.runId, 'a run/ö');
  assert.deepEqual(await run.done, LAST);
  assert.deepEqual(handlers.received.seqs, EVERY.slice(3));
  assert.deepEqual(whats(), [3, 5].map((seq) => `GET /below/here/runs/a%20run%2F%C3%B6/events?after=${seq}`));
});

test('following goes on although the first attempt fails', async (t) => {
  const { url } = await serving(t, (answer) => answer.destroy(), send(upTo(10)));
  assert.deepEqual(await followRun(RUN, { url, retry: QUICK }).done, LAST);
});

test('an address has to be one', () => {
  assert.throws(() => streamChat({ message: 'x' }), /url: say where/); // this file has none to offer
});

/** A WebSocket that the test plays the server of. */
class Played {
  static all = [];
  readyState = 0;
  sent = [];
  constructor(url) { this.url = url; Played.all.push(this); }
  send(text) { assert.equal(this.readyState, 1); this.sent.push(JSON.parse(text)); }
  close() { this.readyState = 3; }
  open() { this.readyState = 1; this.onopen({}); return this; }
  say(...events) { for (const event of events) this.onmessage({ data: JSON.stringify(event) }); }
  drop() { this.readyState = 3; this.onclose({ code: 1006 }); }
  /** What was sent but pings. */
  get frames() { return this.sent.filter((frame) => frame.type !== 'ping'); }
}

async function nth(n) {
  for (const started = Date.now(); Date.now() - started < 3000; await sleep(1)) if (Played.all.length >= n) return Played.all[n - 1];
  throw new Error(`there is no connection ${n}`);
}

function connecting(t, options = {}, more = {}) {
  Played.all = [];
  const handlers = { ...listening(), ...more };
  const chat = connectChat({ url: 'https://host/below', WebSocket: Played, retry: QUICK, ...options }, handlers);
  t.after(() => chat.close());
  return { chat, received: handlers.received, socket: Played.all[0] };
}

test('ws: messages wait for the connection, and one run comes after the other', async (t) => {
  const { chat, received, socket } = connecting(t);
  assert.equal(socket.url, 'wss://host/below/ws/chat');
  const sent = chat.send({ message: 'Hello', memory: 'full', url: 'not of a message' });
  assert.deepEqual(socket.sent, []);
  socket.open();
  assert.deepEqual(socket.frames, [{ message: 'Hello', memory: 'full' }]);
  await assert.rejects(chat.send('too early'), refused('busy'));
  socket.say(...EVENTS);
  assert.deepEqual(await sent, LAST);
  assert.deepEqual([chat.runId, chat.conversationId, received.seqs, received.text, received.connected], [RUN, CONVERSATION, EVERY, 'Añ€𝄞 so', 1]);
  const second = chat.send('Again');
  socket.say(...EVENTS.map((event) => ({ ...event, run_id: 'another' })));
  assert.equal((await second).run_id, 'another');
  assert.equal(socket.frames.length, 2);
});

test('ws: a run is taken up where it was, in order and without repetition', async (t) => {
  const { chat, received, socket } = connecting(t);
  const sent = chat.send('Hello');
  socket.open().say(...EVENTS.slice(0, 4));
  socket.drop();
  socket.say(EVENTS[4]); // too late: nobody listens to it any more
  const second = (await nth(2)).open();
  assert.deepEqual(second.frames, [{ type: 'resume', run_id: RUN, after: 4 }]);
  second.say(EVENTS[2], EVENTS[3], EVENTS[4], EVENTS[6]); // 6 is missing
  assert.equal(second.readyState, 3);
  const third = (await nth(3)).open();
  assert.deepEqual(third.frames, [{ type: 'resume', run_id: RUN, after: 5 }]);
  third.say(...EVENTS.slice(5));
  assert.deepEqual(await sent, LAST);
  assert.deepEqual([received.seqs, received.connected], [EVERY, 3]);
});

test('ws: a message whose fate is unknown is not sent again', async (t) => {
  const { chat, socket } = connecting(t);
  const sent = chat.send('Hello');
  socket.open().drop();
  await assert.rejects(sent, refused('lost'));
  await sleep(30);
  assert.equal(Played.all.length, 1);
  const again = chat.send('Hello again');
  (await nth(2)).open().say(...EVENTS);
  assert.deepEqual(await again, LAST);
});

test('ws: one that has not been sent waits for the next connection', async (t) => {
  const { chat, received, socket } = connecting(t);
  const sent = chat.send('Hello');
  socket.drop();
  const second = (await nth(2)).open();
  assert.deepEqual(second.frames, [{ message: 'Hello' }]);
  second.say(...EVENTS);
  await sent;
  assert.equal(received.waits.length, 1);
});

test('ws: attempts are bounded', async (t) => {
  const { chat, received, socket } = connecting(t, { retry: { ...QUICK, attempts: 3 } });
  const sent = chat.send('Hello');
  socket.drop();
  for (const n of [2, 3, 4]) (await nth(n)).drop();
  await assert.rejects(sent, refused('unreachable'));
  assert.equal(received.waits.length, 3);
});

test("ws: a message that is refused is reported in the server's words, and the socket stays", async (t) => {
  const { chat, socket } = connecting(t);
  const sent = chat.send('');
  socket.open().say({ type: 'error', code: 'invalid_request', message: 'message: write one', retryable: false, content: '' });
  await assert.rejects(sent, refused('invalid_request', { message: 'message: write one' }));
  const again = chat.send('Hello');
  socket.say(...EVENTS);
  assert.deepEqual(await again, LAST);
});

test('ws: a run that is gone is not asked for again', async (t) => {
  const { chat, socket } = connecting(t);
  const sent = chat.send('Hello');
  socket.open().say(...EVENTS.slice(0, 4));
  socket.drop();
  (await nth(2)).open().say({ type: 'error', code: 'not_found', message: 'gone' });
  await assert.rejects(sent, refused('not_found'));
});

test('ws: a resumption that is refused for the moment is tried again at the time that it names', async (t) => {
  const random = mock.method(Math, 'random', () => 0);
  t.after(() => random.mock.restore());
  const { chat, received, socket } = connecting(t);
  const sent = chat.send('Hello');
  socket.open().say(...EVENTS.slice(0, 4));
  socket.drop();
  (await nth(2)).open().say({ type: 'error', code: 'rate_limited', message: 'wait', retryable: true, retry_after: 0.08 });
  const third = (await nth(3)).open();
  assert.deepEqual(third.frames, [{ type: 'resume', run_id: RUN, after: 4 }]);
  third.say(...EVENTS.slice(4));
  assert.deepEqual(await sent, LAST);
  assert.deepEqual([received.seqs, received.waits.map((wait) => wait.delay)], [EVERY, [0, 80]]);
});

test('ws: what is refused in mid-run does not end it', async (t) => {
  const heard = [];
  const { chat, socket } = connecting(t, {}, { refused: (event) => heard.push(event.code) });
  const sent = chat.send('Hello');
  socket.open().say(...EVENTS.slice(0, 4));
  chat.approve('call', true, { words: 'x' });
  socket.say({ type: 'error', code: 'busy', message: 'it is not waiting' }, ...EVENTS.slice(4));
  assert.deepEqual(await sent, LAST);
  assert.deepEqual([heard, socket.frames[1]], [['busy'], { type: 'approve', tool_call_id: 'call', approved: true, input: { words: 'x' } }]);
});

test('ws: a stop waits for its run, and is sent again if it may be lost', async (t) => {
  const { chat, socket } = connecting(t);
  const sent = chat.send('Hello');
  const stopped = chat.stop();
  socket.open();
  assert.deepEqual(socket.frames, [{ message: 'Hello' }]);
  socket.say(FIRST);
  assert.deepEqual(socket.frames.slice(1), [{ type: 'stop' }]);
  socket.drop();
  const second = (await nth(2)).open();
  assert.deepEqual(second.frames, [{ type: 'resume', run_id: RUN, after: 1 }]);
  second.say({ type: 'pong' }); // a run may be silent: that it was not refused is enough
  await sleep(5);
  assert.deepEqual(second.frames.slice(1), [{ type: 'stop' }]);
  second.say({ type: 'stopped', seq: 2, run_id: RUN, reason: 'user', content: '' });
  assert.equal((await stopped).type, 'stopped');
  assert.equal(await stopped, await sent);
});

test('ws: pings keep the line, silence ends it', async (t) => {
  const { chat, received, socket } = connecting(t, { ping: 20, silence: 120 });
  const sent = chat.send('Hello');
  socket.open().say(...EVENTS.slice(0, 4));
  const alive = setInterval(() => socket.say({ type: 'pong' }), 20);
  await sleep(300);
  clearInterval(alive);
  assert.ok(socket.sent.length - socket.frames.length > 5);
  assert.equal(Played.all.length, 1);
  const second = await nth(2);
  assert.equal(socket.readyState, 3);
  second.open().say(...EVENTS.slice(4));
  await sent;
  assert.deepEqual(received.seqs, EVERY);
});

test('ws: a ping is answered with the time that it took', async (t) => {
  const { chat, socket } = connecting(t);
  await assert.rejects(chat.ping(), refused('closed'));
  socket.open();
  const [quick, lost] = [chat.ping(), chat.ping()];
  socket.say({ type: 'pong' });
  assert.ok(await quick >= 0);
  socket.drop();
  await assert.rejects(lost, refused('lost'));
});

test('ws: a run that there is can be followed', async (t) => {
  const { chat, received, socket } = connecting(t);
  const followed = chat.resume(RUN, 3);
  socket.open();
  assert.deepEqual(socket.frames, [{ type: 'resume', run_id: RUN, after: 3 }]);
  socket.say(...EVENTS.slice(3));
  assert.deepEqual(await followed, LAST);
  assert.deepEqual(received.seqs, EVERY.slice(3));
});

test('ws: a drop between runs is reported, and repaired by the next message', async (t) => {
  let dropped = 0;
  const { chat, socket } = connecting(t, {}, { disconnected: () => { dropped += 1; } });
  socket.open().drop();
  await sleep(20);
  assert.deepEqual([dropped, Played.all.length], [1, 1]);
  const sent = chat.send('Hello');
  (await nth(2)).open().say(...EVENTS);
  assert.deepEqual(await sent, LAST);
});

test('ws: closing leaves the run for good', async (t) => {
  const { chat, received, socket } = connecting(t);
  const sent = chat.send('Hello');
  socket.open().say(...EVENTS.slice(0, 4));
  chat.close();
  assert.equal(await sent, null);
  assert.deepEqual([socket.readyState, received.seqs], [3, [1, 2, 3, 4]]);
  await assert.rejects(chat.send('x'), refused('closed'));

  const leaving = new AbortController();
  const other = connecting(t, { signal: leaving.signal });
  const cutOff = other.chat.send('Hello');
  leaving.abort(new Error('enough'));
  await assert.rejects(cutOff, /enough/);
});

test('ws: a Node without WebSocket needs one', { skip: 'WebSocket' in globalThis }, () => {
  assert.throws(() => connectChat({ url: 'http://host/' }), /WebSocket: there is none/);
});
