"""The body of a provider's streamed answer as JSON objects: Server-Sent Events, and what servers send in place of them.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. Servers differ from it,
so that an event also ends where its data is a whole JSON object (some end events with a single line end), and a body
without events may be one JSON object (from a server that does not stream) or one in each line. Data that does not begin
like an object (`ping`, `null`, `[]`) keeps the connection alive, and is left out. Google sends an error as the only
object of a list. A proxy may write `data:` in front of lines that have it already.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

_LONGEST = 32_000_000
"""Characters of an event that is not complete yet."""
_BOM = b"\xef\xbb\xbf"
_STARTS = ("{", "[{")
_SIGNS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)
"""What brackets and strings are made of."""
_KEEP_ALIVE = {"ping", "heartbeat", "keepalive", "keep-alive"}


class Done:
    """The end that a stream announces with `[DONE]`."""


class StreamedError(Exception):
    """An error that a provider sends within a stream; `body` is the provider's own JSON or text."""

    def __init__(self, body: Any) -> None:
        self.body = body
        text = body.get("message") if isinstance(body, dict) else body
        super().__init__(str(text or "The provider reported an error within the stream."))


class UnreadableResponse(json.JSONDecodeError):
    """Something that is no event of a stream; nothing of it is in the message."""

    def __init__(self, why: str) -> None:
        super().__init__(why, "", 0)


class LineSplitter:
    """Splits bytes into lines at CR, LF and CRLF only, wherever the bytes are cut; U+2028 and the like are text."""

    def __init__(self) -> None:
        self.rest = b""
        """The line that has not ended yet."""
        self._begun = self._after_cr = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that the bytes complete. Bytes that are no UTF-8 become U+FFFD."""
        if self._after_cr and data:  # a CR has ended its line already: an LF right behind it belongs to it
            data, self._after_cr = data.removeprefix(b"\n"), False
        data, self.rest = self.rest + data, b""
        if not self._begun:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self.rest = data
                return
            data, self._begun = data.removeprefix(_BOM), True
        self._after_cr = data.endswith(b"\r")
        *lines, self.rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


class SSEReader:
    """Reads a body incrementally. `feed` takes bytes as they arrive, `end` what is left at the body's end."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._kind = ""
        self._data: list[str] = []
        self._bare = ""
        """JSON outside of any event."""
        self._scanned, self._depth, self._quoted = 0, 0, False
        """How far it has been looked at, its open brackets there, and whether a string is open."""

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | Done]:
        """The objects that the bytes complete.

        Raises Unreadable for data that begins like a JSON object and is none, StreamedError for an event named `error`.
        """
        for line in self._lines.feed(data):
            yield from self._line(line)
        if len(self._lines.rest) + len(self._bare) + sum(map(len, self._data)) > _LONGEST:
            raise UnreadableResponse(f"an event of more than {_LONGEST:,} bytes")
        while self._lines.rest.rstrip().endswith(b"}"):  # a whole answer need not end with a line end
            rest = self._lines.rest.decode(errors="replace")
            if not self._is_bare(rest) or (first := self._first_bare(self._bare + rest)) is None:
                break
            found, rest = first
            self._lines.rest = rest.encode()
            yield found

    def end(self) -> Iterator[dict[str, Any] | Done]:
        """What the body's end completes: servers forget the last line end. Something cut off is left out."""
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
            yield from self._dispatched(whole=False)
            self._kind = ""
        elif name == "data":
            value = value.removeprefix(" ")
            self._data.append(value.removeprefix("data:").removeprefix(" ") if value.startswith("data:") else value)
            yield from self._dispatched(whole=True)
        elif name == "event":
            self._kind = value.strip()
        elif name == "error" and value.strip():  # as llama.cpp writes it, beside the protocol
            raise StreamedError(_object(value) or value.strip())
        elif _is_done(line):
            yield Done()

    def _is_bare(self, line: str) -> bool:
        """Whether a line is JSON outside of any event."""
        return bool(self._bare) or (not self._data and line.lstrip().startswith(_STARTS))

    def _first_bare(self, text: str) -> tuple[dict[str, Any], str] | None:
        """The object that JSON outside of any event begins with, and what follows it; None until it is complete.

        Each character is looked at once, however many lines it takes: a text that is no such object never becomes one.
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

    def _dispatched(self, *, whole: bool) -> Iterator[dict[str, Any] | Done]:
        """The pending event; with `whole` only where its data needs no further line."""
        text = "\n".join(self._data)
        if not text.strip():
            self._data.clear()
            return
        found = Done() if _is_done(text) else _object(text)
        plain = self._kind in ("", "message")  # others' events are not ours to understand
        if found is None and whole and not (plain and _keeps_alive(text)):
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
    """Whether no further line can make a JSON object, or a list of one, of a text."""
    text = text.strip()
    return text == "[]" or not text.startswith(("{", "["))


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, alone or as the only one of a list; else None."""
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
