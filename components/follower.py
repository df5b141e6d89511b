"""Follows a run for a page: streams it into the live reply and the panel, and moves the reply to the conversation.

A follower does not own the run: the run continues when the page leaves.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr

from components.assets import warn
from components.conversation_view import ended_reply, load_view, recorded_state
from components.live_reply import LiveReply
from components.messages import render_message_controls, render_messages
from components.page_state import PageState, Updates, shown_messages
from components.panel import render_panel
from components.parts import cited_passages
from components.render import render_page
from hosting.identity import Identity
from memory.store import Store
from runs import events
from runs.errors import ChatError
from runs.live import LiveRun
from runs.registry import RunRegistry
from runs.reply import part_offsets, reply_parts

_YIELDS_PER_S = 20
"""Updates per second and page. The rate falls with the number of live runs."""
_COST, _CHARACTERS_PER_S = 8, 100_000
"""A pause lasts at least `_COST` times as long as the last rendering, and bounds the characters per second."""
_PANEL_S = 0.12
"""Seconds between two updates of the panel in one phase. Figures that change faster cannot be read."""


class RunFollower:
    """Sends a run's progress to a page, and then its end. These are the second and third listener of a turn.

    `components/page.py` attaches them. One instance serves all pages.
    """

    def __init__(self, store: Store, runs: RunRegistry, identity: Identity) -> None:
        self.store, self.runs, self.identity = store, runs, identity

    async def follow(self, page: PageState, request: gr.Request) -> AsyncIterator[tuple[Any, Any]]:
        """Follows the page's run: the first token at once, then a few times a second. -> live, panel"""
        page = page.for_request(self.identity, request)
        run = self._run(page)
        if run is None:
            state = await recorded_state(self.store, page.run_id)  # a run that is not in memory has ended
            # a generator without a yield would empty its outputs
            yield gr.skip(), render_panel(state, whole=True) if state.run_id else gr.skip()
            return
        phase: events.Phase | None = None
        last, drawn, owed = 0.0, 0.0, False
        growing, offsets = LiveReply(), list[int]()

        def wake_s() -> float:
            """Seconds to wait for the next event while the panel has something to draw."""
            return max(0.0, drawn + _PANEL_S - time.monotonic()) if owed else 1.0

        async with aclosing(run.log.follow(wake_s=wake_s)) as batches:
            async for batch in batches:
                if run.conversation_deleted or page.closed:  # the page shows something else by now
                    yield gr.skip(), gr.skip()
                    return
                fresh_context = any(isinstance(entry.event, events.Context) for entry in batch)
                owed = owed or any(not isinstance(entry.event, events.Token | events.State) for entry in batch)
                before, offsets = offsets, part_offsets(run.state)
                changed = fresh_context or offsets != before or run.state.phase != phase
                panel: Any = gr.skip()
                if run.ended or changed or time.monotonic() - drawn >= _PANEL_S:
                    panel = render_panel(run.state, whole=fresh_context or not drawn, now=run.now())
                    drawn, phase, owed = time.monotonic(), run.state.phase, False
                begun = time.monotonic()
                live = growing.messages(run.text, offsets, cited_passages(reply_parts(run.state)))
                cost = time.monotonic() - begun
                yield live, panel
                if run.tool_calls.only_await_approval and run.state.phase == "approval" and not run.ended:
                    return  # a page that waits for its visitor holds no listener; after the answer it follows again
                # the first token never waits; later ones are sent together
                if run.state.first_token is not None and not run.ended:
                    pause = last + max(self._pause(), _COST * cost, growing.sent / _CHARACTERS_PER_S) - time.monotonic()
                    await asyncio.sleep(max(0.0, pause))
                last = time.monotonic()

    async def finish(self, page: PageState, request: gr.Request) -> Updates:
        """Moves the live reply into the conversation; from the store if its run is no longer in memory.

        Updates page, chat, live, send, stop and turns.
        """
        page = page.for_request(self.identity, request)
        run = self._run(page)
        if page.run_id is None:  # the page follows nothing
            # an update of the run that it left may have come after the other conversation was drawn
            return {} if page.player else {"live": []}
        if run and not run.ended:
            return {}  # its visitor has already started the next run
        run_id, conversation_id = page.run_id, run.conversation_id if run else page.conversation_id or ""
        view = None
        try:
            if run is None:
                await self.store.conversation(conversation_id, page.visitor)
            latest = len(page.shown) + 1
            view = await load_view(self.store, self.runs, page.visitor, conversation_id, latest, latest)
        except ChatError as e:
            warn(e.message)
        if run and run.conversation_deleted:
            return render_page(PageState(page.visitor)) | {"chat": [], "live": [], "turns": []}
        if run and run.unsaved:
            warn(f"{run.unsaved} The reply stays on this page, and saving is retried.")
        page = replace(page, run_id=None)
        if view is None:  # the page keeps what it shows, including the live reply
            return render_page(page)
        last = view.messages[-1] if view.messages else None
        stored = last is not None and last.role == "assistant" and last.run_id == run_id
        messages = [*view.messages, ended_reply(run)] if run and not stored else list(view.messages)
        page.shown, page.earlier = shown_messages(messages), view.page.earlier
        turns = render_message_controls(replace(view, messages=messages))
        return render_page(page) | {"chat": render_messages(messages, page.conversation_id), "live": [], "turns": turns}

    def _run(self, page: PageState) -> LiveRun | None:
        try:
            return self.runs.get(page.run_id, page.visitor) if page.run_id else None
        except ChatError:
            return None

    def _pause(self) -> float:
        live = sum(1 for _ in self.runs.live())
        return math.sqrt(max(1, live)) / _YIELDS_PER_S
