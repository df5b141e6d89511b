"""The terms of a full-text index, for indexed texts and for searches alike.

Scripts without spaces between words (and Hangul, whose words end in particles) become pairs of characters, so that a
word is found within a sentence: https://unicode.org/reports/tr29/ leaves them to dictionaries. Words of other scripts
are terms with their marks. Only English endings of number and tense are removed: Porter's algorithm finds "universe"
for "university".

Terms contain only letters, marks and digits, so SQLite's tokenizer `ascii` splits at spaces alone.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import regex

from memory.folded_text import fold_text

TOKENIZER = "ascii"
"""The tokenizer of an FTS5 table that holds `index_text`."""
_WIDE = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\u3005-\u3007\u3031-\u3035\u303b\u30fc\u0e01-\u0e3a\u0e40-\u0e4e"
)
_RUN = regex.compile(
    rf"[a-z0-9]++(?![\p{{L}}\p{{M}}\p{{N}}])|[{_WIDE}][{_WIDE}\p{{M}}]*"
    rf"|[[\p{{L}}\p{{N}}]--[{_WIDE}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_WIDE}]]*",
    regex.V1,
)
_ASCII_RUN = re.compile("[a-z0-9]+")
_FIRST_WIDE = regex.compile(rf"[{_WIDE}]")
_WORD = regex.compile(r"[\p{L}\p{N}_][\p{L}\p{M}\p{N}_\u00ad\u200b-\u200d\u2060]*")
"""A word of a query before folding."""
_LONGEST_WORD = 100
"""Characters of a word that are indexed."""
_VOWEL = regex.compile("[aeiouy]")
_COMMON_WORDS = """
a about again all also am an and any are as at be been but by can could did do does doing done down for from get give go
had has have he her here him his how i if in into is it its just know let like make me more most much my no not now of
off on once one only or other our out over please really say she should so some such tell than that the their them then
there these they thing think this those to too up us use very want was way we well were what when where which while who
why will with would yes you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""English stop words."""
_DOUBLE = regex.compile(r"([bdfgmnprt])\1$")


def index_text(text: str) -> str:
    """The terms of a text, separated by spaces, for an FTS5 table."""
    return " ".join(term for run in _runs(text) for term in _terms(run))


def phrase(word: str) -> str:
    """The adjacent terms that `index_text` gives for a word; empty if the word has no letter or digit.

    A single character of a script without spaces is only the beginning of a term.
    """
    runs = _runs(word)
    terms = [term for run in runs for term in _terms(run)]
    if len(terms) > 1 and len(runs[-1]) > 1 and _is_wide(runs[-1]):
        terms.pop()  # the last character is a term of its own only at the end of a run of characters
    return " ".join(terms)


def match(word: str, *, beginning: bool = False) -> str:
    """A word as an FTS5 query, with `beginning` as a prefix query. Empty if the word has no letter or digit."""
    exact = phrase(word)
    if not exact:
        return ""
    run = _runs(word)[-1]
    if _is_wide(run):
        return f'"{exact}"*' if len(run) == 1 else f'"{exact}"'
    if not beginning:
        return f'"{exact}"'
    unstemmed = " ".join([*exact.split(" ")[:-1], run[:_LONGEST_WORD]])
    return f'("{exact}" OR "{unstemmed}"*)'


def pairs(word: str) -> list[str]:
    """A word in a script without spaces as pairs of characters; any other word as it is."""
    runs = _runs(word)
    if not any(len(run) > 1 and _is_wide(run) for run in runs):
        return [word]
    return [part for run in runs for part in (_pairs(run) if _is_wide(run) and len(run) > 1 else [run])]


def is_common(word: str) -> bool:
    """True if a word is an English stop word."""
    return fold_text(word) in _COMMON


def words(text: str) -> Iterator[str]:
    """The words of a query, unchanged."""
    return (found[0] for found in _WORD.finditer(text))


def _runs(text: str) -> list[str]:
    folded = fold_text(text)
    return list((_ASCII_RUN if folded.isascii() else _RUN).findall(folded))


def _is_wide(run: str) -> bool:
    return _FIRST_WIDE.match(run) is not None


def _terms(run: str) -> list[str]:
    """The pairs of characters of a run and its last character; for other scripts the word's stem."""
    if not _is_wide(run):
        return [_stem(run[:_LONGEST_WORD])]
    return [*_pairs(run), run[-1]]


def _pairs(run: str) -> list[str]:
    return [first + second for first, second in pairwise(run)]


@lru_cache(10_000)
def _stem(word: str) -> str:
    """An English word without its ending of number or tense: "whales" equals "whale", "tries" equals "try"."""
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return word
    if word.endswith(("ies", "sses", "xes", "ches", "shes", "zes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and _VOWEL.search(rest) and not word.endswith("eed"):
            word = _DOUBLE.sub(r"\1", rest)
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") and word[-2] not in "aeiou" else word
