// The panel's tab *Tokens*: each token of the reply with its probability, where the run has recorded them.
const { drawList, emit, make, number, recordReader, visible, write } = window.glassbox;
const root = element.querySelector('#tokens');
const [notice, curve, path, flow, about] = ['.notice', '.surprise', '.surprise path', '.flow', '.about'].map((s) => root.querySelector(s));
const MOST_BITS = 8; // of surprise: beyond it, the background and the line are no stronger
let tokens = [], run = null, replied = false, chosen = null;
let pieces = [], begun = [0, 0]; // the reply as {text, index of a token, or -1}; how many tokens and pieces there were before the latest call

const bits = (one) => Math.min(MOST_BITS, -one.logprob / Math.LN2);
const share = (logprob) => { const p = 100 * Math.exp(logprob); return p >= 99.95 ? '100 %' : p >= 10 ? `${p.toFixed(0)} %` : p >= 0.1 ? `${p.toFixed(1)} %` : '< 0.1 %'; };
// Neither a part of a character nor a control word.
const isText = (token) => token && !token.includes('\ufffd') && !/^<.*>$/s.test(token);
const quoted = (text) => `“${visible(text).replaceAll(' ', '␣')}”`;

// Of the tokens that are known to be likely; what is left counts as one more.
function entropy(one) {
  const known = one.top.map(([, logprob]) => Math.exp(logprob)), rest = 1 - known.reduce((sum, p) => sum + p, 0);
  return [...known, rest].reduce((sum, p) => p > 1e-9 ? sum - p * Math.log2(p) : sum, 0);
}

function select(index, focus) {
  if (!tokens[index]) return;
  chosen?.setAttribute('tabindex', '-1');
  chosen?.removeAttribute('aria-current');
  chosen = flow.children[index];
  chosen.tabIndex = 0;
  chosen.ariaCurrent = 'true';
  if (focus) { chosen.focus(); chosen.scrollIntoView({ block: 'nearest' }); }
  emit('token', index);
  about.hidden = false;
  describe(index, about, (button, token, before) => {
    const fixed = button.disabled = token === tokens[index].token || !isText(token) || !tokens[index].seq || !window.glassbox.backend?.continues_replies;
    button.title = fixed ? '' : 'Continue the reply from here with this token';
    button.onclick = () => trigger('continue_reply', { run_id: run, seq: tokens[index].seq, token: before + token });
  });
}

// Writes about a token into a box; `prepare(button, token, before)` makes the buttons of its alternatives.
function describe(index, box, prepare) {
  const one = tokens[index], pairs = one.top.some(([token]) => token === one.token) ? one.top : [[one.token, one.logprob], ...one.top];
  write(box.querySelector('.which'), `Token ${number(index + 1)} of ${number(tokens.length)}: ${quoted(one.token)} had a probability of ${share(one.logprob)}.`);
  const choice = prepare && one.seq && pairs.length > 1 && window.glassbox.backend?.continues_replies;
  write(box.querySelector('.how'), `${one.top.length > 1 ? `The model hesitated between about ${(2 ** entropy(one)).toFixed(1)} tokens (entropy ${entropy(one).toFixed(2)} bits). ` : ''}${one.bytes ? `Part of a character: bytes ${one.bytes.join(' ')}. ` : ''}${choice ? 'Choose another one to continue the reply with it.' : ''}`);
  drawList(box.querySelector('ol'), pairs, () => make('li', {}, make(prepare ? 'button' : 'b', prepare ? { type: 'button' } : {}), make('i'), make('span')), (item, [token, logprob]) => {
    item.toggleAttribute('data-taken', token === one.token);
    write(item.children[0], quoted(token));
    prepare?.(item.children[0], token, one.before);
    item.children[1].style.setProperty('--share', Math.exp(logprob));
    write(item.children[2], share(logprob));
  });
}
Object.assign(window.glassbox, { bits, describe, MOST_BITS });

// The pieces of an event's text. A token that is a part of a character, or a control word, shares the text up to the next one.
function addPieces(content, first, count) {
  let rest = content, open = -1;
  for (let index = first; index < first + count; index++) {
    const { token } = tokens[index], at = isText(token) ? rest.indexOf(token) : -1;
    if (at < 0) {
      if (open < 0 || bits(tokens[index]) > bits(tokens[open])) open = index;
      continue;
    }
    if (at) pieces.push({ text: rest.slice(0, at), index: open });
    pieces.push({ text: token, index });
    [rest, open] = [rest.slice(at + token.length), -1];
  }
  if (rest) pieces.push({ text: rest, index: open });
}

function draw() {
  if (root.hidden || !root.offsetParent) return; // the marks in the reply need the tokens, too
  const fresh = tokens.slice(flow.children.length);
  flow.append(...fresh.map((one) => {
    const node = make('button', { type: 'button', tabIndex: -1, title: share(one.logprob) }, visible(one.token));
    node.style.setProperty('--bits', bits(one) / MOST_BITS);
    return node;
  }));
  if (!chosen && tokens.length) flow.firstElementChild.tabIndex = 0;
  curve.hidden = tokens.length < 2;
  path.setAttribute('d', tokens.map((one, i) => `${i ? 'L' : 'M'}${(100 * i / Math.max(1, tokens.length - 1)).toFixed(2)} ${(31 - 30 * bits(one) / MOST_BITS).toFixed(1)}`).join(''));
  say('');
}

function say(problem) {
  const explained = 'The stronger the colour, the less likely the token was. Point at one to see what else was likely.';
  const none = !run ? 'Send a message to see its tokens.' : tokens.length ? explained : !replied ? '' : 'This reply was written without probabilities. Turn on Token probabilities in Options, and send again.';
  write(notice, problem || none);
}

recordReader({
  root,
  wanted: () => Boolean(window.glassbox.marksTokens?.()),
  reset(id) {
    [run, tokens, replied, chosen, pieces, begun] = [id, [], false, null, [], [0, 0]];
    flow.replaceChildren();
    about.hidden = true;
    draw();
    emit('tokens', { pieces, tokens });
  },
  take(events) {
    for (const event of events) {
      if (event.type === 'model_start') begun = [tokens.length, pieces.length];
      if (event.type === 'reasoning' && event.retracts) drop(); // they were thinking
      if (event.type !== 'token') continue;
      replied = true;
      // an event may have several tokens: `before` are those in front of each
      let before = '';
      const first = tokens.length;
      for (const one of event.logprobs ?? []) {
        tokens.push({ ...one, seq: event.content.startsWith(before) && before.length < 150 ? event.seq : 0, before });
        before += one.token;
      }
      addPieces(event.content, first, tokens.length - first);
    }
    draw();
    emit('tokens', { pieces, tokens });
  },
  fail: say,
});

function drop() {
  [tokens.length, pieces.length] = begun;
  while (flow.children.length > tokens.length) flow.lastElementChild.remove();
  if (chosen && !chosen.isConnected) [chosen, about.hidden] = [null, true];
}

new ResizeObserver(draw).observe(root); // it has a size once it can be seen

const indexOf = (node) => [...flow.children].indexOf(node.closest('button'));
// Tokens that are drawn under a pointer that rests are not pointed at.
let rest = '';
const place = ({ screenX, screenY }) => `${screenX} ${screenY}`;
document.addEventListener('pointermove', (event) => { rest = place(event); }, true);
for (const name of ['pointerover', 'focusin', 'click']) flow.addEventListener(name, (event) => {
  if (event.target === flow || name === 'pointerover' && place(event) === rest) return;
  select(indexOf(event.target), name === 'click');
});
flow.addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key], at = indexOf(event.target);
  const next = { Home: 0, End: tokens.length - 1 }[event.key] ?? (step && Math.min(tokens.length - 1, Math.max(0, at + step)));
  if (next === undefined) return;
  event.preventDefault();
  select(next, true);
});
curve.addEventListener('click', ({ offsetX }) => select(Math.round((tokens.length - 1) * Math.min(1, Math.max(0, offsetX / curve.clientWidth))), true));
