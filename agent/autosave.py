"""Replies on their way into the store: written as they grow, whole at the end, and again later where that failed."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import replace
from functools import reduce

from memory.messages import Message, Standing
from memory.store import Store
from runs import events
from runs.errors import ChatError
from runs.events import Entry, Event
from runs.fold import apply
from runs.live import LiveRun
from runs.registry import RunRegistry
from runs.reply import reply_parts
from runs.state import STOP_TEXTS, AgentState

logger = logging.getLogger(__name__)

_EVERY_S = 0.8
_AGAIN_S = (1, 2, 4, 8, 15, 30, 60, 120, 240)
"""Pauses before each further attempt to save an ended reply."""


class Autosave:
    """Keeps what is stored of all replies under way up with their runs: together, in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[str, tuple[LiveRun, Message]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._none = asyncio.Event()
        """Set as the last of them ends: nobody is left to wait for."""

    @contextmanager
    def track(self, run: LiveRun, reply: Message) -> Iterator[None]:
        """Within the block what is stored of the reply is at most a second old."""
        self._runs[run.id] = run, reply
        self._none.clear()
        if self._writing is None or self._writing.done():
            # in a context of its own: it outlives the page or request that this run is for
            self._writing = asyncio.create_task(self._write(), name="grow", context=Context())
        try:
            yield
        finally:
            del self._runs[run.id]
            if not self._runs:
                self._none.set()

    def close(self) -> None:
        if self._writing:
            self._writing.cancel()

    async def _write(self) -> None:
        """As long as there are any; a failure heals with the next write."""
        while self._runs:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._none.wait()
            now = [(run, _written(saved, run, run.state)) for run, saved in self._runs.values()]
            grown = [(run, reply) for run, reply in now if reply != self._runs[run.id][1]]
            try:
                if grown:
                    await self._store.save_growing([reply for _, reply in grown])
                self._runs |= {run.id: (run, reply) for run, reply in grown if run.id in self._runs}
            except ChatError as e:
                logger.warning("replies under way: %s", e)


class ReplySaver:
    """Stores `reply` as its run ends."""

    def __init__(self, store: Store, reply: Message) -> None:
        self._store, self._reply = store, reply
        self._again: asyncio.Task[None] | None = None

    async def end(self, run: LiveRun, closing: Sequence[Entry]) -> None:
        """Writes the ended reply and the record. Where that fails it raises, and tries again in the background."""
        try:
            await self._end(run, reduce(apply, closing, run.state), [*run.log.entries, *closing])
        except BaseException:  # the caller's time-out cancels: the reply must not be lost by that either
            self._again = asyncio.create_task(self._end_later(run), name=f"save {run.id}")
            raise

    async def _end_later(self, run: LiveRun) -> None:
        try:
            for pause in _AGAIN_S:
                await asyncio.sleep(pause)
                try:
                    await self._end(run, run.state, run.log.entries)
                    break
                except ChatError as e:
                    logger.warning("run %s: %s", run.id, e)
            else:
                logger.error("run %s: its reply was never saved", run.id)
        except Exception:
            logger.exception("run %s: its reply was never saved", run.id)
        finally:
            run.unsaved = None

    async def _end(self, run: LiveRun, state: AgentState, entries: Sequence[Entry]) -> None:
        ended = final_reply(self._reply, run, state, entries[-1].event)
        await self._store.end_turn(run, ended, "\n".join(entry.json for entry in entries))


def final_reply(reply: Message, run: LiveRun, state: AgentState, last: Event) -> Message:
    """The reply as its run's last event and state leave it; `note` is what a person should read below it."""
    standing: Standing = "whole"
    notes = [run.note]
    match last:
        case events.Stopped():
            standing, notes = "stopped", [run.note, STOP_TEXTS[last.reason]]
        case events.Error():
            standing, notes = "failed", [run.note, last.message]
    note = " ".join(note for note in notes if note) or None
    return replace(_written(reply, run, state), standing=standing, note=note)


def _written(reply: Message, run: LiveRun, state: AgentState) -> Message:
    """The reply with what has been written of it, and by whom."""
    return replace(reply, text=run.text, parts=reply_parts(state), backend=state.backend, model=state.model)


def current_version(runs: RunRegistry, message: Message) -> Message:
    """A stored message as this process knows it: a reply that has ended and is not stored yet comes from its run."""
    run = runs.find(message.run_id) if message.standing == "growing" else None
    return final_reply(message, run, run.state, run.log.entries[-1].event) if run and run.ended else message
