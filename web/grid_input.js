// The prompts of the page that compares: from its text box, and from CSV, JSON Lines, JSON and text files.

import { MOST_CELLS } from './grid_cells.js';

const FIELDS = ['prompt', 'message', 'question', 'text', 'input', 'content'];
const SEPARATOR = /^---[ \t]*$/m;

/** The ways to separate prompts in the text box, from the narrowest. */
export const SEPARATORS = {
  line: { split: (text) => text.split('\n'), join: '\n' },
  blank: { split: (text) => text.split(/\n[ \t]*\n/), join: '\n\n' },
  dashes: { split: (text) => text.split(/^---[ \t]*$/m), join: '\n---\n' },
};

/** Returns the prompts of a text. @param {string} text @param {string} by a name of SEPARATORS */
export function promptsOf(text, by) {
  return SEPARATORS[by].split(text.replace(/\r\n?/g, '\n')).map((prompt) => prompt.trim()).filter(Boolean);
}

/** Returns prompts as { text, by } for the text box, with the narrowest separator that keeps each prompt whole. */
export function asText(prompts) {
  for (const [by, { join }] of Object.entries(SEPARATORS)) {
    const text = prompts.join(join), again = promptsOf(text, by);
    if (again.length === prompts.length && again.every((prompt, i) => prompt === prompts[i])) return { text, by };
  }
  const at = prompts.findIndex((prompt) => SEPARATOR.test(prompt));
  throw new Error(`Prompt ${at + 1} has a line with only ---, which separates prompts here: change that line.`);
}

/** Returns the text of a file, in UTF-8, or in UTF-16 with a byte order mark. @param {string} name @param {ArrayBuffer} content */
export function decoded(name, content) {
  const [first, second] = new Uint8Array(content, 0, Math.min(2, content.byteLength));
  const encoding = first === 0xff && second === 0xfe ? 'utf-16le' : first === 0xfe && second === 0xff ? 'utf-16be' : 'utf-8';
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(content);
  } catch {
    throw new Error(`${name} is not a text file in UTF-8. Save it as UTF-8, which a spreadsheet calls CSV UTF-8.`);
  }
}

/**
 * Returns the prompts of a file. Throws an Error whose message names the line and what to change.
 * @param {string} name @param {string} content
 */
export function readFile(name, content) {
  const text = content.replace(/^\ufeff/, '').replace(/\r\n?/g, '\n'), kind = /\.(\w+)$/.exec(name)?.[1].toLowerCase();
  if (text.includes('\0')) throw new Error(`${name} is not a text file. Open a CSV, JSON Lines, JSON or text file.`);
  const prompts = kind === 'csv' || kind === 'tsv' ? fromCsv(text)
    : kind === 'json' ? fromJson(text)
    : kind === 'jsonl' || kind === 'ndjson' || /^\s*[{"]/.test(text) ? fromLines(text)
    : promptsOf(text, 'line');
  const found = prompts.map((prompt) => prompt.replace(/\r\n?/g, '\n').trim()).filter(Boolean);
  if (!found.length) throw new Error(`${name} has no prompts.`);
  if (found.length > MOST_CELLS) {
    throw new Error(`${name} has ${found.length.toLocaleString('en')} prompts, and at most ${MOST_CELLS} can be sent at once: split the file.`);
  }
  return found;
}

function fromLines(text) {
  return text.split('\n').map((line, i) => line.trim() && promptIn(parsed(line, `Line ${i + 1}`), `Line ${i + 1}`));
}

function fromJson(text) {
  const list = parsed(text, 'The file');
  if (!Array.isArray(list)) throw new Error('The file is no JSON list. Each item is a text, or an object with a field prompt.');
  return list.map((item, i) => promptIn(item, `Item ${i + 1}`));
}

function parsed(text, where) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${where} is not valid JSON. Each line is a text in quotes, or an object with a field prompt.`);
  }
}

function promptIn(value, where) {
  if (typeof value === 'string') return value;
  const named = FIELDS.map((name) => value?.[name]).find((one) => typeof one === 'string');
  const last = Array.isArray(value?.messages) ? value.messages.findLast((one) => one?.role === 'user')?.content : undefined;
  const found = named ?? last;
  if (typeof found !== 'string') throw new Error(`${where} has no prompt: a text, or an object with a field ${FIELDS.slice(0, 4).join(', ')}.`);
  return found;
}

function fromCsv(text) {
  const [first = '', ...rest] = rowsOf(text), names = first.map?.((name) => name.trim().toLowerCase()) ?? [];
  const at = FIELDS.map((name) => names.indexOf(name)).find((i) => i >= 0);
  if (at !== undefined) return rest.map((row) => row[at] ?? '');
  if ([first, ...rest].some((row) => row.length > 1)) {
    throw new Error(`The first line of a CSV file with several columns names one of them prompt. Found: ${names.join(', ').slice(0, 100)}.`);
  }
  return [first, ...rest].map(([prompt = '']) => prompt);
}

/** Returns the rows of a CSV text (RFC 4180) as lists of texts. Semicolons and tabs are separators, too. */
export function rowsOf(text) {
  const heading = text.slice(0, (text.indexOf('\n') + 1 || text.length + 1) - 1).replace(/"[^"]*"/g, '');
  const counts = [',', ';', '\t'].map((sign) => [heading.split(sign).length, sign]);
  const separator = counts.sort((a, b) => b[0] - a[0])[0][1];
  const rows = [];
  let row = [], field = '', quoted = false, line = 1, opened = 1;
  const endField = () => { row.push(field); field = ''; };
  const endRow = () => { endField(); if (row.length > 1 || row[0] !== '') rows.push(row); row = []; };
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    if (sign === '\n') line++;
    if (quoted) {
      if (sign !== '"') field += sign;
      else if (text[i + 1] === '"') field += text[++i];
      else quoted = false;
    } else if (sign === '"' && field === '') [quoted, opened] = [true, line];
    else if (sign === separator) endField();
    else if (sign === '\n') endRow();
    else field += sign;
  }
  if (quoted) throw new Error(`Line ${opened} of the CSV file begins a quoted text that does not end.`);
  endRow();
  return rows;
}
