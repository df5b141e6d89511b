"""Fifty visitors at once for half an hour, a tenth of them hostile: whether anybody sees an error that is not theirs or
another's words, and what is left of it afterwards.

They talk, stop, reload, leave, switch and upload, over HTTP, WebSockets and the page's own protocol, with the bundled
model and a scripted one, under the limits that strangers find.
"""

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from backends.weights import bundled_weights
from bench.killable import Killable
from bench.model import LOCAL, LOCAL_ENTRY, scripted_entry
from bench.visitors import LIMITS, Hostile, Seen, Visitor

Row = dict[str, Any]

_VISITORS, _HOSTILE_SHARE, _LOCAL_SHARE = 50, 10, 25
"""One of so many is hostile, and one uses the local model, too: so slow a one more of them would only wait for."""
_EARLY_S = 120.0
"""Memory is first looked at then, in a soak of twice that: pages that have gone are kept for two minutes."""
_LEFT_S = 75.0
"""For what nobody follows to end, and PDFs to be read or given up."""
_TOKEN = "of the soak"


def measure_soak(minutes: float, visitors: int = _VISITORS, seed: int = 1) -> Row:
    """One soak. `wrong` is what went wrong, in words; memory in bytes, of the app and its model's process."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), minutes, visitors, random.Random(seed)))


async def _measure(folder: Path, minutes: float, visitors: int, luck: random.Random) -> Row:
    local = bundled_weights() is not None
    config = LIMITS + scripted_entry() + (LOCAL_ENTRY if local else "")
    app = Killable(folder / "app", config, environment={"GLASSBOX_METRICS_TOKEN": _TOKEN, "GLASSBOX_LOG": "json"})
    seen, loop = Seen(), asyncio.get_running_loop()
    try:
        await app.start()
        await app.opened()
        begun, until = loop.time(), loop.time() + 60 * minutes
        before = app.processes()
        async with asyncio.TaskGroup() as crowd:
            for number in range(visitors):
                kind = Hostile if number % _HOSTILE_SHARE == 0 else Visitor
                backends = ["Bench", LOCAL] if local and number % _LOCAL_SHARE == 1 else ["Bench"]
                one = kind(number, app.url, backends, seen, random.Random(luck.random()))
                crowd.create_task(one.live(until))
            early = None
            if 60 * minutes >= 2 * _EARLY_S:
                await asyncio.sleep(_EARLY_S)
                early = app.memory()
        late = app.memory()
        left = await _left(app, before)
        row = {
            "case": "soak",
            "minutes": minutes,
            "visitors": visitors,
            "seconds": round(loop.time() - begun),
            "done": dict(seen.done),
            "tokens": seen.tokens,
            "wrong": seen.wrong + app.errors(),
            "early_bytes": early,
            "late_bytes": late,
            "after_bytes": app.memory(),
            "left": left,
        }
        app.end()
        row["left"]["files"] = len(list((folder / "app").glob("*.tmp")))
        return row
    finally:
        app.close()


async def _left(app: Killable, before: set[int]) -> dict[str, int]:
    """Runs, connections and processes that were not there before, when all have had the time to end."""
    process = psutil.Process(app.pid)
    async with httpx.AsyncClient(base_url=app.url, headers={"Authorization": f"Bearer {_TOKEN}"}) as operator:
        for _ in range(int(_LEFT_S)):
            found = _figures((await operator.get("/metrics")).text)
            open_lines = [
                c for c in process.net_connections("tcp") if c.status == "ESTABLISHED" and c.laddr.port == app.port
            ]
            told = {"runs": int(found["glassbox_runs_live"]), "connections": len(open_lines) - 1}
            told["processes"] = len(app.processes() - before)
            if not any(told.values()):
                break
            await asyncio.sleep(1)
        return told


def _figures(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
