"""Remote agents over AG-UI: servers that were not written here, and another Glassbox, seen from outside."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from settings import BackendSettings
from tests.agui_servers import langgraph_app, pydantic_app, served
from tests.grammar import check
from tests.live_app import Api, Events, client_of, events_of, events_until_end, live_api, socket_of


def entry(name: str, url: str, **more: Any) -> BackendSettings:
    return BackendSettings.model_validate({"name": name, "kind": "agui", "base_url": url, **more})


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    travel = {"name": "Travel", "kind": "agent", "class": "tests.own_agent:travel_graph", "options": {"asks": True}}
    late = {"name": "Late", "kind": "langchain", "class": "langchain_core.language_models:FakeListChatModel"}
    late |= {"options": {"responses": ["I add them.</think>Four."]}}
    theirs = [BackendSettings.model_validate(one) for one in (travel, late)]
    with served(pydantic_app()) as one, served(langgraph_app()) as two:
        with live_api(tmp_path_factory.mktemp("remote"), backends=theirs) as other:
            entries = [
                entry("Pydantic", f"{one}/agent/"),
                entry("Graph", f"{two}/agent"),
                entry("Newer graph", f"{two}/newer"),
                entry("Remembers", f"{two}/agent", memory="own"),
                entry("Glassbox", f"{other.url}agui"),
                entry("Glassbox with Late", f"{other.url}agui", options={"backend": "Late"}),
            ]
            with live_api(tmp_path_factory.mktemp("own"), backends=entries) as app:
                yield app


@pytest_asyncio.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def ask(
    app: Api, client: httpx.AsyncClient, backend: str, message: str = "Go", *answers: dict[str, Any], **more: Any
) -> Events:
    """The events of a run whose approvals get these answers."""
    left = list(answers)
    async with socket_of(app, client) as socket:
        await socket.send(json.dumps({"message": message, "backend": backend, **more}))
        events: Events = []
        while left:
            events.append(json.loads(await socket.recv()))
            assert events[-1]["type"] not in ("complete", "error"), events[-1]
            if events[-1]["type"] == "approval":
                call = {"type": "approve", "tool_call_id": events[-1]["tool_call_id"]}
                await socket.send(json.dumps(call | left.pop(0)))
        events += await events_until_end(socket)
    check(events)
    return events


def of(events: Events, kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_thinking_tools_and_state_of_an_agent_of_pydantic_ai(app: Api, anna: httpx.AsyncClient) -> None:
    events = await ask(app, anna, "Pydantic")
    assert events[-1]["content"] == "It is: rain in Paris (1 asked)" and len(of(events, "token")) == 4
    assert "".join(e["content"] for e in of(events, "reasoning")) == "I need the weather."
    assert "".join(e["delta"] for e in of(events, "tool_input")) == '{"city": "Paris"}'
    ((start,), (end,)) = of(events, "tool_start"), of(events, "tool_end")
    assert (start["tool"], start["input"], end["output"]) == ("forecast", {"city": "Paris"}, "rain in Paris")
    assert [(e["name"], e["input"]) for e in of(events, "chain_start")] == [
        ("state", {"cities": ["Paris", "Rome"]}),
    ]
    assert [e["name"] for e in of(events, "model_start")] == ["Pydantic", "Pydantic"]
    assert (
        events[-1]["usage"]["estimated"] and events[-1]["usage"]["input_tokens"] == of(events, "context")[0]["tokens"]
    )


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"approved": True}, "booked Paris"),
        ({"approved": True, "input": {"city": "Bonn"}}, "booked Bonn"),
        ({"approved": False}, "The tool call was denied."),
    ],
)
async def test_a_tool_of_pydantic_ai_waits_for_approval(
    app: Api, anna: httpx.AsyncClient, answer: dict[str, Any], result: str
) -> None:
    events = await ask(app, anna, "Pydantic", "Please book it", answer)
    (asked,) = of(events, "approval")
    assert (asked["tool"], asked["input"]) == ("book", {"city": "Paris"})
    assert events[-1]["content"] == f"It is: rain in Paris {result} (1 asked)"
    booked = of(events, "tool_end")[-1]
    assert (booked["output"], bool(booked.get("error"))) == (result, not answer["approved"])
    assert [e["tool"] for e in of(events, "tool_start")] == ["forecast", "book"], "neither is called twice"


async def test_memory_modes_apply(app: Api, anna: httpx.AsyncClient) -> None:
    first = await ask(app, anna, "Pydantic", memory="full")
    here = {"conversation_id": first[0]["conversation_id"]}
    assert (await ask(app, anna, "Pydantic", memory="full", **here))[-1]["content"].endswith("(2 asked)")
    assert (await ask(app, anna, "Pydantic", memory="none", **here))[-1]["content"].endswith("(1 asked)")


@pytest.mark.parametrize("backend", ["Graph", "Newer graph"])
@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"approved": True}, "True"),
        ({"approved": False}, "False"),
        ({"approved": True, "input": {"question": "?", "answer": "42"}}, "'42'"),
        ({"approved": True, "input": {"tone": "merry", "answer": ""}}, "{'tone': 'merry'}"),
    ],
)
async def test_steps_state_and_interrupt_of_a_graph(
    app: Api, anna: httpx.AsyncClient, backend: str, answer: dict[str, Any], result: str
) -> None:
    events = await ask(app, anna, backend, "Go", answer)
    (asked,) = of(events, "approval")
    assert asked["tool"] == "question"
    assert asked["input"] == {"question": "Shall I write about Oslo?", "tone": "sober", "answer": ""}
    assert events[-1]["content"] == f"Oslo first: it rains. (answered {result}, 1 asked)"
    names = {e["id"]: e["name"] for e in of(events, "chain_start")}
    parents = [(e["name"], names.get(e["parent_id"])) for e in of(events, "chain_start")]
    assert ("planning", "plan") in parents and ("state", "plan") in parents and ("look_up", None) in parents
    assert [name for name, _ in parents if name in ("plan", "tools", "ask", "write")] == [
        *("plan", "tools", "ask"),
        *("ask", "write"),
    ]
    assert {"plan": "Oslo first", "notes": ["planned"]} in [e["input"] for e in of(events, "chain_start")]
    weather = next(e for e in of(events, "tool_start") if e["tool"] == "weather")
    assert (weather["input"], names[weather["parent_id"]]) == ({"city": "Oslo"}, "look_up")
    assert [e["output"] for e in of(events, "tool_end") if e["tool"] == "weather"] == ["It rains in Oslo."]
    assert names[of(events, "model_start")[0]["parent_id"]] == "write"


async def test_an_agent_with_a_memory_of_its_own_gets_the_message_alone(app: Api, anna: httpx.AsyncClient) -> None:
    yes = {"approved": True}
    first = await ask(app, anna, "Remembers", "Go", yes)
    second = await ask(app, anna, "Remembers", "On", yes, conversation_id=first[0]["conversation_id"])
    assert (first[-1]["content"][-8:], second[-1]["content"][-8:]) == ("1 asked)", "2 asked)")
    (context,) = of(second, "context")
    assert "memory of its own" in context["note"] and len(context["messages"]) == 1
    assert (await ask(app, anna, "Remembers", "Go", yes))[-1]["content"].endswith("1 asked)")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"approved": True}, "True"),
        ({"approved": False}, "False"),
        ({"approved": True, "input": {"question": "?", "answer": "Only if brief"}}, "'Only if brief'"),
    ],
)
async def test_another_glassbox_is_a_remote_agent(
    app: Api, anna: httpx.AsyncClient, answer: dict[str, Any], result: str
) -> None:
    events = await ask(app, anna, "Glassbox", "Tell me of it.", answer)
    assert events[-1]["content"] == f"Paris is rainy and large. (answered {result})"
    (asked,) = of(events, "approval")
    assert asked["input"] == {"question": "Shall I write about Paris?", "tone": "sober", "answer": ""}
    names = {e["id"]: e["name"] for e in of(events, "chain_start")}
    assert {"plan", "research", "look_up", "tools", "ask", "write", "planning"} <= set(names.values())
    results = {e["tool"]: e["output"] for e in of(events, "tool_end")}
    assert (results["weather"], results["population"]) == ("It rains in Paris.", "1000000")
    assert "".join(e["content"] for e in of(events, "reasoning")).strip() == "First I plan for Paris."


async def test_a_text_that_another_glassbox_takes_back_is_thinking(anna: httpx.AsyncClient) -> None:
    events = await events_of(anna, "POST", "/stream", json={"message": "Two and two?", "backend": "Glassbox with Late"})
    check(events)
    assert events[-1]["content"] == "Four."
    thoughts = of(events, "reasoning")
    assert [(e["content"], e.get("retracts")) for e in thoughts] == [("I add them.", True)]


async def test_the_same_agent_is_followed_over_every_transport(app: Api, anna: httpx.AsyncClient) -> None:
    sent = {"message": "Go", "backend": "Pydantic"}
    first = await events_of(anna, "POST", "/stream", json=sent)
    check(first)
    record = [json.loads(line) for line in (await anna.get(f"/runs/{first[0]['run_id']}")).text.splitlines()]
    assert record == first == await events_of(anna, "GET", f"/runs/{first[0]['run_id']}/events")
    other = await ask(app, anna, "Pydantic")
    kinds = [Counter(e["type"] for e in events if e["type"] != "state") for events in (first, other)]
    assert kinds[0] == kinds[1]
    body = {"threadId": "t", "runId": "r", "tools": [], "context": [], "state": {}}
    body |= {"messages": [{"id": "1", "role": "user", "content": "x"}], "forwardedProps": {"backend": "Pydantic"}}
    answer = (await anna.post("/agui", json=body, timeout=60)).text
    received = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: ")]
    assert {one["toolCallName"] for one in received if one["type"] == "TOOL_CALL_START"} == {"forecast"}
    assert [one["stepName"] for one in received if one["type"] == "STEP_STARTED"] == ["state"]


async def test_backends_tell_of_a_remote_agent(app: Api, anna: httpx.AsyncClient) -> None:
    about = {one["name"]: one for one in (await anna.get("/backends")).json()}
    assert about["Pydantic"]["kind"] == "agui" and about["Pydantic"]["ready"]
    assert about["Pydantic"]["tools"] is False and about["Pydantic"]["takes"] == [] and about["Pydantic"]["key"] is None
