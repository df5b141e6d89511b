"""The batch route of a running app: prompts x backends x memory modes over one stream."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runs.errors import ChatError
from settings import BackendSettings, LimitSettings
from tests.conftest import scripted, until
from tests.grammar import check
from tests.live_app import Api, Events, client_of, events_of, live_api, refused


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    gone = BackendSettings(name="Gone", kind="langchain", **{"class": "no_such_package:Model"})
    keyed = BackendSettings(name="Keyed", kind="openai", model="m", key="NO_SUCH_KEY")
    backends = [scripted("Script"), scripted("Slow script", speed=5), gone, keyed]
    limits = LimitSettings(runs=6)
    with live_api(tmp_path_factory.mktemp("batch"), backends=backends, limits=limits) as app:
        yield app


@pytest.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def cells(received: Events) -> dict[int, Events]:
    """The events of each cell, in order."""
    assert received[-1]["type"] == "batch_done"
    found: dict[int, Events] = {}
    for event in received[:-1]:
        assert "seq" in event
        found.setdefault(event.pop("index"), []).append(event)
    for events in found.values():
        check(events)
    return found


async def run_batch(client: httpx.AsyncClient, **given: Any) -> dict[int, Events]:
    return cells(await events_of(client, "POST", "/batch", json=given))


async def test_every_combination_is_a_cell_with_its_index(anna: httpx.AsyncClient) -> None:
    prompts, backends, memory = ["Hi", "tour", "cut"], ["Script", "Slow script"], ["none", "full"]
    found = await run_batch(anna, prompts=prompts, backends=backends, memory=memory)
    assert sorted(found) == list(range(12))
    for index, events in found.items():
        p, b, m = index // 4, index // 2 % 2, index % 2
        assert (events[0]["backend"], events[0]["memory"]) == (backends[b], memory[m])
        context = next(event for event in events if event["type"] == "context")
        assert context["messages"][-1]["content"] == prompts[p]
        assert events[-1]["type"] == ("error" if prompts[p] == "cut" else "complete")


async def test_failed_cell_does_not_affect_the_others(anna: httpx.AsyncClient) -> None:
    found = await run_batch(anna, prompts=["Hi"], backends=["Gone", "Script", "Keyed"])
    assert [found[index][-1]["type"] for index in range(3)] == ["error", "complete", "error"]
    assert (found[0][-1]["code"], found[2][-1]["code"]) == ("backend_unavailable", "missing_key")


async def test_cells_run_in_parallel_up_to_a_limit(app: Api, anna: httpx.AsyncClient) -> None:
    """The app has fewer slots than cells: those that wait do not fail."""
    most, done = 0, asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, sum(1 for _ in app.runs.live()))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    found = await run_batch(anna, prompts=[f"Hi {n}" for n in range(9)], backends=["Slow script"])
    done.set()
    await watching
    assert {events[-1]["type"] for events in found.values()} == {"complete"}
    assert 2 <= most <= 4


async def test_batch_stores_nothing(app: Api, anna: httpx.AsyncClient) -> None:
    found = await run_batch(anna, prompts=["tell nobody"], system_prompt="Be kind.", max_tokens=50)
    run, context = found[0][0], next(event for event in found[0] if event["type"] == "context")
    assert context["messages"][0]["content"] == "Be kind."
    await refused(await anna.get(f"/runs/{run['run_id']}"), 404, "not_found")
    await refused(await anna.get(f"/conversations/{run['conversation_id']}"), 404, "not_found")
    assert app.runs.find(run["run_id"]) is None
    kept = b"".join(file.read_bytes() for file in app.settings.data.glob("glassbox.db*"))
    assert b"tell nobody" not in kept


async def test_cell_is_approved_and_stopped_by_its_run_id(app: Api, anna: httpx.AsyncClient) -> None:
    batch = asyncio.create_task(run_batch(anna, prompts=["approval", "endless"], backends=["Slow script"]))
    await until(
        lambda: len(list(app.runs.live())) == 2 and any(run.tool_calls.awaiting_approval for run in app.runs.live())
    )
    asked = next(run for run in app.runs.live() if run.tool_calls.awaiting_approval)
    other = next(run for run in app.runs.live() if run is not asked)
    given = {"tool_call_id": asked.tool_calls.awaiting_approval[0], "approved": True}
    async with client_of(app) as ben:
        await refused(await ben.post(f"/runs/{asked.id}/approve", json=given), 404, "not_found")
        await refused(await ben.post(f"/runs/{other.id}/stop"), 404, "not_found")
    assert (await anna.post(f"/runs/{asked.id}/approve", json=given)).status_code == 200
    assert (await anna.post(f"/runs/{other.id}/stop")).json() == {"status": "stopped"}
    found = await batch
    assert [found[index][-1]["type"] for index in (0, 1)] == ["complete", "stopped"]


async def test_runs_end_when_their_reader_leaves(app: Api, anna: httpx.AsyncClient) -> None:
    received = await events_of(
        anna, "POST", "/batch", most=30, json={"prompts": ["endless"] * 3, "backends": ["Slow script"]}
    )
    assert received
    await until(lambda: not any(app.runs.find(run_id) for run_id in {event["run_id"] for event in received}))


@pytest.mark.parametrize(
    ("given", "status", "code", "says"),
    [
        ({}, 400, "invalid_request", "prompts"),
        ({"prompts": "Hi"}, 400, "invalid_request", "prompts"),
        ({"prompts": []}, 400, "invalid_request", "at least 1"),
        ({"prompts": [5]}, 400, "invalid_request", "prompts.0"),
        ({"prompts": [" "]}, 400, "invalid_request", "empty"),
        ({"prompts": ["x"] * 300}, 400, "invalid_request", "256"),
        ({"prompts": ["x"] * 200, "memory": ["none", "full"]}, 413, "too_large", "400"),
        ({"prompts": ["x"], "backends": []}, 400, "invalid_request", "backends"),
        ({"prompts": ["x"], "backends": ["nope"]}, 404, "not_found", "nope"),
        ({"prompts": ["x"], "memory": ["nope"]}, 404, "not_found", "nope"),
        ({"prompts": ["x"], "tools": ["nope"]}, 400, "invalid_request", "nope"),
        ({"prompts": ["x"], "temperature": 9}, 400, "invalid_request", "temperature"),
        ({"prompts": ["x"], "conversation_id": "x"}, 400, "invalid_request", "conversation_id"),
    ],
)
async def test_batch_that_no_cell_could_answer_is_refused(
    app: Api, anna: httpx.AsyncClient, given: Any, status: int, code: str, says: str
) -> None:
    assert says in await refused(await anna.post("/batch", json=given), status, code)
    assert not list(app.runs.live())


async def test_costs_of_a_batch_count_for_the_visitors_day(tmp_path: Path) -> None:
    priced = scripted("Priced").model_copy(update={"price": [1000.0, 2000.0]})
    with live_api(tmp_path, backends=[priced]) as app:
        async with client_of(app) as anna, client_of(app) as ben:
            found = await run_batch(anna, prompts=["Hi", "Hello"], memory=["none"])
            spent = sum(events[-1]["usage"]["cost_usd"] for events in found.values())
            assert spent > 0
            mine, theirs = [await events_of(one, "POST", "/stream", json={"message": "Hi"}) for one in (anna, ben)]
    for events, earlier in ((mine, spent), (theirs, 0.0)):
        usage = events[-1]["usage"]
        assert usage["day_cost_usd"] == pytest.approx(earlier + usage["cost_usd"])
        assert usage["conversation_cost_usd"] == pytest.approx(usage["cost_usd"]), "a batch is in no conversation"


async def test_a_batch_does_not_fail_where_its_cost_cannot_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ChatError("internal", "The database is busy.")

    priced = scripted("Priced").model_copy(update={"price": [1000.0, 2000.0]})
    with live_api(tmp_path, backends=[priced]) as app:
        monkeypatch.setattr(app.turns.store, "add_cost", fail)
        async with client_of(app) as anna:
            (events,) = (await run_batch(anna, prompts=["Hi"], memory=["none"])).values()
    assert events[-1]["type"] == "complete"
