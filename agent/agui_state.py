"""The state of a remote agent: its snapshots and JSON patches (RFC 6902), and what is new in each."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException

_MOST_CHARACTERS = 256_000
"""Most characters of the state as JSON."""
_MOST_OPERATIONS = 200
"""Most operations of one patch."""
_MESSAGES = "messages"
"""A field that is not shown: messages have events of their own."""
_UNUSABLE = (jsonpatch.JsonPatchException, JsonPointerException, TypeError, ValueError, KeyError, RecursionError)


class RemoteState:
    """The latest state. One that is too large, or that a patch does not fit, is unknown until the next snapshot."""

    def __init__(self, value: Any = None) -> None:
        """`value` is the state at the beginning, which has been shown."""
        self.value: Any = value or {}
        """The state; an empty one if it is unknown."""
        self._known = True
        self._shown: Any = self.value
        """The state at the last `changes`."""

    def replace(self, value: Any) -> list[Any]:
        """Takes a snapshot. Returns what must be shown at once: what is new in one that is too large to be kept."""
        if _size(value) <= _MOST_CHARACTERS:
            self.value, self._known = value, True
            return []
        new = _new(self._shown, value)
        self._forget()
        return [] if new is None else [new]

    def patch(self, operations: Sequence[Any]) -> list[Any]:
        """Applies a patch. Returns what must be shown at once: one that cannot be applied, and what came before it."""
        try:
            if not self._known or len(operations) > _MOST_OPERATIONS:
                raise ValueError
            after = json.loads(json.dumps(self.value))
            for operation in operations:
                patch = jsonpatch.JsonPatch([operation])
                after = patch.apply(after, in_place=True)
                if operation["op"] == "copy" and _size(after) > _MOST_CHARACTERS:  # each may double the state
                    raise ValueError
            if _size(after) > _MOST_CHARACTERS:
                raise ValueError
        except _UNUSABLE:
            before = self.changes()
            self._forget()
            return [*([] if before is None else [before]), list(operations)]
        self.value = after
        return []

    def kept(self) -> Any:
        """Returns the state for the next turn: without the messages, which the memory mode selects."""
        if not isinstance(self.value, Mapping):
            return self.value
        return {name: value for name, value in self.value.items() if name != _MESSAGES}

    def changes(self) -> Any:
        """Returns what is new since the last call, None for nothing."""
        before, self._shown = self._shown, self.value
        return _new(before, self.value)

    def _forget(self) -> None:
        self.value, self._shown, self._known = {}, {}, False


def _size(value: Any) -> int:
    return len(json.dumps(value))


def _new(before: Any, after: Any) -> Any:
    """The fields of a state that have changed; of a list that has grown only what was added."""
    if not isinstance(after, Mapping):
        return None if after == before else after
    known = before if isinstance(before, Mapping) else {}
    changed = {
        name: _grown(known.get(name), value)
        for name, value in after.items()
        if name != _MESSAGES and known.get(name) != value and (name in known or value not in (None, "", [], {}))
    }
    return changed or None


def _grown(before: Any, after: Any) -> Any:
    if isinstance(before, list) and isinstance(after, list) and before and after[: len(before)] == before:
        return after[len(before) :]
    return after
