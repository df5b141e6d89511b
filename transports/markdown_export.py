"""A conversation as Markdown for people, and the headers that make a browser save a response as a file."""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from documents.quotes import DOCUMENTS
from memory.messages import Message
from memory.stored_conversations import Conversation
from runs.reply import ReplyPart, reply_sequence

_NAMES = {"user": "You", "assistant": "Model", "system": "Instruction", "tool": "Result of a tool"}
_NOTES = {"interrupted": "Interrupted.", "growing": "Still being written."}
"""Notes by the standing of a message."""


def markdown_texts(conversation: Conversation, messages: Sequence[Message]) -> Iterator[str]:
    """Yields the Markdown of a branch piecewise. Messages are unchanged, since most of them are Markdown."""
    date = datetime.fromtimestamp(conversation.updated, UTC).strftime("%Y-%m-%d %H:%M UTC")
    memory = conversation.memory and f"memory: {conversation.memory}"
    subtitle = " · ".join(text for text in (date, conversation.backend, memory) if text)
    title = re.sub(r"([\\`*_\[\]<>#])", r"\\\1", conversation.title) or "Conversation"
    yield f"# {title}\n\n{subtitle}"
    for message in messages:
        yield f"\n\n{_message(message)}"
    yield "\n"


def attachment_headers(title: str, extension: str) -> dict[str, str]:
    """Makes a browser save the response as a file (RFC 6266) named by a conversation's title."""
    name = re.sub(r"[^\w .()-]+", " ", title).strip(" .")[:80] or "conversation"
    ascii_name = name.encode("ascii", "ignore").decode().strip(" .") or "conversation"
    names = f"filename=\"{ascii_name}.{extension}\"; filename*=UTF-8''{quote(name)}.{extension}"
    return {"Content-Disposition": f"attachment; {names}"}


def _message(message: Message) -> str:
    blocks = [f"## {_NAMES[message.role]}"]
    blocks += [f"*Image, {image.width} by {image.height} pixels*" for image in message.images]
    for piece in reply_sequence(message.text, message.parts):
        if not isinstance(piece, str):
            blocks += [_part(part) for part in piece]
        else:
            blocks.append(piece.strip("\n") if message.parts else piece)
    note = message.note or _NOTES.get(message.standing)
    return "\n\n".join([*blocks, *([f"*{note}*"] if note else [])])


def _part(part: ReplyPart) -> str:
    name = "Thinking" if part.kind == "thinking" else f"Tool: {escape(part.name)}"
    name = "Passages of documents" if part.kind == "tool" and part.name == DOCUMENTS else name
    blocks = [] if part.input is None else [_code_block(json.dumps(part.input, ensure_ascii=False, indent=1))]
    blocks.append(_code_block(f"{part.text}\n{part.error}".strip() if part.error else part.text))
    return "\n\n".join([f"<details><summary>{name}</summary>", *blocks, "</details>"])


def _code_block(text: str) -> str:
    """A code block with a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
