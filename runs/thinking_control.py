"""The thinking of an open model call, which a person may end so that the model answers."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from runs import events
from runs.errors import ChatError
from runs.events import Entry

_AGAIN_S = 1.0
"""Seconds after which a call that has not ended is cancelled again: a library may lose a cancellation."""

T = TypeVar("T")


class ThinkingEndedError(Exception):
    """A person ended the thinking of a model call. `thought` is its text so far."""

    def __init__(self, thought: str) -> None:
        super().__init__("the thinking was ended")
        self.thought = thought


class ThinkingControl:
    """Ends the thinking of one run's open model call. Use it on the run's own loop."""

    def __init__(self) -> None:
        self._call: asyncio.Future[Any] | None = None
        self._thought: str | None = None

    @property
    def can_end(self) -> bool:
        """True during a model call that can go from thinking to its answer, and has not been asked to."""
        return self._call is not None and self._thought is None

    def end(self, entries: Sequence[Entry]) -> None:
        """Ends the thinking of the open call; `entries` is the run's log so far.

        Raises ChatError: `busy` if the model is not thinking, `invalid_request` if its backend cannot end that.
        """
        thought = open_thought(entries)
        if not thought:
            raise ChatError("busy", "The model is not thinking, so there is nothing to end.")
        if not self.can_end or self._call is None:
            raise ChatError("invalid_request", "This model cannot go from thinking to its answer when asked to.")
        self._thought = thought
        self._call.cancel()

    async def run(self, work: Awaitable[T]) -> T:
        """Runs a model call. Raises ThinkingEndedError when its thinking is ended."""
        call = asyncio.ensure_future(work)
        self._call = call
        try:
            while not call.done():
                await asyncio.wait({call}, timeout=_AGAIN_S)
                if self._thought is not None:
                    call.cancel()
        finally:
            thought, self._call, self._thought = self._thought, None, None
            while not call.done():  # this run is cancelled
                call.cancel()
                await asyncio.wait({call}, timeout=_AGAIN_S)
        if call.cancelled() and thought is not None:
            raise ThinkingEndedError(thought)
        return call.result()


def open_thought(entries: Sequence[Entry]) -> str:
    """Returns the thinking of a run's latest model call; empty if the call has ended, or has begun to answer."""
    found = list[str]()
    for entry in reversed(entries):
        match entry.event:
            case events.Reasoning(content=content):
                found.append(content)
            case events.Token() | events.ToolInput() | events.ModelEnd():
                return ""
            case events.ModelStart():
                break
    return "".join(reversed(found))
