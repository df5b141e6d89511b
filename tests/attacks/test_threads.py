"""Tools that are not async and never return block nobody else."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agent import tool_middleware
from runs.threads import Threads
from settings import ToolSettings
from tests.conftest import until
from tests.live_app import Api, client_of, events_of, live_api, run_on_loop

STUCK = 7
"""More than the threads of asyncio's default executor on two processors."""
go = threading.Event()


@tool
def stuck() -> str:
    """Returns when the test ends."""
    go.wait(60)
    return "late"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    go.clear()
    monkeypatch.setattr(tool_middleware, "_THREADS", Threads("tools", STUCK, refusal=tool_middleware._BUSY))
    with live_api(tmp_path, tools=ToolSettings(enabled=["clock", f"{__name__}:stuck"], seconds=0.3)) as app:
        yield app
        go.set()


async def test_tools_that_never_return_do_not_block_others(app: Api) -> None:
    async def errors(client: Any, message: str) -> list[str]:
        received = await events_of(client, "POST", "/stream", json={"message": message})
        return [event.get("error") for event in received if event["type"] == "tool_end"]

    async with client_of(app) as client, client_of(app) as other:
        for found in await asyncio.gather(*(errors(client, "/stuck") for _ in range(STUCK))):
            assert found == ["it took longer than 0.3 s"]
        assert tool_middleware._THREADS._busy == STUCK
        async with asyncio.timeout(20):
            assert await errors(other, "/clock UTC") == [None]
            assert (
                await other.post("/conversations", json={"messages": [{"role": "user", "content": "a"}]})
            ).is_success
            loop = app._loop
            assert loop and run_on_loop(app, loop.getaddrinfo("localhost", 80))
            assert await errors(other, "/stuck") == [tool_middleware._BUSY]
        go.set()
        await until(lambda: not tool_middleware._THREADS._busy)
        go.clear()
        assert await errors(other, "/stuck") == ["it took longer than 0.3 s"], "there are threads again"
