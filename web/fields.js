// Sets the fields above the conversation from an answer of the server; what was changed meanwhile stays as it is.
const SKIP = { __type__: 'update' };
const isSame = (a, b) => JSON.stringify(a ?? '') === JSON.stringify(b ?? '');

// A key that is typed meanwhile is for the backend that is shown.
const key = () => document.querySelector('#key input')?.value ?? '';
let keyBefore = '';
window.glassboxOpens = () => { keyBefore = key(); };
const isHeld = (number) => number === 0 && key() && key() !== keyBefore;

watch('value', () => { if (props.value) trigger('came'); });
window.glassboxFields = ({ before, set }, ...now) => {
  let kept = false;
  const values = now.map((value, i) => {
    if (!(i in set) || isSame(value, set[i])) return SKIP;
    if (isSame(value, before[i]) && !isHeld(i)) return set[i];
    kept = true;
    return SKIP;
  });
  // the last field is the model: it goes with the backend, the first one
  const own = 0 in set && values[0] === SKIP && !isSame(now[0], set[0]);
  if (own) values[values.length - 1] = SKIP;
  if (kept) trigger('kept');
  return values;
};

// A key is taken out of its field once it was tried, unless another one is typed there by then.
let tried = '';
window.glassboxKeySent = (given, ...others) => { tried = given; return [given, ...others]; };
window.glassboxKeyTried = (now) => now === tried ? '' : SKIP;
