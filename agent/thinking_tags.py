"""Thinking that stands in the text of a reply, up to a closing tag: some servers leave the tags in.

A reply may begin with `<think>`. Or its template has opened the thinking, and the reply has only the closing tag. Where
nobody knows that yet, the text before the tag has been given out as text when the tag arrives: see `Tags.retracted`.
"""

import re
from dataclasses import dataclass, replace

_OPEN, CLOSE = "<think>", "</think>"
"""The tags."""
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_MARKED = re.compile(r"(?: {4}|\t| {0,3}(?:[-+*>#|]+|\d+[.)])\s)")
"""The beginning of a line that is code, or an item, a quotation, a heading or a row."""
_SENTENCE = re.compile(r"(?<![a-z]\.[a-z])[.!?…\u3002\uff01\uff1f]\s*$")
"""The end of a sentence, but of "e.g." and the like."""
_LINE_END = re.compile(r"[ \t\r]*\n")
_QUOTING = set(
    "`'\"\u2018\u2019\u201c\u201d\u201e«»\u2039\u203a([{<*_~=/\\|:-\u2010\u2011\u2012\u2013\u2014\u2015"
    "\u3008\u300a\u300c\u300e\u3010\u3014\u3016\u301d\uff02\uff07\uff08\uff0d\uff1a\uff3b\uff40\uff5b\uff5f"
)
"""What stands before a word that is quoted or named: quotation marks, opening brackets, dashes and colons."""


@dataclass(frozen=True, slots=True)
class Tags:
    """What the text of one model call has shown so far."""

    opened: bool = False
    """Whether the template is known to open the thinking, so that the reply begins within it."""
    learned: bool = False
    """Whether that is known from an earlier reply alone, which may have been understood wrongly."""
    watched: bool = True
    """Whether a closing tag that nothing has opened may still turn out to end thinking."""
    apart: bool = False
    """Whether the server takes the thinking out of the text, but for a tag that it may have left at the beginning."""
    begun: bool = False
    """Whether there was text, so that a <think> tag can no longer begin it."""
    inside: bool = False
    """Whether the text stands within the thinking."""
    fresh: bool = False
    """Whether it has just been closed: the line ends that follow belong to the tag."""
    held: str = ""
    """Text that may yet become a tag."""
    before: "_Pieces | None" = None
    """What came before a closing tag that is still possible."""
    retracted: bool = False
    """Whether all text of this call has turned out to be thinking; the thought that came with that is all of it."""
    thinks: bool | None = None
    """What this call showed of its template: whether it opens the thinking; None if neither was seen."""

    @property
    def settled(self) -> bool:
        """Whether all that follows is text."""
        return self.begun and not (self.inside or self.fresh or self.watched)


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """Text as a linked list, so that adding to it costs the same however long it is."""

    last: str
    earlier: "_Pieces | None"

    def __repr__(self) -> str:
        return f"_Pieces({_joined(self)!r})"


def _joined(pieces: _Pieces | None) -> str:
    """The text of a list of pieces."""
    found = []
    while pieces:
        found.append(pieces.last)
        pieces = pieces.earlier
    return "".join(reversed(found))


def split(text: str, tags: Tags) -> tuple[str, str, Tags]:
    """The thought and the text in a piece of a reply's text, and the tags with it."""
    text = tags.held + text
    if not tags.begun:
        start = text.lstrip()
        if len(start) < len(_OPEN) and _OPEN.startswith(start):
            return "", "", replace(tags, held=text)
        tagged = start.startswith(_OPEN)
        opened = tags.opened and not tagged
        inside, watched = tagged or opened, tags.watched and not tagged
        tags = replace(tags, begun=True, inside=inside, opened=opened, watched=watched, held="")
        text = start[len(_OPEN) :] if tagged else text
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
    """Text in which a closing tag may turn out to end thinking that the template has opened."""
    shown, closed, after = text.partition(CLOSE)
    if not closed:
        shown, held = _without_tag(text)
        if tags.apart and shown.strip():
            return "", text, replace(tags, watched=False, held="", before=None)
        return "", shown, replace(tags, held=held, before=_Pieces(shown, tags.before) if shown else tags.before)
    before = _joined(tags.before) + shown
    ends = ends_thinking(before, after)
    if _OPEN in before or ends is False or (tags.apart and before.strip()):
        return "", text, replace(tags, watched=False, held="", before=None)
    if ends is None:
        pieces = _Pieces(shown, tags.before) if shown else tags.before
        return "", shown, replace(tags, held=closed + after, before=pieces)
    after = after.lstrip("\n")
    if not before.strip() and not after.strip():  # nothing but the tag so far: it may be all that there is
        return "", "", replace(tags, held=text)
    retracted = tags.before is not None
    left = replace(tags, watched=False, held="", before=None, fresh=not after, retracted=retracted, thinks=True)
    return before, after, left


def _without_tag(text: str) -> tuple[str, str]:
    """The text, and what at its end may become a closing tag."""
    kept = next((n for n in range(len(CLOSE) - 1, 0, -1) if text.endswith(CLOSE[:n])), 0)
    cut = len(text) - kept
    return text[:cut], text[cut:]


def ends_thinking(before: str, after: str) -> bool | None:
    """Whether a closing tag between these texts ends thinking, else it is spoken of; None if the rest must tell.

    A tag in code is spoken of. One that ends thinking begins its line, or stands behind a sentence, or ends its line
    right behind the thought; one that is spoken of stands behind a quotation mark, a list's mark or a word and a blank.
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
    """What was held back when the call ended, as thought or text after all, and the tags with it.

    `whole` says that the model ended its reply by itself: then one that was taken to begin within thinking, and never
    left it, was an answer without thinking. One that was cut is taken for such, too, where an earlier reply is all that
    speaks for thinking: an answer must not be lost.
    """
    if tags.inside and tags.opened and (whole or tags.learned):
        return "", _joined(tags.before) + tags.held, replace(tags, thinks=False)
    return (tags.held, "", tags) if tags.inside else ("", tags.held, tags)


def without_thinking(text: str, tags: Tags) -> str:
    """The text of a whole reply without thinking. `tags` is what was known before it."""
    _, found, tags = split(text, tags)
    return found + rest(tags, whole=True)[1]
