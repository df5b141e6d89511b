"""The average rate of a run: output tokens of the model's calls over the time in which the model was writing them.

Writing is all that the model generates: the reply, thinking, and arguments of tool calls. Reading the prompt, queues,
tools and people are no part of it. The panel, `state`, `timing` and the metrics all show this rate.
"""

from dataclasses import dataclass, replace

BURST_S = 0.02
"""What comes within so many seconds came together."""


@dataclass(frozen=True, slots=True)
class GenerationRate:
    """What the model has written in its ended calls, and in the open one. Times are in seconds of one clock."""

    tokens: int = 0
    seconds: float = 0.0
    """Of the ended calls, without those whose time is not known: a reply that comes all at once has none."""
    open_tokens: int = 0
    """Estimated, of the open call."""
    first_tokens: int = 0
    """Those of its first piece."""
    begun: float | None = None
    latest: float | None = None
    """When the first and the latest piece of the open call came."""

    def began(self) -> "GenerationRate":
        """A model call began."""
        return GenerationRate(self.tokens, self.seconds)

    def grew(self, at: float, tokens: int) -> "GenerationRate":
        """Something that the model wrote has come."""
        if self.begun is None:
            return replace(self, open_tokens=tokens, first_tokens=tokens, begun=at, latest=at)
        return replace(self, open_tokens=self.open_tokens + tokens, latest=at)

    def ended(self, output_tokens: int | None, generated_s: float | None) -> "GenerationRate":
        """The call ended: with the provider's count and the time that is known of it, else with what came."""
        tokens = output_tokens or self.open_tokens
        seconds = generated_s or self._open_s
        if tokens and seconds:
            return GenerationRate(self.tokens + tokens, self.seconds + seconds)
        return self.began()

    def rate(self) -> float | None:
        """Tokens per second so far; None if it cannot be known yet."""
        tokens, seconds = self.tokens, self.seconds
        if open_s := self._open_s:
            tokens, seconds = tokens + self.open_tokens, seconds + open_s
        return tokens / seconds if seconds > 0 else None

    @property
    def _open_s(self) -> float | None:
        if self.begun is None or self.latest is None:
            return None
        return generation_s(self.latest - self.begun, self.first_tokens / self.open_tokens)


def generation_s(span_s: float, first: float) -> float | None:
    """How long writing took, in seconds, from the time between the first piece and the last.

    `first` is the share of the first piece: the time in which that was written came before it. None if there is no time
    to measure: pieces that came together, as the thinking and the text of one chunk, tell nothing of it.
    """
    return span_s / (1 - first) if span_s >= BURST_S and first < 1 else None
