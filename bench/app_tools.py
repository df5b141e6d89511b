"""Tools that the measured app offers."""

import asyncio
import time
from collections.abc import AsyncGenerator

from langchain_core.tools import tool

from agent.tools.streaming import streaming_tool
from bench.model import token

PAIR_S = 0.06
_PAUSE_S, _QUIET_S = 0.05, 1.2
"""The pauses between marks, and between pairs: partial results that are collected must not wait for more."""
_STUCK_S = 20.0


@streaming_tool
async def marks(count: int = 60, series: str = "", pairs: bool = False) -> AsyncGenerator[str, None]:
    """Yields numbered marks, 20 a second or in pairs, each with its moment in ms since 1970. For the benchmark."""
    due = time.time()
    for i in range(count):
        await asyncio.sleep(max(0.0, due - time.time()))
        yield f"{token(i)}{series}@{time.time() * 1000:.1f}\n"
        due += _PAUSE_S if not pairs else _QUIET_S if i % 2 else PAIR_S


@tool
def stuck() -> str:
    """Blocks its thread for a long time. For the benchmark."""
    time.sleep(_STUCK_S)
    return "done"
