"""Refuses requests before any route sees them.

The guard checks the `Host` and the `Origin`, the number of connections of an address, the size of bodies, the login of
`--auth`, and whose page session a request names. Of Gradio's own routes it lets through only those that the page needs.
Gradio's own CORS middleware reflects any origin with credentials, and its `auth` covers only some of its routes.
"""

import base64
import binascii
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hosting.error_responses import Kind, RefusalLog, error_response_for
from hosting.gradio_allowlist import is_login_page, is_open
from hosting.hosts import Hosts, is_cross_origin, printable_host, split_host
from hosting.request_bodies import RequestBodies
from hosting.sessions import Sessions, session_of
from runs.errors import ChatError
from runs.requester import Requester

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_HEALTH_PATHS = {"/healthz", "/readyz"}
_LINKABLE_PAGES = {"/compare", "/example", "/docs"}
"""Pages beside Gradio's that a link on another site may lead to."""
EMBED_SCRIPT = "/embed.js"
"""The script for pages of other sites. It is equal for everyone."""
_PAGES_PER_CONNECTION = 4
"""The most pages of an address for each connection that it may have: a closed page counts for some minutes."""
_CALL_PATH = "/gradio_api/call/"
_STREAM_PATHS = "/gradio_api/queue/data", _CALL_PATH
REQUESTER = "glassbox.requester"
"""The key of the scope under which the guard puts the requester."""


def route_path(scope: Scope) -> str:
    """The path as the routes see it: without the prefix of a proxy that serves the app below one."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def first_segment(scope: Scope) -> str:
    """The first segment of the path: `/runs` of `/runs/x/events`."""
    return "/" + route_path(scope).split("/")[1]


class LoginQuota(Protocol):
    """Limits the attempts to log in of an address. Both methods raise ChatError `rate_limited`."""

    def check_login(self, requester: Requester) -> None:
        """Checks whether another attempt is allowed."""

    def take_login(self, requester: Requester) -> None:
        """Counts an attempt."""


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """The settings of the guard, and the objects that it asks."""

    own_paths: frozenset[str]
    """First path segments of the routes that are not Gradio's."""
    body_bytes: int
    """The most bytes of a body."""
    identify: Callable[[HTTPConnection], Requester]
    quota: LoginQuota
    auth: tuple[str, str] | None = None
    logged_in: Callable[[HTTPConnection], bool] = lambda _: False
    public_paths: frozenset[str] = frozenset()
    """Paths that `auth` leaves open because they check a token themselves."""
    upload_bytes: Mapping[str, int] = field(default_factory=dict)
    """The most bytes of a POST's body by path, instead of `body_bytes`."""
    allowed_origins: Sequence[str] = ()
    connections_per_address: int = 0
    """The most connections open at once from one address; 0 is no limit."""
    sessions: Sessions = field(default_factory=Sessions)
    hosts: Hosts | None = None
    """The hosts that are served; None serves every host."""
    refusals: RefusalLog = field(default_factory=RefusalLog)
    title: str = "Glassbox"
    """The name of the page, for pages with an error."""
    embeds: bool = False
    """Whether pages of other sites may load the script that embeds the page."""


class GuardMiddleware:
    """ASGI middleware that refuses requests, and bounds the connections and bodies of those that it lets through."""

    def __init__(self, app: ASGIApp, config: GuardConfig) -> None:
        self.app, self._config, self._sessions = app, config, config.sessions
        self._connections: Counter[str] = Counter()
        """Open connections by address."""
        self._bodies = RequestBodies(config.body_bytes, config.upload_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        requester = scope[REQUESTER] = self._config.identify(HTTPConnection(scope))
        address = requester.network or ""
        self._connections[address] += 1
        try:
            refusal = self._check(scope, requester)
            if refusal:
                await refusal(scope, receive, send)
            elif scope["type"] == "websocket" or (
                scope["method"] in _SAFE_METHODS and first_segment(scope) not in self._config.own_paths
            ):
                await self._pass_on(scope, receive, send)
            else:
                with ExitStack() as counted:
                    await self._pass_on_with_body(scope, receive, send, requester, counted)
        finally:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = session_of(scope, route_path(scope)) if scope["type"] == "http" else None
        try:
            with self._sessions.connected(session):
                await self.app(scope, receive, send)
        except RuntimeError as e:
            # Gradio reports an unknown session within the stream, and raises as well, which would fill the log
            if not (route_path(scope).startswith(_STREAM_PATHS) and isinstance(e.__cause__, HTTPException)):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _check(self, scope: Scope, requester: Requester) -> Response | None:
        """Checks everything but the body; returns the refusal, if there is one."""
        config, headers, path = self._config, Headers(scope=scope), route_path(scope)
        own, websocket = first_segment(scope) in config.own_paths, scope["type"] == "websocket"
        safe = not websocket and scope["method"] in _SAFE_METHODS
        most = config.connections_per_address
        if most and self._connections[requester.network or ""] > most:
            error = f"Your address has {most} connections open, the most at once: close some pages."
            return self._refuse(scope, "connections", ChatError("rate_limited", error, retry_after=5))
        if path not in _HEALTH_PATHS and (refusal := self._check_host(scope, headers)):
            return refusal
        link = path in _LINKABLE_PAGES and headers.get("sec-fetch-mode") == "navigate" and "origin" not in headers
        link = link or (config.embeds and safe and path == EMBED_SCRIPT)
        acts = not safe or path.rstrip("/") == "/logout"
        if is_cross_origin(headers, config.allowed_origins, config.hosts) and (own or acts) and not link:
            return self._refuse_cross_origin(scope, headers)
        if not own and (websocket or not is_open(path)):
            error = (
                "There is nothing here. If a reverse proxy serves the page below a path, set root_path to that path."
            )
            return self._refuse(scope, "path", ChatError("not_found", error))
        public = path in _HEALTH_PATHS | config.public_paths or is_login_page(path)
        if config.auth and not public and (refusal := self._check_login(scope, headers, requester)):
            return refusal
        return self._check_session(scope, path, requester) if safe else None

    def _refuse(
        self, scope: Scope, kind: Kind, error: ChatError, reason: str = "", status: int | None = None
    ) -> Response:
        """Logs a refusal and returns its response."""
        self._config.refusals.note(kind, reason or error.message)
        return error_response_for(scope, error, status, self._config.title)

    def _check_host(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._config.hosts is None or self._config.hosts.knows(host):
            return None
        name = split_host(host)[0] or "its name"
        error = (
            f"{printable_host(host)} is not a known name of this server. If it is one, add {name} to allowed_hosts in "
            "glassbox.toml, or to GLASSBOX_ALLOWED_HOSTS, and start the server again."
        )
        return self._refuse(scope, "host", ChatError("invalid_request", error))

    def _refuse_cross_origin(self, scope: Scope, headers: Headers) -> Response:
        page, host = headers.get("origin", "").partition("://")[2], printable_host(headers.get("host", ""))
        error = "Requests from other sites' pages are not accepted."
        name, _ = split_host(page)
        if name:
            error += (
                f" The page is at {printable_host(page)}, but the request names the host {host}. If a reverse proxy is "
                f"in between, make it pass on the Host header, or add {name} to allowed_hosts."
            )
        return self._refuse(scope, "origin" if name else "site", ChatError("authentication", error), status=403)

    def _check_login(self, scope: Scope, headers: Headers, requester: Requester) -> Response | None:
        """Refuses a request without a valid login. After too many wrong passwords the right one is refused, too."""
        quota, has_credentials = self._config.quota, "authorization" in headers
        try:
            if has_credentials:
                quota.check_login(requester)
            if self._is_authorized(scope, headers):
                return None
            if has_credentials:
                quota.take_login(requester)
        except ChatError as e:
            return self._refuse(scope, "login", e)
        error = ChatError("authentication", "Log in, or send the name and password as HTTP Basic.")
        reason = "a wrong name or password" if has_credentials else "a request without a login, which --auth asks for"
        response = self._refuse(scope, "login", error, reason)
        response.headers["WWW-Authenticate"] = "Basic"
        return response

    def _is_authorized(self, scope: Scope, headers: Headers) -> bool:
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic" and self._config.auth:
            try:
                decoded = base64.b64decode(credentials, validate=True)
            except (binascii.Error, ValueError):
                return False
            return secrets.compare_digest(decoded, ":".join(self._config.auth).encode())
        return self._config.logged_in(HTTPConnection(scope))

    def _check_session(self, scope: Scope, path: str, requester: Requester, body: bytes = b"") -> Response | None:
        most = _PAGES_PER_CONNECTION * self._config.connections_per_address
        try:
            session = session_of(scope, path, body)
            if session is None:
                if body and path.startswith(_CALL_PATH):
                    self._sessions.count_call(requester, most)
                return None
            if self._sessions.admit(session, requester, most):
                return None
        except ChatError as e:
            return self._refuse(scope, "session", e)
        error = "There is no such session, or it is not yours: reload the page."
        return self._refuse(scope, "session", ChatError("not_found", error))

    async def _pass_on_with_body(
        self, scope: Scope, receive: Receive, send: Send, requester: Requester, counted: ExitStack
    ) -> None:
        path = route_path(scope)
        try:
            body = await self._bodies.read(scope["method"], path, receive, requester.network or "", counted)
            if body is None:
                return
            if path.rstrip("/") == "/login":
                self._config.quota.take_login(requester)
        except ChatError as e:
            response = self._refuse(scope, "body", e, status=408 if e.code == "timeout" else None)
            if e.code == "timeout":
                response.headers["Connection"] = "close"  # else the server would wait for the rest of the body
            await response(scope, receive, send)
            return
        if refusal := self._check_session(scope, path, requester, body):
            await refusal(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)
