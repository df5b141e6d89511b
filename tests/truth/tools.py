"""Tools that take as long as their arguments say, and write down how long that was."""

import asyncio
import time

from langchain_core.tools import tool

TOOK: dict[str, tuple[float, float]] = {}
"""From when to when (`time.monotonic()`) each call worked, by its note."""


async def _sleep(seconds: float, note: str) -> str:
    begun = time.monotonic()
    await asyncio.sleep(seconds)
    TOOK[note] = begun, time.monotonic()
    return f"slept for {seconds:g} s ({note.split()[0]})"


@tool
async def nap(seconds: float, note: str) -> str:
    """Sleeps for so many seconds."""
    return await _sleep(seconds, note)


@tool
async def ask(seconds: float, note: str) -> str:
    """Sleeps for so many seconds, once it is allowed to."""
    return await _sleep(seconds, note)
