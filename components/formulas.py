"""Parser rules for TeX formulas in Markdown: `\\( \\)`, `\\[ \\]`, `$$ $$`, and `$ $` where it is not money.

A formula's token holds its source with the delimiters; the source is not parsed as Markdown. As in TeX, a formula
contains no blank line, so an unclosed one never swallows more of a growing reply than its own paragraph.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

_DELIMITED = {
    "\\(": re.compile(r"\\\((?:[^\\]|\\[^)])++\\\)"),
    "\\[": re.compile(r"\\\[(?:[^\\]|\\[^\]])++\\\]"),
    "$$": re.compile(r"(?<!\$)\$\$(?!\$)(?:[^$\\]|\\.|\$(?!\$))++\$\$(?!\$)", re.DOTALL),
}
_ENDS = {"\\[": re.compile(r"(?<!\\)(?:\\\\)*\\\]"), "$$": re.compile(r"(?<!\\)\$\$")}
_DOLLARS = re.compile(
    r"\$(?![\s$])(?P<tex>(?:[^$\\\n]|\\.)+)(?<!\s)\$(?!\$)(?:(?![A-Za-z0-9_])|(?=(?:th|st|nd|rd|s)\b))"
)
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_FOREIGN = re.compile(r"[^\W\d_A-Za-z\u0370-\u03ff\U0001d400-\U0001d7ff]")
"""Letters that are not Latin, Greek or mathematical. They mean prose, unless there is a command such as `\\text`."""
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def formulas_plugin(parser: MarkdownIt) -> None:
    """Adds the rules to a parser. The tokens are `formula` (inline) and `formula_block`, with `meta["display"]`."""
    parser.inline.ruler.before("escape", "formula", _inline)
    interrupted = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("fence", "formula_block", _block, {"alt": interrupted})


def is_formula(tex: str) -> bool:
    """Returns whether a text between single dollars is clearly a formula, not an amount, a variable or prose."""
    words = [word for word in _WORDS.findall(tex) if len(word) > 2 or tex[0].isdigit()]
    if "\\" not in tex and ((words and " " in tex) or _FOREIGN.search(tex)):
        return False
    depth = 0
    for character in tex:
        depth += _BRACKETS.get(character, 0)
        if depth < 0:
            return False
    return depth == 0 and any(character.isalnum() for character in tex)


def _inline(state: StateInline, silent: bool) -> bool:
    start, opener = state.pos, state.src[state.pos : state.pos + 2]
    if opener[0] not in "\\$":
        return False
    if pattern := _DELIMITED.get(opener):
        missing = -1 - list(_DELIMITED).index(opener)  # the parser's own keys in its cache are positions
        found = None if missing in state.cache else pattern.match(state.src, start, state.posMax)
        if not found:
            state.cache[missing] = start
            return False
    elif opener[0] == "$" and not _within_word(state.src[start - 1 : start]):
        found = _DOLLARS.match(state.src, start, state.posMax)
        if not found or not is_formula(found["tex"]):
            return False
    else:
        return False
    if not found.group()[len(opener) : -2].strip() and opener in _DELIMITED:
        return False
    if not silent:
        token = state.push("formula", "span", 0)
        token.content, token.meta = found.group(), {"display": opener in ("\\[", "$$")}
    state.pos = found.end()
    return True


def _within_word(before: str) -> bool:
    """Returns whether a dollar after this character belongs to a word or an amount. In Chinese, formulas may follow."""
    return before.isascii() and (before.isalnum() or before in ("$", "\\", "_")) and before != ""


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parses a block that begins with `\\[` or `$$`: a formula, or a paragraph where the formula is not closed."""
    if state.is_code_block(start):
        return False
    at = state.bMarks[start] + state.tShift[start]
    opener = state.src[at : at + 2]
    if opener not in _ENDS or state.src[at : at + 3] == "$$$":
        return False
    if silent:
        return True
    line, ended = start, _ENDS[opener].search(state.src, at + 2, state.eMarks[start])
    while not ended:
        line += 1
        if line >= end:  # it may still grow; until it is closed, its lines are a paragraph
            return _paragraph(state, start, line)
        if state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            return False
        ended = _ENDS[opener].search(state.src, state.bMarks[line], state.eMarks[line])
    if state.src[ended.end() : state.eMarks[line]].strip():
        return line > start and _paragraph(state, start, line + 1)
    source = state.getLines(start, line + 1, state.blkIndent, False).strip()
    if not source[2:-2].strip():
        return False
    token = state.push("formula_block", "div", 0)
    token.content, token.meta, token.map = source, {"display": True}, [start, line + 1]
    state.line = line + 1
    return True


def _paragraph(state: StateBlock, start: int, end: int) -> bool:
    opening = state.push("paragraph_open", "p", 1)
    opening.map = [start, end]
    inline = state.push("inline", "", 0)
    inline.content, inline.map, inline.children = (
        state.getLines(start, end, state.blkIndent, False).strip(),
        [start, end],
        [],
    )
    state.push("paragraph_close", "p", -1)
    state.line = end
    return True
