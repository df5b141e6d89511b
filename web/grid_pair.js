// The two replies of the page that compares that are chosen, and the bar that shows them with their differences or on one axis.

import './dom.js';
import { showDifference, showOverlay } from './grid_dialogs.js';

const { write } = window.glassbox;
const bar = document.getElementById('chosen');

/** The chosen cells: the latest two. */
export class Pair {
  #view; #grid = null; #cells = [];

  /** @param {import('./grid_view.js').GridView} view */
  constructor(view) {
    this.#view = view;
    bar.addEventListener('click', ({ target }) => this.#act(target.closest('button')?.dataset.do));
  }

  /** Forgets the chosen cells; those of another grid can be chosen. */
  clear(grid) {
    this.#grid = grid;
    this.#cells = [];
    this.show();
  }

  choose(cell, yes) {
    this.#cells = this.#cells.filter((one) => one !== cell);
    if (yes) this.#cells = [...this.#cells, cell].slice(-2);
    this.show();
  }

  /** Shows what is chosen, and what can be done with it. In a blind test the times are hidden. */
  show() {
    const two = this.#cells.length === 2;
    this.#view.setChosen(new Set(this.#cells.map((cell) => cell.index)));
    bar.hidden = !this.#cells.length;
    bar.querySelector('[data-do=difference]').disabled = !two;
    bar.querySelector('[data-do=overlay]').disabled = !two || this.#view.blind;
    write(bar.querySelector('span'), two ? 'Two replies are chosen' : 'Choose one more reply to compare the two');
  }

  #act(name) {
    const trialOf = (cell) => (this.#grid.trials > 1 ? `, trial ${cell.trial + 1}` : '');
    const replies = this.#cells.map((cell) => ({ name: `${this.#view.nameOf(cell)} · prompt ${cell.prompt + 1}${trialOf(cell)}`, cell, text: cell.text }));
    if (name === 'difference') showDifference(replies);
    else if (name === 'overlay') showOverlay(this.#grid, replies);
    else if (name === 'clear') {
      this.clear(this.#grid);
      document.getElementById('results-title').scrollIntoView({ block: 'nearest' });
    }
  }
}
