// Helpers that all scripts of the page share, as `window.glassbox`, and the events by which the scripts talk to each other:
//   panel (its new value)   run (one has started or ended)   address (it names another conversation)
//   tokens ({ tokens, pieces }: those of the shown run's reply)   token (the number of the chosen one)
//   shown (the value of the run that the panel shows)   clock (its seconds)   tab (the panel's open tab)
//   mark ({ marks, from: 'bar' or 'chat' }: what the pointer is on)   cancel (a tool call)
//   open (a conversation is opened)   chosen (a visitor chose one)   conversations (their list may have changed)
//   draft (a change of the prompt)   type (a text for the prompt)   focus (the prompt gets it, where there is a keyboard)
//   documents (files to add)   images (files to add to the message)   turns (the messages of the conversation were drawn)
//   context, compare ({ run, message }: opens the viewer)   lost (the connection is silent)
//   choose ({ backend, memory }: names to choose in the menus)
//   choice ({ menu, visitor }: a menu's value in `glassbox.chosen`)   choices (`glassbox.choices` of the menus)
//   escape (the key closed nothing)   inspected (the visitor wants to see a reply's run in the panel)
//   opened (a menu: true, or false once it is closed)   parameters (of the memory mode)
//   backend (the chosen one: `glassbox.backend`)   options (a selector: opens the sheet)

// Makes an element with properties and children; a string becomes text, never markup.
function make(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

// Changes a text only if it differs: a selection in an unchanged text stays.
const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// Fills a list and reuses its elements: nothing blinks, and open ones stay open.
function drawList(parent, items, create, fill, first = 0) {
  items.forEach((item, i) => fill(parent.children[i] ?? parent.appendChild(create()), item, first + i));
  while (parent.children.length > items.length) parent.lastElementChild.remove();
}

// Shows characters that cannot be seen; `visible` shows line ends and tabs, too.
const marked = (text) => text.replace(/[\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]/g, (c) => `⟨${c.codePointAt(0).toString(16)}⟩`);
const visible = (text) => marked(text.replaceAll('\n', '↵\n').replaceAll('\t', '⇥'));

const number = (n) => Number(n).toLocaleString('en');
const promptBox = () => document.querySelector('#prompt textarea');
const conversationId = () => new URL(location.href).searchParams.get('conversation');
// The address of an image of the shown conversation. Without one, a visitor has their own images.
const imageAddress = (id) => `images/${encodeURIComponent(id)}${conversationId() ? `?conversation_id=${encodeURIComponent(conversationId())}` : ''}`;

// Sets the value of a field as a person does, so that Gradio notices.
function type(field, text) {
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(field, text);
  field.dispatchEvent(new Event('input', { bubbles: true }));
}

// Fetches JSON. The error of a refused request has the server's message.
async function request(path, options) {
  const response = await fetch(new URL(path, document.baseURI), options).catch((error) => {
    throw error.name === 'AbortError' ? error : new Error('Could not reach the server. Try again in a moment.');
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  throw new Error((await response.json().catch(() => null))?.message ?? `The server answered with status ${response.status}.`);
}

// Copies a text, also over plain HTTP, where a page has no clipboard. Throws if the browser refuses.
async function copy(text) {
  const refused = () => { throw new Error('The browser refused to copy.'); };
  if (navigator.clipboard) return navigator.clipboard.writeText(text).catch(refused);
  const focused = document.activeElement, box = make('textarea', { value: text });
  (document.querySelector('dialog[open]') ?? document.body).append(box);
  box.select();
  const done = document.execCommand('copy');
  box.remove();
  focused?.focus();
  if (!done) refused();
}

// The question before a conversation is deleted, as elements: the text, `Delete` and `Keep`.
function confirmation(remove, keep) {
  const yes = make('button', { type: 'button', className: 'bad' }, 'Delete'), no = make('button', { type: 'button' }, 'Keep');
  yes.addEventListener('click', remove);
  no.addEventListener('click', keep);
  return [make('span', {}, 'Delete permanently?'), yes, no];
}

const emit = (name, detail) => document.dispatchEvent(new CustomEvent(`glassbox:${name}`, { detail }));

// Listens to an event; with `owner`, an element, only while that is on the page.
function on(name, act, owner) {
  document.addEventListener(`glassbox:${name}`, ({ detail }) => { if (!owner || owner.isConnected) act(detail); });
}

window.glassbox = { make, write, drawList, number, marked, visible, promptBox, conversationId, imageAddress, type, request, copy, confirmation, emit, on };
