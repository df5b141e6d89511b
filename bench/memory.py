"""The cost of long conversations: selecting the model input, by each memory mode, and opening the page.

Selecting is all work between a message and the model's call: reading the conversation, counting, selecting. It is
measured with the bundled model's own tokenizer; the first turn after a start reads the database, later ones do not.
"""

import asyncio
import gc
import random
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright

from agent.model_input import build_model_input
from agent.turn import Turn
from agent.turns import Turns
from backends import Backend, Backends, ModelOptions
from bench.browser import FLAGS
from bench.model import earlier_messages
from bench.server import OURS, Server
from bench.tables import Row, grouped, middle, print_table
from memory.messages import Message, Role, Summary
from memory.modes import MODES
from memory.store import Store
from memory.summaries import save_summary
from runs.registry import RunRegistry
from settings import BackendSettings, Settings

SIZES = (500, 1000, 2000, 5000, 10_000)
"""Messages of a conversation."""
LONG, MOST_CHOICE_MS, MOST_OPEN_MS = 2000, 20, 1000
"""The length of a conversation, and its limits."""
_TURNS = 12
_REPLY = 256
_WORDS = [
    f"{word}{n}" for word in ("whale", "sea", "ship", "light", "keeper", "storm", "net", "rope") for n in range(300)
]
_DRAWN = "#chat [data-testid=bot]"
_OPEN = """async (id) => {
  const link = document.querySelector(`#sidebar [data-id='${id}'] a`), begun = performance.now();
  link.click();
  while (!document.querySelector('#chat [data-testid=bot]')) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - begun;
}"""


def measure(options: Namespace) -> list[Row]:
    """Measures each mode and size, and how pages open if there is a browser."""
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_measure_modes(Path(folder), random.Random(1)))
    return [*rows, *(_measure_openings(options.chromium, options.reps or 3) if options.chromium else [])]


async def _measure_modes(folder: Path, luck: random.Random) -> list[Row]:
    """Measures the milliseconds of the first turn, and of each later one."""
    settings = Settings(
        backends=[BackendSettings(name="SmolLM2", kind="local", model="bundled")],
        data=folder,
        database_url=f"sqlite:///{folder / 'glassbox.db'}",
    )
    backends, store = Backends(settings.backends), Store(settings.database_url)
    await store.open()
    await backends.open()
    try:
        await backends.default.wait_ready()
        rows = []
        for size in SIZES:
            conversation_id = await _conversation(store, size, luck)
            for mode in MODES:
                turns = Turns(settings, backends, store, RunRegistry())
                gc.collect()
                rows.append(await _measure_mode(turns, backends.default, conversation_id, mode, luck) | {"size": size})
        return rows
    finally:
        await backends.close()
        await store.close()


async def _conversation(store: Store, size: int, luck: random.Random) -> str:
    """Stores messages of 5 to 60 words, with a summary of all but the last ten."""
    roles: tuple[Role, Role] = ("user", "assistant")
    messages = [(roles[n % 2], " ".join(luck.choices(_WORDS, k=luck.randint(5, 60)))) for n in range(size)]
    conversation_id = await store.create("anna", messages)
    covered = (await store.history(conversation_id, 11))[0].id
    await save_summary(store, conversation_id, Summary(covered, "They spoke of whales. " * 20, "SmolLM2"))
    return conversation_id


async def _measure_mode(turns: Turns, backend: Backend, conversation_id: str, mode: str, luck: random.Random) -> Row:
    head, times = (await turns.store.conversation(conversation_id, "anna")).head, []
    for _ in range(_TURNS + 1):
        message = Message("next", "user", " ".join(luck.choices(_WORDS, k=8)), parent_id=head)
        history = partial(turns.histories.before, conversation_id, message)
        summary = partial(turns.summarizer.summary, conversation_id)
        begun = time.perf_counter()
        turn = Turn(message, MODES[mode], load_history=history, load_summary=summary)
        await build_model_input(turns.settings, backend, turn, ModelOptions(_REPLY))
        times.append((time.perf_counter() - begun) * 1000)
    return {"case": "choice", "mode": mode, "first_ms": times[0], "later_ms": median(times[1:])}


def _measure_openings(chromium: str, repetitions: int) -> list[Row]:
    """Measures until a conversation is drawn, chosen from the list (`place_ms`) or loaded with the page (`load_ms`)."""
    with sync_playwright() as playwright, Server(OURS, 0) as server:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        rows = []
        for size in (2, *SIZES):
            short = [{**message, "content": message["content"][:300]} for message in earlier_messages(size)]
            answer = context.request.post(f"{server.url}conversations", data={"messages": short})
            conversation_id = answer.json()["conversation_id"]
            for _ in range(repetitions):
                page.goto(f"{server.url}?conversation={conversation_id}", wait_until="commit")
                page.wait_for_selector(_DRAWN)
                loaded = page.evaluate("performance.now()")
                page.goto(server.url)
                page.wait_for_selector(f"#sidebar [data-id='{conversation_id}']")
                page.wait_for_timeout(1000)
                opened = page.evaluate(_OPEN, conversation_id)
                rows.append({"case": "opening", "size": size, "load_ms": loaded, "place_ms": opened})
        browser.close()
        return rows


def report(rows: Sequence[Row], options: Namespace) -> bool:
    """Prints the cost of long conversations; returns whether it is within the limits, and grows at most linearly."""
    choices, openings = ([row for row in rows if row["case"] == case] for case in ("choice", "opening"))
    modes = {mode: {row["size"]: row for row in mine} for (mode,), mine in grouped(choices, "mode").items()}
    lines = [
        [mode, *(f"{mine[n]['later_ms']:.1f} ({mine[n]['first_ms']:.0f})" for n in SIZES)]
        for mode, mine in modes.items()
    ]
    title = "Selecting the model input, p50 in ms (the first turn after a start in brackets)"
    print_table(title, ["mode", *(f"{n:,} messages" for n in SIZES)], lines)
    longest = SIZES[-1]
    good = bool(modes)
    for mode, mine in modes.items():
        later = mine[LONG]["later_ms"]
        good = good and (mode == "full" or later <= MOST_CHOICE_MS)
        good = good and mine[longest]["later_ms"] <= 1.5 * (longest / LONG) * later
    if openings:
        by_size = {size: mine for (size,), mine in sorted(grouped(openings, "size").items())}
        figures = {
            size: [middle(mine, name) or 0.0 for name in ("place_ms", "load_ms")] for size, mine in by_size.items()
        }
        header = ["messages", "from the list", "with the page itself"]
        print_table(
            "Opening a conversation, until it is drawn, p50 in ms", header, [[n, *f] for n, f in figures.items()]
        )
        good = good and figures[LONG][0] <= MOST_OPEN_MS
    return good
