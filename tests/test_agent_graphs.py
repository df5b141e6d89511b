"""Agents as backends: graphs and chains that were not written for Glassbox, seen from outside."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from settings import BackendSettings
from tests.conftest import scripted
from tests.grammar import check
from tests.live_app import Api, Events, client_of, events_of, events_until_end, live_api, refused, socket_of
from tests.own_agent import KEPT

CANARY = "sk-canary-of-the-agents"


def entry(name: str, path: str, **more: Any) -> BackendSettings:
    return BackendSettings.model_validate({"name": name, "kind": "agent", "class": f"tests.own_agent:{path}", **more})


ENTRIES = [
    entry("Travel", "travel_graph"),
    entry("Ready made", "graph"),
    entry("Awaited", "awaited_graph", options={"city": "Oslo"}),
    entry("All nodes", "travel_graph", tokens_from=["plan", "write"]),
    entry("Asks", "travel_graph", options={"asks": True}),
    entry("Uncompiled", "uncompiled"),
    entry("Counting", "counting", memory="own"),
    entry("Forgetful", "counting"),
    entry("Retrieval", "retrieval_chain"),
    entry("Rewriting", "rewriting_chain"),
    entry("Generator", "generator_chain"),
    entry("Fields", "text_graph"),
    entry("Sunk", "travel_graph", options={"city": "Atlantis"}),
    entry("Fails", "broken", options={"stage": "node"}, fallback="Script"),
    entry("Fails late", "broken", options={"stage": "event"}, fallback="Script"),
    entry("Flood", "flood"),
    entry("Careful", "careful"),
    entry("Pages", "counting_pages", tokens_from=["plan", "end"]),
    entry("Thoughtful", "thoughtful"),
    entry("Keyed", "keyed", key="AGENT_KEY", memory="own"),
    entry("Loops", "broken", options={"stage": "loop"}),
    scripted(),
]
BROKEN = [
    entry("No module", "graph").model_copy(update={"class_": "tests.no_such_module:graph"}),
    entry("No name", "no_such_name"),
    entry("No agent", "no_agent"),
    entry("No factory", "graph", options={"city": "Rome"}),
    entry("Bad factory", "broken"),
    entry("Bad option", "travel_graph", options={"town": "Rome"}),
    entry("No memory", "travel_graph", memory="own"),
    entry("No node", "travel_graph", tokens_from=["writer"]),
    scripted(),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    keys = {"AGENT_KEY": SecretStr(CANARY)}
    with live_api(tmp_path_factory.mktemp("agents"), backends=ENTRIES, keys=keys) as app:
        yield app


@pytest_asyncio.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def ask(client: httpx.AsyncClient, backend: str, message: str = "Tell me of it.", **more: Any) -> Events:
    events = await events_of(client, "POST", "/stream", json={"message": message, "backend": backend, **more})
    check(events)
    return events


def of(events: Events, kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_nodes_tools_models_and_events_are_nested(anna: httpx.AsyncClient) -> None:
    for backend in ("Travel", "Ready made"):
        events = await ask(anna, backend)
        assert events[-1]["content"] == "Paris is rainy and large. (answered True)"
        assert len(of(events, "token")) > 3, "it streams"
        assert "".join(e["content"] for e in of(events, "reasoning")).strip() == "First I plan for Paris."
        names = {e["id"]: e["name"] for e in of(events, "chain_start")}
        parents = {e["name"]: names.get(e["parent_id"]) for e in of(events, "chain_start")}
        assert parents == {
            "plan": None,
            "planning": "plan",
            "research": None,
            "look_up": "research",
            "progress": "look_up",
            "tools": "research",
            "ask": None,
            "write": None,
        }
        assert [names[e["parent_id"]] for e in of(events, "model_start")] == ["plan", "look_up", "write"]
        tools = {e["tool_call_id"]: (e["tool"], e["input"], names[e["parent_id"]]) for e in of(events, "tool_start")}
        assert tools == {
            "call-1": ("weather", {"city": "Paris"}, "tools"),
            "call-2": ("population", {"city": "Paris"}, "tools"),
        }
        assert {e["tool_call_id"]: e["output"] for e in of(events, "tool_end")} == {
            "call-1": "It rains in Paris.",
            "call-2": "1000000",
        }
        outputs = {names[e["id"]]: e["output"] for e in of(events, "chain_end")}
        assert outputs["plan"] == {"plan": "First I plan for Paris."}
        progress = next(e for e in of(events, "chain_start") if e["name"] == "progress")
        assert progress["input"] == {"type": "progress", "done": 0.5}


async def test_a_context_says_what_each_model_was_given(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "Travel")
    own, plan, look_up, write = (await anna.get(f"/runs/{events[0]['run_id']}/context")).json()["contexts"]
    for given in (own, plan, look_up):
        assert [(m["role"], m["content"]) for m in given["messages"]] == [("user", "Tell me of it.")]
    assert [m["content"] for m in write["messages"]] == ["First I plan for Paris."]
    assert write["estimated"] and sum(write["parts"].values()) == write["tokens"]


async def test_memory_modes_apply_and_our_tools_do_not(anna: httpx.AsyncClient) -> None:
    first = await ask(anna, "Forgetful", memory="full")
    here = {"conversation_id": first[0]["conversation_id"]}
    assert (await ask(anna, "Forgetful", memory="full", **here))[-1]["content"] == "Message 3."
    assert (await ask(anna, "Forgetful", memory="none", **here))[-1]["content"] == "Message 1."
    prompted = await ask(anna, "Forgetful", memory="none", system_prompt="Be brief.", **here)
    assert prompted[-1]["content"] == "Message 1.", "agents take no system prompt"
    assert (await ask(anna, "Uncompiled", "/calculator 2+2", **here))[-1]["content"] == "You said: /calculator 2+2"
    about = {one["name"]: one for one in (await anna.get("/backends")).json()}
    assert about["Travel"]["tools"] is False and about["Travel"]["takes"] == []


async def test_an_agent_with_a_memory_of_its_own_gets_the_message_alone(anna: httpx.AsyncClient) -> None:
    first = await ask(anna, "Counting", memory="full")
    here = {"conversation_id": first[0]["conversation_id"]}
    second = await ask(anna, "Counting", memory="full", **here)
    assert (first[-1]["content"], second[-1]["content"]) == ("Message 1.", "Message 3.")
    (context,) = of(second, "context")
    assert "memory of its own" in context["note"] and len(context["messages"]) == 1
    other = await ask(anna, "Counting")
    assert other[-1]["content"] == "Message 1.", "another conversation is another thread"


@pytest.mark.parametrize(
    ("backend", "reply"),
    [
        ("Awaited", "Oslo is rainy and large. (answered True)"),
        ("All nodes", "First I plan for Paris.\n\nParis is rainy and large. (answered True)"),
        ("Uncompiled", "You said: whales"),
        ("Pages", "Of 24 pages:\n\n4"),
        ("Thoughtful", "Four."),
        ("Retrieval", "Whales are large."),
        ("Rewriting", "The answer."),
        ("Generator", "whales! "),
        ("Fields", "About whales: nothing."),
    ],
)
async def test_the_reply_is_what_the_agent_answers(anna: httpx.AsyncClient, backend: str, reply: str) -> None:
    events = await ask(anna, backend, "whales")
    assert (events[-1]["type"], events[-1]["content"]) == ("complete", reply)


async def test_a_chain_shows_what_it_retrieved_and_wrote_on_the_way(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "Retrieval", "whales")
    (start,), (end,) = of(events, "tool_start"), of(events, "tool_end")
    assert (start["tool"], start["input"]) == ("Shelf", {"query": "whales"})
    assert end["output"] == "[1] shelf.txt\nAll about whales."
    assert of(events, "context")[-1]["messages"][0]["content"] == "Answer by All about whales.: whales"
    events = await ask(anna, "Rewriting", "whales")
    assert "".join(e["content"] for e in of(events, "reasoning")).strip() == "a rewritten query"


async def test_a_failed_tool_and_a_failed_agent_say_so(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "Sunk")
    error = next(e["error"] for e in of(events, "tool_end") if e["tool"] == "population")
    assert "it sank" in error or events[-1]["type"] == "error"
    events = await ask(anna, "Loops")
    assert events[-1]["code"] == "internal" and "loop" in events[-1]["message"]


async def test_a_flood_of_events_is_cut(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "Flood")
    assert (events[-1]["type"], events[-1]["content"]) == ("complete", "Done ?")
    ticks = [e for e in of(events, "chain_start") if e["name"] == "tick"]
    assert len(of(events, "chain_start")) == 2000 and [e["input"]["number"] for e in ticks[1:4]] == [1, 2, 3]
    assert ticks[0]["truncated"] and isinstance(ticks[0]["input"], str)
    assert [e["content"] for e in of(events, "status") if "first 2,000" in e["content"]]
    (end,) = of(events, "tool_end")
    assert 100_000 <= len(end["output"]) < 100_100


async def test_a_fallback_answers_only_before_anything_was_done(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "Fails", "hello")
    assert events[-1]["type"] == "complete" and [e for e in of(events, "status") if e.get("backend") == "Script"]
    events = await ask(anna, "Fails late", "hello")
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "backend_unavailable")
    assert "RuntimeError" in events[-1]["message"] and "secret" not in json.dumps(events)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"approved": True}, "True"),
        ({"approved": False}, "False"),
        ({"approved": True, "input": {"question": "?", "answer": "Only if brief"}}, "'Only if brief'"),
        ({"approved": True, "input": {"tone": "merry", "answer": ""}}, "{'tone': 'merry'}"),
    ],
)
async def test_an_interrupt_is_a_question(app: Api, anna: httpx.AsyncClient, answer: Any, result: str) -> None:
    async with socket_of(app, anna) as socket:
        await socket.send(json.dumps({"message": "Go", "backend": "Asks"}))
        events: Events = []
        while not events or events[-1]["type"] != "approval":
            events.append(json.loads(await socket.recv()))
        asked = events[-1]
        assert asked["tool"] == "question"
        assert asked["input"] == {"question": "Shall I write about Paris?", "tone": "sober", "answer": ""}
        await socket.send(json.dumps({"type": "approve", "tool_call_id": asked["tool_call_id"], **answer}))
        events += await events_until_end(socket)
    check(events)
    assert events[-1]["content"] == f"Paris is rainy and large. (answered {result})"
    assert len(of(events, "tool_start")) == 3, "what came before the question is not done again"


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ({"approved": True}, "It rains in Rome."),
        ({"approved": True, "input": {"city": "Oslo"}}, "It rains in Oslo."),
        ({"approved": False}, None),
    ],
)
async def test_requests_of_langchains_middleware_are_approvals(
    app: Api, anna: httpx.AsyncClient, answer: Any, output: str | None
) -> None:
    async with socket_of(app, anna) as socket:
        await socket.send(json.dumps({"message": "Go", "backend": "Careful"}))
        events: Events = []
        while not events or events[-1]["type"] != "approval":
            events.append(json.loads(await socket.recv()))
        assert (events[-1]["tool"], events[-1]["input"]) == ("weather", {"city": "Rome"})
        await socket.send(json.dumps({"type": "approve", "tool_call_id": events[-1]["tool_call_id"], **answer}))
        events += await events_until_end(socket)
    check(events)
    assert events[-1]["content"] == "It is done."
    outputs = [e["output"] for e in of(events, "tool_end") if e["output"].startswith("It rains")]
    assert outputs == ([output] if output else [])


async def test_a_key_reaches_the_agent_and_nothing_else(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "Keyed")
    assert events[-1]["content"] == f"A key of {len(CANARY)} characters."
    kept = [repr(one) for one in KEPT.list(None)]
    assert kept and not [one for one in (*kept, json.dumps(events)) if CANARY in one]


async def test_a_waiting_agent_can_be_stopped(anna: httpx.AsyncClient) -> None:
    events: Events = []
    async with anna.stream("POST", "/stream", json={"message": "Go", "backend": "Asks"}) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
                if events[-1]["type"] == "approval":
                    await anna.post(f"/runs/{events[0]['run_id']}/stop")
    check(events)
    assert events[-1]["type"] == "stopped"


async def test_agents_that_cannot_be_used_say_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    with live_api(tmp_path_factory.mktemp("broken"), backends=BROKEN) as app:
        async with client_of(app) as client:
            for name in ("No module", "Bad factory"):
                answer = await events_of(client, "POST", "/stream", json={"message": "x", "backend": name})
                assert answer[-1]["code"] == "backend_unavailable"
            why = {one["name"]: one["reason"] for one in (await client.get("/backends")).json()}
    assert why["No module"] == "tests.no_such_module cannot be imported: is it installed?"
    assert why["No name"] == "there is no 'no_such_name' in tests.own_agent"
    assert why["No agent"] == "no_agent is neither a Runnable nor a function that returns one"
    assert why["No factory"] == "graph is no factory, so its `options` have no effect"
    assert why["Bad factory"] == "broken fails when it is called (RuntimeError)"
    assert why["Bad option"] == "travel_graph fails when it is called (TypeError)"
    assert why["No memory"] == '`memory = "own"` needs a graph with a checkpointer'
    assert why["No node"] == "tokens_from: there is no node 'writer'; there are 'plan', 'research', 'ask', 'write'"


async def test_the_same_agent_is_followed_over_every_transport(app: Api, anna: httpx.AsyncClient) -> None:
    first = await ask(anna, "Travel")
    record = [json.loads(line) for line in (await anna.get(f"/runs/{first[0]['run_id']}")).text.splitlines()]
    assert record == first
    again = await events_of(anna, "GET", f"/runs/{first[0]['run_id']}/events")
    assert again == first
    async with socket_of(app, anna) as socket:
        await socket.send(json.dumps({"message": "Tell me of it.", "backend": "Travel"}))
        other = await events_until_end(socket)
    kinds = [Counter(e["type"] for e in events if e["type"] != "state") for events in (first, other)]
    assert kinds[0] == kinds[1], "in another order only where tools run at once"
    body = {"threadId": "t", "runId": "r", "tools": [], "context": [], "state": {}}
    body |= {"messages": [{"id": "1", "role": "user", "content": "x"}], "forwardedProps": {"backend": "Travel"}}
    answer = (await anna.post("/agui", json=body, timeout=60)).text
    sent = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: ")]
    steps = [one["stepName"] for one in sent if one["type"] == "STEP_STARTED"]
    assert steps == ["plan", "planning", "research", "look_up", "progress", "tools", "ask", "write"]
    assert {one["toolCallName"] for one in sent if one["type"] == "TOOL_CALL_START"} == {"weather", "population"}


async def test_an_agent_cannot_continue_a_reply(anna: httpx.AsyncClient) -> None:
    first = await ask(anna, "Uncompiled")
    where = {"run_id": first[0]["run_id"], "seq": of(first, "token")[0]["seq"], "token": "x"}
    answer = await anna.post("/stream", json={"continue_from": where, "backend": "Travel"})
    assert "cannot continue" in await refused(answer, 400, "invalid_request")
