// Readers of a run's record, for the panel's tabs. A reader asks for new events only while its tab can be seen.
const { on } = window.glassbox;
const EVERY_MS = 500, AGAIN_MS = 2000;

// `root` is the tab; where it is hidden, `wanted()` may still ask for the events. `reset(run)` is called for another run, `take(events)` with new ones, `fail(text)` with a problem or ''.
function recordReader({ root, wanted = () => false, reset, take, fail }) {
  let run, live = false, whole = false, reading = null, again = 0, count = 0;

  async function read() {
    if (!run || whole || reading || document.hidden || performance.now() < again) return;
    if ((root.hidden || !root.offsetParent) && !wanted()) return; // on a phone, the panel may be closed, too
    const mine = reading = new AbortController();
    try {
      const address = new URL(`runs/${encodeURIComponent(run)}?after=${count}`, document.baseURI);
      const response = await fetch(address, { signal: mine.signal }), lines = (await response.text()).split('\n');
      if (!response.ok) throw new Error(response.statusText);
      const fresh = lines.filter(Boolean).map((line) => JSON.parse(line));
      if (mine !== reading) return; // the panel shows another run
      whole = response.headers.get('X-Run-Live') !== '1';
      count += fresh.length;
      fail('');
      take(fresh);
    } catch {
      if (mine !== reading) return;
      again = live ? performance.now() + AGAIN_MS : Infinity;
      fail(live ? 'Could not load the events. Retrying …' : 'Could not load the events. Open this tab again to retry.');
    } finally {
      if (mine === reading) reading = null;
    }
  }

  function update(value) {
    const id = value?.run ?? null, isLive = Boolean(value?.live && !value.replay);
    if (id === run && isLive === live) return;
    [live, again] = [isLive, 0];
    if (id !== run) {
      reading?.abort();
      [run, whole, reading, count] = [id, false, null, 0];
      fail('');
      reset(run);
    }
    read();
  }

  on('shown', update, element);
  on('tab', () => { again = 0; read(); }, element);
  const ticking = setInterval(() => element.isConnected ? read() : clearInterval(ticking), EVERY_MS);
}
window.glassbox.recordReader = recordReader;
