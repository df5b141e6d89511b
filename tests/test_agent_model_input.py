"""The model input of long histories: linear work, and none of it on the event loop."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from agent import model_input, tool_history
from agent.model_input import _alternating, build_model_input
from agent.token_counts import count_messages
from agent.tool_history import result_messages, results_of
from agent.turn import Turn
from backends.base import CountedText, ModelOptions
from backends.scripted import ScriptedBackend
from memory.history_cache import History
from memory.messages import Message
from memory.modes import MODES
from runs.reply import ReplyPart
from settings import Settings
from tests.conftest import scripted


def reply(count: int, name: str = "r", text: str = "So it is.") -> Message:
    """A reply with `count` results of the calculator."""
    parts = tuple(ReplyPart("tool", f"{n}", 0, name="calculator", input={"expression": f"{n}"}) for n in range(count))
    return Message(name, "assistant", text, parts=parts)


def test_messages_of_one_role_are_joined_at_once() -> None:
    made: list[int] = []

    class Counted(HumanMessage):
        def __init__(self, content: str, **more: Any) -> None:
            made.append(len(content))
            super().__init__(content, **more)

    messages = [Counted(f"{n} " + "x" * 1000, id=f"{n}") for n in range(300)]
    size = sum(made)
    made.clear()
    (joined,) = _alternating(messages)
    assert (joined.id, joined.text) == ("299", "\n\n".join(message.text for message in messages))
    assert sum(made) < 2 * size


def test_many_results_are_compared_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    results = results_of(reply(500))
    compared = 0

    def counted(one: object, other: object) -> bool:
        nonlocal compared
        compared += 1
        return one is other

    monkeypatch.setattr(Message, "__eq__", counted)
    calls, *answers = result_messages(reply(0), results, {"calculator"}, answers=True)
    assert len(answers) == len(results) and calls.id == "r-0-call"
    assert compared <= len(results)


@pytest.mark.parametrize("mode", MODES)
async def test_many_results_are_built_off_the_event_loop(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    threads: list[threading.Thread] = []

    def noted(*args: Any) -> list[Message]:
        threads.append(threading.current_thread())
        return results_of(*args)

    for module in (model_input, tool_history):
        monkeypatch.setattr(module, "results_of", noted)
    history = [Message("q", "user", "Hi"), reply(700), Message("q2", "user", "And?"), reply(700, "r2", text="")]

    async def load_history() -> History:
        return History(history)

    turn = Turn(Message("asked", "user", "now"), MODES[mode], load_history=load_history)
    made = await build_model_input(Settings(), ScriptedBackend(scripted()), turn, ModelOptions(100))
    received = sum(one["role"] == "tool" for one in made.left_out) + sum("Result of" in m.text for m in made.messages)
    assert threads and threading.main_thread() not in threads
    assert received >= 700


async def test_many_messages_are_counted_in_blocks() -> None:
    received: list[int] = []

    class Counting(ScriptedBackend):
        async def count_tokens(self, texts: Sequence[str]) -> list[CountedText]:
            received.append(len(texts))
            return await super().count_tokens(texts)

    async def other() -> None:
        received.append(0)

    messages = [Message(f"{n}", "user", f"{n}") for n in range(4500)]
    others = asyncio.create_task(other())
    size = await count_messages(Counting(scripted()), messages, range(len(messages)), {})
    await others
    assert received == [2000, 0, 2000, 500]
    assert size == sum(message.tokens for message in messages)
