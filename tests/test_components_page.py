import asyncio
import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import state_holder

from components.blocks import PageBlocks
from components.brand import Brand
from components.handlers import Handlers
from components.page import build_page
from settings import PageSettings

pytest_plugins = ["tests.pages"]


async def test_idle_queue_polls_at_most_a_hundred_times_a_second(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: Any = build_page(handlers, Brand(PageSettings(), Path()))._queue
    looks, counted = 0, type(queue).__len__

    def look(self: Any) -> int:
        nonlocal looks
        looks += 1
        return int(counted(self))

    monkeypatch.setattr(type(queue), "__len__", look)
    begun = time.monotonic()
    polling = asyncio.create_task(queue.start_processing())
    await asyncio.sleep(0.3)
    queue.stopped = True
    await polling
    assert 1 <= looks <= (time.monotonic() - begun) * 100 + 1


async def test_no_statistics_are_computed_after_events(handlers: Handlers) -> None:
    queue: Any = build_page(handlers, Brand(PageSettings(), Path()))._queue
    queue.events_recorded = 10_000
    records = [{"function": "chat", "status": "success", "process_time": 1.0}]
    assert queue.compute_analytics_summary(records) is queue.cached_event_analytics_summary == {"functions": {}}
    assert queue.ANALYTICS_MAX_EVENTS == 1


async def test_only_changed_outputs_build_components(monkeypatch: pytest.MonkeyPatch) -> None:
    with PageBlocks() as demo:
        page, one, two = gr.State(0), gr.Textbox("one"), gr.Dropdown(["a"], value="a")
        gr.Button().click(lambda: None, None, [page, one, two], postprocess=False)
    listener: Any = next(iter(demo.fns.values()))
    session: Any = state_holder.SessionState(demo)
    built, build = list[dict[str, Any]](), gr.Dropdown.__init__

    def count(self: Any, *args: Any, **options: Any) -> None:
        built.append(options)
        build(self, *args, **options)

    monkeypatch.setattr(gr.Dropdown, "__init__", count)
    skipped = await demo.postprocess_data(listener, (1, "new", gr.skip()), session)
    assert skipped == [None, "new", gr.skip()] and session[page._id] == 1 and built == []
    changed = await demo.postprocess_data(listener, (gr.skip(), gr.skip(), gr.update(choices=["b"])), session)
    assert changed[:2] == [gr.skip()] * 2 and changed[2]["choices"] == [["b", "b"]] and len(built) == 1
    assert session[page._id] == 1 and session[two._id].choices == [("b", "b")], "later inputs are checked with these"
    assert not any(session.config_values.values()), "Gradio would compute them for each change"
