// Forms: one field for each value, checked by the browser. The questions of tool servers and their prompts use them.
const { make } = window.glassbox;
let made = 0;
const TYPES = { number: 'number', integer: 'number', boolean: 'checkbox' }, FORMATS = { email: 'email', uri: 'url', date: 'date', 'date-time': 'datetime-local' };

function makeInput(field, value) {
  if (field.type === 'choice') {
    const options = field.options.map((one) => make('option', { value: one.value, selected: one.value === value }, one.title));
    return make('select', { required: field.required }, ...(field.required && value != null ? [] : [make('option', { value: '', selected: value == null }, 'Choose …')]), ...options);
  }
  if (field.type === 'choices') {
    const rows = field.options.map((one) => make('label', {}, make('input', { type: 'checkbox', value: one.value, checked: value?.includes(one.value) ?? false }), make('span', {}, one.title)));
    return make('fieldset', {}, make('legend', {}, field.title), ...rows);
  }
  const input = make('input', { type: TYPES[field.type] ?? FORMATS[field.format] ?? 'text' });
  if (field.type === 'boolean') return Object.assign(input, { checked: value === true });
  Object.assign(input, { required: field.required, value: value ?? '' });
  if (input.type === 'number') Object.assign(input, { step: field.type === 'integer' ? 1 : 'any', min: field.min ?? '', max: field.max ?? '' });
  if (field.longest >= 0) input.maxLength = field.longest;
  if (field.shortest >= 0) input.minLength = field.shortest;
  return input;
}

function valueOf(field, input) {
  if (field.type === 'choices') return [...input.querySelectorAll('input:checked')].map((one) => one.value);
  if (field.type === 'boolean') return input.checked;
  if (input.value === '') return undefined;
  return input.type === 'number' ? Number(input.value) : input.type === 'datetime-local' ? new Date(input.value).toISOString() : input.value;
}

// Makes the nodes of fields, and `read`, which returns their values.
function makeFields(fields, values) {
  const inputs = fields.map((field) => makeInput(field, values?.[field.name]));
  const nodes = fields.flatMap((field, i) => {
    const about = make('small', { hidden: !field.about }, field.about ?? ''), name = make('span', {}, `${field.title}${field.required || field.type === 'boolean' ? '' : ' (optional)'}`);
    return [field.type === 'choices' ? inputs[i] : make('label', { className: field.type }, name, inputs[i]), about];
  });
  const read = () => Object.fromEntries(fields.map((field, i) => [field.name, valueOf(field, inputs[i])]).filter(([, value]) => value !== undefined));
  return { nodes, read };
}

// Makes a card with a form. `answered` gets the values, or null for the button `no`, and the card.
function makeForm({ title, problem, fields, values, yes, no, answered }) {
  const { nodes, read } = makeFields(fields, values), form = make('form', { className: 'form' }, ...nodes), row = make('div', { className: 'row' });
  const card = make('div', { className: 'card' }, make('b', {}, title), make('p', { className: 'why' }, problem ?? ''), form, row);
  const send = make('button', { className: 'yes' }, yes), decline = make('button', { type: 'button', className: 'no' }, no);
  form.id = `form-${made += 1}`;
  send.setAttribute('form', form.id); // without a button of its own, a form of two fields is not sent by Enter
  form.addEventListener('submit', (event) => { event.preventDefault(); answered(read(), card); });
  decline.addEventListener('click', () => answered(null, card));
  row.append(send, decline);
  return card;
}

Object.assign(window.glassbox, { makeFields, makeForm });
