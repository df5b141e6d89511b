"""The hosts that this server answers to, and the origins that are its own.

A page of another site can let its own name resolve to this machine (DNS rebinding): its requests then come with that
name as `Host` and with a matching `Origin`. Therefore only known hosts are served.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]{1,253})(?::(?P<port>\d{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SPACES = ".hf.space"


def split_host(host: str) -> tuple[str, str]:
    """Splits a `Host` into name and port; each is "" if it is missing or invalid.

    The name is in lower case, without brackets and without a dot at the end.
    """
    match = _HOST.fullmatch(host.strip().lower())
    return (match["name"].strip("[]").rstrip("."), match["port"] or "") if match else ("", "")


def printable_host(host: str) -> str:
    """A `Host` for a message or the log: it has only characters that a host can have."""
    return host.strip().lower() if split_host(host)[0] else "(not a host name)"


def machine_names() -> set[str]:
    """This machine's own names, as far as they are known without the network."""
    full = socket.gethostname().lower().rstrip(".")
    short = full.partition(".")[0]
    return {full, short, f"{short}.local"} - {"", ".local"}


class Hosts:
    """The known hosts.

    `allowed` are the hosts in the settings and `names` further ones; `link` returns the address of the public link,
    which may come later; `on_space` adds the hosts of Hugging Face Spaces.
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
        """Returns whether a `Host` is a known one. A request without `Host` is accepted: no browser sends one."""
        name, _ = split_host(host)
        if not name:
            return not host.strip()
        if name == "localhost" or name.endswith(".localhost") or _is_ip_address(name):
            return True
        if name in self._allowed or name in self._names or (self._on_space and name.endswith(_SPACES)):
            return True
        return name == split_host(urlsplit(self._link()).netloc)[0]

    def allows(self, origin: str) -> bool:
        """Returns whether an `Origin` has the name of a host that the settings allow, on any port."""
        return split_host(_netloc(origin))[0] in self._allowed


def is_cross_origin(headers: Mapping[str, str], origins: Sequence[str] = (), hosts: Hosts | None = None) -> bool:
    """Returns whether a page of another site makes this request, by the browser's headers.

    `origins` are accepted. A request without `Origin` and `Sec-Fetch-Site` is not from a browser.
    """
    if origin := headers.get("origin"):
        same = _is_same_host(origin, headers.get("host", ""))
        return not (origin in origins or same or (hosts and hosts.allows(origin)))
    # another port or a neighbouring subdomain is "same-site", but it may be another operator's page
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _is_same_host(origin: str, host: str) -> bool:
    """Returns whether an `Origin` names this `Host`. The scheme may differ, since a proxy may have ended TLS.

    The origin of a sandboxed page is "null", which names no host.
    """
    name, port = split_host(_netloc(origin))
    default = _DEFAULT_PORTS.get(origin.partition(":")[0], "")
    host_name, host_port = split_host(host)
    return bool(name) and name == host_name and (port or default) == (host_port or default)


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
