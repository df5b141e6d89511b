"""A run's record: its events as JSON lines, and back. A record folds into a state just as a live run does."""

import json
from dataclasses import fields
from datetime import datetime

from runs.events import WIRE_TYPES, Entry
from runs.fold import apply
from runs.state import AgentState

_EVENTS = {name: kind for kind, name in WIRE_TYPES.items()}


def decode(line: str) -> Entry:
    """The entry of one line of a record. Raises ValueError for any other text."""
    try:
        body = json.loads(line)
        kind = _EVENTS[body["type"]]
        event = kind(**{f.name: body[f.name] for f in fields(kind) if f.name in body})
        at = datetime.fromisoformat(body["timestamp"]).timestamp()
        return Entry(int(body["seq"]), str(body["run_id"]), at, event)
    except (KeyError, TypeError) as e:
        raise ValueError(f"not a line of a run's record: {line[:80]!r}") from e


def fold_record(record: str) -> AgentState:
    """The state at the end of a record."""
    state = AgentState()
    for line in record.split("\n"):  # not splitlines(): JSON's texts may hold other line ends as they are
        if line:
            state = apply(state, decode(line))
    return state
