import asyncio
import base64
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agent.quota import Quota
from hosting.error_responses import error_response
from hosting.guard import GuardConfig, GuardMiddleware, route_path
from hosting.hosts import is_cross_origin
from hosting.identity import Identity
from runs.errors import ChatError
from runs.registry import RunRegistry
from settings import LimitSettings
from tests.conftest import until

HERE = {"host": "glass.example:7860"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"origin": "http://glass.example:7860"}, False),
        ({"origin": "https://glass.example:7860"}, False),
        ({"origin": "http://glass.example"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "http://glass.example:7860.evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "null", "x-forwarded-host": "proxied.example"}, True),
        ({"origin": "file://"}, True),
        ({"origin": "https://proxied.example", "x-forwarded-host": "proxied.example"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_cross_origin_requests_are_recognized(headers: dict[str, str], expected: bool) -> None:
    assert is_cross_origin(HERE | headers) is expected


def test_error_response_has_code_message_and_status() -> None:
    answer = error_response(ChatError("rate_limited", "Wait.", retry_after=29.6))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert answer.body == b'{"code":"rate_limited","message":"Wait."}'
    assert error_response(ChatError("rate_limited", "Delete some.")).headers["retry-after"] == "60"
    assert "retry-after" not in error_response(ChatError("busy", "Wait.")).headers


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


def client(auth: tuple[str, str] | None = None, logged_in: bool = False) -> httpx.AsyncClient:
    paths = "/ours", "/ours/deep", "/healthz", "/config"
    app: Any = Starlette(routes=[Route(path, echo, methods=["GET", "POST"]) for path in paths])
    ours = frozenset({"/ours", "/healthz"})
    rules = GuardConfig(
        ours, 1000, Identity("s").requester, Quota(LimitSettings(), RunRegistry()), auth, lambda _: logged_in
    )
    guarded = GuardMiddleware(app, rules)
    return httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://here")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/ours", 403), ("POST", "/ours/deep", 403), ("POST", "/config", 403), ("GET", "/config", 200)],
)
async def test_cross_origin_request_may_only_read_the_page(method: str, path: str, status: int) -> None:
    async with client() as http:
        answer = await http.request(method, path, headers={"origin": "http://evil.example"})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "authentication"


async def test_bodies_are_bounded_with_and_without_length() -> None:
    async def pieces() -> Any:
        for _ in range(20):
            yield b"x" * 100

    async with client() as http:
        assert (await http.post("/ours", content=b"x" * 1000)).json() == {"bytes": 1000}
        for body in (b"x" * 1001, pieces()):
            answer = await http.post("/ours", content=body)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert (await http.post("/config", content=b"x" * 5000)).status_code == 413


async def test_large_bodies_count_until_their_responses() -> None:
    go, waiting = asyncio.Event(), 0

    async def slow(request: Request) -> JSONResponse:
        nonlocal waiting
        size = len(await request.body())
        waiting += 1
        await go.wait()
        if request.query_params:
            raise ValueError("broken")
        return JSONResponse({"bytes": size})

    app: Any = Starlette(routes=[Route("/ours", slow, methods=["POST"])])
    quota = Quota(LimitSettings(), RunRegistry())
    guarded = GuardMiddleware(
        app, GuardConfig(frozenset({"/ours"}), 1000, Identity("s").requester, quota, upload_bytes={"/ours": 9000})
    )
    transport = httpx.ASGITransport(guarded, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        large = [asyncio.create_task(http.post("/ours" + "?fails=1" * (n == 0), content=b"x" * 5000)) for n in range(8)]
        await until(lambda: waiting == 8)
        refused = await asyncio.wait_for(http.post("/ours", content=b"x" * 5000), 10)
        assert (refused.status_code, refused.json()["code"]) == (409, "busy")
        large[-1].cancel()  # its slot is free at once
        await asyncio.gather(large[-1], return_exceptions=True)
        more = [asyncio.create_task(http.post("/ours", content=b"x" * size)) for size in (5000, 500)]
        await until(lambda: waiting == 10)
        go.set()
        assert [(await one).status_code for one in (*large[:-1], *more)] == [500] + [200] * 8
        again = await asyncio.gather(*(http.post("/ours", content=b"x" * 5000) for _ in range(8)))
        assert [one.json() for one in again] == [{"bytes": 5000}] * 8


def test_route_path_has_no_prefix() -> None:
    assert route_path({"path": "/x/backends", "root_path": "/x"}) == "/backends"
    assert route_path({"path": "/backends", "root_path": "/x"}) == "/backends"
    assert route_path({"path": "/xy", "root_path": "/x"}) == "/xy"
    assert route_path({"path": "/"}) == "/"


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("ann:one"), 200),
        (basic("ann:two"), 401),
        (basic("ann"), 401),
        (basic("änn:öne"), 401),
        ({"authorization": "Basic ???"}, 401),
        ({"authorization": "Bearer one"}, 401),
        ({"authorization": "Basic"}, 401),
    ],
)
async def test_routes_need_the_login(headers: dict[str, str], status: int) -> None:
    async with client(auth=("ann", "one")) as http:
        answer = await http.get("/ours", headers=headers)
        assert answer.status_code == status
        assert (await http.get("/healthz")).status_code == 200
    if status == 401:
        assert answer.json()["code"] == "authentication"
        assert answer.headers["www-authenticate"] == "Basic"


async def test_cookie_of_the_login_opens_the_routes() -> None:
    async with client(auth=("ann", "one"), logged_in=True) as http:
        assert (await http.get("/ours")).status_code == 200
