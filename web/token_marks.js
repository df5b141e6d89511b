// Marks the tokens of the shown run's reply in the conversation by their probabilities, while the options ask for them. The
// marks are highlights of ranges (CSS Custom Highlight API), so neither the reply's elements nor copied text change. A
// browser without them shows the tokens in the panel only.
const { bits, describe, make, MOST_BITS, on, replyTexts } = window.glassbox;
const LEVELS = 6, SHARE = 6; // percent of colour for each level
const FEW = 3, NEAR = 60, SAME = 5, FAR = 24; // characters: of what the Markdown may add at a place, and of texts that are found again
const MOST_SEARCHES = 200; // in the whole reply, of one mark
const SLOW_MS = 2, WAIT = 10; // a slow mark waits ten times as long
const SKIPPED = '.math, .drawing, .copy-code, .author, button';
const tip = make('div', { className: 'token-tip', hidden: true, role: 'tooltip' }, make('p', { className: 'which' }), make('ol'), make('p', { className: 'how' }));
const named = (level) => `token-${level}`;
let pieces = [], tokens = [], spans = new Map();
let waiting = 0, cost = 0, searches = 0, pointer = null, chosen = -1;

const supported = Boolean(window.CSS?.highlights && window.Highlight && window.StaticRange);
const wanted = () => supported && Boolean(document.querySelector('#probabilities input')?.checked);
window.glassbox.marksTokens = wanted;

// Not in the page's style sheet, whose rules Gradio writes again. A mark has the colour of plain text, for its contrast.
if (supported) {
  const sheet = new CSSStyleSheet(), rules = Array.from({ length: LEVELS }, (_, i) => `::highlight(${named(i + 1)}) { color: var(--body-text-color); background-color: color-mix(in srgb, var(--gb-phase-thinking) ${SHARE * (i + 1)}%, transparent); }`);
  sheet.replaceSync(`${rules.join('\n')}\n::highlight(token-chosen) { text-decoration: underline 2px var(--gb-accent); }`);
  document.adoptedStyleSheets.push(sheet);
}

// The texts that the reply shows, in order. A formula counts as its source, of which nothing is marked.
function* shownTexts() {
  for (const root of replyTexts()) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) => {
      if (node.nodeType === Node.TEXT_NODE) return NodeFilter.FILTER_ACCEPT;
      if (node.matches('.math')) return NodeFilter.FILTER_ACCEPT;
      return node.matches(SKIPPED) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_SKIP;
    });
    for (let node = walker.nextNode(), within = null; node; node = walker.nextNode()) {
      if (within?.contains(node)) continue;
      within = node.nodeType === Node.TEXT_NODE ? null : node;
      if (!within) yield [node, node.data];
      else yield [null, node.dataset.source ?? node.textContent];
    }
  }
}

// Calls `found(node, at, place, count)` for equal parts of the shown texts and of the source, the reply's Markdown.
function align(source, found) {
  let place = 0;
  searches = MOST_SEARCHES;
  for (const [node, text] of shownTexts()) {
    for (let at = 0; at < text.length;) {
      let count = 0;
      while (at + count < text.length && text[at + count] === source[place + count]) count++;
      if (count) {
        if (node) found(node, at, place, count);
        [at, place] = [at + count, place + count];
        continue;
      }
      const next = resume(source, place, text, at);
      if (next < 0) at++; else place = next;
    }
  }
}

// The place at which the source equals the text again after a difference: the nearest, or the next with a longer text; else -1.
function resume(source, place, text, at) {
  for (let skipped = 1; skipped <= NEAR; skipped++) {
    if (source.startsWith(text.slice(at, at + (skipped <= FEW ? 2 : SAME)), place + skipped)) return place + skipped;
  }
  const long = text.slice(at, at + FAR);
  return long.length === FAR && searches-- > 0 ? source.indexOf(long, place) : -1;
}

function unmark() {
  for (let level = 1; level <= LEVELS; level++) CSS.highlights.delete(named(level));
  CSS.highlights.delete('token-chosen');
  spans = new Map();
  tip.hidden = true;
}

const rangeOf = (node, [from, to]) => new StaticRange({ startContainer: node, startOffset: from, endContainer: node, endOffset: to });
const levelOf = (index) => Math.round(LEVELS * bits(tokens[index]) / MOST_BITS);

function mark() {
  waiting = 0;
  if (!tokens.length || !wanted()) return unmark();
  const begun = performance.now(), levels = Array.from({ length: LEVELS + 1 }, () => []);
  spans = new Map();
  let number = 0, start = 0; // the piece at the place, and where it begins
  align(pieces.map((piece) => piece.text).join(''), (node, at, place, count) => {
    for (let done = 0; done < count;) {
      while (number < pieces.length && start + pieces[number].text.length <= place + done) start += pieces[number++].text.length;
      const { text, index } = pieces[number], length = Math.min(count - done, start + text.length - place - done);
      if (index >= 0) {
        const span = [at + done, at + done + length, index], level = levelOf(index);
        if (level) levels[level].push(rangeOf(node, span));
        if (spans.has(node)) spans.get(node).push(span); else spans.set(node, [span]);
      }
      done += length;
    }
  });
  for (let level = 1; level <= LEVELS; level++) CSS.highlights.set(named(level), new Highlight(...levels[level]));
  choose(chosen);
  cost = performance.now() - begun;
}

function choose(index) {
  chosen = index;
  const found = index < 0 ? [] : [...spans].flatMap(([node, all]) => all.filter((span) => span[2] === index).map((span) => rangeOf(node, span)));
  if (found.length) CSS.highlights.set('token-chosen', new Highlight(...found)); else CSS.highlights.delete('token-chosen');
}

// In the same frame as the change, so that no mark blinks; less often where that takes long.
function schedule() {
  if (waiting) return;
  waiting = cost > SLOW_MS ? setTimeout(mark, WAIT * cost) : requestAnimationFrame(mark);
}

const changed = new MutationObserver(schedule);
function watchReply() {
  changed.disconnect();
  const column = document.querySelector('#scroll');
  if (column && tokens.length && wanted()) changed.observe(column, { childList: true, subtree: true, characterData: true });
}

// The token below the pointer, with its rectangle.
function tokenAt(x, y) {
  const caret = document.caretPositionFromPoint?.(x, y), old = caret ? null : document.caretRangeFromPoint?.(x, y);
  const node = caret?.offsetNode ?? old?.startContainer, at = caret?.offset ?? old?.startOffset;
  for (const [start, end, index] of spans.get(node) ?? []) {
    if (at < start || at > end) continue;
    const range = document.createRange();
    range.setStart(node, start);
    range.setEnd(node, end);
    const box = [...range.getClientRects()].find(({ left, right, top, bottom }) => x >= left && x <= right && y >= top && y <= bottom);
    if (box) return [index, box];
  }
  return null;
}

function point() {
  const [x, y] = pointer;
  pointer = null;
  const found = tokenAt(x, y);
  tip.hidden = !found;
  if (!found) return;
  const [index, box] = found;
  if (!tip.isConnected) (document.querySelector('.gradio-container') ?? document.body).append(tip);
  describe(index, tip);
  const { width, height } = tip.getBoundingClientRect(), above = box.top - height - 6;
  tip.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, box.left))}px`;
  tip.style.top = `${above >= 8 ? above : box.bottom + 6}px`;
}

if (supported) {
  on('tokens', (value) => {
    if (value.tokens !== tokens) chosen = -1;
    ({ pieces, tokens } = value);
    watchReply();
    schedule();
  }, element);
  on('token', (index) => { if (tokens.length && wanted()) choose(index); }, element);
  document.addEventListener('change', ({ target }) => {
    if (!target.closest?.('#probabilities')) return;
    watchReply();
    schedule();
  });
  for (const name of ['pointermove', 'pointerdown']) document.addEventListener(name, ({ clientX, clientY, target }) => {
    if (!spans.size && tip.hidden) return;
    if (!target.closest?.('#scroll .prose')) { tip.hidden = true; return; }
    if (!pointer) requestAnimationFrame(point);
    pointer = [clientX, clientY];
  }, { passive: true });
  document.addEventListener('scroll', () => { tip.hidden = true; }, { capture: true, passive: true });
  document.addEventListener('keydown', ({ key }) => { if (key === 'Escape') tip.hidden = true; });
}
