"""How long a model was writing in one call, by the times at which its pieces came and by what the provider counted.

The clock that a server brings itself is the best (llama.cpp's `timings`). Else it is the time from the first piece to
the last, and the first one's own share. Where the provider counts tokens that nobody has seen (hidden thinking), the
model has been writing since the first sign of it: an empty chunk, the first byte of the answer, or the call's start.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runs.events import JSON
from runs.generation_rate import BURST_S, generation_s

_HIDDEN = 2
"""So many times more reasoning tokens than the visible thinking has by an estimate (four bytes a token) are hidden."""
_SPARE = 8
"""Tokens of a chat template that are counted and not seen."""


@dataclass(frozen=True, slots=True)
class ChunkTimes:
    """What has come of one call, and when, in seconds of one clock."""

    signs: tuple[float, ...] = ()
    """The first signs of it: its start, the answer's first byte, its first chunk."""
    first: float | None = None
    latest: float | None = None
    """The first and the latest piece that holds something that the model wrote."""
    chunk: float | None = None
    """The latest chunk, an empty one included."""
    count: int = 0
    first_bytes: int = 0
    thought_bytes: int = 0
    bytes: int = 0

    def signed(self, at: float) -> "ChunkTimes":
        return replace(self, signs=(*self.signs, at))

    def came(self, at: float, *, thought: str = "", text: str = "") -> "ChunkTimes":
        """With one more chunk; `text` is all that it holds beside thinking."""
        signs = self.signs if self.chunk is not None else (*self.signs, at)
        thought_size = len(thought.encode(errors="replace"))
        size = thought_size + len(text.encode(errors="replace"))
        if not size:
            return replace(self, signs=signs, chunk=at)
        return replace(
            self,
            signs=signs,
            chunk=at,
            first=at if self.first is None else self.first,
            latest=at,
            count=self.count + 1,
            first_bytes=self.first_bytes if self.count else size,
            thought_bytes=self.thought_bytes + thought_size,
            bytes=self.bytes + size,
        )

    def seconds(self, output_tokens: int, reasoning_tokens: int) -> float | None:
        """How long the model was writing; None where that cannot be known. Tokens are 0 where nobody counts them."""
        latest = self.chunk if self.latest is None else self.latest
        if latest is None:
            return None
        if self._hidden(output_tokens, reasoning_tokens):
            first = latest if self.first is None else self.first
            begun = next((at for at in reversed(self.signs) if first - at > BURST_S), None)
            return None if begun is None else latest - begun
        if self.first is None:
            return None
        each = not output_tokens or self.count >= 0.9 * output_tokens  # a piece is a token
        return generation_s(latest - self.first, 1 / self.count if each else self.first_bytes / self.bytes)

    def _hidden(self, output_tokens: int, reasoning_tokens: int) -> bool:
        """Whether the provider counts tokens that have not been seen."""
        if reasoning_tokens > _SPARE + _HIDDEN * self.thought_bytes // 4:
            return True
        return output_tokens > _SPARE + self.bytes  # no text has more tokens than bytes


def timings(reported: Any, seconds: float | None, duration_s: float, usage: Mapping[str, Any] | None) -> JSON | None:
    """The `timings` of a `model_end`: what llama.cpp has measured, if it did, else what was seen here."""
    known: JSON = {}
    if isinstance(reported, Mapping):
        for name, theirs, factor in _REPORTED:
            value = reported.get(theirs)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
                known[name] = value if factor == 1 else round(value * factor, 3)
    if not 0 < known.get("generated_s", 0.0) <= duration_s + BURST_S:  # nobody writes longer than a call takes
        known.pop("generated_s", None)
    if "generated_s" not in known and seconds:
        known["generated_s"] = round(seconds, 3)
    if "generated_s" in known and "generated_tokens" not in known and usage and usage.get("output_tokens"):
        known["generated_tokens"] = usage["output_tokens"]
    return known or None


_REPORTED = (
    ("prompt_s", "prompt_ms", 0.001),
    ("prompt_tokens", "prompt_n", 1),
    ("cached_tokens", "cache_n", 1),
    ("generated_s", "predicted_ms", 0.001),
    ("generated_tokens", "predicted_n", 1),
)
"""Fields of ours, llama.cpp's, and what to multiply by."""
