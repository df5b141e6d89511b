// Puts a button and a panel with the chat into a page of another site: <script src="https://…/embed.js" async></script>.
// Attributes of the tag, all optional:
//   data-title     the button's text, and the panel's name; by default the page's title
//   data-accent    the colour of the button and the panel's head, as #rrggbb
//   data-theme     light or dark; by default what the visitor's system prefers
//   data-backend, data-memory    the names that are chosen in the chat
//   data-q         a message that is filled in; it is never sent by itself
// The script defines no global name. Its elements are in a shadow root, its styles are no inline styles: the page's policy
// needs only script-src and frame-src with the address of the server.
(() => {
  const OWN = {}; // the settings of the server
  const tag = document.currentScript, MARK = 'data-glassbox-embed', READY_MS = 3000, NARROW = '(max-width: 480px)';
  if (!tag) return console.error('embed.js: load it with a script tag that is no module.');
  if (document.querySelector(`[${MARK}]`)) return; // a page that loads the script twice

  const { title = OWN.title, accent, theme, backend, memory, q } = tag.dataset, base = new URL('./', tag.src);
  const COLOUR = /^#[0-9a-f]{6}$/i, own = accent && COLOUR.test(accent);
  if (accent && !own) console.warn(`embed.js: data-accent is ${accent}; write a colour as #0f766e.`);
  if (theme && !['light', 'dark'].includes(theme)) console.warn(`embed.js: data-theme is ${theme}; write light or dark.`);

  const CSS = `
    :host { all: initial !important; position: fixed !important; inset: auto 0 0 auto !important; z-index: 2147483000 !important; display: block !important; }
    * { box-sizing: border-box; }
    .all { --accent: ${OWN.light ?? '#0f766e'}; --on: #ffffff; --page: #ffffff; --text: #27272a; --line: #d9d9de; font: 15px/1.4 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; color-scheme: light; }
    .all.dark { --accent: ${OWN.dark ?? '#14b8a6'}; --on: #0f0f11; --page: #18181b; --text: #f4f4f5; --line: #3f3f46; color-scheme: dark; }
    button { all: unset; box-sizing: border-box; cursor: pointer; }
    button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
    .open { position: fixed; right: max(16px, env(safe-area-inset-right)); bottom: max(16px, env(safe-area-inset-bottom)); display: flex; align-items: center; gap: 9px; max-width: calc(100vw - 32px); min-height: 48px; padding: 10px 20px 10px 16px; border-radius: 999px; background: var(--accent); color: var(--on); font-weight: 600; box-shadow: 0 4px 18px rgb(0 0 0 / .25); }
    .open span { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .open svg { flex: none; }
    dialog { position: fixed; inset: auto max(16px, env(safe-area-inset-right)) 80px auto; display: flex; flex-direction: column; width: min(400px, calc(100vw - 32px)); height: min(640px, calc(100vh - 96px)); max-width: none; max-height: none; margin: 0; padding: 0; border: 1px solid var(--line); border-radius: 14px; overflow: hidden; background: var(--page); color: var(--text); box-shadow: 0 12px 48px rgb(0 0 0 / .28); }
    dialog:not([open]) { display: none; }
    header { flex: none; display: flex; align-items: center; gap: 8px; min-height: 48px; padding: 0 6px 0 16px; background: var(--accent); color: var(--on); }
    h2 { flex: 1 1 0; min-width: 0; margin: 0; font-size: 15px; font-weight: 650; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .close { display: grid; place-items: center; width: 44px; height: 44px; border-radius: 8px; }
    .close:focus-visible { outline-color: var(--on); outline-offset: -4px; }
    p { flex: none; margin: 0; padding: 10px 16px; border-bottom: 1px solid var(--line); font-size: 13px; overflow-wrap: anywhere; }
    p:empty { display: none; }
    iframe { flex: 1 1 0; min-height: 0; width: 100%; border: 0; background: var(--page); }
    @media ${NARROW} { dialog, dialog:modal { inset: 0; width: 100vw; height: 100dvh; border: 0; border-radius: 0; } }
    @media print { .all { display: none; } }
  `;

  // Elements are made one by one, since a page's policy may refuse markup in strings (Trusted Types).
  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  function icon(path) {
    const [svg, line] = ['svg', 'path'].map((name) => document.createElementNS('http://www.w3.org/2000/svg', name));
    const look = { viewBox: '0 0 20 20', width: 20, height: 20, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.8, 'stroke-linecap': 'round', 'stroke-linejoin': 'round', 'aria-hidden': true };
    for (const [key, value] of Object.entries(look)) svg.setAttribute(key, value);
    line.setAttribute('d', path);
    svg.append(line);
    return svg;
  }

  const address = new URL('?embed=1', base);
  for (const [name, value] of Object.entries({ q, backend, memory, __theme: theme })) if (value) address.searchParams.set(name, value);

  const opener = make('button', { type: 'button', class: 'open', 'aria-haspopup': 'dialog', 'aria-expanded': 'false' }, icon('M3 4.5h14v9.5H9l-4 3v-3H3z'), make('span', {}, title));
  const closer = make('button', { type: 'button', class: 'close', 'aria-label': 'Close' }, icon('M5 5l10 10M15 5L5 15'));
  const note = make('p', { role: 'alert' }), frame = make('iframe', { title, allow: 'clipboard-write' });
  const panel = make('dialog', { 'aria-label': title }, make('header', {}, make('h2', {}, title), closer), note);
  const all = make('div', { class: 'all' }, opener, panel), host = make('div', { [MARK]: '' });

  const prefers = matchMedia('(prefers-color-scheme: dark)');
  const paint = () => all.classList.toggle('dark', theme ? theme === 'dark' : prefers.matches);
  prefers.addEventListener('change', paint);
  paint();
  if (own) { // black or white, whichever can be read on the colour
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(accent.slice(at, at + 2), 16) / 255).map((part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    all.style.setProperty('--accent', accent);
    all.style.setProperty('--on', .2126 * r + .7152 * g + .0722 * b > .179 ? '#000000' : '#ffffff');
  }

  let ready = false;
  function complain() {
    if (!ready) note.textContent = `The chat did not load. Is its server up, and is ${location.origin} one of its embed_origins?`;
  }
  function open() {
    if (!frame.isConnected) { // the chat is loaded when it is first wanted
      frame.src = address;
      panel.append(frame);
      frame.addEventListener('load', () => {
        setTimeout(complain, READY_MS);
        if (panel.open) frame.focus();
      }, { once: true });
    }
    if (matchMedia(NARROW).matches) panel.showModal(); else panel.show();
    opener.setAttribute('aria-expanded', 'true');
    frame.focus();
  }
  panel.addEventListener('close', () => { // by the button, by Escape, or by the chat
    opener.setAttribute('aria-expanded', 'false');
    opener.focus();
  });
  opener.addEventListener('click', () => { if (panel.open) panel.close(); else open(); });
  closer.addEventListener('click', () => panel.close());
  all.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !panel.open) return;
    event.preventDefault();
    event.stopPropagation();
    panel.close();
  });

  // The chat says when it is there, and when Escape closes nothing within it.
  addEventListener('message', ({ source, origin, data }) => {
    if (source !== frame.contentWindow || origin !== base.origin) return;
    if (data?.glassbox === 'ready') {
      ready = true;
      note.textContent = '';
    } else if (data?.glassbox === 'close' && panel.open) panel.close();
  });

  const sheet = new CSSStyleSheet(), root = host.attachShadow({ mode: 'open' });
  sheet.replaceSync(CSS);
  root.adoptedStyleSheets = [sheet];
  root.append(all);
  const place = () => document.body.append(host);
  if (document.body) place(); else addEventListener('DOMContentLoaded', place, { once: true });
})();
