"""The curve of a run's rate: output tokens by equal spans of time since its start."""

from dataclasses import dataclass, replace

_FIRST_S = 0.25
"""Seconds of a span at first."""
MOST_SPANS = 60
"""Spans of a curve. A longer run has longer spans, not more of them."""


@dataclass(frozen=True, slots=True)
class RateCurve:
    """The estimated tokens of each span up to the latest output. A span lasts `span_s` seconds."""

    span_s: float = _FIRST_S
    tokens: tuple[int, ...] = ()

    def add(self, at_s: float, tokens: int) -> "RateCurve":
        """The curve after more output, `at_s` seconds after the run's start."""
        if not tokens:
            return self
        curve, at_s = self, max(0.0, at_s)
        while at_s >= curve.span_s * MOST_SPANS:
            curve = curve.halved()
        place = int(at_s / curve.span_s)
        counts = [*curve.tokens, *(0 for _ in range(place + 1 - len(curve.tokens)))]
        counts[place] += tokens
        return replace(curve, tokens=tuple(counts))

    def halved(self) -> "RateCurve":
        """The curve with spans of twice the length."""
        pairs = zip(self.tokens[::2], (*self.tokens[1::2], 0), strict=False)
        return RateCurve(2 * self.span_s, tuple(map(sum, pairs)))

    def rates(self) -> list[float]:
        """Tokens per second of each span."""
        return [round(tokens / self.span_s, 1) for tokens in self.tokens]
