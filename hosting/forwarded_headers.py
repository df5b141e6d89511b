"""What a reverse proxy says about a request: the address of the client, and the host, scheme and path prefix that the
browser used.

It counts only if the proxy is one of `trusted_proxies`, or the tunnel of the public link. Everything behind this
middleware, Gradio included, sees the request as the browser made it, without a forwarding header.

Sources: RFC 7239 (`Forwarded`), MDN's pages on the `X-Forwarded-*` headers, ASGI's specification of `root_path`.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hosting.error_responses import RefusalLog
from hosting.hosts import split_host
from settings import ROOT_PATH

_DROPPED = re.compile(rb"forwarded|x-forwarded-.*|x-real-ip|x-original-.*|x-gradio-server")
"""The last is how Gradio's own front server names the page's address."""
_PAIR = re.compile(r'(for|host|proto)=("(?:[^"\\]|\\.)*"|[^;,\s]+)', re.IGNORECASE)
_USUAL_PORTS = ("80", "443")
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the headers say; "" and empty where they say nothing. `clients` is in the order of the header."""

    clients: Sequence[str] = ()
    hosts: Sequence[str] = ()
    scheme: str = ""
    prefix: str = ""

    @classmethod
    def read(cls, headers: Headers) -> "Forwarded":
        """The `X-Forwarded-*` headers; where one is missing, `Forwarded`."""
        pairs: dict[str, list[str]] = {"for": [], "host": [], "proto": []}
        for name, value in _PAIR.findall(",".join(headers.getlist("forwarded"))):
            pairs[name.lower()].append(value.strip('"'))
        clients = _listed(headers, "x-forwarded-for") or pairs["for"]
        hosts = [host for host in _listed(headers, "x-forwarded-host") or pairs["host"] if split_host(host)[0]]
        schemes = _listed(headers, "x-forwarded-proto") or pairs["proto"]
        ports, prefixes = _listed(headers, "x-forwarded-port"), _listed(headers, "x-forwarded-prefix")
        if hosts and ports and ports[0].isdecimal() and ports[0] not in _USUAL_PORTS and not split_host(hosts[0])[1]:
            hosts[0] += f":{ports[0]}"
        prefix = prefixes[0].rstrip("/") if prefixes else ""
        return cls(
            clients=clients,
            hosts=hosts,
            scheme={"ws": "http", "wss": "https"}.get(found := (schemes or [""])[0].lower(), found),
            prefix=prefix if ROOT_PATH.fullmatch(prefix) else "",
        )


def _listed(headers: Headers, name: str) -> list[str]:
    return [value.strip() for text in headers.getlist(name) for value in text.split(",") if value.strip()]


class ForwardedMiddleware:
    """Stands outermost of what is ours. `root_path` is the prefix where no trusted proxy names one; `tunnel` tells the
    address of the public link, "" while there is none; `knows` tells whether a host is one of ours.
    """

    def __init__(
        self,
        app: ASGIApp,
        trusted: Sequence[str] = (),
        root_path: str = "",
        tunnel: Callable[[], str] = lambda: "",
        log: RefusalLog | None = None,
        knows: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._knows = knows
        self.app, self._root_path, self._tunnel, self._log = app, root_path, tunnel, log or RefusalLog()
        self._networks = [ipaddress.ip_network(network) for network in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope = self._as_the_browser_sent_it(dict(scope))
        prefix, path = scope["root_path"], scope["path"]
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
        elif prefix and path == prefix and scope["method"] in ("GET", "HEAD"):
            query = scope.get("query_string", b"").decode("latin-1")
            there = f"./{path.rpartition('/')[2]}/{'?' if query else ''}{query}"
            await RedirectResponse(there, 308)(scope, receive, send)
        else:
            await self.app(scope, receive, _relative_redirects(scope, send))

    def _as_the_browser_sent_it(self, scope: Scope) -> Scope:
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope.get("client") else ""
        told, prefix = Forwarded.read(headers), self._root_path
        scope["headers"] = [(name, value) for name, value in scope["headers"] if not _DROPPED.fullmatch(name)]
        tunnel = self._is_tunnel(peer, headers.get("host", ""))
        if self._trusts(peer) or tunnel:
            if told.scheme in ("http", "https"):
                scope["scheme"] = told.scheme.replace("http", "ws") if scope["type"] == "websocket" else told.scheme
            if client := self._client(told.clients, peer):
                scope["client"] = (client, 0)
            if told.hosts and not tunnel:
                origin = headers.get("origin", "").partition("://")[2]
                # a proxy that appends passes on what a client wrote: one unknown name is enough for the guard to refuse
                unknown = next((host for host in told.hosts if not self._knows(host)), None)
                MutableHeaders(scope=scope)["host"] = unknown or (origin if origin in told.hosts else told.hosts[0])
            prefix = told.prefix or prefix
        elif told.clients or told.hosts or told.scheme or told.prefix:
            self._note_ignored(peer)
        return _below(scope, prefix)

    def _trusts(self, peer: str) -> bool:
        address = _address(peer)
        return bool(address) and any(ipaddress.ip_address(address) in network for network in self._networks)

    def _is_tunnel(self, peer: str, host: str) -> bool:
        """Whether the request came through the tunnel, whose program runs on this machine and keeps the `Host`."""
        there = urlsplit(self._tunnel()).netloc
        return bool(there) and _address(peer) in _LOOPBACK and split_host(host) == split_host(there)

    def _client(self, clients: Sequence[str], peer: str) -> str:
        """The nearest address that is no trusted proxy's; what stands before it anybody can have written."""
        found = ""
        for client in reversed(clients):
            if not (address := _address(client)):
                break
            found = address
            if not self._trusts(address):
                break
        return found

    def _note_ignored(self, peer: str) -> None:
        near = peer if peer in _LOOPBACK else "the proxy's address"
        self._log.note(
            "forwarded",
            f"X-Forwarded-* headers are ignored: if a reverse proxy sends them, add {near} to trusted_proxies",
        )


def _address(text: str) -> str:
    """An address as `X-Forwarded-For` and `Forwarded` write it, with a port or without; "" if it is none."""
    bare = re.sub(r"^\[([^\]]*)\](:\d+)?$|^([\d.]+):\d+$", r"\1\3", text)
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return ""
    return str(getattr(found, "ipv4_mapped", None) or found)


def _below(scope: Scope, prefix: str) -> Scope:
    """The scope with a whole path and its `root_path`, whether the proxy has taken the prefix away or not.

    nginx makes //x of /demo/x where only the address of `proxy_pass` ends with a slash.
    """
    path, raw = "/" + scope["path"].lstrip("/"), b"/" + (scope.get("raw_path") or b"").lstrip(b"/")
    removed = prefix and path != prefix and not path.startswith(f"{prefix}/")
    scope["root_path"] = prefix
    scope["path"] = prefix + path if removed else path
    if scope.get("raw_path"):
        scope["raw_path"] = prefix.encode() + raw if removed else raw
    return scope


def _relative_redirects(scope: Scope, send: Send) -> Send:
    """Redirects to our own address become relative to the request's path: right below any prefix, behind any proxy.

    Those that name a path alone are left as they are: it comes from the browser, as the target of a login does.
    """
    prefix, host = scope["root_path"], Headers(scope=scope).get("host", "")
    depth = scope["path"].removeprefix(prefix).count("/") - 1

    async def send_relative(message: Message) -> None:
        headers = MutableHeaders(scope=message) if message["type"] == "http.response.start" else MutableHeaders()
        if location := headers.get("location"):
            there = urlsplit(location)
            if there.netloc == host and there.path.startswith(prefix):
                path = there.path.removeprefix(prefix).lstrip("/")
                query = f"?{there.query}" if there.query else ""
                headers["location"] = f"./{'../' * depth}{path}{query}"
        await send(message)

    return send_relative
