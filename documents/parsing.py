"""Reading: how a file's bytes become passages, each with its place in the file.

A name tells the kind, and the content must be of it. Where the passages are kept is not known here.
"""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, MutableSet
from dataclasses import dataclass
from pathlib import Path

from documents.encodings import UnknownEncodingError, decode
from runs.errors import ChatError
from runs.text import clean_text

logger = logging.getLogger(__name__)

Row = tuple[str, str, str]
"""A passage on its way into the index: text, heading, place."""

Child = subprocess.Popen[bytes]
KINDS = "txt", "md", "pdf"
_PASSAGE = 800
"""The most characters of a passage, but for the empty line before its last paragraph."""
_NAME = 100
"""Characters of a name, and of a heading, that count."""
_PDF_S = 60
"""The longest that reading a PDF may take, in seconds: others go first. Its computing time has a bound of its own."""
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
"""How files begin that are named as text by mistake: PDF, ZIP and Office, pictures, programs, gzip."""
_CHILD = Path(__file__).with_name("pdf_child.py")


def name_and_kind(name: str) -> tuple[str, str]:
    """The name as it is kept, never a path, and the kind that it tells. Raises ChatError for a kind not in KINDS."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, kind = "".join(c for c in last if c.isprintable()).strip().rpartition(".")
    if not dot or kind.lower() not in KINDS:
        shown = f"{stem}{dot}{kind}"
        allowed = ", ".join(f".{kind}" for kind in KINDS)
        raise ChatError(
            "invalid_request", f"{shown[:_NAME]!r} cannot be added: allowed are files that end in {allowed}."
        )
    return f"{stem[: _NAME - len(kind) - 1]}.{kind}", kind.lower()


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What a file holds."""

    rows: list[Row]
    encoding: str | None
    """How its text was encoded; None for a PDF, which says so itself."""


def parse_file(
    name: str, kind: str, data: bytes, pages: int, characters: int, children: MutableSet[Child] | None = None
) -> ParsedFile:
    """Reads a file of at most so many pages, if it is a PDF, and characters. Blocks: call it in a thread.

    A process that reads a PDF is in `children` meanwhile; it may be killed, which ends the reading with an error.
    Raises ChatError for a file that is too long, cannot be read, or has no text that could be searched.
    """
    encoding = None
    if kind == "pdf":
        texts = _pdf_texts(name, data, pages, characters, set() if children is None else children)
    else:
        text, encoding = _decoded(name, data)
        texts = [text]
    if sum(map(len, texts)) > characters:
        raise ChatError("too_large", f"{name!r} is too long: at most {characters:,} characters.")
    rows = list(text_rows(kind, texts))
    if not rows:
        hint = " If it is a scan, make it searchable with text recognition first." if kind == "pdf" else ""
        raise ChatError("invalid_request", f"{name!r} has no text that could be searched.{hint}")
    return ParsedFile(rows, encoding)


def text_rows(kind: str, texts: Iterable[str]) -> Iterator[Row]:
    """The passages of a document, whose texts are the pages of a PDF or the one text of another kind."""
    texts = map(clean_text, texts)
    if kind == "pdf":
        for number, page in enumerate(texts, 1):
            yield from ((part, "", f"page {number}") for part in _split(page))
        return
    sections = [section for text in texts for section in (_sections(text) if kind == "md" else [("", text)])]
    parts = ((part, heading) for heading, body in sections for part in _split(body))
    for number, (part, heading) in enumerate(parts, 1):
        yield part, heading, heading or f"section {number}"


def _decoded(name: str, data: bytes) -> tuple[str, str]:
    """Returns a file's text and its encoding. Raises ChatError for what is no text, or not clearly encoded."""
    try:
        text, encoding = decode(data)
    except UnknownEncodingError:
        text, encoding = "", ""
    if data.startswith(_OTHER_KINDS) or _is_binary(text or data.decode("latin-1")):
        raise ChatError("invalid_request", f"{name!r} cannot be read: its name says text, but it holds something else.")
    if data and not encoding:
        reason = "it is not clear in which encoding its text is. Save it as UTF-8 and add it again"
        raise ChatError("invalid_request", f"{name!r} cannot be read: {reason}.")
    return text, encoding


def _is_binary(text: str) -> bool:
    return len(re.findall(r"[\x00-\x08\x0e-\x1f]", text)) > len(text) // 100


def _pdf_texts(name: str, data: bytes, pages: int, characters: int, children: MutableSet[Child]) -> list[str]:
    """The texts of a PDF's pages, read by a process of its own that can be ended. Raises ChatError."""
    if b"%PDF-" not in data[:1024]:
        raise ChatError("invalid_request", f"{name!r} cannot be read: its name says PDF, but it holds something else.")
    command = [sys.executable, "-P", str(_CHILD), str(pages), str(characters)]
    try:
        code, out = _run(command, data, children)
        answer = json.loads(out) if code == 0 else {"error": "it takes too much time or memory"}
    except subprocess.TimeoutExpired:
        answer = {"error": "it takes too much time"}
    except (OSError, ValueError) as e:
        logger.warning("the process that reads PDFs: %s", e)
        answer = {"error": "no PDF can be read here at the moment"}
    if "error" in answer:
        raise ChatError("invalid_request", f"{name!r} cannot be read: {answer['error']}.")
    return list(answer["pages"])


def _run(command: list[str], data: bytes, children: MutableSet[Child]) -> tuple[int, bytes]:
    """The exit code and the output of a program that is given the data."""
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    # nosec B603 below: our own program, which reads the visitor's file from its input
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none) as child:  # nosec B603
        children.add(child)
        try:
            out, _ = child.communicate(data, timeout=_PDF_S)
        finally:
            child.kill()
            children.discard(child)
    return child.returncode, out


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """The headings of a markdown text, each with what is below it; what has nothing below it is its own text."""
    text = re.sub(r"\A---\n(?:(?:[\w-]+:| +-? ?).*\n)+---\n", "", text)  # settings of the file, not of its text
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
    """Passages that end with a paragraph, or within one that is too long for a passage."""
    passage = ""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        for part in _cut(paragraph):
            if passage and len(passage) + len(part) > _PASSAGE:
                yield passage
                passage = ""
            passage += f"\n\n{part}" if passage else part
    if passage:
        yield passage


def _cut(paragraph: str) -> Iterator[str]:
    """The paragraph in parts that end with a line, a sentence or a word, where one ends in a part's second half."""
    start = 0
    while start < len(paragraph):
        end = start + _PASSAGE
        if end < len(paragraph):
            ends = (paragraph.rfind(sign, start + _PASSAGE // 2, end) for sign in ("\n", ". ", " "))
            end = next((at + 1 for at in ends if at >= 0), end)
        if part := paragraph[start:end].strip():
            yield part
        start = end
