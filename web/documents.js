// The documents that the tool `search` reads: they are uploaded, listed and removed.
const { make, number, on, request } = window.glassbox;
const $ = (selector) => element.querySelector(selector);
const [list, button, input, status] = ['ul', '.documents > button', 'input', 'p'].map($);
const most = Number($('.documents').dataset.bytes);
let pending = 0;

const tell = (text, bad = false) => { status.textContent = text; status.classList.toggle('bad', bad); };

function chip(one) {
  const encoding = one.encoding && one.encoding !== 'utf-8' ? one.encoding : '', label = `Remove ${one.name}`;
  const title = `${one.name}${encoding && `, read as ${encoding}`}: ${number(one.characters)} characters in ${number(one.passages)} passages`;
  const remove = make('button', { type: 'button', title: label, ariaLabel: label }, '×');
  remove.addEventListener('click', () => queue(() => request(`documents/${one.id}`, { method: 'DELETE' }), () => `${one.name} was removed.`));
  return make('li', {}, make('span', { title }, one.name), ...encoding ? [make('small', {}, encoding)] : [], remove);
}

async function show() {
  list.replaceChildren(...(await request('documents')).map(chip));
}

// Actions run one after the other. Errors are shown until the last one is done.
let last = Promise.resolve(), errors = [];
function queue(work, done) {
  if (!pending) errors = [];
  pending += 1;
  button.disabled = true;
  last = last.then(work).then(done, (error) => { errors.push(error.message); })
    .then((message) => tell([...errors, message ?? ''].join(' ').trim(), errors.length > 0)).then(() => show().catch(() => {})).finally(() => {
      pending -= 1;
      button.disabled = pending > 0;
    });
}

function add(files) {
  for (const file of files) {
    queue(() => {
      // the server would close the connection during the upload, and the browser would only say "Failed to fetch"
      if (file.size > most) throw new Error(`'${file.name}' is too large: at most ${most / 1e6} MB.`);
      tell(`Reading ${file.name} …`);
      return request(`documents?${new URLSearchParams({ name: file.name })}`, { method: 'POST', body: file, headers: { 'Content-Type': 'application/octet-stream' } });
    }, ({ encoding }) => `${file.name} can be searched${encoding && encoding !== 'utf-8' ? ` (read as ${encoding})` : ''}: ask about it, or type /search and a few of its words.`);
  }
}
on('documents', add, element);

button.addEventListener('click', () => input.click());
input.addEventListener('change', () => { add([...input.files]); input.value = ''; });
show().catch(() => { element.hidden = true; }); // the tool `search` may be disabled
