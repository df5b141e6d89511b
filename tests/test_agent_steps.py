"""The steps of a run with tools, over HTTP: each start has its end, however the run ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.tools import Toolbox
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends
from memory.store import Store
from runs.registry import RunRegistry
from settings import BackendSettings, Settings, ToolSettings
from tests.conftest import until
from tests.grammar import check_run
from tests.providers import Answers, OpenAIServer, Reply, Tool

STEPS = {"token", "chain_start", "chain_end", "tool_start", "tool_end", "model_start", "model_end"}
"""The names of the seed's fourth step, and of the model's own."""
BOTH = [
    Tool("calculator", ['{"expres', 'sion": "17*23"}'], "call_a"),
    Tool("count", ['{"upto": 3, ', '"pause_s": 0.02}'], "call_b"),
]
SLOW = [Tool("count", ['{"upto": 50, "pause_s": 0.2}'])]


class House:
    """A backend of the kind `openai` on a scripted server."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.server: OpenAIServer

    async def start(self, message: str = "What is 17*23?") -> Any:
        return await self.turns.start(TurnRequest(message))


@pytest.fixture
async def house(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> AsyncIterator[House]:
    answers: Answers = request.param
    with OpenAIServer(*answers) as server:
        entry = BackendSettings(name="Chooser", kind="openai", model="m", base_url=f"{server.url}/v1", context=8192)
        settings, backends = Settings(backends=[entry], data=tmp_path), Backends([entry])
        tools = Toolbox(ToolSettings(enabled=["calculator", "count"]))
        made = House(Turns(settings, backends, store, RunRegistry(), tools))
        made.server = server
        yield made
        await made.turns.runs.stop_all()
        await backends.close()


def names(received: list[dict[str, Any]]) -> set[str]:
    return {event["type"] for event in received}


@pytest.mark.parametrize("house", [[Reply(["Let me see."], tools=BOTH), Reply(["It is ", "391."])]], indirect=True)
async def test_a_model_chooses_two_tools_and_answers_with_their_results(house: House) -> None:
    run = await house.start()
    await asyncio.wait_for(run.task, 20)
    received = check_run(run)
    assert names(received) >= STEPS
    assert received[-1]["content"] == "Let me see.\n\nIt is 391."
    ends = {event["tool"]: event for event in received if event["type"] == "tool_end"}
    assert ends["calculator"]["output"] == "391"
    assert ends["count"]["output"].split("\n")[0] == "1 of 3"
    chains = {event["id"]: event["name"] for event in received if event["type"] == "chain_start"}
    assert {chains[event["parent_id"]] for event in received if event["type"] == "tool_start"} == {"tools"}
    assert {chains[event["parent_id"]] for event in received if event["type"] == "model_start"} == {"model"}
    first, second = (request.body for request in house.server.requests if request.method == "POST")
    assert {tool["function"]["name"] for tool in first["tools"]} == {"calculator", "count"}
    results = {m["tool_call_id"]: m["content"] for m in second["messages"] if m["role"] == "tool"}
    assert results["call_a"] == "391"


@pytest.mark.parametrize(
    "house", [[Reply([], tools=[replace(t, id=None) for t in BOTH]), Reply(["So."])]], indirect=True
)
async def test_tool_calls_without_ids_get_unique_ids(house: House) -> None:
    run = await house.start()
    await asyncio.wait_for(run.task, 20)
    received = check_run(run)
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "So.")
    sent = [request.body["messages"] for request in house.server.requests if request.method == "POST"][1]
    called = [call["id"] for message in sent for call in message.get("tool_calls") or ()]
    assert len(set(called)) == 2 and [m["tool_call_id"] for m in sent if m["role"] == "tool"] == called
    assert {event["tool_call_id"] for event in received if event["type"] == "tool_end"} == set(called)


@pytest.mark.parametrize(
    "house", [[Reply([], tools=BOTH), Reply(["It is ", "so"], breaks="cut", after=1)]], indirect=True
)
async def test_broken_reply_after_tools_ends_all_steps(house: House) -> None:
    run = await house.start()
    await asyncio.wait_for(run.task, 20)
    received = check_run(run)
    assert names(received) >= STEPS
    assert (received[-1]["type"], received[-1]["content"]) == ("error", "It is ")


@pytest.mark.parametrize("house", [[Reply(["Wait."], tools=SLOW), Reply(["Done."])]], indirect=True)
async def test_stop_during_a_tool_ends_all_steps(house: House) -> None:
    run = await house.start("Count.")
    await until(lambda: any(step.kind == "tool" and step.output for step in run.state.steps))
    await run.stop("user")
    received = check_run(run)
    assert names(received) >= STEPS
    assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "user")
    (end,) = (event for event in received if event["type"] == "tool_end")
    assert end["error"] == "cancelled"
    reply = (await house.turns.store.history(run.conversation_id))[-1]
    assert [(part.name, part.error, part.text.split("\n")[0]) for part in reply.parts] == [
        ("count", "cancelled", "1 of 50")
    ]
