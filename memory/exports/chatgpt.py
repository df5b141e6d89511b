"""ChatGPT's export: `conversations.json` (or `conversations-000.json` and so on) is a list of conversations.

Each has a `mapping` of nodes {id, message, parent, children}, a tree, and a `current_node`. Nodes without a message,
and messages that ChatGPT does not show, hold the tree together. What is between a question and its answer (thoughts,
calls of tools and their results) are nodes of their own, which become parts of the answer. Some files lack `children`,
`current_node` or the root. The shapes are those of public issues and descriptions of such files, from 2023 to 2026.
"""

import re
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from memory.exports.conversation import FoundConversation, FoundMessage, input_of, text_of, time_of, title_of
from runs.reply import ReplyPart

_HIDDEN = "user_editable_context", "model_editable_context", "reasoning_recap"
"""Kinds of content that hold settings, or a line such as "Thought for 5 seconds"."""
_CITATION = re.compile("\ue200[^\ue200\ue201]{0,2000}\ue201")
"""A reference as ChatGPT's page draws it; `metadata.content_references` has its text."""


def is_chatgpt(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def updated(value: dict[str, Any]) -> float:
    return time_of(value.get("update_time")) or time_of(value.get("create_time"))


def read_chatgpt(value: dict[str, Any]) -> FoundConversation:
    """All branches of a conversation. What cannot be shown here, such as a picture, is named in brackets."""
    nodes = {str(name): node for name, node in value["mapping"].items() if isinstance(node, dict)}
    found = _Tree(_children(nodes))
    found.read(nodes)
    current = value.get("current_node")
    if not isinstance(current, str) or current not in found.at:
        # where none has a time, the last one that was read, which is a deepest one
        current = max(reversed(found.at), key=lambda name: _created(nodes[name]), default="")
    head = found.at.get(current) or (found.messages[-1].id if found.messages else None)
    return FoundConversation(title_of(value.get("title")), found.messages, head)


def _created(node: dict[str, Any]) -> float:
    message = node.get("message")
    return time_of(message.get("create_time")) if isinstance(message, dict) else 0.0


def _children(nodes: dict[str, Any]) -> dict[str | None, list[str]]:
    """The nodes that follow each node, by what nodes say of their parents, or else parents of their children."""
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
    """Makes one node of each cycle of parents a root: the first in the file's order that leads into the cycle."""
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
    """The messages so far, parents first. `at` is the message that each node belongs to."""

    def __init__(self, below: dict[str | None, list[str]]) -> None:
        self._below = below
        self.messages: list[FoundMessage] = []
        self.at: dict[str, str | None] = {}
        self._parts: dict[str, list[ReplyPart]] = {}
        """By node: the thoughts and calls up to it that no answer has taken. The first node that follows takes them."""

    def read(self, nodes: dict[str, Any]) -> None:
        waiting: deque[tuple[str, str | None]] = deque((name, None) for name in self._below.get(None, ()))
        while waiting:
            name, before = waiting.popleft()
            self._take(name, nodes[name].get("message"), before)
            waiting.extend((child, name) for child in self._below.get(name, ()))

    def _take(self, name: str, message: Any, before: str | None) -> None:
        parent = self.at.get(before) if before is not None else None
        parts = self._parts.pop(before, []) if before is not None else []
        content = _read(message) if isinstance(message, dict) else None
        if isinstance(content, ReplyPart):
            _add(parts, content)
        ends = not self._below.get(name)
        said = content if isinstance(content, _Said) else None
        if parts and (ends if said is None else said.role == "user"):  # nothing was answered after them
            parent, parts = self._say(_Said("assistant", "", "interrupted"), parent, parts), []
        if said:
            parent, parts = self._say(said, parent, parts), []
        self.at[name] = parent
        if parts:
            self._parts[name] = parts

    def _say(self, said: "_Said", parent: str | None, parts: list[ReplyPart]) -> str:
        made = FoundMessage(said.role, said.text, parent, tuple(parts), said.standing)
        self.messages.append(made)
        return made.id


@dataclass(frozen=True, slots=True)
class _Said:
    role: str
    text: str
    standing: str = "whole"


def _add(parts: list[ReplyPart], part: ReplyPart) -> None:
    """Adds a part; a tool's result goes to the call that waits for it."""
    if part.kind == "tool" and part.input is None:
        for at in range(len(parts) - 1, max(-1, len(parts) - 9), -1):
            call = parts[at]
            if call.kind == "tool" and call.input is not None and not call.text and _same_tool(call.name, part.name):
                parts[at] = replace(call, text=part.text, error=part.error, end=max(call.start, part.start))
                return
    parts.append(part)


def _same_tool(call: str, result: str) -> bool:
    """A call of `python` is answered by `python`, one of `web` by `web.run`."""
    return call.split(".")[0] == result.split(".")[0]


def _read(message: dict[str, Any]) -> _Said | ReplyPart | None:
    """What a message is; None for one that ChatGPT does not show."""
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
    return _Said(str(role), text, "interrupted" if message.get("status") == "in_progress" else "whole")


def _fenced(code: str, language: str) -> str:
    fence = "`" * (max(map(len, re.findall("`+", code)), default=0) + 1)
    named = language if language.isalnum() and language != "unknown" else ""
    return f"{max(fence, '```', key=len)}{named}\n{code}\n{max(fence, '```', key=len)}"


def _attached(metadata: dict[str, Any]) -> list[str]:
    found = metadata.get("attachments")
    names = [one.get("name") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [f"[file: {text_of(name)[:200]}]" for name in names if isinstance(name, str)]


def _text(content: dict[str, Any], metadata: dict[str, Any]) -> str:
    """The text of a message's content, of whatever kind it is."""
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
    if isinstance(part.get("text"), str):  # of speech, too
        return text_of(part["text"])
    if "audio" in kind:
        return ""  # which its transcript says
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
