"""Following a run from a page: what streams into the live reply and the panel, and the hand-over at the end.

The tail never owns the run: a page that leaves takes nothing with it.
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
from components.conversation_view import draw, ended_reply, state_of
from components.page_state import PageState, drawn_of
from components.panel import render_panel
from components.render import render_buttons, render_live, render_messages, render_turns
from components.reply import GrowingReply
from hosting.identity import Identity
from memory.store import Store
from runs import events
from runs.errors import ChatError
from runs.live import LiveRun
from runs.registry import RunRegistry

_YIELDS_PER_S = 20
"""To one page; fewer when more runs share the process."""
_COST, _CHARACTERS_PER_S = 8, 100_000
"""A pause is at least so many times as long as the last drawing took, and so that a page is sent no more than that:
a reply of unusual form or length costs no more than others."""
_PANEL_S = 0.12
"""Between two drawings of the panel in one phase: figures that change faster cannot be read."""

Updates = tuple[Any, ...]


class RunFollower:
    """The second and third listener of a turn."""

    def __init__(self, store: Store, runs: RunRegistry, identity: Identity) -> None:
        self.store, self.runs, self.identity = store, runs, identity

    async def follow(self, page: PageState, request: gr.Request) -> AsyncIterator[Updates]:
        """Follows the page's run: the first token at once, then a few times a second. -> live, panel"""
        page = page.of(self.identity.visitor(request.cookies or {}))
        run = self._run(page, request)
        if run is None:
            state = await state_of(self.store, page.run_id)  # a run that is no longer in memory has ended
            # a generator without a yield would empty its outputs
            yield gr.skip(), render_panel(state, whole=True) if state.run_id else gr.skip()
            return
        phase: events.Phase | None = None
        last, drawn, owed = 0.0, 0.0, False
        growing = GrowingReply()

        def wake_s() -> float:
            """Nothing that the panel has not drawn waits for something else to come."""
            return max(0.0, drawn + _PANEL_S - time.monotonic()) if owed else 1.0

        async with aclosing(run.log.follow(wake_s=wake_s)) as batches:
            async for batch in batches:
                if run.conversation_deleted or page.left:  # the page shows something else: nothing of it may come back
                    yield gr.skip(), gr.skip()
                    return
                fresh_context = any(isinstance(entry.event, events.Context) for entry in batch)
                owed = owed or any(not isinstance(entry.event, events.Token | events.State) for entry in batch)
                panel: Any = gr.skip()
                if run.ended or fresh_context or run.state.phase != phase or time.monotonic() - drawn >= _PANEL_S:
                    panel = render_panel(run.state, whole=fresh_context or not drawn, now=run.now())
                    drawn, phase, owed = time.monotonic(), run.state.phase, False
                begun = time.monotonic()
                live = render_live(run.text, growing)
                cost = time.monotonic() - begun
                yield live, panel
                if run.tool_calls.only_await_approval and run.state.phase == "approval" and not run.ended:
                    return  # a page that waits for its visitor holds no listener; it is followed again by the answer
                # the first token is never made to wait; what follows is gathered
                if run.state.first_token is not None and not run.ended:
                    pause = last + max(self._pause(), _COST * cost, growing.sent / _CHARACTERS_PER_S) - time.monotonic()
                    await asyncio.sleep(max(0.0, pause))
                last = time.monotonic()

    async def finish(self, page: PageState, request: gr.Request) -> Updates:
        """Hands the live reply over to the conversation, from the store if its run is no longer in memory.

        -> page, chat, live, parts, send, stop, turns
        """
        page = page.of(self.identity.visitor(request.cookies or {}))
        run = self._run(page, request)
        if page.run_id is None or (run and not run.ended):
            # a page's first listeners end with this one too, and a quick visitor has begun a run meanwhile
            return (gr.skip(),) * 7
        run_id, conversation_id = page.run_id, run.conversation_id if run else page.conversation_id or ""
        view = None
        try:
            if run is None:
                await self.store.conversation(conversation_id, page.visitor)
            latest = len(page.drawn) + 1
            view = await draw(self.store, self.runs, page.visitor, conversation_id, latest, latest)
        except ChatError as e:
            warn(e.message)
        if run and run.conversation_deleted:
            page = PageState(page.visitor)
            return page, [], [], run_id, *render_buttons(page), []
        if run and run.unsaved:
            warn(f"{run.unsaved} The reply stays on this page, and saving is tried again.")
        page = replace(page, run_id=None)
        if view is None:  # what the page shows stays, the live reply included
            return page, gr.skip(), gr.skip(), gr.skip(), *render_buttons(page), gr.skip()
        last = view.messages[-1] if view.messages else None
        there = last is not None and last.role == "assistant" and last.run_id == run_id
        kept = [*view.messages, ended_reply(run)] if run and not there else list(view.messages)
        page.drawn, page.earlier = drawn_of(kept), view.page.earlier
        turns = render_turns(replace(view, messages=kept))
        return page, render_messages(kept), [], run_id, *render_buttons(page), turns

    def _run(self, page: PageState, request: gr.Request) -> LiveRun | None:
        try:
            return self.runs.get(page.run_id, self.identity.visitor(request.cookies or {})) if page.run_id else None
        except ChatError:
            return None

    def _pause(self) -> float:
        live = sum(1 for _ in self.runs.live())
        return math.sqrt(max(1, live)) / _YIELDS_PER_S
