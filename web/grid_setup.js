// The form of the page that compares: what is sent, to which models, with which memory modes.

import './dom.js';
import { MOST_TRIALS } from './grid_cells.js';
import { asText, decoded, promptsOf, readFile } from './grid_input.js';

const { make, number, write } = window.glassbox;
const MOST_FILE = 4_000_000;
const $ = (id) => document.getElementById(id);
const box = $('prompts'), by = $('separator');
const HINTS = { line: 'One prompt in each line', blank: 'Prompts with empty lines between them', dashes: 'Prompts with a line --- between them' };
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

const prompts = () => promptsOf(box.value, by.value);
const checked = (id) => [...$(id).querySelectorAll('input:checked')].map((input) => input.value);
const numeric = (id) => ($(id).value.trim() === '' ? undefined : Number($(id).value));

/** Returns what the form says: { prompts, backends, memory, trials, options }. */
export function setup() {
  const options = {}, temperature = numeric('temperature'), longest = numeric('max-tokens');
  if ($('system-prompt').value.trim()) options.system_prompt = $('system-prompt').value;
  if (temperature !== undefined) options.temperature = temperature;
  if (longest !== undefined) options.max_tokens = Math.round(longest);
  if (!$('tools').checked) options.tools = [];
  const trials = Math.min(MOST_TRIALS, Math.max(1, Math.round(numeric('trials') ?? 1) || 1));
  return { prompts: prompts(), backends: checked('backends'), memory: checked('memory'), trials, options };
}

/** Returns how many replies a setup asks for. */
export const sizeOf = (wanted) => wanted.prompts.length * wanted.backends.length * wanted.memory.length * wanted.trials;

/** Shows how many replies the form asks for. */
export function showSize() {
  const wanted = setup(), { prompts: sent, backends, memory, trials } = wanted, size = sizeOf(wanted);
  write($('prompt-count'), plural(sent.length, 'prompt'));
  const parts = [plural(sent.length, 'prompt'), plural(backends.length, 'model'), plural(memory.length, 'memory mode')];
  if (trials > 1) parts.push(plural(trials, 'trial'));
  write($('size'), `${parts.join(' × ')} = ${plural(size, 'reply', 'replies')}`);
}

/** Fills the form with the setup of a grid. */
export function fill(grid) {
  try {
    const { text, by: separator } = asText(grid.prompts);
    [box.value, by.value] = [text, separator];
  } catch { /* prompts that the box cannot hold stay in the results alone */ }
  $('trials').value = grid.trials;
  [$('system-prompt').value, $('temperature').value, $('max-tokens').value] = [grid.options.system_prompt ?? '', grid.options.temperature ?? '', grid.options.max_tokens ?? ''];
  $('tools').checked = !grid.options.tools;
  showSize();
}

// Fills a list of boxes again. Known ones keep their state.
function offer(id, items, initial) {
  const root = $(id).querySelector('.boxes'), known = new Map([...root.querySelectorAll('input')].map((input) => [input.value, input.checked]));
  root.replaceChildren(...items.map(({ name, about }) => {
    const input = make('input', { type: 'checkbox', value: name, checked: known.get(name) ?? initial.includes(name) });
    return make('label', {}, input, make('span', {}, name), ...(about ? [make('small', {}, about)] : []));
  }));
}

/** Offers the backends and memory modes. @param {{backends: string[], memory: string[]}} [chosen] checked ones */
export function offerChoices({ backends, modes }, chosen) {
  const ready = backends.filter((one) => one.ready).slice(0, 2).map((one) => one.name);
  const state = (one) => (one.ready ? one.model ?? '' : `Not ready: ${one.reason ?? one.state}`);
  offer('backends', backends.map((one) => ({ name: one.name, about: state(one) })), chosen?.backends ?? ready);
  offer('memory', modes.map((one) => ({ name: one.name })), chosen?.memory ?? modes.filter((one) => one.default).map((one) => one.name));
  showSize();
}

async function openFile(file) {
  if (file.size > MOST_FILE) throw new Error(`${file.name} is too large: at most ${MOST_FILE / 1e6} MB can be opened.`);
  const { text, by: separator } = asText(readFile(file.name, decoded(file.name, await file.arrayBuffer())));
  [box.value, by.value] = [text, separator];
}

/** Attaches the listeners of the form. `report` shows a problem, '' removes it. */
export function wire(report) {
  const changed = () => {
    box.placeholder = HINTS[by.value];
    showSize();
  };
  $('setup').addEventListener('input', changed);
  $('setup').addEventListener('change', changed);
  $('open-file').addEventListener('click', () => $('file').click());
  const take = async (file) => {
    report('');
    try {
      await openFile(file);
    } catch (error) {
      report(error.message);
    }
    changed();
  };
  $('file').addEventListener('change', () => {
    const [file] = $('file').files;
    if (file) void take(file).finally(() => { $('file').value = ''; }); // the same file can be opened again
  });
  box.addEventListener('dragover', (event) => { if (event.dataTransfer.types.includes('Files')) event.preventDefault(); });
  box.addEventListener('drop', (event) => {
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    void take(file);
  });
  box.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.isComposing) $('setup').requestSubmit();
  });
}
