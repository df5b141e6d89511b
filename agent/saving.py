"""One reply on its way into the store: written as it grows, whole at the end, and again later where that failed."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from memory.messages import Message, Standing
from memory.store import Store
from runs import events
from runs.errors import ChatError
from runs.events import Entry, Event
from runs.live import LiveRun
from runs.parts import parts_of
from runs.state import STOPPED, AgentState, apply

logger = logging.getLogger(__name__)

_EVERY_S = 0.8
_AGAIN_S = (1, 2, 4, 8, 15, 30, 60, 120, 240)
"""Pauses before each further attempt to save an ended reply."""


class ReplySaver:
    """Keeps the stored copy of `reply` up with its run."""

    def __init__(self, store: Store, reply: Message) -> None:
        self._store, self._reply = store, reply
        self._again: asyncio.Task[None] | None = None

    async def follow(self, run: LiveRun) -> None:
        """Writes the reply so far, at least every second, until cancelled; a failure heals with the next write."""
        saved = self._reply
        while True:
            await asyncio.sleep(_EVERY_S)
            grown = replace(self._reply, text=run.text, parts=parts_of(run.state))
            if grown != saved:
                saved = grown
                try:
                    await self._store.grow(grown)
                except ChatError as e:
                    logger.warning("run %s: %s", run.id, e.message)

    async def end(self, run: LiveRun, closing: Sequence[Entry]) -> None:
        """Writes the ended reply and the record. Where that fails it raises, and tries again in the background."""
        try:
            await self._end(run, reduce(apply, closing, run.state), [*run.log.entries, *closing])
        except BaseException:  # the caller's time-out cancels: the reply must not be lost by that either
            self._again = asyncio.create_task(self._end_later(run), name=f"save {run.id}")
            raise

    async def _end_later(self, run: LiveRun) -> None:
        for pause in _AGAIN_S:
            await asyncio.sleep(pause)
            try:
                await self._end(run, run.state, run.log.entries)
                return
            except ChatError as e:
                logger.warning("run %s: %s", run.id, e.message)
        logger.error("run %s: its reply was never saved", run.id)

    async def _end(self, run: LiveRun, state: AgentState, entries: Sequence[Entry]) -> None:
        ended = as_ended(self._reply, run, state, entries[-1].event)
        await self._store.end_turn(run, ended, "\n".join(entry.json for entry in entries))


def as_ended(reply: Message, run: LiveRun, state: AgentState, last: Event) -> Message:
    """The reply as its run's last event and state leave it; `note` is what a person should read below it."""
    standing: Standing = "whole"
    notes = [run.note]
    match last:
        case events.Stopped():
            standing, notes = "stopped", [run.note, STOPPED[last.reason]]
        case events.Error():
            standing, notes = "failed", [run.note, last.message]
    note = " ".join(note for note in notes if note) or None
    return replace(reply, text=run.text, standing=standing, note=note, parts=parts_of(state))
