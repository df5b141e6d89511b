"""Folded text, in which equivalent spellings are equal, and positions in the original text.

Folding is NFKC and full case folding (Unicode 17, sections 3.11 and 3.13). It drops the accents of Latin and Greek, the
vowel signs of Arabic and Hebrew, and the tatweel. Marks of other scripts stay: in Thai or Hindi they are letters.
"""

import re
import unicodedata
from functools import lru_cache

import regex

_JOINERS = "\u00ad\u034f\u061c\u200b-\u200f\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufe00-\ufe0f\ufeff"
_DROPPED = regex.compile(
    rf"[{_JOINERS}\u0640\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed]"
)
_ACCENTS = regex.compile(
    r"([\p{Latin}\p{Greek}])\p{Mn}+|([\u0430\u0435\u0438\u043e\u0443\u044b\u044d\u044e\u044f\u0456\u0454])[\u0300\u0301]+|(\u0435)\u0308"
)
"""Accents in decomposed lower-case text. In Cyrillic only the stress is dropped, and the dots of the letter yo."""
_MOST_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")
"""More marks on a letter than any language has (UAX 15, section 13). Normalizing them takes quadratic time."""
_ALIKE = str.maketrans(
    {
        "\u00e6": "ae",
        "\u0153": "oe",
        "\u00f8": "o",
        "\u0142": "l",
        "\u0111": "d",
        "\u00f0": "d",
        "\u0127": "h",
        "\u0131": "i",
        "\u00fe": "th",
        "\u0649": "\u064a",
        "\u06cc": "\u064a",
        "\u06a9": "\u0643",
        "\u0629": "\u0647",
    }
)
"""Letters that do not decompose, and interchangeable Arabic letters."""
_DIGIT = re.compile(r"[^\D0-9]")
"""A digit as the standard library defines it: `regex` may know a later Unicode than `unicodedata`."""
_BLANKS = re.compile(r"\s\s+|[^\S ]")
_SPECIAL = re.compile(r"[!-~]?[^\x00-\x7f]+")
"""Non-ASCII text with the character before it, which it may combine with. Other text is only lower-cased."""
_SHORT_TEXT = 32
_CONTINUES = regex.compile(rf"[\p{{M}}{_JOINERS}\u1160-\u11ff\ud7b0-\ud7ff\uff9e\uff9f]")
"""A character that may combine with the one before it."""
_NEAR = 64


def fold_text(text: str) -> str:
    """The folded text, in which white space is one space. Folding is idempotent."""
    if not text.isascii():
        text = _SPECIAL.sub(
            lambda found: (_fold_short if len(found[0]) <= _SHORT_TEXT else _fold_special)(found[0]), text
        )
    return _BLANKS.sub(" ", text.lower())


def _fold_special(text: str) -> str:
    plain = _DROPPED.sub("", _MOST_MARKS.sub(r"\1", text))
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", plain).casefold())
    plain = _ACCENTS.sub(r"\1\2\3", _DROPPED.sub("", plain)).translate(_ALIKE)
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), unicodedata.normalize("NFC", plain))


_fold_short = lru_cache(20_000)(_fold_special)
"""A cache, since words repeat."""


def find_folded(text: str, folded: str) -> tuple[int, int] | None:
    """Start and end of the first passage of a text whose folded form is `folded`; None without one."""
    at = fold_text(text).find(folded)
    if at < 0 or not folded:
        return None
    start = _position(text, at)
    return start, max(start + 1, _position(text, at + len(folded), after=True))


def _position(text: str, at: int, *, after: bool = False) -> int:
    """The position in a text of the position `at` in its folded form; `after` any characters that fold to nothing.

    A binary search that folds one half at a time, so that it costs as much as folding the text twice. Where the second
    half has no boundary, the text is divided at the last boundary before it: two steps at least halve the rest, or
    leave a piece without boundaries.
    """
    low, high, left = 0, len(text), at
    while high - low > _NEAR:
        half = (low + high) // 2
        middle = _boundary(text, half, high)
        if middle >= high:
            middle = _boundary_before(text, half, low)
        if middle <= low:
            break
        size = len(fold_text(text[low:middle]))
        if size < left or (size == left and not after):
            low, left = middle, left - size
        else:
            high = middle
    position = low
    while position < high:
        following = _boundary(text, position + 1, len(text))
        size = len(fold_text(text[low:following]))
        if size > left or (after and size == left):
            return following if after else position
        position = following
    return position


def _boundary(text: str, at: int, most: int) -> int:
    """The first boundary from `at` on: a position whose character does not combine with the one before."""
    while at < most and _is_joined(text, at):
        at += 1
    return at


def _boundary_before(text: str, at: int, least: int) -> int:
    """The last boundary up to `at`, at least `least`."""
    while at > least and _is_joined(text, at):
        at -= 1
    return at


def _is_joined(text: str, at: int) -> bool:
    """Whether the character at `at` may combine with the one before it; dropped characters do not separate spaces."""
    if _CONTINUES.match(text[at]):
        return True
    if not text[at].isspace():
        return False
    before = at - 1
    while before > 0 and _DROPPED.match(text[before]):
        before -= 1
    return text[before].isspace()
