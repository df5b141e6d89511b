"""Visitors and their cookies. A visitor is a random id in a signed HttpOnly cookie, which owns conversations and runs.

`GET /`, `/compare` and `/example` set the cookie; API routes never do.
"""

import hashlib
import hmac
import json
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from itsdangerous import BadSignature, Signer
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hosting.embed import may_be_framed
from hosting.guard import route_path
from runs.requester import Requester


class Connection(Protocol):
    """A request or a WebSocket, of Starlette or of Gradio."""

    @property
    def cookies(self) -> Any:
        """The cookies by name."""

    @property
    def client(self) -> Any:
        """The address of the client, if it is known."""


COOKIE = "glassbox_visitor"
_PAGES = {"/", "/compare", "/example"}
"""Pages that set the cookie."""
_YEAR_S = 365 * 24 * 3600
_CROSS_SITE = "SameSite=None; Secure; Partitioned"
"""Attributes of a cookie that a browser sends from a frame in a page of another site, and only from there."""


def load_secret(secret: str | None, folder: Path) -> str:
    """The secret that signs cookies: the given one, else one that is kept in the data folder.

    If it cannot be kept, each start has a new one.
    """
    if secret:
        return secret
    file, new_secret = folder / "secret", secrets.token_urlsafe(32)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists() or not file.stat().st_size:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as new:
                new.write(new_secret)
        return file.read_text().strip() or new_secret
    except OSError:
        return new_secret


class Identity:
    """Makes and reads visitors' cookies. `cross_site` is for a Space, whose page is an iframe on another site."""

    def __init__(self, secret: str, *, cross_site: bool = False) -> None:
        self._secret, self.cross_site = secret, cross_site
        self._signer = Signer(secret, salt="glassbox.visitor")
        self._site = _CROSS_SITE if cross_site else "SameSite=Lax"

    def visitor(self, cookies: Mapping[str, str]) -> str | None:
        """The visitor's id, or None without a valid cookie."""
        try:
            return self._signer.unsign(cookies.get(COOKIE, "")).decode()
        except BadSignature:
            return None

    def requester(self, connection: Connection) -> Requester:
        """The visitor and the address of a connection, as `ForwardedMiddleware` has set it."""
        client = connection.client
        return Requester(self.visitor(connection.cookies or {}), client.host if client else None)

    def derive(self, purpose: str, *parts: str | None) -> str:
        """Derives an id of 128 bits: always the same for the same parts, and unguessable to those who know them."""
        digest = hmac.digest(self._secret.encode(), json.dumps([purpose, *parts]).encode(), hashlib.sha256)
        return urlsafe_b64encode(digest[:16]).decode().rstrip("=")

    def new_cookie(self, *, secure: bool = False, path: str = "/", framed: bool = False) -> str:
        """The `Set-Cookie` value for a new visitor. `secure` is for https; the cookie is sent back below `path`.

        `framed` is for a page in a frame on another site, over https.
        """
        value, site = self._signer.sign(secrets.token_urlsafe(16)).decode(), _CROSS_SITE if framed else self._site
        if secure and "Secure" not in site:
            site += "; Secure"
        return f"{COOKIE}={value}; Path={path}; HttpOnly; Max-Age={_YEAR_S}; {site}"


class VisitorMiddleware:
    """ASGI middleware that sets a cookie on a page whose visitor has none.

    With `embeds` pages of other sites may frame the slim page. Its cookie is for that, and over http it has none.
    """

    def __init__(self, app: ASGIApp, identity: Identity, *, embeds: bool = False) -> None:
        self.app, self.identity, self._embeds = app, identity, embeds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = scope["type"] == "http" and scope["method"] == "GET" and route_path(scope) in _PAGES
        framed, secure = self._embeds and may_be_framed(scope), scope.get("scheme") == "https"
        without = framed and not (secure or self.identity.cross_site)
        if not page or without or self.identity.visitor(HTTPConnection(scope).cookies):
            await self.app(scope, receive, send)
            return

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope.get("root_path") or "/"
                cookie = self.identity.new_cookie(secure=secure, path=path, framed=framed)
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        await self.app(scope, receive, send_with_cookie)
