"""`AgentState`: the state of a run after some of its events; `runs/fold.py` computes it.

It reads no clock; figures that depend on the current time (rates, ages) take `now` as an argument.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from runs import events
from runs.events import Phase
from runs.generation_rate import GenerationRate
from runs.rate_curve import RateCurve

RATE_WINDOW_S = 1.5
"""Time constant of the current rate: a token counts e times less after so many seconds."""

OTHER_USAGE = ("cached_tokens", "reasoning_tokens", "cost_usd")
"""Optional figures of a call's usage: tokens read from a cache, tokens of thinking, US dollars."""

_OUTPUT = 4000
"""Characters of a tool's output in the state: half from its beginning, half from its end."""
_GAP = "\n[… cut here …]\n"
MAX_THOUGHT = 20_000
"""Characters of a thought in the state."""

STOP_TEXTS: dict[events.StopReason, str] = {
    "user": "Stopped by you",
    "abandoned": "Stopped: nobody was following",
    "shutdown": "Stopped: the server shut down",
    "limit": "Stopped: the run reached its limit",
}
"""A sentence for each reason of a stop."""

StepKind = Literal["chain", "model", "tool"]


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of the timeline; times are epoch seconds, `end` is None while it is open."""

    id: str
    parent_id: str | None
    kind: StepKind
    name: str
    start: float
    end: float | None = None
    error: str | None = None
    input: Any = None
    """A tool's arguments, or a chain's new messages; None for a model call."""
    output: Any = ""
    """A tool's output so far, shortened; a chain's new messages; a model's usage."""
    offset: int = 0
    """Characters of the reply's text when it began."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Where the time of an ended model call went: see `events.ModelEnd`."""
    attachments: tuple[events.JSON, ...] = ()
    """What a tool's result has for people besides its output: see `events.ToolEnd`."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A span of visible thinking, shortened; times and offset as in `Step`."""

    text: str
    start: float
    end: float | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A phase from `start` (epoch seconds) to the start of the next span."""

    phase: Phase
    start: float


@dataclass(frozen=True, slots=True)
class AgentState:
    """The state of one run after some of its events."""

    run_id: str = ""
    conversation_id: str = ""
    backend: str = ""
    """The backend that answers: the requested one, or its fallback."""
    memory: str = ""
    model: str | None = None
    """Its model, where it offers a choice."""
    phase: Phase = "queued"
    status_text: str = ""
    """The latest sentence for people about the phase."""
    started: float = 0.0
    ended: float | None = None
    first_token: float | None = None
    """When the first visible chunk of the reply or the thinking came."""
    first_output: float | None = None
    last_output: float | None = None
    """When the first and the latest output came, arguments of tool calls included."""
    ended_tokens: int = 0
    """Output tokens of the ended model calls: the provider's count, or estimates if `output_estimated`."""
    open_tokens: int = 0
    """Estimated output tokens of the open call so far."""
    output_estimated: bool = False
    """Whether the output tokens of an ended call are estimated."""
    generation: GenerationRate = field(default_factory=GenerationRate)
    curve: RateCurve = field(default_factory=RateCurve)
    input_tokens: int | None = None
    """Input tokens of the ended model calls, None before the first; partly estimates if `input_estimated`."""
    input_estimated: bool = False
    other_usage: Mapping[str, float] = field(default_factory=dict)
    """The sums of `OTHER_USAGE` over the ended model calls that reported them; after the end also the total costs."""
    cancelled_input: int = 0
    """Estimated input tokens of calls that were cancelled before any output: they count if the run is stopped."""
    level: float = 0.0
    """The decaying token count behind the current rate."""
    text_length: int = 0
    """Characters of the reply's text so far."""
    call_offset: int = 0
    """Characters of it before the latest call of the model."""
    tools: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    phase_spans: tuple[PhaseSpan, ...] = ()
    context: events.Context | None = None
    cached_input: int | None = None
    """Tokens of that context that the provider had in its cache, as it says after the call; None before, and if it does
    not say.
    """
    approvals: tuple[events.Approval, ...] = ()
    """The calls that wait for approval."""

    @property
    def tokens(self) -> int:
        """Output tokens so far: the provider's counts where they are known, else estimates."""
        return self.ended_tokens + self.open_tokens

    @property
    def estimated(self) -> bool:
        """True if `tokens` is partly an estimate."""
        return self.open_tokens > 0 or self.output_estimated

    @property
    def phase_started(self) -> float:
        """When the current phase began, in epoch seconds."""
        return self.phase_spans[-1].start if self.phase_spans else self.started

    @property
    def ttft_s(self) -> float | None:
        """Seconds from the run's start to the first visible chunk."""
        return None if self.first_token is None else round(self.first_token - self.started, 3)

    @property
    def current_step(self) -> str | None:
        """The run's current activity, for people."""
        if self.ended is not None:
            return None
        open_tools = [s.name for s in self.steps if s.kind == "tool" and s.end is None]
        return f"Calling {', '.join(open_tools)}" if open_tools and self.phase == "tool" else self.status_text or None

    @property
    def open_steps(self) -> tuple[Step, ...]:
        """The steps that have started and not ended, innermost last."""
        return tuple(s for s in self.steps if s.end is None)

    def rate(self, now: float) -> float:
        """The current rate at epoch second `now`: tokens per second over about the last two seconds."""
        if self.first_output is None or self.last_output is None:
            return 0.0
        age = now - self.first_output
        seen = 1 - math.exp(-max(age, 0.05) / RATE_WINDOW_S)
        return self.level * math.exp(-max(0.0, now - self.last_output) / RATE_WINDOW_S) / (RATE_WINDOW_S * seen)

    def average(self) -> float | None:
        """The average rate: output tokens per second of writing."""
        return self.generation.rate()

    def usage(self) -> events.JSON:
        """{input_tokens, output_tokens} over all model calls, with `estimated` where a provider did not count.

        `OTHER_USAGE` is added where it is known.

        The input of an open call is the size of its context.
        """
        calling = any(step.kind == "model" and step.end is None for step in self.steps)
        input_tokens = (self.input_tokens or 0) + (self.context.tokens if calling and self.context else 0)
        marked = {"estimated": True} if calling or self.estimated or self.input_estimated else {}
        return {"input_tokens": input_tokens, "output_tokens": self.tokens, **self.other_usage, **marked}

    def timing(self, now: float) -> events.JSON:
        """{ttft_s, duration_s, tokens_per_s} at epoch second `now`."""
        average = self.average()
        return {
            "ttft_s": self.ttft_s,
            "duration_s": round(max(0.0, now - self.started), 3),
            "tokens_per_s": None if average is None else round(average, 2),
        }


def digest(state: AgentState, now: float) -> events.State:
    """The `state` event at epoch second `now`; at most 2 KB of JSON."""
    step = state.current_step
    return events.State(
        status=state.phase,
        current_step=step[:200] if step else step,
        tokens_received=state.tokens,
        estimated=state.estimated,
        tools_called=[tool[:60] for tool in state.tools[-10:]],
        tokens_per_second=round(state.average() or 0.0, 2),
        ttft_s=state.ttft_s,
    )


def shorten_output(output: str) -> str:
    """A tool's output as in the state: a long one without its middle.

    Shortening each time that the output grows gives the same as shortening it once.
    """
    half = _OUTPUT // 2
    return output if len(output) <= _OUTPUT else f"{output[:half]}{_GAP}{output[-half:]}"
