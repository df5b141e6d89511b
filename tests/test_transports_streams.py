"""Runs as Server-Sent Events, read by another SSE client (httpx-sse)."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from runs.live import LiveRun
from settings import LimitSettings, ToolSettings
from tests.conftest import scripted, until
from tests.grammar import check
from tests.live_app import Api, client_of, events_of, events_until_end, live_api, refused, socket_of
from transports import streams
from transports.chunks import in_chunks


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    backends = [scripted("Script"), scripted("Slow script", speed=5), scripted("Quick", speed=200)]
    limits = LimitSettings(abandoned_seconds=1, body_bytes=100_000, reply_tokens=4000)
    tools = ToolSettings(enabled=["calculator", "clock"], approval=["clock"])
    with live_api(tmp_path_factory.mktemp("streams"), backends=backends, limits=limits, tools=tools) as app:
        yield app


@pytest.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def ben(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def nobody(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    """An API client without a cookie."""
    async with client_of(app, cookie=False) as client:
        yield client


def run_of(app: Api, received: list[dict[str, Any]]) -> LiveRun:
    run = app.runs.find(received[0]["run_id"])
    assert run
    return run


async def started(client: httpx.AsyncClient, message: str, backend: str = "Slow script") -> str:
    """Starts a run that continues without followers; returns its id."""
    sent = {"message": message, "backend": backend}
    return str((await events_of(client, "POST", "/stream", most=1, json=sent))[0]["run_id"])


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_message_is_answered_by_its_runs_events(anna: httpx.AsyncClient, method: str) -> None:
    sent: Any = {"params": {"query": "tour"}} if method == "GET" else {"json": {"message": "tour"}}
    received = await events_of(anna, method, "/stream", **sent)
    check(received)
    assert received[-1]["type"] == "complete"
    assert {"reasoning", "tool_start", "tool_output", "tool_end"} <= {event["type"] for event in received}


async def test_response_names_its_run_and_is_not_buffered(app: Api, anna: httpx.AsyncClient) -> None:
    async with anna.stream("POST", "/stream", json={"message": "Hi"}) as answer:
        received = "".join([text async for text in answer.aiter_text()])
    headers = answer.headers
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    run = app.runs.find(headers["x-run-id"])
    assert run and run.conversation_id == headers["x-conversation-id"]
    assert "set-cookie" not in headers
    assert received.startswith("id: 1\nevent: run\ndata: {")
    assert "\nevent: done\n" in received and "event: complete" not in received
    failed = (await anna.post("/stream", json={"message": "cut"})).text
    assert "\nevent: failed\n" in failed and "event: error\n" not in failed


@pytest.mark.parametrize("kept", ["live", "in memory", "stored"])
async def test_run_is_followed_from_any_event_exactly_once(app: Api, anna: httpx.AsyncClient, kept: str) -> None:
    backend = "Slow script" if kept == "live" else "Script"
    run_id = await started(anna, "tour", backend)
    run = app.runs.find(run_id)
    assert run
    if kept != "live":
        await until(lambda: run.ended)
        if kept == "stored":
            app.runs.discard(run)
    path = f"/runs/{run_id}/events"
    followers = [events_of(anna, "GET", path, params={"after": after}) for after in range(0, 12, 3)]
    followers += [events_of(anna, "GET", path, headers={"Last-Event-ID": str(after)}) for after in (1, 7)]
    later = events_of(anna, "GET", path, params={"after": 2}, headers={"Last-Event-ID": "9"})
    *everyone, last = await asyncio.gather(*followers, later)
    whole = everyone[0]
    check(whole)
    for received, after in zip(everyone, [0, 3, 6, 9, 1, 7], strict=True):
        assert received == whole[after:]
    assert last == whole[9:], "Last-Event-ID has precedence over the address, which an EventSource keeps"
    for after in (len(whole), len(whole) + 1, 10**12):
        assert (await anna.get(path, params={"after": after})).status_code == 204
        assert (await anna.get(path, headers={"Last-Event-ID": str(after)})).status_code == 204
    assert (await anna.get(f"/runs/{run_id}")).text.count("\n") == len(whole)


async def test_stream_from_memory_equals_stream_from_store(app: Api, anna: httpx.AsyncClient) -> None:
    first = await anna.post("/stream", json={"message": "tour"})
    run_id = first.headers["x-run-id"]
    from_memory = await anna.get(f"/runs/{run_id}/events")
    run = app.runs.find(run_id)
    assert run
    app.runs.discard(run)
    from_store = await anna.get(f"/runs/{run_id}/events")
    assert first.content == from_memory.content == from_store.content
    assert from_store.headers["x-conversation-id"] == run.conversation_id
    async with socket_of(app, anna) as socket:
        await socket.send(json.dumps({"type": "resume", "run_id": run_id, "after": 2}))
        assert (await events_until_end(socket))[-1]["content"] == run.text


async def test_reconnected_eventsource_resumes_and_starts_no_run(
    app: Api, anna: httpx.AsyncClient, ben: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    params = {"query": "  tour\n", "backend": "Slow script"}
    first = await events_of(anna, "GET", "/stream", most=6, params=params)
    run = run_of(app, first)
    back = {"Last-Event-ID": "6"}
    before = len(app.runs._runs)
    for other_client in (ben, nobody):
        for headers in (back, {"Last-Event-ID": ""}):
            assert (await other_client.get("/stream", params=params, headers=headers)).status_code == 204
    others: list[dict[str, str]] = [
        {"query": "tour, please"},
        {"query": "tour", "backend": "Script"},
        {**params, "conversation_id": "x"},
    ]
    for other in others:
        assert (await anna.get("/stream", params=other, headers=back)).status_code == 204
    rest = await events_of(anna, "GET", "/stream", params=params, headers=back)
    check(first + rest)
    at_end = {"Last-Event-ID": str(rest[-1]["seq"])}
    assert (await anna.get("/stream", params=params, headers=at_end)).status_code == 204
    app.runs.discard(run)
    assert await events_of(anna, "GET", "/stream", params=params, headers=back) == rest
    assert (await anna.get("/stream", params=params, headers=at_end)).status_code == 204
    assert len(app.runs._runs) == before - 1


async def test_newest_run_of_a_query_is_resumed(anna: httpx.AsyncClient) -> None:
    older = await events_of(anna, "GET", "/stream", params={"query": "Hello twice"})
    newer = await events_of(anna, "GET", "/stream", params={"query": "Hello twice"})
    rest = await events_of(anna, "GET", "/stream", params={"query": "Hello twice"}, headers={"Last-Event-ID": "4"})
    assert rest == newer[4:] != older[4:]


async def test_stop_is_idempotent_and_answers_after_the_end(
    app: Api, anna: httpx.AsyncClient, ben: httpx.AsyncClient
) -> None:
    run_id = await started(anna, "endless")
    path = f"/runs/{run_id}/stop"
    await refused(await ben.post(path), 404, "not_found")
    following = asyncio.create_task(events_of(anna, "GET", f"/runs/{run_id}/events"))
    await asyncio.sleep(0.3)
    assert (await anna.post(path)).json() == {"status": "stopped"}
    received = await following
    check(received)
    assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "user")
    assert (await anna.post(path)).json() == {"status": "stopped"}
    run = run_of(app, received)
    app.runs.discard(run)
    assert (await anna.post(path)).json() == {"status": "stopped"}
    whole = await anna.post("/stream", json={"message": "Hi"})
    assert (await anna.post(f"/runs/{whole.headers['x-run-id']}/stop")).json() == {"status": "complete"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"approved": True}, "Europe/Paris"),
        ({"approved": True, "input": {"time_zone": "Asia/Tokyo"}}, "Asia/Tokyo"),
        ({"approved": False}, "refused"),
    ],
)
async def test_approval_is_answered_once(
    app: Api, anna: httpx.AsyncClient, ben: httpx.AsyncClient, answer: dict[str, Any], expected: str
) -> None:
    run_id = await started(anna, "/clock Europe/Paris", "Script")
    run = app.runs.find(run_id)
    assert run
    await until(lambda: run.tool_calls.awaiting_approval)
    given = {"tool_call_id": run.tool_calls.awaiting_approval[0], **answer}
    path = f"/runs/{run_id}/approve"
    await refused(await ben.post(path, json=given), 404, "not_found")
    await refused(await anna.post(path, json={**given, "tool_call_id": "x"}), 409, "busy")
    for wrong in ({}, {**given, "approved": "yes"}, {**given, "input": [1]}, {**given, "more": 1}):
        await refused(await anna.post(path, json=wrong), 400, "invalid_request")
    assert (await anna.post(path, json=given)).status_code == 200
    received = await events_of(anna, "GET", f"/runs/{run_id}/events")
    check(received)
    assert expected in next(str(event) for event in received if event["type"] == "tool_end")
    await refused(await anna.post(path, json=given), 409, "busy")
    app.runs.discard(run)
    await refused(await anna.post(path, json=given), 409, "busy")


async def test_conversation_keeps_its_options(anna: httpx.AsyncClient) -> None:
    first = {"message": "One", "backend": "Quick", "memory": "full", "system_prompt": "Be kind.", "tools": []}
    received = await events_of(anna, "POST", "/stream", json=first)
    conversation_id = received[0]["conversation_id"]
    received = await events_of(anna, "GET", "/stream", params={"query": "Two", "conversation_id": conversation_id})
    assert (received[0]["backend"], received[0]["memory"]) == ("Quick", "full")
    given = next(event for event in received if event["type"] == "context")["messages"]
    assert [m["content"] for m in given][:2] == ["Be kind.", "One"] and given[-1]["content"] == "Two"
    more = {"message": "Three", "conversation_id": conversation_id, "memory": "none", "temperature": 0}
    received = await events_of(anna, "POST", "/stream", json=more)
    given = next(event for event in received if event["type"] == "context")["messages"]
    assert [m["content"] for m in given] == ["Be kind.", "Three"]


async def test_empty_conversation_id_is_ignored(anna: httpx.AsyncClient) -> None:
    received = await events_of(anna, "GET", "/stream", params={"query": "Hi", "conversation_id": "", "backend": ""})
    check(received)


async def test_second_run_in_a_conversation_is_busy(anna: httpx.AsyncClient) -> None:
    received = await events_of(anna, "POST", "/stream", most=1, json={"message": "endless", "backend": "Slow script"})
    here = {"message": "Hi", "conversation_id": received[0]["conversation_id"]}
    await refused(await anna.post("/stream", json=here), 409, "busy")
    await anna.post(f"/runs/{received[0]['run_id']}/stop")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("sent", "status", "code", "says"),
    [
        ({}, 400, "invalid_request", "JSON"),
        ({"content": b"{", "headers": JSON}, 400, "invalid_request", "JSON"),
        ({"content": b'{"message":"\xff"}', "headers": JSON}, 400, "invalid_request", "body"),
        ({"content": b"[" * 50_000, "headers": JSON}, 400, "invalid_request", "body"),
        ({"content": b'{"message":"x"}'}, 400, "invalid_request", "Content-Type: application/json"),
        ({"content": b'{"message":"x","temperature":NaN}', "headers": JSON}, 400, "invalid_request", "temperature"),
        ({"json": []}, 400, "invalid_request", "JSON object"),
        ({"json": {}}, 400, "invalid_request", "message"),
        ({"json": {"message": 5}}, 400, "invalid_request", "message"),
        ({"json": {"message": None}}, 400, "invalid_request", "message"),
        ({"json": {"message": " \n "}}, 400, "invalid_request", "empty"),
        ({"json": {"message": "x" * 40_000}}, 413, "too_large", "32,000"),
        ({"json": {"message": "x" * 110_000}}, 413, "too_large", "100,000"),
        ({"json": {"message": "x", "massage": 1}}, 400, "invalid_request", "massage"),
        ({"json": {"message": "x", "temperature": "0.5"}}, 400, "invalid_request", "temperature"),
        ({"json": {"message": "x", "temperature": 5}}, 400, "invalid_request", "temperature"),
        ({"json": {"message": "x", "max_tokens": 0}}, 400, "invalid_request", "max reply length"),
        ({"json": {"message": "x", "max_tokens": 10**30}}, 400, "invalid_request", "max reply length"),
        ({"json": {"message": "x", "tools": "clock"}}, 400, "invalid_request", "tools"),
        ({"json": {"message": "x", "tools": ["hammer"]}}, 400, "invalid_request", "hammer"),
        ({"json": {"message": "x", "backend": "nope"}}, 404, "not_found", "'Script'"),
        ({"json": {"message": "x", "memory": "nope"}}, 404, "not_found", "window"),
        ({"json": {"message": "x", "conversation_id": "nope"}}, 404, "not_found", "conversation"),
        ({"json": {"message": "x", "conversation_id": "x" * 1000}}, 400, "invalid_request", "conversation_id"),
    ],
)
async def test_invalid_request_is_refused_and_starts_no_run(
    app: Api, nobody: httpx.AsyncClient, sent: Any, status: int, code: str, says: str
) -> None:
    before = set(app.runs._runs)
    assert says in await refused(await nobody.post("/stream", **sent), status, code)
    assert set(app.runs._runs) == before


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/stream", 400, "query"),
        ("GET", "/stream?query=", 400, "empty"),
        ("GET", "/stream?query=x&more=1", 400, "more"),
        ("GET", "/stream?query=x&temperature=x", 400, "temperature"),
        ("GET", "/stream?query=x&backend=nope", 404, "nope"),
        ("PUT", "/stream", 405, "GET, POST"),
        ("GET", "/runs", 404, "/docs"),
        ("GET", "/runs/nope/events", 404, "no such run"),
        ("GET", "/runs/nope/events?after=-1", 400, "after"),
        ("GET", "/runs/nope/events?after=x", 400, "after"),
        ("POST", "/runs/nope/stop", 404, "no such run"),
        ("GET", "/runs/nope/stop", 405, "POST"),
        ("DELETE", "/runs/nope", 405, "GET"),
        ("GET", "/runs/%00%ff/events", 404, "no such run"),
        ("GET", "/ws/chat", 404, "/docs"),
    ],
)
async def test_unknown_path_or_method_is_an_error_response(
    nobody: httpx.AsyncClient, method: str, path: str, status: int, says: str
) -> None:
    answer = await nobody.request(method, path)
    code = "invalid_request" if status in (400, 405) else "not_found"
    assert says in await refused(answer, status, code)
    if status == 405:
        assert answer.headers["allow"] in says


@pytest.mark.parametrize("last", ["-1", "x", "1e5", "9" * 30, "5\t6", "5; x", "٣"])
async def test_invalid_last_event_id_is_refused(app: Api, anna: httpx.AsyncClient, last: str) -> None:
    run_id = await started(anna, "Hi", "Script")
    sent: Any = {"headers": {"Last-Event-ID": last.encode()}}
    for path in (f"/runs/{run_id}/events", "/stream?query=Hi"):
        assert "Last-Event-ID" in await refused(await anna.get(path, **sent), 400, "invalid_request")


async def test_query_cannot_inject_a_header(app: Api) -> None:
    url = urlsplit(app.url)
    assert url.hostname and url.port
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(b"GET /runs/x/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1\rX: 2\x00\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 4")


async def test_page_of_another_site_starts_no_run(app: Api, anna: httpx.AsyncClient) -> None:
    before = set(app.runs._runs)
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        for method, sent in (("GET", {"params": {"query": "Hi"}}), ("POST", {"json": {"message": "Hi"}})):
            answer = await anna.request(method, "/stream", headers=headers, **sent)  # type: ignore[arg-type]
            await refused(answer, 403, "authentication")
    assert set(app.runs._runs) == before


async def test_a_run_without_owner_ends_soon_after_its_last_follower(app: Api, nobody: httpx.AsyncClient) -> None:
    run = app.runs.find(await started(nobody, "endless"))
    assert run
    async with client_of(app, cookie=False) as other:
        await events_of(other, "GET", f"/runs/{run.id}/events", most=40)
    begun = time.monotonic()
    await until(lambda: run.ended)
    assert run.log.entries[-1].wire()["reason"] == "abandoned"
    assert 0.5 < time.monotonic() - begun < 10
    received = await events_of(nobody, "GET", f"/runs/{run.id}/events")
    check(received)


async def test_run_with_owner_continues_without_followers(app: Api, anna: httpx.AsyncClient) -> None:
    run = app.runs.find(await started(anna, "endless"))
    assert run
    await until(lambda: run.log.followers == 0)
    await asyncio.sleep(2)
    assert not run.ended
    await anna.post(f"/runs/{run.id}/stop")


async def test_a_silent_run_has_a_heartbeat(anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.1)
    comments = 0
    async with anna.stream("POST", "/stream", json={"message": "hang", "backend": "Slow script"}) as answer:
        async for line in answer.aiter_lines():
            comments += line.startswith(":")
            if comments == 3:
                break
    await anna.post(f"/runs/{answer.headers['x-run-id']}/stop")


async def test_heartbeats_are_sent_only_between_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is slower than the heartbeat, and so are the pauses between events."""
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.01)
    bodies = [f'{{"text":"{letter * 200_000}"}}' for letter in "xä"]
    sent = list[bytes]()

    async def written() -> AsyncIterator[bytes]:
        for seq, body in enumerate(bodies, 1):
            async for piece in in_chunks([(f"id: {seq}\nevent: token\ndata: ", body, "\n\n")]):
                yield piece
            before = len(sent)
            await until(lambda: len(sent) > before)  # noqa: B023 - awaited here

    async def send(message: Any) -> None:
        await asyncio.sleep(0.03)
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    await streams.SSEResponse(written())({"type": "http", "method": "GET", "path": "/"}, receive, send)
    events = b"".join(sent).decode().split("\n\n")
    comments = [event for event in events if event.startswith(":")]
    assert len(comments) >= 2
    assert [event.partition("data: ")[2] for event in events if event and event not in comments] == bodies


async def test_follower_that_does_not_read_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "_SEND_S", 0.5)
    endless = scripted("Endless", speed=50, context=100_000)
    with live_api(tmp_path, backends=[endless], limits=LimitSettings(reply_tokens=40_000)) as app:
        server: Any = app.server
        for listening in server.servers[0].sockets:  # else the system's buffer holds a whole reply
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with client_of(app) as anna:
            run = app.runs.find(await started(anna, "endless", "Endless"))
            assert run
            deaf = [_deaf(app, f"/runs/{run.id}/events", anna.cookies["glassbox_visitor"]) for _ in range(5)]
            await until(lambda: run.log.followers == 5)
            hearing = asyncio.create_task(events_of(anna, "GET", f"/runs/{run.id}/events"))
            await until(lambda: run.log.followers == 6)
            await until(lambda: run.log.followers == 1)
            assert not run.ended, "they were not disconnected by the end of the run"
            await anna.post(f"/runs/{run.id}/stop")
            check(await hearing)
        for one in deaf:
            one.close()
    assert not [record for record in caplog.records if record.exc_info]


def _deaf(app: Api, path: str, cookie: str) -> socket.socket:
    url = urlsplit(app.url)
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((url.hostname, url.port))
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nCookie: glassbox_visitor={cookie}\r\n\r\n".encode())
    return one
