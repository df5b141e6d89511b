"""Inputs and results of tool calls as plain JSON and text: the only forms that every model server accepts.

LangChain lets a tool return content blocks (as MCP servers do), other objects, or a whole `ToolMessage`. An image that
can be shown becomes an attachment; any other block without text is replaced by the name of its kind.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agent.mcp.results import MOST_ATTACHMENTS, image_attachment
from runs.events import JSON
from runs.text import valid_text

if TYPE_CHECKING:
    from langchain_core.messages import ToolCall


class Attachments(list[JSON]):
    """The attachments of a result, as its `artifact`; other tools may have an artifact of any kind."""


NO_OUTPUT = "[no output]"
"""Replaces an empty result: some servers refuse a message without text."""
_MOST_INPUT = 20_000
"""Longest input of an event, in characters of JSON."""
_SHOWN = {"type": "text", "text": "[image: shown to the visitor]"}
_NESTED = ("text", "content", "resource", "json")
"""Fields in which a block has its text, as a string or as further blocks."""
_DEEPEST = 5


def input_for_display(arguments: Any) -> Any:
    """Returns a call's arguments as JSON can hold them; of long ones the beginning, as {"input": text}."""
    text = valid_text(json.dumps(arguments, ensure_ascii=False, default=str))
    return (
        json.loads(text, parse_constant=str) if len(text) <= _MOST_INPUT else {"input": f"{text[:_MOST_INPUT]} [cut]"}
    )


def plain_result(result: Any, call: "ToolCall", most: int) -> Any:
    """Returns the result of a tool call with text alone, of at most `most` characters, under the id of its call.

    `result` is a `ToolMessage`, a LangGraph `Command`, or a list of both; anything else is returned as it is.
    """
    if isinstance(result, list):
        return [plain_result(one, call, most) for one in result]
    if isinstance(result, ToolMessage):
        content, images = _without_images(result.content)
        text = shortened(text_of_result(content) or NO_OUTPUT, most)
        changes: dict[str, Any] = {"content": text, "tool_call_id": call["id"], "name": call["name"]}
        if images and not isinstance(result.artifact, Attachments):
            changes["artifact"] = images
        return result.model_copy(update=changes)
    update = getattr(result, "update", None)
    if isinstance(update, Mapping) and isinstance(update.get("messages"), list):
        messages = [
            plain_result(one, call, most) if isinstance(one, ToolMessage) else one for one in update["messages"]
        ]
        return replace(result, update={**update, "messages": messages})
    return result


def result_message(result: Any) -> ToolMessage | None:
    """Returns the tool message in the result of a tool call, None if there is none."""
    if isinstance(result, ToolMessage):
        return result
    update = getattr(result, "update", None)
    inner = result if isinstance(result, list) else update.get("messages") if isinstance(update, Mapping) else None
    found = (result_message(one) for one in inner or () if not isinstance(one, str))
    return next((one for one in found if one is not None), None)


def attachments_of(message: ToolMessage | None) -> list[JSON] | None:
    """Returns what is attached to a tool's result for people, None if that is nothing."""
    found = message.artifact if message else None
    return found if isinstance(found, Attachments) and found else None


def _without_images(content: Any) -> tuple[Any, Attachments]:
    """Returns a result's content with a text in place of each image that is shown, and those images."""
    if not isinstance(content, list):
        return content, Attachments()
    blocks, images = list[Any](), Attachments()
    for block in content:
        data = _image_data(block) if isinstance(block, Mapping) and len(images) < MOST_ATTACHMENTS else ""
        image = image_attachment(data, "Image") if data else ""
        if isinstance(image, dict):
            images.append(image)
        blocks.append(_SHOWN if isinstance(image, dict) else block)
    return blocks, images


def _image_data(block: Mapping[str, Any]) -> str:
    """Returns the base64 data of an image in any of LangChain's and the providers' forms; empty without data."""
    if block.get("type") not in ("image", "image_url"):
        return ""
    url, source = block.get("image_url") or block.get("url"), block.get("source")
    if isinstance(url, Mapping):
        url = url.get("url")
    if isinstance(url, str):
        head, _, data = url.partition(";base64,")
        return data if head.startswith("data:image/") else ""
    found = block.get("base64") or block.get("data") or (source.get("data") if isinstance(source, Mapping) else "")
    return found if isinstance(found, str) else ""


def shortened(text: str, most: int) -> str:
    """Cuts the text after `most` characters and appends its full length."""
    return text if len(text) <= most else f"{text[:most]}\n[cut: it has {len(text):,} characters]"


def text_of_result(content: Any, depth: int = 0) -> str:
    """Returns the text of a result's content: its blocks joined by newlines, other objects as JSON."""
    if isinstance(content, str):
        return valid_text(content)
    if isinstance(content, Sequence) and not isinstance(content, bytes | bytearray) and depth < _DEEPEST:
        return "\n".join(text for block in content if (text := text_of_result(block, depth + 1)))
    if isinstance(content, Mapping) and "type" in content and depth < _DEEPEST:
        return _text_of_block(content, depth)
    return "" if content is None else valid_text(_as_json(content))


def direct_reply(messages: Sequence[BaseMessage], direct: Collection[str]) -> str | None:
    """Returns the latest tool results as the reply, None where a model must answer.

    `direct` names the tools with `return_direct=True`. A result that is an error is left to the model.
    """
    results: list[ToolMessage] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.insert(0, message)
    called = messages[-len(results) - 1] if len(messages) > len(results) else None
    names = {call["id"]: call["name"] for call in called.tool_calls} if isinstance(called, AIMessage) else {}
    found = [one.text for one in results if names.get(one.tool_call_id) in direct and one.status != "error"]
    return "\n\n".join(found) if found else None


def _text_of_block(block: Mapping[str, Any], depth: int) -> str:
    for field in _NESTED:
        if block.get(field) not in (None, ""):
            value = block[field]
            if field == "resource" and isinstance(value, Mapping):
                value = value.get("text") or f"[resource: {value.get('uri', '')}]"
            return text_of_result(value, depth + 1)
    if block["type"] == "text":
        return ""
    kind = str(block["type"]).removesuffix("_url")[:40]
    return f"[{kind}: not shown here]"


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)
