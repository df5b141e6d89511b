// The public link: polled while it is created, then shown as text and as a QR code.
const $ = (selector) => element.querySelector(selector), AGAIN_MS = 1500;
const READY = 'Anyone with this link can use this app while it runs, for at most a week. Your conversations stay private.';
let code = '';

function draw({ state, url, message }) {
  const ready = state === 'ready';
  $('.open').hidden = state === 'off';
  $('.link').hidden = $('img').hidden = !ready;
  $('input').value = url;
  if (ready && code !== url) $('img').src = `share.svg?${new URLSearchParams({ of: code = url })}`;
  $('p').textContent = ready ? READY : state === 'making' ? 'Creating the link …' : message;
}

async function load() {
  try {
    const response = await fetch('share');
    const answer = response.ok ? await response.json() : { state: 'off' };
    draw(answer);
    if (answer.state === 'making') setTimeout(load, AGAIN_MS);
  } catch { /* the panel shows a lost connection */ }
}

$('.copy').addEventListener('click', async () => {
  const done = (text) => { $('.copy').textContent = text; setTimeout(() => { $('.copy').textContent = 'Copy'; }, 2000); };
  try { await navigator.clipboard.writeText($('input').value); done('Copied'); }
  catch { $('input').select(); done('Ctrl+C'); } // the clipboard needs HTTPS or this machine
});
$('[popover]').addEventListener('toggle', (e) => { if (e.newState === 'open') load(); });
load();
