"""Takes visitors' words out of texts that are logged: providers echo what they were sent."""

import json
import re
from collections.abc import Iterable

MASK = "[…]"
_RUN = 8
"""Characters in a row that count as somebody's words."""
_SHORTEST = 3
"""A whole message that is shorter says nothing."""


def without_words(text: str, words: Iterable[str]) -> str:
    """The text with everything masked that one of `words` has as well, in runs of at least eight characters.

    A word or message that is shorter than that is masked where it appears as a whole. Upper and lower case, and the
    escapes of JSON, make no difference.
    """
    lowered, hidden = _lowered(text), bytearray(len(text))
    places: dict[str, list[int]] = {}
    for at in range(len(lowered) - _RUN + 1):
        places.setdefault(lowered[at : at + _RUN], []).append(at)
    for source in {form for one in words for form in _forms(one)}:
        if len(source) >= _RUN:
            runs = (source[at : at + _RUN] for at in range(len(source) - _RUN + 1))
            for at in (at for run in runs for at in places.pop(run, ())):
                hidden[at : at + _RUN] = b"\x01" * _RUN
        elif len(source) >= _SHORTEST:
            for match in re.finditer(re.escape(source), lowered):
                hidden[match.start() : match.end()] = b"\x01" * len(source)
    kept: list[str] = []
    for character, masked in zip(text, hidden, strict=True):
        if not masked:
            kept.append(character)
        elif not kept or kept[-1] != MASK:
            kept.append(MASK)
    return "".join(kept)


def _forms(text: str) -> set[str]:
    """A text as it may be echoed: as it is, on one line, and escaped as JSON."""
    forms = (text.strip(), " ".join(text.split()), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return {_lowered(form) for form in forms}


def _lowered(text: str) -> str:
    """In small letters, without a change of length."""
    return "".join(small if len(small := character.lower()) == 1 else character for character in text)
