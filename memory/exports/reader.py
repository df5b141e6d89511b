"""The reader of conversation files of all known origins."""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from lzma import LZMAError
from typing import Any

from memory.exports import chatgpt, claude
from memory.exports.conversation import ExportError, ParsedConversation, title_of
from memory.exports.own import is_own, read_own, was_saved_here

_KNOWN = (
    "What can be imported: a conversation that was saved here as JSON, or the export of ChatGPT or Claude "
    "(conversations.json, or the ZIP file that has it)."
)
_NAMES = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json", re.I)
_MOST_FILES, _MOST_CONVERSATIONS, _MOST_MESSAGES = 100, 10_000, 200_000
_LONGEST_CONVERSATION, _LONGEST_OWN_CONVERSATION = 25_000, 40_000
"""Messages of one conversation: its export, contexts and turns take time in proportion. One that was exported here may
have grown since it was imported.
"""
_MOST_SKIPPED = 20
"""Skipped conversations that are named."""
_DIGITS = 15
"""Digits of the longest whole number that may be a time or a count."""


def read_export(data: bytes, most: int, most_bytes: int) -> Iterator[dict[str, Any]]:
    """Yields the lines of at most `most` conversations of a file, the newest first, and then {"skipped": [{"title",
    "reason"}, …], "skipped_in_all", "left_out"}, where `left_out` counts the conversations beyond `most`.

    `most_bytes` limits the unpacked size of a ZIP file. Raises ExportError for a file with nothing to import.
    """
    found = [one for value in _values(data, most_bytes) for one in _conversations(value)]
    if not found:
        raise ExportError(f"There is no conversation in the body. {_KNOWN}")
    found.sort(key=_updated, reverse=True)
    most, skipped = min(most, _MOST_CONVERSATIONS), list[dict[str, str]]()
    messages = read = left_out = 0
    for one in found:
        if read == most or messages >= _MOST_MESSAGES:
            left_out += 1
            continue
        try:
            longest = _LONGEST_OWN_CONVERSATION if was_saved_here(one) else _LONGEST_CONVERSATION
            conversation = _bounded(_read(one), longest)
        except ExportError as e:
            if len(found) == 1:
                raise
            skipped.append({"title": _title(one), "reason": str(e)})
            continue
        read += 1
        messages += len(conversation.messages)
        yield from conversation.lines()
    if skipped and not read:
        raise ExportError(f"None of the {len(skipped):,} conversations can be read. The first: {skipped[0]['reason']}")
    yield {"skipped": skipped[:_MOST_SKIPPED], "skipped_in_all": len(skipped), "left_out": left_out}


def _bounded(conversation: ParsedConversation, most: int) -> ParsedConversation:
    """Raises ExportError for a conversation of more than `most` messages."""
    count = len(conversation.messages)
    if count > most:
        raise ExportError(f"The conversation has {count:,} messages; at most {most:,} can be imported.")
    return conversation


def _values(data: bytes, most_bytes: int) -> Iterator[Any]:
    """The JSON values of a file: one, or those of the files of conversations in a ZIP file."""
    if not data.startswith(b"PK\x03\x04"):
        yield _parsed(data)
        return
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = [one for one in archive.infolist() if _NAMES.fullmatch(one.filename)][:_MOST_FILES]
            for one in members:
                with archive.open(one) as file:
                    unpacked = file.read(most_bytes + 1)
                if len(unpacked) > most_bytes:
                    raise ExportError(f"Unpacked, the file is too large: at most {most_bytes / 1e6:g} MB can be read.")
                most_bytes -= len(unpacked)
                yield _parsed(unpacked)
    except (
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
        EOFError,
        OSError,
        ValueError,
        zlib.error,
        LZMAError,
    ):
        raise ExportError("The ZIP file cannot be read: it is damaged, or protected by a password.") from None


def _parsed(data: bytes) -> Any:
    if not data.strip():
        raise ExportError(f"The body is empty. {_KNOWN}")
    try:
        return json.loads(data, parse_int=_number, parse_float=_number, parse_constant=lambda _: None)
    except RecursionError:
        raise ExportError("The JSON is nested too deeply to be a conversation.") from None
    except ValueError:
        raise ExportError(f"The body is not valid JSON. {_KNOWN}") from None


def _number(text: str) -> int | float | None:
    """A number; None for one that a database or standard JSON cannot hold."""
    if len(text) <= _DIGITS and text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None


def _conversations(value: Any) -> list[Any]:
    """The conversations in the JSON value of a file. Raises ExportError for any other value."""
    if isinstance(value, dict) and isinstance(value.get("conversations"), list) and not _reader(value):
        value = value["conversations"]
    if isinstance(value, list):
        if value and all(isinstance(one, dict) and "role" in one for one in value):
            return [{"messages": value}]
        return value
    if not _reader(value):
        raise ExportError(f"There are no messages in the body. {_KNOWN}")
    return [value]


def _reader(value: Any) -> Callable[[dict[str, Any]], ParsedConversation] | None:
    if chatgpt.is_chatgpt(value):
        return chatgpt.read_chatgpt
    if claude.is_claude(value):
        return claude.read_claude
    return read_own if is_own(value) else None


def _read(value: Any) -> ParsedConversation:
    reader = _reader(value)
    if reader is None:
        raise ExportError(f"It has no messages. {_KNOWN}")
    try:
        found = reader(value)
    except RecursionError:
        raise ExportError("It is nested too deeply to be a conversation.") from None
    if not found.messages and reader is not read_own:
        raise ExportError("It has no messages that could be shown.")
    if len(found.messages) > _MOST_MESSAGES:
        raise ExportError(f"It has more than {_MOST_MESSAGES:,} messages.")
    return found


def _updated(value: Any) -> float:
    if chatgpt.is_chatgpt(value):
        return chatgpt.updated(value)
    return claude.updated(value) if claude.is_claude(value) else 0.0


def _title(value: Any) -> str:
    return title_of(value.get("title") or value.get("name")) if isinstance(value, dict) else ""
