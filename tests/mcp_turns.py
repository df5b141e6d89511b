"""Turns whose tools come from MCP servers: programs of these tests."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.mcp.servers import Servers
from agent.tools import Toolbox
from agent.turns import Turns
from backends import Backends
from memory.store import Store
from runs.registry import RunRegistry
from settings import BackendSettings, LimitSettings, McpSettings, Settings, ToolSettings
from tests.conftest import until

TESTS = Path(__file__).parent
GOOD = ["python", str(TESTS / "mcp_server.py")]
Connect = Callable[..., Awaitable[Turns]]


def bad(habit: str) -> list[str]:
    return ["python", str(TESTS / "bad_mcp_server.py"), habit]


def entry(name: str = "box", command: list[str] | None = None, **more: Any) -> McpSettings:
    given = {} if "url" in more else {"command": command or GOOD}
    return McpSettings(name=name, **given, **more)


def server_processes() -> list[psutil.Process]:
    """The processes of these tests' servers, with what is around and below them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("guard.py" in word for word in process.cmdline()) and process.status() != "zombie":
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
async def connect(settings: Settings, store: Store, tmp_path: Path) -> AsyncIterator[Connect]:
    """Makes turns over servers, and waits until the first look at each of them has ended."""
    made: list[tuple[Turns, Servers]] = []

    async def connect(
        *entries: McpSettings,
        model: dict[str, Any] | None = None,
        kind: str = "Talker",
        most: int = 8,
        variables: dict[str, Any] | None = None,
        wait: bool = True,
        **rules: Any,
    ) -> Turns:
        tools = ToolSettings(**{"enabled": ["calculator"], "seconds": 20} | rules)
        servers = Servers(entries, TESTS.parent, variables, most)
        chosen = settings.model_copy(update={"tools": tools, "limits": LimitSettings(reply_tokens=256)})
        options = {"text": "it is so", "pause": 0} | (model or {})
        path = f"{'tests.models' if kind == 'Talker' else 'tests.calls'}:{kind}"
        backend = BackendSettings(name="A", kind="langchain", options=options, context=60_000, **{"class": path})
        turns = Turns(chosen, Backends([backend]), store, RunRegistry(), Toolbox(tools, None, servers))
        made.append((turns, servers))
        servers.open()
        if wait:
            await until(lambda: all(one.state != "starting" for one in servers.servers), 90)
        return turns

    yield connect
    for turns, servers in made:
        await turns.runs.stop_all()
        await servers.close()
    await until(lambda: not server_processes(), 30)


@pytest.fixture
def http_server() -> Iterator[str]:
    """The address of the good server over Streamable HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, GOOD[1], "--http", str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()
