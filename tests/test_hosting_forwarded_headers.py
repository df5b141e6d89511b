from collections.abc import Mapping
from typing import Any

import pytest
from starlette.datastructures import URL, Headers

from hosting.forwarded_headers import ForwardedMiddleware

PEER = "192.0.2.1"


async def seen(
    headers: Mapping[str, str] | list[tuple[str, str]],
    path: str = "/backends",
    peer: str = PEER,
    kind: str = "http",
    answer: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], list[Any]]:
    """The scope of the app behind the middleware, and the response."""
    scopes: list[Any] = [{}]
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        raw = [(name.encode(), value.encode()) for name, value in (answer or {}).items()]
        await send({"type": "http.response.start", "status": 302 if answer else 200, "headers": raw})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    pairs = headers if isinstance(headers, list) else list(headers.items())
    scope = {
        "type": kind,
        "method": "GET",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": (peer, 1234),
        "headers": [(b"host", b"app:7860"), *((name.lower().encode(), value.encode()) for name, value in pairs)],
    }
    await ForwardedMiddleware(app, **options)(scope, receive, send)
    return scopes[-1], sent


TRUST = {"trusted": ["192.0.2.0/24", "::1"]}


async def test_forwarding_headers_are_ignored_by_default_and_removed() -> None:
    received = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/x",
        "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
        "X-Gradio-Server": "http://evil.example",
        "X-Original-Host": "evil.example",
        "X-Real-IP": "203.0.113.9",
        "Accept": "*/*",
    }
    for trusted in ([], ["192.0.2.2"], ["10.0.0.0/8"]):
        scope, _ = await seen(received, trusted=trusted)
        assert (scope["client"][0], scope["scheme"], scope["root_path"], scope["path"]) == (
            PEER,
            "http",
            "",
            "/backends",
        )
        assert dict(Headers(scope=scope)) == {"host": "app:7860", "accept": "*/*"}


async def test_headers_of_a_trusted_proxy_are_applied() -> None:
    received = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "a.example:8443", "X-Forwarded-Proto": "https"}
    scope, _ = await seen(received | {"X-Forwarded-Prefix": "/demo/"}, **TRUST)
    assert scope["client"][0] == "203.0.113.9"
    assert str(URL(scope=scope)) == "https://a.example:8443/demo/backends"
    assert (scope["root_path"], scope["raw_path"]) == ("/demo", b"/demo/backends")
    scope, _ = await seen(received, kind="websocket", **TRUST)
    assert scope["scheme"] == "wss"


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        ({"X-Forwarded-Host": "a.example"}, "a.example"),
        ({"X-Forwarded-Host": "a.example, b.example"}, "a.example"),
        ({"X-Forwarded-Host": "a.example, b.example", "Origin": "https://b.example"}, "b.example"),
        ({"X-Forwarded-Host": "a.example", "X-Forwarded-Port": "8443"}, "a.example:8443"),
        ({"X-Forwarded-Host": "a.example:1", "X-Forwarded-Port": "8443"}, "a.example:1"),
        ({"X-Forwarded-Host": "a.example", "X-Forwarded-Port": "443"}, "a.example"),
        ({"X-Forwarded-Host": "a.example", "X-Forwarded-Port": "x"}, "a.example"),
        ({"X-Forwarded-Host": "[2001:db8::1]:8080"}, "[2001:db8::1]:8080"),
        ({"X-Forwarded-Host": "a/b@c"}, "app:7860"),
        ({"X-Forwarded-Host": ""}, "app:7860"),
        ({"Forwarded": "for=1.2.3.4; Host=a.example;proto=https, for=2.3.4.5;host=b.example"}, "a.example"),
        ({"Forwarded": 'host="a.example:8443"'}, "a.example:8443"),
        ({"Forwarded": "host=b.example", "X-Forwarded-Host": "a.example"}, "a.example"),
    ],
)
async def test_forwarded_host_replaces_the_host(headers: dict[str, str], host: str) -> None:
    scope, _ = await seen(headers, **TRUST)
    assert Headers(scope=scope).getlist("host") == [host]


@pytest.mark.parametrize(
    ("received", "host"),
    [("a.example, evil.test", "evil.test"), ("evil.test, a.example", "evil.test"), ("a.example", "a.example")],
)
async def test_unknown_forwarded_host_is_refused(received: str, host: str) -> None:
    """A proxy that appends to a header also passes on what the client wrote."""
    scope, _ = await seen({"X-Forwarded-Host": received}, **TRUST, knows=lambda name: name == "a.example")
    assert Headers(scope=scope).getlist("host") == [host]


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "10.0.0.1, 203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "10.0.0.1, 203.0.113.9, 192.0.2.7")], "203.0.113.9"),
        ([("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "203.0.113.9:5555")], "203.0.113.9"),
        ([("X-Forwarded-For", "[2001:db8::1]:5555")], "2001:db8::1"),
        ([("X-Forwarded-For", "::ffff:203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "192.0.2.5, 192.0.2.7")], "192.0.2.5"),
        ([("X-Forwarded-For", "203.0.113.9, unknown")], PEER),
        ([("X-Forwarded-For", "203.0.113.9, unknown, 192.0.2.7")], "192.0.2.7"),
        ([("X-Forwarded-For", "")], PEER),
        ([("Forwarded", 'for="[2001:db8::1]:80";proto=http')], "2001:db8::1"),
        ([("Forwarded", "for=10.0.0.1, For=203.0.113.9")], "203.0.113.9"),
        ([("Forwarded", "for=_hidden")], PEER),
    ],
)
async def test_client_is_the_nearest_address_that_is_not_trusted(headers: list[tuple[str, str]], client: str) -> None:
    scope, _ = await seen(headers, **TRUST)
    assert scope["client"][0] == client


@pytest.mark.parametrize("peer", ["192.0.2.1", "::1", "::ffff:192.0.2.1"])
async def test_proxies_are_trusted_by_address_or_network(peer: str) -> None:
    scope, _ = await seen({"X-Forwarded-Proto": "https"}, peer=peer, **TRUST)
    assert scope["scheme"] == "https"


@pytest.mark.parametrize("scheme", ["", "ftp", "HTTPS", "wss", "https, http", "javascript"])
async def test_only_web_schemes_are_accepted(scheme: str) -> None:
    scope, _ = await seen({"X-Forwarded-Proto": scheme}, **TRUST)
    assert scope["scheme"] == ("https" if scheme in ("HTTPS", "wss", "https, http") else "http")


@pytest.mark.parametrize(
    ("path", "seen_path"),
    [
        ("/", "/demo/"),
        ("/backends", "/demo/backends"),
        ("/demo/", "/demo/"),
        ("//", "/demo/"),
        ("//backends", "/demo/backends"),
        ("/demo/backends", "/demo/backends"),
        ("/demonstration", "/demo/demonstration"),
    ],
)
async def test_a_prefix_may_have_been_removed_or_not(path: str, seen_path: str) -> None:
    scope, _ = await seen({}, path, root_path="/demo")
    assert (scope["path"], scope["root_path"], scope["raw_path"]) == (seen_path, "/demo", seen_path.encode())
    scope, _ = await seen({"X-Forwarded-Prefix": "/demo"}, path, root_path="/other", **TRUST)
    assert (scope["path"], scope["root_path"]) == (seen_path, "/demo")


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/a/../b", "/a b", "/a%20b", "/\u00e9", "x", "/a?b", '/"><script>', "/"]
)
async def test_invalid_prefix_is_ignored(prefix: str) -> None:
    scope, _ = await seen({"X-Forwarded-Prefix": prefix}, **TRUST)
    assert scope["root_path"] == ""


async def test_a_prefix_without_its_slash_is_completed() -> None:
    scope, (start, _) = await seen({}, "/a/demo", root_path="/a/demo")
    assert scope == {} and start["status"] == 308
    assert Headers(raw=start["headers"])["location"] == "./demo/"


@pytest.mark.parametrize(
    ("path", "location", "sent"),
    [
        ("/logout", "http://app:7860", "./"),
        ("/logout", "http://app:7860/", "./"),
        ("/logout", "http://app:7860/demo", "./"),
        ("/logout", "/demo/", "/demo/"),
        ("/login/callback", "/", "/"),
        ("/docs/", "http://app:7860/demo/docs?x=1", "./../docs?x=1"),
        ("/login/callback", "http://app:7860/demo/?a=b", "./../?a=b"),
        ("/logout", "https://huggingface.co/oauth?x", "https://huggingface.co/oauth?x"),
        ("/logout", "./", "./"),
    ],
)
async def test_redirects_work_below_any_prefix(path: str, location: str, sent: str) -> None:
    prefix = "/demo" if "/demo" in location else ""
    _, (start, *_) = await seen({}, path, answer={"location": location}, root_path=prefix)
    assert Headers(raw=start["headers"])["location"] == sent


# The tunnel of the public link


@pytest.mark.parametrize(
    ("peer", "host", "believed"),
    [
        ("127.0.0.1", "abc.gradio.live", True),
        ("::1", "abc.gradio.live", True),
        ("127.0.0.1", "other.gradio.live", False),
        ("127.0.0.1", "127.0.0.1:7860", False),
        ("192.0.2.1", "abc.gradio.live", False),
    ],
)
async def test_tunnel_is_recognized_by_its_link(peer: str, host: str, believed: bool) -> None:
    received = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}

    async def given(link: str) -> Any:
        scopes: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)

        headers = [(name.lower().encode(), value.encode()) for name, value in (received | {"host": host}).items()]
        scope = {
            "type": "http",
            "scheme": "http",
            "method": "GET",
            "path": "/",
            "client": (peer, 1),
            "headers": headers,
        }
        await ForwardedMiddleware(app, tunnel=lambda: link)(scope, None, None)  # type: ignore[arg-type]
        return scopes[0]

    scope = await given("https://abc.gradio.live")
    assert (scope["client"][0], scope["scheme"]) == (("203.0.113.9", "https") if believed else (peer, "http"))
    assert Headers(scope=scope)["host"] == host
    scope = await given("")
    assert scope["client"][0] == peer, "there is no tunnel without a link"
