// Runs before any other script of the page.
(() => {
  // Addresses on the page are relative to its own, which ends with a slash.
  if (!location.pathname.endsWith('/')) {
    location.replace(`${location.pathname}/${location.search}${location.hash}`);
    return;
  }
  // Behind a reverse proxy the server may not know the address that the browser uses: the page does.
  window.gradio_config.root = `${location.origin}${location.pathname.slice(0, -1)}`;

  // Gradio shows the `detail` of a refusal, and "An error occurred." where there is none; ours have a `message`.
  const ask = window.fetch;
  window.fetch = async (...request) => {
    const answer = await ask(...request);
    if (answer.ok || !/\/gradio_api\/|\/login\/?$/.test(new URL(answer.url || location.href).pathname)) return answer;
    const told = await answer.clone().json().catch(() => null);
    if (typeof told?.message !== 'string' || told.detail) return answer;
    const { status, statusText, headers } = answer;
    return new Response(JSON.stringify({ ...told, detail: told.message }), { status, statusText, headers });
  };
})();
