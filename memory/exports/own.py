"""Glassbox's own export, as of `GET /conversations/{id}`, and any list of messages with `role` and `content`."""

import math
from collections import deque
from typing import Any, TypeGuard

from memory.exports.conversation import (
    ROLES,
    ExportError,
    ParsedConversation,
    ParsedMessage,
    input_of,
    text_of,
)
from runs.reply import ReplyPart

_STANDINGS = "whole", "growing", "interrupted", "stopped", "failed"
_TITLE, _NAME, _NOTE, _ERROR, _FARTHEST = 200, 200, 1000, 2000, 1_000_000_000


def is_own(value: Any) -> bool:
    """True if a value has a list of messages."""
    return isinstance(value, dict) and "messages" in value


def was_saved_here(value: Any) -> bool:
    """True if a value is an export of Glassbox."""
    return is_own(value) and "conversation_id" in value


def read_own(value: dict[str, Any]) -> ParsedConversation:
    """Parses the messages, with new ids. Raises ExportError, whose message names the wrong field.

    `messages` are one branch: each follows the one before it. `other_messages` follow the message that their
    `parent_id` names; those without such a message are omitted.
    """
    title = value.get("title", "")
    if not isinstance(title, str) or len(title) > _TITLE:
        raise ExportError(f"title: a text of at most {_TITLE} characters is allowed.")
    ids: dict[str, str] = {}
    """The new ids by the file's ids."""
    order: list[ParsedMessage] = []
    last: str | None = None
    for n, one in enumerate(_listed(value, "messages")):
        message = _message(one, last, f"messages.{n}")
        if isinstance(one.get("id"), str):
            ids[one["id"]] = message.id
        order.append(message)
        last = message.id
    _add_others(_listed(value, "other_messages"), ids, order)
    return ParsedConversation(text_of(title).strip(), order, last)


def _listed(value: dict[str, Any], name: str) -> list[Any]:
    found = value.get(name, [])
    if not isinstance(found, list):
        raise ExportError(f"{name}: a list of messages is allowed.")
    return found


def _add_others(others: list[Any], ids: dict[str, str], order: list[ParsedMessage]) -> None:
    """Adds the messages of other branches, parents first, in linear time whatever their order."""
    below: dict[str | None, list[int]] = {}
    for n, one in enumerate(others):
        _check(one, f"other_messages.{n}")
        below.setdefault(one.get("parent_id"), []).append(n)
    waiting = deque(n for parent in [None, *ids] for n in below.pop(parent, ()))
    while waiting:
        n = waiting.popleft()
        parent = others[n].get("parent_id")
        message = _message(others[n], ids[parent] if parent is not None else None, f"other_messages.{n}")
        order.append(message)
        if isinstance(own := others[n].get("id"), str):
            ids[own] = message.id
            waiting.extend(below.pop(own, ()))


def _check(one: Any, where: str) -> None:
    if not isinstance(one, dict):
        raise ExportError(f"{where}: a message with role and content is allowed.")
    for name in ("id", "parent_id"):
        if not isinstance(one.get(name), str | None):
            raise ExportError(f"{where}.{name}: a text is allowed.")


def _message(one: Any, parent_id: str | None, where: str) -> ParsedMessage:
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
    valid = tuple(part for value in parts if (part := _part(value)))  # an invalid part does not reject its reply
    standing = "interrupted" if standing == "growing" else standing
    backend, model = (text_of(one.get(name))[:_NAME] or None for name in ("backend", "model"))
    return ParsedMessage(role, text, parent_id, valid, standing, text_of(note) or None, backend, model)


def _content(content: Any, where: str) -> str:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return text_of(content)
    if not isinstance(content, list):
        raise ExportError(f"{where}.content: a text, or a list of parts with text, is allowed.")
    for part in content:
        if not (isinstance(part, dict) and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ExportError(f"{where}.content: a part of the type {str(kind)[:40]!r} cannot be imported, only text.")
    return text_of("".join(part["text"] for part in content))


def _part(value: Any) -> ReplyPart | None:
    if not isinstance(value, dict) or value.get("kind") not in ("thinking", "tool"):
        return None
    start, end, error = value.get("start"), value.get("end"), value.get("error")
    name, text = value.get("name", ""), value.get("text")
    if not (isinstance(text, str) and _is_time(start) and (end is None or _is_time(end))):
        return None
    if not (isinstance(name, str) and len(name) <= _NAME):
        return None
    if error is not None and not (isinstance(error, str) and len(error) <= _ERROR):
        return None
    error = None if error is None else text_of(error)
    offset = value.get("offset", 0)  # exports of older versions have none
    offset = min(max(0, offset), _FARTHEST) if isinstance(offset, int) else 0
    return ReplyPart(
        value["kind"], text_of(text), float(start), end, text_of(name), input_of(value.get("input")), error, offset
    )


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
