// The documents that the tool `search` looks into: sent to the server as they are, listed, removed. Names are text.
const $ = (selector) => element.querySelector(selector);
const [list, button, input, told] = ['ul', '.documents > button', 'input', 'p'].map($);
const most = Number($('.documents').dataset.bytes);
let busy = 0;

const say = (text, bad = false) => { told.textContent = text; told.classList.toggle('bad', bad); };

async function ask(path, options) {
  const answer = await fetch(path, options).catch(() => { throw new Error('The server cannot be reached. Try again in a moment.'); });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  throw new Error((await answer.json().catch(() => ({}))).message ?? `The server answered ${answer.status}.`);
}

const chip = (one) => {
  const item = document.createElement('li'), name = document.createElement('span'), remove = document.createElement('button');
  name.textContent = one.name;
  const read = one.encoding && one.encoding !== 'utf-8' ? one.encoding : '';
  name.title = `${one.name}${read && `, read as ${read}`}: ${one.characters.toLocaleString('en')} characters in ${one.passages.toLocaleString('en')} passages`;
  Object.assign(remove, { type: 'button', textContent: '×', title: `Remove ${one.name}`, ariaLabel: `Remove ${one.name}` });
  remove.addEventListener('click', () => act(() => ask(`documents/${one.id}`, { method: 'DELETE' }), () => `${one.name} is removed.`));
  item.append(name);
  if (read) item.append(Object.assign(document.createElement('small'), { textContent: read }));
  item.append(remove);
  return item;
};

async function show() {
  list.replaceChildren(...(await ask('documents')).map(chip));
}

// One at a time, in the order in which they were asked for.
// What went wrong is still told when the last of them is done.
let queue = Promise.resolve(), wrong = [];
function act(work, done) {
  if (!busy) wrong = [];
  busy += 1;
  button.disabled = true;
  queue = queue.then(work).then(done, (error) => { wrong.push(error.message); })
    .then((good) => say([...wrong, good ?? ''].join(' ').trim(), wrong.length > 0)).then(() => show().catch(() => {})).finally(() => {
    busy -= 1;
    button.disabled = busy > 0;
  });
}

window.glassboxDocuments = (files) => {
  for (const file of files) {
    act(() => {
      // the server would end the connection amid the upload, and the browser would only say "Failed to fetch"
      if (file.size > most) throw new Error(`'${file.name}' is too large: at most ${most / 1e6} MB.`);
      say(`Reading ${file.name} …`);
      return ask(`documents?${new URLSearchParams({ name: file.name })}`, { method: 'POST', body: file, headers: { 'Content-Type': 'application/octet-stream' } });
    }, ({ encoding }) => `${file.name} can be searched${encoding && encoding !== 'utf-8' ? ` (read as ${encoding})` : ''}: type /search and some of its words.`);
  }
};

button.addEventListener('click', () => input.click());
input.addEventListener('change', () => { window.glassboxDocuments([...input.files]); input.value = ''; });
show().catch(() => { element.hidden = true; }); // there may be no search here
