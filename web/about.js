// Says what there is to say about the chosen backend, and asks for news while one is still loading.
const line = element.querySelector('p');
const chosen = () => document.querySelector('#backend input')?.value ?? '';
let backends = [], timer = null;

function draw() {
  const name = chosen();
  const one = backends.filter((b) => name.startsWith(b.name)).sort((a, b) => b.name.length - a.name.length)[0];
  const loading = one?.state === 'loading' && `Loading ${one.name}${one.progress == null ? '' : `, ${Math.round(100 * one.progress)} %`} …`;
  const text = !one ? '' : one.state === 'unavailable' ? `${one.name} is not available: ${one.reason}` : loading || one.about || '';
  if (line.textContent !== text) line.textContent = text;
  line.dataset.state = one?.state ?? '';
}

async function ask() {
  timer = null;
  const before = backends;
  try { backends = await (await fetch('backends')).json(); } catch { /* the next question may be answered */ }
  draw();
  if (backends.some((b) => b.state === 'loading')) timer = setTimeout(ask, 700);
  else if (before.some((b) => b.state === 'loading')) trigger('loaded');
}

watch('value', () => {
  backends = props.value ?? [];
  draw();
  if (!timer && backends.some((b) => b.state === 'loading')) timer = setTimeout(ask, 300);
});
// the dropdown's own value has no event to listen to from here, and looking costs next to nothing
let seen = null;
const looking = setInterval(() => {
  if (!element.isConnected) clearInterval(looking);
  else if (chosen() !== seen) { seen = chosen(); draw(); }
}, 200);
