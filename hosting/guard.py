"""What stands before every route: requests for other hosts and those of other sites' pages are refused (in the
handshake of a WebSocket), what is open at once from one address is bounded, as are bodies; `--auth` closes all but the
login; of Gradio's own routes only those are open that the page needs, and a page's session is its visitor's alone.

Gradio's own middleware reflects any origin with credentials, and its `auth` covers but a part of the routes.
"""

import asyncio
import base64
import binascii
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.quota import Quota
from hosting.error_responses import RETRY_S, Kind, RefusalLog, error_response_for
from hosting.gradio_allowlist import LOGIN_PAGE, is_open
from hosting.hosts import Hosts, is_cross_origin, shown_host, split_host
from hosting.sessions import Sessions, session_of
from runs.errors import ChatError
from runs.requester import Requester

_SAFE = {"GET", "HEAD", "OPTIONS"}
_OPEN = {"/healthz", "/readyz"}
_PAGES = {"/example", "/docs"}
"""Ours, that a link on another site may lead to."""
_PAGES_PER_LINE = 4
"""A page that was left counts for some minutes."""
_CALL = "/gradio_api/call/"
_STREAMS = "/gradio_api/queue/data", _CALL
_BODY_S, _BYTES_PER_S = 60.0, 200_000
"""For a body to arrive in; for a large one, at this rate."""
_LARGE = 8
"""Large bodies that may arrive or be worked on at once, since each is held in memory."""
_SMALL_BYTES = 100_000
"""Bytes of a body that are not counted: `connections_per_address` bounds the number of these."""
_HELD_BYTES = 64_000_000
"""Bytes of longer bodies that one address may have here at once, or twice the largest that is allowed."""


def route_path(scope: Scope) -> str:
    """The path as the routes see it: without the prefix of a proxy that serves the app below one."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def first_segment(scope: Scope) -> str:
    """`/runs` of `/runs/x/events`."""
    return "/" + route_path(scope).split("/")[1]


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """What the guard holds to. `ours` are the first path segments of our own routes; `body_bytes` bounds every
    request's body, `uploads` those of a POST to some of our paths instead; `connections` is the most that may be open
    at once from one address, 0 as many as come. `requester` says who a request is from.
    """

    ours: frozenset[str]
    body_bytes: int
    requester: Callable[[HTTPConnection], Requester]
    quota: Quota
    auth: tuple[str, str] | None = None
    logged_in: Callable[[HTTPConnection], bool] = lambda _: False
    opened: frozenset[str] = frozenset()
    """Paths that have a lock of their own."""
    uploads: Mapping[str, int] = field(default_factory=dict)
    origins: Sequence[str] = ()
    connections: int = 0
    sessions: Sessions = field(default_factory=Sessions)
    hosts: Hosts | None = None
    """The names that are served; None serves every name."""
    log: RefusalLog = field(default_factory=RefusalLog)


class GuardMiddleware:
    """Stands outermost of what is ours."""

    def __init__(self, app: ASGIApp, rules: GuardConfig) -> None:
        self.app, self._rules, self._sessions = app, rules, rules.sessions
        self._connected: Counter[str] = Counter()
        self._large = 0
        """Bodies of more than `body_bytes` that are arriving, or whose requests are not answered yet."""
        self._held = Counter[str]()
        """Bytes of longer bodies that are arriving, or whose requests are not answered yet, by address."""
        self._most_held = max(_HELD_BYTES, 2 * max(rules.body_bytes, *rules.uploads.values(), 0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        requester = self._rules.requester(HTTPConnection(scope))
        here = requester.network or ""
        self._connected[here] += 1
        try:
            refusal = self._refusal(scope, requester)
            if refusal:
                await refusal(scope, receive, send)
            elif scope["type"] == "websocket" or (
                scope["method"] in _SAFE and first_segment(scope) not in self._rules.ours
            ):
                await self._let_through(scope, receive, send)
            else:
                with ExitStack() as held:
                    await self._bounded(scope, receive, send, requester, held)
        finally:
            self._connected[here] -= 1
            if not self._connected[here]:
                del self._connected[here]

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = session_of(scope, route_path(scope)) if scope["type"] == "http" else None
        try:
            with self._sessions.connected(session):
                await self.app(scope, receive, send)
        except RuntimeError as e:
            # Gradio tells an unknown session of it within the stream, and raises then, which would fill the log
            if not (route_path(scope).startswith(_STREAMS) and isinstance(e.__cause__, HTTPException)):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, scope: Scope, requester: Requester) -> Response | None:
        """Why this request goes no further, as far as its head tells."""
        rules, headers, path = self._rules, Headers(scope=scope), route_path(scope)
        ours, socket = first_segment(scope) in rules.ours, scope["type"] == "websocket"
        safe = not socket and scope["method"] in _SAFE
        if rules.connections and self._connected[requester.network or ""] > rules.connections:
            told = f"Your address has {rules.connections} connections open, the most at once: close some pages."
            return self._refuse(scope, "connections", ChatError("rate_limited", told, retry_after=5))
        if path not in _OPEN and (refusal := self._host_refusal(scope, headers)):
            return refusal
        link = path in _PAGES and headers.get("sec-fetch-mode") == "navigate" and "origin" not in headers
        acts = not safe or path.rstrip("/") == "/logout"
        if is_cross_origin(headers, rules.origins, rules.hosts) and (ours or acts) and not link:
            return self._foreign_refusal(scope, headers)
        if not ours and (socket or not is_open(path)):
            told = "There is nothing here. If a reverse proxy serves the page below a path, set root_path to that path."
            return self._refuse(scope, "path", ChatError("not_found", told))
        shown = path in _OPEN | rules.opened or LOGIN_PAGE.fullmatch(path)
        if rules.auth and not shown and (refusal := self._auth_refusal(scope, headers, requester)):
            return refusal
        return self._session_refusal(scope, path, requester) if safe else None

    def _refuse(
        self, scope: Scope, kind: Kind, error: ChatError, reason: str = "", status: int | None = None
    ) -> Response:
        """The answer, which the log explains."""
        self._rules.log.note(kind, reason or error.message)
        return error_response_for(scope, error, status)

    def _host_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._rules.hosts is None or self._rules.hosts.knows(host):
            return None
        name = split_host(host)[0] or "its name"
        told = (
            f"{shown_host(host)} is not a known name of this server. If it is one, add {name} to allowed_hosts in "
            "glassbox.toml, or to GLASSBOX_ALLOWED_HOSTS, and start the server again."
        )
        return self._refuse(scope, "host", ChatError("invalid_request", told))

    def _foreign_refusal(self, scope: Scope, headers: Headers) -> Response:
        page, host = headers.get("origin", "").partition("://")[2], shown_host(headers.get("host", ""))
        told = "Requests from other sites' pages are not accepted."
        name, _ = split_host(page)
        if name:
            told += (
                f" The page is at {shown_host(page)}, but the server was asked as {host}. If a reverse proxy stands "
                f"between, let it pass on the Host, or add {name} to allowed_hosts."
            )
        return self._refuse(scope, "origin" if name else "site", ChatError("authentication", told), status=403)

    def _auth_refusal(self, scope: Scope, headers: Headers, requester: Requester) -> Response | None:
        """None for who has logged in. After too many wrong passwords a right one does not help either."""
        quota, given = self._rules.quota, "authorization" in headers
        try:
            if given:
                quota.check_login(requester)
            if self._may(scope, headers):
                return None
            if given:
                quota.take_login(requester)
        except ChatError as e:
            return self._refuse(scope, "login", e)
        told = "Log in, or send the name and password as HTTP Basic."
        wrong = "a wrong name or password" if given else "a request without a login, which --auth asks for"
        answer = self._refuse(scope, "login", ChatError("authentication", told), wrong)
        answer.headers["WWW-Authenticate"] = "Basic"
        return answer

    def _session_refusal(self, scope: Scope, path: str, requester: Requester, body: bytes = b"") -> Response | None:
        try:
            session, most = session_of(scope, path, body), _PAGES_PER_LINE * self._rules.connections
            if session is None:
                if body and path.startswith(_CALL):
                    self._sessions.call(requester, most)
                return None
            if self._sessions.admit(session, requester, most):
                return None
        except ChatError as e:
            return self._refuse(scope, "session", e)
        told = "There is no such session, or it is not yours: reload the page."
        return self._refuse(scope, "session", ChatError("not_found", told))

    def _may(self, scope: Scope, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic" and self._rules.auth:
            try:
                found = base64.b64decode(given, validate=True)
            except (binascii.Error, ValueError):
                return False
            return secrets.compare_digest(found, ":".join(self._rules.auth).encode())
        return self._rules.logged_in(HTTPConnection(scope))

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, requester: Requester, held: ExitStack) -> None:
        """Reads the body up to the bound, in bounded time, before the route sees any of it. It counts as `held` until
        the request is answered, for a route may wait with it.
        """
        path = route_path(scope)
        most = self._rules.body_bytes
        if scope["method"] == "POST":
            most = self._rules.uploads.get(path.rstrip("/"), most)
        try:
            async with asyncio.timeout(max(_BODY_S, most / _BYTES_PER_S)):
                body = await self._read(receive, most, requester.network or "", held)
            if body is None:
                return  # the client has gone
            if path.rstrip("/") == "/login":
                self._rules.quota.take_login(requester)
        except TimeoutError:
            answer = self._refuse(
                scope, "body", ChatError("timeout", "The request took too long to arrive."), status=408
            )
            answer.headers["Connection"] = "close"  # or its rest would be waited for
            await answer(scope, receive, send)
            return
        except ChatError as e:
            await self._refuse(scope, "body", e)(scope, receive, send)
            return
        if refusal := self._session_refusal(scope, path, requester, body):
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

    async def _read(self, receive: Receive, most: int, here: str, held: ExitStack) -> bytes | None:
        """The body; None if the client has gone. Raises ChatError `too_large`; `busy` for one large body too many, and
        for more bytes than an address may have here.
        """
        parts, size, large, counted = list[bytes](), 0, False, 0

        def release() -> None:
            self._held[here] -= counted
            if not self._held[here]:
                del self._held[here]

        held.callback(release)
        while True:
            received = await receive()
            if received["type"] != "http.request":
                return None
            parts.append(bytes(received.get("body", b"")))
            size += len(parts[-1])
            if size > most:
                raise ChatError("too_large", f"This is too large: at most {most:,} bytes can be sent.")
            if size > self._rules.body_bytes and not large:
                self._count_large(held)
                large = True
            if size > _SMALL_BYTES:
                if self._held[here] + size - counted > self._most_held:
                    message = "Your address is sending too much at once: wait until some of it has arrived."
                    raise ChatError("busy", message, retryable=True, retry_after=5)
                self._held[here] += size - counted
                counted = size
            if not received.get("more_body"):
                return b"".join(parts)

    def _count_large(self, held: ExitStack) -> None:
        """Counts one more large body until `held` closes. Raises ChatError `busy` for one too many."""
        if self._large >= _LARGE:
            message = "Others are sending large files: try again in a minute."
            raise ChatError("busy", message, retryable=True, retry_after=RETRY_S)
        self._large += 1

        def release() -> None:
            self._large -= 1

        held.callback(release)
