"""A reply's Markdown as the HTML that the page shows: of a whole text, and of one that grows.

Both give the same HTML, so that a reply does not change when it ends.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from markdown_it.common.utils import normalizeReference
from markdown_it.token import Token

from components.elements import Line, blocks_html, line_html, text_html
from components.markdown import Environment, parse_blocks

_BETWEEN = "\n\n"
"""Ends a block of HTML for the Chatbot's parser, which then draws only the blocks anew that have changed."""
_LONGEST = 50_000
"""Characters of a text that is formatted: formatting holds up all visitors for a time that grows with the text."""
_TOO_LONG = "<p><em>This text is too long to be formatted. It is shown as it was written.</em></p>"
_KEPT_CHARACTERS = 2_000_000
"""Characters of texts and their HTML that are kept. A character takes one to four bytes: 8 MB at most."""
_CLOSING = re.compile(r"(?:</[a-z0-9]+>)+$")


def reply_html(text: str) -> str:
    """The HTML of a whole text. That of formatted texts is kept, since a page draws its messages many times."""
    if len(text) > _LONGEST:
        return _plain_html(text)
    kept = _CACHE.get(text)
    if kept is None:
        kept = _formatted_html(text)
        _CACHE.put(text, kept)
    return kept


def _plain_html(text: str) -> str:
    """A long text as it was written, with a note that says so."""
    return f"{_TOO_LONG}{_BETWEEN}<p dir='auto'>{text_html(_normal(text))}</p>"


def _formatted_html(text: str) -> str:
    environment: Environment = {}
    tokens = parse_blocks(_normal(text), environment)
    return _BETWEEN.join(
        blocks_html(block, partial(line_html, environment=environment)) for block in _top_level(tokens)
    )


class HtmlCache:
    """The HTML of texts, as much of it as `characters` allow, texts included. The least recently used goes first."""

    def __init__(self, characters: int) -> None:
        self.characters = 0
        self._most = characters
        self._html: OrderedDict[str, str] = OrderedDict()

    def get(self, text: str) -> str | None:
        """The HTML of a text if it is kept."""
        if text in self._html:
            self._html.move_to_end(text)
        return self._html.get(text)

    def put(self, text: str, html: str) -> None:
        """Keeps the HTML of a text that has none here yet."""
        self._html[text] = html
        self.characters += len(text) + len(html)
        while self.characters > self._most:
            self.characters -= sum(map(len, self._html.popitem(last=False)))


_CACHE = HtmlCache(_KEPT_CHARACTERS)


def _normal(text: str) -> str:
    """Line ends as the parser expects them; NUL has no place in HTML."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _top_level(tokens: list[Token]) -> list[list[Token]]:
    blocks: list[list[Token]] = []
    for token in tokens:
        if token.level == 0 and token.nesting >= 0:
            blocks.append([])
        blocks[-1].append(token)
    return blocks


def _lines_deciding(block: list[Token]) -> int:
    """How many whole lines it takes to see that a block has begun."""
    return 2 if block[0].type == "table_open" else 1


@dataclass
class _Block:
    source: str
    html: str


class GrowingReply:
    """The HTML of a text that grows at its end. Only its last block is parsed each time.

    A block is finished once another one has begun in whole lines: no rule of the parser looks further back.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._last = ""
        self._open_blocks = 0
        self._start_over()

    def _start_over(self) -> None:
        self._finished: list[_Block] = []
        self._source = ""
        self._definitions: dict[str, dict[str, str]] = {}
        self._applied: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, Line] = {}

    def html(self, text: str) -> str:
        """The HTML of the text so far, without the last closing tags: so that it mostly grows at its end, too.

        `sent` is then the number of characters that a page has to be sent: Gradio sends what was appended, or it all.
        """
        return self._grown(self._plain(text) if len(text) > _LONGEST else self._formatted(_normal(text)))

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
        environment: Environment = {"references": dict(self._definitions)}
        blocks = _top_level(parse_blocks(tail, environment))
        self._apply(environment["references"])
        drawn = self._draw(blocks, environment)
        self._finish(tail, blocks, drawn, environment)
        return _BETWEEN.join([block.html for block in self._finished] + drawn[len(drawn) - self._open_blocks :])

    def _draw(self, blocks: list[list[Token]], environment: Environment) -> list[str]:
        """Lines that are the same as last time are not parsed again: a list may be long before it ends."""
        used: dict[str, Line] = {}

        def inline(source: str) -> Line:
            line = used.get(source) or self._lines.get(source) or line_html(source, environment)
            used[source] = line
            return line

        drawn = [blocks_html(block, inline) for block in blocks]
        self._lines = used
        return drawn

    def _finish(self, tail: str, blocks: list[list[Token]], drawn: list[str], environment: Environment) -> None:
        starts = [block[0].map[0] if block[0].map else 0 for block in blocks]
        lines = tail.split("\n")
        if starts and starts[-1] + _lines_deciding(blocks[-1]) >= len(lines):
            starts.pop()  # what begins it may still grow into something else
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
        """Draws finished blocks anew in which a link's definition that has come, changed or gone may be used."""
        now = {label: (found["href"], found["title"]) for label, found in references.items()}
        changed = {label for label in now.keys() | self._applied.keys() if now.get(label) != self._applied.get(label)}
        if not changed:
            return
        self._applied, self._lines = now, {}
        for block in self._finished:
            source = normalizeReference(block.source) if "]" in block.source else ""
            if any(label in source for label in changed):
                environment: Environment = {"references": dict(references)}
                block.html = blocks_html(
                    parse_blocks(block.source, environment), partial(line_html, environment=environment)
                )
