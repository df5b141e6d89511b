"""The time in which a model was writing in one call, from the times of its chunks and the provider's token counts.

A server's own measurement is the best (llama.cpp's `timings`). Otherwise it is the time from the first chunk to the
last, plus the share of the first. If the provider counts tokens that were not sent (hidden thinking), the model has
been writing since the first sign: an empty chunk, the first byte of the response, or the start of the call.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runs.events import JSON
from runs.generation_rate import BURST_S, generation_s

_HIDDEN = 2
"""Factor from which on reasoning tokens count as hidden, over those of the visible thinking (four bytes each)."""
_SPARE = 8
"""Tokens of a chat template, which are counted and not sent."""


@dataclass(frozen=True, slots=True)
class ChunkTimes:
    """The chunks of one call and their times, in seconds of one clock."""

    signs: tuple[float, ...] = ()
    """The start of the call, the first byte of the response, and the first chunk."""
    first: float | None = None
    latest: float | None = None
    """The first and the latest chunk with output of the model."""
    chunk: float | None = None
    """The latest chunk, also if it is empty."""
    count: int = 0
    first_bytes: int = 0
    thought_bytes: int = 0
    bytes: int = 0

    def signed(self, at: float) -> "ChunkTimes":
        """Returns a copy with one more sign of the call."""
        return replace(self, signs=(*self.signs, at))

    def came(self, at: float, *, thought: str = "", text: str = "") -> "ChunkTimes":
        """Returns a copy with one more chunk; `text` is all its output except thinking."""
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
        """Returns how long the model was writing, None if unknown. Tokens that the provider does not count are 0."""
        latest = self.chunk if self.latest is None else self.latest
        if latest is None:
            return None
        if self._hidden(output_tokens, reasoning_tokens):
            first = latest if self.first is None else self.first
            begun = next((at for at in reversed(self.signs) if first - at > BURST_S), None)
            return None if begun is None else latest - begun
        if self.first is None:
            return None
        each = not output_tokens or self.count >= 0.9 * output_tokens  # a chunk is a token
        return generation_s(latest - self.first, 1 / self.count if each else self.first_bytes / self.bytes)

    def _hidden(self, output_tokens: int, reasoning_tokens: int) -> bool:
        """Whether the provider counts tokens that were not sent."""
        if reasoning_tokens > _SPARE + _HIDDEN * self.thought_bytes // 4:
            return True
        return output_tokens > _SPARE + self.bytes  # no text has more tokens than bytes


def timings(reported: Any, seconds: float | None, duration_s: float, usage: Mapping[str, Any] | None) -> JSON | None:
    """Returns the `timings` of a `model_end` event: llama.cpp's own, else those measured here."""
    known: JSON = {}
    if isinstance(reported, Mapping):
        for name, theirs, factor in _REPORTED:
            value = reported.get(theirs)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
                known[name] = value if factor == 1 else round(value * factor, 3)
    if not 0 < known.get("generated_s", 0.0) <= duration_s + BURST_S:  # writing cannot take longer than the call
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
"""Our fields, llama.cpp's, and the factors between them."""
