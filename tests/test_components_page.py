import asyncio
import time
from typing import Any

import pytest

from components.handlers import Handlers
from components.page import build_page

pytest_plugins = ["tests.pages"]


async def test_idle_queue_polls_at_most_a_hundred_times_a_second(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: Any = build_page(handlers)._queue
    looks, counted = 0, type(queue).__len__

    def look(self: Any) -> int:
        nonlocal looks
        looks += 1
        return int(counted(self))

    monkeypatch.setattr(type(queue), "__len__", look)
    begun = time.monotonic()
    polling = asyncio.create_task(queue.start_processing())
    await asyncio.sleep(0.3)
    queue.stopped = True
    await polling
    assert 1 <= looks <= (time.monotonic() - begun) * 100 + 1
