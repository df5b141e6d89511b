"""Fifty simultaneous visitors for half an hour, a tenth of them hostile: whether any sees an error of the server or
another visitor's words, and what is left afterwards.

They talk, stop, reload, leave, switch and upload, over HTTP, WebSockets and the page's own protocol, with the bundled
model and a scripted one, under the limits of a public page.
"""

import asyncio
import random
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from backends.weights import bundled_weights
from bench.model import LOCAL, LOCAL_ENTRY, scripted_entry
from bench.process import AppProcess
from bench.tables import Row, print_problems, print_table
from bench.visitors import LIMITS, Hostile, Seen, Visitor

_VISITORS, _HOSTILE_SHARE, _LOCAL_SHARE = 50, 10, 25
"""One visitor in this many is hostile, and one uses the local model as well, which is too slow for more of them."""
_WARM_S = 120.0
"""When memory is first measured, in a soak of twice that: sessions of closed pages are kept for two minutes."""
_MINUTE_S = 60.0
_LEFT_S = 75.0
"""The time for runs without followers to end, and for PDFs to be read or given up."""
_TOKEN = "of the soak"
MOST_GROWN = 1.10
"""The most memory after a soak, compared with that after its warm-up."""
MOST_WARMED = 400_000_000
"""The most memory that a soak may add in bytes, if it is too short to end its warm-up."""


def measure(options: Namespace) -> list[Row]:
    """Measures one soak."""
    return [measure_soak(options.minutes)]


def measure_soak(minutes: float, visitors: int = _VISITORS, seed: int = 1) -> Row:
    """Measures a soak. `wrong` has what went wrong, in words; memory is in bytes, of the app and its children."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), minutes, visitors, random.Random(seed)))


async def _measure(folder: Path, minutes: float, visitors: int, luck: random.Random) -> Row:
    local = bundled_weights() is not None
    config = LIMITS + scripted_entry() + (LOCAL_ENTRY if local else "")
    files = folder / "temporary"
    files.mkdir()
    app = AppProcess(folder / "app", config, {"GLASSBOX_METRICS_TOKEN": _TOKEN, "TMPDIR": str(files)})
    seen, loop = Seen(), asyncio.get_running_loop()
    try:
        app.start()
        app.wait_until_open()
        app.wait_until_ready(LOCAL if local else "Bench")
        begun, until = loop.time(), loop.time() + 60 * minutes
        before = {process.pid for process in app.processes()}
        row: Row = {"case": "soak", "minutes": minutes, "visitors": visitors, "start_bytes": app.memory()}
        async with asyncio.TaskGroup() as crowd:
            for number in range(visitors):
                kind = Hostile if number % _HOSTILE_SHARE == 0 else Visitor
                backends = ["Bench", LOCAL] if local and number % _LOCAL_SHARE == 1 else ["Bench"]
                visitor = kind(number, app.url, backends, seen, random.Random(luck.random()))
                crowd.create_task(visitor.live(until))
            if 60 * minutes >= 2 * _WARM_S:
                row["minute_bytes"] = [app.memory()]
                while loop.time() + _MINUTE_S < until:
                    await asyncio.sleep(_MINUTE_S)
                    row["minute_bytes"].append(app.memory())
                row["warm_bytes"] = row["minute_bytes"][round(_WARM_S / _MINUTE_S)]
        row["late_bytes"] = app.memory()
        left = await _left(app, before)
        row |= {"seconds": round(loop.time() - begun), "done": dict(seen.done), "tokens": seen.tokens}
        row |= {"wrong": seen.wrong + app.errors(), "after_bytes": app.memory()}
        app.end()
        return row | {"left": left | {"files": sum(file.is_file() for file in files.rglob("*"))}}
    finally:
        app.close()


async def _left(app: AppProcess, before: set[int]) -> dict[str, int]:
    """Counts runs, connections and processes that were not there before, when all have had the time to end."""
    process, left = psutil.Process(app.pid), dict[str, int]()
    async with httpx.AsyncClient(base_url=app.url, headers={"Authorization": f"Bearer {_TOKEN}"}) as operator:
        for _ in range(int(_LEFT_S)):
            families = text_string_to_metric_families((await operator.get("/metrics")).text)
            live = next(s.value for family in families for s in family.samples if s.name == "glassbox_runs_live")
            connections = process.net_connections("tcp")
            ours = [c for c in connections if c.status == "ESTABLISHED" and c.laddr.port == app.port]
            processes = {process.pid for process in app.processes()} - before
            left = {"runs": int(live), "connections": len(ours) - 1, "processes": len(processes)}
            if not any(left.values()):
                break
            await asyncio.sleep(1)
    return left


def report(rows: Sequence[Row], options: Namespace | None = None) -> bool:
    """Prints how the app served its visitors; returns whether nothing went wrong, grew or was left."""
    names = ("start_bytes", "warm_bytes", "late_bytes", "after_bytes")
    lines = [
        [
            *(row["minutes"], row["visitors"], sum(row["done"].values()), row["tokens"], len(row["wrong"])),
            *(f"{row[name] / 1e6:.0f}" if name in row else None for name in names),
            sum(row["left"].values()),
        ]
        for row in rows
    ]
    header = ["minutes", "visitors", "actions", "tokens", "wrong", "memory, MB: start", "warm", "late", "after", "left"]
    print_table("Many visitors, a tenth of them hostile", header, lines)
    for row in rows:
        print(f"- {', '.join(f'{name} {n}' for name, n in sorted(row['done'].items()))}; left: {row['left']}")
        print(f"- MB by the minute: {', '.join(f'{size / 1e6:.0f}' for size in row.get('minute_bytes', []))}")
    good = all(not any(row["left"].values()) and row["after_bytes"] <= _most_bytes(row) for row in rows)
    return print_problems(rows) and good


def _most_bytes(row: Row) -> float:
    """Returns the most memory that a soak may use at its end."""
    return float(MOST_GROWN * row["warm_bytes"] if "warm_bytes" in row else row["start_bytes"] + MOST_WARMED)
