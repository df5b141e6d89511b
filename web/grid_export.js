// The results of a comparison as CSV, JSON and Markdown.

import { nameOf } from './grid_cells.js';
import { MEASURES, byColumn, countedOf, counts, ranked, written } from './grid_statistics.js';

const COLUMNS = ['prompt_number', 'prompt', 'backend', 'answered_by', 'memory', 'trial', 'phase', 'ttft_s', 'tokens_per_s', 'duration_s', 'input_tokens',
  'output_tokens', 'estimated', 'cost_usd', 'rating', 'error', 'reply'];
const LONGEST = 300; // characters of a text in the Markdown table

function record(grid, cell) {
  const { backend, memory } = grid.columns[cell.column];
  return {
    prompt_number: cell.prompt + 1, prompt: grid.prompts[cell.prompt], backend, answered_by: cell.answeredBy, memory, trial: cell.trial + 1,
    phase: cell.phase, ttft_s: cell.ttft, tokens_per_s: cell.speed, duration_s: cell.duration, input_tokens: cell.input,
    output_tokens: cell.tokens, estimated: cell.estimated, cost_usd: cell.cost, rating: cell.rating || null, error: cell.error?.message ?? null, reply: cell.text,
  };
}

// A spreadsheet would run a text that begins like a formula: such a text begins with an apostrophe.
function csvField(value) {
  if (value === null || value === undefined) return '';
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Returns all cells as CSV (RFC 4180), for spreadsheets with a byte order mark. */
export function asCsv(grid) {
  const rows = grid.cells.map((cell) => record(grid, cell)).map((one) => COLUMNS.map((name) => csvField(one[name])));
  return `\ufeff${[COLUMNS, ...rows].map((row) => row.join(',')).join('\r\n')}\r\n`;
}

/** Returns all cells and the summary of each column as JSON. */
export function asJson(grid) {
  const { votes, ...preferred } = counts(grid);
  const columns = byColumn(grid).map(({ column, ...found }) => ({ ...grid.columns[column], ...found, preferred: votes ? preferred.wins[column] : null }));
  const made = new Date(grid.at).toISOString(), { trials, options } = grid;
  return JSON.stringify({ made, trials, options, columns, votes, cells: grid.cells.map((cell) => record(grid, cell)) }, null, 2);
}

// Text in a Markdown table: no sign has a meaning, and it is one line.
function inTable(text) {
  const short = text.length > LONGEST ? `${text.slice(0, LONGEST).trimEnd()} …` : text;
  return short.replace(/[\\`*_{}[\]()#+!|~<>&$@-]/g, (sign) => `\\${sign}`).replace(/\s+/g, ' ').trim() || '–';
}

const row = (fields) => `| ${fields.join(' | ')} |`;
const table = (heads, rows) => [row(heads), row(heads.map(() => '---')), ...rows.map(row)].join('\n');

/** Returns the measures that at least one column has. */
export const known = (columns) => MEASURES.filter(({ id }) => columns.some((one) => one[id]));

/** Returns the table of the columns with their medians, the best in bold, and a table of the replies of the first trial. */
export function asMarkdown(grid) {
  const columns = byColumn(grid), shown = known(columns), counted = countedOf(grid, columns);
  const bests = shown.map((measure) => (measure.better && columns.length > 1 ? ranked(columns, measure)[0].column : null));
  const rows = columns.map((one, n) => [
    inTable(nameOf(grid.columns[one.column])),
    ...shown.map((measure, i) => {
      const text = written(measure, one[measure.id], one.estimated);
      return bests[i] === one.column ? `**${text}**` : text;
    }),
    ...counted.map(([, texts]) => texts[n]),
  ]);
  const heads = ['model and memory', ...shown.map(({ name }) => name), ...counted.map(([name]) => name)];
  const first = grid.cells.filter((cell) => cell.trial === 0), width = grid.columns.length;
  const replies = grid.prompts.map((prompt, p) => [
    inTable(prompt), ...first.slice(p * width, (p + 1) * width).map((cell) => inTable(cell.error ? `Failed: ${cell.error.message}` : cell.text)),
  ]);
  const text = [table(heads, rows), table(['prompt', ...grid.columns.map((column) => inTable(nameOf(column)))], replies)];
  return `${text.join('\n\n')}\n`;
}
