"""The WebSocket of a running app, with the library `websockets` as its client."""

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from settings import LimitSettings, ToolSettings
from tests.conftest import scripted, until
from tests.grammar import check
from tests.live_app import Api, client_of, events_of, events_until_end, live_api, next_event, socket_of


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    backends = [scripted("Script"), scripted("Slow script", speed=5)]
    limits = LimitSettings(abandoned_seconds=1, body_bytes=100_000)
    tools = ToolSettings(enabled=["calculator", "clock"], approval=["clock"])
    with live_api(tmp_path_factory.mktemp("socket"), backends=backends, limits=limits, tools=tools) as app:
        yield app


@pytest.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def message(text: str, **more: Any) -> str:
    return json.dumps({"message": text, **more})


async def test_a_conversation_of_two_turns(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app, anna) as socket:
        await socket.send(message("tour", memory="full"))
        first = await events_until_end(socket)
        check(first)
        await socket.send(message("And?", conversation_id=first[0]["conversation_id"]))
        second = await events_until_end(socket)
        check(second)
    assert second[0]["memory"] == "full"
    given = next(event for event in second if event["type"] == "context")["messages"]
    asked = [m["content"] for m in given if m["role"] == "user"]
    assert [one.partition("\n")[0] for one in asked] == ["tour", "And?"]
    assert asked[0].endswith("391"), "the result of its tool"
    assert await events_of(anna, "GET", f"/runs/{first[0]['run_id']}/events") == first


async def test_one_run_at_a_time_and_a_stop_that_ends_it(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app, anna) as socket:
        await socket.send(message("endless", backend="Slow script"))
        begun = await next_event(socket)
        await socket.send(message("Hi"))
        await socket.send(json.dumps({"type": "resume", "run_id": begun["run_id"]}))
        await socket.send('{"type": "ping"}')
        events, others = [begun], []
        while len(others) < 3:
            event = await next_event(socket)
            (events if "seq" in event else others).append(event)
        assert [other.get("code", other["type"]) for other in others] == ["busy", "busy", "pong"]
        for _ in range(3):
            await socket.send('{"type": "stop"}')
        events += await events_until_end(socket)
        check(events)
        assert events[-1]["reason"] == "user"
        await socket.send(message("Hi"))
        check(await events_until_end(socket))


@pytest.mark.parametrize("stored", [False, True])
async def test_another_socket_resumes_a_run_from_any_event(app: Api, anna: httpx.AsyncClient, stored: bool) -> None:
    async with socket_of(app, anna) as socket:
        await socket.send(message("tour", backend="Script" if stored else "Slow script"))
        begun = [await next_event(socket) for _ in range(5)]
    run = app.runs.find(begun[0]["run_id"])
    assert run
    if stored:
        await until(lambda: run.ended)
        app.runs.discard(run)
    async with socket_of(app, anna) as one, socket_of(app, anna) as other:
        await one.send(json.dumps({"type": "resume", "run_id": run.id, "after": 5}))
        await other.send(json.dumps({"type": "resume", "run_id": run.id}))
        rest, whole = await events_until_end(one), await events_until_end(other)
    check(whole)
    assert begun + rest == whole


async def test_run_of_another_visitor_cannot_be_resumed(app: Api, anna: httpx.AsyncClient) -> None:
    run_id = (await anna.post("/stream", json={"message": "Hi"})).headers["x-run-id"]
    async with client_of(app) as ben, socket_of(app, ben) as his, socket_of(app) as nobodys:
        for socket in (his, nobodys):
            await socket.send(json.dumps({"type": "resume", "run_id": run_id}))
            assert (await next_event(socket))["code"] == "not_found"


async def test_approval_is_answered_over_the_socket(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app, anna) as socket:
        await socket.send(message("/clock Europe/Paris"))
        event = await next_event(socket)
        while event["type"] != "approval":
            event = await next_event(socket)
        answer = {"type": "approve", "tool_call_id": event["tool_call_id"], "approved": True}
        await socket.send(json.dumps({**answer, "tool_call_id": "x"}))
        while "seq" in (event := await next_event(socket)):
            pass
        assert event["code"] == "busy"
        await socket.send(json.dumps({**answer, "input": {"time_zone": "Asia/Tokyo"}}))
        events = await events_until_end(socket)
    assert "Asia/Tokyo" in next(event["output"] for event in events if event["type"] == "tool_end")


BAD: list[tuple[Any, str, str]] = [
    ("{", "invalid_request", "not JSON"),
    ("[" * 50_000, "invalid_request", "not JSON"),
    ("[]", "invalid_request", "JSON object"),
    ('"x"', "invalid_request", "JSON object"),
    ("", "invalid_request", "not JSON"),
    (b"\x00\xff", "invalid_request", "binary"),
    (b'{"type": "ping"}', "invalid_request", "binary"),
    ('{"type": "nope"}', "invalid_request", "resume"),
    ('{"type": 5}', "invalid_request", "allowed"),
    ('{"type": null}', "invalid_request", "allowed"),
    ("{}", "invalid_request", "message"),
    (json.dumps(dict.fromkeys(map(str, range(101)))), "invalid_request", "found 101 fields, allowed: at most 100"),
    (json.dumps({"type": "ping", **dict.fromkeys(map(str, range(200)))}), "invalid_request", "found 201 fields"),
    ('{"message": 5}', "invalid_request", "message"),
    ('{"message": ""}', "invalid_request", "empty"),
    ('{"message": "x", "more": 1}', "invalid_request", "more"),
    ('{"message": "x", "backend": "nope"}', "not_found", "nope"),
    ('{"message": "x", "memory": "nope"}', "not_found", "nope"),
    ('{"message": "x", "conversation_id": "nope"}', "not_found", "conversation"),
    ('{"message": "x", "temperature": NaN}', "invalid_request", "temperature"),
    ('{"type": "stop"}', "invalid_request", "no run"),
    ('{"type": "approve"}', "invalid_request", "tool_call_id"),
    ('{"type": "approve", "tool_call_id": "x", "approved": true}', "busy", "approval"),
    ('{"type": "resume"}', "invalid_request", "run_id"),
    ('{"type": "resume", "run_id": "nope"}', "not_found", "no such run"),
    ('{"type": "resume", "run_id": "nope", "after": -1}', "invalid_request", "after"),
    ('{"type": "resume", "run_id": "nope", "after": "1"}', "invalid_request", "after"),
]


async def test_invalid_message_is_an_error_and_the_socket_stays_open(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app, anna) as socket:
        for sent, code, says in BAD:
            await socket.send(sent)
            event = await next_event(socket)
            assert (event["type"], event["code"]) == ("error", code), sent[:80]
            assert says in event["message"]
            assert "seq" not in event
        await socket.send(message("Hi"))
        check(await events_until_end(socket))


@pytest.mark.parametrize("sent", ["x" * 100_001, "é" * 50_001, ["x" * 60_000, "y" * 60_000], b"x" * 10_000_000])
async def test_an_oversized_message_closes_its_socket_with_a_reason(app: Api, sent: Any) -> None:
    async with socket_of(app) as other:
        async with socket_of(app) as socket:
            await socket.send(sent)
            event = await next_event(socket)
            assert (event["type"], event["code"]) == ("error", "too_large")
            assert "at most 100,000 bytes" in event["message"] and "seq" not in event
            with pytest.raises(ConnectionClosedError) as closed:
                await socket.recv()
        assert closed.value.rcvd and closed.value.rcvd.code == 1009
        await other.send('{"type": "ping"}')
        assert (await next_event(other))["type"] == "pong"


async def test_a_message_of_the_largest_size_is_read(app: Api) -> None:
    async with socket_of(app) as socket:
        await socket.send("x" * 100_000)
        assert "not JSON" in (await next_event(socket))["message"]


async def test_thousand_messages_a_second_do_not_block_others(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app) as flood, socket_of(app, anna) as calm:
        for n in range(1000):
            await flood.send("{" if n % 2 else '{"type": "ping"}')
        await calm.send(message("Hi"))
        begun = time.monotonic()
        check(await events_until_end(calm))
        assert time.monotonic() - begun < 10
        kinds = [(await next_event(flood))["type"] for _ in range(1000)]
        assert kinds == ["pong", "error"] * 500


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1"])
async def test_page_of_another_site_is_refused_in_the_handshake(app: Api, anna: httpx.AsyncClient, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with socket_of(app, anna, headers={"Origin": origin}):
            pass
    answer = refusal.value.response
    assert (answer.status_code, json.loads(answer.body)["code"]) == (403, "authentication")


async def test_own_page_may_connect(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app, anna, headers={"Origin": app.url.rstrip("/")}) as socket:
        await socket.send('{"type": "ping"}')
        assert await next_event(socket) == {"type": "pong"}


async def test_socket_needs_the_login(tmp_path: Path) -> None:
    with live_api(tmp_path, auth=("ann", "one")) as closed:
        for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"ann:two").decode()}):
            with pytest.raises(InvalidStatus) as refusal:
                async with socket_of(closed, headers=headers):
                    pass
            assert refusal.value.response.status_code == 401
        async with socket_of(closed, headers={"Authorization": "Basic " + base64.b64encode(b"ann:one").decode()}) as it:
            await it.send('{"type": "ping"}')
            assert await next_event(it) == {"type": "pong"}


async def test_a_run_without_owner_ends_soon_after_its_socket(app: Api) -> None:
    async with socket_of(app) as socket:
        await socket.send(message("endless", backend="Slow script"))
        run = app.runs.find((await next_event(socket))["run_id"])
        assert run
        await until(lambda: run.log.followers == 1)
    await until(lambda: run.ended)
    assert run.log.entries[-1].wire()["reason"] == "abandoned"


async def test_a_socket_that_answers_no_ping_is_closed(app: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    config: Any = app.server.config
    assert config.ws_ping_interval + config.ws_ping_timeout < 30
    monkeypatch.setattr(config, "ws_ping_interval", 0.2)
    monkeypatch.setattr(config, "ws_ping_timeout", 0.3)
    url = urlsplit(app.url)
    assert url.hostname and url.port
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws/chat HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    received = await asyncio.wait_for(reader.read(), 10)  # to the end: it was closed
    writer.close()
    assert received.startswith(b"HTTP/1.1 101")


async def test_socket_that_does_not_read_does_not_block_others(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app, anna, max_queue=1) as deaf, socket_of(app, anna) as calm:
        await deaf.send(message("endless"))
        run_id = (await next_event(deaf))["run_id"]
        await calm.send(json.dumps({"type": "resume", "run_id": run_id}))
        whole = await events_until_end(calm)
        check(whole)
        late = await events_until_end(deaf)
    assert late == whole[1:]
