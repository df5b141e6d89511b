"""The waterfall of the panel: one bar for each step of the run. `web/waterfall.js` draws it.

A step that only wraps another one is no bar of its own: its name is in the details of that bar, with its texts if they
say more. A node of an agent's graph is also in the bar's name.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from components.parts import SHOWN, as_json
from runs.events import JSON
from runs.reply import ReplyPart, reply_parts
from runs.state import AgentState, Step, StepKind

_SAME_S = 0.1
"""Seconds by which the times of a wrapper and of the step in it may differ."""
_LOOP = {"agent", "model", "tools"}
"""The steps of our own loop, whose names say nothing beside those of models and tools."""
_NOTHING = "none"
_FRESH_S = 3.0
"""Seconds for which the details of an ended step or part are still sent, since a page may miss a value."""
_LABELS: dict[StepKind, tuple[str, str]] = {
    "tool": ("Input", "Output"),
    "chain": ("New input", "New output"),
    "model": ("", "Tokens used"),
}


def render_bars(state: AgentState, *, whole: bool, now: float) -> list[JSON]:
    """Renders the bars in the order of the tree. Only a `whole` value has the details of all of them."""
    below: dict[str | None, list[Step]] = {}
    ids = {step.id for step in state.steps}
    for step in state.steps:
        below.setdefault(step.parent_id if step.parent_id in ids else None, []).append(step)
    parts, bars = _Parts(state), list[JSON]()

    def walk(parent: str | None, depth: int) -> None:
        for step in below.get(parent, ()):
            path = [step]
            while (inner := below.get(path[-1].id, ())) and _wraps(path[-1], inner, now):
                path.append(inner[0])
            details = whole or any(is_fresh(one, now) for one in path)
            bars.append(_bar(state, path, depth, parts, whole=details))
            walk(path[-1].id, depth + 1)

    walk(None, 0)
    return bars


def is_fresh(one: Step | ReplyPart, now: float) -> bool:
    """Returns whether a step or a part may have changed since the page's last value."""
    return one.end is None or now - one.end < _FRESH_S


def _wraps(step: Step, inner: Sequence[Step], now: float) -> bool:
    """Returns whether a step has the times of its only child."""
    child = inner[0]
    if len(inner) > 1 or step.kind != "chain" or child.start - step.start > _SAME_S:
        return False
    if child.end is None:
        return True
    return (now if step.end is None else step.end) - child.end <= _SAME_S


def _bar(state: AgentState, path: Sequence[Step], depth: int, parts: "_Parts", *, whole: bool) -> JSON:
    """Renders a step, the last one of `path`, with the steps that wrap it."""
    step, wrappers = path[-1], path[:-1]
    bar = {
        "id": path[0].id,
        "call": step.id,
        "kind": step.kind,
        "name": " \u203a ".join([*(wrapper.name for wrapper in wrappers if wrapper.name not in _LOOP), step.name]),
        "wrappers": [wrapper.name for wrapper in wrappers],
        "depth": depth,
        "start": round(step.start - state.started, 3),
        "end": None if step.end is None else round(step.end - state.started, 3),
        "error": step.error,
        "read_s": step.timings.get("prompt_s"),
        "marks": parts.marks(step),
    }
    if not whole:
        return bar
    own, time = _blocks(step), _time(step.timings)
    known = [text for _, text in own if text != _NOTHING]
    around = [["Inside", ", ".join(wrapper.name for wrapper in wrappers)]] if wrappers else []
    for wrapper in wrappers:
        blocks = _blocks(wrapper, f"{wrapper.name}: ")
        around += [[label, text] for label, text in blocks if not any(one in text for one in known)]
    return {**bar, "blocks": [*([["Time", time]] if time else []), *around, *own]}


class _Parts:
    """The places of the steps in the reply. `web/marks.js` finds them there."""

    def __init__(self, state: AgentState) -> None:
        parts = reply_parts(state)
        tools = sorted((step for step in state.steps if step.kind == "tool"), key=lambda step: step.start)
        places = [place for place, part in enumerate(parts) if part.kind == "tool"]
        self._tools: Mapping[str, int] = dict(zip((step.id for step in tools), places, strict=True))
        self._starts, self._thoughts = [part.start for part in parts], {*range(len(parts))} - {*places}

    def marks(self, step: Step) -> list[str]:
        """Returns what a step wrote: `part-N` is the part of the reply at place N, `text-N` the text after N parts."""
        if step.kind == "chain":
            return []
        if step.kind == "tool":
            return [f"part-{self._tools[step.id]}"]
        first = bisect_left(self._starts, step.start)
        last = len(self._starts) if step.end is None else bisect_left(self._starts, step.end)
        thoughts = [f"part-{place}" for place in range(first, last) if place in self._thoughts]
        return [*thoughts, *(f"text-{place}" for place in range(first, last + 1))]


def _blocks(step: Step, prefix: str = "") -> list[list[str]]:
    """Renders the texts of a step as [label, text], without empty ones."""
    inputs, outputs = _LABELS[step.kind]
    ended = f"Failed: {step.error}" if step.error else outputs if step.end is not None else f"{outputs} so far"
    blocks = [[inputs, _shown(step.input)], [ended, _shown(step.output)]]
    if step.kind != "chain" and not blocks[1][1]:
        blocks[1][1] = _NOTHING
    return [[f"{prefix}{label}", text] for label, text in blocks if text or (step.error and label == ended)]


def _time(timings: Mapping[str, float]) -> str:
    """Says where the time of a model call went, as far as that is known."""
    cached = timings.get("cached_tokens")
    lines = [
        _rate("Reading", timings.get("prompt_tokens"), timings.get("prompt_s")),
        "" if cached is None else f"In the cache: {_tokens(cached)}",
        _rate("Writing", timings.get("generated_tokens"), timings.get("generated_s")),
    ]
    return "\n".join(filter(None, lines))


def _rate(what: str, tokens: float | None, seconds: float | None) -> str:
    if seconds is None:
        return ""
    if tokens is None:
        return f"{what}: {seconds:.2f} s"
    rate = f", {tokens / seconds:,.0f} a second" if seconds > 0 else ""
    return f"{what}: {_tokens(tokens)} in {seconds:.2f} s{rate}"


def _tokens(count: float) -> str:
    return "1 token" if count == 1 else f"{count:,.0f} tokens"


def _shown(value: Any) -> str:
    """Formats a step's input or output for people; messages with their roles."""
    if value in (None, "", []):
        return ""
    if isinstance(value, list):
        value = "\n\n".join(_message_text(message) for message in value)
    text = value if isinstance(value, str) else as_json(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}\n…\n{text[-SHOWN // 2 :]}"


def _message_text(message: JSON) -> str:
    calls = [
        f"{call['name']}({json.dumps(call['args'], ensure_ascii=False)})" for call in message.get("tool_calls", ())
    ]
    return "\n".join([f"{message['role']}: {message['content']}", *calls])
