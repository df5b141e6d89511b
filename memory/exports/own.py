"""Our own export: what `GET /conversations/{id}` answers, and any list of messages with `role` and `content`."""

import math
from collections import deque
from typing import Any, TypeGuard

from memory.exports.conversation import (
    ROLES,
    ExportError,
    FoundConversation,
    FoundMessage,
    input_of,
    text_of,
)
from runs.reply import ReplyPart

_STANDINGS = "whole", "growing", "interrupted", "stopped", "failed"
_TITLE, _NAME, _NOTE, _ERROR = 200, 200, 1000, 2000


def is_own(value: Any) -> bool:
    return isinstance(value, dict) and "messages" in value


def was_saved_here(value: Any) -> bool:
    """Whether it is an export of a whole conversation, and no other list of messages."""
    return is_own(value) and "conversation_id" in value


def read_own(value: dict[str, Any]) -> FoundConversation:
    """The messages under new ids. Raises ExportError, whose message names the place of what is wrong.

    `messages` are one branch: one that names no known parent follows the message before it. `other_messages` hang where
    their `parent_id` says; those whose parent is not there have no branch to be on, and are left out.
    """
    title = value.get("title", "")
    if not isinstance(title, str) or len(title) > _TITLE:
        raise ExportError(f"title: a text of at most {_TITLE} characters is allowed.")
    made: dict[str, str] = {}
    order: list[FoundMessage] = []
    last: str | None = None
    for n, one in enumerate(_listed(value, "messages")):
        message = _message(one, last, f"messages.{n}")
        if isinstance(one.get("id"), str):
            made[one["id"]] = message.id
        order.append(message)
        last = message.id
    _hang(_listed(value, "other_messages"), made, order)
    return FoundConversation(text_of(title).strip(), order, last)


def _listed(value: dict[str, Any], name: str) -> list[Any]:
    found = value.get(name, [])
    if not isinstance(found, list):
        raise ExportError(f"{name}: a list of messages is allowed.")
    return found


def _hang(others: list[Any], made: dict[str, str], order: list[FoundMessage]) -> None:
    """Adds the messages of other branches, parents first, in one pass for each message however they are listed."""
    below: dict[str | None, list[int]] = {}
    for n, one in enumerate(others):
        _check(one, f"other_messages.{n}")
        below.setdefault(one.get("parent_id"), []).append(n)
    waiting = deque(n for parent in [None, *made] for n in below.pop(parent, ()))
    while waiting:
        n = waiting.popleft()
        parent = others[n].get("parent_id")
        message = _message(others[n], made[parent] if parent is not None else None, f"other_messages.{n}")
        order.append(message)
        if isinstance(own := others[n].get("id"), str):
            made[own] = message.id
            waiting.extend(below.pop(own, ()))


def _check(one: Any, where: str) -> None:
    if not isinstance(one, dict):
        raise ExportError(f"{where}: a message with role and content is allowed.")
    for name in ("id", "parent_id"):
        if not isinstance(one.get(name), str | None):
            raise ExportError(f"{where}.{name}: a text is allowed.")


def _message(one: Any, parent_id: str | None, where: str) -> FoundMessage:
    _check(one, where)
    role, standing, note = one.get("role"), one.get("standing", "whole"), one.get("note")
    if role not in ROLES:
        raise ExportError(f"{where}.role: found {str(role)[:40]!r}, allowed are {', '.join(ROLES)}.")
    if standing not in _STANDINGS:
        raise ExportError(f"{where}.standing: found {str(standing)[:40]!r}, allowed are {', '.join(_STANDINGS)}.")
    if note is not None and not (isinstance(note, str) and len(note) <= _NOTE):
        raise ExportError(f"{where}.note: a text of at most {_NOTE:,} characters is allowed.")
    parts = one.get("parts", [])
    if not isinstance(parts, list):
        raise ExportError(f"{where}.parts: a list is allowed.")
    text = _content(one.get("content"), where)
    kept = tuple(part for given in parts if (part := _part(given)))  # a reply is not refused for what is beside it
    standing = "interrupted" if standing == "growing" else standing
    backend, model = (text_of(one.get(name))[:_NAME] or None for name in ("backend", "model"))
    return FoundMessage(role, text, parent_id, kept, standing, text_of(note) or None, backend, model)


def _content(content: Any, where: str) -> str:
    """The text of a message, joined where it is in parts."""
    if isinstance(content, str):
        return text_of(content)
    if not isinstance(content, list):
        raise ExportError(f"{where}.content: a text, or a list of parts with text, is allowed.")
    for part in content:
        if not (isinstance(part, dict) and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ExportError(f"{where}.content: a part of the type {str(kind)[:40]!r} cannot be imported, only text.")
    return text_of("".join(part["text"] for part in content))


def _part(given: Any) -> ReplyPart | None:
    if not isinstance(given, dict) or given.get("kind") not in ("thinking", "tool"):
        return None
    start, end, error = given.get("start"), given.get("end"), given.get("error")
    name, text = given.get("name", ""), given.get("text")
    if not (isinstance(text, str) and _is_time(start) and (end is None or _is_time(end))):
        return None
    if not (isinstance(name, str) and len(name) <= _NAME):
        return None
    if error is not None and not (isinstance(error, str) and len(error) <= _ERROR):
        return None
    error = None if error is None else text_of(error)
    return ReplyPart(
        given["kind"], text_of(text), float(start), end, text_of(name), input_of(given.get("input")), error
    )


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
