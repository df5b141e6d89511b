"""`AgentState`: what is known of a run, as a pure fold over its events.

The panel, the `state` events and a replay are all this fold: `state = apply(state, entry)`. It reads no clock; what
depends on the time of looking (rates, ages) takes `now` as an argument.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from runs import events
from runs.contexts import complete_context
from runs.events import Entry, Phase
from runs.generation_rate import GenerationRate
from runs.tokens import estimate_chunk_tokens

_WINDOW_S = 1.5
"""Time constant of the rate called "now": a token counts e times less after this long."""

_OUTPUT = 4000
"""Characters of a tool's output that the state holds: half from its beginning, half from its end."""
_GAP = "\n[… cut here …]\n"
MAX_THOUGHT = 20_000
"""Characters of a thought that the state holds."""

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
    """What a tool was called with, or what was new to a chain; None for a call of the model."""
    output: Any = ""
    """A tool's output so far or as it ended, a long one without its middle. What a chain added; what a model used."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A stretch of visible thinking, the beginning of a long one; times as in `Step`."""

    text: str
    start: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """How long the run stayed in one phase, from `start` (epoch seconds) to the next stretch's."""

    phase: Phase
    start: float


@dataclass(frozen=True, slots=True)
class AgentState:
    run_id: str = ""
    conversation_id: str = ""
    backend: str = ""
    """The backend that answers: the one that was asked for, or its fallback."""
    memory: str = ""
    model: str | None = None
    """Its model, where it offers a choice."""
    phase: Phase = "queued"
    status_text: str = ""
    """The latest sentence for people about the phase."""
    started: float = 0.0
    ended: float | None = None
    first_token: float | None = None
    """When the first visible piece of the reply or of the thinking came."""
    first_output: float | None = None
    last_output: float | None = None
    """The same of all that the model writes, arguments of tool calls included."""
    counted: int = 0
    """Output tokens of the run's ended model calls: the provider's own count, or an estimate where marked."""
    open_tokens: int = 0
    """Estimated tokens of the open call's reply, visible thinking and arguments of tool calls so far."""
    output_estimated: bool = False
    """Whether an ended call's output tokens are estimated."""
    generation: GenerationRate = field(default_factory=GenerationRate)
    input_tokens: int | None = None
    """Of the run's ended model calls, None before the first; estimated in part where `input_estimated`."""
    input_estimated: bool = False
    unread: int = 0
    """Estimated input tokens of calls that ended before any output: they count if the run was stopped."""
    level: float = 0.0
    """The leaky count behind the rate called "now"."""
    tools: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    phase_spans: tuple[PhaseSpan, ...] = ()
    context: events.Context | None = None
    approvals: tuple[events.Approval, ...] = ()
    """The calls that wait for a person."""

    @property
    def tokens(self) -> int:
        """Tokens received: the provider's count where there is one, else an estimate."""
        return self.counted + self.open_tokens

    @property
    def estimated(self) -> bool:
        """Whether `tokens` is an estimate in part."""
        return self.open_tokens > 0 or self.output_estimated

    @property
    def phase_started(self) -> float:
        """When the current phase began, epoch seconds."""
        return self.phase_spans[-1].start if self.phase_spans else self.started

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token is None else round(self.first_token - self.started, 3)

    @property
    def current_step(self) -> str | None:
        """What the run does at the moment, in words."""
        if self.ended is not None:
            return None
        open_tools = [s.name for s in self.steps if s.kind == "tool" and s.end is None]
        return f"Calling {', '.join(open_tools)}" if open_tools and self.phase == "tool" else self.status_text or None

    @property
    def open_steps(self) -> tuple[Step, ...]:
        """Started and not ended, innermost last."""
        return tuple(s for s in self.steps if s.end is None)

    def rate(self, now: float) -> float:
        """Tokens per second over about the last two seconds, at epoch second `now`."""
        if self.first_output is None or self.last_output is None:
            return 0.0
        age = now - self.first_output
        seen = 1 - math.exp(-max(age, 0.05) / _WINDOW_S)
        return self.level * math.exp(-max(0.0, now - self.last_output) / _WINDOW_S) / (_WINDOW_S * seen)

    def average(self) -> float | None:
        """Output tokens of the model's calls a second, over the time in which the model was writing them."""
        return self.generation.rate()

    def usage(self) -> events.JSON:
        """{input_tokens, output_tokens} over all model calls, with `estimated` where a provider did not count.

        An open call's input is what the context of the call counts.
        """
        asked = any(step.kind == "model" and step.end is None for step in self.steps)
        given = (self.input_tokens or 0) + (self.context.tokens if asked and self.context else 0)
        marked = {"estimated": True} if asked or self.estimated or self.input_estimated else {}
        return {"input_tokens": given, "output_tokens": self.tokens, **marked}

    def timing(self, now: float) -> events.JSON:
        average = self.average()
        return {
            "ttft_s": self.ttft_s,
            "duration_s": round(max(0.0, now - self.started), 3),
            "tokens_per_s": None if average is None else round(average, 2),
        }


def digest(state: AgentState, now: float) -> events.State:
    """The `state` event of a moment; at most 2 KB on the wire."""
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


def _enter(state: AgentState, phase: Phase, at: float, status_text: str) -> AgentState:
    if phase == state.phase and state.phase_spans:
        return replace(state, status_text=status_text)
    return replace(state, phase=phase, status_text=status_text, phase_spans=(*state.phase_spans, PhaseSpan(phase, at)))


_Piece = events.Token | events.Reasoning | events.ToolInput


def _piece(state: AgentState, piece: _Piece, at: float) -> AgentState:
    """The state after something that the model wrote."""
    visible = not isinstance(piece, events.ToolInput)
    writes = not state.steps or any(step.kind == "model" and step.end is None for step in state.steps)
    text = piece.delta if isinstance(piece, events.ToolInput) else piece.content
    size = estimate_chunk_tokens(text) if writes else 0  # a tool's result may be the reply
    gap = max(0.0, at - (at if state.last_output is None else state.last_output))
    return replace(
        state,
        first_token=at if visible and state.first_token is None else state.first_token,
        first_output=at if state.first_output is None else state.first_output,
        last_output=at,
        open_tokens=state.open_tokens + size,
        # the first piece starts the clock: nobody knows how long it took to write
        level=0.0 if state.first_output is None else state.level * math.exp(-gap / _WINDOW_S) + size,
        generation=state.generation.grew(at, size) if size else state.generation,
    )


def _think(state: AgentState, piece: _Piece, at: float) -> AgentState:
    if not isinstance(piece, events.Reasoning):
        return _thought(state, at)
    *before, last = state.thoughts or (Thought("", at, at),)
    if last.end is not None:
        return replace(state, thoughts=(*state.thoughts, Thought(piece.content[:MAX_THOUGHT], at)))
    return replace(state, thoughts=(*before, replace(last, text=(last.text + piece.content)[:MAX_THOUGHT])))


def _retract(state: AgentState, whole: str, at: float) -> AgentState:
    """The state after the text of the latest model call has turned out to be thinking."""
    begun = next((step.start for step in reversed(state.steps) if step.kind == "model"), at)
    return replace(state, thoughts=(*state.thoughts, Thought(whole[:MAX_THOUGHT], begun)))


def _thought(state: AgentState, at: float) -> AgentState:
    """The state after what ends a thought, if there is one."""
    if not state.thoughts or state.thoughts[-1].end is not None:
        return state
    *before, last = state.thoughts
    return replace(state, thoughts=(*before, replace(last, end=at)))


def _begin(state: AgentState, start: events.Start, at: float) -> AgentState:
    match start:
        case events.ModelStart():
            step = Step(start.id, start.parent_id, "model", start.name, at)
            state = replace(state, generation=state.generation.began())
        case events.ChainStart():
            step = Step(start.id, start.parent_id, "chain", start.name, at, input=start.input)
        case events.ToolStart():
            step = Step(start.tool_call_id, start.parent_id, "tool", start.tool, at, input=start.input)
            state = replace(_thought(state, at), tools=(*state.tools, start.tool))
    return replace(state, steps=(*state.steps, step))


def _end(state: AgentState, step_id: str, at: float, error: str | None, output: Any = "") -> AgentState:
    """The step ended; its whole output counts only where none of it has come before."""
    if isinstance(output, str):
        output = shorten_output(output)

    def ended(step: Step) -> Step:
        return replace(step, end=at, error=error, output=step.output or output)

    steps = tuple(ended(s) if s.id == step_id and s.end is None else s for s in state.steps)
    return replace(state, steps=steps)


def shorten_output(output: str) -> str:
    """A tool's output as a state holds it: a long one without its middle.

    Held again and again as it grows, it is the same as if held once."""
    half = _OUTPUT // 2
    return output if len(output) <= _OUTPUT else f"{output[:half]}{_GAP}{output[-half:]}"


def _output(state: AgentState, step_id: str, text: str) -> AgentState:
    """The open step with more of its output."""
    steps = tuple(
        replace(s, output=shorten_output(s.output + text)) if s.id == step_id and s.end is None else s
        for s in state.steps
    )
    return replace(state, steps=steps)


def _answered(state: AgentState, call_id: str | None, edited: Any = None) -> AgentState:
    """The state after an answer, which may have put another input in the place of the first."""
    if not any(e.tool_call_id == call_id for e in state.approvals):
        return state
    if edited is not None:
        steps = tuple(replace(s, input=edited) if s.id == call_id and s.end is None else s for s in state.steps)
        state = replace(state, steps=steps)
    return replace(state, approvals=tuple(e for e in state.approvals if e.tool_call_id != call_id))


def _named(state: AgentState, told: events.Status) -> AgentState:
    """The state with the backend and the model that answer from here on, if the status names them."""
    return state if told.backend is None else replace(state, backend=told.backend, model=told.model)


def _used(state: AgentState, end: events.ModelEnd) -> AgentState:
    """The state after a call's end: with its usage, or with an estimate of that."""
    usage, generated_s = end.usage, (end.timings or {}).get("generated_s")
    if usage is None:
        given = state.context.tokens if state.context else 0
        if end.error is not None and not state.open_tokens:
            return replace(state, unread=state.unread + given) if end.error == "cancelled" else state
        usage = {"input_tokens": given, "output_tokens": state.open_tokens, "estimated": True}
    marked = bool(usage.get("estimated"))
    return replace(
        state,
        counted=state.counted + int(usage.get("output_tokens") or 0),
        open_tokens=0,
        output_estimated=state.output_estimated or marked,
        generation=state.generation.ended(usage.get("output_tokens"), generated_s),
        input_tokens=(state.input_tokens or 0) + int(usage.get("input_tokens") or 0),
        input_estimated=state.input_estimated or marked,
    )


def _stopped(state: AgentState) -> AgentState:
    """The state after a stop: the calls that it ended were given their context, whatever came of them."""
    if not state.unread:
        return state
    return replace(state, input_tokens=(state.input_tokens or 0) + state.unread, input_estimated=True, unread=0)


def apply(state: AgentState, entry: Entry) -> AgentState:
    """The state after one more event."""
    at = entry.at
    match entry.event:
        case events.Reasoning(content, retracts=True):  # its pieces have been counted
            return _retract(state, content, at)
        case events.Token() | events.Reasoning() | events.ToolInput() as e:
            return _piece(_think(state, e, at), e, at)
        case events.State():
            return state
        case events.ToolOutput() as e:
            return _output(state, e.tool_call_id, e.chunk)
        case events.Run() as e:
            first = AgentState(
                entry.run_id, e.conversation_id, backend=e.backend, memory=e.memory, model=e.model, started=at
            )
            return _enter(first, "queued", at, "")
        case events.Status() as e:
            named = _named(_answered(state, e.tool_call_id, e.edited), e)
            return _enter(named, e.phase, at, e.content)
        case events.Context() as e:
            return replace(state, context=complete_context(e, state.context))
        case events.ModelStart() | events.ChainStart() | events.ToolStart() as e:
            return _begin(state, e, at)
        case events.ModelEnd() as e:
            return _used(_end(_thought(state, at), e.id, at, e.error, e.usage), e)
        case events.ChainEnd() as e:
            return _end(state, e.id, at, e.error, e.output)
        case events.ToolEnd() as e:
            return _end(_answered(state, e.tool_call_id), e.tool_call_id, at, e.error, e.output)
        case events.Approval() as e:
            return replace(state, approvals=(*state.approvals, e))
        case events.Complete():
            return replace(_enter(state, "complete", at, "The reply is complete"), ended=at)
        case events.Stopped() as e:
            return replace(_enter(_stopped(state), "stopped", at, STOP_TEXTS[e.reason]), ended=at)
        case events.Error() as e:
            return replace(_enter(state, "error", at, e.message), ended=at)


STOP_TEXTS: dict[events.StopReason, str] = {
    "user": "Stopped by you",
    "abandoned": "Stopped: nobody was following",
    "shutdown": "Stopped: the server shut down",
    "limit": "Stopped: the run reached its limit",
}
"""A sentence for each reason of a stop."""
