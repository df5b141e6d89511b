"""Markdown tokens as HTML: our own elements alone, so that nothing which a model wrote can be markup.

Each top-level block is one line, which the Chatbot's own Markdown parser takes as a block of HTML and leaves as it is.
There is no white space between the tags, since white space is kept in texts.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it.token import Token

from components.markdown import Environment, is_safe_link, parse_inline

_COPY = "<button class='copy-code' type='button' title='Copy'></button>"
_LANGUAGE = re.compile(r"[\w+#.-]+")
_TASK = re.compile(r"\[([ xX])\][ \t]+(?=\S)")
_TARGET = re.compile(r"(?<=\]:)\s*<?([^\s<>]+)")
_ALIGNED = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}


@dataclass(frozen=True)
class Line:
    """The HTML of an inline token, and the direction of its first letter: "ltr", "rtl" or "" where it has none."""

    html: str
    direction: str


Inline = Callable[[str], Line]

_LONGEST = 8000
"""Characters that are parsed as one line of Markdown. A longer one is cut at white space, so that a paragraph costs no
more the longer it grows."""


def line_of(source: str, inline: Inline) -> Line:
    """A line of any length."""
    if len(source) <= _LONGEST:
        return inline(source)
    lines, at = [], 0
    while len(source) - at > _LONGEST:
        cut = max(source.rfind(end, at + 1, at + _LONGEST) for end in ("\n", " ")) + 1 or at + _LONGEST
        lines.append(inline(source[at:cut]))
        at = cut
    lines.append(inline(source[at:]))
    return Line("".join(line.html for line in lines), next((line.direction for line in lines if line.direction), ""))


def text_html(text: str) -> str:
    """Text that stays text in one line. `%%%` would be part of a placeholder of the Chatbot's."""
    escaped = html.escape(text).replace("%%%", "&#37;%%")
    return escaped.replace("\r", "&#13;").replace("\n", "&#10;")


def direction(text: str) -> str:
    """The direction of the first letter that has one (Unicode Standard Annex 9, rule P2)."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind == "L":
            return "ltr"
        if kind in ("R", "AL"):
            return "rtl"
    return ""


def line_html(source: str, environment: Environment) -> Line:
    """An inline token's source as HTML."""
    tokens = parse_inline(source, environment)
    parts, letters, depth = [], "", 0
    for token in tokens:
        depth += token.nesting if token.type in ("link_open", "link_close") else 0
        parts.append(_inline_html(token, within_link=depth > 0))
        letters = letters or (direction(token.content) if token.type in ("text", "text_special") else "")
    return Line("".join(parts), letters)


def _inline_html(token: Token, *, within_link: bool) -> str:
    match token.type:
        case "text" | "text_special":
            return text_html(token.content)
        case "softbreak" | "hardbreak":
            return "<br>"
        case "code_inline":
            return f"<code dir='ltr'>{text_html(token.content)}</code>"
        case "formula":
            return formula_html(token)
        case "link_open":
            return _link_html(token.attrGet("href"), token.attrGet("title"))
        case "image":
            return _image_html(token, within_link=within_link)
        case _ if token.nesting:
            return f"<{'/' if token.nesting < 0 else ''}{token.tag}>"
    return text_html(token.content)


def formula_html(token: Token) -> str:
    """The source of a formula with its delimiters; `web/typeset.js` typesets it."""
    kind = "math display" if token.meta["display"] else "math"
    return f"<{token.tag} class='{kind}' dir='ltr'>{text_html(token.content)}</{token.tag}>"


def _link_html(target: Any, title: Any = None) -> str:
    about = f' title="{text_html(str(title))}"' if title else ""
    return f'<a href="{text_html(str(target or ""))}"{about}>'


def _image_html(token: Token, *, within_link: bool) -> str:
    """A link, since drawing an image would tell its server about the reader."""
    target = token.attrGet("src")
    shown = text_html(_plain(token.children or []) or str(target))
    return shown if within_link else f"{_link_html(target, token.attrGet('title'))}{shown}</a>"


def _plain(tokens: Iterable[Token]) -> str:
    return "".join(_plain(token.children) if token.children else token.content for token in tokens)


def blocks_html(tokens: Sequence[Token], inline: Inline) -> str:
    """Block tokens as HTML; `inline` makes that of the inline ones."""
    return "".join(_Blocks(tokens, inline).parts())


class _Blocks:
    def __init__(self, tokens: Sequence[Token], inline: Inline) -> None:
        self.tokens = tokens
        self.lines = {i: line_of(t.content, inline) for i, t in enumerate(tokens) if t.type == "inline"}
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
                return self._line(at)
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

    def _line(self, at: int) -> str:
        shown = self.lines[at].html
        box = self._box(at)
        return shown[box.end() :] if box else shown

    def _box(self, at: int) -> re.Match[str] | None:
        """The box to tick that a list item's first line begins with. A link's or an escaped one is none."""
        item = at >= 2 and self.tokens[at - 1].type == "paragraph_open" and self.tokens[at - 2].type == "list_item_open"
        return _TASK.match(self.lines[at].html) if item and _TASK.match(self.tokens[at].content) else None

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
        if token.type == "list_item_open" and at + 2 < len(self.tokens) and (box := self._box(at + 2)):
            attributes += f" class='task{' done' if box[1] != ' ' else ''}'"
        return f"<{token.tag}{attributes}>"

    def _close(self, token: Token) -> str:
        if token.type.replace("_close", "_open") in _CONTAINERS:
            self.directions.pop()
        return f"</{token.tag}>"

    def _direction(self, start: int) -> str:
        """The direction of the first letter within a container."""
        level = self.tokens[start].level
        for at in range(start + 1, len(self.tokens)):
            if self.tokens[at].level <= level:
                break
            if at in self.lines and self.lines[at].direction:
                return self.lines[at].direction
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
    """Whether a fence has its closing line; the parser does not say."""
    lines = fence.content.count("\n") + bool(fence.content and not fence.content.endswith("\n"))
    return fence.map is not None and fence.map[1] - fence.map[0] == lines + 2


def _definition_html(source: str) -> str:
    return "<br>".join(_defined_html(line) for line in source.split("\n"))


def _defined_html(line: str) -> str:
    target = _TARGET.search(line)
    if not target or not is_safe_link(target[1]):
        return text_html(line)
    before, after = text_html(line[: target.start(1)]), text_html(line[target.end(1) :])
    return f"{before}{_link_html(target[1])}{text_html(target[1])}</a>{after}"
