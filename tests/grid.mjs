// The page that compares (web/grid_*.js), without its elements: prompts, cells, statistics, differences and files.

import assert from 'node:assert/strict';
import { test } from 'node:test';

const load = (name) => import(`${process.env.GLASSBOX_WEB ?? new URL('../web', import.meta.url)}/grid_${name}.js`);
const { asText, decoded, promptsOf, readFile, rowsOf } = await load('input');
const { allowed, apply, batchOf, cellAt, endLive, makeGrid, reset, take } = await load('cells');
const { MEASURES, bestOf, byColumn, counts, ranked, rates, shuffled, summary, written } = await load('statistics');
const { difference } = await load('diff');
const { asCsv, asJson, asMarkdown } = await load('export');
const { ticks, curve } = await load('chart');
const { keep, kept } = await load('kept');
const { MOST_RECORD, eventOf, hasRecord, lengthOf } = await load('record');
const measure = (id) => MEASURES.find((one) => one.id === id);

test('prompts are separated as the form says', () => {
  const text = ' one \r\ntwo\n\n  \nthree\n---\nfour';
  assert.deepEqual(promptsOf(text, 'line'), ['one', 'two', 'three', '---', 'four']);
  assert.deepEqual(promptsOf(text, 'blank'), ['one \ntwo', 'three\n---\nfour']);
  assert.deepEqual(promptsOf(text, 'dashes'), ['one \ntwo\n\n  \nthree', 'four']);
  assert.deepEqual(promptsOf(' \n', 'line'), []);
});

test('prompts of a file keep their lines in the text box', () => {
  for (const [prompts, by] of [[['a', 'b'], 'line'], [['a\nb', 'c'], 'blank'], [['a\n\nb', 'c'], 'dashes']]) {
    const made = asText(prompts);
    assert.equal(made.by, by);
    assert.deepEqual(promptsOf(made.text, made.by), prompts);
  }
  assert.throws(() => asText(['x', 'a\n\n---\nb']), /Prompt 2 has a line with only ---/);
});

test('files of prompts are read', () => {
  const cases = {
    'a.csv': [['id,Prompt\r\n1,"Hi, you"\r\n2,"two ""quoted""\nlines"\r\n', 'prompt;note\nHi, you;x\ntwo', 'Hi\n"two\nlines"\n'],
      [['Hi, you', 'two "quoted"\nlines'], ['Hi, you', 'two'], ['Hi', 'two\nlines']]],
    'a.tsv': [['x\tmessage\n1\tHi\n'], [['Hi']]],
    'a.jsonl': [['"Hi"\n\n{"prompt": "two"}\n{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "three"}]}\n'], [['Hi', 'two', 'three']]],
    'a.json': [['["Hi", {"question": "two"}]'], [['Hi', 'two']]],
    'a.txt': [['Hi\n\ntwo', '{"prompt": "Hi"}\n'], [['Hi', 'two'], ['Hi']]],
  };
  for (const [name, [texts, found]] of Object.entries(cases)) texts.forEach((text, i) => assert.deepEqual(readFile(name, `\ufeff${text}`), found[i], text));
});

test('files that cannot be used name the line and what to change', () => {
  const cases = [['a.csv', 'a,b\n1,2', /names one of them prompt. Found: a, b/], ['a.csv', 'prompt\n"open\n', /Line 2 of the CSV file begins a quoted text/],
    ['a.jsonl', '"Hi"\n{"a":', /Line 2 is not valid JSON/], ['a.jsonl', '"Hi"\n{"a": 1}', /Line 2 has no prompt/], ['a.jsonl', 'null', /Line 1 has no prompt/],
    ['a.json', '{}', /no JSON list/], ['a.json', '[1]', /Item 1 has no prompt/], ['a.csv', 'prompt\n\n', /has no prompts/], ['a.txt', '\n', /has no prompts/],
    ['a.txt', 'a\0b', /not a text file/], ['a.txt', 'a\n'.repeat(1300), /a.txt has 1,300 prompts, and at most 256 can be sent at once/]];
  for (const [name, text, says] of cases) assert.throws(() => readFile(name, text), says, text);
  assert.deepEqual(rowsOf('a,b\n\n"c"'), [['a', 'b'], ['c']]);
});

test('files are text in UTF-8, or in UTF-16 with a mark', () => {
  const bytes = (...codes) => new Uint8Array(codes).buffer;
  assert.equal(decoded('a', new TextEncoder().encode('\ufeffgröße').buffer), 'größe');
  assert.equal(decoded('a', bytes(0xff, 0xfe, 0xf6, 0)), 'ö');
  assert.equal(decoded('a', bytes(0xfe, 0xff, 0, 0xf6)), 'ö');
  assert.equal(decoded('a', bytes()), '');
  assert.throws(() => decoded('a.csv', bytes(0x67, 0xf6)), /a.csv is not a text file in UTF-8/);
});

const at = (ms) => new Date(1e12 + ms).toISOString();
const SETUP = { prompts: ['p', 'q'], backends: ['A', 'B'], memory: ['none', 'full'] };
const complete = (content, ttft, more = {}) => ({
  type: 'complete', timestamp: at(2000), content, usage: { input_tokens: 5, output_tokens: 4, cost_usd: ttft / 1000, ...more },
  timing: { ttft_s: ttft, duration_s: 2, tokens_per_s: 10 / ttft },
});
const run = { type: 'run', run_id: 'r', timestamp: at(0) };

test('a cell has the index of its combination in a batch, also with trials', () => {
  const grid = makeGrid({ ...SETUP, trials: 2, options: { tools: [] } }), body = batchOf(grid);
  assert.deepEqual(body.prompts, ['p', 'q', 'p', 'q']);
  assert.deepEqual(body.tools, []);
  grid.cells.forEach((cell, index) => {
    const c = index % 4, p = Math.floor(index / 4);
    assert.deepEqual([cell.index, body.prompts[p]], [index, grid.prompts[cell.prompt]]);
    assert.deepEqual(grid.columns[cell.column], { backend: SETUP.backends[Math.floor(c / 2)], memory: SETUP.memory[c % 2] });
    assert.equal(cellAt(grid, cell.trial, cell.prompt, cell.column), cell);
  });
  assert.deepEqual(batchOf(grid, cellAt(grid, 1, 1, 2)), { tools: [], prompts: ['q'], backends: ['B'], memory: ['none'] });
});

test('events become a cell', () => {
  const [cell] = makeGrid(SETUP).cells;
  const events = [run, { type: 'status', phase: 'queued', content: 'A failed', backend: 'B', model: 'm' }, { type: 'model_start' }, { type: 'token', content: 'thought' },
    { type: 'reasoning', content: 'thought', retracts: true }, { type: 'token', content: 'Hi' },
    { type: 'state', timestamp: at(500), tokens_received: 2, estimated: true, tokens_per_second: 0, ttft_s: 0.25 }];
  for (const event of events) take(cell, event);
  assert.equal(cell.text, 'Hi');
  assert.deepEqual([cell.runId, cell.answeredBy, cell.ttft, cell.speed, cell.tokens, cell.estimated], ['r', 'B, m', 0.25, null, 2, true]);
  take(cell, { type: 'approval', tool: 't', tool_call_id: 'c', input: {} });
  take(cell, { type: 'status', phase: 'approval', content: 'Waits' });
  assert.equal(cell.approval.id, 'c');
  take(cell, { type: 'status', phase: 'tool', content: 'Runs' });
  assert.equal(cell.approval, null);
  take(cell, complete('Hi.', 0.3));
  assert.deepEqual([cell.phase, cell.text, cell.ttft, cell.duration, cell.cost, cell.estimated], ['complete', 'Hi.', 0.3, 2, 0.0003, false]);
  assert.deepEqual(cell.points, [[0.5, 2], [2, 4]]);
  take(reset(cell), { type: 'error', code: 'busy', message: 'Wait.', retryable: true, content: 'H' });
  assert.deepEqual([cell.phase, cell.error.message, cell.text, cell.points], ['error', 'Wait.', 'H', []]);
});

test('a run is replayed from its record as it was at each moment', () => {
  const [cell] = makeGrid(SETUP).cells, states = [], events = [run, { type: 'status', timestamp: at(0), phase: 'waiting', content: 'Waits' },
    { type: 'context', timestamp: at(1), messages: ['long'] }, { type: 'model_start', timestamp: at(10) }, { type: 'token', timestamp: at(200), content: 'Hmm' },
    { type: 'reasoning', timestamp: at(250), content: 'Hmm', retracts: true }, { type: 'reasoning', timestamp: at(260), content: 'secret' }];
  for (let n = 0; n < 50; n++) {
    events.push({ type: 'token', timestamp: at(300 + 20 * n), content: `w${n} ` });
    if (n % 5 === 0) events.push({ type: 'state', timestamp: at(301 + 20 * n), tokens_received: n, estimated: true, tokens_per_second: 50, ttft_s: 0.3 });
  }
  events.push({ ...complete('done', 0.3), run_id: 'r' });
  const shape = ({ record, ...rest }) => structuredClone(rest);
  for (const event of events) states.push([Date.parse(event.timestamp) - 1e12, shape(take(cell, event))]);
  const again = JSON.parse(JSON.stringify(cell));
  assert.ok(hasRecord(again) && !JSON.stringify(again.record).includes('secret'));
  assert.equal(lengthOf(again), 2000);
  for (const [ms] of states) {
    const expected = states.findLast(([other]) => other <= ms)[1], shown = reset({ index: 0, prompt: 0, column: 0, trial: 0 });
    for (const entry of again.record.entries) if (entry[0] <= ms) apply(shown, eventOf(again, entry));
    assert.deepEqual(shape(shown), expected, `${ms} ms`);
  }
  assert.ok(!hasRecord(makeGrid(SETUP).cells[0]));
});

test('the record of a cell is bounded', () => {
  const [cell] = makeGrid(SETUP).cells;
  take(cell, run);
  for (let n = 0; n < 3000; n++) take(cell, { type: 'token', timestamp: at(n), content: 'x'.repeat(100) });
  assert.ok(cell.record === null && !hasRecord(cell) && cell.text.length > MOST_RECORD);
  assert.ok(hasRecord(take(reset(cell), run)) === false && cell.record.entries.length === 1);
});

test('the points of a curve are bounded', () => {
  const [cell] = makeGrid(SETUP).cells;
  take(cell, run);
  for (let n = 1; n <= 5000; n++) take(cell, { type: 'state', timestamp: at(100 * n), tokens_received: n, tokens_per_second: 10 });
  assert.ok(cell.points.length <= 400 && cell.points.length >= 200);
  assert.deepEqual(cell.points.at(-1), [500, 5000]);
  assert.ok(rates(cell.points).every(([, rate]) => Math.abs(rate - 10) < 0.01));
});

test('live cells of a lost stream fail, ended ones stay', () => {
  const { cells } = makeGrid(SETUP);
  take(take(cells[0], run), complete('x', 1));
  assert.equal(endLive(cells, 'error', 'Lost.').length, cells.length - 1);
  assert.deepEqual([cells[0].phase, cells[1].phase, cells[1].error.message], ['complete', 'error', 'Lost.']);
});

test('what may be started is the least of the limits', () => {
  assert.deepEqual(allowed({ left: { minute: null, day: null } }), { most: 256, when: 'at once' });
  assert.deepEqual(allowed({ left: { minute: 9, day: 100 } }), { most: 9, when: 'in this minute' });
  assert.deepEqual(allowed({ left: { minute: 9, day: 0 } }), { most: 0, when: 'today' });
});

test('medians and ranges', () => {
  assert.deepEqual(summary([3, null, 1, undefined, 2, NaN]), { n: 3, median: 2, least: 1, most: 3 });
  assert.deepEqual(summary([4, 1]), { n: 2, median: 2.5, least: 1, most: 4 });
  assert.equal(summary([null]), null);
  assert.equal(written(measure('ttft'), summary([0.5, 1])), '0.75 s (0.50 s to 1.00 s)');
  assert.equal(written(measure('tokens'), summary([4]), true), '≈ 4');
  assert.equal(written(measure('cost'), summary([0.000123456])), '$0.000123');
  assert.equal(written(measure('speed'), null), '–');
});

function filled() {
  const grid = makeGrid({ ...SETUP, memory: ['none'], trials: 2 });
  grid.cells.forEach((cell) => take(take(cell, run), complete('=1+1 | <b>\n*x*', cell.column ? 2 : 1 + cell.trial)));
  return grid;
}

test('columns are ranked by the medians of complete replies', () => {
  const grid = filled();
  Object.assign(cellAt(grid, 0, 0, 1), { phase: 'stopped', ttft: 0.001 });
  Object.assign(cellAt(grid, 1, 0, 1), { phase: 'error', ttft: 0.001 });
  const columns = byColumn(grid);
  assert.deepEqual(columns.map((one) => [one.complete, one.failed, one.ttft.median]), [[4, 0, 1.5], [2, 1, 2]]);
  assert.deepEqual(ranked(columns, measure('ttft')).map((one) => one.column), [0, 1]);
  assert.deepEqual(ranked(columns, measure('speed')).map((one) => one.column), [0, 1]);
  assert.deepEqual(bestOf(grid, 1, measure('ttft')), [0]);
  assert.deepEqual(bestOf(grid, 0, measure('ttft')), [], 'only one column has a value');
  assert.deepEqual(bestOf(grid, 1, measure('tokens')), [], 'more tokens are not better');
});

test('votes are counted, and an order is a permutation', () => {
  const grid = filled();
  grid.votes = { 0: 1, 1: -1 };
  assert.deepEqual(counts(grid), { wins: [0, 1], equal: 1, votes: 2 });
  for (let n = 0; n < 50; n++) assert.deepEqual(shuffled(5).sort(), [0, 1, 2, 3, 4]);
  const first = new Set(Array.from({ length: 200 }, () => shuffled(3)[0]));
  assert.equal(first.size, 3);
});

const joined = (parts, kind) => parts.filter(([own]) => own === 'same' || own === kind).map(([, text]) => text).join('');

test('differences are those of words', () => {
  const { parts, exact } = difference('The big cat sat.', 'The small cat sat down.');
  assert.ok(exact);
  assert.deepEqual(parts, [['same', 'The '], ['one', 'big'], ['other', 'small'], ['same', ' cat sat'], ['other', ' down'], ['same', '.']]);
  assert.deepEqual(difference('same', 'same').parts, [['same', 'same']]);
  assert.deepEqual(difference('', 'x').parts, [['other', 'x']]);
  assert.deepEqual(difference('', '').parts, []);
  assert.equal(difference('我喜欢猫', '我喜欢狗').parts[0][0], 'same');
});

test('differences of random texts give both texts back', () => {
  let seed = 7;
  const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let n = 0; n < 300; n++) {
    const [one, other] = [0, 1].map(() => Array.from({ length: random(40) }, () => 'ab c\n'[random(5)]).join(''));
    const { parts } = difference(one, other);
    assert.equal(joined(parts, 'one'), one);
    assert.equal(joined(parts, 'other'), other);
  }
});

test('differences are bounded', () => {
  const words = (n, word) => Array.from({ length: n }, (_, i) => `${word}${i}`).join(' ');
  const began = performance.now();
  for (const n of [3000, 15_000, 60_000]) {
    const [one, other] = [words(n, 'a'), words(n, 'b')], { parts, exact } = difference(one, other);
    assert.equal(exact, false);
    assert.equal(joined(parts, 'one'), one);
    assert.equal(joined(parts, 'other'), other);
  }
  assert.ok(performance.now() - began < 20_000);
});

test('results as CSV run no formula', () => {
  const csv = asCsv(filled()), [heads, ...rows] = rowsOf(csv.slice(1).replaceAll('\r\n', '\n'));
  assert.equal(csv[0], '\ufeff');
  assert.equal(rows.length, 8);
  const first = Object.fromEntries(heads.map((name, i) => [name, rows[0][i]]));
  assert.deepEqual([first.prompt, first.backend, first.trial, first.ttft_s, first.reply], ['p', 'A', '1', '1', "'=1+1 | <b>\n*x*"]);
});

test('results as JSON and Markdown', () => {
  const grid = filled();
  grid.votes = { 0: 1 };
  const json = JSON.parse(asJson(grid));
  assert.equal(json.cells.length, 8);
  assert.equal(json.cells[0].reply, '=1+1 | <b>\n*x*');
  assert.deepEqual(json.columns.map((one) => [one.backend, one.ttft.median, one.preferred]), [['A', 1.5, 0], ['B', 2, 1]]);
  const [summaryTable, replies] = asMarkdown(grid).trim().split('\n\n');
  assert.match(summaryTable, /^\| model and memory \| First token \|.*\| Preferred \|\n/);
  assert.match(summaryTable, /\| A · none \| \*\*1\.50 s \(1\.00 s to 2\.00 s\)\*\* \|/);
  assert.equal(replies.split('\n')[2], '| p | =1\\+1 \\| \\<b\\> \\*x\\* | =1\\+1 \\| \\<b\\> \\*x\\* |');
});

test('axes have few round numbers', () => {
  assert.deepEqual(ticks(7), [0, 2, 4, 6]);
  for (const most of [0.03, 1, 9, 11, 99, 12_345]) assert.ok(ticks(most).length <= 5 && ticks(most).at(-1) <= most);
  assert.equal(curve([[0, 0], [1, 2]], 10, 10), 'M0.0 9.0L10.0 1.0');
  assert.equal(curve([[0, 1]], 10, 10), '');
});

test('results are kept for an hour, within a bound', () => {
  const values = new Map();
  globalThis.sessionStorage = { getItem: (key) => values.get(key) ?? null, setItem: (key, value) => values.set(key, value), removeItem: (key) => values.delete(key) };
  const grid = filled();
  reset(grid.cells[0]);
  take(grid.cells[0], run);
  assert.ok(keep(grid));
  const again = kept();
  assert.deepEqual([again.cells[0].phase, again.cells[1].text], ['stopped', grid.cells[1].text]);
  const now = Date.now;
  Date.now = () => now() + 3_600_001;
  assert.equal(kept(), null);
  Date.now = now;
  grid.cells[1].text = 'x'.repeat(2_000_001);
  assert.ok(!keep(grid));
  assert.equal(kept(), null);
  globalThis.sessionStorage = { getItem() { throw new Error('refused'); } };
  assert.deepEqual([keep(filled()), kept()], [false, null]);
});
