"""The fields of AG-UI's events, which an agent sends and which may be wrong."""

import json
from collections.abc import Sequence
from typing import Any

from backends.agui_client import InvalidEvent, Received

_PIECES = ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "THINKING_TEXT_MESSAGE_CONTENT", "TOOL_CALL_ARGS")
"""Events whose `delta` is a piece of a text."""


def merged(received: Sequence[Received]) -> list[Received]:
    """Returns events that arrived together, with neighbouring pieces of one text as one: a burst may have thousands."""
    found, pieces = list[Received](), list[str]()

    def flush() -> None:
        if len(pieces) > 1:
            found[-1] = {**found[-1], "delta": "".join(pieces)}
        pieces.clear()

    for event in received:
        delta = event.get("delta") if event.get("type") in _PIECES else None
        if not pieces or not isinstance(delta, str) or _others(event) != _others(found[-1]):
            flush()
            found.append(event)
        if isinstance(delta, str):
            pieces.append(delta)
    flush()
    return found


def _others(event: Received) -> Received:
    """The fields by which pieces of one text are known."""
    return {name: event.get(name) for name in ("type", "messageId", "toolCallId", "subagentRunId")}


def text_field(event: Received, name: str) -> str:
    """Returns a field that must be a text. Raises InvalidEvent."""
    value = event.get(name)
    if not isinstance(value, str):
        raise InvalidEvent(f"{event['type']}: {name}")
    return value


def id_field(event: Received, name: str) -> str:
    """Returns a field that may be a text; empty for another value."""
    value = event.get(name)
    return value if isinstance(value, str) else ""


def list_field(event: Received, name: str) -> Sequence[Any]:
    """Returns a field that must be a list. Raises InvalidEvent."""
    value = event.get(name)
    if not isinstance(value, list):
        raise InvalidEvent(f"{event['type']}: {name}")
    return value


def parsed(value: Any) -> Any:
    """Returns the JSON in a text, or the text itself; other values as they are."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
