"""The steps, sub-agents and events of a remote agent on the timeline."""

from dataclasses import dataclass
from typing import Any

from agent.shown_steps import MOST_ERROR, StepCount, fitting, shown_name
from backends.agui_client import Received
from runs import events
from runs.events import Event


@dataclass(frozen=True, slots=True)
class _Open:
    """A step that has not ended."""

    id: str
    name: str
    lane: str
    """The sub-agent within which it runs, empty for the agent itself."""
    subagent: str = ""
    """The id of the sub-agent that it is, empty for a step."""


class RemoteSteps:
    """The open steps of a run, the latest one last."""

    def __init__(self, shown: StepCount) -> None:
        self._shown = shown
        self._open: list[_Open] = []

    def around(self, event: Received) -> str | None:
        """Returns the id of the open step in which an event happens, None for none."""
        lane = _lane(event)
        inside = (step.id for step in reversed(self._open) if step.lane == lane or (lane and step.subagent == lane))
        return next(inside, None)

    def begin(self, event: Received, name: str) -> list[Event]:
        """Returns the event for the start of a step."""
        return self._begin(name, self.around(event), None, _lane(event))

    def end(self, event: Received, name: str) -> list[Event]:
        """Returns the event for the end of the latest step with this name."""
        lane = _lane(event)
        named = (s for s in reversed(self._open) if s.name == name and s.lane == lane and not s.subagent)
        return self._end(next(named, None), None)

    def begin_subagent(self, event: Received, call_id: str | None) -> list[Event]:
        """Returns the event for the start of a sub-agent, which a tool call may have started."""
        lane = str(event.get("parentSubagentRunId") or "")
        parent = call_id or self.around({"subagentRunId": lane})
        name = str(event.get("name") or "sub-agent")
        return self._begin(name, parent, event.get("description"), lane, _lane(event))

    def end_subagent(self, event: Received, output: Any, error: str | None = None) -> list[Event]:
        """Returns the events for the end of a sub-agent, and of the steps in it."""
        lane = _lane(event)
        found = [end for step in reversed(self._open) if lane and step.lane == lane for end in self._end(step, None)]
        step = next((one for one in self._open if lane and one.subagent == lane), None)
        return found + self._end(step, output, error)

    def event(self, event: Received, name: str, value: Any) -> list[Event]:
        """Returns the events for an event of the agent's own: a step without a duration."""
        if (refused := self._shown.refused()) is not None:
            return refused
        step_id, (shown, cut) = f"event-{self._shown.count}", fitting(value)
        start = events.ChainStart(shown_name(name), step_id, self.around(event), shown, cut or None)
        return [start, events.ChainEnd(step_id, None)]

    def close(self) -> list[Event]:
        """Returns the ends of all open steps."""
        return [end for step in reversed(self._open) for end in self._end(step, None)]

    def _begin(self, name: str, parent: str | None, value: Any, lane: str, subagent: str = "") -> list[Event]:
        if (refused := self._shown.refused()) is not None:
            return refused
        step = _Open(f"step-{self._shown.count}", name, lane, subagent)
        self._open = [*self._open, step]
        shown, cut = fitting(value)
        return [events.ChainStart(shown_name(name), step.id, parent, shown, cut or None)]

    def _end(self, step: _Open | None, output: Any, error: str | None = None) -> list[Event]:
        if step is None or step not in self._open:
            return []
        self._open = [one for one in self._open if one is not step]
        value, cut = fitting(output)
        return [events.ChainEnd(step.id, value, error and error[:MOST_ERROR], cut or None)]


def _lane(event: Received) -> str:
    return str(event.get("subagentRunId") or "")
