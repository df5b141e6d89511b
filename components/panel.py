"""The panel of the agent state: phase, figures, timeline, model input and raw events.

This module renders its value, and `web/panel.js` draws it.
"""

import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from components.assets import read, script_component
from components.parts import SHOWN, part_value
from components.waterfall import is_fresh, render_bars
from runs import events
from runs.costs import TOTAL_COSTS
from runs.reply import ReplyPart, reply_parts
from runs.state import AgentState

_LISTED = 40
"""Messages that the panel lists of the model input, and of what was left out."""
_BEFORE_GAP = 2
"""Messages listed before the gap in a long model input: the system prompt and the first message."""
_TURNS, _JOINED = 24, 8
"""Blocks of the strip of turns: the latest turns have one each, older ones are joined by their states."""


def build_panel() -> gr.HTML:
    """Builds the panel. `render_panel` renders its value."""
    drawing = "panel.js", "waterfall.js", "marks.js", "record.js", "events.js"
    scripts = *drawing, "tokens.js", "token_marks.js", "model_input.js"
    style = read("context.css") + read("panel.css")
    return script_component("agent-state", *scripts, template=read("panel.html"), style=style)


def render_panel(state: AgentState, *, whole: bool, now: float | None = None) -> dict[str, Any]:
    """Renders the panel's value for a run. Times are seconds since the run's start; `now` is in epoch seconds.

    Only a `whole` value has the context and the details of all steps and parts, because they grow with the run. The
    page keeps what a value leaves out.
    """
    now = time.time() if now is None else now
    until = now if state.ended is None else state.ended
    average, whole = state.average(), whole or state.ended is not None
    value: dict[str, Any] = {
        "run": state.run_id,
        "conversation": state.conversation_id,
        "live": state.ended is None,
        "phase": state.phase,
        "said": state.status_text,
        "step": state.current_step,
        "since_s": round(until - state.phase_started, 2),
        "elapsed_s": round(until - state.started, 2),
        "ttft_s": state.ttft_s,
        "tokens": state.tokens,
        "input_tokens": state.input_tokens,
        "input_estimated": state.input_estimated,
        "cached_tokens": state.other_usage.get("cached_tokens"),
        **{name: state.other_usage.get(name) for name in ("cost_usd", *TOTAL_COSTS)},
        "estimated": state.estimated,
        "rate": round(state.rate(now), 1) if state.ended is None else None,
        "average": None if average is None else round(average, 1),
        "backend": state.backend,
        "model": state.model,
        "memory": state.memory,
        "curve": {"span_s": state.curve.span_s, "rates": state.curve.rates()},
        "stretches": [{"phase": s.phase, "start": round(s.start - state.started, 3)} for s in state.phase_spans],
        "steps": render_bars(state, whole=whole, now=now),
        "parts": [_part(part, whole=whole or is_fresh(part, now)) for part in reply_parts(state)],
        "approvals": [{"tool": a.tool, "tool_call_id": a.tool_call_id, "input": a.input} for a in _waiting(state)],
    }
    if whole and state.context:
        value["context"] = render_context(state.context) | {"cached": state.cached_input}
    return value


def _waiting(state: AgentState) -> Sequence[events.Approval]:
    return state.approvals if state.ended is None else ()


def _part(part: ReplyPart, *, whole: bool) -> dict[str, Any]:
    """Renders a part with the ends of its texts; without `blocks` unless `whole`. Equal offsets make one block."""
    value = part_value(part) | {"offset": part.offset}
    blocks = value.pop("blocks")
    return {**value, "blocks": [[label, _end(text), *image] for label, text, *image in blocks]} if whole else value


def _end(text: str) -> str:
    return text if len(text) <= SHOWN else f"…{text[-SHOWN:]}"


def render_context(context: events.Context) -> dict[str, Any]:
    """Renders the model input with long texts and lists cut. The context viewer shows all of it."""
    messages, left = context.messages, context.left_out
    skipped = messages[_BEFORE_GAP : _BEFORE_GAP - _LISTED] if len(messages) > _LISTED else []
    listed = [*messages[:_BEFORE_GAP], *messages[_BEFORE_GAP + len(skipped) :]]
    return {
        "tokens": context.tokens,
        "limit": context.limit,
        "estimated": context.estimated,
        "parts": context.parts,
        "note": context.note,
        "tools": [_shown_message(tool) for tool in context.tools or ()],
        "memory_limit": context.memory_limit,
        "turns": turn_blocks(context.turns or ()),
        "messages": [_shown_message(m) for m in listed],
        "gap": {"after": _BEFORE_GAP, "count": len(skipped), "tokens": _sum(skipped)} if skipped else None,
        "left_out": [_shown_message(m) for m in left[-_LISTED:]],
        "left_out_count": len(left),
        "left_out_tokens": _sum(left),
        "reasons": _reasons(left),
    }


def turn_blocks(turns: Sequence[events.JSON]) -> list[dict[str, Any]]:
    """Renders the earlier turns as blocks {first, last, states}, oldest first; `states` counts the turns by state.

    The number of blocks is bounded.
    """
    blocks: list[dict[str, Any]] = []
    last = sum(turn["count"] for turn in turns)
    single = max(1, last - _TURNS + 1)
    """The first turn with a block of its own."""
    for turn in reversed(turns):
        first, state = last - turn["count"] + 1, turn["state"]
        alone = range(last, max(first, single) - 1, -1)
        blocks += [{"first": n, "last": n, "states": {state: 1}} for n in alone]
        if first < single:
            end = min(last, single - 1)
            blocks.append({"first": first, "last": end, "states": {state: end - first + 1}})
        last = first - 1
    rest = blocks[_TURNS + _JOINED :]
    if len(rest) > 1:
        states: dict[str, int] = {}
        for block in rest:
            for state, count in block["states"].items():
                states[state] = states.get(state, 0) + count
        blocks[_TURNS + _JOINED :] = [{"first": rest[-1]["first"], "last": rest[0]["last"], "states": states}]
    return blocks[::-1]


def _reasons(left: Sequence[events.JSON]) -> list[dict[str, Any]]:
    """Counts what was left out by reason, in the order of first appearance."""
    groups: dict[str, list[events.JSON]] = {}
    for message in left:
        groups.setdefault(message["reason"], []).append(message)
    counts = [{"reason": reason, "count": len(group), "tokens": _sum(group)} for reason, group in groups.items()]
    return counts[:_LISTED]


def _sum(messages: Sequence[events.JSON]) -> int:
    return sum(int(m["tokens"]) for m in messages)


def _shown_message(message: events.JSON) -> dict[str, Any]:
    text = message["content"]
    return {**message, "content": text if len(text) <= SHOWN else f"{text[:SHOWN]} … ({len(text):,} characters)"}
