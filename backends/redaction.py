"""The masking of visitors' words in logged texts, since providers echo requests."""

import json
import re
from collections.abc import Iterable, Set

MASK = "[…]"
_RUN = 8
"""The shortest run of characters that counts as a visitor's words."""
_SHORTEST = 3
"""Shorter messages are not masked."""
_FEW_RUNS = 300
"""Up to this number of runs, searching for each of them is faster than a pass over the source."""


def mask_words(text: str, words: Iterable[str], run: int = _RUN, most: int | None = None) -> str:
    """Masks all runs of at least `run` characters that the text shares with one of `words`.

    A shorter word is masked where it appears as a whole. Case and JSON escapes are ignored. Only the first `most`
    characters of the text are masked and returned.
    """
    text, most = (text, len(text)) if most is None else (text[: most + run - 1], most)  # a run may end behind `most`
    lowered, hidden = _lowered(text), bytearray(len(text))
    places: dict[str, list[int]] = {}
    for at in range(len(lowered) - run + 1):
        places.setdefault(lowered[at : at + run], []).append(at)
    for source in {form for one in words for form in _forms(one)}:
        if len(source) >= run:
            for at in (at for shared in _shared(places.keys(), source, run) for at in places.pop(shared)):
                hidden[at : at + run] = b"\x01" * run
        elif len(source) >= _SHORTEST:
            for match in re.finditer(re.escape(source), lowered):
                hidden[match.start() : match.end()] = b"\x01" * len(source)
    kept: list[str] = []
    for character, masked in zip(text[:most], hidden[:most], strict=True):
        if not masked:
            kept.append(character)
        elif not kept or kept[-1] != MASK:
            kept.append(MASK)
    return "".join(kept)


def _shared(runs: Set[str], source: str, length: int) -> set[str]:
    """The runs, all of one length, that the source contains."""
    if len(runs) <= _FEW_RUNS:
        return {run for run in runs if run in source}
    return {run for at in range(len(source) - length + 1) if (run := source[at : at + length]) in runs}


def _forms(text: str) -> set[str]:
    """The forms in which a text may be echoed: as it is, on one line, and escaped as JSON."""
    forms = (text.strip(), " ".join(text.split()), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return {_lowered(form) for form in forms}


def _lowered(text: str) -> str:
    """The text in lower case, letter by letter, with the same length.

    One letter of Unicode has a longer lower case, and one (sigma) a lower case that depends on its position.
    """
    return text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")
