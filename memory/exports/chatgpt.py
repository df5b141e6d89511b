"""ChatGPT's export: `conversations.json` (or `conversations-000.json` and so on) is a list of conversations.

Each has a `mapping` of nodes {id, message, parent, children}, a tree, and a `current_node`. Some nodes have no message,
or one that ChatGPT does not show. Thoughts, tool calls and their results are nodes between a question and its answer,
and become parts of the answer. Some files lack `children`, `current_node` or the root. The shapes are those of public
issues and descriptions of such files, from 2023 to 2026.
"""

import re
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from memory.exports.conversation import ParsedConversation, ParsedMessage, input_of, text_of, time_of, title_of
from runs.reply import ReplyPart

_HIDDEN = "user_editable_context", "model_editable_context", "reasoning_recap"
"""Kinds of content that hold settings, or a line such as "Thought for 5 seconds"."""
_CITATION = re.compile("\ue200[^\ue200\ue201]{0,2000}\ue201")
"""A reference in a text; `metadata.content_references` has its own text."""


def is_chatgpt(value: Any) -> bool:
    """True if a value is a conversation of ChatGPT's export."""
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def updated(value: dict[str, Any]) -> float:
    """The time of the last change, in epoch seconds; 0 if it is unknown."""
    return time_of(value.get("update_time")) or time_of(value.get("create_time"))


def read_chatgpt(value: dict[str, Any]) -> ParsedConversation:
    """Parses all branches of a conversation. Content that cannot be shown, such as a picture, is named in brackets."""
    nodes = {str(name): node for name, node in value["mapping"].items() if isinstance(node, dict)}
    found = _Tree(_children(nodes))
    found.read(nodes)
    current = value.get("current_node")
    if not isinstance(current, str) or current not in found.at:
        # without any time, the last one that was read, which is one of the deepest
        current = max(reversed(found.at), key=lambda name: _created(nodes[name]), default="")
    head = found.at.get(current) or (found.messages[-1].id if found.messages else None)
    return ParsedConversation(title_of(value.get("title")), found.messages, head)


def _created(node: dict[str, Any]) -> float:
    message = node.get("message")
    return time_of(message.get("create_time")) if isinstance(message, dict) else 0.0


def _children(nodes: dict[str, Any]) -> dict[str | None, list[str]]:
    """The children of each node, by the `parent` of nodes, or else by the `children` of nodes."""
    parents: dict[str, str | None] = dict.fromkeys(nodes)
    for name, node in nodes.items():
        for child in node.get("children") or () if isinstance(node.get("children"), list) else ():
            if isinstance(child, str) and child in parents and child != name:
                parents[child] = name
    for name, node in nodes.items():
        if isinstance(parent := node.get("parent"), str) and parent in nodes and parent != name:
            parents[name] = parent
    _cut_cycles(parents)
    below: dict[str | None, list[str]] = {}
    for name, parent in parents.items():
        below.setdefault(parent, []).append(name)
    return below


def _cut_cycles(parents: dict[str, str | None]) -> None:
    """Makes one node of each cycle of parents a root: the one where the first path in the file's order enters it."""
    done = set[str]()
    for name in parents:
        path = set[str]()
        at: str | None = name
        while at is not None and at not in done and at not in path:
            path.add(at)
            at = parents[at]
        if at in path:
            parents[at] = None
        done |= path


class _Tree:
    """The parsed messages so far, parents first. `at` is each node's message."""

    def __init__(self, below: dict[str | None, list[str]]) -> None:
        self._below = below
        self.messages: list[ParsedMessage] = []
        self.at: dict[str, str | None] = {}
        self._parts: dict[str, list[ReplyPart]] = {}
        """The thoughts and calls up to a node without an answer yet; the node's first child takes them over."""

    def read(self, nodes: dict[str, Any]) -> None:
        """Parses all nodes."""
        waiting: deque[tuple[str, str | None]] = deque((name, None) for name in self._below.get(None, ()))
        while waiting:
            name, before = waiting.popleft()
            self._read_node(name, nodes[name].get("message"), before)
            waiting.extend((child, name) for child in self._below.get(name, ()))

    def _read_node(self, name: str, message: Any, before: str | None) -> None:
        parent = self.at.get(before) if before is not None else None
        parts = self._parts.pop(before, []) if before is not None else []
        content = _read(message) if isinstance(message, dict) else None
        if isinstance(content, ReplyPart):
            _add_part(parts, content)
        is_last = not self._below.get(name)
        text = content if isinstance(content, _Text) else None
        if parts and (is_last if text is None else text.role == "user"):  # no answer follows them
            parent, parts = self._add(_Text("assistant", "", "interrupted"), parent, parts), []
        if text:
            parent, parts = self._add(text, parent, parts), []
        self.at[name] = parent
        if parts:
            self._parts[name] = parts

    def _add(self, text: "_Text", parent: str | None, parts: list[ReplyPart]) -> str:
        message = ParsedMessage(text.role, text.text, parent, tuple(parts), text.standing)
        self.messages.append(message)
        return message.id


@dataclass(frozen=True, slots=True)
class _Text:
    role: str
    text: str
    standing: str = "whole"


def _add_part(parts: list[ReplyPart], part: ReplyPart) -> None:
    """Adds a part; a tool result is added to its call."""
    if part.kind == "tool" and part.input is None:
        for at in range(len(parts) - 1, max(-1, len(parts) - 9), -1):
            call = parts[at]
            if call.kind == "tool" and call.input is not None and not call.text and _same_tool(call.name, part.name):
                parts[at] = replace(call, text=part.text, error=part.error, end=max(call.start, part.start))
                return
    parts.append(part)


def _same_tool(call: str, result: str) -> bool:
    """Whether a result belongs to a call by its name: `python` to `python`, `web.run` to `web`."""
    return call.split(".")[0] == result.split(".")[0]


def _read(message: dict[str, Any]) -> _Text | ReplyPart | None:
    """The content of a message; None for one that ChatGPT does not show."""
    metadata = message["metadata"] if isinstance(message.get("metadata"), dict) else {}
    author = message["author"] if isinstance(message.get("author"), dict) else {}
    content = message["content"] if isinstance(message.get("content"), dict) else {}
    kind, role, at = content.get("content_type"), author.get("role"), time_of(message.get("create_time"))
    if metadata.get("is_visually_hidden_from_conversation") is True or kind in _HIDDEN:
        return None
    text = _text(content, metadata)
    if kind == "thoughts":
        return ReplyPart("thinking", text, at, at) if text else None
    if role == "tool":
        error = text[:2000] if kind == "system_error" else None
        return ReplyPart("tool", text, at, at, text_of(author.get("name"))[:200], error=error) if text else None
    recipient = text_of(message.get("recipient")) or "all"
    if role == "assistant" and recipient != "all":
        return ReplyPart("tool", "", at, at, recipient[:200], input_of({"input": text}))
    if role == "user":
        text = "\n".join([*_attached(metadata), text] if text else _attached(metadata))
    if role not in ("user", "assistant", "system") or not text.strip():
        return None
    if kind == "code":
        text = _fenced(text, text_of(content.get("language")))
    return _Text(str(role), text, "interrupted" if message.get("status") == "in_progress" else "whole")


def _fenced(code: str, language: str) -> str:
    fence = "`" * (max(map(len, re.findall("`+", code)), default=0) + 1)
    named = language if language.isalnum() and language != "unknown" else ""
    return f"{max(fence, '```', key=len)}{named}\n{code}\n{max(fence, '```', key=len)}"


def _attached(metadata: dict[str, Any]) -> list[str]:
    found = metadata.get("attachments")
    names = [one.get("name") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [f"[file: {text_of(name)[:200]}]" for name in names if isinstance(name, str)]


def _text(content: dict[str, Any], metadata: dict[str, Any]) -> str:
    """The text of a message's content of any kind."""
    kind = content.get("content_type")
    if kind == "thoughts":
        thoughts = content.get("thoughts")
        listed = [one for one in thoughts if isinstance(one, dict)] if isinstance(thoughts, list) else []
        return "\n\n".join(
            "\n".join(filter(None, (text_of(one.get("summary")), text_of(one.get("content"))))) for one in listed
        )
    if isinstance(parts := content.get("parts"), list):
        text = "\n".join(filter(None, map(_part_text, parts)))
    else:
        text = next((text_of(content[name]) for name in ("text", "result", "content") if content.get(name)), "")
    return _with_references(text, metadata)


def _part_text(part: Any) -> str:
    if not isinstance(part, dict):
        return text_of(part)
    kind = text_of(part.get("content_type"))
    if isinstance(part.get("text"), str):  # also a transcript of speech
        return text_of(part["text"])
    if "audio" in kind:
        return ""  # its transcript has the text
    return "[image]" if "image" in kind else f"[{kind[:60]}]" if kind else ""


def _with_references(text: str, metadata: dict[str, Any]) -> str:
    if "\ue200" not in text:
        return text
    listed = metadata.get("content_references")
    known = {
        one["matched_text"]: text_of(one.get("alt"))
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and isinstance(one.get("matched_text"), str)
    }
    return _CITATION.sub(lambda found: known.get(found[0], ""), text)
