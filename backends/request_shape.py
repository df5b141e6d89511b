"""The shape of requests: the form that one server accepts, by its settings and as learned from its rejections."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SystemRole = Literal["system", "developer", "user"]
LONGEST_REPLY = ("max_tokens", "max_completion_tokens")
"""OpenAI's names for the max reply length: the old one, which most servers know, and the new one."""
FIXED = frozenset({"model", "messages", "stream"})
"""The required fields of a request."""
_KEPT_S = 3600.0
"""Seconds after which a learned shape is forgotten."""


@dataclass(frozen=True, slots=True)
class RequestShape:
    """The form of requests that a server accepts, from its entry in the settings and its rejections."""

    fields: Mapping[str, str | None] = field(default_factory=dict)
    """Other names for fields of the body; None omits a field."""
    system_role: SystemRole | None = None
    """The role of the system prompt; "user" puts it in front of the first message, None leaves it as it is."""
    without: frozenset[str] = frozenset()
    """The fields of messages that are omitted."""
    reasoning: str | None = None
    """The field for thinking that every assistant message must have."""
    null_content: bool = False
    """True if a message with only tool calls has the content null instead of an empty text."""

    def name(self, name: str) -> str | None:
        """Returns the server's name for a field; None if it is omitted."""
        if name in LONGEST_REPLY and name not in self.fields:
            other = LONGEST_REPLY[name == LONGEST_REPLY[0]]
            return self.fields.get(other, name)
        return self.fields.get(name, name)


class LearnedShape:
    """The request shape of one backend: as set, or as learned within the last hour."""

    def __init__(self, name: str, shape: RequestShape) -> None:
        self.name, self._set, self._learned = name, shape, shape
        self._until = 0.0

    @property
    def shape(self) -> RequestShape:
        """The shape of the next request."""
        return self._learned if time.monotonic() < self._until else self._set

    @property
    def unused(self) -> frozenset[str]:
        """The visitors' options that are not sent to the server."""
        left_out = {name for name in ("temperature", *LONGEST_REPLY) if self.shape.name(name) is None}
        return frozenset(left_out - {LONGEST_REPLY[1]})

    def keep(self, shape: RequestShape) -> None:
        """Uses a shape from now on, after a request with it has succeeded."""
        self._learned, self._until = shape, time.monotonic() + _KEPT_S
