"""The state of a remote agent is sent back with the next message of the conversation."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from agent.agui_mapper import EARLIER_STATE
from backends import agui_states
from backends.agui_states import KeptStates
from tests.agui_script import FINISHED, REQUESTS, STARTED, Body, event, script, scripted_app, text
from tests.agui_servers import served
from tests.live_app import Api, Events, client_of, events_of, live_api
from tests.test_agent_agui import entry, of


@script
async def counts(body: Body) -> AsyncIterator[bytes]:
    """Counts its turns in the state, fails at "fail", and stops counting at "forget"."""
    said = body["messages"][-1]["content"]
    count = (body["state"] or {}).get("count", 0) + 1
    state = {"count": count, "note": said, "messages": [{"role": "user", "content": "not kept"}]}
    yield STARTED + event("STATE_SNAPSHOT", snapshot={} if said == "forget" else state)
    if said == "fail":
        yield event("RUN_ERROR", message="it failed")
        return
    if said == "grow":
        yield event("STATE_DELTA", delta=[{"op": "add", "path": "/large", "value": "x" * 300_000}])
    yield text(f"turn {count}") + event("TEXT_MESSAGE_END", messageId="m") + FINISHED


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with served(scripted_app()) as url:
        entries = [entry("Counts", f"{url}/counts"), entry("Own", f"{url}/counts", memory="own")]
        with live_api(tmp_path_factory.mktemp("states"), backends=entries) as app:
            yield app


@pytest_asyncio.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def say(client: httpx.AsyncClient, message: str, here: str | None = None, **more: Any) -> Events:
    sent = {"message": message, "backend": "Counts", **({"conversation_id": here} if here else {}), **more}
    return await events_of(client, "POST", "/stream", json=sent)


def sent_state() -> Any:
    return REQUESTS[-1][1]["state"]


async def test_state_is_sent_back_and_shown(anna: httpx.AsyncClient) -> None:
    first = await say(anna, "one")
    here = first[0]["conversation_id"]
    assert (sent_state(), first[-1]["content"]) == ({}, "turn 1")
    assert EARLIER_STATE not in [e["name"] for e in of(first, "chain_start")]
    second = await say(anna, "two", here)
    assert (sent_state(), second[-1]["content"]) == ({"count": 1, "note": "one"}, "turn 2")
    shown = {e["name"]: e["input"] for e in of(second, "chain_start")}
    assert shown == {EARLIER_STATE: {"count": 1, "note": "one"}, "state": {"count": 2, "note": "two"}}
    assert (await say(anna, "three", here))[-1]["content"] == "turn 3"
    assert (await say(anna, "one"))[-1]["content"] == "turn 1", "another conversation has none"


async def test_a_branch_has_the_state_of_its_own_past(app: Api, anna: httpx.AsyncClient) -> None:
    first = await say(anna, "one")
    here = first[0]["conversation_id"]
    second = await say(anna, "two", here)
    await say(anna, "three", here)
    message = second[0]["run_id"]
    found = (await anna.get(f"/conversations/{here}")).json()
    assert [one["content"] for one in found["messages"] if one["role"] == "assistant"] == ["turn 1", "turn 2", "turn 3"]
    history = await app.turns.store.history(here)
    asked = next(one.id for one in history if one.role == "user" and one.run_id == message)
    await app.turns.store.rewind(here, asked)
    again = await say(anna, "another two", here)
    assert (again[-1]["content"], sent_state()["note"]) == ("turn 2", "one")


async def test_a_failed_turn_keeps_the_state_before_it(anna: httpx.AsyncClient) -> None:
    here = (await say(anna, "one"))[0]["conversation_id"]
    assert (await say(anna, "fail", here))[-1]["type"] == "error"
    assert (await say(anna, "two", here))[-1]["content"] == "turn 2"
    assert (await say(anna, "forget", here))[-1]["content"] == "turn 3"
    assert (await say(anna, "four", here))[-1]["content"] == "turn 1", "an empty state is one, too"


async def test_a_state_that_is_too_large_is_not_kept(anna: httpx.AsyncClient) -> None:
    here = (await say(anna, "one"))[0]["conversation_id"]
    await say(anna, "grow", here)
    await say(anna, "two", here)
    assert sent_state() == {}


async def test_an_agent_that_remembers_is_sent_none(anna: httpx.AsyncClient) -> None:
    here = (await say(anna, "one", backend="Own"))[0]["conversation_id"]
    second = await say(anna, "two", here, backend="Own")
    assert (sent_state(), second[-1]["content"]) == ({}, "turn 1")


async def test_states_of_a_deleted_conversation_are_dropped(app: Api, anna: httpx.AsyncClient) -> None:
    here = (await say(anna, "one"))[0]["conversation_id"]
    states = app.turns.backends.get("Counts").states  # type: ignore[attr-defined]
    assert here in {of for of, _ in states._states.values()}
    await anna.delete(f"/conversations/{here}")
    assert here not in {of for of, _ in states._states.values()}


async def test_a_batch_keeps_none(app: Api, anna: httpx.AsyncClient) -> None:
    states = app.turns.backends.get("Counts").states  # type: ignore[attr-defined]
    before = len(states._states)
    await events_of(anna, "POST", "/batch", json={"prompts": ["a", "b"], "backends": ["Counts"]})
    await asyncio.sleep(0)
    assert len(states._states) == before


def test_few_states_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agui_states, "_MOST_STATES", 3)
    monkeypatch.setattr(agui_states, "_MOST_CHARACTERS", 50)
    states = KeptStates()
    for run in "abcd":
        states.keep(run, "here", {"of": run})
    assert states.get("a") == {} and states.get("b") == {"of": "b"}
    states.keep("e", "there", {"of": "e"})
    assert (states.get("c"), states.get("b")) == ({}, {"of": "b"}), "the least recently used is dropped"
    states.keep("f", "there", {"long": "x" * 36})
    assert states.get("f") and not states.get("b") and states._characters <= 50
    states.keep("f", "there", {})
    states.keep("g", "there", {"long": "x" * 60})
    assert (states._characters, len(states._states), states.get(None)) == (0, 0, {})
    states.keep("h", "here", {"a": 1})
    states.get("h")["a"] = 2
    assert states.get("h") == {"a": 1}
    states.forget("there")
    assert states.get("h")
    states.forget("here")
    assert not states._states
