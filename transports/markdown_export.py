"""A conversation as Markdown, to be read by people, and the header that makes a browser keep it as a file."""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from memory.conversations import Conversation
from memory.messages import Message
from runs.reply import ReplyPart

_NAMES = {"user": "You", "assistant": "Model", "system": "Instruction", "tool": "Result of a tool"}
_NOTED = {"interrupted": "Interrupted.", "growing": "Still being written."}


def markdown_of(conversation: Conversation, messages: Sequence[Message]) -> Iterator[str]:
    """Text by text. The current branch; texts stand as they were written, since most of them are Markdown."""
    date = datetime.fromtimestamp(conversation.updated, UTC).strftime("%Y-%m-%d %H:%M UTC")
    made = " · ".join(
        part for part in (date, conversation.backend, conversation.memory and f"memory: {conversation.memory}") if part
    )
    title = re.sub(r"([\\`*_\[\]<>#])", r"\\\1", conversation.title) or "Conversation"
    yield f"# {title}\n\n{made}"
    for message in messages:
        yield f"\n\n{_message(message)}"
    yield "\n"


def download(title: str, ending: str) -> dict[str, str]:
    """The header of a file to be kept (RFC 6266), named by a conversation's title."""
    name = re.sub(r"[^\w .()-]+", " ", title).strip(" .")[:80] or "conversation"
    plain = name.encode("ascii", "ignore").decode().strip(" .") or "conversation"
    return {
        "Content-Disposition": f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{quote(name)}.{ending}"
    }


def _message(message: Message) -> str:
    told = [f"## {_NAMES[message.role]}", *(_part(part) for part in message.parts)]
    note = message.note or _NOTED.get(message.standing)
    return "\n\n".join([*told, *([message.text] if message.text else []), *([f"*{note}*"] if note else [])])


def _part(part: ReplyPart) -> str:
    name = "Thinking" if part.kind == "thinking" else f"Tool: {escape(part.name)}"
    blocks = [] if part.input is None else [_fenced(json.dumps(part.input, ensure_ascii=False, indent=1))]
    blocks.append(_fenced(f"{part.text}\n{part.error}".strip() if part.error else part.text))
    return "\n\n".join([f"<details><summary>{name}</summary>", *blocks, "</details>"])


def _fenced(text: str) -> str:
    """A block of code that nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
