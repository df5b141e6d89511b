"""A streamed tool call, as far as it has arrived, and the deltas that extend it."""

import json
from dataclasses import dataclass, field
from typing import Any

from runs.text import valid_text


@dataclass(slots=True)
class CallDelta:
    """One entry of `tool_calls`; its arguments are a text, an object, or None."""

    index: str | None
    id: str | None
    name: str
    arguments: str | dict[str, Any] | None
    extra: Any = None
    """`extra_content`, Google's field for the signature of the thinking before a call."""

    @property
    def blank(self) -> bool:
        """True if it has no part of the arguments."""
        return self.arguments is None or (isinstance(self.arguments, str) and not self.arguments.strip())

    @property
    def starts(self) -> bool:
        """True if its arguments may be the beginning of an object."""
        return isinstance(self.arguments, dict) or (self.arguments or "").lstrip().startswith("{")

    @classmethod
    def read(cls, delta: Any, position: int | None) -> "CallDelta":
        """Reads an entry of `tool_calls`. If a delta has several without an index, `position` is the index.

        Raises TypeError for an entry of another shape.
        """
        if not isinstance(delta, dict):
            raise TypeError("a tool call is not an object")
        function: dict[str, Any] = delta["function"] if isinstance(delta.get("function"), dict) else delta
        index = delta.get("index")
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str | dict):
            arguments = json.dumps(arguments)
        if index is None and position is not None:
            index = f"position {position}"
        return cls(
            None if index is None else str(index),
            str(delta.get("id") or "") or None,
            str(function.get("name") or ""),
            arguments,
            delta.get("extra_content"),
        )


@dataclass(slots=True)
class StreamedCall:
    """A call so far; `parsed` has arguments that arrived as an object, `text` those that arrived as text."""

    indexes: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    name: str = ""
    text: str = ""
    grown: str | None = ""
    """The latest text if each one started with the one before, so that each may be all arguments so far; else None."""
    parsed: dict[str, Any] | None = None
    extra: Any = None
    sent_id: str = ""
    """The id under which deltas of its arguments were returned; empty before the first one."""
    sent: int = 0
    """The number of characters of the arguments that were returned."""

    @property
    def blank(self) -> bool:
        """True if no part of the arguments has arrived."""
        return self.parsed is None and not self.text.strip()

    @property
    def empty(self) -> bool:
        """True if its arguments are `{}`: some servers start with that and send the arguments later."""
        return self.parsed == {} or self.text.strip() == "{}"

    @property
    def complete(self) -> bool:
        """True if its arguments are a complete object."""
        if self.parsed is not None:
            return True
        text = self.text.strip()
        ended = text.endswith("}") or (text.startswith('"') and text.endswith('"'))  # cheap check first
        return ended and self.object() is not None

    def object(self) -> dict[str, Any] | None:
        """Returns the arguments as an object, if they are one: sent as an object, in parts, or as a growing text."""
        if self.parsed is not None:
            return self.parsed
        found = _object(self.text)
        return _object(self.grown or "") if found is None else found

    def unsent(self) -> str:
        """Returns the new part of the arguments: an object once, and no `{}`, which may be replaced."""
        if self.sent == 0 and self.empty:
            return ""
        if self.parsed is not None:
            return "" if self.sent else json.dumps(self.parsed, ensure_ascii=False)
        return (self.grown or self.text)[self.sent :]

    def grows_into(self, arguments: str | dict[str, Any] | None) -> bool:
        """True if these arguments may be all so far and more: some servers send all of them each time."""
        if not self.grown or not isinstance(arguments, str):
            return False
        return len(arguments) > len(self.grown) and arguments.startswith(self.grown)

    def equals(self, arguments: str | dict[str, Any] | None) -> bool:
        """True if these arguments repeat the call's own."""
        given = arguments if isinstance(arguments, dict) else _object(arguments or "")
        return given is not None and given == self.object()

    def merge(self, given: str | dict[str, Any]) -> None:
        """Adds a delta's arguments."""
        if not self.blank and self.equals(given):  # repeated arguments
            return
        if isinstance(given, dict):
            self.parsed, self.text = {**(self.parsed or {}), **given}, ""
        elif self.parsed:
            self.parsed |= _object(given) or {}
        elif self.empty and given.lstrip().startswith("{"):
            self.parsed, self.text, self.grown = None, given, given
        elif self.parsed is None and given:
            self.grown = given if self.grown is not None and given.startswith(self.grown) else None
            self.text += given

    def arguments(self) -> str:
        """Returns the arguments as the text of a JSON object, if they are one; else unchanged."""
        if self.parsed is not None:
            return valid_text(json.dumps(self.parsed, ensure_ascii=False))
        text = valid_text(self.text)
        if self.grown and _object(text) is None and _object(self.grown) is not None:
            text = valid_text(self.grown)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return found if isinstance(found, str) and _object(found) is not None else text  # encoded twice


def _object(text: str) -> dict[str, Any] | None:
    """The text as a JSON object, also if it is encoded twice; else None."""
    try:
        found = json.loads(text)
        found = json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
