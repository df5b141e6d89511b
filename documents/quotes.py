"""The text of numbered passages, as models get it and as replies store it, and the way back.

A line `[1] notes.txt, page 3` begins a passage. No line of a document can look like it, because such a line is quoted.
"""

import re
from dataclasses import dataclass

from documents.index import Passage

DOCUMENTS, SEARCH = "documents", "search"
"""The names of the calls whose output is passages: the search before a reply, and the tool."""
_HEAD = re.compile(r"^\[(\d{1,4})\] (.+)$", re.MULTILINE)
_LIKE_HEAD = re.compile(r"^(?=\[\d{1,4}\] )", re.MULTILINE)
_LINE = re.compile(r"^", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Quote:
    """A passage with the number by which a reply can cite it."""

    number: int
    source: str
    """The document and the place in it."""
    text: str


def numbered(passage: Passage, number: int) -> str:
    """Returns a passage below its number and its source."""
    return f"{_head(passage, number)}\n{_LIKE_HEAD.sub('> ', passage.text)}"


def quoted(passage: Passage, number: int) -> str:
    """Returns a passage below its number and its source, with a mark of quotation before each of its lines."""
    return f"{_head(passage, number)}\n{_LINE.sub('> ', passage.text)}"


def read_quotes(text: str) -> tuple[Quote, ...]:
    """Returns the passages of a text that `numbered` made; empty for any other text."""
    heads = list(_HEAD.finditer(text)) if text.startswith("[") else []
    if not heads or heads[0].start():
        return ()
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return tuple(
        Quote(int(head[1]), head[2], text[head.end() + 1 : end].strip("\n"))
        for head, end in zip(heads, ends, strict=True)
    )


def sources(text: str) -> dict[int, str]:
    """Returns the sources of the passages in a text by their numbers."""
    return {quote.number: quote.source for quote in read_quotes(text)}


def without_numbers(text: str) -> str:
    """Returns the text of passages without their numbers, which only the reply of their own turn may cite."""
    return _HEAD.sub(r"\2", text) if read_quotes(text) else text


def _head(passage: Passage, number: int) -> str:
    return f"[{number}] {' '.join(f'{passage.document}, {passage.place}'.split())}"
