"""Turns with real backends over HTTP, and what they leave behind."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backend, Backends, Health
from memory.store import Store
from runs.live import LiveRun
from runs.registry import RunRegistry
from settings import BackendSettings, LimitSettings, Settings
from tests.grammar import check_run
from tests.providers import ProviderServer, Request

Events = list[dict[str, Any]]
CANARY = "sk-canary-0123456789abcdef"
"""The operator's key: nothing may show it but a request's header."""


@dataclass
class House:
    """`Turns` with real backends, and access to everything that they leave behind."""

    turns: Turns
    backends: Backends
    runs: list[LiveRun] = field(default_factory=list)

    @property
    def backend(self) -> Backend:
        return self.backends.default

    async def start(self, message: str = "Hi", visitor: str | None = "anna", **more: Any) -> LiveRun:
        self.runs.append(await self.turns.start(TurnRequest(message, visitor, **more)))
        return self.runs[-1]

    async def ask(self, message: str = "Hi", visitor: str | None = "anna", **more: Any) -> Events:
        run = await self.start(message, visitor, **more)
        assert run.task
        await asyncio.wait_for(asyncio.shield(run.task), 20)
        return check_run(run)

    async def health(self, visitor: str | None = "anna") -> Health:
        return await self.backends.bind(self.backend.name, visitor).check_health()

    async def left_behind(self) -> str:
        """Returns everything that can be read afterwards, except the log."""
        listed = [self.backends.describe(visitor) for visitor in ("anna", None)]
        events = [entry.json for run in self.runs for entry in run.log.entries]
        stored = [str(await self.turns.store.history(run.conversation_id)) for run in self.runs]
        return "\n".join([json.dumps(listed), *events, *stored])


@asynccontextmanager
async def housed(folder: Path, *entries: BackendSettings, **keys: str) -> AsyncIterator[House]:
    """Creates a `House`. Its backends are not opened, so that only tests start health checks."""
    settings = Settings(
        backends=list(entries),
        limits=LimitSettings(reply_tokens=256),
        data=folder,
        database_url=f"sqlite:///{folder / 'glassbox.db'}",
        keys={name: SecretStr(key) for name, key in keys.items()},
    )
    store, backends = Store(settings.database_url), Backends(settings.backends, settings.keys)
    await store.open()
    house = House(Turns(settings, backends, store, RunRegistry()), backends)
    try:
        yield house
    finally:
        await house.turns.runs.stop_all()
        left = await house.left_behind()
        await backends.close()
        await store.close()
        assert not [key for key in keys.values() if key in left or key.encode() in on_disk(folder)]


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


async def closed_within(server: ProviderServer, most: float) -> None:
    """Fails if a request lasts longer, without the CPU time of other programs."""
    begun, taken = time.monotonic(), _taken_by_others()
    while server.open_streams:
        await asyncio.sleep(0.005)
        assert time.monotonic() - begun < most + _taken_by_others() - taken, "the request goes on"


def _taken_by_others() -> float:
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.idle - spent.iowait - sum(psutil.Process().cpu_times()[:2]))


def of(received: Events, kind: str) -> Events:
    return [e for e in received if e["type"] == kind]


def text_of(received: Events, kind: str) -> str:
    return "".join(e["content"] for e in of(received, kind))


def asked_for_replies(server: ProviderServer) -> list[Request]:
    posted = [request for request in server.requests if request.method == "POST"]
    return [request for request in posted if not request.path.endswith(":countTokens")]
