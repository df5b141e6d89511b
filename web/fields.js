// Sets the fields above the conversation from an answer of the server. A field that the visitor changed since stays.
const { emit, on } = window.glassbox;
const SKIP = { __type__: 'update' };
const isSame = (a, b) => JSON.stringify(a ?? '') === JSON.stringify(b ?? '');

// A key that is typed in the meantime is for the backend that is shown, so that backend stays.
const key = () => document.querySelector('#key input')?.value ?? '';
let keyBefore = '';
on('open', () => { keyBefore = key(); }, element);
const isHeld = (index) => index === 0 && key() && key() !== keyBefore;

watch('value', () => {
  if (!props.value) return;
  trigger('arrived');
  emit('loaded'); // the answer to the page's load comes first: see web/frame.js
});
function setFields({ before, set }, ...now) {
  let kept = false;
  const values = now.map((value, i) => {
    if (!(i in set) || isSame(value, set[i])) return SKIP;
    if (isSame(value, before[i]) && !isHeld(i)) return set[i];
    kept = true;
    return SKIP;
  });
  // the last field is the model, which belongs to the backend, the first field
  const keptBackend = 0 in set && values[0] === SKIP && !isSame(now[0], set[0]);
  if (keptBackend) values[values.length - 1] = SKIP;
  if (kept) trigger('kept');
  return values;
}

// After a key was tried, its field is emptied, unless it holds another one by then.
let tried = '';
const keySent = (text, ...others) => { tried = text; return [text, ...others]; };
const keyTried = (now) => now === tried ? '' : SKIP;

Object.assign(window.glassbox, { setFields, keySent, keyTried });
