"""The effect of one hostile visitor's attacks on another visitor: how late the first token of a short reply is
meanwhile, and how much memory stays in use.

Each attack has an app of its own with the limits of a public page, and is repeated by new visitors at new addresses,
which no limit counts yet. Another visitor sends messages at regular times, without waiting for earlier ones.
"""

import asyncio
import http.client
import json
import math
import signal
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from backends.weights import bundled_weights
from bench.attackers import ATTACKS, Attacker
from bench.model import LOCAL, LOCAL_ENTRY, scripted_entry
from bench.process import AppProcess
from bench.tables import Row, print_problems, print_table
from bench.visitors import LIMITS

_EVERY_S = 0.4
"""Interval of the other visitor's messages, which go to one backend and the other in turn."""
_QUIET_S, _SETTLE_S = 6.0, 3.0
_MESSAGES = {"Bench": "N=1 R=0", LOCAL: "Name a color."}
_KEYED = """
[[backends]]
name = "Keyed"
kind = "openai"
model = "any"
key = "BENCH_KEY"
base_url = "http://127.0.0.1:{port}/v1"
"""
MOST_GROWN = 1.10
"""The most memory after the last repetition, compared with that after the second: the first two warm up."""
_WARM = 2
MOST_SLOWER, NOISE_S = 2.0, 0.1
"""The latest first token during an attack, compared with the quiet one. Differences below the noise do not count, since
the attacker shares the machine.
"""
Act = Callable[[int], Awaitable[None]]
"""One repetition of an attack, by its number."""


class _OtherVisitor:
    """Another visitor, each time at another address."""

    def __init__(self, app: AppProcess, backends: list[str]) -> None:
        self._app, self._backends = app, backends
        self._threads = ThreadPoolExecutor(64)
        self.failed: list[str] = []
        self._sent = 0

    async def measure(self, meanwhile: Awaitable[Any]) -> dict[str, list[float]]:
        """Measures the seconds to each first token, by backend, until `meanwhile` is done."""
        loop, doing = asyncio.get_running_loop(), asyncio.ensure_future(meanwhile)
        waits: list[tuple[str, asyncio.Future[float]]] = []
        while not doing.done() or len(waits) < 2 * len(self._backends):
            backend = self._backends[self._sent % len(self._backends)]
            self._sent += 1
            waits.append((backend, loop.run_in_executor(self._threads, self._first_token, backend, self._sent)))
            await asyncio.sleep(_EVERY_S)
        await doing
        found: dict[str, list[float]] = {name: [] for name in self._backends}
        for backend, wait in waits:
            try:
                found[backend].append(await wait)
            except (OSError, http.client.HTTPException, RuntimeError) as e:
                self.failed.append(f"{backend}: {type(e).__name__}: {e}"[:300])
        return found

    def _first_token(self, backend: str, number: int) -> float:
        """Returns the seconds to the first token. Runs in a thread of its own, so that it waits for no attacker."""
        connection = http.client.HTTPConnection("127.0.0.1", self._app.port, timeout=120)
        body = json.dumps({"message": _MESSAGES[backend], "backend": backend, "memory": "none", "max_tokens": 2})
        address = f"203.0.{number // 250 % 250}.{number % 250 + 1}"
        begun, first = time.monotonic(), 0.0
        try:
            headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
            connection.request("POST", "/stream", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"{response.status} {response.read().decode()}")
            for line in response:
                if line.startswith(b"event: token"):
                    first = first or time.monotonic() - begun
                elif line.startswith(b"event: failed"):
                    raise RuntimeError(response.readline().decode())
            if not first:
                raise RuntimeError("a reply without a token")
            return first
        finally:
            connection.close()


def measure(options: Namespace) -> list[Row]:
    """Measures all attacks, by default five times each."""
    return measure_attacks(options.reps or 5)


def measure_attacks(times: int, only: Sequence[str] = ()) -> list[Row]:
    """Measures each attack, or those named in `only`, `times` times.

    `quiet_s` and `meanwhile_s` are seconds to first tokens, by backend; `memory` has the bytes of the app and its
    children before and after each repetition; `wrong` has the errors of the other visitor and of the app.
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
        app = AppProcess(
            folder / "app", LIMITS + scripted_entry() + (LOCAL_ENTRY if local else "") + _KEYED.format(port=port)
        )
        try:
            app.start()
            app.wait_until_open()
            other = _OtherVisitor(app, ["Bench", *([LOCAL] if local and name != "hung_model" else [])])
            act = _hang(app) if name == "hung_model" else _attack(app, name, LOCAL if local else None)
            await other.measure(asyncio.sleep(0))  # the model is loaded then
            quiet = await other.measure(asyncio.sleep(_QUIET_S))
            found: dict[str, list[float]] = {backend: [] for backend in quiet}
            memory, broken = [app.memory()], list[str]()
            try:
                for n in range(times):
                    for backend, waits in (await other.measure(act(n))).items():
                        found[backend] += waits
                    await asyncio.sleep(_SETTLE_S)
                    memory.append(app.memory())
            except (httpx.HTTPError, psutil.Error, OSError, RuntimeError) as e:  # the app may have ended
                broken.append(f"{type(e).__name__}: {e}; the app's output: {app.output()[-500:]}")
            row = {"case": "attack", "attack": name, "quiet_s": quiet, "meanwhile_s": found, "memory": memory}
            return row | {"wrong": broken + other.failed + app.errors()}
        finally:
            app.close()


def _attack(app: AppProcess, name: str, local: str | None) -> Act:
    attack = next(one for one in ATTACKS if one.__name__ == name)

    async def act(number: int) -> None:
        address = {"X-Forwarded-For": f"198.51.100.{number + 1}"}
        async with httpx.AsyncClient(base_url=app.url, headers=address, timeout=180) as client:
            await client.get("/")
            with suppress(httpx.TimeoutException):
                await attack(Attacker(client, lambda response: None, local))

    return act


def _hang(app: AppProcess) -> Act:
    """Stops the local model's process without ending it; another one must replace it."""

    async def act(number: int) -> None:
        for child in app.processes()[1:]:
            with suppress(psutil.NoSuchProcess):
                if any("llama_child" in word for word in child.cmdline()):
                    child.send_signal(signal.SIGSTOP)
        async with httpx.AsyncClient(base_url=app.url, timeout=60) as client:
            body = {"message": _MESSAGES[LOCAL], "backend": LOCAL, "memory": "tokens", "max_tokens": 2}
            await asyncio.gather(*(client.post("/stream", json=body) for _ in range(3)))
        await asyncio.to_thread(app.wait_until_ready, LOCAL)

    return act


@asynccontextmanager
async def _refusing_provider() -> AsyncGenerator[int, None]:
    """Serves a provider that refuses every key; gives its port."""

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


def report(rows: Sequence[Row], options: Namespace | None = None) -> bool:
    """Prints the effect of attacks on another visitor; returns whether it is within the limits."""
    lines, good = list[list[object]](), True
    for row in rows:
        grown = _grown(row["memory"])
        good = good and (grown is None or grown <= MOST_GROWN)
        for backend, waits in row["quiet_s"].items():
            quiet, during = median(waits), row["meanwhile_s"][backend] or [math.inf]
            late = median(during)
            good = good and late <= max(MOST_SLOWER * quiet, quiet + NOISE_S)
            times = [f"{1000 * seconds:.0f}" for seconds in (quiet, late, max(during))]
            memory = " ".join(f"{size / 1e6:.0f}" for size in row["memory"])
            lines.append([row["attack"], backend, *times, late / quiet, memory, grown, len(row["wrong"])])
    header = ["attack", "backend", "first token, ms: quiet", "meanwhile", "worst", "ratio", "memory, MB", "grown"]
    notes = (
        f"Medians; at most {MOST_SLOWER:g} times the quiet one if that is more than {NOISE_S * 1000:.0f} ms later. "
        f"Memory is compared from {_WARM + 1} repetitions on (at most {MOST_GROWN})."
    )
    print_table("One visitor attacks, another sends short messages", [*header, "wrong"], lines, notes)
    return print_problems(rows) and good


def _grown(memory: Sequence[int]) -> float | None:
    """Returns the growth since the second repetition; None if there are no later ones to compare."""
    return memory[-1] / memory[_WARM] if len(memory) > _WARM + 1 else None
