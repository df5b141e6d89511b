"""The panel of the agent state: phase, figures, timeline, model input and raw events.

This module renders its value, and `web/panel.js` draws it.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from components.assets import read, script_component
from components.parts import SHOWN, as_json, part_value
from runs import events
from runs.reply import ReplyPart, reply_parts
from runs.state import AgentState, Step

_LISTED = 40
"""Messages that the panel lists of the model input, and of what was left out."""
_BEFORE_GAP = 2
"""Messages listed before the gap in a long model input: the system prompt and the first message."""
_THOUGHTS = 600
"""Characters of the latest thinking that the panel shows."""
_FRESH_S = 3.0
"""Seconds for which the details of an ended step or part are still sent, since a page may miss a value."""


def build_panel() -> gr.HTML:
    """Builds the panel. `render_panel` renders its value."""
    scripts = "panel.js", "events.js", "model_input.js"
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
        "estimated": state.estimated,
        "rate": round(state.rate(now), 1) if state.ended is None else None,
        "average": None if average is None else round(average, 1),
        "backend": state.backend,
        "model": state.model,
        "memory": state.memory,
        "tools": [name if n == 1 else f"{name} ({n})" for name, n in Counter(state.tools).items()],
        "thoughts": state.thoughts[-1].text[-_THOUGHTS:] if state.thoughts else "",
        "stretches": [{"phase": s.phase, "start": round(s.start - state.started, 3)} for s in state.phase_spans],
        "steps": [_bar(state, step, depth, whole=whole or _fresh(step, now)) for depth, step in _nested(state.steps)],
        "parts": [_part(part, whole=whole or _fresh(part, now)) for part in reply_parts(state)],
        "approvals": [{"tool": a.tool, "tool_call_id": a.tool_call_id, "input": a.input} for a in _waiting(state)],
    }
    if whole and state.context:
        value["context"] = render_context(state.context)
    return value


def _waiting(state: AgentState) -> Sequence[events.Approval]:
    return state.approvals if state.ended is None else ()


def _fresh(one: Step | ReplyPart, now: float) -> bool:
    return one.end is None or now - one.end < _FRESH_S


def _nested(steps: Sequence[Step]) -> list[tuple[int, Step]]:
    """Returns each step with its depth, in the order of the tree."""
    ids = {step.id for step in steps}
    below: dict[str | None, list[Step]] = {}
    for step in steps:
        below.setdefault(step.parent_id if step.parent_id in ids else None, []).append(step)

    def walk(parent: str | None, depth: int) -> Iterator[tuple[int, Step]]:
        for step in below.get(parent, ()):
            yield depth, step
            yield from walk(step.id, depth + 1)

    return list(walk(None, 0))


def _bar(state: AgentState, step: Step, depth: int, *, whole: bool) -> dict[str, Any]:
    bar = {
        "id": step.id,
        "kind": step.kind,
        "name": step.name,
        "depth": depth,
        "start": round(step.start - state.started, 3),
        "end": None if step.end is None else round(step.end - state.started, 3),
        "error": step.error,
    }
    return {**bar, "input": _shown(step.input), "output": _shown(step.output)} if whole else bar


def _shown(value: Any) -> str:
    """Formats a step's input or output for people; messages with their roles."""
    if value in (None, "", []):
        return ""
    if isinstance(value, list):
        value = "\n\n".join(_message_text(message) for message in value)
    text = value if isinstance(value, str) else as_json(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}\n…\n{text[-SHOWN // 2 :]}"


def _message_text(message: events.JSON) -> str:
    calls = [
        f"{call['name']}({json.dumps(call['args'], ensure_ascii=False)})" for call in message.get("tool_calls", ())
    ]
    return "\n".join([f"{message['role']}: {message['content']}", *calls])


def _part(part: ReplyPart, *, whole: bool) -> dict[str, Any]:
    """Renders a part with the ends of its texts; without `blocks` unless `whole`."""
    value = part_value(part)
    blocks = value.pop("blocks")
    return {**value, "blocks": [[label, _end(text)] for label, text in blocks]} if whole else value


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
        "messages": [_shown_message(m) for m in listed],
        "gap": {"after": _BEFORE_GAP, "count": len(skipped), "tokens": _sum(skipped)} if skipped else None,
        "left_out": [_shown_message(m) for m in left[-_LISTED:]],
        "left_out_count": len(left),
        "left_out_tokens": _sum(left),
        "reasons": _reasons(left),
    }


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
