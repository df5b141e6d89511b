"""The reader of providers' streams: Server-Sent Events, and what servers send instead, as JSON objects.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. Servers differ from it:

- An event also ends where its data is a complete JSON object; some servers end events with a single line end.
- A body without events may be one JSON object, from a server that does not stream, or one object a line.
- Data that does not start like an object (`ping`, `null`, `[]`) keeps the connection alive, and is skipped.
- Google sends an error as the only object of a list.
- A proxy may add a second `data:` prefix.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

_LONGEST_EVENT = 32_000_000
"""The most characters of an incomplete event."""
_MOST_LINES = 1000
"""The most lines of one event: all of them are joined after each."""
_BOM = b"\xef\xbb\xbf"
_STARTS = ("{", "[{")
_SIGNS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)
"""The tokens that matter for matching brackets outside of strings."""
_KEEP_ALIVE = {"ping", "heartbeat", "keepalive", "keep-alive"}


class Done:
    """The end of a stream, as announced by `[DONE]`."""


class StreamedError(Exception):
    """An error that a provider sends within a stream; `body` is the provider's JSON or text."""

    def __init__(self, body: Any) -> None:
        self.body = body
        text = body.get("message") if isinstance(body, dict) else body
        super().__init__(str(text or "The provider reported an error within the stream."))


class UnreadableResponse(json.JSONDecodeError):
    """An error for data that is no event of a stream; the message does not contain the data."""

    def __init__(self, why: str) -> None:
        super().__init__(why, "", 0)


class LineSplitter:
    """Splits a stream of bytes into lines at CR, LF and CRLF only; U+2028 and similar characters are text."""

    def __init__(self) -> None:
        self.rest = b""
        """The incomplete last line."""
        self._started = self._after_cr = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Yields the lines that the bytes complete. Invalid UTF-8 becomes U+FFFD."""
        if not data:
            return
        if self._after_cr:  # a CR has ended its line already: a following LF belongs to it
            data, self._after_cr = data.removeprefix(b"\n"), False
        data, self.rest = self.rest + data, b""
        if not self._started:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self.rest = data
                return
            data, self._started = data.removeprefix(_BOM), True
        self._after_cr = data.endswith(b"\r")
        *lines, self.rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


class SSEReader:
    """Reads a body incrementally: call `feed` with its bytes, then `end`."""

    def __init__(self, longest: int | None = None) -> None:
        """`longest` is the most characters of an incomplete event, by default 32 million."""
        self._longest = _LONGEST_EVENT if longest is None else longest
        self._lines = LineSplitter()
        self._kind = ""
        self._data: list[str] = []
        self._bare = ""
        """JSON outside of events."""
        self._scanned, self._depth, self._quoted = 0, 0, False
        """The scanned length of `_bare`, its open brackets there, and whether a string is open."""

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | Done]:
        """Yields the objects that the bytes complete.

        Raises UnreadableResponse for data that starts like a JSON object but is none, and StreamedError for an event
        named `error`.
        """
        for line in self._lines.feed(data):
            yield from self._line(line)
        if len(self._lines.rest) + len(self._bare) + sum(map(len, self._data)) > self._longest:
            raise UnreadableResponse(f"an event of more than {self._longest:,} bytes")
        while self._lines.rest.rstrip().endswith(b"}"):  # a complete response may lack a line end
            rest = self._lines.rest.decode(errors="replace")
            if not self._is_bare(rest) or (first := self._first_bare(self._bare + rest)) is None:
                break
            found, rest = first
            self._lines.rest = rest.encode()
            yield found

    def end(self) -> Iterator[dict[str, Any] | Done]:
        """Yields the objects that the body's end completes, without a last line end. Incomplete data is dropped."""
        rest = self._lines.rest.decode(errors="replace")
        for line in (rest, ""):
            try:
                yield from self._line(line)
            except UnreadableResponse:
                return

    def _line(self, line: str) -> Iterator[dict[str, Any] | Done]:
        while self._is_bare(line):
            self._bare += line + "\n"
            if (first := self._first_bare(self._bare)) is None:
                return
            found, line = first
            line = line.removesuffix("\n")
            yield found
        name, _, value = line.partition(":")
        if not line:
            yield from self._dispatched(complete=False)
            self._kind = ""
        elif name == "data":
            value = value.removeprefix(" ")
            if len(self._data) == _MOST_LINES:
                raise UnreadableResponse(f"an event of more than {_MOST_LINES:,} lines")
            self._data.append(value.removeprefix("data:").removeprefix(" ") if value.startswith("data:") else value)
            yield from self._dispatched(complete=True)
        elif name == "event":
            self._kind = value.strip()
        elif name == "error" and value.strip():  # llama.cpp's extension of the protocol
            raise StreamedError(_object(value) or value.strip())
        elif _is_done(line):
            yield Done()

    def _is_bare(self, line: str) -> bool:
        """True if a line is JSON outside of events."""
        return bool(self._bare) or (not self._data and line.lstrip().startswith(_STARTS))

    def _first_bare(self, text: str) -> tuple[dict[str, Any], str] | None:
        """The first object in JSON outside of events, and the rest of the text; None until it is complete.

        Each character is scanned once. A text that turns out not to be an object is not scanned again.
        """
        for sign in _SIGNS.finditer(text, self._scanned):
            self._scanned = sign.end()
            if sign[0] == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(sign[0], 0)
                if self._depth == 0:
                    break
        else:
            return None
        text, rest = text[: self._scanned], text[self._scanned :]
        if (found := _object(text)) is None:
            self._scanned = sys.maxsize
            return None
        self._bare, self._scanned = "", 0
        return found, rest

    def _dispatched(self, *, complete: bool) -> Iterator[dict[str, Any] | Done]:
        """The pending event; with `complete`, only if its data needs no further line."""
        text = "\n".join(self._data)
        if not text.strip():
            self._data.clear()
            return
        found = Done() if _is_done(text) else _object(text)
        plain = self._kind in ("", "message")  # other kinds of events are unknown
        if found is None and complete and not (plain and _keeps_alive(text)):
            return
        self._data.clear()
        if self._kind == "error":
            raise StreamedError(text.strip() if found is None else _error_in(found))
        if self._kind in _KEEP_ALIVE:
            return
        if found is not None:
            yield found
        elif plain and text.lstrip().startswith(_STARTS):
            raise UnreadableResponse("not a JSON object")


def _error_in(found: Any) -> Any:
    return found.get("error") or found if isinstance(found, dict) else "The provider reported an error."


def _is_done(text: str) -> bool:
    return text.strip().strip('"').upper() == "[DONE]"


def _keeps_alive(text: str) -> bool:
    """True if no further line can turn a text into a JSON object or a list of one."""
    text = text.strip()
    return text == "[]" or not text.startswith(("{", "["))


def _object(text: str) -> dict[str, Any] | None:
    """The text as a JSON object, also if it is the only one of a list; else None."""
    text = text.strip()
    if not (text.startswith(("{", "[")) and text.endswith(("}", "]"))):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, dict) else None
