// The documents that the tool `search` looks into: sent to the server as they are, listed, removed. Names are text.
const $ = (selector) => element.querySelector(selector);
const [list, button, input, told] = ['ul', '.documents > button', 'input', 'p'].map($);
let busy = 0;

const say = (text, bad = false) => { told.textContent = text; told.classList.toggle('bad', bad); };

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  throw new Error((await answer.json().catch(() => ({}))).message ?? `The server answered ${answer.status}.`);
}

const chip = (one) => {
  const item = document.createElement('li'), name = document.createElement('span'), remove = document.createElement('button');
  name.textContent = one.name;
  name.title = `${one.name}: ${one.characters.toLocaleString('en')} characters in ${one.passages.toLocaleString('en')} passages`;
  Object.assign(remove, { type: 'button', textContent: '×', title: `Remove ${one.name}`, ariaLabel: `Remove ${one.name}` });
  remove.addEventListener('click', () => act(() => ask(`documents/${one.id}`, { method: 'DELETE' }), `${one.name} is removed.`));
  item.append(name, remove);
  return item;
};

async function show() {
  list.replaceChildren(...(await ask('documents')).map(chip));
}

// One at a time, in the order in which they were asked for.
let queue = Promise.resolve();
function act(work, done) {
  busy += 1;
  button.disabled = true;
  queue = queue.then(work).then(() => say(done), (error) => say(error.message, true)).then(() => show().catch(() => {})).finally(() => {
    busy -= 1;
    button.disabled = busy > 0;
  });
}

window.glassboxDocuments = (files) => {
  for (const file of files) {
    act(() => {
      say(`Reading ${file.name} …`);
      return ask(`documents?${new URLSearchParams({ name: file.name })}`, { method: 'POST', body: file, headers: { 'Content-Type': 'application/octet-stream' } });
    }, `${file.name} can be searched: type /search and some of its words.`);
  }
};

button.addEventListener('click', () => input.click());
input.addEventListener('change', () => { window.glassboxDocuments([...input.files]); input.value = ''; });
show().catch(() => { element.hidden = true; }); // there may be no search here
