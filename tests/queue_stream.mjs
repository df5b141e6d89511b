// The stream of Gradio's messages on the page, with a server that closes it in the worst moment.

import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import test from 'node:test';

const message = (fields) => `data: ${JSON.stringify(fields)}\n\n`;

// `streams`: what each request for messages is answered with. Returns the page's fetch, and how many streams it has asked for.
async function page(streams) {
  let asked = 0, number = 0;
  const server = createServer(async (request, response) => {
    if (request.url.includes('queue/join')) return response.end(JSON.stringify({ event_id: `e${number += 1}` }));
    const write = streams[asked];
    asked += 1;
    await write((text) => response.write(text));
    response.end();
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const origin = `http://127.0.0.1:${server.address().port}/gradio_api/queue`;
  const window = { fetch: globalThis.fetch };
  new Function('window', 'location', readFileSync(process.env.QUEUE_STREAM, 'utf8'))(window, { href: origin });
  const join = async () => (await (await window.fetch(`${origin}/join`, { method: 'POST', body: '{}' })).json()).event_id;
  const read = async () => (await (await window.fetch(`${origin}/data?session_hash=x`)).text()).split('\n\n').filter(Boolean).map((one) => JSON.parse(one.slice(6)));
  return { join, read, count: () => asked, close: () => { server.closeAllConnections(); server.close(); } };
}

test('an event that joins as the stream closes gets its messages', async () => {
  let joined;
  const both = new Promise((done) => { joined = done; });
  const { join, read, count, close } = await page([
    async (write) => {
      write(message({ msg: 'process_completed', event_id: 'e1' }));
      await both; // the server has decided to close before, and the client hears of it afterwards
      write(message({ msg: 'close_stream', event_id: null }));
    },
    async (write) => {
      write(message({ msg: 'process_generating', event_id: 'e2', text: 'close_stream \u2028 é' }));
      write(message({ msg: 'process_completed', event_id: 'e2' }));
      write(message({ msg: 'close_stream', event_id: null }));
    },
  ]);
  await join();
  const reading = read();
  await join();
  joined();
  const found = await reading;
  assert.deepEqual(found.map((one) => one.msg), ['process_completed', 'process_generating', 'process_completed', 'close_stream']);
  assert.equal(found[1].text, 'close_stream \u2028 é');
  assert.equal(count(), 2);
  close();
});

test('a stream without open events closes', async () => {
  const { join, read, count, close } = await page([
    async (write) => { write(message({ msg: 'process_completed', event_id: 'e1' }) + message({ msg: 'close_stream' })); },
  ]);
  await join();
  assert.deepEqual((await read()).map((one) => one.msg), ['process_completed', 'close_stream']);
  assert.equal(count(), 1);
  close();
});

test('an event that ends before its id is known keeps no stream open', async () => {
  const { join, read, count, close } = await page([
    async (write) => { write(message({ msg: 'process_completed', event_id: 'e1' }) + message({ msg: 'close_stream' })); },
  ]);
  const found = await read();
  await join();
  assert.equal(found.length, 2);
  assert.equal(count(), 1);
  close();
});

test('a line that breaks ends the stream as before', async () => {
  const { join, read, count, close } = await page([async (write) => write(message({ msg: 'process_starts', event_id: 'e1' }))]);
  await join();
  assert.deepEqual((await read()).map((one) => one.msg), ['process_starts']);
  assert.equal(count(), 1);
  close();
});
