// The public link: asked for while it is being made, then shown as text, as a QR code and to be copied.
const $ = (selector) => element.querySelector(selector), AGAIN_MS = 1500;
const READY = 'Everyone with this link can use this app, for a week at most and while it runs. Nobody else sees your conversations.';
let code = '';

function draw({ state, url, message }) {
  const ready = state === 'ready';
  $('.open').hidden = state === 'off';
  $('.link').hidden = $('img').hidden = !ready;
  $('input').value = url;
  if (ready && code !== url) $('img').src = `share.svg?${new URLSearchParams({ of: code = url })}`;
  $('p').textContent = ready ? READY : state === 'making' ? 'The link is being made …' : message;
}

async function load() {
  try {
    const answer = await fetch('share');
    const told = answer.ok ? await answer.json() : { state: 'off' };
    draw(told);
    if (told.state === 'making') setTimeout(load, AGAIN_MS);
  } catch { /* the page says elsewhere that its line is gone */ }
}

$('.copy').addEventListener('click', async () => {
  const done = (text) => { $('.copy').textContent = text; setTimeout(() => { $('.copy').textContent = 'Copy'; }, 2000); };
  try { await navigator.clipboard.writeText($('input').value); done('Copied'); }
  catch { $('input').select(); done('Ctrl+C'); } // only a page over https, or of this machine, may write there
});
$('[popover]').addEventListener('toggle', (e) => { if (e.newState === 'open') load(); });
load();
