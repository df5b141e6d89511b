"""A visitor who plays a script on the running app over HTTP, and writes down what arrives and when."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
import httpx_sse

from app import App
from runs.fold import apply
from runs.record import decode
from runs.state import AgentState
from tests.grammar import check
from tests.live_app import NAMES
from tests.truth.provider import VISIBLE, Piece, Provider, Sent
from tests.truth.scripts import Script

Event = dict[str, Any]
OPERATOR = "of the operator"
"""The token for the operator's figures."""
_TICK_S = 0.01


@dataclass
class Played:
    """A run of a script: what the visitor saw, and the truth."""

    script: Script
    number: int
    sent: list[Sent]
    """The provider's notes, of each request in order."""
    asked: float
    """When the visitor sent the message; all times are `time.monotonic()`."""
    received: list[Event] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    """When each of the events came."""
    approved: dict[str, float] = field(default_factory=dict)
    """When the visitor approved each call."""
    stopped: float | None = None
    """When the visitor stopped it."""
    late: float = 0.0
    """The longest that the machine kept the visitor waiting for a turn."""

    @property
    def message(self) -> str:
        return f"Play script {self.number}."

    @property
    def backend(self) -> str:
        """The backend that is asked."""
        return "First" if self.script.fallback else "Direct"

    def take(self, event: Event) -> None:
        """An event has come."""
        self.received.append(event)
        self.heard.append(time.monotonic())

    def of(self, *kinds: str) -> list[tuple[float, Event]]:
        return [(at, e) for at, e in zip(self.heard, self.received, strict=True) if e["type"] in kinds]

    @property
    def last(self) -> Event:
        return self.received[-1]

    @property
    def answered(self) -> list[Sent]:
        """The requests that were not refused."""
        return [sent for sent in self.sent if sent.status == 200]

    @property
    def reported_usage(self) -> dict[str, int]:
        """The sums of what the provider reported."""
        received = [sent.received for sent in self.answered if sent.received]
        return {
            "input_tokens": sum(given for given, _ in received),
            "output_tokens": sum(written for _, written in received),
        }

    @property
    def visible(self) -> list[Piece]:
        return [piece for sent in self.answered for piece in sent.pieces if piece.kind in VISIBLE]

    @cached_property
    def slack(self) -> float:
        """Seconds by which a figure may be off: 50 ms, and as much as pieces took from the provider to the visitor."""
        came = [at for at, _ in self.of("token", "reasoning")]
        late = (heard - piece.at for heard, piece in zip(came, self.visible, strict=False))
        return 0.05 + max([self.late, *late])

    @cached_property
    def state(self) -> AgentState:
        """What a page knows of the run at its end."""
        state = AgentState()
        for event in self.received:
            state = apply(state, decode(json.dumps(event)))
        return state


class Visitor:
    """Plays scripts on an app whose model is the provider."""

    def __init__(self, app: App, provider: Provider) -> None:
        self.app, self.provider = app, provider

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.app.url, timeout=30)

    def begun(self, script: Script) -> Played:
        """A run that begins now."""
        number = self.provider.add(script)
        return Played(script, number, self.provider.sent[number], time.monotonic())

    async def play(self, script: Script, **more: Any) -> Played:
        """Plays it by `POST /stream`, with more options."""
        async with self.client() as client, asyncio.TaskGroup() as group:
            run = self.begun(script)
            ticking = group.create_task(_tick([run]))
            asked = {"message": run.message, "backend": run.backend, **more}
            async with asyncio.timeout(30), httpx_sse.aconnect_sse(client, "POST", "/stream", json=asked) as source:
                source.response.raise_for_status()
                if script.stop is not None:
                    group.create_task(_stop(run, client, source.response.headers["X-Run-Id"]))
                async for event in _events(source):
                    run.take(event)
                    if event["type"] == "approval":
                        group.create_task(_approve(run, client, event))
            ticking.cancel()
        check(run.received)
        if run.last["type"] == "stopped" and run.stopped:
            for sent in run.answered:
                sent.doubtful = sent.ended is not None and sent.ended > run.stopped - run.slack
        return run

    async def play_batch(self, scripts: Sequence[Script], **more: Any) -> list[Played]:
        """Plays them as the cells of one batch, of one backend."""
        async with self.client() as client, asyncio.TaskGroup() as group:
            runs = [self.begun(script) for script in scripts]
            ticking = group.create_task(_tick(runs))
            asked = {"prompts": [run.message for run in runs], "backends": [runs[0].backend], **more}
            async with asyncio.timeout(30), httpx_sse.aconnect_sse(client, "POST", "/batch", json=asked) as source:
                source.response.raise_for_status()
                async for event in _events(source):
                    if event["type"] == "batch_done":
                        break
                    run = runs[event.pop("index")]
                    if event["type"] == "run":
                        run.asked = time.monotonic()
                    run.take(event)
                    if event["type"] == "approval":
                        group.create_task(_approve(run, client, event))
            ticking.cancel()
        for run in runs:
            check(run.received)
        return runs

    async def metrics(self) -> dict[str, float]:
        """The figures that are counted by backend."""
        async with self.client() as client:
            answer = await client.get("/metrics", headers={"Authorization": f"Bearer {OPERATOR}"})
        lines = [line.rpartition(" ") for line in answer.text.splitlines() if 'backend="' in line]
        return {name: float(value) for name, _, value in lines}


async def _events(source: httpx_sse.EventSource) -> AsyncIterator[Event]:
    async for sse in source.aiter_sse():
        if sse.data:
            event = json.loads(sse.data)
            assert NAMES.get(sse.event, sse.event) == event["type"]
            yield event


async def _stop(run: Played, client: httpx.AsyncClient, run_id: str) -> None:
    await asyncio.sleep(run.script.stop or 0)
    run.stopped = time.monotonic()
    (await client.post(f"/runs/{run_id}/stop")).raise_for_status()


async def _approve(run: Played, client: httpx.AsyncClient, event: Event) -> None:
    await asyncio.sleep(run.script.approval)
    run.approved[event["tool_call_id"]] = time.monotonic()
    given = {"tool_call_id": event["tool_call_id"], "approved": True}
    answer = await client.post(f"/runs/{event['run_id']}/approve", json=given)
    assert answer.status_code == 200 or run.script.stop is not None


async def _tick(runs: Sequence[Played]) -> None:
    while True:
        begun = time.monotonic()
        await asyncio.sleep(_TICK_S)
        for run in runs:
            run.late = max(run.late, time.monotonic() - begun - _TICK_S)
