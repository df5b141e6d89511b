"""How fast the bundled model's text reaches a run's log through our turns, compared with the bare `xllamacpp` binding.

Both sides write at once, and one is suspended (SIGSTOP) while the other runs, many times in a reply. Each is timed by
its own turns, so that other programs affect both alike. Without this, the bare binding alone varied from 56 to 71
tokens a second within twelve repetitions.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from statistics import harmonic_mean
from typing import NamedTuple

import psutil

from bench.process import ROOT
from bench.sides import SLOTS, TOKENS, Moments
from bench.tables import Row, grouped, print_problems, print_table, with_range

LEAST_RATE = 0.95
"""The least share of the bare binding's rate."""
_CONVERSATIONS = (1, 4, SLOTS)
"""Concurrent replies."""
_SETTLE_S, _TURN_S = 0.3, 0.2


class Turn(NamedTuple):
    """A period in which a side ran, in epoch seconds."""

    side: str
    since: float
    until: float


class Side:
    """The process of a side; as a context manager it runs until the block is left."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._errors = Path(tempfile.mkdtemp(prefix="rate-")) / "errors.txt"

    def __enter__(self) -> "Side":
        command, pipe = [sys.executable, "-m", "bench.sides", self.name], subprocess.PIPE
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate(timeout=20)

    def reply(self, prompts: Sequence[str]) -> Moments:
        """Has replies to all prompts written at once. Raises RuntimeError if the process has ended."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            print(json.dumps(prompts), file=self._process.stdin, flush=True)
        moments: Moments = json.loads(self._process.stdout.readline() or "[]")
        if not moments:
            raise RuntimeError(f"its process has ended; its output:\n{self._errors.read_text()[-2000:]}")
        return moments

    def find_processes(self) -> None:
        """Finds the processes of the side and its model, which is too slow to do in each turn."""
        self._tree: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            self._tree = [process, *process.children(recursive=True)]

    def suspend(self) -> None:
        """Suspends the side."""
        for process in self._tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Resumes the side."""
        for process in self._tree:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def measure(options: Namespace) -> list[Row]:
    """Measures each side and number of conversations; a failure is a row with `error`."""
    rows, repetitions = list[Row](), options.reps or 6
    with Side("bare") as bare, Side("ours") as ours:
        for side in (bare, ours):
            with suppress(RuntimeError):  # it will fail again, and then it counts
                side.reply([f"Tell me a story about {i} birds." for i in range(SLOTS)])
        for repetition in range(repetitions):
            print(f"{repetition + 1} of {repetitions}: rate", file=sys.stderr)
            sides = (bare, ours) if repetition % 2 == 0 else (ours, bare)  # neither is always the first
            for many in _CONVERSATIONS:
                prompts = [f"Tell me a story about the number {100 * repetition + 10 * many + i}." for i in range(many)]
                row: Row = {"case": "rate", "conversations": many, "repetition": repetition}
                rows += [row | found for found in _take_turns(sides, prompts)]
    return rows


def _take_turns(sides: Sequence[Side], prompts: Sequence[str]) -> list[Row]:
    """Has all prompts replied to by all sides in turns; returns the figures or the error of each."""
    time.sleep(_SETTLE_S)
    for side in sides:
        side.find_processes()
        side.suspend()
    turns = list[Turn]()
    with ThreadPoolExecutor(len(sides)) as pool:
        replies = [pool.submit(side.reply, prompts) for side in sides]
        try:
            for side in cycle(sides):
                if all(reply.done() for reply in replies):
                    break
                since = time.time()
                side.resume()
                time.sleep(_TURN_S)
                side.suspend()
                turns.append(Turn(side.name, since, time.time()))
        finally:
            for side in sides:
                side.resume()
    rows = list[Row]()
    for side, reply in zip(sides, replies, strict=True):
        own = [turn for turn in turns if turn.side == side.name]
        try:
            figures: Row = _figures([[own_s(own, at) for at in moments] for moments in reply.result()])
        except RuntimeError as e:
            figures = {"error": f"{type(e).__name__}: {e}".strip()}
        rows.append({"side": side.name, **figures})
    return rows


def own_s(turns: Sequence[Turn], at: float) -> float:
    """Returns how long a side ran until a moment, in seconds."""
    return sum(min(at, turn.until) - turn.since for turn in turns if turn.since < at)


def _figures(replies: Moments) -> Row:
    """Returns tokens a second of all replies: from the request, from the first chunk, and while all are written."""
    if min(map(len, replies)) < 0.9 * TOKENS:  # a chunk can have more than one token: half a character waits
        raise RuntimeError(f"chunks of the replies: {list(map(len, replies))}, wanted: {TOKENS} each")
    chunks = sorted(at for moments in replies for at in moments)
    first, last = max(moments[0] for moments in replies), min(moments[-1] for moments in replies)
    together = [at for at in chunks if first <= at <= last]
    return {
        "tokens_per_s": len(chunks) / chunks[-1],
        "from_first_per_s": (len(chunks) - 1) / (chunks[-1] - chunks[0]),
        "together_per_s": (len(together) - 1) / (last - first) if last > first else 0.0,
        "first_s": chunks[0],
        "pieces": len(chunks),
    }


def report(rows: Sequence[Row], options: Namespace) -> bool:
    """Prints the rates; returns whether ours is within the limit for each number of conversations."""
    lines, good = list[list[object]](), True
    for (many,), mine in sorted(grouped(rows, "conversations").items()):

        def rates(side: str, figure: str, mine: Sequence[Row] = mine) -> list[float]:
            return [row[figure] for row in mine if row["side"] == side and figure in row]

        figures = ("tokens_per_s", "together_per_s", "from_first_per_s")
        means = {
            f: [harmonic_mean(found) if (found := rates(s, f)) else 0.0 for s in ("bare", "ours")] for f in figures
        }
        share, *others = [ours / bare if bare else 0.0 for bare, ours in means.values()]
        each = [one / other for one, other in zip(*(rates(s, "tokens_per_s") for s in ("ours", "bare")), strict=False)]
        fast = round(share, 3) >= LEAST_RATE
        good = good and fast
        lines.append([many, *means["tokens_per_s"], with_range(share, each) if each else None, fast, *others])
    header = ["conversations", "bare, tokens/s", "ours, tokens/s", "ours to bare", f"at least {LEAST_RATE}"]
    header += ["while all are written", "first to last chunk"]
    notes = (
        "From the request to the last chunk of all; a side's time is that of its own turns. Rates over "
        "all repetitions together, in brackets the range of the repetitions' own ratios."
    )
    print_table("The bundled model's text in the run's log, compared with the bare binding", header, lines, notes)
    return print_problems(rows) and good
