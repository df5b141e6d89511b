"""Rewrites the environment's proxy variables so that every HTTP client of this process understands them.

The clients differ: httpx 0.28 raises on `NO_PROXY=[::1]`, does not support networks (10.0.0.0/8) or `socks://`, and
sends requests for 127.0.0.1 to the proxy; requests resolves names on this machine for `socks5://`. So the variables are
rewritten before the first client is made: requests to this machine never use a proxy, and a proxy that no client can
use is replaced by an address where nothing listens, so that requests fail instead of bypassing the proxy.
"""

import importlib.util
import ipaddress
import re
from collections.abc import Iterable, Mapping, MutableMapping
from urllib.parse import urlsplit

_KINDS = ("http", "https", "all")
_SCHEMES = {"http": "http", "https": "https", "socks": "socks5h", "socks5": "socks5h", "socks5h": "socks5h"}
"""The replacement of each scheme. GNOME sets `socks://`; with socks5h the proxy resolves names."""
_ALLOWED = "allowed: http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ where it is needed"
_UNUSABLE = "http://127.0.0.1:1"
_SOCKS_PACKAGES = {"socksio": "socksio", "socks": "PySocks"}
_NAME = re.compile(r"\.?[\w-]+(\.[\w-]+)*\.?(:\d{1,5})?")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def on_this_machine(host: str | None) -> bool:
    """Returns whether a URL's host is this machine: localhost, a loopback address, or 0.0.0.0, which leads to it."""
    name = (host or "").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def use_proxies(environ: MutableMapping[str, str], own: str | None, urls: Iterable[str]) -> list[str]:
    """Rewrites the variables in place. Returns a sentence for each that cannot be used, without its value.

    `own` is the address that this process serves on; `urls` are those in the settings, such as a backend's. It may be
    called again.
    """
    variables = {kind: value for kind in (*_KINDS, "no") if (value := _effective(environ, kind)) is not None}
    problems: list[str] = []
    for kind in variables.keys() & set(_KINDS):
        proxy, problem = _proxy(variables[kind])
        if problem:
            problems.append(f"{kind.upper()}_PROXY: {problem}. Until then requests to other machines fail.")
        variables[kind] = proxy
    if variables:
        exceptions, ignored = _exceptions(variables.get("no", ""), own, [urlsplit(url).hostname or "" for url in urls])
        variables["no"] = ",".join(exceptions)
        problems += ignored
    for kind in (*_KINDS, "no"):
        for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY"):
            environ.pop(name, None)
            if kind in variables:
                environ[name] = variables[kind]
    return sorted(problems)


def _effective(environ: Mapping[str, str], kind: str) -> str | None:
    """The variable's value; None if it is empty or not set. The lower-case name goes first, as in curl and Python."""
    lower, upper = environ.get(f"{kind}_proxy"), environ.get(f"{kind.upper()}_PROXY")
    return (upper or "" if lower is None else lower).strip() or None


def _proxy(value: str) -> tuple[str, str]:
    """The URL of a proxy and the problem with it, or ""."""
    scheme, _, rest = value.rpartition("://")
    scheme = scheme.lower() or "http"
    if scheme in ("socks4", "socks4a"):
        return _UNUSABLE, "SOCKS 4 is not supported; use socks5://HOST:PORT, or an HTTP proxy"
    try:
        parts = urlsplit(f"http://{rest}")
        valid = bool(parts.hostname) and (parts.port or 1) > 0 and not re.search(r"[\s\\]", rest)
    except ValueError:
        valid = False
    if not valid or scheme not in _SCHEMES:
        return _UNUSABLE, f"this is not the address of a proxy; {_ALLOWED}"
    if scheme.startswith("socks") and (missing := [p for m, p in _SOCKS_PACKAGES.items() if not _installed(m)]):
        return _UNUSABLE, f"a SOCKS proxy needs the Python package {' and '.join(missing)}: run `make setup`"
    return f"{_SCHEMES[scheme]}://{rest}", ""


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _exceptions(value: str, own: str | None, hosts: Iterable[str]) -> tuple[list[str], list[str]]:
    """The entries of NO_PROXY with our own, and a sentence for each invalid entry."""
    entries = dict.fromkeys(_LOCAL)
    problems: list[str] = []
    networks = []
    for entry in re.split(r"[\s,]+", value):
        if entry == "*":
            return ["*"], []
        if network := _network(entry):
            networks.append(network)
        if name := _entry(entry):
            entries[name] = None
        elif entry:
            problems.append(f"NO_PROXY: {entry!r} is not a host, an address or an IPv4 network; it is ignored.")
    if own and (address := _address(own.strip("[]"))) is not None and not address.is_unspecified:
        entries[str(address)] = None
    elif own and address is None:
        entries[own.lower()] = None
    for host in hosts:
        address = _address(host)
        if on_this_machine(host) or (address and any(address in network for network in networks)):
            entries[host] = None
    return list(entries), problems


def _entry(entry: str) -> str | None:
    """An entry in the form that all clients accept; None if some of them fail on it."""
    try:
        entry = urlsplit(entry).netloc if "://" in entry else entry
    except ValueError:
        return None
    bare = re.sub(r"^\[([^\]]*)\](:\d+)?$", r"\1", entry)
    if (address := _address(bare)) is not None:
        return str(address)
    if (network := _network(bare)) is not None:
        return str(network) if network.version == 4 else None
    name = bare.removeprefix("*")
    return name if _NAME.fullmatch(name) else None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
