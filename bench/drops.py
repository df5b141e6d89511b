"""Whether anything is lost where lines drop: each run is followed by a client whose line is reset at random moments,
and which comes back over any of the transports.

The app runs in this process, so that what it leaves behind can be counted.
"""

import asyncio
import json
import random
import socket
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

from app import App
from bench.ports import free_port
from settings import BackendSettings, LimitSettings, Settings

_TOKENS, _RATE = 200, 100
_AT_ONCE = 10
_ABANDONED_S = 2.0
_LEFT = ("run ", "work of ", "grow ", "socket on ", "batch")
"""How the names of our own tasks begin."""
_LAST = ("complete", "stopped", "error")


class Dropped(Exception):
    """The client's line was reset."""


class Client:
    """Follows one run, to its end, through `drops` resets. `seen` is every event that came, in its order."""

    def __init__(self, url: str, drops: int, luck: random.Random) -> None:
        self.url, self.left, self.luck = url, drops, luck
        self.seen: list[dict[str, Any]] = []
        self.most = _TOKENS // (drops + 1)
        self.ways: list[Callable[[int], Awaitable[None]]] = [self._after, self._last_event_id, self._socket]

    async def talk(self, message: str) -> None:
        begin: list[Callable[[int], Awaitable[None]]] = [self._post(message), self._say(message)]
        way = self.luck.choice(begin)
        while not (self.seen and self.seen[-1]["type"] in _LAST):
            until = self.luck.randrange(1, self.most) if self.left else 10**9
            try:
                await way(until)
            except Dropped:
                self.left -= 1
            way = self.luck.choice(self.ways)

    def _take(self, event: dict[str, Any], until: int) -> int:
        self.seen.append(event)
        if until <= 1 and event["type"] not in _LAST:
            raise Dropped
        return until - 1

    def _post(self, message: str) -> Callable[[int], Awaitable[None]]:
        return lambda until: self._events("POST", "/stream", {"message": message}, "", until)

    async def _after(self, until: int) -> None:
        await self._events("GET", f"/runs/{self._run}/events?after={len(self.seen)}", None, "", until)

    async def _last_event_id(self, until: int) -> None:
        header = f"Last-Event-ID: {len(self.seen)}\r\n"
        await self._events("GET", f"/runs/{self._run}/events", None, header, until)

    @property
    def _run(self) -> str:
        return str(self.seen[0]["run_id"])

    async def _events(self, method: str, path: str, body: Any, header: str, until: int) -> None:
        parts = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            sent = json.dumps(body).encode() if body else b""
            head = f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(sent)}\r\n{header}"
            writer.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + sent)
            await reader.readuntil(b"\r\n\r\n")
            async for line in reader:
                if line.startswith(b"data: "):
                    until = self._take(json.loads(line[6:]), until)
        finally:
            _reset(writer)

    def _say(self, message: str) -> Callable[[int], Awaitable[None]]:
        return lambda until: self._talk({"message": message}, until)

    async def _socket(self, until: int) -> None:
        await self._talk({"type": "resume", "run_id": self._run, "after": len(self.seen)}, until)

    async def _talk(self, said: Any, until: int) -> None:
        url = self.url.replace("http://", "ws://") + "ws/chat"
        async with connect(url, max_size=None, close_timeout=0.1) as websocket:
            await websocket.send(json.dumps(said))
            try:
                while not (self.seen and self.seen[-1]["type"] in _LAST):
                    until = self._take(json.loads(await websocket.recv()), until)
            except Dropped:
                websocket.transport.abort()
                raise


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with a reset, as a line does that breaks."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def measure_drops(runs: int, drops: int, seed: int = 1) -> dict[str, Any]:
    """`drops` resets over `runs` runs, and as many runs more that nobody comes back to.

    `whole` counts replies that came exactly once, `left` what the app still had after the runs' lifetime, by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        app = _launched(Path(folder))
        try:
            row = asyncio.run(_all(app, runs, drops, seed))
            assert app._loop
            left = asyncio.run_coroutine_threadsafe(_left(app), app._loop).result(timeout=30)
            return {"case": "drops", **row, "left": left}
        finally:
            app.close()


async def _all(app: App, runs: int, drops: int, seed: int) -> dict[str, Any]:
    luck, places, whole, begun = random.Random(seed), asyncio.Semaphore(_AT_ONCE), 0, time.monotonic()
    clients = [Client(app.url, drops // runs + (n < drops % runs), random.Random(luck.random())) for n in range(runs)]
    asked = sum(client.left for client in clients)

    async def talk(client: Client) -> None:
        nonlocal whole
        async with places:
            await asyncio.wait_for(client.talk(f"N={_TOKENS} R={_RATE}"), 120)
        seqs, last = [event["seq"] for event in client.seen], client.seen[-1]
        text = "".join(event["content"] for event in client.seen if event["type"] == "token")
        expected = "".join(f" w{i:04d}" for i in range(_TOKENS))
        whole += seqs == list(range(1, len(seqs) + 1)) and text == expected == last["content"]

    async def leave() -> None:
        async with places:
            client = Client(app.url, 1, luck)
            await client._post("N=5000 R=50")(3) if luck.random() < 0.5 else await client._say("N=5000 R=50")(3)

    await asyncio.gather(*(talk(client) for client in clients))
    await asyncio.gather(*(leave() for _ in range(runs)), return_exceptions=True)
    await asyncio.sleep(_ABANDONED_S + 2)
    dropped = asked - sum(client.left for client in clients)
    return {"runs": runs, "dropped": dropped, "whole": whole, "seconds": round(time.monotonic() - begun, 1)}


async def _left(app: App) -> dict[str, int]:
    """What there still is of runs that have ended or been left: live runs, their followers and tasks of ours."""
    runs = list(app.runs._runs.values())
    ours = [task for task in asyncio.all_tasks() if task.get_name().startswith(_LEFT)]
    followers = sum(run.log.followers for run in runs)
    return {"live": sum(not run.ended for run in runs), "followers": followers, "tasks": len(ours)}


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
