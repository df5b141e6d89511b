"""Measures how fast the bundled model's text reaches a run's log, beside the bare binding; how a reply streams: our
page and a plain `gr.ChatInterface`; and how late tools' partial results are on our page, each page with none and with
many earlier messages; how steadily many followers of a run are served over HTTP, beside a minimal server; and whether
anything is lost where lines drop, or where the app is killed; what long conversations cost; what another visitor gets
during attacks; and how fifty visitors are borne.

Everything is measured in one run, taking turns, so that whatever else the machine does falls on all alike. Each
measurement of a page has a server and a browser of its own. Ends with 0 if text came at 0.95 of the bare rate or
more, every reply was whole, our Stop stopped the model, a long conversation costs our page at most 1.2 times what a
new one does, 95 in 100 partial results are on it within 300 ms, followers were served steadily for at most 1.5 times
the CPU of the minimal server, no drop lost anything, no kill more than the last second of a reply, and a conversation
of 2,000 messages opens within a second and costs a turn at most 20 ms, no attack makes another visitor's first token
more than twice as late or takes more memory each time, and the fifty left no error, words or memory; else with 1, or
with 2 where there is no browser.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from playwright.sync_api import Playwright, sync_playwright

from bench.attacks import measure_attacks
from bench.browser import RATE, Page, find_chromium, measure_reply, measure_stop, measure_tools, open_page
from bench.drops import measure_drops
from bench.followers import measure_followers
from bench.kills import measure_kills
from bench.memory import measure_choices, measure_openings
from bench.model import MOST_TOKENS
from bench.rate import measure_rates
from bench.report import (
    print_attacks,
    print_drops,
    print_followers,
    print_kills,
    print_memory,
    print_rates,
    print_report,
    print_soak,
    print_tools,
)
from bench.server import OURS, VANILLA, Server, Site, end_children
from bench.soak import measure_soak
from bench.tools import CASES

_PARTS = ("rate", "page", "tool", "followers", "drops", "kills", "memory", "attacks", "soak")
_IN_BROWSER = ("page", "tool")
"""What is nothing without a browser; "memory" opens its conversations in one if there is one."""
_RUNS, _DROPS, _KILLS = 50, 500, 100
_RESULTS = Path(__file__).parent / "results"
_NO_BROWSER = """\
No Chromium found. Install one and have it on the PATH as chromium or google-chrome, or set BENCH_CHROMIUM to its path.
    Debian, Ubuntu   apt install chromium
    macOS            brew install --cask chromium
    anywhere         python -m playwright install chromium"""


def _at_least(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"found {text}, allowed: {least} to {most}")
        return int(text)

    return number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=_PARTS, help="measure only this")
    parser.add_argument(
        "--reps", type=_at_least(1, 100), help="repetitions (default 100 kills, 6 of the rate, 5 attacks, else 3)"
    )
    parser.add_argument("--minutes", type=float, default=30, help="of the soak (default 30)")
    parser.add_argument("--tokens", type=_at_least(20, MOST_TOKENS), default=300, help="of a reply (default 300)")
    parser.add_argument("--history", type=_at_least(2, 10_000), default=400, help="earlier messages (default 400)")
    return parser.parse_args()


class Turn(NamedTuple):
    """A measurement that each repetition makes."""

    case: str
    site: Site
    history: int
    measure: Callable[[Page, Server], dict[str, Any]]


def _page_turns(tokens: int, history: int) -> list[Turn]:
    """What is compared comes one after the other."""
    sites, reply = (OURS, VANILLA), partial(measure_reply, tokens=tokens)
    replies = [Turn("reply", site, earlier, reply) for site in sites for earlier in (0, history)]
    return [*replies, *(Turn("stop", site, 0, measure_stop) for site in sites)]


def _tool_turns(history: int) -> list[Turn]:
    cases = [(name, partial(measure_tools, case=case)) for name, case in CASES.items()]
    return [Turn(name, OURS, earlier, measure) for name, measure in cases for earlier in (0, history)]


def _measure(playwright: Playwright, chromium: str, turn: Turn) -> dict[str, Any]:
    """One measurement. A failure is a row with its reason."""
    try:
        with Server(turn.site, turn.history) as server, open_page(playwright, chromium, server) as page:
            return turn.measure(page, server)
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}".strip()}


def _run(chromium: str, turns: Sequence[Turn], repetitions: int) -> list[dict[str, Any]]:
    rows = []
    with sync_playwright() as playwright:
        for repetition in range(repetitions):
            for turn in turns if repetition % 2 == 0 else reversed(turns):  # a drift falls on all alike
                what = f"{turn.case}, {turn.site.name}, {turn.history} earlier"
                print(f"{repetition + 1} of {repetitions}: {what}", file=sys.stderr)
                row = {"page": turn.site.name, "history": turn.history, "repetition": repetition, "case": turn.case}
                rows.append(row | _measure(playwright, chromium, turn))
    return rows


def _keep(rows: list[dict[str, Any]], given: argparse.Namespace) -> Path:
    """Writes the raw figures, with what they were measured on."""
    _RESULTS.mkdir(exist_ok=True)
    file = _RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    machine = {
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        **{name: version(name) for name in ("gradio", "langchain-core", "playwright", "xllamacpp")},
    }
    kept = {"arguments": vars(given) | {"rate": RATE}, "machine": machine, "rows": rows}
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return file


def _measured(part: str, given: argparse.Namespace, chromium: str) -> list[dict[str, Any]]:
    match part:
        case "rate":
            return measure_rates(given.reps or 6)
        case "page":
            return _run(chromium, _page_turns(given.tokens, given.history), given.reps or 3)
        case "tool":
            return _run(chromium, _tool_turns(given.history), given.reps or 3)
        case "followers":
            return measure_followers(given.reps or 3)
        case "kills":
            return measure_kills(given.reps or _KILLS)
        case "attacks":
            return measure_attacks(given.reps or 5)
        case "soak":
            return [measure_soak(given.minutes)]
        case "memory":
            return [*measure_choices(), *(measure_openings(chromium, given.reps or 3) if chromium else [])]
        case _:
            return [measure_drops(_RUNS, _DROPS, seed) for seed in range(given.reps or 1)]


def _printed(part: str, rows: list[dict[str, Any]], given: argparse.Namespace) -> bool:
    """Prints what was found; returns whether it is good."""
    match part:
        case "rate":
            return print_rates(rows)
        case "page":
            return print_report(rows, given.tokens, RATE, given.history)
        case "tool":
            return print_tools(rows)
        case "followers":
            return print_followers(rows)
        case "kills":
            return print_kills(rows)
        case "memory":
            return print_memory(rows)
        case "attacks":
            return print_attacks(rows)
        case "soak":
            return print_soak(rows)
        case _:
            return print_drops(rows)


def main() -> int:
    given = _arguments()
    wanted = (given.only,) if given.only else _PARTS
    chromium = find_chromium()
    blind = bool(set(wanted) & set(_IN_BROWSER)) and chromium is None
    if blind:
        print(_NO_BROWSER, file=sys.stderr)
        if given.only:
            return 2
    folder = tempfile.mkdtemp(prefix="glassbox-bench-")
    tempfile.tempdir = os.environ["TMPDIR"] = folder  # servers' data and browsers' profiles go with it

    def leave(number: int, frame: FrameType | None) -> None:
        """Playwright cannot be unwound in mid-call, so what was started is ended from outside of it."""
        end_children()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        for part in wanted:
            if chromium or part not in _IN_BROWSER:
                rows[part] = _measured(part, given, chromium or "")
    finally:
        end_children()
        shutil.rmtree(folder, ignore_errors=True)
    good = True
    for part, found in rows.items():
        good = _printed(part, found, given) and good
    print(f"\nRaw figures: {os.path.relpath(_keep([row for found in rows.values() for row in found], given))}")
    return 1 if not good else 2 if blind else 0


if __name__ == "__main__":
    sys.exit(main())
