"""Runs the benchmarks: the rate of the bundled model's text, compared with the bare binding; replies and tools in a
browser, compared with a plain `gr.ChatInterface`; followers over HTTP, compared with a minimal server; dropped
connections, kills, long conversations and what is read again in them, attacks, and fifty visitors at once.

What is compared is measured in turns, so that other programs affect all alike. Exits with 0 if every benchmark is
within its limits, which the tables name; with 1 if not; and with 2 without a browser.
"""

import argparse
import importlib
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

from bench.browser import find_chromium
from bench.model import MOST_TOKENS
from bench.process import end_children
from bench.tables import Row

_BENCHMARKS = ("rate", "page", "tool", "followers", "drops", "kills", "memory", "long", "attacks", "soak")
"""The modules of this package, each with `measure` and `report`."""
_NEED_BROWSER = {"page", "tool"}
_RESULTS = Path(__file__).parent / "results"
_NO_BROWSER = """\
No Chromium found. Install one and have it on the PATH as chromium or google-chrome, or set BENCH_CHROMIUM to its path.
    Debian, Ubuntu   apt install chromium
    macOS            brew install --cask chromium
    anywhere         python -m playwright install chromium"""


def _between(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"found {text}, allowed: {least} to {most}")
        return int(text)

    return number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=_BENCHMARKS, help="run only this benchmark")
    defaults = "100 kills, 6 of the rate, 5 attacks, 1 of the drops, else 3"
    parser.add_argument("--reps", type=_between(1, 100), help=f"repetitions (default {defaults})")
    parser.add_argument("--minutes", type=float, default=30, help="of the soak (default 30)")
    parser.add_argument("--tokens", type=_between(20, MOST_TOKENS), default=300, help="of a reply (default 300)")
    parser.add_argument("--history", type=_between(2, 10_000), default=400, help="earlier messages (default 400)")
    return parser.parse_args()


def _save(rows: list[Row], arguments: dict[str, Any]) -> Path:
    """Saves the raw figures with a description of the machine."""
    _RESULTS.mkdir(exist_ok=True)
    file = _RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    machine = {"python": platform.python_version(), "processors": os.cpu_count(), "load": os.getloadavg()}
    machine |= {name: version(name) for name in ("gradio", "langchain-core", "playwright", "xllamacpp")}
    saved = {"arguments": arguments, "machine": machine, "rows": rows}
    file.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    return file


def _prepare_exit(folder: str) -> None:
    """Lets a signal end everything from outside of Playwright, which may be in the middle of a call."""

    def leave(number: int, frame: FrameType | None) -> None:
        end_children()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def main() -> int:
    """Runs the benchmarks; returns the exit code."""
    options = _arguments()
    arguments = dict(vars(options))
    wanted = [options.only] if options.only else list(_BENCHMARKS)
    options.chromium = find_chromium()
    blind = options.chromium is None and bool(_NEED_BROWSER & set(wanted))
    if blind:
        print(_NO_BROWSER, file=sys.stderr)
        wanted = [name for name in wanted if name not in _NEED_BROWSER]
    folder = tempfile.mkdtemp(prefix="glassbox-bench-")
    tempfile.tempdir = os.environ["TMPDIR"] = folder  # servers' data and browsers' profiles are removed with it
    _prepare_exit(folder)
    modules: dict[str, Any] = {name: importlib.import_module(f"bench.{name}") for name in wanted}
    try:
        rows: dict[str, list[Row]] = {name: module.measure(options) for name, module in modules.items()}
    finally:
        end_children()
        shutil.rmtree(folder, ignore_errors=True)
    good = [module.report(rows[name], options) and bool(rows[name]) for name, module in modules.items()]
    if rows:
        print(f"\nRaw figures: {os.path.relpath(_save([row for found in rows.values() for row in found], arguments))}")
    return 1 if not all(good) else 2 if blind else 0


if __name__ == "__main__":
    sys.exit(main())
