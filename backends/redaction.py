"""Takes visitors' words out of texts that are logged: providers echo what they were sent."""

import json
import re
from collections.abc import Iterable, Set

MASK = "[…]"
_RUN = 8
"""Characters in a row that count as somebody's words."""
_SHORTEST = 3
"""A whole message that is shorter says nothing."""
_FEW_RUNS = 300
"""Up to this many runs, a search for each of them in a source takes less time than a pass over the source."""


def without_words(text: str, words: Iterable[str], run: int = _RUN, most: int | None = None) -> str:
    """The text with everything masked that one of `words` has as well, in runs of at least `run` characters.

    A word or message that is shorter than that is masked where it appears as a whole. Upper and lower case, and the
    escapes of JSON, make no difference. Only the first `most` characters of the text are masked and returned.
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
    """Those of the runs, all of one length, that the source has as well."""
    if len(runs) <= _FEW_RUNS:
        return {run for run in runs if run in source}
    return {run for at in range(len(source) - length + 1) if (run := source[at : at + length]) in runs}


def _forms(text: str) -> set[str]:
    """A text as it may be echoed: as it is, on one line, and escaped as JSON."""
    forms = (text.strip(), " ".join(text.split()), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return {_lowered(form) for form in forms}


def _lowered(text: str) -> str:
    """In small letters, without a change of length, each letter by itself.

    Unicode has one letter whose small form is longer, and one (sigma) whose small form depends on its place in a word.
    """
    return text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")
