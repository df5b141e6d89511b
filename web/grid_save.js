// The menu of the page that compares that copies and saves its results.

import './dom.js';
import { asCsv, asJson, asMarkdown } from './grid_export.js';
import { asPicture } from './grid_picture.js';

const { copy, make } = window.glassbox;
const menu = document.querySelector('.save');

function save(name, content, type) {
  const link = make('a', { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const SAVES = {
  copy: async (grid) => copy(asMarkdown(grid)),
  markdown: async (grid) => save('comparison.md', asMarkdown(grid), 'text/markdown'),
  csv: async (grid) => save('comparison.csv', asCsv(grid), 'text/csv'),
  json: async (grid) => save('comparison.json', asJson(grid), 'application/json'),
  picture: async (grid) => save('comparison.png', await asPicture(grid, document.querySelector('.brand').textContent.trim()), 'image/png'),
};

/**
 * Attaches the listeners of the menu.
 * @param {() => any} grid returns the grid @param {(text: string) => void} report shows a problem, '' removes it
 * @param {(copied: boolean) => void} done is called after it has been copied or saved
 */
export function wireSaving(grid, report, done) {
  const close = () => {
    menu.open = false;
    menu.querySelector('summary').focus();
  };
  menu.addEventListener('click', async ({ target }) => {
    const kind = target.dataset.save;
    if (!kind) return;
    report('');
    try {
      await SAVES[kind](grid());
      close();
      done(kind === 'copy');
    } catch (error) {
      report(error.message);
    }
  });
  menu.addEventListener('keydown', (event) => { if (event.key === 'Escape') close(); });
  document.addEventListener('click', ({ target }) => { if (!menu.contains(target)) menu.open = false; });
}
