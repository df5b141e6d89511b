"""Tools that behave as badly as a tool may, for `package.module:name` in the settings."""

import asyncio
from collections.abc import AsyncGenerator

from agent.tools.streaming import streaming_tool

MARKUP = """</pre></details><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>

# No heading

<b>&lt;not bold&gt;</b> [link](javascript:window.hacked=1)"""


@streaming_tool
async def shout(text: str = "") -> AsyncGenerator[str, None]:
    """Answers with markup."""
    for piece in (MARKUP, text):
        yield piece
        await asyncio.sleep(0.1)


@streaming_tool
async def flood() -> AsyncGenerator[str, None]:
    """Yields ten thousand times within a second."""
    for number in range(10_000):
        yield f"{number}\n"
        if number % 200 == 0:
            await asyncio.sleep(0.01)


@streaming_tool
async def bulk() -> AsyncGenerator[str, None]:
    """Yields three megabytes at once."""
    yield "x" * 3_000_000
