"""The Markdown parser of the page: CommonMark with tables, `~~strikethrough~~`, bare links and formulas.

HTML and character entities are text. `components/elements.py` renders the tokens.
"""

import re
from collections.abc import Mapping
from typing import Any

from linkify_it import LinkifyIt
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, blockquote, list_block, reference
from markdown_it.rules_inline import StateInline, image, link, linkify
from markdown_it.token import Token

from components.formulas import formulas_plugin

Environment = dict[str, Any]
"""The state that the blocks of a text share, in the parser's format: `references` holds link definitions by label.

`sources` holds the sources of passages by the numbers that the text may cite.
"""
Sources = Mapping[int, str]

_DEEPEST = 40
"""Levels of nested lists and quotes. Deeper markers are text; beyond its own limit, the parser would drop the text."""
_SCHEMES = {"http", "https", "mailto", "tel", "ftp", "xmpp", "irc", "sms"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LONGEST_WWW = 2000
_BEFORE_WWW = r"[^\w./@=&?#%+-]"
"""A character that may precede `www.`: white space, or a mark that is not part of a preceding URL."""
_WWW_BEGINS = re.compile(_BEFORE_WWW)
_WWW_ENDS = re.compile(rf"\s|{_BEFORE_WWW}www\.", re.IGNORECASE)
_FAILURES, _STEPS = 200, 50_000
"""The limit of failed attempts to parse a bracket or a URL, and of tokens that are skipped in search of a bracket's
end, in one text. Beyond them, brackets and URLs are text."""
_BRACKETS, _ADDRESSES, _READ = -10, -11, -12
"""The keys of the counters in the parser's cache. Its own keys are positions, so they are never negative."""
_CITATION = re.compile(r"\[(\d{1,4}(?:, ?\d{1,4}){0,9})\]")
_IGNORED = re.compile(r"[\x00-\x20\x7f-\x9f]")


def is_safe_link(url: str) -> bool:
    """Returns whether a link to a URL is allowed: a relative one, or one with a known harmless scheme.

    Control characters within a scheme are ignored, as browsers do (URL Standard, "basic URL parser").
    """
    scheme = _SCHEME.match(_IGNORED.sub("", url))
    return scheme is None or scheme[1].lower() in _SCHEMES


class _Links(LinkifyIt):  # type: ignore[misc]
    """Bare links as in GitHub's Markdown: `http:`, `https:`, `ftp:`, `www.` and e-mail addresses."""

    def __init__(self) -> None:
        www = {"validate": self._www, "normalize": self._with_scheme}
        options = {"fuzzy_link": False, "fuzzy_email": True, "fuzzy_ip": False}
        super().__init__(schemas={"//": None, "www.": www}, options=options)

    def _www(self, text: str, at: int) -> int:
        """Returns the length of the URL after `www.`.

        The text is read up to white space or the next `www.`, so that no character is read many times.
        """
        start = at - len("www.")
        if start and not _WWW_BEGINS.match(text, start - 1):
            return 0
        ends = _WWW_ENDS.search(text, at, at + _LONGEST_WWW)
        length: int = self._validate_http("//www." + text[at : ends.start() if ends else at + _LONGEST_WWW], 0)
        return max(0, length - len("//www."))

    def _with_scheme(self, match: Any) -> None:
        match.url = "http://" + match.url


def _build() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": 100, "linkify": True})
    parser.enable(["table", "strikethrough", "linkify"])
    parser.disable(["html_block", "html_inline", "entity"])
    parser.linkify = _Links()
    parser.validateLink = is_safe_link  # type: ignore[method-assign]
    every = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.at("blockquote", _shallow(blockquote), {"alt": every})
    parser.block.ruler.at("list", _shallow(list_block), {"alt": every[:-1]})
    parser.block.ruler.at("reference", _definition, {"alt": []})
    parser.inline.ruler.at("linkify", _bounded(linkify, "://", _ADDRESSES))
    parser.inline.ruler.at("link", _bounded(link, "[", _BRACKETS))
    parser.inline.ruler.at("image", _bounded(image, "![", _BRACKETS))
    parser.inline.ruler.after("image", "citation", _citation)
    parser.inline.skipToken = _counted(parser.inline.skipToken)  # type: ignore[method-assign]
    formulas_plugin(parser)
    return parser


def _shallow(rule: Any) -> Any:
    def bounded(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        return state.level < _DEEPEST and bool(rule(state, start, end, silent))

    return bounded


def _bounded(rule: Any, mark: str, key: int) -> Any:
    """Limits the failed attempts of a rule, which may read much text each time. Beyond the limit, marks are text."""

    def bounded(state: StateInline, silent: bool) -> bool:
        failed = state.cache.get(key, 0)
        if failed >= _FAILURES or state.cache.get(_READ, 0) >= _STEPS or not state.src.startswith(mark, state.pos):
            return False
        if rule(state, silent):
            return True
        state.cache[key] = failed + 1
        return False

    return bounded


def _counted(skip: Any) -> Any:
    """Limits the tokens that the parser skips to find the end of a bracket."""

    def counted(state: StateInline) -> None:
        read = state.cache[_READ] = state.cache.get(_READ, 0) + 1
        if read > _STEPS:
            state.pos = state.posMax
        else:
            skip(state)

    return counted


def _citation(state: StateInline, silent: bool) -> bool:
    """Parses `[1]` and `[1, 2]` where all numbers are those of passages. Links come first."""
    sources: Sources = state.env.get("sources") or {}
    found = _CITATION.match(state.src, state.pos) if sources else None
    if not found or any(int(number) not in sources for number in found[1].split(",")):
        return False
    if not silent:
        token = state.push("citation", "button", 0)
        token.content, token.meta = found[0], {"sources": sources}
    state.pos = found.end()
    return True


def _definition(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parses a link definition of one line. It is also shown, since the author may have meant it as text."""
    last, state.lineMax = state.lineMax, start + 1
    try:
        if not reference(state, start, end, silent):
            return False
    finally:
        state.lineMax = last
    source = state.getLines(start, start + 1, state.blkIndent, False).strip()
    before = state.tokens[-1] if state.tokens else None
    if before and before.type == "definition" and before.map and before.map[1] == start:
        before.content, before.map = f"{before.content}\n{source}", [before.map[0], start + 1]
    else:
        token = state.push("definition", "p", 0)
        token.content, token.map = source, [start, start + 1]
    return True


_PARSER = _build()


def parse_blocks(text: str, environment: Environment) -> list[Token]:
    """Parses a text with line ends of `\\n` into block tokens; inline tokens hold only their source.

    `environment["references"]` may hold link definitions, and receives those of the text.
    """
    return _PARSER.block.parse(text, _PARSER, environment, []) or []


def parse_inline(source: str, environment: Environment) -> list[Token]:
    """Parses the source of an inline token."""
    (token,) = _PARSER.parseInline(source, environment)
    return token.children or []
