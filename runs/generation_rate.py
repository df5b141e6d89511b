"""The average rate of a run: output tokens of the model's calls, divided by the time in which the model wrote them.

The output is all that the model generates: the reply, thinking, and arguments of tool calls. Time spent on reading the
prompt, in queues, in tools and on approvals does not count. The panel, `state`, `timing` and the metrics all show this
rate.
"""

from dataclasses import dataclass, replace

BURST_S = 0.02
"""Chunks within so many seconds count as one."""


@dataclass(frozen=True, slots=True)
class GenerationRate:
    """The output of the ended calls and of the open one. Times are in seconds of one clock."""

    tokens: int = 0
    seconds: float = 0.0
    """Time of the ended calls, without those whose time is unknown: a reply that comes all at once has none."""
    open_tokens: int = 0
    """Estimated tokens of the open call."""
    first_tokens: int = 0
    """The tokens of its first chunk."""
    first_at: float | None = None
    """When its first chunk came, and its latest."""
    latest_at: float | None = None

    def start_call(self) -> "GenerationRate":
        """The rate after a model call began."""
        return GenerationRate(self.tokens, self.seconds)

    def add(self, at: float, tokens: int) -> "GenerationRate":
        """The rate after a chunk of output."""
        if self.first_at is None:
            return replace(self, open_tokens=tokens, first_tokens=tokens, first_at=at, latest_at=at)
        return replace(self, open_tokens=self.open_tokens + tokens, latest_at=at)

    def end_call(self, output_tokens: int | None, generated_s: float | None) -> "GenerationRate":
        """The rate after the call ended, by the provider's count and time where they are known."""
        tokens = output_tokens or self.open_tokens
        seconds = generated_s or self._open_s
        if tokens and seconds:
            return GenerationRate(self.tokens + tokens, self.seconds + seconds)
        return self.start_call()

    def rate(self) -> float | None:
        """Tokens per second so far; None while it is unknown."""
        tokens, seconds = self.tokens, self.seconds
        if open_s := self._open_s:
            tokens, seconds = tokens + self.open_tokens, seconds + open_s
        return tokens / seconds if seconds > 0 else None

    @property
    def _open_s(self) -> float | None:
        if self.first_at is None or self.latest_at is None:
            return None
        return generation_s(self.latest_at - self.first_at, self.first_tokens / self.open_tokens)


def generation_s(span_s: float, first: float) -> float | None:
    """The duration of writing, in seconds, by the time between the first chunk and the last.

    `first` is the share of the first chunk: it was written before the span began. None where there is no span to
    measure, as for the thinking and the text of one chunk.
    """
    return span_s / (1 - first) if span_s >= BURST_S and first < 1 else None
