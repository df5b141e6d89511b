// Gradio's server ends its stream of messages when no event of the page is left, and its client opens another one for the
// next event, unless the old one still seems to be open. An event that is sent in that very moment would get no messages:
// the page would stand still. So the stream continues, with another response, while events are open. Runs after early.js.
const fetchNext = window.fetch, joins = new Set(), openEvents = new Set(), doneEvents = new Set();
const MOST_DONE = 1000; // ids of events that ended before their ids were known

async function join(...what) {
  const response = await fetchNext(...what), text = await response.text();
  try {
    const id = response.ok && JSON.parse(text).event_id;
    if (id && !doneEvents.delete(id)) openEvents.add(id);
  } catch { /* the client reports it */ }
  const { status, statusText, headers } = response;
  return new Response(text, { status, statusText, headers });
}

// Notes the end of an event. Returns whether the message closes the stream.
function closes(block) {
  if (!/"(process_completed|close_stream)"/.test(block)) return false;
  const message = (() => { try { return JSON.parse(block.slice(block.indexOf('{'))); } catch { return {}; } })();
  if (message.msg === 'process_completed' && !openEvents.delete(message.event_id)) {
    if (doneEvents.size >= MOST_DONE) doneEvents.clear();
    doneEvents.add(message.event_id);
  }
  return message.msg === 'close_stream';
}

// Passes a response's messages on. Returns the message that closes the stream, if it was closed so.
async function pass(response, send) {
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let rest = '', last = null;
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
    for (let end; (end = rest.indexOf('\n\n')) >= 0; rest = rest.slice(end + 2)) {
      const block = rest.slice(0, end + 2);
      if (closes(block)) last = block; else send(block);
    }
    if (done) break;
  }
  if (rest) send(rest);
  return last;
}

async function follow(...what) {
  const asked = new Request(...what), first = await fetchNext(asked.clone());
  if (!first.ok || !first.body) return first;
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    async start(controller) {
      const send = (text) => controller.enqueue(encoder.encode(text));
      try {
        for (let response = first; ;) {
          const last = await pass(response, send);
          while (last && joins.size) await Promise.allSettled([...joins]);
          const next = last && openEvents.size ? await fetchNext(asked.clone()) : null;
          if (next?.ok && next.body) { response = next; continue; }
          if (last) send(last);
          return controller.close();
        }
      } catch (error) {
        controller.error(error);
      } finally {
        openEvents.clear(); // what is left of them fails, as Gradio's client says
      }
    },
  });
  return new Response(body, { status: first.status, headers: first.headers });
}

window.fetch = (...what) => {
  const address = what[0] instanceof Request ? what[0].url : String(what[0]), { pathname } = new URL(address, location.href);
  if (pathname.endsWith('/gradio_api/queue/data')) return follow(...what);
  if (!pathname.endsWith('/gradio_api/queue/join')) return fetchNext(...what);
  const joining = join(...what);
  joins.add(joining);
  joining.catch(() => {}).finally(() => joins.delete(joining));
  return joining;
};
