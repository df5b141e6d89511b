"""Domain data as values of Gradio components: pure functions.

Chatbot values are in the shape that goes over the wire, since their listeners run with `postprocess=False`: Gradio's
own conversion costs more the longer the conversation is.
"""

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from backends import Backend, Backends, Health
from components.session import PageState
from memory.messages import Message
from memory.modes import MODES
from runs import events
from runs.state import AgentState

Wire = dict[str, Any]

_JOINER = "\u2060"
"""Word joiner: no width; keeps what follows from being read as a tag, an entity or a link."""
_CODE = re.compile(
    r"(^[ >]{0,7}(?P<fence>`{3,}|~{3,}).*?(?:^[ >]{0,7}(?P=fence)|\Z)"
    r"|(?<![\\`])(?P<ticks>`+)(?!`)[^\n]*?[^`\n](?P=ticks)(?!`))",
    re.DOTALL | re.MULTILINE,
)
_TAG = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_IMAGE = re.compile(r"!(?=\[)")
_SCRIPT_LINK = re.compile(r"\](?=\(\s*(?:javascript|vbscript|data):)", re.IGNORECASE)
_NOTED = {"interrupted": "Interrupted: the server went away while this was written"}
_SHOWN = 2000
"""Characters of a message that the context list shows."""
_LISTED = 40
"""Messages that the context list shows of what was left out."""


def render_text(text: str) -> str:
    """Markdown in which markup is text: tags, entities and script links are shown as they were typed, outside of code.

    The Chatbot sanitizes too, but would drop them. Images become links: to draw one would tell its server.
    """
    shown, at = [], 0
    for code in _CODE.finditer(text):
        shown += [_plain(text[at : code.start()]), code.group()]
        at = code.end()
    return "".join([*shown, _plain(text[at:])])


def _plain(text: str) -> str:
    text = _TAG.sub(lambda m: m.group() + _JOINER, text)
    return _SCRIPT_LINK.sub("]" + _JOINER, _IMAGE.sub("!" + _JOINER, text))


def meant_text(text: str) -> str:
    """What a person meant with a text that `render_text` had drawn and they edited."""
    return text.replace(_JOINER, "")


def _wire(role: str, *texts: str) -> Wire:
    content = [{"type": "text", "text": text} for text in texts]
    return {"role": role, "metadata": None, "content": content, "options": None}


def render_messages(messages: Sequence[Message]) -> list[Wire]:
    """The Chatbot's value; a reply that is not whole says so in a part of its own."""
    return [_wire_message(message) for message in messages]


def _wire_message(message: Message) -> Wire:
    role = "user" if message.role == "user" else "assistant"
    note = message.note or _NOTED.get(message.standing)
    parts = [render_text(message.text)] if message.text or not note else []
    return _wire(role, *parts, *([f"*{_one_line(note)}*"] if note else []))


def _one_line(text: str) -> str:
    """A sentence that cannot break out of its emphasis."""
    return re.sub(r"([\\`*_\[\]<>&])", r"\\\1", " ".join(text.split()))


def render_live(text: str) -> list[Wire]:
    """The value of the live reply: one message, or none while there is no text."""
    return [_wire("assistant", render_text(text))] if text else []


def render_panel(state: AgentState, thoughts: str, *, with_context: bool) -> dict[str, Any]:
    """What the panel draws of a run. Times are seconds since the run began; ages are as of now.

    The context is sent only when asked for: it is the one part that grows with the conversation.
    """
    now = time.time()
    until = now if state.ended is None else state.ended
    average = state.average()
    value: dict[str, Any] = {
        "run": state.run_id,
        "conversation": state.conversation_id,
        "live": state.ended is None,
        "phase": state.phase,
        "said": state.said,
        "step": state.current_step,
        "since_s": round(until - state.since, 2),
        "elapsed_s": round(until - state.started, 2),
        "ttft_s": state.ttft_s,
        "tokens": state.tokens,
        "input_tokens": state.input_tokens,
        "estimated": state.estimated,
        "rate": round(state.rate(now), 1) if state.ended is None else None,
        "average": None if average is None else round(average, 1),
        "backend": state.backend,
        "memory": state.memory,
        "thoughts": thoughts,
        "stretches": [{"phase": s.phase, "start": round(s.start - state.started, 3)} for s in state.stretches],
        "steps": [_bar(state, i) for i in range(len(state.steps))],
        "approvals": [{"tool": a.tool, "tool_call_id": a.tool_call_id, "input": a.input} for a in _waiting(state)],
    }
    if with_context and state.context:
        value["context"] = render_context(state.context)
    return value


def _waiting(state: AgentState) -> Sequence[events.Approval]:
    return state.approvals if state.ended is None else ()


def _bar(state: AgentState, i: int) -> dict[str, Any]:
    step, parents = state.steps[i], {s.id: s.parent_id for s in state.steps}
    depth, parent = 0, step.parent_id
    while parent in parents and depth < 8:
        depth, parent = depth + 1, parents[parent]
    detail = {} if step.kind != "tool" else {"input": _json(step.input), "output": step.output[:_SHOWN]}
    return {
        **detail,
        "id": step.id,
        "kind": step.kind,
        "name": step.name,
        "depth": depth,
        "start": round(step.start - state.started, 3),
        "end": None if step.end is None else round(step.end - state.started, 3),
        "error": step.error,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)[:_SHOWN]


def render_context(context: events.Context) -> dict[str, Any]:
    """What the model was given, with long texts and long lists cut for the page; the record has all of it."""
    left = context.left_out
    return {
        "tokens": context.tokens,
        "limit": context.limit,
        "estimated": context.estimated,
        "messages": [_shown(m) for m in context.messages],
        "left_out": [_shown(m) for m in left[-_LISTED:]],
        "left_out_count": len(left),
        "left_out_tokens": sum(int(m["tokens"]) for m in left),
    }


def _shown(message: events.JSON) -> dict[str, Any]:
    text = message["content"]
    return {**message, "content": text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … ({len(text):,} characters)"}


def render_backends(backends: Backends, visitor: str | None) -> list[tuple[str, str]]:
    """The backend dropdown's choices for a visitor: label and name. The label begins with the name."""
    return [(_backend_label(b, backends.health(b, visitor)), b.name) for b in backends]


def _backend_label(backend: Backend, health: Health) -> str:
    if not health.ready:
        return f"{backend.name} · {health.state.replace('_', ' ')}"
    if not backend.is_model:
        return f"{backend.name} · no model"
    return backend.name if backend.ttft_s is None else f"{backend.name} · first token {backend.ttft_s:.1f} s"


def render_modes() -> list[tuple[str, str]]:
    """The memory dropdown's choices: label and name. The label begins with the name."""
    return [(f"{mode.name} · {mode.about}", mode.name) for mode in MODES.values()]


def render_buttons(page: PageState) -> tuple[Wire, Wire]:
    """Send between runs, Stop during one. -> send, stop"""
    return gr.update(visible=page.run_id is None), gr.update(visible=page.run_id is not None)


def render_frame(page: PageState) -> tuple[Wire, Wire]:
    """What stands around the drawn messages. -> intro, earlier"""
    label = f"Show earlier messages ({page.earlier:,})"
    return gr.update(visible=not page.drawn), gr.update(visible=page.earlier > 0, value=label)
