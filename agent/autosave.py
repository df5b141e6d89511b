"""The storage of replies: growing ones are saved every second, ended ones at once, and again later if that fails."""

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
from runs.threads import in_thread

logger = logging.getLogger(__name__)

_EVERY_S = 0.8
_AGAIN_S = (1, 2, 4, 8, 15, 30, 60, 120, 240)
"""Seconds before each further attempt to save an ended reply."""
_LONG_BYTES = 1_000_000
"""Memory of the longest log that is encoded on the event loop."""


class Autosave:
    """Saves the growing replies of all live runs, together in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[str, tuple[LiveRun, Message]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        """Set while no reply is growing."""

    @contextmanager
    def track(self, run: LiveRun, reply: Message) -> Iterator[None]:
        """Keeps the stored reply at most a second old, within the block."""
        self._runs[run.id] = run, reply
        self._idle.clear()
        if self._writing is None or self._writing.done():
            # in a context of its own: it outlives the page or request of this run
            self._writing = asyncio.create_task(self._write(), name="autosave", context=Context())
        try:
            yield
        finally:
            del self._runs[run.id]
            if not self._runs:
                self._idle.set()

    def close(self) -> None:
        """Stops saving."""
        if self._writing:
            self._writing.cancel()

    async def _write(self) -> None:
        """Saves until no reply is growing; what fails is saved with the next write."""
        while self._runs:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._idle.wait()
            now = [(run, _updated(saved, run, run.state)) for run, saved in self._runs.values()]
            grown = [(run, reply) for run, reply in now if reply != self._runs[run.id][1]]
            try:
                if grown:
                    await self._store.save_growing([reply for _, reply in grown])
                self._runs |= {run.id: (run, reply) for run, reply in grown if run.id in self._runs}
            except ChatError as e:
                logger.warning("growing replies were not saved: %s", e)


class ReplySaver:
    """Saves one reply when its run ends."""

    def __init__(self, store: Store, reply: Message) -> None:
        self._store, self._reply = store, reply
        self._again: asyncio.Task[None] | None = None

    async def end(self, run: LiveRun, closing: Sequence[Entry]) -> None:
        """Saves the ended reply and the run's record. If that fails it raises, and tries again in the background."""
        try:
            await self._end(run, reduce(apply, closing, run.state), [*run.log.entries, *closing])
        except BaseException:  # also the cancellation by the caller's timeout, which must not lose the reply
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
        record = await in_thread(run.log.memory_bytes > _LONG_BYTES, _encoded, entries)
        await self._store.end_turn(run, ended, record)


def final_reply(reply: Message, run: LiveRun, state: AgentState, last: Event) -> Message:
    """Returns the reply after its run's last event; `note` is the text below it on the page."""
    standing: Standing = "whole"
    notes = [run.note]
    match last:
        case events.Stopped():
            standing, notes = "stopped", [run.note, STOP_TEXTS[last.reason]]
        case events.Error():
            standing, notes = "failed", [last.message, run.note]
    note = " ".join(note for note in notes if note) or None
    return replace(_updated(reply, run, state), standing=standing, note=note)


def current_version(runs: RunRegistry, message: Message) -> Message:
    """Returns a stored message; an ended reply that is not saved yet comes from its run."""
    run = runs.find(message.run_id) if message.standing == "growing" else None
    return final_reply(message, run, run.state, run.log.entries[-1].event) if run and run.ended else message


def _encoded(entries: Sequence[Entry]) -> str:
    return "\n".join("".join(entry.texts()) for entry in entries)


def _updated(reply: Message, run: LiveRun, state: AgentState) -> Message:
    return replace(reply, text=run.text, parts=reply_parts(state), backend=state.backend, model=state.model)
