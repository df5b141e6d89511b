"""Requests in OpenAI's protocol, in the form that strict servers accept.

The protocol: https://platform.openai.com/docs/api-reference/chat/create. Many servers check more than OpenAI, or know
fewer fields. Requests use what all servers accept; a `RequestShape` describes the needs of one server.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from backends.request_shape import FIXED, RequestShape
from backends.thinking_blocks import THINKING_BLOCKS, blocks_of
from runs.text import valid_text

REASONING = "reasoning_fields"
"""The key in a reply's `additional_kwargs` for its thinking, by the name of the server's field."""
SIGNATURES = "tool_call_signatures"
"""The key in a reply's `additional_kwargs` for Google's `extra_content` of tool calls, by the calls' ids."""
_NO_RESULT = "[no result]"
_NO_REASONING = " "
"""The text for missing thinking: Kimi rejects an empty one; Kimi and DeepSeek accept a space."""
_UNNAMED = re.compile(r"[^A-Za-z0-9_-]")


def apply_shape(payload: Mapping[str, Any], messages: Sequence[BaseMessage], shape: RequestShape) -> dict[str, Any]:
    """Returns the body of a request in this shape; `messages` are those from which the payload was made."""
    names = {key: key if key in FIXED else shape.name(key) for key in payload}
    if "logprobs" in names and names["logprobs"] is None:
        names["top_logprobs"] = None  # allowed only beside it
    made = {key: value for key, value in payload.items() if names[key] == key and key != "extra_body"}
    given = (payload.get("extra_body") or {}).items()
    extra = {name: value for key, value in given if (name := shape.fields.get(key, key))}
    # the SDK accepts only its own names; others go into its `extra_body`, which it merges into the body
    if extra := extra | {name: payload[key] for key, name in names.items() if name and name != key}:
        made["extra_body"] = extra
    if "messages" in payload:
        declared = {tool.get("function", {}).get("name") for tool in payload.get("tools") or ()}
        plain = [_plain(message, declared) for message in payload["messages"]]
        _return_thinking(plain, messages, shape)
        made["messages"] = [_fit(message, shape) for message in _with_system(_with_results(plain), shape)]
    return made


def logprob_fields(alternatives: int) -> dict[str, Any]:
    """Returns the fields of LangChain's OpenAI model that ask for probabilities.

    At least one alternative is asked for: llama.cpp takes 0 as a request without probabilities.
    """
    return {"logprobs": True, "top_logprobs": max(1, alternatives)}


def with_thinking(fields: Mapping[str, Any] | None, thinking: bool | None) -> dict[str, Any]:
    """Returns the further fields of a request with the switch of Qwen's chat templates, which most servers pass on.

    None leaves the template's default.
    """
    given = dict(fields or {})
    if thinking is None:
        return given
    return {**given, "chat_template_kwargs": {**given.get("chat_template_kwargs", {}), "enable_thinking": thinking}}


def thinking_fields(delta: Mapping[str, Any]) -> dict[str, str]:
    """Returns the thinking in a delta by the name of its field, so that it can be sent back in that field."""
    return {name: delta[name] for name in ("reasoning_content", "reasoning") if isinstance(delta.get(name), str)}


def call_signatures(delta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `extra_content` of a delta's tool calls by their ids; Gemini requires its thought signatures back.

    Source: https://ai.google.dev/gemini-api/docs/thought-signatures, "OpenAI compatibility".
    """
    calls = delta.get("tool_calls")
    known = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return {str(call["id"]): call["extra_content"] for call in known if call.get("id") and call.get("extra_content")}


def _plain(message: Mapping[str, Any], declared: Collection[str]) -> dict[str, Any]:
    """A message without a name, with text content where it is only text, and with valid tool calls."""
    made = {key: value for key, value in message.items() if key != "name"}
    content = made.get("content")
    if made["role"] != "assistant" and isinstance(content, list) and all(_is_text(block) for block in content):
        made["content"] = "\n".join(block if isinstance(block, str) else block["text"] for block in content)
    if made["role"] == "tool":
        made["content"] = made["content"] if isinstance(made["content"], str) else json.dumps(made["content"])
        made["content"] = made["content"] or "[no output]"
    if made["role"] == "assistant":
        if isinstance(content, list):  # thinking is not part of the text
            texts = (block for block in content if _is_text(block))
            made["content"] = "".join(block if isinstance(block, str) else block["text"] for block in texts)
        made["content"] = made.get("content") or ""
        if calls := made.get("tool_calls"):
            made["tool_calls"] = [_call(call, declared) for call in calls]
    return made


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or (block.get("type") == "text" and isinstance(block.get("text"), str))


def _call(call: Mapping[str, Any], declared: Collection[str]) -> dict[str, Any]:
    """A tool call with a declared or allowed name, and with a JSON object as arguments."""
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"] or "{}", parse_constant=str)
    except (ValueError, TypeError, RecursionError):
        arguments = {}
    text = valid_text(json.dumps(arguments if isinstance(arguments, dict) else {}, ensure_ascii=False))
    name = function["name"] or "unnamed"
    name = name if name in declared else _UNNAMED.sub("_", name)[:64]
    return {**call, "type": "function", "function": {**function, "name": name, "arguments": text}}


def _return_thinking(plain: Sequence[dict[str, Any]], messages: Sequence[BaseMessage], shape: RequestShape) -> None:
    """Adds the thinking to each message with tool calls, in the server's own fields.

    DeepSeek, Kimi, Gemini and others reject tool results without it, and some reject it in other messages.
    """
    for made, message in zip(plain, messages, strict=True):
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


def _with_results(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with exactly one result after each tool call, in the order of the calls, and no other results."""
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
    """The messages with the system prompt in the server's role for it."""
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
