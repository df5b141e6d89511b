// The bars of the page that compares: the columns ranked by each measure, by the blind test and by thumbs.

import './dom.js';
import { nameOf } from './grid_cells.js';
import { MEASURES, byColumn, counts, ranked, written } from './grid_statistics.js';

const { drawList, make, write } = window.glassbox;

/** Draws the bars that rank the columns of a grid. @param {HTMLElement} root @param {boolean} blind nothing is shown */
export function drawRanking(root, grid, blind) {
  const columns = byColumn(grid), { wins, equal, votes } = counts(grid);
  if (blind || columns.length < 2) return root.replaceChildren();
  const bars = MEASURES.map((measure) => [measure, ranked(columns, measure)]).filter(([, list]) => list.length).map(([measure, list]) => {
    const most = Math.max(...list.map((one) => one[measure.id].median)) || 1;
    const about = measure.better ? `median, the ${measure.better === 'less' ? 'least' : 'most'} is best` : 'median';
    return { name: measure.name, about, rows: list.map((one) => ({
      name: nameOf(grid.columns[one.column]), value: written(measure, one[measure.id], one.estimated), share: one[measure.id].median / most,
      best: Boolean(measure.better) && one[measure.id].median === list[0][measure.id].median && list.length > 1,
    })) };
  });
  if (votes) {
    const order = wins.map((_, column) => column).sort((a, b) => wins[b] - wins[a]), most = Math.max(...wins) || 1;
    const rows = order.map((column) => ({ name: nameOf(grid.columns[column]), value: String(wins[column]), share: wins[column] / most, best: wins[column] === most }));
    bars.unshift({ name: 'Preferred', about: `of ${votes} in the blind test, ${equal} equal`, rows });
  }
  const rated = columns.filter((one) => one.rated), share = (one) => one.good / one.rated;
  if (rated.length) {
    const order = rated.sort((a, b) => share(b) - share(a));
    const rows = order.map((one) => ({ name: nameOf(grid.columns[one.column]), value: `${one.good} of ${one.rated}`, share: share(one), best: order.length > 1 && share(one) === share(order[0]) }));
    bars.unshift({ name: 'Good replies', about: 'of those with a thumb', rows });
  }
  drawList(root, bars, () => make('section', {}, make('h3', {}, make('span'), ' ', make('small')), make('ol')), (section, { name, about, rows }) => {
    const [title, list] = section.children;
    write(title.children[0], name);
    write(title.children[1], about);
    drawList(list, rows, () => make('li', {}, make('span'), make('b'), make('i', { ariaHidden: 'true' })), (item, row) => {
      write(item.children[0], row.name);
      item.children[0].title = row.name;
      write(item.children[1], row.value);
      item.children[2].style.setProperty('--share', `${(100 * row.share).toFixed(1)}%`);
      item.className = row.best ? 'best' : '';
    });
  });
}
