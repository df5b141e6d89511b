"""Claude's export: `conversations.json` is a list of conversations, each with `chat_messages` in order.

A message has a `sender` (human or assistant), `text`, and in newer files `content`: blocks of text, thinking, tool
calls and their results. Long pasted texts are `attachments` with `extracted_content`; other files have only a name.
Messages may name their `parent_message_uuid`, if a question was edited or answered again.
"""

from dataclasses import replace
from typing import Any

from memory.exports.conversation import ParsedConversation, ParsedMessage, input_of, text_of, time_of, title_of
from runs.reply import ReplyPart

_TEXTS = "text", "voice_note"
_ROLES = {"human": "user", "assistant": "assistant", "system": "system"}


def is_claude(value: Any) -> bool:
    """True if a value is a conversation of Claude's export."""
    return isinstance(value, dict) and isinstance(value.get("chat_messages"), list)


def updated(value: dict[str, Any]) -> float:
    """The time of the last change, in epoch seconds; 0 if it is unknown."""
    return time_of(value.get("updated_at")) or time_of(value.get("created_at"))


def read_claude(value: dict[str, Any]) -> ParsedConversation:
    """Parses all messages; one without a known earlier parent follows the one before it."""
    parsed: list[ParsedMessage] = []
    at: dict[str, str | None] = {}
    last: str | None = None
    for one in value["chat_messages"]:
        if not isinstance(one, dict):
            continue
        parent = at.get(one["parent_message_uuid"], last) if isinstance(one.get("parent_message_uuid"), str) else last
        message = _message(one, parent)
        if message:
            parsed.append(message)
        last = message.id if message else parent
        if isinstance(one.get("uuid"), str):
            at[one["uuid"]] = last
    current = value.get("current_leaf_message_uuid")
    head = at.get(current, last) if isinstance(current, str) else last
    return ParsedConversation(title_of(value.get("name")), parsed, head)


def _message(one: dict[str, Any], parent_id: str | None) -> ParsedMessage | None:
    """Parses a message; None for an empty one."""
    blocks = [block for block in _list(one, "content") if isinstance(block, dict)]
    texts = [text_of(block.get("text")) if block.get("type") in _TEXTS else "" for block in blocks]
    plain = "" if any(texts) or _has_others(blocks) else text_of(one.get("text"))
    files = _files(one)
    text = "\n\n".join(filter(None, [*files, *texts, plain]))
    parts = _parts(blocks, _offsets(len("\n\n".join(filter(None, files))), texts))
    if not (text.strip() or parts):
        return None
    return ParsedMessage(_ROLES.get(str(one.get("sender")), "assistant"), text, parent_id, tuple(parts))


def _offsets(length: int, texts: list[str]) -> list[int]:
    """The length of a message's text before each of its blocks; `length` is that before all of them."""
    offsets: list[int] = []
    for text in texts:
        offsets.append(length)
        if text:
            length += len(text) + (2 if length else 0)
    return offsets


def _has_others(blocks: list[dict[str, Any]]) -> bool:
    """Whether there are other blocks than text: then `text` only says that they cannot be shown."""
    return any(block.get("type") in ("tool_use", "tool_result", "thinking") for block in blocks)


def _files(one: dict[str, Any]) -> list[str]:
    found = []
    for file in (*_list(one, "attachments"), *_list(one, "files"), *_list(one, "files_v2")):
        if isinstance(file, dict):
            name, content = text_of(file.get("file_name"))[:200], text_of(file.get("extracted_content"))
            label = f"[file: {name}]" if name else "[pasted text]" if content else ""
            found.append("\n".join(filter(None, (label, content))))
    return list(dict.fromkeys(found))


def _parts(blocks: list[dict[str, Any]], offsets: list[int]) -> list[ReplyPart]:
    parts: list[ReplyPart] = []
    calls: dict[str, int] = {}
    """The index of each call in `parts`, by id."""
    for block, offset in zip(blocks, offsets, strict=True):
        start = time_of(block.get("start_timestamp"))
        end = max(start, time_of(block.get("stop_timestamp")))
        match block.get("type"):
            case "thinking":
                if thought := text_of(block.get("thinking")):
                    parts.append(ReplyPart("thinking", thought, start, end, offset=offset))
            case "tool_use":
                calls[str(block.get("id"))] = len(parts)
                name, arguments = text_of(block.get("name"))[:200], input_of(block.get("input"))
                parts.append(ReplyPart("tool", "", start, end, name, arguments, offset=offset))
            case "tool_result":
                _add_result(parts, calls, block, offset)
    return parts


def _add_result(parts: list[ReplyPart], calls: dict[str, int], block: dict[str, Any], offset: int) -> None:
    """Adds a tool result to its call; in files without ids it follows the call."""
    content = block.get("content")
    listed = content if isinstance(content, list) else [{"text": content}]
    text = "\n".join(filter(None, (text_of(one.get("text")) for one in listed if isinstance(one, dict))))
    error = (text or "failed")[:2000] if block.get("is_error") is True else None
    at = calls.get(str(block.get("tool_use_id")), len(parts) - 1)
    if at >= 0 and parts[at].kind == "tool" and not parts[at].text:
        parts[at] = replace(parts[at], text=text, error=error)
    elif text:
        parts.append(ReplyPart("tool", text, 0.0, 0.0, text_of(block.get("name"))[:200], error=error, offset=offset))


def _list(one: dict[str, Any], name: str) -> list[Any]:
    found = one.get(name)
    return found if isinstance(found, list) else []
