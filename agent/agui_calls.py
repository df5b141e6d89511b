"""The tool calls of a remote agent: their arguments arrive in pieces, then the call runs, then its result comes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.call_ids import CallIds
from agent.interrupts import REFUSED
from agent.shown_steps import MOST_ERROR, MOST_OUTPUT, StepCount, shown_name
from agent.tool_results import input_for_display, shortened, text_of_result
from runs import events
from runs.events import Event
from runs.text import valid_text

_UNNAMED = "tool"
"""The name of a call whose start did not come."""
_LONGEST_ID = 200
"""Characters of an id; a longer one is replaced."""
_OURS = re.compile(r"(message|step|event)-\d+$")
"""Ids that steps have."""


@dataclass(slots=True)
class RemoteCall:
    """One call."""

    id: str
    """Our id, which is unique in the run."""
    name: str
    parent: str | None
    pieces: list[str] = field(default_factory=list)
    """Its arguments so far."""
    started: float | None = None
    """When it began to run, None while it is written."""
    refused: bool = False
    """Whether the visitor refused it."""

    @property
    def arguments(self) -> str:
        """Its arguments, as they were written."""
        return "".join(self.pieces)

    @property
    def input(self) -> Any:
        """Its arguments for display."""
        try:
            found = json.loads(self.arguments or "{}")
        except ValueError:
            found = self.arguments
        return input_for_display(found if isinstance(found, dict) else {"input": found})


class RemoteCalls:
    """The open calls of a run, by the agent's ids."""

    def __init__(self, shown: StepCount) -> None:
        self._shown = shown
        self._ids = CallIds()
        self._ids.begin()
        self.open: dict[str, RemoteCall] = {}

    def new_id(self, wanted: str) -> str:
        """Returns an id that is unique in the run: the wanted one if that is free."""
        self._ids.begin()
        return self._ids.take(valid_text(wanted) if len(wanted) <= _LONGEST_ID and not _OURS.match(wanted) else None)

    def begin(self, remote_id: str, name: Any, parent: str | None) -> list[Event]:
        """Begins to write a call. Returns a notice if no further one is shown."""
        if (refused := self._shown.refused()) is not None:
            return refused
        self.open[remote_id] = RemoteCall(self.new_id(remote_id), shown_name(name or _UNNAMED), parent)
        return []

    def start(self, remote_id: str, now: float) -> list[Event]:
        """Returns the event for a call that runs now, once."""
        call = self.open.get(remote_id)
        if call is None or call.started is not None:
            return []
        call.started = now
        return [events.ToolStart(call.name, call.id, call.input, call.parent)]

    def output(self, remote_id: Any, chunk: Any) -> list[Event] | None:
        """Returns the event for a part of a result; None if it is none of a running call's."""
        call = self.open.get(remote_id) if isinstance(remote_id, str) else None
        if call is None or call.started is None or not isinstance(chunk, str):
            return None
        return [events.ToolOutput(call.name, call.id, valid_text(chunk))] if chunk else []

    def end(self, remote_id: str, content: Any, metadata: Any, now: float) -> list[Event]:
        """Returns the events for the result of a call."""
        found = self.start(remote_id, now)
        call = self.open.pop(remote_id, None)
        if call is None:
            return []
        error = metadata.get("error") if isinstance(metadata, Mapping) else None
        error = REFUSED if call.refused else valid_text(str(error))[:MOST_ERROR] if error else None
        return [*found, self._ended(call, shortened(text_of_result(content), MOST_OUTPUT), error, now)]

    def close(self, now: float) -> list[Event]:
        """Returns the ends of all calls whose result the agent did not tell."""
        found = list[Event]()
        for remote_id in list(self.open):
            found += self.end(remote_id, "", None, now)
        return found

    def _ended(self, call: RemoteCall, output: str, error: str | None, now: float) -> Event:
        began = now if call.started is None else call.started
        return events.ToolEnd(call.name, call.id, output, round(now - began, 3), error)
