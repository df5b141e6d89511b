"""A tool whose output says when each piece of it was yielded, so that the page alone tells how late it was there."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from agent.tools.streaming import streaming_tool
from bench.model import SERIES, token

_PAUSE_S = 0.05
_APART_S, _QUIET_S = 0.06, 1.2
"""Between the two of a pair, and until the next: what is gathered must not wait for more to come."""
_SKEW_MS = 5.0
"""By which the page's clock may be behind."""


@streaming_tool
async def marks(count: int = 60, series: str = "", pairs: bool = False) -> AsyncGenerator[str, None]:
    """Yields numbered marks, 20 a second or in pairs, each with its moment in ms since 1970. For the benchmark."""
    due = time.time()
    for i in range(count):
        await asyncio.sleep(max(0.0, due - time.time()))
        yield f"{token(i)}{series}@{time.time() * 1000:.1f}\n"
        due += _PAUSE_S if not pairs else _QUIET_S if i % 2 else _APART_S


@dataclass(frozen=True)
class Case:
    """What is asked, and the marks that come of it: so many of each series."""

    asked: str
    count: int
    series: Sequence[str] = SERIES[:1]


CASES = {
    "20 a second": Case("/marks 60", 60),
    "three tools, 20 a second each": Case("T=3 N=60", 60, SERIES),
    f"in pairs {_APART_S * 1000:.0f} ms apart": Case('/marks {"count": 16, "pairs": true}', 16),
}


def lateness(case: Case, text: str, seen: Mapping[str, Sequence[float]]) -> list[float]:
    """How long after its yield each mark was first on the page, in milliseconds.

    `text` is all that the page has of the tools' output in the end. Raises ValueError if that is not whole.
    """
    found = []
    for series in case.series:
        yielded = re.findall(rf"w(\d{{4}}){series}@([\d.]+)", text)
        if [int(number) for number, _ in yielded] != list(range(case.count)):
            raise ValueError(f"of {case.count} marks in order the page has {[number for number, _ in yielded]}")
        found += [at - float(then) for at, (_, then) in zip(seen[series], yielded, strict=False)]
    if len(found) != case.count * len(case.series) or min(found) < -_SKEW_MS:
        raise ValueError(f"of {case.count} marks one has not been seen, or before its yield: {found}")
    return found
