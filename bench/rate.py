"""How fast the bundled model's text reaches a run's log through our turns, beside the bare `xllamacpp` binding.

Both sides write at once, each held (SIGSTOP) while the other has its turn, many times in a reply, and each is timed by
its own turns alone: what else the machine does falls on both alike. Where each side wrote its replies in one go, the
bare binding alone ran from 56 to 71 tokens a second within twelve repetitions.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench.server import others_cpu_s
from bench.sides import SLOTS, TOKENS, Moments

_CONVERSATIONS = (1, 4, SLOTS)
"""How many replies are written at once."""
_SETTLE_S = 0.3
_TURN_S = 0.2
_ROOT = Path(__file__).parent.parent


class Turn(NamedTuple):
    """When a side was not held, in seconds since 1970."""

    side: str
    since: float
    until: float


class Side:
    """`with Side("ours") as side:` holds a side's process until the block is left."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._said = Path(tempfile.mkdtemp(prefix="rate-")) / "said.txt"

    def __enter__(self) -> "Side":
        command, pipe = [sys.executable, "-m", "bench.sides", self.name], subprocess.PIPE
        with self._said.open("w") as errors:
            self._process = subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate(timeout=20)

    def answer(self, prompts: Sequence[str]) -> Moments:
        """Has all prompts answered at once. Raises RuntimeError where its process has ended."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            print(json.dumps(prompts), file=self._process.stdin, flush=True)
        answer: Moments = json.loads(self._process.stdout.readline() or "[]")
        if not answer:
            raise RuntimeError(f"its process has ended; it said:\n{self._said.read_text()[-2000:]}")
        return answer

    def processes(self) -> list[psutil.Process]:
        """Its own and its model's; none if it has ended."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []


def _hold(processes: Sequence[psutil.Process]) -> None:
    """Nothing of them runs until `_go`."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()


def _go(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def _take_turns(sides: Sequence[Side], prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Has all prompts answered by all sides, in turns; each side's figures, or its error, in the sides' order."""
    time.sleep(_SETTLE_S)
    begun, by_others = time.time(), others_cpu_s(psutil.Process())
    trees = {side.name: side.processes() for side in sides}  # looked for once: a search takes a part of a turn
    for tree in trees.values():
        _hold(tree)
    turns = list[Turn]()
    with ThreadPoolExecutor(len(sides)) as pool:
        asked = [pool.submit(side.answer, prompts) for side in sides]
        try:
            for side in cycle(sides):
                if all(answer.done() for answer in asked):
                    break
                since = time.time()
                _go(trees[side.name])
                time.sleep(_TURN_S)
                _hold(trees[side.name])
                turns.append(Turn(side.name, since, time.time()))
        finally:
            for tree in trees.values():
                _go(tree)
    by_others = (others_cpu_s(psutil.Process()) - by_others) / (time.time() - begun)
    found = list[dict[str, Any]]()
    for side, answer in zip(sides, asked, strict=True):
        try:
            mine = [turn for turn in turns if turn.side == side.name]
            replies = [[own_s(mine, at) for at in moments] for moments in answer.result()]
            found.append(_figures(replies) | {"others_cpu": by_others})
        except RuntimeError as e:
            found.append({"error": f"{type(e).__name__}: {e}".strip()})
    return found


def own_s(turns: Sequence[Turn], at: float) -> float:
    """What a side had of the time until a moment, in seconds."""
    return sum(min(at, turn.until) - turn.since for turn in turns if turn.since < at)


def _figures(replies: Moments) -> dict[str, float]:
    """Tokens a second of all replies together: in all, from the first piece to the last, and while all are written."""
    if min(map(len, replies)) < 0.9 * TOKENS:  # a piece may have more than one token: half a character waits
        raise RuntimeError(f"pieces of the replies: {list(map(len, replies))}, wanted: {TOKENS} each")
    pieces = sorted(at for moments in replies for at in moments)
    first, last = max(moments[0] for moments in replies), min(moments[-1] for moments in replies)
    together = [at for at in pieces if first <= at <= last]
    return {
        "tokens_per_s": len(pieces) / pieces[-1],
        "from_first_per_s": (len(pieces) - 1) / (pieces[-1] - pieces[0]),
        "together_per_s": (len(together) - 1) / (last - first) if last > first else 0.0,
        "first_s": pieces[0],
        "pieces": len(pieces),
    }


def measure_rates(repetitions: int) -> list[dict[str, Any]]:
    """Rows, one for each side, number of conversations and repetition; a failure is a row with its reason."""
    rows = []
    with Side("bare") as bare, Side("ours") as ours:
        for side in (bare, ours):
            with suppress(RuntimeError):  # it will fail again, and then it counts
                side.answer([f"Tell me a story about {i} birds." for i in range(SLOTS)])
        for repetition in range(repetitions):
            print(f"{repetition + 1} of {repetitions}: rate", file=sys.stderr)
            sides = (bare, ours) if repetition % 2 == 0 else (ours, bare)  # neither is always the first
            for many in _CONVERSATIONS:
                prompts = [f"Tell me a story about the number {100 * repetition + 10 * many + i}." for i in range(many)]
                for side, found in zip(sides, _take_turns(sides, prompts), strict=True):
                    row = {"case": "rate", "side": side.name, "conversations": many, "repetition": repetition}
                    rows.append(row | found)
    return rows
