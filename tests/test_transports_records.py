"""The record of a run over HTTP: its owner and its growth."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.turn import TurnRequest
from runs.events import Entry, Status
from runs.live import LiveRun
from tests.grammar import check
from tests.live_app import Api, live_api
from transports.chunks import _EVENTS, in_chunks

ODD = "one\u2028two\u0085three\nfour"
"""Contains characters that some programs take for the end of a line."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with live_api(tmp_path_factory.mktemp("records")) as app:
        yield app


@pytest.fixture
def http(app: Api) -> Iterator[httpx.Client]:
    """A client without a cookie."""
    with httpx.Client(base_url=app.url, timeout=20) as client:
        yield client


@pytest.fixture
def anna(app: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app.url, timeout=20) as client:
        client.get("/example").raise_for_status()
        yield client


@pytest.fixture
def ben(app: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app.url, timeout=20) as client:
        client.get("/example").raise_for_status()
        yield client


def started(app: Api, client: httpx.Client, message: str, backend: str = "Slow script") -> LiveRun:
    assert app._loop
    ask = TurnRequest(message, app.identity.visitor(client.cookies), backend=backend)
    return asyncio.run_coroutine_threadsafe(app.turns.start(ask), app._loop).result(timeout=10)


def stopped(app: Api, run: LiveRun) -> None:
    assert app._loop
    asyncio.run_coroutine_threadsafe(run.stop("user"), app._loop).result(timeout=10)


def ended(app: Api, client: httpx.Client, message: str = ODD) -> LiveRun:
    run = started(app, client, message, "Script")
    for _ in range(500):
        if run.ended:
            return run
        time.sleep(0.02)
    raise AssertionError(run.state)


def forget(app: Api, run: LiveRun) -> None:
    """Drops a run from memory, so that only the store has it."""
    app.runs.discard(run)


def events_in(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert answer.headers["cache-control"] == "no-cache"
    assert "set-cookie" not in answer.headers
    lines = answer.text.split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    return str(answer.json()["message"])


def test_an_ended_run_is_the_same_from_memory_and_from_the_store(app: Api, anna: httpx.Client) -> None:
    run = ended(app, anna)
    from_memory = anna.get(f"/runs/{run.id}")
    check(events_in(from_memory))
    assert from_memory.headers["x-run-live"] == "0"
    asked = next(event for event in events_in(from_memory) if event["type"] == "context")
    assert asked["messages"][-1]["content"] == ODD
    forget(app, run)
    from_store = anna.get(f"/runs/{run.id}")
    assert (from_store.text, from_store.headers["x-run-live"]) == (from_memory.text, "0")


def test_a_live_run_grows_to_its_whole_record(app: Api, anna: httpx.Client) -> None:
    run = started(app, anna, "endless")
    events: list[dict[str, Any]] = []
    while len(events) < 60:
        more = anna.get(f"/runs/{run.id}", params={"after": len(events)})
        assert more.headers["x-run-live"] == "1"
        events += events_in(more)
        time.sleep(0.05)
    stopped(app, run)
    more = anna.get(f"/runs/{run.id}", params={"after": len(events)})
    assert more.headers["x-run-live"] == "0"
    events += events_in(more)
    check(events)
    assert events[-1]["type"] == "stopped"
    assert events_in(anna.get(f"/runs/{run.id}")) == events


@pytest.mark.parametrize("stored", [False, True])
def test_record_starts_after_the_given_event(app: Api, anna: httpx.Client, stored: bool) -> None:
    run = ended(app, anna)
    most = len(run.log.entries)
    if stored:
        forget(app, run)
    for after in (0, 1, 5, most - 1, most, most + 1, 10**30):
        events = events_in(anna.get(f"/runs/{run.id}", params={"after": after}))
        assert [event["seq"] for event in events] == list(range(min(after, most) + 1, most + 1))


@pytest.mark.parametrize("after", ["-1", "1.5", "x", ""])
def test_invalid_after_is_refused(app: Api, anna: httpx.Client, after: str) -> None:
    run = ended(app, anna)
    assert "after" in refused(anna.get(f"/runs/{run.id}", params={"after": after}), 400, "invalid_request")


def test_run_of_another_visitor_is_not_found(
    app: Api, anna: httpx.Client, ben: httpx.Client, http: httpx.Client
) -> None:
    live, done, stored = started(app, anna, "endless"), ended(app, anna), ended(app, anna)
    forget(app, stored)
    for run in (live, done, stored):
        assert anna.get(f"/runs/{run.id}").status_code == 200
        for other_client in (ben, http):
            answer = other_client.get(f"/runs/{run.id}")
            refused(answer, 404, "not_found")
            assert answer.content == other_client.get("/runs/never-was").content
            assert "x-run-live" not in answer.headers
    stopped(app, live)


@pytest.mark.parametrize("run_id", ["x", "%00", "%ff", "%2e%2e", "a" * 2000, "' OR 1=1 --"])
def test_unknown_run_is_not_found(http: httpx.Client, run_id: str) -> None:
    refused(http.get(f"/runs/{run_id}"), 404, "not_found")


def test_run_without_owner_is_open_to_all_who_have_its_id(app: Api, anna: httpx.Client, http: httpx.Client) -> None:
    run = ended(app, http)
    assert events_in(anna.get(f"/runs/{run.id}"))
    forget(app, run)
    assert events_in(anna.get(f"/runs/{run.id}")) == events_in(http.get(f"/runs/{run.id}"))


@pytest.mark.parametrize("stored", [False, True])
def test_record_is_deleted_with_its_conversation(app: Api, anna: httpx.Client, stored: bool) -> None:
    run = ended(app, anna)
    if stored:
        forget(app, run)
    assert anna.delete(f"/conversations/{run.conversation_id}").status_code == 204
    refused(anna.get(f"/runs/{run.id}"), 404, "not_found")


async def test_long_record_yields_to_other_tasks() -> None:
    entries = [Entry(seq, "r", 0.0, Status("streaming", "x")) for seq in range(1, 5001)]
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    text = b"".join([piece async for piece in in_chunks(("", entry.json, "\n") for entry in entries)]).decode()
    working.cancel()
    assert text == "".join(f"{entry.json}\n" for entry in entries)
    assert turns >= len(entries) / _EVENTS - 1


def test_record_is_refused_to_other_sites_and_without_login(app: Api, anna: httpx.Client, tmp_path: Path) -> None:
    run = ended(app, anna)
    refused(anna.get(f"/runs/{run.id}", headers={"origin": "http://evil.example"}), 403, "authentication")
    with live_api(tmp_path, auth=("ann", "one")) as closed:
        with httpx.Client(base_url=closed.url, timeout=20) as client:
            refused(client.get("/runs/x"), 401, "authentication")
            refused(client.get("/runs/x", auth=("ann", "one")), 404, "not_found")


def test_the_example_run_is_everybodys(http: httpx.Client, anna: httpx.Client) -> None:
    lines = http.get("/runs/example").raise_for_status().text.splitlines()
    sent = [json.loads(line) for line in lines]
    check(sent)
    assert {"reasoning", "tool_output", "token"} <= {event["type"] for event in sent} and sent[-1]["type"] == "complete"
    assert anna.get("/runs/example").text.splitlines() == lines
    followed = http.get("/runs/example/events", params={"after": 200}).raise_for_status().text
    assert [json.loads(line[6:]) for line in followed.splitlines() if line.startswith("data: ")] == sent[200:]
    assert http.get("/runs/example/events", params={"after": len(sent)}).status_code == 204
    assert http.get("/runs/example/context").json()["contexts"]
    assert http.post("/runs/example/stop").json()["status"] == "complete"
    assert http.post("/runs/example/approve", json={"tool_call_id": "x", "approved": True}).status_code == 409
