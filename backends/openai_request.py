"""Requests in OpenAI's protocol as a strict server accepts them.

The protocol: https://platform.openai.com/docs/api-reference/chat/create. Many servers check more than OpenAI does, or
know fewer fields. What all of them accept is always sent; what one of them needs is a `RequestShape`.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage

from backends.thinking_blocks import THINKING_BLOCKS, blocks_of
from runs.text import valid_text

SystemRole = Literal["system", "developer", "user"]
LONGEST_REPLY = ("max_tokens", "max_completion_tokens")
"""OpenAI's names for the longest reply: the older one, which most servers know, and the newer one."""
FIXED = frozenset({"model", "messages", "stream"})
"""Fields without which there is no request."""
REASONING = "reasoning_fields"
"""In `additional_kwargs` of a reply: its thinking, by the name of the field in which the server sent it."""
SIGNATURES = "tool_call_signatures"
"""In `additional_kwargs` of a reply: what Google adds to tool calls (`extra_content`), by the calls' ids."""
_NO_RESULT = "[no result]"
_NO_REASONING = " "
"""Kimi refuses an empty text for thinking that is not there; it and DeepSeek accept a blank."""
_UNNAMED = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class RequestShape:
    """How a server wants its requests, by its entry in the settings or as its refusals have shown.

    `fields` gives a field another name, or None to leave it out. `without` names fields of messages to leave out.
    """

    fields: Mapping[str, str | None] = field(default_factory=dict)
    system_role: SystemRole | None = None
    """The role of the system prompt; "user" puts it in front of the first message, None leaves it as it is."""
    without: frozenset[str] = frozenset()
    reasoning: str | None = None
    """The field that every message of the assistant must have for its thinking."""
    null_content: bool = False
    """Whether a message that only calls tools has the content null; else it is an empty text."""

    def name(self, name: str) -> str | None:
        """What a field is called, None where it is left out."""
        if name in LONGEST_REPLY and name not in self.fields:
            other = LONGEST_REPLY[name == LONGEST_REPLY[0]]
            return self.fields.get(other, name)
        return self.fields.get(name, name)


def shaped(payload: Mapping[str, Any], messages: Sequence[BaseMessage], shape: RequestShape) -> dict[str, Any]:
    """The body of a request for a server of this shape; `messages` are those that the payload was made of."""
    names = {key: key if key in FIXED else shape.name(key) for key in payload}
    made = {key: value for key, value in payload.items() if names[key] == key and key != "extra_body"}
    given = (payload.get("extra_body") or {}).items()
    extra = {name: value for key, value in given if (name := shape.fields.get(key, key))}
    # the SDK takes its own names alone; others go into its `extra_body`, which it puts beside them
    if extra := extra | {name: payload[key] for key, name in names.items() if name and name != key}:
        made["extra_body"] = extra
    if "messages" in payload:
        declared = {tool.get("function", {}).get("name") for tool in payload.get("tools") or ()}
        told = [_plain(message, declared) for message in payload["messages"]]
        _return_thinking(told, messages, shape)
        made["messages"] = [_fit(message, shape) for message in _with_system(_answered(told), shape)]
    return made


def thinking_of(delta: Mapping[str, Any]) -> dict[str, str]:
    """The thinking in a piece of a reply, by the name of its field, to be returned in that field."""
    return {name: delta[name] for name in ("reasoning_content", "reasoning") if isinstance(delta.get(name), str)}


def signatures_of(delta: Mapping[str, Any]) -> dict[str, Any]:
    """What a piece of a reply adds to tool calls, by their ids: Gemini's signatures of thoughts must come back.

    Source: https://ai.google.dev/gemini-api/docs/thought-signatures, "OpenAI compatibility".
    """
    calls = delta.get("tool_calls")
    known = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return {str(call["id"]): call["extra_content"] for call in known if call.get("id") and call.get("extra_content")}


def _plain(message: Mapping[str, Any], declared: Collection[str]) -> dict[str, Any]:
    """A message without a name, with its content as text wherever it is only text, and with sound tool calls."""
    made = {key: value for key, value in message.items() if key != "name"}
    content = made.get("content")
    if made["role"] != "assistant" and isinstance(content, list) and all(_is_text(block) for block in content):
        made["content"] = "\n".join(block if isinstance(block, str) else block["text"] for block in content)
    if made["role"] == "tool":
        made["content"] = made["content"] if isinstance(made["content"], str) else json.dumps(made["content"])
        made["content"] = made["content"] or "[no output]"
    if made["role"] == "assistant":
        if isinstance(content, list):  # what it thought is no part of what it said
            texts = (block for block in content if _is_text(block))
            made["content"] = "".join(block if isinstance(block, str) else block["text"] for block in texts)
        made["content"] = made.get("content") or ""
        if calls := made.get("tool_calls"):
            made["tool_calls"] = [_call(call, declared) for call in calls]
    return made


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or (block.get("type") == "text" and isinstance(block.get("text"), str))


def _call(call: Mapping[str, Any], declared: Collection[str]) -> dict[str, Any]:
    """A tool call with a declared name or one that OpenAI allows, and with the text of a JSON object as arguments."""
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"] or "{}", parse_constant=str)
    except (ValueError, TypeError, RecursionError):
        arguments = {}
    text = valid_text(json.dumps(arguments if isinstance(arguments, dict) else {}, ensure_ascii=False))
    name = function["name"] or "unnamed"
    name = name if name in declared else _UNNAMED.sub("_", name)[:64]
    return {**call, "type": "function", "function": {**function, "name": name, "arguments": text}}


def _return_thinking(told: Sequence[dict[str, Any]], messages: Sequence[BaseMessage], shape: RequestShape) -> None:
    """Adds to each message with tool calls the thinking that came with it, in the fields that the server used.

    DeepSeek, Kimi, Gemini and others refuse the results of tools without it. In other messages it is not wanted.
    """
    for made, message in zip(told, messages, strict=True):
        if made["role"] != "assistant" or not isinstance(message, AIMessage):
            continue
        if made.get("tool_calls") and isinstance(fields := message.additional_kwargs.get(REASONING), Mapping):
            made.update(fields)
        if made.get("tool_calls") and isinstance(fields := message.additional_kwargs.get(THINKING_BLOCKS), Mapping):
            made.update({name: blocks_of(fragments) for name, fragments in fields.items()})
        signatures = message.additional_kwargs.get(SIGNATURES) or {}
        for call in made.get("tool_calls") or ():
            if call["id"] in signatures:
                call["extra_content"] = signatures[call["id"]]
        if shape.reasoning and not made.get(shape.reasoning):
            made[shape.reasoning] = _NO_REASONING


def _answered(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with exactly one result behind each tool call, in the order of the calls, and no other results."""
    results = {one["tool_call_id"]: one for one in messages if one["role"] == "tool"}
    made: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            continue
        made.append(message)
        for call in message.get("tool_calls") or ():
            none = {"role": "tool", "tool_call_id": call["id"], "content": _NO_RESULT}
            made.append(results.get(call["id"], none))
    return made


def _with_system(messages: Sequence[dict[str, Any]], shape: RequestShape) -> list[dict[str, Any]]:
    """The messages with the system prompt in the role that the server has for it."""
    if shape.system_role is None or not messages or messages[0]["role"] not in ("system", "developer"):
        return list(messages)
    system, *others = messages
    if shape.system_role != "user":
        return [{**system, "role": shape.system_role}, *others]
    first = others[0] if others else None
    if first is None or first["role"] != "user":
        return [{**system, "role": "user"}, *others]
    content = first["content"]
    if isinstance(content, str):
        joined: Any = f"{system['content']}\n\n{content}"
    else:
        joined = [{"type": "text", "text": system["content"]}, *content]
    return [{**first, "content": joined}, *others[1:]]


def _fit(message: Mapping[str, Any], shape: RequestShape) -> dict[str, Any]:
    made = {key: value for key, value in message.items() if key not in shape.without}
    if shape.null_content and made.get("tool_calls") and not made["content"]:
        made["content"] = None
    return made
