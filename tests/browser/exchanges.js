// Notes what a page and Gradio's queue exchange, the page's errors, and when its scripts or its frames stood still, for the
// report of a test that fails.
(() => {
  const MOST = 60, STILL_MS = 3000, noted = window.exchanged = [], nativeFetch = window.fetch;
  const note = (...what) => {
    noted.push(`${Math.round(performance.now())} ms ${what.join(' ')}`);
    if (noted.length > MOST) noted.shift();
  };
  const field = (text, name) => new RegExp(`"${name}":\\s*"?(\\w+)`).exec(text)?.[1] ?? '';

  async function read(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    try {
      for (let part; !(part = await reader.read()).done;) {
        const blocks = (rest + part.value).split('\n\n');
        rest = blocks.pop();
        for (const one of blocks) note('message', field(one, 'msg'), field(one, 'event_id').slice(0, 6), one.length);
      }
      note('end of the stream');
    } catch (error) { note('broken stream', error); }
  }

  window.fetch = async (...what) => {
    const [, queue] = /queue\/(join|data)/.exec(what[0]?.url ?? what[0]) ?? [];
    if (!queue) return nativeFetch(...what);
    note('request', queue, field(String(what[1]?.body ?? ''), 'fn_index'));
    const response = await nativeFetch(...what);
    note('response', queue, response.status);
    if (queue === 'join' || !response.body) return response;
    const [kept, copy] = response.body.tee();
    read(copy);
    return new Response(kept, { status: response.status, headers: response.headers });
  };
  addEventListener('error', ({ message }) => note('error', message));
  addEventListener('unhandledrejection', ({ reason }) => note('rejection', reason?.stack ?? reason));
  for (const kind of ['error', 'warn']) {
    const log = console[kind];
    console[kind] = (...what) => { note(kind, ...what.map((one) => String(one?.stack ?? one).slice(0, 300))); log(...what); };
  }

  let looked = performance.now(), framed = looked;
  const still = (what, since) => {
    const ms = performance.now() - since;
    if (ms > STILL_MS) note(what, 'stood still for', Math.round(ms), 'ms');
  };
  setInterval(() => {
    still('scripts', looked);
    looked = performance.now();
    if (!framed) return;
    framed = 0;
    const asked = looked;
    requestAnimationFrame(() => { still('frames', asked); framed = performance.now(); });
  }, 1000);
  note('loaded by', performance.getEntriesByType('navigation')[0]?.type, location.search);
})();
