"""Text in a form in which spellings that a reader takes for the same are equal, and places in it found again.

NFKC and full case folding (Unicode 17, sections 3.11 and 3.13); accents of Latin and Greek, vowel signs of Arabic and
Hebrew, and the tatweel are dropped. Marks of all other scripts stay: in Thai or Hindi they are part of the letter.
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
"""Of decomposed text in small letters. In Cyrillic only the stress goes, and the dots of the letter yo."""
_MOST_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")
"""More marks on a letter than any language has (UAX 15, section 13). To put them in order takes quadratic time."""
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
"""Letters that do not decompose, and Arabic letters that are written one for the other."""
_DIGIT = re.compile(r"[^\D0-9]")
"""Of the standard library: `regex` may know digits of a later Unicode than `unicodedata`."""
_BLANKS = re.compile(r"\s\s+|[^\S ]")
_SPECIAL = re.compile(r"[!-~]?[^\x00-\x7f]+")
"""What is not ASCII, with the character before it, which it may combine with. All else is only made small."""
_SHORT = 32
_CONTINUES = regex.compile(rf"[\p{{M}}{_JOINERS}\u1160-\u11ff\ud7b0-\ud7ff\uff9e\uff9f]")
"""What may combine with the character before it."""
_NEAR = 64


def fold_text(text: str) -> str:
    """The text as it is compared; each run of blanks is one blank. A text that is folded already stays as it is."""
    if not text.isascii():
        text = _SPECIAL.sub(lambda found: (_fold_short if len(found[0]) <= _SHORT else _fold_special)(found[0]), text)
    return _BLANKS.sub(" ", text.lower())


def _fold_special(text: str) -> str:
    plain = _DROPPED.sub("", _MOST_MARKS.sub(r"\1", text))
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", plain).casefold())
    plain = _ACCENTS.sub(r"\1\2\3", _DROPPED.sub("", plain)).translate(_ALIKE)
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), unicodedata.normalize("NFC", plain))


_fold_short = lru_cache(20_000)(_fold_special)
"""The same words come again and again."""


def find_folded(text: str, folded: str) -> tuple[int, int] | None:
    """Start and end of the first place in a text whose folded form is `folded`; None if there is none."""
    at = fold_text(text).find(folded)
    if at < 0 or not folded:
        return None
    start = _place(text, at)
    return start, max(start + 1, _place(text, at + len(folded), after=True))


def _place(text: str, at: int, *, after: bool = False) -> int:
    """The place in a text that folds to the place `at` of its folded form; `after` the characters that fold to nothing.

    Folds one half after the other, so that all of it costs as much as to fold the text twice. Where the second half
    cannot be divided, the text is divided at the last boundary before it: two steps at least halve the text that is
    left, or leave a piece that cannot be divided at all.
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
    place = low
    while place < high:
        following = _boundary(text, place + 1, len(text))
        size = len(fold_text(text[low:following]))
        if size > left or (after and size == left):
            return following if after else place
        place = following
    return place


def _boundary(text: str, at: int, most: int) -> int:
    """The first place from `at` on where what stands before does not combine with what follows."""
    while at < most and _is_joined(text, at):
        at += 1
    return at


def _boundary_before(text: str, at: int, least: int) -> int:
    """The last place up to `at` where what stands before does not combine with what follows; at least `least`."""
    while at > least and _is_joined(text, at):
        at -= 1
    return at


def _is_joined(text: str, at: int) -> bool:
    """Whether the character at `at` may combine with the one before it; dropped characters do not part two blanks."""
    if _CONTINUES.match(text[at]):
        return True
    if not text[at].isspace():
        return False
    before = at - 1
    while before > 0 and _DROPPED.match(text[before]):
        before -= 1
    return text[before].isspace()
