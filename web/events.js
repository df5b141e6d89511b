// The raw events of the panel's run as a table, read from the run's record while the table is open.
const { make, number, on, write } = window.glassbox;
const root = element.querySelector('#events');
const [total, kinds, box, status, rows] = ['summary span', '.kinds', 'input', '.notice', '.rows'].map((s) => root.querySelector(s));
const MOST = 300, CUT = 20_000, EVERY_MS = 500, AGAIN_MS = 2000;
const off = new Set(['token', 'reasoning', 'tool_input', 'state']); // hidden at first, because there are so many
let run = null, live = false, whole = false, reading = null, again = 0;
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

const matches = (e) => !off.has(e.type) && (nameOf(e) ?? '').toLowerCase().includes(box.value.trim().toLowerCase());

function unfold(item, e) {
  const json = JSON.stringify(e, null, 2);
  item.append(make('pre', {}, json.slice(0, CUT)));
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
  if (!status.classList.contains('bad')) write(status, !run ? 'Send a message to see the events of its run here.' : events.length && !drawn ? 'No results.' : '');
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
  [...counts].forEach(([type, n], i) => { // in the order of their first events
    const chip = kinds.children[i] ?? kinds.appendChild(make('button', { type: 'button' }, `${type} `));
    if (!chip.children.length) chip.append(make('small'));
    chip.dataset.type = type;
    chip.ariaPressed = String(!off.has(type));
    write(chip.lastElementChild, number(n));
  });
}

function take(fresh) {
  for (const e of fresh) {
    events.push(e);
    counts.set(e.type, (counts.get(e.type) ?? 0) + 1);
    if (e.type.endsWith('_start')) names.set(e.id ?? e.tool_call_id, nameOf(e));
    if (matches(e)) matched.push(e);
  }
  drawKinds();
  draw();
}

async function read() {
  if (!run || whole || reading || document.hidden || performance.now() < again) return;
  if (!root.open || !root.offsetParent) return; // on a phone, the panel may be folded too
  const mine = reading = new AbortController();
  try {
    const address = new URL(`runs/${encodeURIComponent(run)}?after=${events.length}`, document.baseURI);
    const response = await fetch(address, { signal: mine.signal }), lines = (await response.text()).split('\n');
    if (!response.ok) throw new Error(response.statusText);
    const fresh = lines.filter(Boolean).map((line) => JSON.parse(line));
    if (mine !== reading) return; // the panel shows another run
    whole = response.headers.get('X-Run-Live') !== '1';
    status.classList.remove('bad');
    take(fresh);
  } catch {
    if (mine !== reading) return;
    again = live ? performance.now() + AGAIN_MS : Infinity;
    status.classList.add('bad');
    write(status, live ? 'Could not load the events. Retrying …' : 'Could not load the events. Close and reopen this section to retry.');
  } finally {
    if (mine === reading) reading = null;
  }
}

function update(value) {
  const id = value?.run ?? null, isLive = Boolean(value?.live && !value.replay);
  if (events && id === run && isLive === live) return;
  [live, again] = [isLive, 0];
  if (!events || id !== run) {
    reading?.abort();
    [run, whole, reading, events, names, counts, opened] = [id, false, null, [], new Map(), new Map(), new Set()];
    status.classList.remove('bad');
    kinds.replaceChildren();
    filter();
  }
  read();
}
on('panel', update, element);

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
rows.addEventListener('scroll', () => { if (next < matched.length && atEnd()) draw(); });
kinds.addEventListener('click', ({ target }) => {
  const type = target.closest('button')?.dataset.type;
  if (!type) return;
  if (!off.delete(type)) off.add(type);
  drawKinds();
  filter();
});
box.addEventListener('input', filter);
root.addEventListener('toggle', () => { again = 0; read(); });
const ticking = setInterval(() => element.isConnected ? read() : clearInterval(ticking), EVERY_MS);
update(props.value);
