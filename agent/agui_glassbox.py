"""The custom events of another Glassbox, by name and fields (`transports/agui_events.py`)."""

from collections.abc import Mapping
from typing import Any

from agent.agui_calls import RemoteCalls
from runs import events
from runs.events import Event
from runs.text import valid_text

_FIELDS = {
    "status": {"phase", "content"},
    "tool_output": {"tool_call_id", "chunk"},
    "tool_input": {"tool", "tool_call_id", "delta"},
    "token": {"content", "total_tokens"},
    "model_end": {"id", "duration_s"},
}
"""The fields of each. The last three come besides events of AG-UI that say the same."""
_QUIET = ("queued", "waiting", "stalled")
"""The phases whose sentences are shown, such as the progress of a model that is loaded."""
_MOST_STATUS = 300
"""Most characters of such a sentence."""


def glassbox_events(name: str, value: Any, calls: RemoteCalls) -> list[Event] | None:
    """Returns our events for one of another Glassbox; None for any other agent's event."""
    if name not in _FIELDS or not isinstance(value, Mapping) or not _FIELDS[name] <= value.keys():
        return None
    if name == "tool_output":
        return calls.output(value["tool_call_id"], value["chunk"])
    if name == "status" and value["phase"] in _QUIET and isinstance(value["content"], str) and not calls.open:
        return [events.Status("waiting", valid_text(value["content"])[:_MOST_STATUS])]
    return []
