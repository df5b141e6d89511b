"""Parses an uploaded file into passages, each with its place in the file.

The file's name tells its kind, and the content must match it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from documents.encodings import UnknownEncodingError, decode
from runs.errors import ChatError
from runs.text import clean_text

KINDS = "txt", "md", "pdf"
_PASSAGE = 800
"""The longest passage in characters, without the blank line before its last paragraph."""
_NAME = 100
"""The longest name of a document and the longest heading in characters."""
_OTHER_KINDS = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\x7fELF",
    b"\xd0\xcf\x11\xe0",
    b"\x1f\x8b",
)
"""Magic numbers of files that are not text: PDF, ZIP and Office, pictures, programs, gzip."""


class ParsedPassage(NamedTuple):
    """A passage as it stands in the file."""

    text: str
    heading: str
    place: str


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """The passages of a file."""

    passages: list[ParsedPassage]
    encoding: str | None
    """The text encoding; None for a PDF, which declares its own."""


def name_and_kind(name: str) -> tuple[str, str]:
    """Returns a safe name without a path, and the kind. Raises ChatError for a kind that is not in KINDS."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, kind = "".join(c for c in last if c.isprintable()).strip().rpartition(".")
    if not dot or kind.lower() not in KINDS:
        allowed = ", ".join(f".{kind}" for kind in KINDS)
        shown = f"{stem}{dot}{kind}"[:_NAME]
        raise ChatError("invalid_request", f"{shown!r} cannot be added: allowed are files that end in {allowed}.")
    return f"{stem[: _NAME - len(kind) - 1]}.{kind}", kind.lower()


def parse_text(name: str, kind: str, data: bytes, characters: int) -> ParsedFile:
    """Parses a text file with at most `characters`. Blocks: call it in a thread.

    Raises ChatError for a file that is too long, cannot be read or contains no text.
    """
    text, encoding = _decode(name, data)
    return ParsedFile(_passages(name, kind, [text], characters), encoding)


def parse_pages(name: str, pages: list[str], characters: int) -> ParsedFile:
    """Parses a PDF, whose pages have these texts, within the same limits and errors as a text file."""
    return ParsedFile(_passages(name, "pdf", pages, characters), None)


def _passages(name: str, kind: str, texts: list[str], characters: int) -> list[ParsedPassage]:
    if sum(map(len, texts)) > characters:
        raise ChatError("too_large", f"{name!r} is too long: at most {characters:,} characters.")
    passages = list(split_passages(kind, texts))
    if not passages:
        hint = " If it is a scan, make it searchable with text recognition first." if kind == "pdf" else ""
        raise ChatError("invalid_request", f"{name!r} has no text that could be searched.{hint}")
    return passages


def split_passages(kind: str, texts: Iterable[str]) -> Iterator[ParsedPassage]:
    """Splits a document into passages; `texts` are the pages of a PDF, or the whole text of another kind."""
    texts = map(clean_text, texts)
    if kind == "pdf":
        for number, page in enumerate(texts, 1):
            yield from (ParsedPassage(part, "", f"page {number}") for part in _split(page))
        return
    sections = [section for text in texts for section in (_sections(text) if kind == "md" else [("", text)])]
    parts = ((part, heading) for heading, body in sections for part in _split(body))
    for number, (part, heading) in enumerate(parts, 1):
        yield ParsedPassage(part, heading, heading or f"section {number}")


def _decode(name: str, data: bytes) -> tuple[str, str]:
    """Returns a file's text and its encoding. Raises ChatError for binary data and for an unknown encoding."""
    try:
        text, encoding = decode(data)
    except UnknownEncodingError:
        text, encoding = "", ""
    if data.startswith(_OTHER_KINDS) or _is_binary(text or data.decode("latin-1")):
        raise ChatError("invalid_request", f"{name!r} cannot be read: its name says text, but it holds something else.")
    if data and not encoding:
        raise ChatError(
            "invalid_request", f"{name!r} cannot be read: its encoding is unknown. Save it as UTF-8 and add it again."
        )
    return text, encoding


def _is_binary(text: str) -> bool:
    return len(re.findall(r"[\x00-\x08\x0e-\x1f]", text)) > len(text) // 100


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yields the headings of a Markdown text, each with the text below it, or with itself if there is none."""
    text = re.sub(r"\A---\n(?:(?:[\w-]+:| +-? ?).*\n)+---\n", "", text)  # the front matter
    heading, body, code = "", list[str](), False
    for line in text.split("\n"):
        code ^= line.lstrip().startswith("```")
        mark = None if code else re.match(r"#{1,6} ", line)
        if mark:
            yield heading, "\n".join(body).strip() or heading
            heading, body = line[mark.end() :].strip("# \t")[:_NAME], []
        else:
            body.append(line)
    yield heading, "\n".join(body).strip() or heading


def _split(text: str) -> Iterator[str]:
    """Splits a text at paragraphs; a paragraph that is too long for one passage is split as well."""
    passage = ""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        for part in _split_paragraph(paragraph):
            if passage and len(passage) + len(part) > _PASSAGE:
                yield passage
                passage = ""
            passage += f"\n\n{part}" if passage else part
    if passage:
        yield passage


def _split_paragraph(paragraph: str) -> Iterator[str]:
    """Splits after a line, a sentence or a word, if one ends in the second half of a passage; else anywhere."""
    start = 0
    while start < len(paragraph):
        end = start + _PASSAGE
        if end < len(paragraph):
            ends = (paragraph.rfind(sign, start + _PASSAGE // 2, end) for sign in ("\n", ". ", " "))
            end = next((at + 1 for at in ends if at >= 0), end)
        if part := paragraph[start:end].strip():
            yield part
        start = end
