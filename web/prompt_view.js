// The viewer's view *Prompt*: what the model read, after its chat template, token by token; else the request as it was sent.
const { make, marked, number, request, visible, write } = window.glassbox;
const view = element.querySelector('#viewer-prompt'), MOST = 20_000;
const [about, status, flow] = ['.about-prompt', '.notice', '.scroll'].map((s) => view.querySelector(s));
let shown = null, reading = null;

function draw(answer) {
  const body = answer?.body ? JSON.parse(answer.body) : null, tokens = answer?.tokens ?? [];
  shown = tokens.length ? tokens : body;
  const control = tokens.filter((token) => token.control).length, cut = tokens.length > MOST ? `, the first ${number(MOST)} shown` : '';
  write(about, tokens.length ? `${number(tokens.length)} tokens${cut}, ${number(control)} of them control words of the chat template. Each token has a background of its own.` : '');
  write(status, answer?.note ?? '');
  flow.replaceChildren(...body ? [make('pre', {}, marked(JSON.stringify(body, null, 2)))] : tokens.slice(0, MOST).map((token, i) => {
    const text = token.text === null ? token.bytes.map((byte) => `⟨${byte.toString(16).padStart(2, '0')}⟩`).join('') : visible(token.text);
    return make('span', { className: token.control ? 'control' : '', title: `Token ${number(i + 1)}, id ${token.id}` }, text);
  }));
  flow.scrollTop = 0;
}

element.prompt = () => shown;
element.readPrompt = async (run, call) => {
  reading?.abort();
  const mine = reading = new AbortController();
  draw(null);
  status.classList.remove('bad');
  try {
    const answer = await request(`runs/${encodeURIComponent(run)}/prompt${call === null ? '' : `?call=${call}`}`, { signal: mine.signal });
    if (mine === reading) draw(answer);
  } catch (error) {
    if (mine !== reading || error.name === 'AbortError') return;
    status.classList.add('bad');
    write(status, error.message);
  }
};
element.querySelector('dialog').addEventListener('close', () => reading?.abort());
