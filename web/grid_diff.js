// The words in which two texts differ, by the algorithm of Myers (An O(ND) Difference Algorithm and Its Variations, 1986). The
// work is bounded: texts that differ in very many words are shown as different as a whole.

const MOST_WORDS = 20_000, MOST_EDITS = 1_000, MOST_CHARACTERS = 200_000;
const segmenter = new Intl.Segmenter(undefined, { granularity: 'word' }); // also for scripts without spaces

/** Returns the words, spaces and signs of a text. */
export const words = (text) => Array.from(segmenter.segment(text), ({ segment }) => segment);

/**
 * Returns { parts, exact }: parts are [kind, text], of the kinds 'same', 'one' (only in the first text) and 'other'. It is not
 * exact if the texts are too long or too different.
 */
export function difference(one, other) {
  if (Math.max(one.length, other.length) > MOST_CHARACTERS) return { parts: whole(one, other), exact: one === other };
  const a = words(one), b = words(other), least = Math.min(a.length, b.length);
  let start = 0, end = 0;
  while (start < least && a[start] === b[start]) start++;
  while (end < least - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const [left, right] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const tooLong = Math.max(left.length, right.length) > MOST_WORDS, found = tooLong ? null : shortest(left, right);
  const middle = found ?? [['one', left.join('')], ['other', right.join('')]];
  const parts = merged([['same', a.slice(0, start).join('')], ...middle, ['same', a.slice(a.length - end).join('')]]);
  return { parts, exact: found !== null };
}

const whole = (one, other) => merged(one === other ? [['same', one]] : [['one', one], ['other', other]]);

// The shortest list of edits; null if there are more than MOST_EDITS.
function shortest(a, b) {
  const most = Math.min(a.length + b.length, MOST_EDITS), reached = new Int32Array(2 * most + 3), middle = most + 1, steps = [];
  for (let edits = 0; edits <= most; edits++) {
    steps.push(reached.slice(middle - edits - 1, middle + edits + 2)); // what the way back needs of it
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && reached[middle + k - 1] < reached[middle + k + 1]);
      let x = down ? reached[middle + k + 1] : reached[middle + k - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reached[middle + k] = x;
      if (x >= a.length && x - k >= b.length) return wayBack(a, b, steps);
    }
  }
  return null;
}

function wayBack(a, b, steps) {
  const parts = [];
  let x = a.length, y = b.length;
  for (let edits = steps.length - 1; edits >= 0; edits--) {
    const at = (k) => steps[edits][k + edits + 1], k = x - y;
    const down = k === -edits || (k !== edits && at(k - 1) < at(k + 1));
    const from = edits ? at(down ? k + 1 : k - 1) : 0, fromY = edits ? from - (down ? k + 1 : k - 1) : 0;
    while (x > from && y > fromY && a[x - 1] === b[y - 1]) {
      parts.push(['same', a[--x]]);
      y--;
    }
    if (edits) parts.push(down ? ['other', b[--y]] : ['one', a[--x]]);
  }
  return parts.reverse();
}

// Joins neighbours of one kind. In a run of changes what only the first text has is before what only the second has.
function merged(parts) {
  const found = [];
  let one = '', other = '';
  const flush = () => {
    if (one) found.push(['one', one]);
    if (other) found.push(['other', other]);
    one = other = '';
  };
  for (const [kind, text] of parts) {
    if (kind === 'one') one += text;
    else if (kind === 'other') other += text;
    else if (text) {
      flush();
      if (found.at(-1)?.[0] === 'same') found.at(-1)[1] += text;
      else found.push(['same', text]);
    }
  }
  flush();
  return found;
}
