"""How steadily many followers of a run are served, and the server's CPU time for them, compared with a minimal server
that has one stream of the model for each.

A follower is a bare connection that notes when each token came: the clients share the machine with the server.
"""

import asyncio
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from bench.http import Response, request
from bench.model import numbers
from bench.server import MINIMAL, OURS, Server, Site, measured
from bench.tables import Row, grouped, middle, percentile, print_problems, print_table

FOLLOWERS, RATE, TOKENS = 100, 20, 300
_WARM = 5
_ONE_RUN, _RUN_EACH, _PEER = "ours, one run", "ours, a run each", "minimal"
_SIDES: Sequence[tuple[str, Site]] = (
    (_ONE_RUN, OURS),
    (_PEER, MINIMAL),
    (_RUN_EACH, replace(OURS, runs=FOLLOWERS + 1)),
)
MOST_GAP_MS = 250
"""The most between two tokens, for the p99 of all gaps of all followers of a run."""
MOST_COST = 1.5
"""The most CPU time for followers of one run, compared with the minimal server."""


@dataclass
class _Follower:
    """What one follower received."""

    at: list[float] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    bytes: int = 0


async def _open(url: str, method: str, path: str, message: str | None = None) -> Response:
    response = await request(url, method, path, {"message": message} if message else None)
    if response.status != 200:
        raise RuntimeError(f"{method} {path}: {response.status}")
    return response


async def _read(response: Response, follower: _Follower) -> None:
    """Reads a stream to its end. An event is one line; the complete text at the end is not a token."""
    async for line in response.reader:
        follower.bytes += len(line)
        if line.startswith(b"data: ") and (b'"type"' not in line or b'"type":"token"' in line):
            found = numbers(line.decode())
            follower.seen += found
            follower.at += [time.perf_counter()] * len(found)
    response.writer.close()


async def _serve(url: str, side: str, many: int, tokens: int) -> list[_Follower]:
    """Lets `many` followers read a reply each, or for `_ONE_RUN` the same reply, which the first requests."""
    followers, message = [_Follower() for _ in range(many)], f"N={tokens} R={RATE}"

    async def follow(method: str, path: str, follower: _Follower) -> None:
        await _read(await _open(url, method, path, message if method == "POST" else None), follower)

    if side == _ONE_RUN:
        first = await _open(url, "POST", "/stream", message)
        path = f"/runs/{first.headers['x-run-id']}/events"
        await asyncio.gather(_read(first, followers[0]), *(follow("GET", path, one) for one in followers[1:]))
    else:
        await asyncio.gather(*(follow("POST", "/stream", one) for one in followers))
    return followers


def measure(options: Namespace) -> list[Row]:
    """Measures all sides in turn: the gaps' p50, p99 and worst, CPU time, and kB for each follower."""
    rows: list[Row] = []
    for repetition in range(options.reps or 3):
        for side, site in _SIDES if repetition % 2 == 0 else reversed(_SIDES):

            def measure_server(server: Server, side: str = side) -> Row:
                return asyncio.run(_measure(server, side))

            row: Row = {"case": "followers", "side": side, "repetition": repetition}
            rows.append(row | measured(site, 0, measure_server))
    return rows


async def _measure(server: Server, side: str) -> Row:
    await _serve(server.url, side, _WARM, _WARM)
    before = server.process.cpu_s()
    followers = await asyncio.wait_for(_serve(server.url, side, FOLLOWERS, TOKENS), TOKENS / RATE + 60)
    cpu_s = server.process.cpu_s() - before
    if any(one.seen != list(range(TOKENS)) for one in followers):
        raise RuntimeError("a follower did not receive every token once and in order")
    gaps = [(later - earlier) * 1000 for one in followers for earlier, later in pairwise(one.at)]
    figures = {
        f"gap_{name}_ms": percentile(gaps, percent) for name, percent in (("p50", 50), ("p99", 99), ("worst", 100))
    }
    return figures | {"cpu_s": cpu_s, "kb_each": sum(one.bytes for one in followers) / FOLLOWERS / 1000}


def report(rows: Sequence[Row], options: Namespace) -> bool:
    """Prints how followers are served; returns whether those of one run are within the limits."""
    names = {"gap_p50_ms": "gap p50, ms", "gap_p99_ms": "p99, ms", "gap_worst_ms": "worst, ms"}
    names |= {"cpu_s": "server CPU, s", "kb_each": "kB to each"}
    found = {side: {name: middle(mine, name) for name in names} for (side,), mine in grouped(rows, "side").items()}
    title = f"{FOLLOWERS} followers over Server-Sent Events, {TOKENS} tokens at {RATE} a second"
    notes = "Medians of the repetitions. `minimal` is sse-starlette with a stream of the model for each follower."
    print_table(title, ["", *names.values()], [[side, *figures.values()] for side, figures in found.items()], notes)
    if not print_problems(rows):
        return False
    ours, peer = found[_ONE_RUN], found[_PEER]
    assert ours["cpu_s"] and peer["cpu_s"] and ours["gap_p99_ms"] is not None
    cost = ours["cpu_s"] / peer["cpu_s"]
    print(f"\nOne run's followers take {cost:.2f} of the minimal server's CPU time (at most {MOST_COST}).")
    return cost <= MOST_COST and ours["gap_p99_ms"] <= MOST_GAP_MS
