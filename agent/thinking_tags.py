"""Thinking within the text of a reply, up to a closing tag: some servers leave the tags in.

A reply may begin with `<think>`. Or the chat template opens the thinking, and the reply has only the closing tag. If
that is not known yet, the text before the tag was already shown when the tag arrives: see `Tags.retracted`.
"""

import re
from dataclasses import dataclass, replace

OPEN, CLOSE = "<think>", "</think>"
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_MARKED = re.compile(r"(?: {4}|\t| {0,3}(?:[-+*>#|]+|\d+[.)])\s)")
"""The beginning of a line of code, or of a list item, a quotation, a heading or a table row."""
_SENTENCE = re.compile(r"(?<![a-z]\.[a-z])[.!?…\u3002\uff01\uff1f]\s*$")
"""The end of a sentence, except "e.g." and the like."""
_LINE_END = re.compile(r"[ \t\r]*\n")
_QUOTING = set(
    "`'\"\u2018\u2019\u201c\u201d\u201e«»\u2039\u203a([{<*_~=/\\|:-\u2010\u2011\u2012\u2013\u2014\u2015"
    "\u3008\u300a\u300c\u300e\u3010\u3014\u3016\u301d\uff02\uff07\uff08\uff0d\uff1a\uff3b\uff40\uff5b\uff5f"
)
"""Characters before a word that is quoted or named: quotation marks, opening brackets, dashes and colons."""


@dataclass(frozen=True, slots=True)
class Tags:
    """The state of the thinking in the text of one model call."""

    opened: bool = False
    """Whether the template is known to open the thinking, so that the reply begins within it."""
    learned: bool = False
    """Whether that is known only from an earlier reply, which may have been misread."""
    watched: bool = True
    """Whether a closing tag that nothing has opened may still turn out to end thinking."""
    apart: bool = False
    """Whether the server removes the thinking from the text; it may leave a tag at the beginning."""
    begun: bool = False
    """Whether there was text, so that a <think> tag can no longer begin it."""
    inside: bool = False
    """Whether the text is within the thinking."""
    fresh: bool = False
    """Whether the thinking has just been closed: newlines that follow belong to the tag."""
    held: str = ""
    """Text that may yet become a tag."""
    before: "_Pieces | None" = None
    """The text before a closing tag that may still come."""
    retracted: bool = False
    """Whether all text so far has turned out to be thinking; the thought that came with that is all of it."""
    thinks: bool | None = None
    """Whether this call showed that the template opens the thinking; None if it did not show it."""

    @property
    def settled(self) -> bool:
        """True if everything that follows is text."""
        return self.begun and not (self.inside or self.fresh or self.watched)


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """Text as a linked list: appending costs the same for any length."""

    last: str
    earlier: "_Pieces | None"

    def __repr__(self) -> str:
        return f"_Pieces({_joined(self)!r})"


def _joined(pieces: _Pieces | None) -> str:
    """Joins a list of pieces."""
    found = []
    while pieces:
        found.append(pieces.last)
        pieces = pieces.earlier
    return "".join(reversed(found))


def split(text: str, tags: Tags) -> tuple[str, str, Tags]:
    """Returns the thinking and the text in a piece of a reply, and the next tags."""
    text = tags.held + text
    if not tags.begun:
        start = text.lstrip()
        if len(start) < len(OPEN) and OPEN.startswith(start):
            return "", "", replace(tags, held=text)
        tagged = start.startswith(OPEN)
        opened = tags.opened and not tagged
        inside, watched = tagged or opened, tags.watched and not tagged
        tags = replace(tags, begun=True, inside=inside, opened=opened, watched=watched, held="")
        text = start[len(OPEN) :] if tagged else text
    if tags.inside:
        return _inside(text, tags)
    if tags.watched:
        return _watched(text, tags)
    text = text.lstrip("\n") if tags.fresh else text
    return "", text, replace(tags, held="", fresh=tags.fresh and not text)


def _inside(text: str, tags: Tags) -> tuple[str, str, Tags]:
    thought, closed, after = text.partition(CLOSE)
    if closed:
        after = after.lstrip("\n")
        thinks = True if tags.opened else None
        left = replace(tags, inside=False, watched=False, held="", before=None, fresh=not after, thinks=thinks)
        return thought, after, left
    thought, held = _without_tag(thought)
    before = _Pieces(thought, tags.before) if tags.opened else None
    return thought, "", replace(tags, held=held, before=before)


def _watched(text: str, tags: Tags) -> tuple[str, str, Tags]:
    """Splits text in which a closing tag may end thinking that the template has opened."""
    shown, closed, after = text.partition(CLOSE)
    if not closed:
        shown, held = _without_tag(text)
        if tags.apart and shown.strip():
            return "", text, replace(tags, watched=False, held="", before=None)
        return "", shown, replace(tags, held=held, before=_Pieces(shown, tags.before) if shown else tags.before)
    before = _joined(tags.before) + shown
    ends = ends_thinking(before, after)
    if OPEN in before or ends is False or (tags.apart and before.strip()):
        return "", text, replace(tags, watched=False, held="", before=None)
    if ends is None:
        pieces = _Pieces(shown, tags.before) if shown else tags.before
        return "", shown, replace(tags, held=closed + after, before=pieces)
    after = after.lstrip("\n")
    if not before.strip() and not after.strip():  # only the tag so far: it may be the whole reply
        return "", "", replace(tags, held=text)
    retracted = tags.before is not None
    left = replace(tags, watched=False, held="", before=None, fresh=not after, retracted=retracted, thinks=True)
    return before, after, left


def _without_tag(text: str) -> tuple[str, str]:
    """Returns the text, and its end if that may become a closing tag."""
    kept = next((n for n in range(len(CLOSE) - 1, 0, -1) if text.endswith(CLOSE[:n])), 0)
    cut = len(text) - kept
    return text[:cut], text[cut:]


def ends_thinking(before: str, after: str) -> bool | None:
    """Decides whether a closing tag between these texts ends thinking or is only mentioned; None if more is needed.

    A tag in code is mentioned. A tag that ends thinking begins its line, follows a sentence, or ends its line right
    after the thought; a tag that is mentioned follows a quotation mark, a list marker, or a word and a blank.
    """
    line = before[before.rfind("\n") + 1 :]
    paragraph = before[before.rfind("\n\n") + 1 :]
    if len(_FENCE.findall(before)) % 2 or paragraph.count("`") % 2 or _MARKED.match(line):
        return False
    if not line.strip() or _SENTENCE.search(line):
        return True
    if line[-1].isspace() or line[-1] in _QUOTING:
        return False
    if _LINE_END.match(after):
        return True
    return False if after.strip() else None


def rest(tags: Tags, *, whole: bool = False) -> tuple[str, str, Tags]:
    """Returns what was held back when the call ended, as thinking and as text, and the final tags.

    `whole` means that the model ended its reply itself. A whole reply that seemed to begin within thinking and never
    left it is an answer without thinking. So is one that was cut, if only an earlier reply suggested the thinking: an
    answer must not be lost.
    """
    if tags.inside and tags.opened and (whole or tags.learned):
        return "", _joined(tags.before) + tags.held, replace(tags, thinks=False)
    return (tags.held, "", tags) if tags.inside else ("", tags.held, tags)


def without_thinking(text: str, tags: Tags) -> str:
    """Returns the text of a whole reply without thinking. `tags` is what was known before the reply."""
    _, found, tags = split(text, tags)
    return found + rest(tags, whole=True)[1]
