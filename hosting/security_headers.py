"""Headers that tell a browser what our pages may do, and the nonces of their scripts.

A reply may hold anything: no script runs but those that the page came with, no image or font or connection leaves for
another site, so that nothing that a model or a tool wrote can carry words away.
"""

import re
import secrets
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HUGGING_FACE = "https://huggingface.co https://*.huggingface.co https://*.hf.space"
_POLICY = (
    "default-src 'self'; script-src 'nonce-{nonce}' 'strict-dynamic' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'{frames}"
)
"""'unsafe-eval': Gradio makes functions of the scripts of its HTML components. Its styles stand within the page."""
_GRADIOS = b"<script data-gradio-mode>"
"""The first of Gradio's scripts after the one that holds its configuration."""
_ROOT = re.compile(rb'const root = "[^"\n]*";')
"""Where that script takes the page's address from."""
_MANIFEST = b'href="/manifest.json"', b'href="./manifest.json"'
"""Gradio's only address that ignores a path prefix."""
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class SecurityHeadersMiddleware:
    """Adds them to every answer; a page's scripts get its nonce. On a Space, Hugging Face's pages may frame ours.

    `first` is put before the scripts of Gradio's page that use the address which the server thinks it has.
    """

    def __init__(self, app: ASGIApp, on_space: bool = False, origins: Sequence[str] = (), first: str = "") -> None:
        self.app, self._frames = app, f" {_HUGGING_FACE}" if on_space else ""
        self._first = first.encode()
        self._always = dict(_ALWAYS)
        if not on_space:
            self._always["X-Frame-Options"] = "SAMEORIGIN"
        if not origins:
            self._always["Cross-Origin-Resource-Policy"] = "same-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        page: Message | None = None
        body, nonce = b"", secrets.token_urlsafe(16)

        async def send_safe(message: Message) -> None:
            nonlocal page, body
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._always.items():
                    headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce, frames=self._frames)
                    page = message
                    return
            elif message["type"] == "http.response.body" and page:
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                body = _ROOT.sub(b"const root = window.gradio_config.root;", body)
                body = body.replace(_GRADIOS, self._first + _GRADIOS, 1).replace(*_MANIFEST)
                marked = body.replace(b"<script", f'<script nonce="{nonce}"'.encode())
                if scope["method"] != "HEAD":
                    MutableHeaders(scope=page)["content-length"] = str(len(marked))
                await send(page)
                message = {**message, "body": marked}
                page = None
            await send(message)

        await self.app(scope, receive, send_safe)
