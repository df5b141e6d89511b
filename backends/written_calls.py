"""Tool calls that a model writes as JSON into its text, where no server parses them.

Qwen's coders answer the tools of their template with a fenced block: {"name": "…", "arguments": {…}}. Such a block is a
call where the text is nothing else, and only for tools of the request. Text that may still become one is held back.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

_FENCES = ("```json", "```")
_KEYS = ('{"name":"', '{"arguments":', '{"parameters":')
_LONGEST_HELD_TEXT = 20_000
"""Characters of the longest text that is held back."""
_BLOCK = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_decoder = json.JSONDecoder()

Chunk = dict[str, Any]
Call = dict[str, Any]


class WrittenCalls:
    """The beginning of a reply's text, in normalized chunks, as long as it may consist of calls alone."""

    def __init__(self, tools: Collection[str]) -> None:
        """`tools` are the names of the tools in the request."""
        self._tools = tools
        self._watched = bool(tools)
        self._text = ""
        self._held: list[Chunk] = []

    def feed(self, chunk: Chunk, *, calls: bool) -> list[Chunk]:
        """Returns the chunks that can be shown now. `calls` is True if the server has sent a call by itself."""
        if not self._watched:
            return [chunk]
        content = chunk["choices"][0]["delta"].get("content") if chunk["choices"] else ""
        if content == "":
            return self.release([chunk]) if calls else [chunk]
        if not isinstance(content, str):
            return self.release([chunk])
        self._text += content
        self._held.append(chunk)
        return [] if not calls and may_be_calls(self._text, self._tools) else self.release()

    def release(self, more: Collection[Chunk] = ()) -> list[Chunk]:
        """Returns what was held back, and `more`; nothing is held back any longer."""
        held, self._held, self._watched = self._held, [], False
        return [*held, *more]

    def end(self) -> tuple[list[Chunk], list[Call]]:
        """Returns the remaining chunks and the calls of a whole reply, as {name, arguments}; one of them is empty."""
        calls = written_calls(self._text, self._tools) if self._held else []
        return ([], calls) if calls else (self.release(), [])


def may_be_calls(text: str, tools: Collection[str]) -> bool:
    """Returns whether a text that begins so can consist of calls alone."""
    if len(text) > _LONGEST_HELD_TEXT:
        return False
    text = text.lstrip()
    if not text or any(fence.startswith(text) for fence in _FENCES):
        return True
    for fence in _FENCES:
        if text.startswith(fence):
            text = text.removeprefix(fence)
            if text.strip() and not re.match(r"[ \t]*\n", text):
                return False
            break
    begun = re.sub(r"\s+", "", text[:200]).removeprefix("[")
    if not any(key.startswith(begun) or begun.startswith(key) for key in _KEYS):
        return False
    name, ended, _ = begun.removeprefix(_KEYS[0]).partition('"') if begun.startswith(_KEYS[0]) else ("", "", "")
    return name in tools if ended else any(tool.startswith(name) for tool in tools)


def written_calls(text: str, tools: Collection[str]) -> list[Call]:
    """Returns the calls of a text that is nothing else, as {name, arguments}; else none."""
    blocks = _BLOCK.findall(text)
    if not blocks:
        blocks = [text]
    elif _BLOCK.sub("", text).strip():
        return []
    try:
        values = [value for block in blocks for value in _values(block)]
        return [_call(value, tools) for value in values]
    except (ValueError, RecursionError):
        return []


def _values(text: str) -> Iterator[Any]:
    """The JSON values of a text, one after the other; those of a list each. Raises ValueError for other text."""
    at = 0
    while (at := len(text) - len(text[at:].lstrip())) < len(text):
        value, at = _decoder.raw_decode(text, at)
        yield from value if isinstance(value, list) else [value]


def _call(value: Any, tools: Collection[str]) -> Call:
    if not isinstance(value, dict) or value.get("name") not in tools:
        raise ValueError("not a call")
    arguments = value.get("arguments", value.get("parameters"))
    if not isinstance(arguments, dict) or value.keys() - {"name", "arguments", "parameters", "id", "type"}:
        raise ValueError("not a call")
    return {"name": value["name"], "arguments": arguments}
