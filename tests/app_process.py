"""The app as a process of its own, on a free port and with its data in a folder of the test."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from bench.ports import free_port
from tests.fork_server import ROOT, ForkedProcess, start_app

_START_S, _END_S = 60.0, 10.0
SHORT_REPLIES = "[limits]\nreply_tokens = 800\n"
"""The settings as they are by default, with a bound on replies: so small a model may ramble on."""


class RunningApp:
    """The app with its settings, log and data in `folder`. Between `start` and `stop` it serves `url`.

    By default it is forked from a process that has imported it. `fresh` starts `python app.py` instead, as environment
    variables that count at the time of the imports require.
    """

    process: "subprocess.Popen[bytes] | ForkedProcess"

    def __init__(self, folder: Path, config: str = SHORT_REPLIES, *, fresh: bool = False, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.data, self.log, self.config = folder / "data", folder / "log.txt", folder / "glassbox.toml"
        self.config.write_text(config)
        self.fresh, self.environment = fresh, environment

    def start(self) -> None:
        """Returns when every backend has said how it is. Raises RuntimeError with the log if the app does not start."""
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(self.port), "--config", str(self.config)]
        environment = {**os.environ, "GLASSBOX_DATA": str(self.data), **self.environment}
        with self.log.open("ab") as log:
            begin = subprocess.Popen if self.fresh else start_app
            self.process = begin(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(self.log.read_text())
            time.sleep(0.05)

    def _ready(self) -> bool:
        user, _, password = self.environment.get("GLASSBOX_AUTH", "").partition(":")
        auth = (user, password) if user else None
        try:
            listed = httpx.get(self.url + "backends", timeout=2, auth=auth, trust_env=False).json()
        except httpx.HTTPError:
            return False
        return "loading" not in [backend["state"] for backend in listed]

    def stop(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.process.terminate()
            try:
                self.process.wait(_END_S)
            except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                self.process.kill()
                self.process.wait()


@contextmanager
def running(
    folder: Path, config: str = SHORT_REPLIES, *, fresh: bool = False, **environment: str
) -> Iterator[RunningApp]:
    """A `RunningApp` that serves until the end of the block."""
    app = RunningApp(folder, config, fresh=fresh, **environment)
    app.start()
    try:
        yield app
    finally:
        app.stop()
