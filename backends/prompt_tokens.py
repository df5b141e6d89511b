"""Which tokens of a whole prompt belong to which of its messages."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise


def tokens_of_texts(
    prompt: str, marked: str, marks: Sequence[str], texts: Sequence[str], pieces: Sequence[str | list[int]]
) -> list[int] | None:
    """The tokens of each text with what stands before it; what follows the last one is left over.

    `marked` is the prompt with the `marks` in place of the texts; `pieces` are the prompt's tokens as texts or bytes. A
    token belongs where it begins. None where the chat template does more with a text than to strip it.
    """
    sizes = [len(piece.encode() if isinstance(piece, str) else piece) for piece in pieces]
    ends = _ends(prompt, marked, marks, texts)
    if ends is None or sum(sizes) != len(prompt.encode()):
        return None
    starts = [0, *accumulate(sizes)][:-1]
    places = [0, *(bisect_left(starts, end) for end in ends)]
    return [end - start for start, end in pairwise(places)]


def _ends(prompt: str, marked: str, marks: Sequence[str], texts: Sequence[str]) -> list[int] | None:
    """Where each text ends in the prompt, in bytes."""
    between, rest = list[str](), marked
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        between.append(before)
    for shown in (texts, [text.strip() for text in texts]):
        parts = [part for both in zip(between, shown, strict=True) for part in both]
        if "".join([*parts, rest]) == prompt:
            return list(accumulate(len(part.encode()) for part in parts))[1::2]
    return None
