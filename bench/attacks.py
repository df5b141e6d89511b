"""What one hostile visitor's attack costs another visitor: how late the first token of a short reply is meanwhile, and
how much memory is left taken.

Each attack has an app of its own under the limits that strangers find, and is repeated by new visitors at new
addresses, whom no limit knows yet. Another visitor sends a message at regular times, whatever has become of the
earlier ones.
"""

import asyncio
import http.client
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from backends.weights import bundled_weights
from bench.attackers import ATTACKS, Attacker
from bench.killable import Killable
from bench.model import LOCAL, LOCAL_ENTRY, scripted_entry
from bench.visitors import LIMITS

Row = dict[str, Any]
_EACH_S = 0.4
"""Between two messages of the other visitor, to one backend and the other in turn."""
_QUIET_S, _SETTLE_S = 6.0, 3.0
_ASKED = {"Bench": "N=1 R=0", LOCAL: "Name a color."}
_KEYED = """
[[backends]]
name = "Keyed"
kind = "openai"
model = "any"
key = "BENCH_KEY"
base_url = "http://127.0.0.1:{port}/v1"
"""
Act = Callable[[int], Awaitable[None]]
"""One repetition of an attack, by its number."""


class _Other:
    """Another visitor, each time at another address."""

    def __init__(self, app: Killable, backends: list[str]) -> None:
        self._app, self._backends = app, backends
        self._threads = ThreadPoolExecutor(64)
        self.failed: list[str] = []
        self._sent = 0

    async def watch(self, meanwhile: Awaitable[Any]) -> dict[str, list[float]]:
        """Seconds to each first token, by backend, for as long as something goes on."""
        loop, doing = asyncio.get_running_loop(), asyncio.ensure_future(meanwhile)
        waits: list[tuple[str, asyncio.Future[float]]] = []
        while not doing.done() or len(waits) < 2 * len(self._backends):
            backend = self._backends[self._sent % len(self._backends)]
            self._sent += 1
            waits.append((backend, loop.run_in_executor(self._threads, self._first_token, backend, self._sent)))
            await asyncio.sleep(_EACH_S)
        await doing
        found: dict[str, list[float]] = {name: [] for name in self._backends}
        for backend, wait in waits:
            try:
                found[backend].append(await wait)
            except (OSError, http.client.HTTPException, RuntimeError) as e:
                self.failed.append(f"{backend}: {type(e).__name__}: {e}"[:300])
        return found

    def _first_token(self, backend: str, number: int) -> float:
        """In a thread of its own, so that it waits for no attacker."""
        line = http.client.HTTPConnection("127.0.0.1", self._app.port, timeout=120)
        body = json.dumps({"message": _ASKED[backend], "backend": backend, "memory": "none", "max_tokens": 2})
        here = f"203.0.{number // 250 % 250}.{number % 250 + 1}"
        begun = time.monotonic()
        try:
            line.request("POST", "/stream", body, {"Content-Type": "application/json", "X-Forwarded-For": here})
            answer = line.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {answer.read().decode()}")
            first = 0.0
            for data in answer:
                if data.startswith(b"event: token"):
                    first = first or time.monotonic() - begun
                elif data.startswith(b"event: failed"):
                    raise RuntimeError(answer.readline().decode())
            if not first:
                raise RuntimeError("a reply without a token")
            return first
        finally:
            line.close()


def measure_attacks(times: int, only: Sequence[str] = ()) -> list[Row]:
    """A row for each attack, or for those of these names, so many times repeated.

    `quiet_s` and `meanwhile_s` are seconds to first tokens, by backend; `memory` is bytes before and after each
    repetition, of the app and what it has started; `wrong` tells errors of the other visitor and of the app.
    """
    names = [attack.__name__ for attack in ATTACKS] + (["hung_model"] if bundled_weights() else [])
    rows = []
    for name in names:
        if not only or name in only:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(asyncio.run(_measure(Path(folder), name, times)))
            print(f"{name}: {rows[-1]['memory']} bytes, {rows[-1]['wrong'] or 'nothing wrong'}", file=sys.stderr)
    return rows


async def _measure(folder: Path, name: str, times: int) -> Row:
    local = bundled_weights() is not None
    async with _refusing_provider() as port:
        config = LIMITS + scripted_entry() + (LOCAL_ENTRY if local else "") + _KEYED.format(port=port)
        app = Killable(folder / "app", config, environment={"GLASSBOX_LOG": "json"})
        try:
            await app.start()
            await app.opened()
            other = _Other(app, ["Bench", *([LOCAL] if local and name != "hung_model" else [])])
            act = _hang(app) if name == "hung_model" else _attack(app, name, LOCAL if local else None)
            await other.watch(asyncio.sleep(0))  # the model has been loaded then
            quiet = await other.watch(asyncio.sleep(_QUIET_S))
            found: dict[str, list[float]] = {backend: [] for backend in quiet}
            memory, broken = [app.memory()], list[str]()
            try:
                for n in range(times):
                    for backend, waits in (await other.watch(act(n))).items():
                        found[backend] += waits
                    await asyncio.sleep(_SETTLE_S)
                    memory.append(app.memory())
            except (httpx.HTTPError, psutil.Error) as e:  # the app may have ended
                broken.append(f"{type(e).__name__}: {e}; the app said: {app.said()[-500:]}")
            row = {"case": "attack", "attack": name, "quiet_s": quiet, "meanwhile_s": found, "memory": memory}
            return row | {"wrong": broken + other.failed + app.errors()}
        finally:
            app.close()


def _attack(app: Killable, name: str, local: str | None) -> Act:
    attack = next(one for one in ATTACKS if one.__name__ == name)

    async def act(number: int) -> None:
        here = {"X-Forwarded-For": f"198.51.100.{number + 1}"}
        async with httpx.AsyncClient(base_url=app.url, headers=here, timeout=180) as client:
            await client.get("/")
            with suppress(httpx.TimeoutException):
                await attack(Attacker(client, lambda answer: None, local))

    return act


def _hang(app: Killable) -> Act:
    """Stops the local model's process, which stays there; another one must take its place."""

    async def act(number: int) -> None:
        for child in psutil.Process(app.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any("llama_child" in word for word in child.cmdline()):
                    child.send_signal(signal.SIGSTOP)
        async with httpx.AsyncClient(base_url=app.url, timeout=60) as client:
            body = {"message": _ASKED[LOCAL], "backend": LOCAL, "memory": "tokens", "max_tokens": 2}
            await asyncio.gather(*(client.post("/stream", json=body) for _ in range(3)))
            for _ in range(60):
                if any(one["name"] == LOCAL and one["ready"] for one in (await client.get("/backends")).json()):
                    break
                await asyncio.sleep(1)

    return act


@asynccontextmanager
async def _refusing_provider() -> AsyncGenerator[int, None]:
    """The port of a server that refuses every key."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}'
            head = f"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
