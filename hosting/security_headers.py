"""Response headers that tell a browser what our pages may do, and the nonces of their scripts.

A reply may contain anything. So no script runs but the page's own, and no image, font or connection goes to another
site: nothing that a model or a tool wrote can carry text away.
"""

import secrets
from collections.abc import Callable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hosting.embed import is_embedded

_HUGGING_FACE = "https://huggingface.co https://*.huggingface.co https://*.hf.space"
_POLICY = (
    "default-src 'self'; script-src 'nonce-{nonce}' 'strict-dynamic' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'{frames}"
)
"""'unsafe-eval': Gradio makes functions from the scripts of its HTML components. Its styles are inline."""
_NEEDS_NONCE = b"<script", b'<link rel="modulepreload"'
PageRewriter = Callable[[bytes], bytes]
"""Changes the HTML of a page."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class SecurityHeadersMiddleware:
    """ASGI middleware that adds the headers to every response, and a nonce to the scripts of a page.

    With `on_space` Hugging Face's pages may frame ours. Pages of `embed_origins` may frame the slim page alone.
    `rewrite` changes pages first.
    """

    def __init__(
        self,
        app: ASGIApp,
        on_space: bool = False,
        origins: Sequence[str] = (),
        rewrite: PageRewriter = lambda page: page,
        embed_origins: Sequence[str] = (),
    ) -> None:
        self.app, self._frames = app, [_HUGGING_FACE] if on_space else []
        self._embed_origins = list(embed_origins)
        self._rewrite = rewrite
        self._headers = dict(_HEADERS)
        if not on_space:
            self._headers["X-Frame-Options"] = "SAMEORIGIN"
        if not origins:
            self._headers["Cross-Origin-Resource-Policy"] = "same-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        page: Message | None = None
        body, nonce = b"", secrets.token_urlsafe(16)
        origins = self._embed_origins if is_embedded(scope) else []
        frames = "".join(f" {origin}" for origin in (*self._frames, *origins))

        async def send_with_headers(message: Message) -> None:
            nonlocal page, body
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    if not (origins and name == "X-Frame-Options"):  # it can name no other site
                        headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Cache-Control", "no-cache")
                    headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce, frames=frames)
                    page = message
                    return
            elif message["type"] == "http.response.body" and page:
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                body = self._rewrite(body)
                for tag in _NEEDS_NONCE:
                    body = body.replace(tag, tag + f' nonce="{nonce}"'.encode())
                if scope["method"] != "HEAD":
                    MutableHeaders(scope=page)["content-length"] = str(len(body))
                await send(page)
                message = {**message, "body": body}
                page = None
            await send(message)

        await self.app(scope, receive, send_with_headers)
