// A print has the whole conversation: the messages on the page, and before them the earlier ones as text. Browsers do not
// wait while they prepare a print, so the earlier messages are fetched synchronously.
const { conversationId, make } = window.glassbox;
const ROLES = { user: 'You', assistant: 'Model', system: 'System prompt', tool: 'Tool result' };

function earlierMessages(count) {
  const request = new XMLHttpRequest();
  request.open('GET', new URL(`conversations/${encodeURIComponent(conversationId())}`, document.baseURI), false);
  request.send();
  if (request.status !== 200) throw new Error(`The server answered with status ${request.status}.`);
  return JSON.parse(request.responseText).messages.slice(0, count);
}

addEventListener('beforeprint', () => {
  const earlier = document.querySelector('#earlier'), count = earlier?.textContent.match(/[\d,]+/)?.[0];
  if (!count || !earlier.offsetParent) return;
  const box = make('div', { className: 'printed-earlier', dir: 'auto' });
  const add = (tag, text) => box.append(make(tag, { dir: 'auto' }, text));
  try {
    for (const { role, content } of earlierMessages(Number(count.replaceAll(',', '')))) {
      add('h4', ROLES[role] ?? role);
      add('p', content);
    }
  } catch {
    add('p', `Not printed: ${count} earlier messages. Show them on the page to print them, too.`);
  }
  document.querySelector('#scroll').prepend(box);
});
addEventListener('afterprint', () => document.querySelector('.printed-earlier')?.remove());
