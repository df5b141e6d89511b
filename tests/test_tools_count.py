"""The tool `count`: streamed output, cancellation and limits."""

import asyncio
from typing import Any

import pytest

from agent.tools.count import count
from agent.tools.streaming import output_listener


async def test_count_yields_each_number() -> None:
    received: list[str] = []

    async def tell(text: str) -> None:
        received.append(text)

    with output_listener(tell):
        result = await count.ainvoke({"upto": 3, "pause_s": 0})
    assert result == "".join(received) == "1 of 3\n2 of 3\n3 of 3\n"


async def test_first_number_comes_at_once_and_cancellation_ends_the_rest() -> None:
    first = asyncio.Event()

    async def tell(_: str) -> None:
        first.set()

    with output_listener(tell):
        counting = asyncio.create_task(count.ainvoke({"upto": 1000, "pause_s": 5}))
    await asyncio.wait_for(first.wait(), 4)
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(counting, 4)


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"upto": 0}, "upto: found 0, allowed: 1 to 1000"),
        ({"upto": 1001}, "upto: found 1001, allowed: 1 to 1000"),
        ({"upto": 1, "pause_s": -0.1}, "pause_s: found -0.1, allowed: 0 to 5"),
        ({"upto": 1, "pause_s": 5.1}, "pause_s: found 5.1, allowed: 0 to 5"),
        ({"upto": 1, "pause_s": float("nan")}, "pause_s: found nan, allowed: 0 to 5"),
    ],
)
async def test_invalid_arguments_are_refused_with_the_allowed_range(arguments: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        await count.ainvoke(arguments)
