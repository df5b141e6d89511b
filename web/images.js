// The images of the message that is being written: chosen, dropped or pasted, uploaded at once, and sent with it.
const { emit, imageAddress, make, on, request } = window.glassbox;
const [list, status, input] = ['ul', 'p', 'input'].map((selector) => element.querySelector(selector));
const { bytes, count } = element.querySelector('.images').dataset;
let images = []; // { id, name, address }; without an id while it is uploaded

const tell = (text, bad = false) => { status.textContent = text; status.classList.toggle('bad', bad); };

// Why the chosen model cannot be given images; null if it can, or may.
function refusal() {
  const { name, images: takes, takers = [] } = window.glassbox.backend ?? {};
  if (takes !== false) return null;
  return `${name} takes no images. ${takers.length ? `Choose ${takers.join(' or ')} to send one.` : 'No model here does.'}`;
}

// Why the message cannot be sent yet. web/prompt.js asks for it.
window.glassbox.imageProblem = () => {
  if (!images.length || !element.isConnected) return null;
  return refusal() ?? (images.some((one) => !one.id) ? 'Adding …' : null);
};

function item(one) {
  const label = `Remove ${one.name}`, remove = make('button', { type: 'button', title: label, ariaLabel: label }, '×');
  remove.addEventListener('click', () => {
    drop(one);
    if (one.id) request(`images/${one.id}`, { method: 'DELETE' }).catch(() => {}); // a message may have it already
    tell(`${one.name} was removed.`);
    emit('focus');
  });
  return make('li', { className: one.id ? '' : 'pending' }, make('img', { src: one.address, alt: one.name }), remove);
}

function draw() {
  list.replaceChildren(...images.map(item));
  props.value = images.map((one) => one.id).filter(Boolean);
}

function drop(one) {
  images = images.filter((other) => other !== one);
  if (one.address.startsWith('blob:')) URL.revokeObjectURL(one.address);
  draw();
}

let last = Promise.resolve();
function add(files) {
  const errors = [], why = refusal();
  tell('');
  for (const file of files) {
    const cannot = (reason) => errors.push(`'${file.name}' cannot be added: ${reason}`);
    if (why) cannot(why);
    else if (file.size > bytes) cannot(`it is too large, at most ${bytes / 1e6} MB are allowed.`);
    else if (images.length >= count) cannot(`a message can have at most ${count} images.`);
    else {
      const one = { id: null, name: file.name || 'image', address: URL.createObjectURL(file) };
      images.push(one);
      last = last.then(() => upload(one, file));
    }
  }
  draw();
  if (errors.length) tell([...new Set(errors)].join(' '), true);
}

async function upload(one, file) {
  if (!images.includes(one)) return;
  try {
    const { id } = await request(`images?${new URLSearchParams({ name: one.name })}`, { method: 'POST', body: file, headers: { 'Content-Type': 'application/octet-stream' } });
    one.id = id;
    if (images.includes(one)) draw();
    else request(`images/${id}`, { method: 'DELETE' }).catch(() => {});
  } catch (error) {
    drop(one);
    tell(error.message, true);
  }
}
on('images', add, element);

// `images` of an answer: the ids that were sent, or with `back` the images of the message that is edited again.
on('draft', ({ accepted, back, images: found = [] }) => {
  if (back != null) images.push(...found.map(({ id }, i) => ({ id, name: `image ${i + 1}`, address: imageAddress(id) })));
  if (accepted != null) {
    for (const one of images) if (found.includes(one.id) && one.address.startsWith('blob:')) URL.revokeObjectURL(one.address);
    images = images.filter((one) => !found.includes(one.id));
    tell('');
  }
  draw();
}, element);

// The button is there if any model can be given images.
function showButton() {
  const { takers = [] } = window.glassbox.backend ?? {};
  document.body.classList.toggle('takes-images', takers.length > 0);
  const why = images.length ? refusal() : null;
  if (why) tell(why, true);
  else if (status.textContent.includes('takes no images')) tell('');
}
on('backend', showButton, element);
showButton();

document.addEventListener('click', (event) => {
  if (!element.isConnected || !event.target.closest('#add-image button')) return;
  const why = refusal();
  if (why) tell(why, true);
  else input.click();
});
input.addEventListener('change', () => { add([...input.files]); input.value = ''; emit('focus'); });
