"""How fast the bundled model's text reaches a run's log through our turns, beside the bare `xllamacpp` binding."""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bench.server import others_cpu_s
from bench.sides import SLOTS, TOKENS, Moments

_CONVERSATIONS = (1, 4, SLOTS)
"""How many replies are written at once."""
_SETTLE_S = 0.3
_ROOT = Path(__file__).parent.parent


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

    def measure(self, prompts: list[str]) -> dict[str, float]:
        """Has all prompts answered at once."""
        time.sleep(_SETTLE_S)
        process = psutil.Process(self._process.pid)
        begun, by_others = time.time(), others_cpu_s(process)
        answer = self._answer(prompts)
        by_others = (others_cpu_s(process) - by_others) / (time.time() - begun)
        return _figures(begun, answer) | {"others_cpu": by_others}

    def _answer(self, prompts: list[str]) -> Moments:
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            print(json.dumps(prompts), file=self._process.stdin, flush=True)
        answer: Moments = json.loads(self._process.stdout.readline() or "[]")
        if not answer:
            raise RuntimeError(f"its process has ended; it said:\n{self._said.read_text()[-2000:]}")
        return answer


def _figures(begun: float, replies: Moments) -> dict[str, float]:
    """Tokens a second of all replies together: in all, from the first piece to the last, and while all are written."""
    if min(map(len, replies)) < 0.9 * TOKENS:  # a piece may have more than one token: half a character waits
        raise RuntimeError(f"pieces of the replies: {list(map(len, replies))}, wanted: {TOKENS} each")
    pieces = sorted(at for moments in replies for at in moments)
    first, last = max(moments[0] for moments in replies), min(moments[-1] for moments in replies)
    together = [at for at in pieces if first <= at <= last]
    return {
        "tokens_per_s": len(pieces) / (pieces[-1] - begun),
        "from_first_per_s": (len(pieces) - 1) / (pieces[-1] - pieces[0]),
        "together_per_s": (len(together) - 1) / (last - first) if last > first else 0.0,
        "first_s": pieces[0] - begun,
        "pieces": len(pieces),
    }


def measure_rates(repetitions: int) -> list[dict[str, Any]]:
    """Rows, one for each side, number of conversations and repetition; a failure is a row with its reason."""
    rows = []
    with Side("bare") as bare, Side("ours") as ours:
        for side in (bare, ours):
            with suppress(RuntimeError):  # it will fail again, and then it counts
                side.measure([f"Tell me a story about {i} birds." for i in range(SLOTS)])
        for repetition in range(repetitions):
            print(f"{repetition + 1} of {repetitions}: rate", file=sys.stderr)
            for many in _CONVERSATIONS:
                prompts = [f"Tell me a story about the number {100 * repetition + 10 * many + i}." for i in range(many)]
                for side in (bare, ours) if repetition % 2 == 0 else (ours, bare):  # a drift falls on both alike
                    row = {"case": "rate", "side": side.name, "conversations": many, "repetition": repetition}
                    try:
                        rows.append(row | side.measure(prompts))
                    except (RuntimeError, psutil.Error) as e:
                        rows.append(row | {"error": f"{type(e).__name__}: {e}".strip()})
    return rows
