"""The app as a process: how it starts and ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app import App
from settings import Settings, SettingsError
from tests.app_process import RunningApp
from tests.fork_server import ROOT

SCRIPT = '[[backends]]\nname = "Slow script"\nkind = "scripted"\noptions = { speed = 2 }\n'
END_S = 5.0


def test_invalid_setting_stops_the_start_with_a_message(tmp_path: Path) -> None:
    environment = {**os.environ, "GLASSBOX_DATA": str(tmp_path), "GRADIO_SERVER_PORT": "abc"}
    command = [sys.executable, str(ROOT / "app.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    received = "GRADIO_SERVER_PORT: found 'abc', allowed: a number from 1 to 65535\n"
    assert (done.returncode, done.stderr, done.stdout) == (2, received, "")


@pytest.mark.parametrize("path", ["/docs", "/stream/x"])
def test_root_path_of_a_route_is_rejected(path: str, tmp_path: Path) -> None:
    """Otherwise nobody could tell whether a proxy has removed the prefix."""
    settings = Settings(root_path=path, data=tmp_path, database_url=f"sqlite:///{tmp_path / 'glassbox.db'}")
    with pytest.raises(SettingsError, match="root_path: found"):
        App(settings)


@pytest.mark.parametrize(
    ("number", "times", "fresh"), [(signal.SIGTERM, 1, True), (signal.SIGINT, 1, False), (signal.SIGTERM, 200, False)]
)
def test_signal_ends_the_runs_and_then_the_app(tmp_path: Path, number: signal.Signals, times: int, fresh: bool) -> None:
    """Many signals end it too: a signal handler that took a lock once blocked the app forever."""
    with RunningApp(tmp_path, SCRIPT, fresh=fresh) as app:
        process = app.process
        with httpx.stream("POST", f"{app.url}stream", json={"message": "tour"}, timeout=30) as answer:
            received, asked = [], 0.0
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    received.append(json.loads(line[6:]))
                if not asked and received and received[-1]["type"] == "token":
                    asked = time.monotonic()
                    for _ in range(times):
                        process.send_signal(number)
        assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "shutdown")
        assert received[-1]["content"], "the message names what exists"
        assert process.wait(20) == 0
        assert time.monotonic() - asked < END_S
        assert "Traceback" not in app.output()
    with RunningApp(tmp_path, SCRIPT) as app:
        kept = httpx.get(f"{app.url}conversations/{received[0]['conversation_id']}", timeout=30).json()
        assert kept["messages"][-1]["content"] == received[-1]["content"]
