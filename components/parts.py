"""Thinking and tool calls as collapsible parts of the conversation: of a live reply (`web/parts.js`), and of an ended
one, where they stand in the Chatbot as HTML that Gradio sanitizes once more.
"""

import json
from collections.abc import Iterable
from typing import Any

import gradio as gr

from components.assets import script_component
from components.elements import text_html
from runs.events import JSON
from runs.reply import ReplyPart

SHOWN = 2000
"""Characters of an input or an output that the page shows while a run is live."""
_HINT = 80


def build_parts() -> gr.HTML:
    """The live reply's parts. Its value is the id of the run whose parts the conversation has taken over."""
    return script_component("parts.js", "live-parts", "<div class='parts'></div>")


def part_value(part: ReplyPart) -> JSON:
    """What is drawn of a part: {title, hint, seconds, failed, blocks: [[label, text], …]}; `hint` is one line."""
    if part.kind == "thinking":
        title = "Thinking" if part.seconds is None else "Thought"
        return _value(title, part, [["", part.text]], hint="")
    texts = part.input.values() if isinstance(part.input, dict) else [part.input]
    hint = " ".join(" ".join(str(text) for text in texts if text is not None).split())
    ended = "Output so far" if part.seconds is None else "Output"
    told = part.error and part.text.strip().endswith(part.error)  # what the model is told of a failure
    said = "none" if told else part.text.strip("\n") or "none"
    blocks = [["Input", as_json(part.input)], [f"Failed: {part.error}" if part.error else ended, said]]
    return _value(part.name, part, blocks, hint=hint if len(hint) <= _HINT else f"{hint[:_HINT]}…")


def _value(title: str, part: ReplyPart, blocks: list[list[str]], *, hint: str) -> JSON:
    return {"title": title, "hint": hint, "seconds": _seconds(part), "failed": part.error is not None, "blocks": blocks}


def _seconds(part: ReplyPart) -> str | None:
    """None for a part that goes on; empty for an imported one, whose file does not tell its time."""
    if not part.seconds:
        return None if part.seconds is None else ""
    return f"{part.seconds:.2f} s" if part.seconds < 10 else f"{part.seconds:.0f} s"


def as_json(value: Any) -> str:
    """A value as people read it."""
    return json.dumps(value, ensure_ascii=False, indent=1)


def parts_html(parts: Iterable[ReplyPart]) -> str:
    """The parts as one block of HTML, built as `web/parts.js` builds it; nothing in them is markup."""
    return f"<div class='parts'>{''.join(_details(part_value(part)) for part in parts)}</div>"


def _details(value: JSON) -> str:
    blocks = "".join(f"<p>{text_html(label)}</p><pre>{text_html(text)}</pre>" for label, text in value["blocks"])
    head = "".join(f"<{tag}>{text_html(value[key] or '')}</{tag}>" for tag, key in _HEAD)
    failed = " class='failed'" if value["failed"] else ""
    return f"<details{failed}><summary>{head}</summary>{blocks}</details>"


_HEAD = ("b", "title"), ("span", "hint"), ("small", "seconds")
