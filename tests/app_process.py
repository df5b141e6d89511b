"""The app as a process of its own, on a free port and with its data in a folder of the test."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.process import AppProcess
from tests.fork_server import start_app

_LOADED_S = 60.0
REPLY_TOKENS = 200
SHORT_REPLIES = f"[limits]\nreply_tokens = {REPLY_TOKENS}\n"
"""The settings as they are by default, with a bound on replies: so small a model may ramble on."""


class RunningApp(AppProcess):
    """The app with its settings, log and data in `folder`, which serves `url` until the block is left.

    By default it is forked from a process that has imported it. `fresh` starts `python app.py` instead, as environment
    variables that count at the time of the imports require.
    """

    def __init__(self, folder: Path, config: str = SHORT_REPLIES, *, fresh: bool = False, **environment: str) -> None:
        super().__init__(folder, config, {"GLASSBOX_LOG": "text", **environment})
        self.fresh = fresh

    def spawn(self, command: Sequence[str], **options: Any) -> Any:
        return super().spawn(command, **options) if self.fresh else start_app(command, **options)

    def start(self) -> Any:
        """Returns when every backend has said how it is."""
        started, deadline = super().start(), time.monotonic() + _LOADED_S
        user, _, password = self.environment.get("GLASSBOX_AUTH", "").partition(":")
        with httpx.Client(auth=(user, password) if user else None, trust_env=False) as client:
            while "loading" in [backend["state"] for backend in client.get(f"{self.url}backends").json()]:
                assert time.monotonic() < deadline, self.output()
                time.sleep(0.05)
        return started
