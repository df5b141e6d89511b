// The panel's tab *Tokens*: each token of the reply with its probability, where the run has recorded them.
const { drawList, make, number, recordReader, visible, write } = window.glassbox;
const root = element.querySelector('#tokens');
const [notice, curve, path, flow, about] = ['.notice', '.surprise', '.surprise path', '.flow', '.about'].map((s) => root.querySelector(s));
const MOST_BITS = 8; // of surprise: beyond it, the background and the line are no stronger
let tokens = [], run = null, replied = false, chosen = null;

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
  const one = tokens[index], pairs = one.top.some(([token]) => token === one.token) ? one.top : [[one.token, one.logprob], ...one.top];
  about.hidden = false;
  write(about.querySelector('.which'), `Token ${number(index + 1)} of ${number(tokens.length)}: ${quoted(one.token)} had a probability of ${share(one.logprob)}.`);
  write(about.querySelector('.how'), `${one.top.length > 1 ? `The model hesitated between about ${(2 ** entropy(one)).toFixed(1)} tokens (entropy ${entropy(one).toFixed(2)} bits). ` : ''}${one.bytes ? `Part of a character: bytes ${one.bytes.join(' ')}. ` : ''}${one.seq && pairs.length > 1 && window.glassbox.backend?.continues_replies ? 'Choose another one to continue the reply with it.' : ''}`);
  drawList(about.querySelector('ol'), pairs, () => make('li', {}, make('button', { type: 'button' }), make('i'), make('span')), (item, [token, logprob]) => {
    item.toggleAttribute('data-taken', token === one.token);
    const button = item.children[0], fixed = token === one.token || !isText(token) || !one.seq || !window.glassbox.backend?.continues_replies;
    write(button, quoted(token));
    button.disabled = fixed;
    button.title = fixed ? '' : 'Continue the reply from here with this token';
    button.onclick = () => trigger('continue_reply', { run_id: run, seq: one.seq, token: one.before + token });
    item.children[1].style.setProperty('--share', Math.exp(logprob));
    write(item.children[2], share(logprob));
  });
}

function draw() {
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
  reset(id) {
    [run, tokens, replied, chosen] = [id, [], false, null];
    flow.replaceChildren();
    about.hidden = true;
    draw();
  },
  take(events) {
    for (const event of events) {
      if (event.type !== 'token') continue;
      replied = true;
      // an event may have several tokens: `before` are those in front of each
      let before = '';
      for (const one of event.logprobs ?? []) {
        tokens.push({ ...one, seq: event.content.startsWith(before) && before.length < 150 ? event.seq : 0, before });
        before += one.token;
      }
    }
    draw();
  },
  fail: say,
});

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
