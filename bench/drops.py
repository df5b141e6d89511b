"""Dropped connections must lose nothing: each run is followed by a client whose connection is reset at random moments,
and which reconnects by any of the transports.

The app runs in this process, so that its leftovers can be counted.
"""

import asyncio
import inspect
import json
import math
import random
import tempfile
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from app import App
from bench.http import request, reset
from bench.model import token
from bench.ports import free_port
from bench.process import ROOT
from bench.tables import Row, print_problems, print_table
from settings import BackendSettings, LimitSettings, Settings

_TOKENS, _RATE = 200, 100
_AT_ONCE = 10
_ABANDONED_S = 2.0
_LAST = ("complete", "stopped", "error")

Event = dict[str, Any]


async def _http(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> AsyncGenerator[Event, None]:
    """Yields events of an event stream; resets its connection at the end."""
    response = await request(url, method, path, body, headers)
    try:
        async for line in response.reader:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    finally:
        reset(response.writer)


async def _websocket(url: str, message: Any) -> AsyncGenerator[Event, None]:
    """Yields events of a WebSocket; aborts its connection at the end."""
    async with connect(url.replace("http://", "ws://") + "ws/chat", max_size=None, close_timeout=0.1) as websocket:
        await websocket.send(json.dumps(message))
        try:
            while True:
                yield json.loads(await websocket.recv())
        finally:
            websocket.transport.abort()


def _connections(url: str, message: str, seen: Sequence[Event]) -> list[AsyncGenerator[Event, None]]:
    """Returns all ways to start a run, or to resume it after the events that were seen."""
    if not seen:
        return [_http(url, "POST", "/stream", {"message": message}), _websocket(url, {"message": message})]
    run, after = seen[0]["run_id"], len(seen)
    return [
        _http(url, "GET", f"/runs/{run}/events?after={after}"),
        _http(url, "GET", f"/runs/{run}/events", None, {"Last-Event-ID": f"{after}"}),
        _websocket(url, {"type": "resume", "run_id": run, "after": after}),
    ]


async def _follow(url: str, message: str, drops: int, luck: random.Random) -> tuple[list[Event], int]:
    """Follows a run to its end with up to `drops` drops; returns its events, and the number of drops."""
    seen, dropped, most = list[Event](), 0, _TOKENS // (drops + 1)
    while not (seen and seen[-1]["type"] in _LAST):
        until = len(seen) + luck.randrange(1, most) if dropped < drops else math.inf
        async with aclosing(luck.choice(_connections(url, message, seen))) as events:
            async for event in events:
                seen.append(event)
                if event["type"] in _LAST:
                    break
                if len(seen) >= until:
                    dropped += 1
                    break
    return seen, dropped


def measure(options: Namespace) -> list[Row]:
    """Measures 500 drops over 50 runs, by default once."""
    return [measure_drops(50, 500, seed) for seed in range(options.reps or 1)]


def measure_drops(runs: int, drops: int, seed: int = 1) -> Row:
    """Measures `drops` resets over `runs` runs, and as many runs more that are abandoned.

    `whole` counts replies that came exactly once; `busy` and `left` count what the app has while they run, and after
    the runs' lifetime, by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        app = _launched(Path(folder))
        try:
            return {"case": "drops", **asyncio.run(_measure(app, runs, drops, random.Random(seed)))}
        finally:
            app.close()


async def _measure(app: App, runs: int, drops: int, luck: random.Random) -> Row:
    places, before, begun = asyncio.Semaphore(_AT_ONCE), (await _state(app))[1], time.monotonic()
    expected = "".join(map(token, range(_TOKENS)))

    async def follow(n: int) -> tuple[bool, int]:
        own = random.Random(luck.random())
        async with places, asyncio.timeout(120):
            seen, dropped = await _follow(app.url, f"N={_TOKENS} R={_RATE}", drops // runs + (n < drops % runs), own)
        text = "".join(event["content"] for event in seen if event["type"] == "token")
        in_order = [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
        return in_order and text == expected == seen[-1]["content"], dropped

    async def leave() -> None:
        async with places, aclosing(luck.choice(_connections(app.url, "N=5000 R=50", []))) as events:
            for _ in range(3):
                await anext(events)

    async def new() -> dict[str, int]:
        counts, tasks = await _state(app)
        return counts | {"tasks": len(tasks - before)}

    following = asyncio.gather(*map(follow, range(runs)))
    await asyncio.sleep(_TOKENS / _RATE / 2)
    busy = await new()
    while not all(busy.values()) and not following.done():  # all connections may be broken at one moment
        busy = await new()
    results = await following
    await asyncio.gather(*(leave() for _ in range(runs)))
    await asyncio.sleep(_ABANDONED_S + 2)
    row = {"runs": runs, "dropped": sum(dropped for _, dropped in results), "whole": sum(whole for whole, _ in results)}
    return row | {"seconds": round(time.monotonic() - begun, 1), "busy": busy, "left": await new()}


async def _state(app: App) -> tuple[dict[str, int], set["asyncio.Task[Any]"]]:
    """Counts live runs and their followers, and finds the tasks of our own code."""

    async def state() -> tuple[dict[str, int], set["asyncio.Task[Any]"]]:
        runs, tasks = list(app.runs._runs.values()), asyncio.all_tasks() - {asyncio.current_task()}
        followers = sum(run.log.followers for run in runs)
        return {"live": sum(not run.ended for run in runs), "followers": followers}, set(filter(_is_ours, tasks))

    assert app._loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(state(), app._loop))


def _is_ours(task: "asyncio.Task[Any]") -> bool:
    coroutine = task.get_coro()
    file = coroutine.cr_code.co_filename if inspect.iscoroutine(coroutine) else ""
    return file.startswith(str(ROOT)) and ".venv" not in file


def _launched(folder: Path) -> App:
    model: Any = {"class": "bench.model:ScriptedModel"}
    app = App(
        Settings(
            backends=[BackendSettings(name="Bench", kind="langchain", options={"log": str(folder / "log")}, **model)],
            limits=LimitSettings(abandoned_seconds=_ABANDONED_S, reply_tokens=9999),
            data=folder,
            database_url=f"sqlite:///{folder / 'glassbox.db'}",
            host="127.0.0.1",
            port=free_port(),
        )
    )
    app.launch()
    return app


def report(rows: Sequence[Row], options: Namespace | None = None) -> bool:
    """Prints the effect of drops; returns whether nothing was lost or left, and the counts of leftovers work."""
    lines = [[row["runs"], row["dropped"], row["whole"], sum(row["left"].values())] for row in rows]
    header = ["runs", "forced drops", "whole replies, once", "runs, followers and tasks left"]
    print_table("Dropped connections", header, lines)
    lossless = all(row["whole"] == row["runs"] and not any(row["left"].values()) for row in rows)
    return print_problems(rows) and lossless and all(all(row["busy"].values()) for row in rows)
