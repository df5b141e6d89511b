// Runs before all other scripts of the page, in a function of its own. Gradio's configuration has only the visitor's part.
// Relative URLs on the page need its own URL to end with a slash.
if (!location.pathname.endsWith('/')) {
  location.replace(`${location.pathname}/${location.search}${location.hash}`);
  return;
}
// Behind a reverse proxy, only the browser knows the public URL for sure.
window.gradio_config.root = `${location.origin}${location.pathname.slice(0, -1)}`;

// A page of another site that frames this one learns that it was not refused: see web/embed.js.
if (parent !== window && new URLSearchParams(location.search).get('embed') === '1') parent.postMessage({ glassbox: 'ready' }, '*');

// Gradio shows the `detail` of a refusal, and "An error occurred." without one. Our refusals have a `message`.
const request = window.fetch;
window.fetch = async (...what) => {
  const response = await request(...what);
  if (response.ok || !/\/gradio_api\/|\/login\/?$/.test(new URL(response.url || location.href).pathname)) return response;
  const body = await response.clone().json().catch(() => null);
  if (typeof body?.message !== 'string' || body.detail) return response;
  const { status, statusText, headers } = response;
  return new Response(JSON.stringify({ ...body, detail: body.message }), { status, statusText, headers });
};
