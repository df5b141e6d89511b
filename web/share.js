// What can be shared: the address of the conversation, and the public link, which is polled while it is created and then shown
// as text and as a QR code.
const { conversationId } = window.glassbox;
const $ = (selector) => element.querySelector(selector), AGAIN_MS = 1500;
const READY = 'Anyone with this link can use this app while it runs, for at most a week. Your conversations stay private.';
let code = '';

function drawConversation() {
  const id = conversationId(), path = `conversations/${encodeURIComponent(id)}?format=`;
  $('.this').hidden = !id;
  $('.none').hidden = Boolean(id);
  $('.this input').value = new URL(`?conversation=${encodeURIComponent(id)}`, document.baseURI).href;
  $('.markdown').href = `${path}markdown`;
  $('.json').href = `${path}json`;
}

function drawPublic({ state, url, message }) {
  const ready = state === 'ready', box = $('.public');
  box.hidden = state === 'off';
  box.querySelector('.link').hidden = $('img').hidden = !ready;
  box.querySelector('input').value = url;
  if (ready && code !== url) $('img').src = `share.svg?${new URLSearchParams({ of: code = url })}`;
  $('[role=status]').textContent = ready ? READY : state === 'making' ? 'Creating the link …' : message;
}

async function load() {
  try {
    const response = await fetch('share');
    const answer = response.ok ? await response.json() : { state: 'off' };
    drawPublic(answer);
    if (answer.state === 'making') setTimeout(load, AGAIN_MS);
  } catch { /* the panel shows a lost connection */ }
}

for (const button of element.querySelectorAll('.copy')) button.addEventListener('click', async () => {
  const input = button.previousElementSibling;
  const done = (text) => { button.textContent = text; setTimeout(() => { button.textContent = 'Copy'; }, 2000); };
  try { await navigator.clipboard.writeText(input.value); done('Copied'); }
  catch { input.select(); done('Ctrl+C'); } // the clipboard needs HTTPS or this machine
});
const isPublic = Boolean($('[popover]').dataset.public);
$('[popover]').addEventListener('toggle', (e) => {
  if (e.newState !== 'open') return;
  drawConversation();
  if (isPublic) load();
});
if (isPublic) load();
