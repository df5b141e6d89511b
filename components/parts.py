"""Thinking and tool calls as collapsible parts of the conversation.

`web/parts.js` draws those of a live reply into empty blocks. Those of an ended one are HTML in the Chatbot, which
Gradio sanitizes again.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from components.elements import text_html
from components.markdown import Sources
from documents.quotes import DOCUMENTS, SEARCH, read_quotes, sources
from runs.events import JSON, QUESTION
from runs.reply import ReplyPart

SHOWN = 2000
"""Characters of an input or an output that the page shows during a run."""
_HINT = 80
_TITLES = {DOCUMENTS: "Your documents"}
"""Titles of calls that no model made, by name."""
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


Passages = Sequence[tuple[int, Sources]]
"""The sources of passages that a reply may cite, each with the offset of the part that has them."""


def cited_passages(parts: Iterable[ReplyPart]) -> Passages:
    """Returns the passages among the parts of a reply."""
    found = [part for part in parts if part.kind == "tool" and part.name in (DOCUMENTS, SEARCH) and not part.error]
    return [(part.offset, sources(part.text)) for part in found]


def sources_before(passages: Passages, offset: int) -> Sources:
    """Returns the sources that a text after the parts at an offset may cite, by their numbers."""
    return {number: source for at, found in passages if at <= offset for number, source in found.items()}


def part_value(part: ReplyPart) -> JSON:
    """Renders a part as {title, hint, seconds, failed, blocks: [[label, text], …]}; `hint` is one line.

    The block of an image has its address as a third element.
    """
    if part.kind == "thinking":
        title = "Thinking" if part.seconds is None else "Thought"
        return _value(title, part, [["", part.text]], hint="")
    if part.name == QUESTION and isinstance(part.input, dict):
        return _value("Question", part, _question_blocks(part), hint=_one_line([part.input.get("question", "")]))
    texts = part.input.values() if isinstance(part.input, dict) else [part.input]
    ended = "Output so far" if part.seconds is None else "Output"
    repeated = part.error and part.text.strip().endswith(part.error)  # the tool result for the model
    output = "none" if repeated else part.text.strip("\n") or "none"
    title, hint = _TITLES.get(part.name, part.name), _one_line(texts)
    if part.name == DOCUMENTS and not part.error and (quotes := read_quotes(part.text)):
        found = [[f"Passage {one.number}", f"[{one.number}] {one.source}\n{one.text}"] for one in quotes]
        return _value(title, part, found, hint=hint)
    blocks = [["Input", as_json(part.input)], [f"Failed: {part.error}" if part.error else ended, output]]
    return _value(title, part, [*blocks, *_attached_blocks(part)], hint=hint)


def _one_line(texts: Iterable[Any]) -> str:
    hint = " ".join(" ".join(str(text) for text in texts if text is not None).split())
    return hint if len(hint) <= _HINT else f"{hint[:_HINT]}…"


def _question_blocks(part: ReplyPart) -> list[list[str]]:
    """Renders a question and its answer."""
    answer = part.error or part.text or "none yet"
    return [["Question", str(part.input.get("question", ""))], ["Answer", answer]]


def _attached_blocks(part: ReplyPart) -> list[list[str]]:
    """Renders what a tool's result has besides its text. The types of images are checked, since records are data."""
    blocks = [[str(one.get("title", "")), str(one["text"])] for one in part.attachments if "text" in one]
    for one in part.attachments:
        if one.get("kind") == "image" and one.get("type") in _IMAGE_TYPES and _BASE64.fullmatch(str(one.get("data"))):
            blocks.append([str(one.get("title", "")), "", f"data:{one['type']};base64,{one['data']}"])
    return blocks


def _value(title: str, part: ReplyPart, blocks: list[list[str]], *, hint: str) -> JSON:
    return {"title": title, "hint": hint, "seconds": _seconds(part), "failed": part.error is not None, "blocks": blocks}


def _seconds(part: ReplyPart) -> str | None:
    """Formats a part's duration: None while it lasts, and empty for an imported part without times."""
    if not part.seconds:
        return None if part.seconds is None else ""
    return f"{part.seconds:.2f} s" if part.seconds < 10 else f"{part.seconds:.0f} s"


def as_json(value: Any) -> str:
    """Formats a value as indented JSON."""
    return json.dumps(value, ensure_ascii=False, indent=1)


def parts_html(parts: Iterable[ReplyPart]) -> str:
    """Renders parts as one block of HTML with the structure that `web/parts.js` builds. All texts are escaped."""
    return f"<div class='parts thought-group'>{''.join(_details(part_value(part)) for part in parts)}</div>"


def _details(value: JSON) -> str:
    blocks = "".join(f"<p>{text_html(block[0])}</p>{_content(*block)}" for block in value["blocks"])
    head = "".join(f"<{tag}>{text_html(value[key] or '')}</{tag}>" for tag, key in _HEAD)
    failed = " class='failed'" if value["failed"] else ""
    return f"<details{failed}><summary>{head}</summary>{blocks}</details>"


def _content(label: str, text: str, image: str = "") -> str:
    return f"<img src='{image}' alt='{text_html(label)}'>" if image else f"<pre>{text_html(text)}</pre>"


_HEAD = ("b", "title"), ("span", "hint"), ("small", "seconds")
