// The servers of the tools in the options: the state of each, and the name of its server at each tool. It asks while the sheet
// is open and a server is not ready.
const { drawList, make, request, write } = window.glassbox;
const box = element.querySelector('.servers'), list = box.querySelector('ul');
const STATES = { starting: 'Starting', ready: 'Ready', failed: 'Failed', restarting: 'Restarting' };
const EVERY_MS = 2000;
let timer = null, of = new Map(); // the server of each tool

const isOpen = () => document.body.classList.contains('options') && !document.hidden;
const counted = (n, one) => `${n} ${one}${n === 1 ? '' : 's'}`;

function fill(item, server) {
  const [name, state, reason] = item.children;
  item.dataset.state = server.state;
  write(name, server.name);
  write(state, server.state === 'ready' ? `${STATES.ready}, ${counted(server.tools, 'tool')}` : STATES[server.state] ?? server.state);
  write(reason, [server.reason, ...server.refused.map((sentence) => `Not offered: ${sentence}`)].filter(Boolean).join(' '));
}

// Gradio draws the boxes of the tools; they only get the name of their server, which the styles show.
function mark() {
  for (const label of document.querySelectorAll('#tools label')) {
    const server = of.get(label.textContent.trim());
    if (server) label.dataset.server = server; else delete label.dataset.server;
  }
}

async function load() {
  clearTimeout(timer);
  if (!isOpen() || !element.isConnected) return;
  try {
    const [servers, tools] = await Promise.all([request('tool-servers'), request('tools')]);
    of = new Map(tools.filter((tool) => tool.server).map((tool) => [tool.name, tool.server]));
    box.hidden = !servers.length;
    drawList(list, servers, () => make('li', {}, make('b'), make('span'), make('p')), fill);
    mark();
    if (servers.every((server) => server.state === 'ready')) return;
  } catch { /* the next try may succeed */ }
  timer = setTimeout(load, EVERY_MS);
}

new MutationObserver(load).observe(document.body, { attributes: true, attributeFilter: ['class'] });
document.addEventListener('change', (event) => { if (event.target.closest?.('#tools')) mark(); });
