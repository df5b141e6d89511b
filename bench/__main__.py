"""Measures how fast the bundled model's text reaches a run's log, beside the bare binding; and how a reply streams: our
page and a plain `gr.ChatInterface`, each with none and with many earlier messages.

Everything is measured in one run, taking turns, so that whatever else the machine does falls on all alike. Each
measurement of a page has a server and a browser of its own. Ends with 0 if text came at 0.95 of the bare rate or more,
every reply was whole, our Stop stopped the model and a long conversation costs our page at most 1.2 times what a new
one does, else with 1; with 2 where there is no browser for the page.
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
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from playwright.sync_api import Playwright, sync_playwright

from bench.browser import RATE, find_chromium, measure_reply, measure_stop, open_page
from bench.model import MOST_TOKENS
from bench.rate import measure_rates
from bench.report import print_rates, print_report
from bench.server import OURS, VANILLA, Server, Site, end_children

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
    parser.add_argument("--only", choices=("rate", "page"), help="measure only this")
    parser.add_argument("--reps", type=_at_least(1, 100), help="repetitions (default 12 of the rate, 3 of the page)")
    parser.add_argument("--tokens", type=_at_least(20, MOST_TOKENS), default=300, help="of a reply (default 300)")
    parser.add_argument("--history", type=_at_least(2, 10_000), default=400, help="earlier messages (default 400)")
    return parser.parse_args()


def _measure(playwright: Playwright, chromium: str, site: Site, history: int, tokens: int | None) -> dict[str, Any]:
    """One measurement: of a reply, or of Stop where `tokens` is None. A failure is a row with its reason."""
    try:
        with Server(site, history) as server, open_page(playwright, chromium, server) as page:
            return measure_stop(page, server) if tokens is None else measure_reply(page, server, tokens)
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}".strip()}


def _run(chromium: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    replies: list[tuple[Site, int, int | None]] = [  # what is compared comes one after the other
        (site, history, given.tokens) for site in (OURS, VANILLA) for history in (0, given.history)
    ]
    stops: list[tuple[Site, int, int | None]] = [(site, 0, None) for site in (OURS, VANILLA)]
    rows, repetitions = [], given.reps or 3
    with sync_playwright() as playwright:
        for repetition in range(repetitions):
            turn = [*replies, *stops]
            for site, history, tokens in turn if repetition % 2 == 0 else reversed(turn):  # a drift falls on all alike
                case = "stop" if tokens is None else "reply"
                print(f"{repetition + 1} of {repetitions}: {case}, {site.name}, {history} earlier", file=sys.stderr)
                figures = _measure(playwright, chromium, site, history, tokens)
                rows.append({"page": site.name, "history": history, "repetition": repetition, "case": case} | figures)
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


def main() -> int:
    given = _arguments()
    chromium = find_chromium() if given.only != "rate" else None
    blind = given.only != "rate" and chromium is None
    if blind:
        print(_NO_BROWSER, file=sys.stderr)
        if given.only == "page":
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
    rates, pages = list[dict[str, Any]](), list[dict[str, Any]]()
    try:
        if given.only != "page":
            rates = measure_rates(given.reps or 12)
        if chromium:
            pages = _run(chromium, given)
    finally:
        end_children()
        shutil.rmtree(folder, ignore_errors=True)
    good = print_rates(rates) if rates else True
    if pages:
        good = print_report(pages, given.tokens, RATE, given.history) and good
    print(f"\nRaw figures: {os.path.relpath(_keep([*rates, *pages], given))}")
    return 1 if not good else 2 if blind else 0


if __name__ == "__main__":
    sys.exit(main())
