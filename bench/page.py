"""How a reply streams in a real browser, on our page and on a plain `gr.ChatInterface`, and how soon Stop stops the
model; each page without and with many earlier messages.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from playwright.sync_api import sync_playwright

from bench.browser import Page, browser_cpu_s, open_page
from bench.model import numbers, wait_for_end
from bench.server import OURS, VANILLA, Server, Site, measured
from bench.tables import Row, grouped, middle, percentile, print_problems, print_table, with_range

RATE = 50
"""Tokens a second in every measured reply."""
_STOP_OF, _STOP_AT = 1000, 50
"""Stop is clicked when token 50 of 1000 is on the page."""
MOST_RATIO = 1.2
"""The most CPU per token with many earlier messages, compared with none."""
_FIGURES = {
    "behind_p50_ms": "behind schedule p50, ms",
    "behind_p95_ms": "p95, ms",
    "first_token_ms": "first token, ms",
    "server_cpu_ms_per_token": "server CPU, ms/token",
    "browser_cpu_ms_per_token": "browser CPU, ms/token",
    "long_tasks": "long tasks",
}
_CPU = {"server_cpu_ms_per_token": "server CPU", "browser_cpu_ms_per_token": "browser CPU"}

Measure = Callable[[Page, Server], Row]


def measure(options: Namespace) -> list[Row]:
    """Measures replies and Stop; what is compared is measured one after the other."""
    reply = partial(_measure_reply, tokens=options.tokens)
    cases: list[tuple[str, Site, int, Measure]] = [
        *(("reply", site, history, reply) for site in (OURS, VANILLA) for history in (0, options.history)),
        *(("stop", site, 0, _measure_stop) for site in (OURS, VANILLA)),
    ]
    return measure_pages(options.chromium, cases, options.reps or 3)


def measure_pages(chromium: str, cases: Sequence[tuple[str, Site, int, Measure]], repetitions: int) -> list[Row]:
    """Measures each case in a new server and browser, in alternating order, so that a drift affects all alike."""
    rows = []
    with sync_playwright() as playwright:
        for repetition in range(repetitions):
            for case, site, history, measure_page in cases if repetition % 2 == 0 else reversed(cases):
                print(f"{repetition + 1} of {repetitions}: {case}, {site.name}, {history} earlier", file=sys.stderr)

                def measure_server(server: Server, measure_page: Measure = measure_page) -> Row:
                    with open_page(playwright, chromium, server) as page:
                        return measure_page(page, server)

                row = {"case": case, "page": site.name, "history": history, "repetition": repetition}
                rows.append(row | measured(site, history, measure_server))
    return rows


def _measure_reply(page: Page, server: Server, tokens: int) -> Row:
    """Measures one reply. CPU is from Enter until 0.4 s after the page has ended the reply.

    A token is behind schedule by its first moment in the DOM less the moment at which the script wanted to emit it, so
    that a server that slows its model down cannot hide it.
    """
    asked = f"N={tokens} R={RATE}"
    page.write(asked)
    server_s, browser_s = server.process.cpu_s(), browser_cpu_s()
    page.send()
    page.wait_for_token(tokens - 1, 60 + 10 * tokens / RATE)
    page.wait_for_end()
    time.sleep(0.4)
    server_s, browser_s = server.process.cpu_s() - server_s, browser_cpu_s() - browser_s
    replies = [text for text in page.texts(page.site.replies) if text.strip()]
    found, script = page.recorded(), wait_for_end(server.log, asked, 5)
    if script is None:
        raise RuntimeError("the reply is on the page, but the model has not logged its end")
    entered = found["enters"][-1]
    behind = [seen - script["start_ms"] - i * 1000 / RATE for i, seen in enumerate(found["seen"][""])]
    long_tasks = [duration for at, duration in found["longTasks"] if at >= entered]
    return {
        "behind_p50_ms": percentile(behind, 50),
        "behind_p95_ms": percentile(behind, 95),
        "first_token_ms": found["seen"][""][0] - entered,
        "server_cpu_ms_per_token": server_s * 1000 / tokens,
        "browser_cpu_ms_per_token": browser_s * 1000 / tokens,
        "long_tasks": len(long_tasks),
        "long_tasks_ms": sum(long_tasks),
        "complete_in_order": numbers(replies[-1]) == list(range(tokens)),
        "clock_skew_ms": found["skew_ms"],
    }


def _measure_stop(page: Page, server: Server) -> Row:
    """Measures `stop_ms`, from the click to the end of the model's work; None if its script ended first."""
    asked = f"N={_STOP_OF} R={RATE}"
    page.write(asked)
    page.send()
    page.wait_for_token(_STOP_AT)
    page.tab.click(page.site.stop)
    script = wait_for_end(server.log, asked, _STOP_OF / RATE + 15)
    page.wait_for_end()
    clicked = page.recorded()["clicks"][-1]
    if script is None or script["how"] != "cancelled":
        return {"stop_ms": None}
    late = [at for at in script["emitted_ms"] if at > clicked]
    return {"stop_ms": script["end_ms"] - clicked, "tokens_after_click": len(late)}


def report(rows: Sequence[Row], options: Namespace) -> bool:
    """Prints the tables; returns whether replies were complete, our Stop worked and our ratios are within the limit."""
    replies, stops = ([row for row in rows if row["case"] == case] for case in ("reply", "stop"))
    lines: list[list[object]] = []
    for (page, history), mine in sorted(grouped(replies, "page", "history").items()):
        complete = sum(bool(row.get("complete_in_order")) for row in mine)
        lines.append([page, history, *(middle(mine, figure) for figure in _FIGURES), f"{complete} of {len(mine)}"])
    header = ["page", "earlier messages", *_FIGURES.values(), "complete, in order"]
    print_table(f"A reply of {options.tokens} tokens at {RATE} a second", header, lines)

    within: dict[str, bool] = {}
    lines = []
    for (page,), mine in grouped(replies, "page").items():
        ratios = [_ratios(mine, options.history, figure) for figure in _CPU]
        within[page] = all(each and round(median(each), 2) <= MOST_RATIO for each in ratios)
        lines.append([page, *(with_range(median(each), each) if each else None for each in ratios), within[page]])
    notes = "The median of the repetitions' ratios, in brackets their range."
    title = f"CPU per token, {options.history} earlier messages to none"
    print_table(title, ["page", *_CPU.values(), f"within {MOST_RATIO}"], lines, notes)

    lines = []
    for (page,), mine in grouped(stops, "page").items():
        figures = [middle(mine, figure) for figure in ("stop_ms", "tokens_after_click")]
        stopped = sum(row.get("stop_ms") is not None for row in mine)
        lines.append([page, *figures, f"{stopped} of {len(mine)}"])
    print_table("Stop", ["page", "click to the model's end, ms", "tokens after the click", "model stopped"], lines)

    complete = all(row.get("complete_in_order") for row in replies)
    stopped = all(row.get("stop_ms") is not None for row in stops if row["page"] == "ours")
    return print_problems(rows) and complete and bool(stopped) and within["ours"]


def _ratios(rows: Sequence[Row], history: int, figure: str) -> list[float]:
    """Returns a figure with earlier messages divided by the same without, for each repetition that has both."""
    found = []
    for mine in grouped(rows, "repetition").values():
        long, new = (middle([row for row in mine if row["history"] == n], figure) for n in (history, 0))
        if long and new:
            found.append(long / new)
    return found
