"""Turns Markdown tokens into HTML. All elements are made here, so nothing in a model's text can become markup.

Each top-level block is one line, which the Chatbot's own Markdown parser passes through as a block of HTML. There is no
white space between tags, because the page preserves white space.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it.token import Token

from components.markdown import Environment, Sources, is_safe_link, parse_inline

_COPY = "<button class='copy-code' type='button' title='Copy'></button>"
_LANGUAGE = re.compile(r"[\w+#.-]+")
_NUMBER = re.compile(r"\d+")
_TASK = re.compile(r"\[([ xX])\][ \t]+(?=\S)")
_TARGET = re.compile(r"(?<=\]:)\s*<?([^\s<>]+)")
_ALIGNED = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}


@dataclass(frozen=True)
class InlineHtml:
    """The HTML of an inline token, and the direction of its first letter: "ltr", "rtl", or "" without one."""

    html: str
    direction: str


RenderInline = Callable[[str], InlineHtml]

_LONGEST_SECTION = 8000
"""Characters of Markdown that are parsed together. A longer text is cut at white space, so that the cost of a growing
paragraph is bounded."""


def long_inline_html(source: str, inline: RenderInline) -> InlineHtml:
    """Renders inline Markdown of any length."""
    if len(source) <= _LONGEST_SECTION:
        return inline(source)
    pieces, at = [], 0
    while len(source) - at > _LONGEST_SECTION:
        cut = max(source.rfind(end, at + 1, at + _LONGEST_SECTION) for end in ("\n", " ")) + 1 or at + _LONGEST_SECTION
        pieces.append(inline(source[at:cut]))
        at = cut
    pieces.append(inline(source[at:]))
    found = next((piece.direction for piece in pieces if piece.direction), "")
    return InlineHtml("".join(piece.html for piece in pieces), found)


def text_html(text: str) -> str:
    """Escapes text to one line of HTML. `%%%` is escaped too, because the Chatbot uses it in placeholders."""
    escaped = html.escape(text).replace("%%%", "&#37;%%")
    return escaped.replace("\r", "&#13;").replace("\n", "&#10;")


def direction(text: str) -> str:
    """Returns the direction of the first letter that has one (Unicode Standard Annex 9, rule P2)."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind == "L":
            return "ltr"
        if kind in ("R", "AL"):
            return "rtl"
    return ""


def inline_html(source: str, environment: Environment) -> InlineHtml:
    """Renders the source of an inline token."""
    tokens = parse_inline(source, environment)
    parts, letters, depth = [], "", 0
    for token in tokens:
        depth += token.nesting if token.type in ("link_open", "link_close") else 0
        parts.append(_token_html(token, within_link=depth > 0))
        letters = letters or (direction(token.content) if token.type in ("text", "text_special") else "")
    return InlineHtml("".join(parts), letters)


def _token_html(token: Token, *, within_link: bool) -> str:
    match token.type:
        case "text" | "text_special":
            return text_html(token.content)
        case "softbreak" | "hardbreak":
            return "<br>"
        case "code_inline":
            return f"<code dir='ltr'>{text_html(token.content)}</code>"
        case "formula":
            return formula_html(token)
        case "citation" if not within_link:
            return _citation_html(token)
        case "link_open":
            return _link_html(token.attrGet("href"), token.attrGet("title"))
        case "image":
            return _image_html(token, within_link=within_link)
        case _ if token.nesting:
            return f"<{'/' if token.nesting < 0 else ''}{token.tag}>"
    return text_html(token.content)


def formula_html(token: Token) -> str:
    """Returns the source of a formula with its delimiters. `web/typeset.js` draws it."""
    kind = "math display" if token.meta["display"] else "math"
    return f"<{token.tag} class='{kind}' dir='ltr'>{text_html(token.content)}</{token.tag}>"


def _citation_html(token: Token) -> str:
    """Returns a button for each number of a citation. `web/citations.js` opens the passage."""
    sources, numbers = token.meta["sources"], token.content[1:-1]
    if numbers.isdigit():
        return _cite_html(numbers, token.content, sources)
    return f"[{_NUMBER.sub(lambda found: _cite_html(found[0], found[0], sources), numbers)}]"


def _cite_html(number: str, shown: str, sources: Sources) -> str:
    title = text_html(f"Passage {int(number)}: {sources[int(number)]}")
    return f"<button class='cite' type='button' value='{int(number)}' title='{title}'>{shown}</button>"


def _link_html(target: Any, title: Any = None) -> str:
    about = f' title="{text_html(str(title))}"' if title else ""
    return f'<a href="{text_html(str(target or ""))}"{about}>'


def _image_html(token: Token, *, within_link: bool) -> str:
    """Returns a link to an image. Loading the image would tell its server about the reader."""
    target = token.attrGet("src")
    shown = text_html(_plain(token.children or []) or str(target))
    return shown if within_link else f"{_link_html(target, token.attrGet('title'))}{shown}</a>"


def _plain(tokens: Iterable[Token]) -> str:
    return "".join(_plain(token.children) if token.children else token.content for token in tokens)


def blocks_html(tokens: Sequence[Token], inline: RenderInline) -> str:
    """Renders block tokens; `inline` renders the inline ones."""
    return "".join(_Blocks(tokens, inline).parts())


class _Blocks:
    def __init__(self, tokens: Sequence[Token], inline: RenderInline) -> None:
        self.tokens = tokens
        self.inlines = {i: long_inline_html(t.content, inline) for i, t in enumerate(tokens) if t.type == "inline"}
        self.directions = ["ltr"]
        self.containers = {
            i: self._direction(i) for i, t in enumerate(tokens) if t.nesting > 0 and t.type in _CONTAINERS
        }

    def parts(self) -> Iterable[str]:
        return map(self._html, range(len(self.tokens)))

    def _html(self, at: int) -> str:
        token = self.tokens[at]
        match token.type:
            case "inline":
                return self._inline(at)
            case "fence" | "code_block":
                return _code_html(token)
            case "formula_block":
                return formula_html(token)
            case "definition":
                return f"<p class='definition' dir='auto'>{_definition_html(token.content)}</p>"
            case "hr":
                return "<hr>"
            case "paragraph_open" | "paragraph_close" if token.hidden:
                return ""
            case "table_open":
                return f"<div class='wide'>{self._open(at)}"
            case "table_close":
                return f"{self._close(token)}</div>"
        return self._open(at) if token.nesting > 0 else self._close(token)

    def _inline(self, at: int) -> str:
        shown = self.inlines[at].html
        box = self._checkbox(at)
        return shown[box.end() :] if box else shown

    def _checkbox(self, at: int) -> re.Match[str] | None:
        """Matches the checkbox at the start of a list item. A link's or an escaped one does not count."""
        item = at >= 2 and self.tokens[at - 1].type == "paragraph_open" and self.tokens[at - 2].type == "list_item_open"
        return _TASK.match(self.inlines[at].html) if item and _TASK.match(self.tokens[at].content) else None

    def _open(self, at: int) -> str:
        token = self.tokens[at]
        attributes = ""
        if token.type in _CONTAINERS:
            around, own = self.directions[-1], self.containers[at]
            self.directions.append(own or around)
            attributes = f" dir='{own}'" if own not in ("", around) else ""
        elif token.type in _LEAVES:
            attributes = " dir='auto'"
        if start := token.attrGet("start"):
            attributes += f" start='{int(start)}'"
        elif token.attrGet("start") == 0:
            attributes += " start='0'"
        if aligned := _ALIGNED.get(str(token.attrGet("style"))):
            attributes += f" class='{aligned}'"
        if token.type == "list_item_open" and at + 2 < len(self.tokens) and (box := self._checkbox(at + 2)):
            attributes += f" class='task{' done' if box[1] != ' ' else ''}'"
        return f"<{token.tag}{attributes}>"

    def _close(self, token: Token) -> str:
        if token.type.replace("_close", "_open") in _CONTAINERS:
            self.directions.pop()
        return f"</{token.tag}>"

    def _direction(self, start: int) -> str:
        """Returns the direction of the first letter within a container."""
        level = self.tokens[start].level
        for at in range(start + 1, len(self.tokens)):
            if self.tokens[at].level <= level:
                break
            if at in self.inlines and self.inlines[at].direction:
                return self.inlines[at].direction
        return ""


_CONTAINERS = {"bullet_list_open", "ordered_list_open", "list_item_open", "blockquote_open", "table_open"}
_LEAVES = {"paragraph_open", "heading_open", "th_open", "td_open"}


def _code_html(token: Token) -> str:
    named = _LANGUAGE.match(token.info.strip())
    language = named.group().lower() if named else ""
    kind = f' class="language-{text_html(language)}"' if language else ""
    code = f"<div class='code' dir='ltr'>{_COPY}<pre><code{kind}>{text_html(token.content)}</code></pre></div>"
    if language != "mermaid" or not _is_closed(token):
        return code
    source = f"<details open><summary>Source of the diagram</summary>{code}</details>"
    return f"<figure class='diagram' dir='ltr'>{source}</figure>"


def _is_closed(fence: Token) -> bool:
    """Returns whether a fence has its closing line, which the parser does not tell."""
    lines = fence.content.count("\n") + bool(fence.content and not fence.content.endswith("\n"))
    return fence.map is not None and fence.map[1] - fence.map[0] == lines + 2


def _definition_html(source: str) -> str:
    return "<br>".join(_definition_line_html(line) for line in source.split("\n"))


def _definition_line_html(line: str) -> str:
    target = _TARGET.search(line)
    if not target or not is_safe_link(target[1]):
        return text_html(line)
    before, after = text_html(line[: target.start(1)]), text_html(line[target.end(1) :])
    return f"{before}{_link_html(target[1])}{text_html(target[1])}</a>{after}"
