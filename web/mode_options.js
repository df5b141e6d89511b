// The options of the chosen memory mode, where it is one of the operator's. The value is {MODE: {OPTION: VALUE}}.
const { makeFields, on, write } = window.glassbox;
const box = element.querySelector('.mode-options'), fields = box.querySelector('.fields');
let mode = null, read = () => ({}), drawn = '';

const keyOf = () => JSON.stringify([mode, props.value?.[mode] ?? {}]);

function draw() {
  mode = window.glassbox.chosen?.memory ?? null;
  if (drawn === keyOf()) return;
  drawn = keyOf();
  const form = props.modes[mode] ?? [], defaults = Object.fromEntries(form.map((field) => [field.name, field.default]));
  const made = makeFields(form, { ...defaults, ...props.value?.[mode] });
  read = made.read;
  fields.replaceChildren(...made.nodes);
  box.hidden = !form.length;
  write(box.querySelector('.label'), `Memory: ${mode}`);
}

// A changed field keeps the focus: its own value is not drawn again.
fields.addEventListener('input', () => {
  props.value = { ...props.value, [mode]: read() };
  drawn = keyOf();
});
// The values that a page sends with a memory mode; undefined for a mode without options.
window.glassbox.modeOptions = (name) => props.modes[name] && (props.value?.[name] ?? {});
on('choice', ({ menu }) => { if (menu === 'memory') draw(); }, element);
watch('value', draw);
draw();
