"""Tool calls in the streams of OpenAI-compatible servers that deviate from OpenAI's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.tools import Toolbox
from settings import ToolSettings
from tests.house import Events, asked_for_replies, of
from tests.providers import Reply, Stream
from tests.streams import DONE, NAME, ONE_CALL, SUM, asked, call, calls, delta, first, halves, more, without_delta


async def called(folder: Path, streamed: Sequence[Any], finish: str = "tool_calls") -> tuple[Events, list[Any]]:
    """Returns the events of a turn whose first reply has these deltas, and the messages of the second request."""
    async with asked(folder, Stream([*streamed, delta("", finish), DONE]), Reply(["Good."])) as (house, server):
        house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
        received = await house.ask()
        return received, asked_for_replies(server)[-1].body["messages"]


@pytest.mark.parametrize("shape", ONE_CALL)
async def test_a_call_in_any_shape_is_one_complete_call(tmp_path: Path, shape: str) -> None:
    received, sent = await called(tmp_path, ONE_CALL[shape])
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Good.")
    (start,), (end,) = of(received, "tool_start"), of(received, "tool_end")
    assert (start["tool"], start["input"]) == ("calculator", {"expression": "17*23"})
    assert end["output"].endswith("391")
    (made,) = sent[-2]["tool_calls"]
    assert (made["type"], made["function"]["name"], sent[-1]["tool_call_id"]) == ("function", NAME, made["id"])
    assert json.loads(made["function"]["arguments"]) == {"expression": "17*23"}


TWO = ['{"expression": "17*23"}', '{"expression": "2+2"}']
PAIRS = [("a", TWO[0]), ("b", TWO[1])]
TWO_CALLS = {
    "as OpenAI": calls(
        first(arguments=""),
        more(arguments=TWO[0]),
        call(index=1, id="b", name=NAME, arguments=""),
        call(index=1, arguments=TWO[1]),
    ),
    "interleaved": calls(
        (first(), call(index=1, id="b", name=NAME)),
        *(call(index=i, arguments=TWO[i][n : n + 1]) for n in range(len(TWO[0])) for i in (0, 1)),
    ),
    "the same index": calls(*(more(id=i, name=NAME, arguments=a) for i, a in PAIRS)),
    "the same index, in parts": calls(
        *(
            one
            for i, a in PAIRS
            for one in (more(id=i, name=NAME, arguments=""), more(arguments=a[:9]), more(arguments=a[9:]))
        )
    ),
    "the same index, ids repeated, interleaved": calls(
        *(more(id=i, name=NAME, arguments=a[:9]) for i, a in PAIRS), *(more(id=i, arguments=a[9:]) for i, a in PAIRS)
    ),
    "the same index, no ids": calls(*(more(name=NAME, arguments=a) for a in TWO)),
    "no index": calls(*(call(id=i, name=NAME, arguments=a) for i, a in PAIRS)),
    "no index, in one delta": calls(tuple(call(id=i, name=NAME, arguments=a) for i, a in PAIRS)),
    "the same index, in one delta": calls(tuple(more(id=i, name=NAME, arguments=a) for i, a in PAIRS)),
    "only names": calls(*(call(name=NAME, arguments=a) for a in TWO)),
    "only names, in one delta": calls(tuple(call(name=NAME, arguments=a) for a in TWO)),
    "only names, in parts": calls(*(call(name=NAME, arguments=char) for a in TWO for char in a)),
    "in parts, in one delta each": calls(
        tuple(call(name=NAME, arguments=a[:9]) for a in TWO), tuple(call(arguments=a[9:]) for a in TWO)
    ),
    "the same id, no index": calls(*(call(id="a", name=NAME, arguments=a) for a in TWO)),
    "the same id": calls(*(call(index=n, id="a", name=NAME, arguments=a) for n, a in enumerate(TWO))),
    "objects": calls(*(more(name=NAME, arguments=json.loads(a)) for a in TWO)),
    "objects with ids": calls(*(call(id=i, name=NAME, arguments=json.loads(a)) for i, a in PAIRS)),
    "the first index is one": calls(*(call(index=n, id=str(n), name=NAME, arguments=a) for n, a in enumerate(TWO, 1))),
    "the second starts at the first's index": calls(
        first(arguments=TWO[0]), more(id="b", name=NAME), call(index=1, arguments=TWO[1])
    ),
    "in the message": [
        without_delta("tool_calls", message={"tool_calls": [call(id=i, name=NAME, arguments=a) for i, a in PAIRS]})
    ],
}


@pytest.mark.parametrize("shape", TWO_CALLS)
async def test_two_calls_in_any_shape_are_two(tmp_path: Path, shape: str) -> None:
    received, sent = await called(tmp_path, TWO_CALLS[shape])
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Good.")
    starts = of(received, "tool_start")
    assert [one["tool"] for one in starts] == [NAME] * 2
    assert sorted(one["input"]["expression"] for one in starts) == ["17*23", "2+2"]
    asking = next(message for message in sent if message.get("tool_calls"))
    assert len({made["id"] for made in asking["tool_calls"]}) == 2


@pytest.mark.parametrize(
    "shape",
    [
        calls(more(id="a", name="clock", arguments=""), more(id="b", name=NAME, arguments=SUM)),
        calls(call(name="clock"), call(name=NAME, arguments=SUM)),
        calls(call(name="clock", arguments="{}"), call(name=NAME, arguments=SUM)),
        calls((call(name="clock"), call(name=NAME, arguments=SUM))),
        calls(more(name="clock", arguments=None), more(name=NAME, arguments=json.loads(SUM))),
        calls(
            more(id="a", name="clock", arguments="{}"), call(index=1, id="b", name=NAME), call(index=1, arguments=SUM)
        ),
    ],
)
async def test_a_call_without_arguments_may_precede_another(tmp_path: Path, shape: Any) -> None:
    received, _ = await called(tmp_path, shape)
    assert sorted(one["tool"] for one in of(received, "tool_start")) == [NAME, "clock"]
    assert [one.get("error") for one in of(received, "tool_end")] == [None, None]
    assert received[-1]["content"] == "Good."


async def test_a_character_in_two_deltas_of_arguments_is_one(tmp_path: Path) -> None:
    deltas = ['"{\\"expression\\": \\"1+1 \\ud83d"', '"\\ude00\\"}"']
    start = '{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"calculator","arguments":'
    events = [f"data: {start}{one}}}}}]}}}}]}}\n\n" for one in deltas]
    received, sent = await called(tmp_path, events)
    assert of(received, "tool_start")[0]["input"] == {"expression": "1+1 😀"}
    assert json.loads(sent[-2]["tool_calls"][0]["function"]["arguments"]) == {"expression": "1+1 😀"}


async def test_a_character_in_two_deltas_beside_a_call_is_returned_complete(tmp_path: Path) -> None:
    received, sent = await called(tmp_path, [*halves("content", "Wait \\ud83d", "\\ude00"), *ONE_CALL["as OpenAI"]])
    assert received[-1]["content"] == "Wait 😀\n\nGood."
    assert sent[-2]["content"] == "Wait 😀"
