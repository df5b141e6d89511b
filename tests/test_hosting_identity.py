import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hosting.identity import COOKIE, Identity, VisitorMiddleware, load_secret


def value_of(cookie: str) -> str:
    return cookie.split(";")[0].removeprefix(f"{COOKIE}=")


def test_each_new_cookie_is_a_new_visitor() -> None:
    identity = Identity("secret")
    values = [value_of(identity.new_cookie()) for _ in range(3)]
    visitors = {identity.visitor({COOKIE: value}) for value in values}
    assert len(visitors) == 3
    assert None not in visitors
    assert all(len(str(visitor)) >= 22 for visitor in visitors)


@pytest.mark.parametrize("change", ["", "x", "anna", "ä", "anna.", ".", "a.b.c"])
def test_forged_cookie_is_invalid(change: str) -> None:
    assert Identity("secret").visitor({COOKIE: change}) is None


def test_cookie_of_another_secret_is_invalid() -> None:
    identity = Identity("secret")
    value = value_of(identity.new_cookie())
    assert identity.visitor({COOKIE: "x" + value}) is None
    assert identity.visitor({COOKIE: value[:-2]}) is None
    assert Identity("another").visitor({COOKIE: value}) is None
    assert identity.visitor({}) is None


def test_cookie_flags() -> None:
    here, framed = Identity("s").new_cookie(), Identity("s", cross_site=True).new_cookie()
    assert "; HttpOnly; " in here
    assert "; Path=/;" in here
    assert here.endswith("; SameSite=Lax")
    assert framed.endswith("; SameSite=None; Secure; Partitioned")
    assert Identity("s").new_cookie(secure=True, framed=True).endswith("; SameSite=None; Secure; Partitioned")


def client(identity: Identity) -> httpx.AsyncClient:
    async def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(identity.visitor(request.cookies)))

    app: Any = Starlette(routes=[Route(path, who, methods=["GET", "POST"]) for path in ("/", "/backends")])
    transport = httpx.ASGITransport(VisitorMiddleware(app, identity))
    return httpx.AsyncClient(transport=transport, base_url="http://here")


async def test_the_page_sets_a_cookie_once_and_api_routes_set_none() -> None:
    async with client(Identity("secret")) as http:
        assert "set-cookie" not in (await http.get("/backends")).headers
        assert "set-cookie" not in (await http.post("/")).headers
        assert COOKIE in (await http.get("/")).headers["set-cookie"]
        again = await http.get("/")
        assert "set-cookie" not in again.headers
        assert again.text not in ("", "None")


@pytest.mark.parametrize("other", ["a/b=1", 'j={"x": "y"}', "a,b=1", "=", ";;", "[x]=1"])
async def test_odd_cookies_of_other_programs_are_ignored(other: str) -> None:
    identity = Identity("secret")
    own = f"{COOKIE}={value_of(identity.new_cookie())}"
    async with client(identity) as http:
        for cookies in (f"{other}; {own}", f"{own}; {other}"):
            answer = await http.get("/", headers={"cookie": cookies})
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
        assert (await http.get("/", headers={"cookie": other})).status_code == 200


def test_secret_is_given_or_kept_for_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert load_secret("given", folder) == "given"
    assert not folder.exists()
    kept = load_secret(None, folder)
    assert len(kept) >= 32
    assert load_secret(None, folder) == kept
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600


def test_secret_that_cannot_be_kept_is_new_at_each_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    first, second = (load_secret(None, tmp_path / "file") for _ in range(2))
    assert first != second
    (tmp_path / "secret").write_text("")
    assert load_secret(None, tmp_path)


def test_derived_ids_are_unique_and_stable() -> None:
    identity = Identity("secret")
    derived = {identity.derive("p", *parts) for parts in [(None, "t"), ("", "t"), ("a", "t"), ("a", "u"), ("at", "")]}
    assert len(derived) == 5
    assert all(len(one) == 22 for one in derived)
    assert identity.derive("p", "a", "t") == Identity("secret").derive("p", "a", "t")
    assert identity.derive("p", "a", "t") != Identity("other").derive("p", "a", "t")
