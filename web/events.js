// The panel's tab *Events*: the raw events of its run as a table, read from the run's record while the tab is open.
const { drawList, make, number, on, recordReader, write } = window.glassbox;
const root = element.querySelector('#events');
const [total, kinds, box, status, rows] = ['.count', '.kinds', 'input', '.notice', '.rows'].map((s) => root.querySelector(s));
const MOST = 300, CUT = 20_000;
const GROUPS = {
  Model: ['context', 'model_start', 'model_end'],
  Tools: ['tool_start', 'tool_output', 'tool_end', 'approval'],
  Steps: ['run', 'status', 'chain_start', 'chain_end', 'complete', 'stopped', 'error'],
  Stream: ['token', 'reasoning', 'tool_input', 'state'],
};
const groupOf = (e) => Object.keys(GROUPS).find((name) => GROUPS[name].includes(e.type)) ?? 'Steps';
const off = new Set(['Stream']); // hidden at first, because there are so many
let run = null, following = true;
let events, names, counts, opened, matched, next; // `next`: the index of the first of `matched` that is not drawn

const nameOf = (e) => e.name ?? e.tool ?? names.get(e.id ?? e.tool_call_id);
const seqOf = (item) => Number(item?.dataset.seq);
const atEnd = () => rows.scrollTop + rows.clientHeight >= rows.scrollHeight - 8;
const used = (e) => e.usage?.output_tokens != null && `${number(e.usage.output_tokens)} tokens`;

const DETAILS = {
  run: (e) => [e.backend, e.model, `memory: ${e.memory}`],
  context: (e) => [`${number(e.messages.length)} messages`, `${number(e.tokens)} of ${number(e.limit)} tokens`, e.left_out.length && `${number(e.left_out.length)} left out`],
  chain_start: (e) => [e.name], tool_start: (e) => [e.tool, JSON.stringify(e.input)], approval: (e) => [e.tool, JSON.stringify(e.input)],
  tool_input: (e) => [e.tool, e.delta], tool_output: (e) => [e.tool, e.chunk], tool_end: (e) => [e.tool, e.error ?? e.output, `${e.duration_s} s`],
  model_end: (e) => [nameOf(e), e.error, used(e), `${e.duration_s} s`], chain_end: (e) => [nameOf(e), e.error],
  state: (e) => [e.status, `${number(e.tokens_received)} tokens`, `${e.tokens_per_second}/s`],
  complete: (e) => [used(e), `${e.timing.duration_s} s`], stopped: (e) => [e.reason, used(e), `${e.timing.duration_s} s`],
  error: (e) => [e.code, e.message],
};
const details = (e) => (DETAILS[e.type]?.(e) ?? [nameOf(e), e.content]).filter(Boolean).map((part) => String(part).slice(0, 200).replaceAll('\n', '↵')).join(' · ');

const matches = (e) => !off.has(groupOf(e)) && (nameOf(e) ?? '').toLowerCase().includes(box.value.trim().toLowerCase());

function unfold(item, e) {
  const json = JSON.stringify(e, null, 2);
  item.append(make('pre', { tabIndex: 0 }, json.slice(0, CUT)));
  if (json.length > CUT) item.append(make('p', {}, `Shortened to the first ${number(CUT)} of ${number(json.length)} characters.`));
}

function row(e) {
  const seconds = (Date.parse(e.timestamp) - Date.parse(events[0].timestamp)) / 1000;
  const cells = [e.seq, seconds.toFixed(2), e.type, details(e)].map((text) => make('span', {}, String(text)));
  const button = make('button', { type: 'button', ariaExpanded: String(opened.has(e.seq)) }, ...cells), item = make('li', {}, button);
  item.dataset.seq = e.seq;
  button.dataset.type = e.type;
  button.toggleAttribute('data-failed', Boolean(e.error));
  if (opened.has(e.seq)) unfold(item, e);
  return item;
}

// Rows are removed only while the reader is at the end, so that the text being read never moves.
function draw() {
  const follow = atEnd() && !opened.has(seqOf(rows.lastElementChild));
  const until = follow ? matched.length : Math.min(matched.length, next + MOST - rows.children.length);
  rows.append(...matched.slice(Math.max(next, until - MOST), until).map(row));
  next = until;
  while (rows.children.length > MOST) rows.firstElementChild.remove();
  if (follow) rows.scrollTop = rows.scrollHeight;
  const drawn = rows.children.length, latest = next < matched.length ? '' : 'latest ';
  write(total, !events.length ? '' : drawn < matched.length ? `${latest}${drawn} of ${number(matched.length)}` : number(drawn));
  if (!status.classList.contains('bad')) write(status, !run ? 'Send a message to see the events of its run.' : events.length && !drawn ? 'No results.' : '');
}

// The first visible row keeps its place if it still matches.
function filter() {
  const seen = !atEnd() && [...rows.children].find((item) => item.offsetTop + item.offsetHeight > rows.scrollTop);
  const place = seen && seen.offsetTop - rows.scrollTop;
  matched = events.filter(matches);
  next = 0;
  rows.replaceChildren();
  draw();
  const same = seen && [...rows.children].find((item) => seqOf(item) >= seqOf(seen));
  if (same) rows.scrollTop = same.offsetTop - place;
}

function drawKinds() {
  drawList(kinds, run ? Object.keys(GROUPS) : [], () => make('button', { type: 'button' }, make('span'), make('small')), (chip, group) => {
    chip.dataset.group = group;
    chip.title = GROUPS[group].join(', ');
    chip.ariaPressed = String(!off.has(group));
    write(chip.firstElementChild, group);
    write(chip.lastElementChild, number(counts.get(group) ?? 0));
  });
}

function take(fresh) {
  for (const e of fresh) {
    events.push(e);
    counts.set(groupOf(e), (counts.get(groupOf(e)) ?? 0) + 1);
    if (e.type.endsWith('_start')) names.set(e.id ?? e.tool_call_id, nameOf(e));
    if (matches(e)) matched.push(e);
  }
  drawKinds();
  draw();
}

function reset(id) {
  [run, events, names, counts, opened] = [id, [], new Map(), new Map(), new Set()];
  drawKinds();
  filter();
}

function fail(text) {
  status.classList.toggle('bad', Boolean(text));
  if (text) write(status, text);
}

rows.addEventListener('click', ({ target }) => {
  const button = target.closest('button'), item = button?.parentElement, seq = seqOf(item);
  if (!button) return;
  button.ariaExpanded = String(!opened.has(seq));
  if (opened.delete(seq)) {
    item.replaceChildren(button);
    return draw(); // no rows were added below it
  }
  opened.add(seq);
  unfold(item, events[seq - 1]); // seq counts from 1 without gaps
  item.scrollIntoView({ block: 'nearest' });
});
rows.addEventListener('scroll', () => { following = atEnd(); if (next < matched.length && following) draw(); });
kinds.addEventListener('click', ({ target }) => {
  const group = target.closest('button')?.dataset.group;
  if (!group) return;
  if (!off.delete(group)) off.add(group);
  drawKinds();
  filter();
});
box.addEventListener('input', filter);
on('tab', () => { if (!root.hidden && following) rows.scrollTop = rows.scrollHeight; }, element); // a hidden list forgets its position
recordReader({ root, reset, take, fail });
