"""The fold that computes a run's state from its events: `state = apply(state, entry)`.

The panel, the `state` events and a replay all use it. It is pure.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runs import events
from runs.contexts import complete_context
from runs.costs import TOTAL_COSTS
from runs.events import Entry, Phase
from runs.state import (
    MAX_THOUGHT,
    OTHER_USAGE,
    RATE_WINDOW_S,
    STOP_TEXTS,
    AgentState,
    PhaseSpan,
    Step,
    Thought,
    shorten_output,
)
from runs.tokens import estimate_chunk_tokens


def _enter(state: AgentState, phase: Phase, at: float, status_text: str) -> AgentState:
    if phase == state.phase and state.phase_spans:
        return replace(state, status_text=status_text)
    return replace(state, phase=phase, status_text=status_text, phase_spans=(*state.phase_spans, PhaseSpan(phase, at)))


_Output = events.Token | events.Reasoning | events.ToolInput


def _add_output(state: AgentState, output: _Output, at: float) -> AgentState:
    """The state after a chunk of the model's output."""
    visible = not isinstance(output, events.ToolInput)
    writes = not state.steps or any(step.kind == "model" and step.end is None for step in state.steps)
    text = output.delta if isinstance(output, events.ToolInput) else output.content
    length = state.text_length + (len(text) if isinstance(output, events.Token) else 0)
    writes = writes and not (isinstance(output, events.Token) and output.begins)
    size = estimate_chunk_tokens(text) if writes else 0  # a tool's result may be the reply
    gap = max(0.0, at - (at if state.last_output is None else state.last_output))
    return replace(
        state,
        first_token=at if visible and state.first_token is None else state.first_token,
        first_output=at if state.first_output is None else state.first_output,
        last_output=at,
        text_length=length,
        open_tokens=state.open_tokens + size,
        # the first chunk starts the clock: its own duration is unknown
        level=0.0 if state.first_output is None else state.level * math.exp(-gap / RATE_WINDOW_S) + size,
        generation=state.generation.add(at, size) if size else state.generation,
        curve=state.curve.add(at - state.started, size),
    )


def _add_thought(state: AgentState, output: _Output, at: float) -> AgentState:
    if not isinstance(output, events.Reasoning):
        return _end_thought(state, at)
    *before, last = state.thoughts or (Thought("", at, at),)
    if last.end is not None:
        thought = Thought(output.content[:MAX_THOUGHT], at, offset=state.text_length)
        return replace(state, thoughts=(*state.thoughts, thought))
    return replace(state, thoughts=(*before, replace(last, text=(last.text + output.content)[:MAX_THOUGHT])))


def _retract(state: AgentState, thought: str, at: float) -> AgentState:
    """The state after the text of the latest model call turned out to be a thought: the text ends before that call."""
    start = next((step.start for step in reversed(state.steps) if step.kind == "model"), at)
    length = state.call_offset
    thoughts = [one if one.offset <= length else replace(one, offset=length) for one in state.thoughts]
    found = Thought(thought[:MAX_THOUGHT], start, offset=length)
    return replace(state, thoughts=(*thoughts, found), text_length=length)


def _end_thought(state: AgentState, at: float) -> AgentState:
    """The state with its open thought ended, if there is one."""
    if not state.thoughts or state.thoughts[-1].end is not None:
        return state
    *before, last = state.thoughts
    return replace(state, thoughts=(*before, replace(last, end=at)))


def _begin(state: AgentState, start: events.Start, at: float) -> AgentState:
    match start:
        case events.ModelStart():
            step = Step(start.id, start.parent_id, "model", start.name, at)
            state = replace(state, generation=state.generation.start_call(), call_offset=state.text_length)
        case events.ChainStart():
            step = Step(start.id, start.parent_id, "chain", start.name, at, input=start.input)
        case events.ToolStart():
            offset = state.text_length
            step = Step(start.tool_call_id, start.parent_id, "tool", start.tool, at, input=start.input, offset=offset)
            state = replace(_end_thought(state, at), tools=(*state.tools, start.tool))
    return replace(state, steps=(*state.steps, step))


def _end(
    state: AgentState,
    step_id: str,
    at: float,
    error: str | None,
    output: Any = "",
    timings: Mapping[str, float] | None = None,
    attachments: Sequence[events.JSON] | None = None,
) -> AgentState:
    """The state after a step's end; its complete output counts only if no part of it came before."""
    if isinstance(output, str):
        output = shorten_output(output)

    def ended(step: Step) -> Step:
        kept, found = tuple(attachments or ()), timings or {}
        return replace(step, end=at, error=error, output=step.output or output, timings=found, attachments=kept)

    steps = tuple(ended(s) if s.id == step_id and s.end is None else s for s in state.steps)
    return replace(state, steps=steps)


def _add_tool_output(state: AgentState, step_id: str, text: str) -> AgentState:
    """The state with more output of an open step."""
    steps = tuple(
        replace(s, output=shorten_output(s.output + text)) if s.id == step_id and s.end is None else s
        for s in state.steps
    )
    return replace(state, steps=steps)


def _end_approval(state: AgentState, call_id: str | None, edited: Any = None) -> AgentState:
    """The state after an approval was answered, which may have edited the input."""
    if not any(e.tool_call_id == call_id for e in state.approvals):
        return state
    if edited is not None:
        steps = tuple(replace(s, input=edited) if s.id == call_id and s.end is None else s for s in state.steps)
        state = replace(state, steps=steps)
    return replace(state, approvals=tuple(e for e in state.approvals if e.tool_call_id != call_id))


def _set_backend(state: AgentState, status: events.Status) -> AgentState:
    """The state with the backend and the model that a status names, if it does."""
    return state if status.backend is None else replace(state, backend=status.backend, model=status.model)


def _add_usage(state: AgentState, end: events.ModelEnd) -> AgentState:
    """The state after a call's end, with its usage or an estimate of it."""
    usage, timings = end.usage, end.timings or {}
    cached = (usage or {}).get("cached_tokens", timings.get("cached_tokens"))
    if usage is None:
        context = state.context.tokens if state.context else 0
        if end.error is not None and not state.open_tokens:
            return (
                replace(state, cancelled_input=state.cancelled_input + context) if end.error == "cancelled" else state
            )
        usage = {"input_tokens": context, "output_tokens": state.open_tokens, "estimated": True}
    marked = bool(usage.get("estimated"))
    return replace(
        state,
        ended_tokens=state.ended_tokens + int(usage.get("output_tokens") or 0),
        open_tokens=0,
        output_estimated=state.output_estimated or marked,
        generation=state.generation.end_call(usage.get("output_tokens"), timings.get("generated_s")),
        input_tokens=(state.input_tokens or 0) + int(usage.get("input_tokens") or 0),
        input_estimated=state.input_estimated or marked,
        other_usage=_added(state.other_usage, usage),
        cached_input=int(cached) if isinstance(cached, int | float) else None,
    )


def _added(sums: Mapping[str, float], usage: events.JSON) -> Mapping[str, float]:
    found = {name: usage[name] for name in OTHER_USAGE if isinstance(usage.get(name), int | float)}
    return {**sums, **{name: round(sums.get(name, 0) + value, 8) for name, value in found.items()}} if found else sums


def _with_totals(state: AgentState, usage: events.JSON) -> AgentState:
    """The state with the total costs of a run's last event."""
    totals = {name: usage[name] for name in TOTAL_COSTS if isinstance(usage.get(name), int | float)}
    return replace(state, other_usage={**state.other_usage, **totals}) if totals else state


def _count_cancelled(state: AgentState) -> AgentState:
    """The state after a stop: the input of cancelled calls counts."""
    if not state.cancelled_input:
        return state
    return replace(
        state, input_tokens=(state.input_tokens or 0) + state.cancelled_input, input_estimated=True, cancelled_input=0
    )


def apply(state: AgentState, entry: Entry) -> AgentState:
    """The state after one more event."""
    at = entry.at
    match entry.event:
        case events.Reasoning(content, retracts=True):  # its tokens are counted already
            return _retract(state, content, at)
        case events.Token() | events.Reasoning() | events.ToolInput() as e:
            return _add_output(_add_thought(state, e, at), e, at)
        case events.State():
            return state
        case events.ToolOutput() as e:
            return _add_tool_output(state, e.tool_call_id, e.chunk)
        case events.Run() as e:
            first = AgentState(
                entry.run_id, e.conversation_id, backend=e.backend, memory=e.memory, model=e.model, started=at
            )
            return _enter(first, "queued", at, "")
        case events.Status() as e:
            state = _set_backend(_end_approval(state, e.tool_call_id, e.edited), e)
            return _enter(state, e.phase, at, e.content)
        case events.Context() as e:
            return replace(state, context=complete_context(e, state.context), cached_input=None)
        case events.ModelStart() | events.ChainStart() | events.ToolStart() as e:
            return _begin(state, e, at)
        case events.ModelEnd() as e:
            return _add_usage(_end(_end_thought(state, at), e.id, at, e.error, e.usage, e.timings), e)
        case events.ChainEnd() as e:
            return _end(state, e.id, at, e.error, e.output)
        case events.ToolEnd() as e:
            ended = _end_approval(state, e.tool_call_id)
            return _end(ended, e.tool_call_id, at, e.error, e.output, attachments=e.attachments)
        case events.Approval() as e:
            return replace(state, approvals=(*state.approvals, e))
        case events.Complete() as e:
            state = _with_totals(state, e.usage)
            return replace(_enter(state, "complete", at, "The reply is complete"), ended=at)
        case events.Stopped() as e:
            state = _with_totals(_count_cancelled(state), e.usage)
            return replace(_enter(state, "stopped", at, STOP_TEXTS[e.reason]), ended=at)
        case events.Error() as e:
            return replace(_enter(state, "error", at, e.message), ended=at)
