"""The tool `count`: a slow tool, for watching a tool at work and for cancelling it."""

import asyncio
from collections.abc import AsyncGenerator

from agent.tools.streaming import streaming_tool

_LARGEST_NUMBER, _LONGEST_PAUSE_S = 1000, 5.0


@streaming_tool
async def count(upto: int = 10, pause_s: float = 0.5) -> AsyncGenerator[str, None]:
    """Counts slowly from 1 up to a number, with a pause of some seconds between two numbers. For demonstration."""
    if not 1 <= upto <= _LARGEST_NUMBER:
        raise ValueError(f"upto: found {upto}, allowed: 1 to {_LARGEST_NUMBER}")
    if not 0 <= pause_s <= _LONGEST_PAUSE_S:
        raise ValueError(f"pause_s: found {pause_s:g}, allowed: 0 to {_LONGEST_PAUSE_S:g}")
    for number in range(1, upto + 1):
        if number > 1:
            await asyncio.sleep(pause_s)
        yield f"{number} of {upto}\n"
