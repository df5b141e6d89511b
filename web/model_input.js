// The panel's section about the model input.
const { asRow, drawFill, drawList, fillGroup, fillRow, make, makeGroup, makeRow, messages, number, on, write } = window.glassbox;
const root = element.querySelector('#context');
const [total, bar, legend, note, list, tools, left, empty, open] =
  ['[data-context-total]', '.fill', '.key', '.note', '.given', '.given-tools', '.left-out', '.empty', '[data-context]'].map((s) => root.querySelector(s));
let drawnRun = null;

// A shortened list has a row that counts the missing messages.
function rowsOf(context) {
  const rows = [...context.messages];
  if (context.gap) rows.splice(context.gap.after, 0, { gap: context.gap });
  return rows;
}

function fillItem(item, row) {
  const cut = Boolean(row.gap);
  if (item.cut !== cut) item.replaceChildren(cut ? make('p', { className: 'gap' }) : makeRow());
  item.cut = cut;
  if (cut) write(item.firstElementChild, `${messages(row.gap.count)} not shown, ${number(row.gap.tokens)} tokens: Open shows them`);
  else fillRow(item.firstElementChild, row);
}

// The rows that were sent of each reason; there may be more of them.
function groupsOf(context) {
  return context.reasons.map((group) => ({ ...group, messages: context.left_out.filter((m) => m.reason === group.reason) }));
}

function draw(run, context) {
  empty.hidden = Boolean(context);
  legend.hidden = !context?.parts;
  open.hidden = !context;
  open.dataset.context = run ?? '';
  write(total, context ? `${context.estimated ? '≈ ' : ''}${number(context.tokens)} of ${number(context.limit)} tokens` : '');
  drawFill(bar, legend, context);
  write(note, context?.note ?? '');
  drawList(list, context ? rowsOf(context) : [], () => make('li'), fillItem);
  drawList(tools, (context?.tools ?? []).map(asRow), () => make('li'), fillItem);
  left.hidden = !context?.left_out_count;
  if (left.hidden) return;
  const listed = context.left_out.length < context.left_out_count ? `, the latest ${context.left_out.length} listed` : '';
  write(left.firstElementChild, `Left out: ${messages(context.left_out_count)}, ${number(context.left_out_tokens)} tokens${listed}`);
  drawList(left.lastElementChild, groupsOf(context), makeGroup, fillGroup);
}

// A value without a context keeps the one that was drawn for the same run.
function update(value) {
  const run = value?.run ?? null;
  if (!run || value.context !== undefined || run !== drawnRun) draw(run, (run && value.context) ?? null);
  drawnRun = run;
}
on('panel', update, element);
update(props.value);
