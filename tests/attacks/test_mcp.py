"""Programs of MCP servers never outlive the app, however it ends."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from signal import Signals

import httpx
import psutil
import pytest

from tests.app_process import RunningApp
from tests.mcp_turns import TESTS

CONFIG = f"""
[[mcp]]
name = "box"
command = ["python", "{TESTS / "mcp_server.py"}"]

[[mcp]]
name = "deaf"
command = ["python", "{TESTS / "bad_mcp_server.py"}", "silent"]

[[backends]]
name = "Script"
kind = "scripted"
options = {{ speed = 20 }}
"""


def wait_for(condition: Callable[[], object], most: float = 60) -> None:
    until = time.monotonic() + most
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_programs_end_with_the_app(tmp_path: Path, signal: str) -> None:
    with RunningApp(tmp_path, CONFIG) as app:
        with httpx.Client(base_url=app.url, trust_env=False, timeout=60) as client:
            wait_for(lambda: client.get("/tool-servers").json()[0]["state"] == "ready")
            with client.stream("POST", "/stream", json={"message": "/spawn"}) as response:
                text = response.read().decode()
            with client.stream("POST", "/stream", json={"message": "/freeze"}) as response:
                wait_for(lambda: len(servers(app.pid)) >= 2)
                time.sleep(2)  # until the call blocks the server
                below = servers(app.pid)
                os.kill(app.pid, Signals[signal])
    assert '"tool_end"' in text or "tool_end" in text
    assert below
    wait_for(lambda: not any(is_alive(process) for process in below))


def servers(app: int) -> list[int]:
    """The processes below the app that belong to servers."""
    found = []
    for process in psutil.Process(app).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("mcp_server.py" in word or "guard.py" in word for word in process.cmdline()):
                found.append(process.pid)
    return found
