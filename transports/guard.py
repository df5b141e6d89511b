"""What stands before every route: foreign browsers' requests are refused (in the handshake of a
WebSocket), bodies are bounded, `--auth` closes our routes.

Gradio's own middleware reflects any origin with credentials and its `auth` does not cover routes that are not its own.
"""

import base64
import binascii
import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runs.errors import STATUS, ChatError

_SAFE = {"GET", "HEAD", "OPTIONS"}
_OPEN = {"/healthz"}
_CLOSED = ("/gradio_api/deep_link", "/gradio_api/upload")
"""Gradio's own routes that are for nobody: the one publishes a visitor's page, the other has no use here yet."""


def problem(error: ChatError, status: int | None = None) -> JSONResponse:
    """An error as an answer: {code, message}."""
    body = {"code": error.code, "message": error.message}
    headers = {"Retry-After": f"{error.retry_after:.0f}"} if error.retry_after else None
    return JSONResponse(body, status or STATUS[error.code], headers)


def foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another site's page makes this request. No `Origin` means no browser."""
    if origin := headers.get("origin"):
        here = {headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")}
        # a sandboxed page's origin is "null", which names no host: never ours
        return urlsplit(origin).netloc not in {host.strip() for host in here} - {""}
    return headers.get("sec-fetch-site", "none") == "cross-site"


def route_path(scope: Scope) -> str:
    """The path as the routes see it: without the prefix of a proxy that serves the app below one."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def first_segment(scope: Scope) -> str:
    """`/runs` of `/runs/x/events`."""
    return "/" + route_path(scope).split("/")[1]


class GuardMiddleware:
    """`ours` are the first path segments of our own routes; `body_bytes` bounds every request's body, `uploads` those
    of some of our routes instead.
    """

    def __init__(
        self,
        app: ASGIApp,
        ours: frozenset[str],
        body_bytes: int,
        auth: tuple[str, str] | None,
        logged_in: Callable[[HTTPConnection], bool],
        uploads: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.app, self.ours, self.auth, self.logged_in = app, ours, auth, logged_in
        self.body_bytes, self.uploads = body_bytes, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers, path, first = Headers(scope=scope), route_path(scope), first_segment(scope)
        ours, socket = first in self.ours, scope["type"] == "websocket"
        if foreign(headers) and (ours or socket or scope["method"] not in _SAFE):
            refusal = ChatError("authentication", "Requests from other sites' pages are not accepted.")
            await problem(refusal, 403)(scope, receive, send)
        elif ours and self.auth and path not in _OPEN and not self._may(scope, headers):
            answer = problem(ChatError("authentication", "Log in, or send the name and password as HTTP Basic."))
            answer.headers["WWW-Authenticate"] = "Basic"
            await answer(scope, receive, send)
        elif path.startswith(_CLOSED):
            await problem(ChatError("not_found", "There is nothing here."))(scope, receive, send)
        elif not socket and (ours or scope["method"] not in _SAFE):
            await self._bounded(scope, receive, send, self.uploads.get(first, self.body_bytes))
        else:
            await self.app(scope, receive, send)

    def _may(self, scope: Scope, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic" and self.auth:
            try:
                found = base64.b64decode(given, validate=True)
            except (binascii.Error, ValueError):
                return False
            return secrets.compare_digest(found, ":".join(self.auth).encode())
        return self.logged_in(HTTPConnection(scope))

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Reads the body up to the bound before the route sees any of it."""
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has gone
            body += message.get("body", b"")
            if len(body) > most:
                too_large = ChatError("too_large", f"This is too large: at most {most:,} bytes can be sent.")
                await problem(too_large)(scope, receive, send)
                return
            if not message.get("more_body"):
                break
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)
