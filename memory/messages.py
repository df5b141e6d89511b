"""A stored message, and how it is read by a model."""

from dataclasses import dataclass
from typing import Literal

from runs.reply import ReplyPart

MESSAGE = 300
"""What a message takes besides its text and its parts, in characters."""

Role = Literal["user", "assistant", "system", "tool"]
Standing = Literal["whole", "growing", "interrupted", "stopped", "failed"]
"""How a message ended: `growing` while a reply is written, `interrupted` if the process died meanwhile."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `text` is what a person sees; `tokens` is set for a turn that reads it."""

    id: str
    role: Role
    text: str
    standing: Standing = "whole"
    run_id: str | None = None
    note: str | None = None
    """Why a reply is not whole, for people."""
    tokens: int = 0
    estimated: bool = False
    """Whether the tokens are only a guess by its length: no backend has counted them."""
    parts: tuple[ReplyPart, ...] = ()
    """A reply's thinking and tool calls."""
    parent_id: str | None = None
    """The message before it, None for a first one. More than one message after the same begin branches."""
    backend: str | None = None
    """The backend that wrote a reply; None where that is not known."""
    model: str | None = None
    """Its model, where it offers a choice."""

    @property
    def size(self) -> int:
        """About how many characters it takes with its parts."""
        return MESSAGE + len(self.text) + sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the messages of a branch up to `message_id`, that one included, come to."""

    message_id: str
    text: str
    backend: str
    """The one that wrote it."""
    tokens: int = 0
    """Set when a backend has read it."""


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What a visitor sets for a conversation beside backend and memory mode; None leaves it to settings and backend."""

    system_prompt: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    """The longest reply."""
    tools: tuple[str, ...] | None = None
    """Names of the tools that are on."""
    window_turns: int | None = None
    """This and the next ones are parameters of memory modes: see `MemorySettings`."""
    token_limit: int | None = None
    summary_tokens: int | None = None
    recall_turns: int | None = None
    model: str | None = None
    """One of the models that the conversation's backend offers."""
