import json
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.reply_reader import Payload, read_reply
from backends.sse_reader import Done
from backends.written_calls import may_be_calls, written_calls

TOOLS = {"calculator", "clock"}
CALL = '{"name": "calculator", "arguments": {"expression": "6*7"}}'
CALLS = [
    f"```json\n{CALL}\n```",
    f"\n```\n{CALL}```\n\n",
    CALL,
    f"```json\n[{CALL}]\n```",
    f"```json\n{CALL}\n{CALL}\n```",
    f"```json\n{CALL}\n```\n\n```json\n{CALL}\n```",
    '```json\n{\n  "name": "clock",\n  "arguments": {}\n}\n```',
    '{"arguments": {}, "name": "clock"}',
    '{"name": "clock", "parameters": {}}',
    json.dumps({"name": "calculator", "arguments": {"expression": "```json\n"}}),
]
TEXTS = [
    "",
    "Hello",
    f"I will call it:\n```json\n{CALL}\n```",
    f"```json\n{CALL}\n```\nI have called it.",
    "```python\nprint(1)\n```",
    "```json\n" + json.dumps({"name": "Anna", "arguments": {"for": 1, "against": 2}}) + "\n```",
    '```json\n{"name": "calculator"}\n```',
    '```json\n{"name": "calculator", "arguments": "6*7"}\n```',
    '```json\n{"name": "calculator", "arguments": {"expression": "6*7"}',
    '```json\n{"name": "clock", "arguments": {}, "answer": 42}\n```',
    "[1, 2, 3]",
    '{"title": "A page"}',
    "[" * 5000,
]


async def sent(pieces: Sequence[str], ends: bool) -> AsyncGenerator[Payload, None]:
    for piece in pieces:
        yield {"choices": [{"delta": {"content": piece}}]}
    if ends:
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        yield {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(pieces)}}
        yield Done()


async def read(pieces: Sequence[str], ends: bool = True) -> tuple[str, list[Any], list[Any]]:
    """The text, the calls and the usages of a reply."""
    text, calls, usages = "", list[Any](), list[Any]()
    try:
        async for chunk in read_reply(sent(pieces, ends), TOOLS):
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                calls += [call["function"] for call in choice["delta"].get("tool_calls") or ()]
            usages += [chunk["usage"]] if chunk.get("usage") else []
    except httpx.RemoteProtocolError:
        assert not ends
    return text, calls, usages


def split(text: str, at: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("text", CALLS)
@given(at=st.lists(st.integers(0, 200), max_size=20))
async def test_text_of_calls_alone_becomes_calls(text: str, at: list[int]) -> None:
    shown, calls, usages = await read(split(text, at))
    assert shown == "" and {call["name"] for call in calls} <= TOOLS
    expected = written_calls(text, TOOLS)
    assert [json.loads(call["arguments"]) for call in calls] == [call["arguments"] for call in expected] != []
    assert usages[-1]["prompt_tokens"] == 7, "it is counted all the same"


@pytest.mark.parametrize("text", TEXTS)
@given(at=st.lists(st.integers(0, 200), max_size=20), ends=st.booleans())
async def test_every_other_text_is_shown_whole(text: str, at: list[int], ends: bool) -> None:
    shown, calls, _ = await read(split(text, at) or [""], ends)
    assert (shown, calls) == (text, [])


@given(st.text(alphabet='`json\n {}[]":,nameargumentscalculator', max_size=60), st.booleans())
async def test_no_text_is_lost_or_shown_twice(text: str, ends: bool) -> None:
    shown, calls, _ = await read(list(text) or [""], ends)
    assert shown == ("" if calls else text)


async def test_text_of_an_unfinished_reply_is_shown() -> None:
    assert await read([CALLS[0]], ends=False) == (CALLS[0], [], [])


@pytest.mark.parametrize(
    "text", ["H", "```p", "``` {", '```json\n{"t', '```json\n{"name": "A', '[{"name": "calculators']
)
def test_other_text_is_shown_as_soon_as_it_differs(text: str) -> None:
    assert not may_be_calls(text, TOOLS)
    assert may_be_calls(text[:-1], TOOLS), "not before"


def test_long_text_is_not_held_back() -> None:
    assert not may_be_calls(CALL[:-2] + " " * 20_000, TOOLS)


async def test_nothing_is_held_back_without_tools() -> None:
    chunks = [chunk async for chunk in read_reply(sent([CALL], ends=True))]
    assert chunks[0]["choices"][0]["delta"]["content"] == CALL
