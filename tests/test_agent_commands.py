"""Commands: `/name arguments` runs a tool, also with a model that supports no tools."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from agent.commands import read_command
from agent.turn import TurnRequest
from agent.turns import Turns
from memory.options import TurnOptions
from runs.errors import ChatError
from runs.tool_calls import ApprovalAnswer
from tests import calls
from tests.calls import Make, asked, begun, ended, of, options
from tests.conftest import until

pytest_plugins = ["tests.calls"]


@pytest.fixture
def talker(make: Make, seen: list[Any]) -> Turns:
    """A model that supports no tools."""
    return make({"text": "it is so", "pause": 0, "seen": seen}, kind="Talker")


async def refused(turns: Turns, message: str) -> str:
    with pytest.raises(ChatError) as raised:
        await turns.start(TurnRequest(message, "anna"))
    assert not list(turns.runs.live()), "nothing has started"
    assert raised.value.code == "invalid_request"
    return raised.value.message


async def test_command_runs_its_tool_and_the_model_gets_the_result_as_text(
    talker: Turns,
    seen: list[Any],
) -> None:
    received = await asked(talker, "/calculator 17*23")
    assert talker.backends.default.supports_tools is False
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "it is so ")
    (start,), (end,) = of(received, "tool_start"), of(received, "tool_end")
    assert (start["tool"], start["input"]) == ("calculator", {"expression": "17*23"})
    assert (end["tool_call_id"], "391" in end["output"], "error" in end) == (start["tool_call_id"], True, False)
    ((messages, *_),) = seen
    assert not any(isinstance(m, ToolMessage) or getattr(m, "tool_calls", None) for m in messages)
    assert isinstance(messages[-1], HumanMessage)
    assert messages[-1].text.endswith("17*23")
    assert end["output"] in messages[-1].text
    (context,) = of(received, "context")
    assert [m["role"] for m in context["messages"]] == ["system", "user"]
    stored = await talker.store.history(received[0]["conversation_id"])
    assert [m.text for m in stored] == ["/calculator 17*23", "it is so "]


async def test_model_gets_the_error_of_a_failed_command(talker: Turns, seen: list[Any]) -> None:
    received = await asked(talker, "/breaks a")
    assert received[-1]["type"] == "complete"
    assert of(received, "tool_end")[0]["error"] == "no luck today"
    assert "no luck today" in seen[-1][0][-1].text


@pytest.mark.parametrize(
    ("message", "given"),
    [
        ('/calculator {"expression": "6*7"}', {"expression": "6*7"}),
        ("/calculator   6*7  ", {"expression": "6*7"}),
        ("/calculator\n6*7", {"expression": "6*7"}),
    ],
)
async def test_arguments_are_json_or_the_first_one(talker: Turns, message: str, given: dict[str, Any]) -> None:
    received = await asked(talker, message)
    assert of(received, "tool_start")[0]["input"] == given
    assert "42" in of(received, "tool_end")[0]["output"]


async def test_invalid_json_is_text(talker: Turns) -> None:
    received = await asked(talker, "/plain {braces}")
    assert (calls.world.got, of(received, "tool_start")[0]["input"]) == (["{braces}"], {"text": "{braces}"})


async def test_number_argument_may_be_text(talker: Turns) -> None:
    received = await asked(talker, "/many 3")
    assert of(received, "tool_end")[0]["output"] == "0,1,2,"


async def test_invalid_arguments_are_a_tool_error(talker: Turns) -> None:
    received = await asked(talker, '/calculator {"nonsense": 1}')
    assert received[-1]["type"] == "complete"
    assert of(received, "tool_end")[0]["error"]


@pytest.mark.parametrize("message", ["/nothing 1", "/", "/ 17*23", "/nothing"])
async def test_an_unknown_command_is_refused_with_the_list(talker: Turns, message: str) -> None:
    received = await refused(talker, message)
    assert "/calculator <expression>" in received
    assert "/plain <text>" in received
    assert "/nothing" in received if "nothing" in message else "name" in received


async def test_command_without_a_required_argument_is_refused(talker: Turns) -> None:
    assert "/calculator <expression>" in await refused(talker, "/calculator")


async def test_deeply_nested_json_is_no_internal_error(talker: Turns) -> None:
    received = await asked(talker, '/plain {"text": ' + "[" * 20_000)
    assert received[-1]["type"] == "complete"


async def test_half_surrogate_in_json_can_be_sent_and_stored(talker: Turns) -> None:
    run = await begun(talker, '/plain {"text": "\\ud83d"}')
    assert (await ended(run))[-1]["type"] == "complete"
    assert run.unsaved is None
    for entry in run.log.entries:
        entry.json.encode()


@pytest.mark.parametrize("message", ["/etc/passwd is a file", " /calculator 1", "see /calculator 1", "//calculator 1"])
async def test_other_text_is_no_command(talker: Turns, seen: list[Any], message: str) -> None:
    received = await asked(talker, message)
    assert (received[-1]["type"], of(received, "tool_start")) == ("complete", [])
    assert seen[-1][0][-1].text == message


async def test_command_may_use_a_tool_that_the_conversation_disables(talker: Turns) -> None:
    received = await asked(talker, "/calculator 17*23", options=TurnOptions(tools=()))
    assert "391" in of(received, "tool_end")[0]["output"]


async def test_model_may_call_more_tools_after_a_command(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("plain", {"text": "b"}))), "/calculator 17*23")
    assert received[-1]["type"] == "complete"
    assert [e["tool"] for e in of(received, "tool_start")] == ["calculator", "plain"]
    human, *rest = [m for m in seen[-1][0] if m.type != "system"]
    assert "391" in human.text
    assert [m.type for m in rest] == ["ai", "tool"]


async def test_a_command_waits_for_its_approval_too(make: Make, seen: list[Any]) -> None:
    turns = make({"text": "it is so", "pause": 0, "seen": seen}, kind="Talker", approval=["plain"])
    run = await begun(turns, "/plain hello")
    await until(lambda: run.tool_calls.awaiting_approval)
    (call_id,) = run.tool_calls.awaiting_approval
    run.tool_calls.answer(call_id, ApprovalAnswer(False))
    received = await ended(run)
    assert (received[-1]["type"], calls.world.got) == ("complete", [])
    assert "refused" in seen[-1][0][-1].text


async def test_any_valid_tool_name_is_a_command() -> None:
    hyphened = calls.plain.model_copy(update={"name": "web-search"})
    found = read_command("/web-search cats", [hyphened])
    assert found
    assert (found.tool, found.input) == ("web-search", {"text": "cats"})


async def test_command_without_any_tools_is_refused() -> None:
    with pytest.raises(ChatError, match="No tool is turned on"):
        read_command("/calculator 1", [])
