"""What a long conversation costs: choosing what the model is given of it, by each memory mode, and opening it.

Choosing is what stands between a message and the model's call: reading the conversation, counting, selecting. It is
measured with the bundled model's own tokenizer; the first turn after a start reads the database, later ones do not.
"""

import asyncio
import gc
import random
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from agent.model_input import TurnInput, build_model_input
from agent.turns import Turns
from backends import Backend, Backends
from bench.browser import FLAGS
from bench.model import earlier_messages
from bench.server import OURS, Server
from memory.messages import Message, Role, Summary, TurnOptions
from memory.modes import MODES
from memory.store import Store
from memory.summaries import save_summary
from runs.registry import RunRegistry
from settings import BackendSettings, Settings

SIZES = (500, 1000, 2000, 5000, 10_000)
"""Messages of the conversation."""
_TURNS = 12
_REPLY = 256
_WORDS = [
    f"{word}{n}" for word in ("whale", "sea", "ship", "light", "keeper", "storm", "net", "rope") for n in range(300)
]

Row = dict[str, Any]


def measure_choices(seed: int = 1) -> list[Row]:
    """A row for each mode and size: milliseconds of the first turn, and of each later one."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_choices(Path(folder), random.Random(seed)))


async def _choices(folder: Path, luck: random.Random) -> list[Row]:
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
                rows.append(await _chosen(turns, backends.default, conversation_id, mode, luck) | {"size": size})
        return rows
    finally:
        await backends.close()
        await store.close()


async def _conversation(store: Store, size: int, luck: random.Random) -> str:
    """Messages of 5 to 60 words, with a summary of all but the last ten."""
    roles: tuple[Role, Role] = ("user", "assistant")
    given = [(roles[n % 2], " ".join(luck.choices(_WORDS, k=luck.randint(5, 60)))) for n in range(size)]
    conversation_id = await store.create("anna", given)
    covered = (await store.history(conversation_id, 11))[0].id
    await save_summary(store, conversation_id, Summary(covered, "They spoke of whales. " * 20, "SmolLM2"))
    return conversation_id


async def _chosen(turns: Turns, backend: Backend, conversation_id: str, mode: str, luck: random.Random) -> Row:
    head, times = (await turns.store.conversation(conversation_id, "anna")).head, []
    for _ in range(_TURNS + 1):
        asked = Message("next", "user", " ".join(luck.choices(_WORDS, k=8)), parent_id=head)
        history = partial(turns.histories.before, conversation_id, asked)
        summary = partial(turns.summarizer.summary, conversation_id)
        begun = time.perf_counter()
        await build_model_input(
            turns.settings, backend, TurnInput(MODES[mode], asked, TurnOptions(), "anna", history, summary), _REPLY
        )
        times.append((time.perf_counter() - begun) * 1000)
    return {"case": "choice", "mode": mode, "first_ms": times[0], "later_ms": times[1:]}


_DRAWN = "#chat [data-testid=bot]"
_OPEN = """async (id) => {
  const link = document.querySelector(`#sidebar [data-id='${id}'] a`), begun = performance.now();
  link.click();
  while (!document.querySelector('#chat [data-testid=bot]')) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - begun;
}"""


def measure_openings(chromium: str, repetitions: int) -> list[Row]:
    """A row for each size and repetition, with milliseconds until the conversation is drawn: `place_ms` where it is
    chosen from the list of an open page, `load_ms` where the page is loaded with it.
    """
    with sync_playwright() as playwright, Server(OURS, 0) as server:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        rows = []
        for size in (2, *SIZES):
            short = [{**message, "content": message["content"][:300]} for message in earlier_messages(size)]
            answer = context.request.post(f"{server.url}conversations", data={"messages": short})
            made = answer.json()["conversation_id"]
            for _ in range(repetitions):
                page.goto(f"{server.url}?conversation={made}", wait_until="commit")
                page.wait_for_selector(_DRAWN)
                loaded = page.evaluate("performance.now()")
                page.goto(server.url)
                page.wait_for_selector(f"#sidebar [data-id='{made}']")
                page.wait_for_timeout(1000)
                placed = page.evaluate(_OPEN, made)
                rows.append({"case": "opening", "size": size, "load_ms": loaded, "place_ms": placed})
        browser.close()
        return rows
