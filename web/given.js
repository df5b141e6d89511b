// The panel's part about what the model was given. The panel tells it of each context of its run.
const root = element.querySelector('#context');
const [total, bar, legend, note, list, tools, left, empty, open] =
  ['[data-context-total]', '.fill', '.key', '.note', '.given', '.given-tools', '.left-out', '.empty', '[data-context]'].map((s) => root.querySelector(s));

// Rows of a list that was cut stand around a line that says so.
function rowsOf(context) {
  const rows = [...context.messages];
  if (context.gap) rows.splice(context.gap.after, 0, { gap: context.gap });
  return rows;
}

function fillGiven(item, row) {
  const cut = Boolean(row.gap);
  if (item.cut !== cut) item.replaceChildren(cut ? node('p', 'gap') : makeRow());
  item.cut = cut;
  if (cut) write(item.firstElementChild, `${messages(row.gap.count)}, ${many(row.gap.tokens)} tokens, between these: Open shows them`);
  else fillRow(item.firstElementChild, row);
}

// Of each reason its own rows among those that were sent; there may be more of them.
function groupsOf(context) {
  return context.reasons.map((group) => ({ ...group, messages: context.left_out.filter((m) => m.reason === group.reason) }));
}

window.glassboxGiven = (run, context) => {
  empty.hidden = Boolean(context);
  legend.hidden = !context?.parts;
  open.hidden = !context;
  open.dataset.context = run ?? '';
  write(total, context ? `${context.estimated ? '≈ ' : ''}${many(context.tokens)} of ${many(context.limit)} tokens` : '');
  drawFill(bar, legend, context);
  write(note, context?.note ?? '');
  drawList(list, context ? rowsOf(context) : [], () => node('li'), fillGiven);
  drawList(tools, (context?.tools ?? []).map(asRow), () => node('li'), fillGiven);
  left.hidden = !context?.left_out_count;
  if (left.hidden) return;
  const listed = context.left_out.length < context.left_out_count ? `, the latest ${context.left_out.length} listed` : '';
  write(left.firstElementChild, `Left out: ${messages(context.left_out_count)}, ${many(context.left_out_tokens)} tokens${listed}`);
  drawList(left.lastElementChild, groupsOf(context), makeGroup, fillGroup);
};
window.glassboxGiven(props.value?.run ?? null, props.value?.context ?? null);
