// Draws the results of the page that compares. Only rows in view are drawn; changes are collected until the next frame.

import './dom.js';
import { SHOWN, drawCell, makeCell } from './grid_cell_view.js';
import { cellAt, ended, nameOf } from './grid_cells.js';
import { drawRanking } from './grid_ranking.js';
import { MEASURES, bestOf, shuffled } from './grid_statistics.js';

const { drawList, make, marked, write } = window.glassbox;
const letter = (place) => (place < 26 ? '' : letter(Math.floor(place / 26) - 1)) + String.fromCharCode(65 + place % 26);

export class GridView {
  #rows; #ranking; #grid = null; #lines = []; #trial = 0; #blind = null; #dirty = new Set(); #stale = new Set(); #frame = 0; #ranks = false; #chosen = new Set();
  #watcher = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: '300px 0px' });

  /** @param {HTMLElement} rows @param {HTMLElement} ranking */
  constructor(rows, ranking) {
    this.#rows = rows;
    this.#ranking = ranking;
  }

  get trial() { return this.#trial; }
  get blind() { return this.#blind !== null; }

  /** Shows a grid in place of the one before. */
  show(grid) {
    this.#watcher.disconnect();
    [this.#grid, this.#trial, this.#blind] = [grid, 0, null];
    for (const set of [this.#dirty, this.#stale, this.#chosen]) set.clear();
    this.#lines = grid.prompts.map((prompt, p) => this.#makeRow(prompt, p));
    this.#rows.replaceChildren(...this.#lines.map(({ root }) => root));
    for (const { root } of this.#lines) this.#watcher.observe(root);
    this.markAll();
  }

  #makeRow(prompt, p) {
    const cells = make('div', { className: 'cells' }), vote = make('fieldset', { className: 'vote', hidden: true });
    const title = make('h3', { id: `prompt-${p}`, title: prompt.slice(0, 2000) }, make('small', {}, String(p + 1)), ' ', marked(prompt.slice(0, SHOWN)));
    const root = make('section', { className: 'row' }, title, cells, vote);
    root.setAttribute('aria-labelledby', title.id);
    root.dataset.prompt = p;
    cells.dataset.columns = this.#grid.columns.length;
    return { root, cells, vote, drawn: null, visible: false };
  }

  /** Marks a cell as changed. With `rank` the figures of its column have changed, too. */
  mark(cell, rank = false) {
    if (cell.trial === this.#trial || rank) this.#dirty.add(cell.prompt);
    this.#ranks ||= rank;
    this.#schedule();
  }

  markAll() {
    for (let p = 0; p < this.#grid.prompts.length; p++) this.#dirty.add(p);
    this.#ranks = true;
    this.#schedule();
  }

  setTrial(trial) {
    this.#trial = trial;
    this.markAll();
  }

  /** Hides or shows the names. Each row has an order of its own while they are hidden. */
  setBlind(blind) {
    const { prompts, columns } = this.#grid;
    this.#blind = blind ? prompts.map(() => shuffled(columns.length)) : null;
    this.#lines.forEach((line, p) => {
      line.order = null;
      if (line.drawn) this.#drawRow(p); // at once, also out of view: a name is never seen while scrolling
    });
    this.markAll();
  }

  /** Returns what a cell is called: its letter in a blind test, else its column. */
  nameOf(cell) {
    const order = this.#blind?.[cell.prompt];
    return order ? letter(order.indexOf(cell.column)) : nameOf(this.#grid.columns[cell.column]);
  }

  /** Returns the cell of an element within it. */
  cellOf(node) {
    const root = node.closest('.cell'), row = node.closest('.row');
    return root && row ? cellAt(this.#grid, this.#trial, Number(row.dataset.prompt), Number(root.dataset.column)) : null;
  }

  /** Marks which cells are chosen. @param {Set<number>} chosen their indexes */
  setChosen(chosen) {
    this.#chosen = chosen;
    this.markAll();
  }

  /** Draws each row that was seen before, also out of view: what is read aloud or printed is not old. */
  drawSeen() {
    for (const p of [...this.#stale]) {
      if (!this.#lines[p].drawn) continue;
      this.#drawRow(p);
      this.#stale.delete(p);
    }
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      for (const p of this.#dirty) if (this.#lines[p].visible) this.#drawRow(p); else this.#stale.add(p);
      this.#dirty.clear();
      if (this.#ranks) drawRanking(this.#ranking, this.#grid, this.blind);
      this.#ranks = false;
    });
  }

  #see(entries) {
    for (const { target, isIntersecting } of entries) {
      const p = Number(target.dataset.prompt), line = this.#lines[p];
      if (line?.root !== target) continue;
      line.visible = isIntersecting;
      if (!isIntersecting) continue;
      if (this.#stale.delete(p) || !line.drawn) this.#dirty.add(p);
    }
    if (this.#dirty.size) this.#schedule();
  }

  #drawRow(p) {
    const grid = this.#grid, line = this.#lines[p], order = this.#blind?.[p] ?? grid.columns.map((_, column) => column);
    line.drawn ??= grid.columns.map((_, column) => makeCell(column));
    if (line.order !== order.join()) {
      line.order = order.join();
      line.cells.append(...order.map((column) => line.drawn[column].root));
    }
    const bests = new Map(this.blind ? [] : MEASURES.map((measure) => [measure, bestOf(grid, p, measure)]));
    for (const [column, elements] of line.drawn.entries()) {
      const cell = cellAt(grid, this.#trial, p, column), best = (measure) => bests.get(measure)?.includes(column) ?? false;
      drawCell(elements, { grid, cell, name: this.nameOf(cell), blind: this.blind, chosen: this.#chosen.has(cell.index), best });
    }
    this.#drawVote(p, line, order);
  }

  #drawVote(p, line, order) {
    const grid = this.#grid, ready = this.blind && order.every((column) => ended(cellAt(grid, this.#trial, p, column)));
    line.vote.hidden = !ready;
    if (!ready) return;
    const choices = [...order.map((column, place) => [letter(place), column]), ['Equal', -1]];
    if (!line.vote.firstChild) line.vote.append(make('span', { id: `vote-${p}` }, 'Which reply is better?'), make('span', { className: 'bar', style: 'margin: 0' }));
    line.vote.setAttribute('aria-labelledby', `vote-${p}`);
    drawList(line.vote.lastChild, choices, () => make('button', { type: 'button' }), (button, [name, column]) => {
      write(button, name);
      Object.assign(button.dataset, { do: 'vote', column, prompt: p });
      button.ariaPressed = String(grid.votes[p] === column);
    });
  }
}
