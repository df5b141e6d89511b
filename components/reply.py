"""Renders the Markdown of a reply as HTML, for a complete text and for a growing one.

Both give the same HTML, so a reply does not change when it ends.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from markdown_it.common.utils import normalizeReference
from markdown_it.token import Token

from components.elements import InlineHtml, blocks_html, inline_html, text_html
from components.markdown import Environment, Sources, parse_blocks

_BETWEEN = "\n\n"
"""The separator of blocks for the Chatbot's parser, which then redraws only the blocks that changed."""
_LONGEST_FORMATTED = 50_000
"""Characters of a text that is formatted. Formatting blocks the event loop for a time that grows with the text."""
_TOO_LONG = "<p><em>This text is too long to be formatted. It is shown as written.</em></p>"
_KEPT_CHARACTERS = 2_000_000
"""Characters of texts and their HTML in the cache. A character takes one to four bytes, so 8 MB at most."""
NO_SOURCES: Sources = {}
_CLOSING = re.compile(r"(?:</[a-z0-9]+>)+$")


def reply_html(text: str, sources: Sources = NO_SOURCES) -> str:
    """Renders a complete text, which may cite the sources by their numbers.

    The HTML of formatted texts is cached, because a page draws its messages many times.
    """
    if len(text) > _LONGEST_FORMATTED:
        return _plain_html(text)
    cited = tuple(sources.items()) if "[" in text else ()
    cached = _CACHE.get(text, cited)
    if cached is None:
        cached = _formatted_html(text, sources)
        _CACHE.put(text, cached, cited)
    return cached


def _plain_html(text: str) -> str:
    """Renders a long text without formatting, below a note."""
    return f"{_TOO_LONG}{_BETWEEN}<p dir='auto'>{text_html(_normal(text))}</p>"


def _formatted_html(text: str, sources: Sources) -> str:
    environment: Environment = {"sources": sources}
    tokens = parse_blocks(_normal(text), environment)
    return _BETWEEN.join(
        blocks_html(block, partial(inline_html, environment=environment)) for block in _top_level(tokens)
    )


Cited = tuple[tuple[int, str], ...]
"""The sources that a text may cite."""


class HtmlCache:
    """A cache of the HTML of texts, limited in characters, texts included. The least recently used entry goes first."""

    def __init__(self, characters: int) -> None:
        self.characters = 0
        self._most = characters
        self._html: OrderedDict[tuple[str, Cited], str] = OrderedDict()

    def get(self, text: str, cited: Cited = ()) -> str | None:
        """Returns the cached HTML of a text with these sources, or None."""
        if (text, cited) in self._html:
            self._html.move_to_end((text, cited))
        return self._html.get((text, cited))

    def put(self, text: str, html: str, cited: Cited = ()) -> None:
        """Adds the HTML of a text that is not cached."""
        self._html[text, cited] = html
        self.characters += _size(text, html, cited)
        while self.characters > self._most:
            (text, cited), html = self._html.popitem(last=False)
            self.characters -= _size(text, html, cited)


def _size(text: str, html: str, cited: Cited) -> int:
    return len(text) + len(html) + sum(len(source) for _, source in cited)


_CACHE = HtmlCache(_KEPT_CHARACTERS)


def _normal(text: str) -> str:
    """Normalizes line ends for the parser, and replaces NUL, which HTML does not allow."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _top_level(tokens: list[Token]) -> list[list[Token]]:
    blocks: list[list[Token]] = []
    for token in tokens:
        if token.level == 0 and token.nesting >= 0:
            blocks.append([])
        blocks[-1].append(token)
    return blocks


def _lines_deciding(block: list[Token]) -> int:
    """Returns how many complete lines prove that a block has begun."""
    return 2 if block[0].type == "table_open" else 1


@dataclass
class _Block:
    source: str
    html: str


class GrowingReply:
    """Renders a text that grows at its end. Only the last block is parsed each time.

    A block is finished once complete lines have begun another one: no rule of the parser looks further back.
    """

    def __init__(self, sources: Sources = NO_SOURCES) -> None:
        """The text may cite the sources by their numbers."""
        self.sent = 0
        self.sources = sources
        self._last = ""
        self._open_blocks = 0
        self._start_over()

    def _start_over(self) -> None:
        self._finished: list[_Block] = []
        self._source = ""
        self._definitions: dict[str, dict[str, str]] = {}
        self._applied: dict[str, tuple[str, str]] = {}
        self._inlines: dict[str, InlineHtml] = {}

    def html(self, text: str) -> str:
        """Renders the text so far, without the last closing tags, so that the HTML mostly grows at its end.

        It sets `sent` to the number of characters that Gradio sends: the appended ones, or all of them.
        """
        return self._grown(self._plain(text) if len(text) > _LONGEST_FORMATTED else self._formatted(_normal(text)))

    def _grown(self, shown: str) -> str:
        last, self._last = self._last, _CLOSING.sub("", shown)
        self.sent = len(self._last) - (len(last) if self._last.startswith(last) else 0)
        return self._last

    def _plain(self, text: str) -> str:
        self._start_over()
        return _plain_html(text)

    def _formatted(self, text: str) -> str:
        if not text.startswith(self._source):
            self._start_over()
        tail = text[len(self._source) :]
        environment: Environment = {"references": dict(self._definitions), "sources": self.sources}
        blocks = _top_level(parse_blocks(tail, environment))
        self._apply(environment["references"])
        drawn = self._draw(blocks, environment)
        self._finish(tail, blocks, drawn, environment)
        return _BETWEEN.join([block.html for block in self._finished] + drawn[len(drawn) - self._open_blocks :])

    def _draw(self, blocks: list[list[Token]], environment: Environment) -> list[str]:
        """Renders blocks. An inline text of the last time is not parsed again, because a list may be long."""
        used: dict[str, InlineHtml] = {}

        def inline(source: str) -> InlineHtml:
            found = used.get(source) or self._inlines.get(source) or inline_html(source, environment)
            used[source] = found
            return found

        drawn = [blocks_html(block, inline) for block in blocks]
        self._inlines = used
        return drawn

    def _finish(self, tail: str, blocks: list[list[Token]], drawn: list[str], environment: Environment) -> None:
        starts = [block[0].map[0] if block[0].map else 0 for block in blocks]
        lines = tail.split("\n")
        if starts and starts[-1] + _lines_deciding(blocks[-1]) >= len(lines):
            starts.pop()  # its first lines may still grow into something else
        count = max(0, len(starts) - 1)
        self._open_blocks = len(blocks) - count
        if not count:
            return
        offsets = [sum(len(line) + 1 for line in lines[:start]) for start in starts[: count + 1]]
        for at in range(count):
            self._finished.append(_Block(tail[offsets[at] : offsets[at + 1]], drawn[at]))
        self._source += tail[: offsets[count]]
        for label, found in environment["references"].items():
            if label in self._definitions or found["map"][0] < starts[count]:
                self._definitions.setdefault(label, found)

    def _apply(self, references: dict[str, dict[str, str]]) -> None:
        """Renders finished blocks again if they may use a link definition that was added, changed or removed."""
        now = {label: (found["href"], found["title"]) for label, found in references.items()}
        changed = {label for label in now.keys() | self._applied.keys() if now.get(label) != self._applied.get(label)}
        if not changed:
            return
        self._applied, self._inlines = now, {}
        for block in self._finished:
            source = normalizeReference(block.source) if "]" in block.source else ""
            if any(label in source for label in changed):
                environment: Environment = {"references": dict(references), "sources": self.sources}
                block.html = blocks_html(
                    parse_blocks(block.source, environment), partial(inline_html, environment=environment)
                )
