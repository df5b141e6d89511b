"""How steadily many followers of a run are served, and what that costs the server, beside the least that can serve
them: sse-starlette with one stream of the model for each.

A follower is a bare socket that notes when each token came: the clients share the machine with the server.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from bench.model import numbers
from bench.server import MINIMAL, OURS, Server, Site

FOLLOWERS, RATE, TOKENS = 100, 20, 300
_WARM = 5
ONE_RUN, RUN_EACH, PEER = "ours, one run", "ours, a run each", "minimal"
_SIDES: Sequence[tuple[str, Site]] = ((ONE_RUN, OURS), (PEER, MINIMAL), (RUN_EACH, replace(OURS, runs=FOLLOWERS + 1)))


@dataclass
class _Follower:
    """What one was sent."""

    at: list[float] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    bytes: int = 0


async def _request(url: str, method: str, path: str, body: Any = None) -> tuple[asyncio.StreamReader, Any, str]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    sent = json.dumps(body).encode() if body else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(sent)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + sent)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    if " 200 " not in answer.split("\r\n")[0]:
        raise RuntimeError(f"{method} {path}: {answer.splitlines()[0]}")
    return reader, writer, answer


async def _read(reader: asyncio.StreamReader, follower: _Follower) -> None:
    """To the end of the stream. An event is one line; the complete text at the end is none of the tokens."""
    async for line in reader:
        follower.bytes += len(line)
        if line.startswith(b"data: ") and (b'"type"' not in line or b'"type":"token"' in line):
            found = numbers(line.decode())
            follower.seen += found
            follower.at += [time.perf_counter()] * len(found)


async def _start(url: str, message: str, follower: _Follower) -> None:
    reader, writer, _ = await _request(url, "POST", "/stream", {"message": message})
    await _read(reader, follower)
    writer.close()


async def _follow_one(url: str, message: str, followers: Sequence[_Follower]) -> None:
    """The first starts the run, the others follow it."""
    reader, writer, answer = await _request(url, "POST", "/stream", {"message": message})
    run_id = next(line[10:].strip() for line in answer.split("\r\n") if line.lower().startswith("x-run-id: "))

    async def follow(follower: _Follower) -> None:
        reader, writer, _ = await _request(url, "GET", f"/runs/{run_id}/events")
        await _read(reader, follower)
        writer.close()

    await asyncio.gather(_read(reader, followers[0]), *(follow(one) for one in followers[1:]))
    writer.close()


async def _serve(url: str, side: str, many: int, tokens: int) -> list[_Follower]:
    followers, message = [_Follower() for _ in range(many)], f"N={tokens} R={RATE}"
    if side == ONE_RUN:
        await _follow_one(url, message, followers)
    else:
        await asyncio.gather(*(_start(url, message, one) for one in followers))
    return followers


def measure_followers(repetitions: int) -> list[dict[str, Any]]:
    """Rows of `side`, `repetition`, and `gaps_ms` p50, p99 and worst, `cpu_s`, `kb`, or `error`."""
    rows = []
    for repetition in range(repetitions):
        for side, site in _SIDES if repetition % 2 == 0 else reversed(_SIDES):
            row: dict[str, Any] = {"case": "followers", "side": side, "repetition": repetition}
            try:
                with Server(site, 0) as server:
                    rows.append(row | asyncio.run(_measure(server, side)))
            except Exception as e:
                rows.append(row | {"error": f"{type(e).__name__}: {e}"})
    return rows


async def _measure(server: Server, side: str) -> dict[str, Any]:
    await _serve(server.url, side, _WARM, _WARM)
    before = server.cpu_s()
    followers = await asyncio.wait_for(_serve(server.url, side, FOLLOWERS, TOKENS), TOKENS / RATE + 60)
    cpu_s = server.cpu_s() - before
    if any(one.seen != list(range(TOKENS)) for one in followers):
        raise RuntimeError("a follower was not sent every token once and in order")
    gaps = sorted((later - earlier) * 1000 for one in followers for earlier, later in pairwise(one.at))
    return {
        "gap_p50_ms": gaps[len(gaps) // 2],
        "gap_p99_ms": gaps[len(gaps) * 99 // 100],
        "gap_worst_ms": gaps[-1],
        "cpu_s": cpu_s,
        "kb_each": sum(one.bytes for one in followers) / FOLLOWERS / 1000,
    }
