"""JSON as text: whole, entry by entry, or encoded once for all who read it at the same time."""

import json
from collections.abc import Iterable, Iterator
from itertools import count
from threading import Lock
from typing import Any

_PART = 64_000
"""About the characters of a text that readers share."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode_json(value: Any) -> str:
    """A value as one line of JSON, also for readers that treat U+0085, U+2028 and U+2029 as line ends."""
    return escape_line_ends(_encode(value))


def json_texts(value: Any, levels: int) -> Iterator[str]:
    """The same JSON as a sequence of texts: the outer `levels` of objects and lists are encoded entry by entry.

    An iterator is encoded as a list.
    """
    if levels and isinstance(value, dict):
        before = "{"
        for name, inner in value.items():
            yield f"{before}{encode_json(name)}:"
            yield from json_texts(inner, levels - 1)
            before = ","
        yield "}" if value else "{}"
    elif isinstance(value, Iterator) or (levels and isinstance(value, list)):
        before = "["
        for inner in value:
            yield before
            yield from json_texts(inner, max(0, levels - 1))
            before = ","
        yield "]" if before == "," else "[]"
    else:
        yield encode_json(value)


def escape_line_ends(text: str) -> str:
    """JSON with those characters escaped that naive readers, such as Python's `splitlines`, treat as line ends."""
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")


def text_bytes(value: Any) -> int:
    """An estimate of the memory of a JSON value."""
    size, rest = 0, [value]
    while rest:  # a call for each value took seven times as long: a context may have 100,000 messages
        one = rest.pop()
        if type(one) is dict:
            size += 200
            for field_value in one.values():
                if type(field_value) is str:
                    size += len(field_value)
                elif field_value is not None:
                    rest.append(field_value)
        elif isinstance(one, list):
            size += 8 * len(one)
            rest += one
        elif isinstance(one, str):
            size += len(one)
    return size


class SharedText(str):
    """A string that allows weak references."""


class SharedTexts:
    """Texts that are joined to long ones as its first reader gets to them; all readers get the same.

    Readers may be in different threads.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self._parts: list[str] = []
        self._lock = Lock()

    def __iter__(self) -> Iterator[str]:
        for number in count():
            with self._lock:
                if number == len(self._parts) and (part := self._join()):
                    self._parts.append(part)
            if number == len(self._parts):
                return
            yield self._parts[number]

    def _join(self) -> str:
        """The next long text; empty at the end."""
        texts, size = list[str](), 0
        for text in self._texts:
            texts.append(text)
            size += len(text)
            if size >= _PART:
                break
        return "".join(texts)
