"""How soon our page shows the partial results of tools. The tool's output says when each part of it was yielded."""

import re
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from bench.app_tools import PAIR_S
from bench.browser import Page
from bench.model import SERIES
from bench.page import measure_pages
from bench.server import OURS, Server
from bench.tables import Row, grouped, percentile, print_problems, print_table, with_range

MOST_LATE_MS = 300
"""The most that the p95 may be."""
_OPENED = """([selector, count]) => {
  const parts = [...document.querySelectorAll(`${selector} details`)];
  return parts.length >= count && parts.every((part) => part.open = true);
}"""
"""Opens the tool calls as soon as they exist, as a person does who watches them."""
_SKEW_MS = 5.0
"""The most by which the page's clock may be behind."""


@dataclass(frozen=True)
class Case:
    """A message, and the number of marks of each series that it causes."""

    asked: str
    count: int
    series: Sequence[str] = SERIES[:1]


CASES = {
    "20 a second": Case("/marks 60", 60),
    "three tools, 20 a second each": Case("T=3 N=60", 60, SERIES),
    f"in pairs {PAIR_S * 1000:.0f} ms apart": Case('/marks {"count": 16, "pairs": true}', 16),
}


def measure(options: Namespace) -> list[Row]:
    """Measures each case without and with earlier messages."""
    cases = [
        (name, OURS, n, partial(_measure, case=case)) for name, case in CASES.items() for n in (0, options.history)
    ]
    return measure_pages(options.chromium, cases, options.reps or 3)


def _measure(page: Page, server: Server, case: Case) -> Row:
    """Measures `late_ms`: for each mark the time from its yield until it was in the DOM."""
    page.write(case.asked)
    page.send()
    page.wait(f"{len(case.series)} calls", _OPENED, [page.site.tool_calls, len(case.series)])
    page.wait_for_token(case.count - 1)
    page.wait_for_end()
    time.sleep(0.4)
    found = page.recorded()
    late = [round(ms, 1) for ms in lateness(case, "\n".join(page.texts(page.site.tool_calls)), found["seen"])]
    return {"late_ms": late, "clock_skew_ms": found["skew_ms"]}


def lateness(case: Case, text: str, seen: Mapping[str, Sequence[float]]) -> list[float]:
    """Returns how long after its yield each mark was first on the page, in milliseconds.

    `text` is all tool output that the page has at the end. Raises ValueError if marks are missing.
    """
    found = []
    for series in case.series:
        yielded = re.findall(rf"w(\d{{4}}){series}@([\d.]+)", text)
        if [int(number) for number, _ in yielded] != list(range(case.count)):
            raise ValueError(f"of {case.count} marks in order the page has {[number for number, _ in yielded]}")
        found += [at - float(then) for at, (_, then) in zip(seen[series], yielded, strict=False)]
    if len(found) != case.count * len(case.series) or min(found) < -_SKEW_MS:
        raise ValueError(f"of {case.count} marks one was not seen, or before its yield: {found}")
    return found


def report(rows: Sequence[Row], options: Namespace | None = None) -> bool:
    """Prints how late partial results are; returns whether all are within the limit."""
    lines: list[list[object]] = []
    for (case, history), mine in sorted(grouped(rows, "case", "history").items()):
        late = [row["late_ms"] for row in mine if "late_ms" in row]
        if not late:
            lines.append([case, history, None, None, None, False])
            continue
        p50, p95 = ([percentile(each, percent) for each in late] for percent in (50, 95))
        worst = max(map(max, late))
        lines.append([case, history, median(p50), with_range(median(p95), p95), worst, median(p95) <= MOST_LATE_MS])
    header = ["a tool yields", "earlier messages", "p50, ms", "p95, ms", "worst, ms", f"p95 within {MOST_LATE_MS}"]
    notes = "Until each is in the DOM, its tool call open: medians of the repetitions, in brackets their range."
    print_table("Partial results of tools, from the yield to the page", header, lines, notes)
    return print_problems(rows) and all(line[-1] for line in lines)
