"""The values of the store: messages, summaries, and the options of a conversation."""

from dataclasses import dataclass
from typing import Literal

from runs.images import Image
from runs.reply import ReplyPart

MESSAGE = 300
"""The size of a message without its text and its parts, in characters."""

Role = Literal["user", "assistant", "system", "tool"]
Standing = Literal["whole", "growing", "interrupted", "stopped", "failed"]
"""The completeness of a message: `growing` while a reply is written, `interrupted` if the process died meanwhile."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `tokens` is set when a turn reads it."""

    id: str
    role: Role
    text: str
    standing: Standing = "whole"
    run_id: str | None = None
    note: str | None = None
    """Why a reply is incomplete, for people."""
    tokens: int = 0
    estimated: bool = False
    """Whether `tokens` is an estimate by its length, which no backend has counted."""
    parts: tuple[ReplyPart, ...] = ()
    """A reply's thinking and tool calls."""
    parent_id: str | None = None
    """The message before it, None for a first one. Several messages with the same parent begin branches."""
    backend: str | None = None
    """The backend that wrote a reply; None where it is unknown."""
    model: str | None = None
    """Its model, where the backend offers a choice."""
    images: tuple[Image, ...] = ()
    """The images of a user's message."""

    @property
    def size(self) -> int:
        """The size with its parts, in characters."""
        return MESSAGE + len(self.text) + sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary of the messages of a branch up to and including `message_id`."""

    message_id: str
    text: str
    backend: str
    """The backend that wrote it."""
    tokens: int = 0
    """Set when a backend has counted it."""
