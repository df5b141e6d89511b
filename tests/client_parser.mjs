// The parser of web/client.js on event streams cut at every byte. The cases are the examples of the HTML standard, section
// 9.2.6, and those of the web platform tests (eventsource/format-*), whose names they have.

import assert from 'node:assert/strict';
import { test } from 'node:test';

const { EventParser } = await import(process.env.GLASSBOX_CLIENT ?? '../web/client.js');

const encode = (text) => new TextEncoder().encode(text);
const at = (lastEventId, ...datas) => datas.map((data) => ({ type: 'message', data, lastEventId }));
const messages = (...datas) => at('', ...datas);
const LONG = 'x'.repeat(2048);

/** name: [the stream, its events, the rest that is known at its end] */
const CASES = {
  'the standard: three messages': ['data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\ndata: This is the third message.\n\n',
    messages('This is the first message.', 'This is the second message, it\nhas two lines.', 'This is the third message.')],
  'the standard: named events': ['event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n',
    [['add', '73857293'], ['remove', '2153'], ['add', '113411']].map(([type, data]) => ({ type, data, lastEventId: '' }))],
  'the standard: one message of three lines': ['data: YHOO\ndata: +2\ndata: 10\n\n', messages('YHOO\n+2\n10')],
  'the standard: a comment, ids, an id taken back': [': test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n',
    [...at('1', 'first event'), ...at('', 'second event')], { lastEventId: '' }],
  'the standard: empty data twice, an end without a blank line': ['data\n\ndata\ndata\n\ndata:', messages('', '\n')],
  'the standard: two identical events': ['data:test\n\ndata: test\n\n', messages('test', 'test')],

  'format-bom': ['\ufeffdata:1\n\n\ufeffdata:2\n\ndata:3\n\n', messages('1', '3')],
  'format-bom-2': ['\ufeff\ufeffdata:1\n\ndata:2\n\ndata:3\n\n', messages('2', '3')],
  'format-comments': [`data:1\r:\0\n:\r\ndata:2\n:${LONG}\rdata:3\n:data:fail\r:${LONG}\ndata:4\n\n`, messages('1\n2\n3\n4')],
  'format-data-before-final-empty-line': ['retry:1000\ndata:test1\n\nid:test\ndata:test2', messages('test1'), { retry: 1000, lastEventId: '' }],
  'format-field-data': ['data:\n\ndata\ndata\n\ndata:test\n\n', messages('', '\n', 'test')],
  'format-field-event': ['event:test\ndata:x\n\ndata:x\n\n', [{ type: 'test', data: 'x', lastEventId: '' }, ...messages('x')]],
  'format-field-event-empty': ['event: \ndata:data\n\n', messages('data')],
  'format-field-id': ['id: 1\ndata:hello\n\ndata:again\n\n', at('1', 'hello', 'again'), { lastEventId: '1' }],
  'format-field-id-2': ['id: …\ndata:hello\n\ndata:again\n\n', at('…', 'hello', 'again'), { lastEventId: '…' }],
  'format-field-id-3, persists': ['id: 1\ndata: 1\n\ndata: 2\n\n', at('1', '1', '2')],
  'format-field-id-3, changes': ['id: 1\ndata: 1\n\nid: 2\ndata: 2\n\ndata: 3\n\n', [...at('1', '1'), ...at('2', '2', '3')]],
  'format-field-id-3, resets with id:': ['id: 1\ndata: 1\n\nid:\ndata: 2\n\ndata: 3\n\n', [...at('1', '1'), ...at('', '2', '3')]],
  'format-field-id-3, resets with id': ['id: 1\ndata: 1\n\nid\ndata: 2\n\ndata: 3\n\n', [...at('1', '1'), ...at('', '2', '3')]],
  'format-field-id-null': ['id: 1\ndata:1\n\nid: \0\0\ndata:2\n\nid:2\0\ndata:3\n\n', at('1', '1', '2', '3'), { lastEventId: '1' }],
  'format-field-parsing': ['data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n',
    messages('\0\n 2\n1\n3\n\n4')],
  'format-field-retry': ['retry:03000\ndata:x\n\n', messages('x'), { retry: 3000 }],
  'format-field-retry-bogus': ['retry:3000\nretry:1000x\ndata:x\n\n', messages('x'), { retry: 3000 }],
  'format-field-retry-empty': ['retry\ndata:test\n\n', messages('test'), { retry: null }],
  'format-field-unknown': ['data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n', messages('test\n\ntest')],
  'format-leading-space': ['data:\ttest\rdata: \ndata:test\n\n', messages('\ttest\n\ntest')],
  'format-newlines': ['data:test\r\ndata\ndata:test\r\n\r', messages('test\n\ntest')],
  'format-null-character': ['data:\0\n\n\n\n', messages('\0')],
  'format-utf-8': ['data:ok…\n\n', messages('ok…')],

  'only carriage returns': ['data: a\r\rdata: b\r\r', messages('a', 'b')],
  'only CRLF': ['id: 7\r\nevent: token\r\ndata: a\r\ndata: b\r\n\r\n: hush\r\n\r\n', [{ type: 'token', data: 'a\nb', lastEventId: '7' }]],
  'all three line ends': ['data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\n', messages('a\nb\nc', 'd')],
  'CR LF LF is two line ends, LF CR also': ['data: a\r\n\ndata: b\n\rdata: c\r\r\n', messages('a', 'b', 'c')],
  'a retry with a sign, a point or a space': ['retry: +5\nretry: 1.5\nretry: 5 \nretry: -1\nretry: ٣\n\n', [], { retry: null }],
  'an id without data': ['id: 9\n\ndata: x\n\n', at('9', 'x'), { lastEventId: '9' }],
  'an event name without data is forgotten': ['event: a\n\ndata: x\n\n', messages('x')],
  'colons in the value': ['data: a: b:c\n\ndata::\n\n', messages('a: b:c', ':')],
  'line ends of other alphabets are text': ['data: a\u2028b\u0085c\u000bd\n\n', messages('a\u2028b\u0085c\u000bd')],
  'characters of two, three and four bytes': ['data: é€𝄞👩‍👩‍👧\n\n', messages('é€𝄞👩‍👩‍👧')],
  'bytes that are no UTF-8': [Uint8Array.of(...encode('data: '), 0xff, 0xe2, 0x82, ...encode('x\n\n')), messages('\ufffd\ufffdx')],
  'nothing': ['', []],
  'an end without a line end': ['data: a\n\ndata: b', messages('a')],
};

function parsed(...chunks) {
  const parser = new EventParser(), events = chunks.flatMap((chunk) => parser.push(chunk));
  return { events, retry: parser.retry, lastEventId: parser.lastEventId };
}

for (const [name, [stream, events, more = {}]] of Object.entries(CASES)) {
  test(name, () => {
    const bytes = typeof stream === 'string' ? encode(stream) : stream;
    const whole = parsed(bytes);
    assert.deepEqual(whole.events, events);
    assert.deepEqual({ ...whole, ...more }, whole);
    for (let cut = 0; cut <= bytes.length; cut++) {
      assert.deepEqual(parsed(bytes.subarray(0, cut), bytes.subarray(cut)), whole, `cut at ${cut}`);
    }
    assert.deepEqual(parsed(...Array.from(bytes, (byte) => Uint8Array.of(byte))), whole, 'byte by byte');
    assert.deepEqual(parsed(...Array.from(bytes, (byte) => [Uint8Array.of(byte), new Uint8Array()]).flat()), whole, 'with empty chunks');
  });
}

test('an event is there with its last byte, also if that is a CR', () => {
  for (const end of ['\n\n', '\r\r', '\r\n\r', '\n\r']) {
    const parser = new EventParser();
    assert.deepEqual(parser.push(encode(`data: x${end}`)), messages('x'), JSON.stringify(end));
    assert.deepEqual(parser.push(encode('\ndata: y\n\n')), messages('y'));
  }
});

test('a line of many chunks takes no longer than its length', () => {
  const parser = new EventParser(), chunk = encode('x'.repeat(64 * 1024)), started = performance.now();
  parser.push(encode('data:'));
  for (let i = 0; i < 320; i++) assert.deepEqual(parser.push(chunk), []);
  const [event] = parser.push(encode('\n\n'));
  assert.equal(event.data.length, 320 * chunk.length);
  assert.ok(performance.now() - started < 5000);
});
