"""Forwarding headers of reverse proxies: the client's address, and the host, scheme and path prefix of the browser.

They count only if the proxy is one of `trusted_proxies`, or the tunnel of the public link. Everything behind this
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

_FORWARDING = re.compile(rb"forwarded|x-forwarded-.*|x-real-ip|x-original-.*|x-gradio-server")
"""Headers that are removed. `X-Gradio-Server` is how Gradio's own front server names the page's address."""
_PAIR = re.compile(r'(for|host|proto)=("(?:[^"\\]|\\.)*"|[^;,\s]+)', re.IGNORECASE)
_DEFAULT_PORTS = ("80", "443")
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The values of a request's forwarding headers; empty where a header is missing.

    `clients` are in the order of the header, the nearest one last.
    """

    clients: Sequence[str] = ()
    hosts: Sequence[str] = ()
    scheme: str = ""
    prefix: str = ""

    @classmethod
    def read(cls, headers: Headers) -> "Forwarded":
        """Reads the `X-Forwarded-*` headers, and `Forwarded` for those that are missing."""
        pairs: dict[str, list[str]] = {"for": [], "host": [], "proto": []}
        for name, value in _PAIR.findall(",".join(headers.getlist("forwarded"))):
            pairs[name.lower()].append(value.strip('"'))
        clients = _values(headers, "x-forwarded-for") or pairs["for"]
        hosts = [host for host in _values(headers, "x-forwarded-host") or pairs["host"] if split_host(host)[0]]
        schemes = _values(headers, "x-forwarded-proto") or pairs["proto"]
        ports, prefixes = _values(headers, "x-forwarded-port"), _values(headers, "x-forwarded-prefix")
        if hosts and ports and ports[0].isdecimal() and ports[0] not in _DEFAULT_PORTS and not split_host(hosts[0])[1]:
            hosts[0] += f":{ports[0]}"
        prefix = prefixes[0].rstrip("/") if prefixes else ""
        scheme = schemes[0].lower() if schemes else ""
        return cls(
            clients=clients,
            hosts=hosts,
            scheme={"ws": "http", "wss": "https"}.get(scheme, scheme),
            prefix=prefix if ROOT_PATH.fullmatch(prefix) else "",
        )


def _values(headers: Headers, name: str) -> list[str]:
    return [value.strip() for text in headers.getlist(name) for value in text.split(",") if value.strip()]


class ForwardedMiddleware:
    """ASGI middleware that applies forwarding headers to the scope and removes them. It is the outermost one.

    `root_path` is the prefix where no trusted proxy names one; `tunnel` returns the address of the public link, or "";
    `knows` says whether a host is a known one.
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
        scope = self._apply(dict(scope))
        prefix, path = scope["root_path"], scope["path"]
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
        elif prefix and path == prefix and scope["method"] in ("GET", "HEAD"):
            query = scope.get("query_string", b"").decode("latin-1")
            target = f"./{path.rpartition('/')[2]}/{'?' if query else ''}{query}"
            await RedirectResponse(target, 308)(scope, receive, send)
        else:
            await self.app(scope, receive, _with_relative_redirects(scope, send))

    def _apply(self, scope: Scope) -> Scope:
        """The scope as the browser made the request."""
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded, prefix = Forwarded.read(headers), self._root_path
        scope["headers"] = [(name, value) for name, value in scope["headers"] if not _FORWARDING.fullmatch(name)]
        tunnel = self._is_tunnel(peer, headers.get("host", ""))
        if self._trusts(peer) or tunnel:
            if forwarded.scheme in ("http", "https"):
                scheme = forwarded.scheme
                scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
            if client := self._client(forwarded.clients, peer):
                scope["client"] = (client, 0)
            if forwarded.hosts and not tunnel:
                origin = headers.get("origin", "").partition("://")[2]
                # a proxy that appends also passes on what a client wrote: with one unknown host the guard refuses
                unknown = next((host for host in forwarded.hosts if not self._knows(host)), None)
                MutableHeaders(scope=scope)["host"] = unknown or (
                    origin if origin in forwarded.hosts else forwarded.hosts[0]
                )
            prefix = forwarded.prefix or prefix
        elif forwarded.clients or forwarded.hosts or forwarded.scheme or forwarded.prefix:
            self._note_ignored(peer)
        return _with_root_path(scope, prefix)

    def _trusts(self, peer: str) -> bool:
        address = _address(peer)
        return bool(address) and any(ipaddress.ip_address(address) in network for network in self._networks)

    def _is_tunnel(self, peer: str, host: str) -> bool:
        """Whether the request came through the tunnel: its program runs on this machine and keeps the `Host`."""
        link = urlsplit(self._tunnel()).netloc
        return bool(link) and _address(peer) in _LOOPBACK and split_host(host) == split_host(link)

    def _client(self, clients: Sequence[str], peer: str) -> str:
        """The nearest address that is not a trusted proxy's. A client can write any address before it."""
        nearest = ""
        for client in reversed(clients):
            if not (address := _address(client)):
                break
            nearest = address
            if not self._trusts(address):
                break
        return nearest

    def _note_ignored(self, peer: str) -> None:
        proxy = peer if peer in _LOOPBACK else "the proxy's address"
        self._log.note(
            "forwarded",
            f"X-Forwarded-* headers are ignored: if a reverse proxy sends them, add {proxy} to trusted_proxies",
        )


def _address(text: str) -> str:
    """The IP address in an entry of `X-Forwarded-For` or `Forwarded`, without its port; "" if there is none."""
    bare = re.sub(r"^\[([^\]]*)\](:\d+)?$|^([\d.]+):\d+$", r"\1\3", text)
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _with_root_path(scope: Scope, prefix: str) -> Scope:
    """The scope with `root_path` and the full path, whether or not the proxy has removed the prefix.

    nginx turns /demo/x into //x if only the address of `proxy_pass` ends with a slash.
    """
    path, raw = "/" + scope["path"].lstrip("/"), b"/" + (scope.get("raw_path") or b"").lstrip(b"/")
    removed = prefix and path != prefix and not path.startswith(f"{prefix}/")
    scope["root_path"] = prefix
    scope["path"] = prefix + path if removed else path
    if scope.get("raw_path"):
        scope["raw_path"] = prefix.encode() + raw if removed else raw
    return scope


def _with_relative_redirects(scope: Scope, send: Send) -> Send:
    """Makes redirects to our own address relative to the request's path, so that they work behind any proxy.

    A redirect to a path alone stays as it is: the path comes from the browser, as the target of a login does.
    """
    prefix, host = scope["root_path"], Headers(scope=scope).get("host", "")
    depth = scope["path"].removeprefix(prefix).count("/") - 1

    async def send_relative(message: Message) -> None:
        headers = MutableHeaders(scope=message) if message["type"] == "http.response.start" else MutableHeaders()
        if location := headers.get("location"):
            target = urlsplit(location)
            if target.netloc == host and target.path.startswith(prefix):
                path = target.path.removeprefix(prefix).lstrip("/")
                query = f"?{target.query}" if target.query else ""
                headers["location"] = f"./{'../' * depth}{path}{query}"
        await send(message)

    return send_relative
