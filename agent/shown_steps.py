"""The bounds of what is shown of an agent that is not ours: the number of its steps, and the size of their values."""

import json
from typing import Any

from backends.agent_io import shown
from runs import events
from runs.events import Event
from runs.text import valid_text

MOST = 8192
"""Most bytes of what a step takes or gives, as JSON."""
MOST_SHOWN = 2000
"""Steps and events of a run that are shown: an agent may make any number of them."""
MOST_OUTPUT = 100_000
"""Most characters of a tool's result."""
MOST_ERROR = 2000
"""Most characters of a tool's error."""
MOST_NAME = 200
"""Most characters of the name of a step, a tool or an event."""


class StepCount:
    """The number of steps and events of a run so far."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def full(self) -> bool:
        """True if no further one is shown."""
        return self.count >= MOST_SHOWN

    def refused(self) -> list[Event] | None:
        """Counts one more step or event. Returns None while it may be shown; later nothing, and a sentence once."""
        self.count += 1
        if self.count <= MOST_SHOWN:
            return None
        notice = events.Status("waiting", f"Only the first {MOST_SHOWN:,} steps and events are shown")
        return [notice] if self.count == MOST_SHOWN + 1 else []


def shown_name(name: Any) -> str:
    """Returns the name of a step, a tool or an event for display."""
    return valid_text(str(name))[:MOST_NAME]


def fitting(value: Any) -> tuple[Any, bool]:
    """Returns a value for display, cut so that it takes at most 8 KB as JSON, and whether it was cut."""
    made = shown(value)
    text = valid_text(json.dumps(made, ensure_ascii=False))
    if len(json.dumps(text)) <= MOST:
        return json.loads(text), False
    most = MOST // 2
    while len(json.dumps(text[:most])) > MOST:
        most //= 2
    return text[:most], True
