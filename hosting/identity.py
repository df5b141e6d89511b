"""Who is asking: a signed HttpOnly cookie that owns conversations and runs. A visitor is a random id, nothing more.

`GET /` and `/example` set it; API routes never do. Gradio's `session_hash` is chosen by the client and owns nothing.
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

from hosting.guard import route_path
from runs.requester import Requester


class Connection(Protocol):
    """A request or a WebSocket, of Starlette or of Gradio."""

    @property
    def cookies(self) -> Any: ...

    @property
    def client(self) -> Any: ...


COOKIE = "glassbox_visitor"
_PAGES = {"/", "/example"}
_YEAR_S = 365 * 24 * 3600


def load_secret(given: str | None, folder: Path) -> str:
    """The signing secret: as given, else kept in the data folder; a new one for each start where that cannot be."""
    if given:
        return given
    file, made = folder / "secret", secrets.token_urlsafe(32)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists() or not file.stat().st_size:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as new:
                new.write(made)
        return file.read_text().strip() or made
    except OSError:
        return made


class Identity:
    """Makes and reads visitors' cookies. On a Space the page is an iframe on another site, hence `cross_site`."""

    def __init__(self, secret: str, *, cross_site: bool = False) -> None:
        self._secret = secret
        self._signer = Signer(secret, salt="glassbox.visitor")
        self._site = "SameSite=None; Secure; Partitioned" if cross_site else "SameSite=Lax"

    def visitor(self, cookies: Mapping[str, str]) -> str | None:
        """The visitor's id, or None without a cookie of ours."""
        try:
            return self._signer.unsign(cookies.get(COOKIE, "")).decode()
        except BadSignature:
            return None

    def requester(self, connection: Connection) -> Requester:
        """Who asks, and from where: a proxy's word for it counts as far as the settings trust the proxy."""
        client = connection.client
        return Requester(self.visitor(connection.cookies or {}), client.host if client else None)

    def derive(self, purpose: str, *parts: str | None) -> str:
        """An id of 128 bits that is always the same for the same parts, and unguessable to those who know them."""
        digest = hmac.digest(self._secret.encode(), json.dumps([purpose, *parts]).encode(), hashlib.sha256)
        return urlsafe_b64encode(digest[:16]).decode().rstrip("=")

    def new_cookie(self, *, secure: bool = False, path: str = "/") -> str:
        """The Set-Cookie value for a new visitor; `secure` if they came over https. It is sent back below `path`."""
        value, site = self._signer.sign(secrets.token_urlsafe(16)).decode(), self._site
        if secure and "Secure" not in site:
            site += "; Secure"
        return f"{COOKIE}={value}; Path={path}; HttpOnly; Max-Age={_YEAR_S}; {site}"


class VisitorMiddleware:
    """Gives a page's visitor a cookie if they have none."""

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        self.app, self.identity = app, identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = scope["type"] == "http" and scope["method"] == "GET" and route_path(scope) in _PAGES
        if not page or self.identity.visitor(HTTPConnection(scope).cookies):
            await self.app(scope, receive, send)
            return

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                secure, path = scope.get("scheme") == "https", scope.get("root_path") or "/"
                MutableHeaders(scope=message).append("set-cookie", self.identity.new_cookie(secure=secure, path=path))
            await send(message)

        await self.app(scope, receive, send_with_cookie)
