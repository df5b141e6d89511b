"""Requests to a model as a run's record holds them: the JSON that was sent, with references to the call's context.

The context of the call has the same messages. Without references a run would hold the conversation twice.
"""

import json
from collections.abc import Sequence
from typing import Any

from runs.events import JSON, Context
from runs.json_text import encode_json

SAME = "same_as"
"""The key of a reference: the index of a message of the context, or [first, last] of several in a row.

In a list it stands for these messages as {role, content}, elsewhere for the content of one.
"""
_SHORTEST = 16
"""Characters of the shortest text that becomes a reference."""
_MOST_BYTES = 64_000
"""Bytes of the longest request that is recorded."""


class _ReservedError(Exception):
    """The request has the key of references itself."""


def abbreviate_request(body: str, context: Context) -> JSON | None:
    """The request with references to its complete context; None where it cannot be recorded."""
    try:
        found = json.loads(body)
        request = _Abbreviation(context.messages).of(found)
    except (ValueError, RecursionError, _ReservedError):
        return None
    fits = isinstance(request, dict) and len(encode_json(request).encode("utf-8", "replace")) <= _MOST_BYTES
    return request if fits else None


def complete_request(request: Any, context: Context) -> Any:
    """The request with the messages of its complete context. Raises ValueError for a message that it does not have."""
    try:
        return _complete(request, context.messages)
    except (IndexError, KeyError, TypeError) as e:
        raise ValueError("a request refers to a message that its context does not have") from e


def _plain(message: JSON) -> JSON:
    return {"role": message.get("role"), "content": message.get("content")}


def _key(message: Any) -> tuple[str, str] | None:
    """A message of {role, content} as a key; None for any other value."""
    if not isinstance(message, dict) or message.keys() != {"role", "content"}:
        return None
    role, content = message["role"], message["content"]
    return (role, content) if isinstance(role, str) and isinstance(content, str) else None


class _Abbreviation:
    def __init__(self, messages: Sequence[JSON]) -> None:
        self._messages = [_plain(message) for message in messages]
        self._indices = {_key(message): at for at, message in reversed(list(enumerate(self._messages)))}
        texts = [(str(message["content"]), at) for at, message in enumerate(self._messages)]
        self._places = {text: at for text, at in reversed(texts) if len(text) >= _SHORTEST}
        self._indices.pop(None, None)

    def of(self, value: Any) -> Any:
        """The value with references."""
        if isinstance(value, str):
            return {SAME: self._places[value]} if value in self._places else value
        if isinstance(value, list):
            return self._list(value)
        if isinstance(value, dict):
            if SAME in value:
                raise _ReservedError
            return {name: self.of(one) for name, one in value.items()}
        return value

    def _list(self, values: list[Any]) -> list[Any]:
        found, at = list[Any](), 0
        while at < len(values):
            first, count = self._run(values, at)
            if count:
                found.append({SAME: [first, first + count - 1]})
            else:
                found.append(self.of(values[at]))
            at += count or 1
        return found

    def _run(self, values: list[Any], at: int) -> tuple[int, int]:
        """The first of the context's messages that equal the values from there on, and their number."""
        first = self._indices.get(_key(values[at]), -1)
        if first < 0:
            return 0, 0
        most, count = min(len(values) - at, len(self._messages) - first), 1
        while count < most and values[at + count] == self._messages[first + count]:
            count += 1
        return first, count


def _complete(value: Any, messages: Sequence[JSON]) -> Any:
    if isinstance(value, dict):
        if SAME in value:
            return messages[value[SAME]]["content"]
        return {name: _complete(one, messages) for name, one in value.items()}
    if not isinstance(value, list):
        return value
    found = list[Any]()
    for one in value:
        if isinstance(one, dict) and isinstance(one.get(SAME), list):
            first, last = one[SAME]
            found += [_plain(messages[at]) for at in range(first, last + 1)]
        else:
            found.append(_complete(one, messages))
    return found
