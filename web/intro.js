// The intro of an empty conversation: the chosen backend's own words, and its example prompts.
const { make, on } = window.glassbox;
const entry = element.querySelector('.entry'), demos = element.querySelector('.demos');

function draw() {
  const one = window.glassbox.backend, prompts = Object.entries(one?.prompts ?? {});
  entry.replaceChildren(...one?.about ? [make('b', {}, one.name), ` · ${one.about}`] : []);
  demos.hidden = !prompts.length;
  if (demos.dataset.of === (one?.name ?? '')) return;
  demos.dataset.of = one?.name ?? '';
  demos.replaceChildren(demos.querySelector('p'), ...prompts.map(([prompt, title]) => {
    const button = make('button', { type: 'button', title }, prompt);
    button.dataset.prompt = prompt;
    return button;
  }));
}
on('backend', draw, element);
draw();
