"""What the page does: module-level rules, no components. Each handler takes plain values and gives plain values back.

A handler never owns a run: it starts one or tails one's log, and a page that leaves takes nothing with it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr

from agent.turns import Ask, Turns
from components.render import (
    meant_text,
    render_backends,
    render_live,
    render_messages,
    render_panel,
)
from components.session import DRAWN, PageState
from memory.messages import Message
from memory.modes import MODES
from runs import events
from runs.errors import ChatError
from runs.live import LiveRun
from runs.record import fold
from runs.state import AgentState
from transports.identity import Identity

_YIELDS_PER_S = 20
"""To one page; fewer when more runs share the process."""
_THOUGHTS = 600
"""Characters of the latest thinking that the panel shows."""

Updates = tuple[Any, ...]


class Handlers:
    """The page's callbacks over the app's pieces. One for all pages; what a page knows is its `PageState`."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self.turns, self.identity = turns, identity
        self.store, self.runs, self.backends = turns.store, turns.runs, turns.backends

    def _visitor(self, request: gr.Request) -> str | None:
        return self.identity.visitor(request.cookies or {})

    async def on_load(self, page: PageState, request: gr.Request) -> Updates:
        """-> page, chat, live, panel, send, stop, intro, earlier, backend, memory, about"""
        query: Mapping[str, str] = request.query_params or {}
        first, memory = self.backends.first.name, self.turns.settings.memory.default
        page, state = PageState(), AgentState()
        if conversation_id := query.get("conversation"):
            try:
                found = await self.store.conversation(conversation_id, self._visitor(request))
                page = await self._drawn(found.id, DRAWN)
                run = self.runs.of(found.id)
                page.run_id = run.id if run else None
                state = run.state if run else await self._last_state(page)
                first, memory = self._still_there(found.backend) or first, found.memory or memory
            except ChatError as e:
                gr.Warning(e.message, title="This conversation cannot be opened")
        panel = render_panel(state, "", with_context=True) if state.run_id else None
        return (
            page,
            render_messages(page.drawn),
            [],
            panel,
            *self._buttons(page),
            *self._frame(page),
            gr.update(choices=render_backends(self.backends), value=first),
            memory if memory in MODES else self.turns.settings.memory.default,
            self._about(),
        )

    async def on_send(self, prompt: str, backend: str, memory: str, page: PageState, request: gr.Request) -> Updates:
        """-> page, prompt, chat, live, panel, send, stop, intro, earlier"""
        if not (prompt or "").strip():
            return self._unchanged(page)
        ask = Ask(prompt, self._visitor(request), page.conversation_id, backend, memory)
        return await self._begin(ask, page)

    async def on_retry(
        self, backend: str, memory: str, page: PageState, request: gr.Request, data: gr.RetryData
    ) -> Updates:
        """Asks the last message again; the earlier reply gives way. -> as on_send"""
        return await self._again(None, backend, memory, page, request, data.index)

    async def on_edit(
        self, backend: str, memory: str, page: PageState, request: gr.Request, data: gr.EditData
    ) -> Updates:
        """Asks an earlier message in other words; all after it gives way. -> as on_send"""
        text = data.value if isinstance(data.value, str) else _text_of(data.value)
        return await self._again(meant_text(text), backend, memory, page, request, data.index)

    async def on_undo(self, page: PageState, request: gr.Request, data: gr.UndoData) -> Updates:
        """Takes the last message back into the prompt, and its reply away. -> as on_send"""
        message = page.user_message(_index(data.index))
        try:
            if message is None or page.conversation_id is None:
                raise ChatError("not_found", "There is nothing to take back.")
            await self.store.conversation(page.conversation_id, self._visitor(request))
            if self.runs.of(page.conversation_id):
                raise ChatError("busy", "A reply is still being written here: stop it first.")
            await self.store.cut(page.conversation_id, message.id)
            page = await self._drawn(page.conversation_id, max(DRAWN, len(page.drawn)))
        except ChatError as e:
            gr.Warning(e.message)
            return self._unchanged(page)
        shown = render_messages(page.drawn)
        return page, message.text, shown, [], None, *self._buttons(page), *self._frame(page)

    async def on_clear(self, page: PageState, request: gr.Request) -> Updates:
        """Deletes the conversation, and its live run with it. -> as on_send"""
        try:
            if page.conversation_id:
                await self.store.conversation(page.conversation_id, self._visitor(request))
                if run := self.runs.of(page.conversation_id):
                    await run.stop("user")
                await self.store.delete(page.conversation_id)
        except ChatError as e:
            if e.code != "not_found":
                gr.Warning(e.message)
                return self._unchanged(page)
        page = PageState()
        return page, gr.skip(), [], [], {"cleared": True}, *self._buttons(page), *self._frame(page)

    async def on_stop(self, page: PageState, request: gr.Request) -> None:
        """Ends the run that the page follows; its tail then says so."""
        if page.run_id:
            try:
                await self.runs.get(page.run_id, self._visitor(request)).stop("user")
            except ChatError as e:
                gr.Warning(e.message)

    async def on_earlier(self, page: PageState, request: gr.Request) -> Updates:
        """Draws more of the conversation's beginning. -> page, chat, intro, earlier"""
        if page.conversation_id is None:
            return page, gr.skip(), *self._frame(page)
        try:
            await self.store.conversation(page.conversation_id, self._visitor(request))
            more = await self._drawn(page.conversation_id, len(page.drawn) + DRAWN)
        except ChatError as e:
            gr.Warning(e.message)
            return page, gr.skip(), *self._frame(page)
        more.run_id = page.run_id
        return more, render_messages(more.drawn), *self._frame(more)

    async def tail(self, page: PageState, request: gr.Request) -> AsyncIterator[Updates]:
        """Follows the page's run: the first token at once, then a few times a second. -> live, panel"""
        run = self._run(page, request)
        if run is None:
            yield gr.skip(), gr.skip()  # a generator without a yield would empty its outputs
            return
        thoughts, last, yielded = "", 0.0, 0
        async with aclosing(run.log.follow(wake_s=1.0)) as batches:
            async for batch in batches:
                fresh_context = any(isinstance(entry.event, events.Context) for entry in batch)
                thoughts = (thoughts + "".join(_thoughts(batch)))[-_THOUGHTS:]
                yield (
                    render_live(run.text),
                    render_panel(run.state, thoughts, with_context=fresh_context or not yielded),
                )
                yielded += 1
                # the first token is never made to wait; what follows is gathered
                if run.state.first_token is not None and not run.ended:
                    pause = last + self._pause() - time.monotonic()
                    await asyncio.sleep(max(0.0, pause))
                last = time.monotonic()

    async def finish(self, page: PageState, request: gr.Request) -> Updates:
        """Hands the live reply over to the conversation. -> page, chat, live, send, stop"""
        run = self._run(page, request)
        if run is None:
            return page, gr.skip(), gr.skip(), *self._buttons(page)
        drawn = list(page.drawn)
        try:
            drawn = (await self._drawn(run.conversation_id, len(page.drawn) + 1)).drawn
        except ChatError as e:
            gr.Warning(e.message)
        kept = _as_ended(drawn, run)
        page = replace(page, run_id=None, drawn=kept)
        return page, render_messages(kept), [], *self._buttons(page)

    def on_refresh(self) -> Updates:
        """After a backend has loaded. -> backend, about"""
        return gr.update(choices=render_backends(self.backends)), self._about()

    async def _again(
        self, text: str | None, backend: str, memory: str, page: PageState, request: gr.Request, index: Any
    ) -> Updates:
        message = page.user_message(_index(index))
        if message is None:
            gr.Warning("There is no message to ask again.")
            return self._unchanged(page)
        asked = message.text if text is None else text
        ask = Ask(asked, self._visitor(request), page.conversation_id, backend, memory, message.id)
        return await self._begin(ask, page, keep_prompt=True)

    async def _begin(self, ask: Ask, page: PageState, *, keep_prompt: bool = False) -> Updates:
        try:
            run = await self.turns.start(ask)
        except ChatError as e:
            gr.Warning(e.message, title="Not sent")
            return self._unchanged(page)
        page = await self._drawn(run.conversation_id, DRAWN)
        page.run_id = run.id
        return (
            page,
            gr.skip() if keep_prompt else "",
            render_messages(page.drawn),
            [],
            render_panel(run.state, "", with_context=False),
            *self._buttons(page),
            *self._frame(page),
        )

    def _unchanged(self, page: PageState) -> Updates:
        """Nothing happened; the prompt keeps its text. The Chatbot is redrawn, since an edit has changed it."""
        return (
            page,
            gr.skip(),
            render_messages(page.drawn),
            gr.skip(),
            gr.skip(),
            *self._buttons(page),
            *self._frame(page),
        )

    async def _drawn(self, conversation_id: str, latest: int) -> PageState:
        """The page's view of a conversation: its latest messages, without the reply that is still growing."""
        found = await self.store.history(conversation_id, latest)
        earlier = await self.store.size(conversation_id) - len(found)
        drawn = [m for m in found if m.standing != "growing"]
        return PageState(conversation_id, None, drawn, earlier)

    async def _last_state(self, page: PageState) -> AgentState:
        """The state at the end of the latest recorded run, so that a reload shows it again."""
        run_id = next((m.run_id for m in reversed(page.drawn) if m.run_id), None)
        if run_id is None:
            return AgentState()
        try:
            return fold(await self.store.record(run_id))
        except (ChatError, ValueError):
            return AgentState()

    def _run(self, page: PageState, request: gr.Request) -> LiveRun | None:
        try:
            return self.runs.get(page.run_id, self._visitor(request)) if page.run_id else None
        except ChatError:
            return None

    def _pause(self) -> float:
        live = sum(1 for _ in self.runs.live())
        return max(1, live) ** 0.5 / _YIELDS_PER_S

    def _still_there(self, name: str | None) -> str | None:
        return name if name in {backend.name for backend in self.backends} else None

    def _about(self) -> list[dict[str, Any]]:
        return [
            {"name": b.name, "about": b.about, "state": b.health.state, "reason": b.health.reason}
            for b in self.backends
        ]

    def _buttons(self, page: PageState) -> Updates:
        """-> send, stop"""
        return gr.update(visible=page.run_id is None), gr.update(visible=page.run_id is not None)

    def _frame(self, page: PageState) -> Updates:
        """-> intro, earlier"""
        label = f"Show earlier messages ({page.earlier:,})"
        return gr.update(visible=not page.drawn), gr.update(visible=page.earlier > 0, value=label)


def _as_ended(drawn: list[Message], run: LiveRun) -> list[Message]:
    """The drawn messages with the run's reply last, also where the store could not take it."""
    if drawn and drawn[-1].role == "assistant" and drawn[-1].run_id == run.id:
        return drawn
    note = None if run.state.phase == "complete" else run.state.said
    return [*drawn, Message(f"unsaved {run.id}", "assistant", run.text, run_id=run.id, note=note)]


def _thoughts(batch: Any) -> list[str]:
    return [entry.event.content for entry in batch if isinstance(entry.event, events.Reasoning)]


def _index(index: Any) -> int:
    return int(index[0] if isinstance(index, list | tuple) else index)


def _text_of(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    return "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in parts)
