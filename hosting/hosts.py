"""The names that this server answers to, and which origins are its own.

A page of another site can have its own name resolve to this machine (DNS rebinding): its requests then come with that
name as `Host` and with a matching `Origin`. So only known names are served.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]{1,253})(?::(?P<port>\d{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SPACES = ".hf.space"


def split_host(text: str) -> tuple[str, str]:
    """Name and port of a `Host`, each "" if there is none; the name is in small letters, without brackets or a dot at
    the end.
    """
    found = _HOST.fullmatch(text.strip().lower())
    return (found["name"].strip("[]").rstrip("."), found["port"] or "") if found else ("", "")


def shown_host(text: str) -> str:
    """A `Host` for a sentence or the log: nothing but what a host can consist of."""
    return text.strip().lower() if split_host(text)[0] else "(not a host name)"


def is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def machine_names() -> set[str]:
    """This machine's own names, as far as it knows them without the network."""
    full = socket.gethostname().lower().rstrip(".")
    short = full.partition(".")[0]
    return {full, short, f"{short}.local"} - {"", ".local"}


class Hosts:
    """`names` are known besides `allowed`, which the operator set; `link` tells the address of the public link, which
    may come later; `on_space` adds the names that Hugging Face gives to Spaces.
    """

    def __init__(
        self,
        allowed: Sequence[str] = (),
        names: Iterable[str | None] = (),
        link: Callable[[], str] = lambda: "",
        *,
        on_space: bool = False,
    ) -> None:
        self._allowed, self._link, self._on_space = frozenset(allowed), link, on_space
        self._names = machine_names() | {name.lower().strip("[]").rstrip(".") for name in names if name}

    def knows(self, host: str) -> bool:
        """Whether a `Host` is one of ours. A request without one is no browser's."""
        name, _ = split_host(host)
        if not name:
            return not host.strip()
        if name == "localhost" or name.endswith(".localhost") or is_ip_address(name):
            return True
        if name in self._allowed or name in self._names or (self._on_space and name.endswith(_SPACES)):
            return True
        return name == split_host(urlsplit(self._link()).netloc)[0]

    def allows(self, origin: str) -> bool:
        """Whether an `Origin` has the name of a host that the operator allowed, on any port."""
        return split_host(_netloc(origin))[0] in self._allowed


def is_cross_origin(headers: Mapping[str, str], origins: Sequence[str] = (), hosts: Hosts | None = None) -> bool:
    """Whether a browser says that another site's page makes this request, none of `origins`. No `Origin` means no
    browser.
    """
    if origin := headers.get("origin"):
        return not (origin in origins or _same(origin, headers.get("host", "")) or (hosts and hosts.allows(origin)))
    # another port or a neighbouring subdomain is the same site, and somebody else's page
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _same(origin: str, host: str) -> bool:
    """Whether an `Origin` names this `Host`; the scheme may differ, since a proxy may have ended TLS.

    A sandboxed page's origin is "null", which names no host.
    """
    name, port = split_host(_netloc(origin))
    default = _DEFAULT_PORTS.get(origin.partition(":")[0], "")
    there, port_there = split_host(host)
    return bool(name) and name == there and (port or default) == (port_there or default)


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
