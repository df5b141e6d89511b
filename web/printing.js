// A print holds the whole conversation: the messages that the page shows, and before them the earlier ones as text. A
// browser waits for nothing while it prepares a print, so they are asked for synchronously.
const NAMES = { user: 'You', assistant: 'Model', system: 'Instruction', tool: 'Result of a tool' };

function make(tag, className, text) {
  return Object.assign(document.createElement(tag), { className, textContent: text, dir: 'auto' });
}

function earlierMessages(count) {
  const id = new URL(location.href).searchParams.get('conversation'), request = new XMLHttpRequest();
  request.open('GET', new URL(`conversations/${encodeURIComponent(id)}`, document.baseURI), false);
  request.send();
  if (request.status !== 200) throw new Error(`The server answered ${request.status}.`);
  return JSON.parse(request.responseText).messages.slice(0, count);
}

addEventListener('beforeprint', () => {
  const earlier = document.querySelector('#earlier'), number = earlier?.textContent.match(/[\d,]+/)?.[0];
  if (!number || !earlier.offsetParent) return;
  const box = make('div', 'printed-earlier', '');
  try {
    for (const { role, content } of earlierMessages(Number(number.replaceAll(',', '')))) {
      box.append(make('h4', '', NAMES[role] ?? role), make('p', '', content));
    }
  } catch {
    box.append(make('p', '', `Not printed: ${number} earlier messages. Show them on the page to print them, too.`));
  }
  document.querySelector('#scroll').prepend(box);
});
addEventListener('afterprint', () => document.querySelector('.printed-earlier')?.remove());
