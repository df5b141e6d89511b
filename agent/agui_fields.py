"""The fields of AG-UI's events, which an agent sends and which may be wrong."""

import json
from collections.abc import Sequence
from typing import Any

from backends.agui_client import InvalidEvent, Received


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
