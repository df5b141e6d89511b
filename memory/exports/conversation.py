"""A parsed conversation: a tree of messages, each after its parent."""

import json
import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from memory.folded_text import fold_text
from runs.reply import ReplyPart, bounded_parts
from runs.text import clean_text, valid_text

ROLES = "user", "assistant", "system", "tool"
_TITLE, _LONGEST_TITLE = 200, 10_000
_MOST_INPUT = 20_000
"""Characters of a tool call's input that are kept."""
_PARTS = 40_000
"""Parts of one conversation that are kept."""
_DEEPEST_INPUT = 50
"""Levels of a tool call's input that are kept: code that copies or shows it is recursive."""


class ExportError(Exception):
    """A file, or a conversation in it, cannot be imported; the message is for people."""


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """A message of a parsed conversation, with a new id."""

    role: str
    text: str
    parent_id: str | None
    parts: tuple[ReplyPart, ...] = ()
    standing: str = "whole"
    note: str | None = None
    backend: str | None = None
    model: str | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))


@dataclass(frozen=True, slots=True)
class ParsedConversation:
    """A parsed conversation. `head` is the last message of the current branch; in `messages` parents come first."""

    title: str
    messages: Sequence[ParsedMessage]
    head: str | None

    def lines(self) -> Iterator[dict[str, Any]]:
        """The rows to store: first the conversation, then each message. Excess parts are omitted."""
        title = self.title or next((m.text for m in self.messages if m.role == "user"), "")
        yield {"title": title[:_LONGEST_TITLE], "head": self.head}
        places: dict[str | None, int] = {None: 0}
        most = _PARTS
        for message in self.messages:
            places[message.id] = places[message.parent_id] + 1
            parts = bounded_parts(message.parts, most)
            most -= len(parts)
            row = asdict(replace(message, parts=parts))
            yield {"row": row | {"place": places[message.id], "folded": fold_text(message.text)}}


def text_of(value: Any) -> str:
    """A text of a file in its stored form; empty for any other value."""
    return clean_text(value) if isinstance(value, str) else ""


def title_of(value: Any) -> str:
    """A title of a file in its stored form."""
    return " ".join(text_of(value).split())[:_TITLE]


def time_of(value: Any) -> float:
    """The epoch seconds of a number or an ISO 8601 text; 0 for any other value."""
    if isinstance(value, str):
        from datetime import datetime

        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return 0.0
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def input_of(arguments: Any) -> Any:
    """A tool call's input; if it is too long or nested too deeply, the beginning of its JSON as text."""
    try:
        text = valid_text(json.dumps(arguments, ensure_ascii=False, default=str))
    except RecursionError:
        return {"input": "[nested too deeply]"}
    if len(text) > _MOST_INPUT:
        return {"input": f"{text[:_MOST_INPUT]} [cut]"}
    return {"input": text} if _is_deep(arguments) else json.loads(text)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST_INPUT + 1):
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)
