// Draws the formulas, the code colours and the diagrams of replies with the KaTeX, Prism and Mermaid that Gradio ships;
// ASSETS has their URLs. What cannot be drawn stays as its source.
const loaded = {}, drawn = new Map();
const MOST_KEPT = 400, MOST_CODE = 30_000;
const LANGUAGES = { js: 'javascript', ts: 'javascript', py: 'python', sh: 'bash', shell: 'bash', yml: 'yaml', 'c++': 'cpp', tex: 'latex', html: 'markup', xml: 'markup', svg: 'markup' };

const NEEDS = { php: ['markup-templating'] };

const importAsset = (address) => import(new URL(address, document.baseURI).href);
const load = (name) => loaded[name] ??= importAsset(ASSETS[name]);

function keep(key, value) {
  if (drawn.size >= MOST_KEPT) drawn.delete(drawn.keys().next().value);
  drawn.set(key, value);
}

// KaTeX needs its style sheet first.
let katex = null;
async function loadKatex() {
  if (!document.querySelector('link[data-katex]')) {
    const style = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: ASSETS.style });
    style.dataset.katex = '';
    document.head.append(style);
  }
  katex ??= (await load('katex')).default;
}

function formula(node) {
  const source = node.dataset.source ??= node.textContent, display = node.classList.contains('display');
  if (!katex) { loadKatex().then(() => formula(node), () => {}); return; }
  const key = `${display} ${source}`;
  if (!drawn.has(key)) {
    const box = document.createElement('span'), side = /^\$[^$]/.test(source) ? 1 : 2;
    try {
      katex.render(source.slice(side, -side), box, { displayMode: display, throwOnError: true, strict: 'ignore', maxSize: 30, maxExpand: 1000 });
    } catch (error) {
      box.textContent = source;
      box.title = error.message;
      box.className = 'broken';
    }
    keep(key, box);
  }
  node.replaceChildren(drawn.get(key).cloneNode(true));
}

let prism = null;
async function code(node) {
  node.dataset.drawn = '';
  const name = node.className.match(/language-(\S+)/)?.[1], language = LANGUAGES[name] ?? name, text = node.textContent;
  if (text.length > MOST_CODE) return;
  prism ??= Object.values(await load('prism'))[0]();
  for (const needed of [...NEEDS[language] ?? [], language]) {
    if (!prism.languages[needed] && ASSETS.languages[needed]) await importAsset(ASSETS.languages[needed]);
  }
  if (prism.languages[language] && node.textContent === text) node.innerHTML = prism.highlight(text, prism.languages[language], language);
}

let diagrams = 0;
async function diagram(figure) {
  figure.dataset.drawn = '';
  const details = figure.querySelector('details'), source = figure.querySelector('pre').textContent;
  const theme = document.body.classList.contains('dark') ? 'dark' : 'default', key = `${theme} ${source}`;
  figure.dataset.source = `\`\`\`mermaid\n${source}\`\`\``;
  if (!drawn.has(key)) {
    let svg = '', wrong = '';
    try {
      const { default: mermaid } = await load('mermaid');
      mermaid.initialize({ startOnLoad: false, theme, securityLevel: 'strict', suppressErrorRendering: true });
      ({ svg } = await mermaid.render(`diagram-${++diagrams}`, source));
    } catch (error) {
      wrong = `Could not draw this diagram. ${error?.message ?? error}`;
    }
    keep(key, { svg, wrong });
  }
  const { svg, wrong } = drawn.get(key), box = document.createElement(wrong ? 'p' : 'div');
  box.className = wrong ? 'wrong' : 'drawing';
  if (wrong) box.textContent = wrong; else box.innerHTML = svg;
  figure.querySelector('.drawing, .wrong')?.remove();
  figure.prepend(box);
  details.open = Boolean(wrong);
}

// A diagram contains its colours, so it is drawn again for another theme.
let dark = document.body.classList.contains('dark');
new MutationObserver(() => {
  if (dark === (dark = document.body.classList.contains('dark'))) return;
  for (const figure of document.querySelectorAll('figure.diagram')) diagram(figure);
}).observe(document.body, { attributes: true, attributeFilter: ['class'] });

// What may scroll sideways can be reached with the keyboard.
const scrolling = (node) => { node.tabIndex = 0; };

const EACH = [[':is(.code > pre, .wide):not([tabindex])', scrolling], ['.math:not([data-source])', formula], ['.code code[class*=language-]:not([data-drawn])', code], ['figure.diagram:not([data-drawn])', diagram]];
const typeset = (root) => { for (const [selector, draw] of EACH) for (const node of root.querySelectorAll(selector)) draw(node); };

new MutationObserver((changes) => {
  for (const { addedNodes } of changes) {
    for (const node of addedNodes) if (node.nodeType === 1 && node.isConnected && node.closest('#scroll')) typeset(node.parentNode);
  }
}).observe(document.documentElement, { childList: true, subtree: true });
