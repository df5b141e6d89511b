"""One piece of a model's stream as thought and text, whatever the provider calls them, and its usage at the end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from agent.thinking_tags import Tags, rest, split
from runs import events
from runs.text import valid_text

_THOUGHTS = {"reasoning", "thinking"}
_UNSHOWN = {"image", "image_url", "audio", "video", "file"}

Figures = tuple[int, int]
"""Tokens of input and output."""


@dataclass(frozen=True, slots=True)
class CallState:
    """What one model call has streamed so far."""

    tags: Tags = field(default_factory=Tags)
    half: str = ""
    half_thought: str = ""
    """The first half of a character whose second one may come with the next piece of text, or of thinking."""
    usage: Figures | None = None
    """The latest figures that it told."""
    tools: Mapping[Any, tuple[str, str]] = field(default_factory=dict)
    """The id and the name of each tool call that has begun, by its index."""
    grown: bool | None = None
    """Whether each told figures grew out of the ones before; None while there were not two."""


def read_chunk(chunk: AIMessage, call: CallState) -> tuple[str, str, CallState]:
    """The thought and the text in a chunk, and the call with it."""
    if chunk.usage_metadata:
        call = _counted(call, _figures(chunk.usage_metadata))
    thought, text = _thought(chunk), chunk.text + _unshown(chunk)
    if thought and not call.tags.begun:  # the server takes the thinking out of the text
        call = replace(call, tags=replace(call.tags, opened=False, apart=True))
    if thought or call.half_thought:
        thought, half = _without_half(call.half_thought + thought)
        if text:  # behind it the other half cannot come any more
            thought, half = thought + half, ""
        call = replace(call, half_thought=half)
    if text or call.half:
        text, half = _without_half(call.half + text)
        call = replace(call, half=half)
    if text and not call.tags.settled:
        tagged, text, tags = split(text, call.tags)
        thought, call = thought + tagged, replace(call, tags=tags)
    return thought, text, call


def read_tool_inputs(chunk: AIMessage, call: CallState) -> tuple[list[events.ToolInput], str, CallState]:
    """The pieces of tool calls' arguments in a chunk, all that is written of them, and the call with what it says.

    A call that comes whole in one chunk is no piece: nobody has seen it being written.
    """
    found, written = [], ""
    for one in chunk.tool_call_chunks if isinstance(chunk, AIMessageChunk) else ():
        arguments, begins = one["args"] or "", bool(one["id"] and one["name"])
        written += arguments
        if begins:
            call = replace(call, tools={**call.tools, one["index"]: (str(one["id"]), str(one["name"]))})
        known = call.tools.get(one["index"])
        if known and arguments and not (begins and _is_object(arguments)):
            found.append(events.ToolInput(known[1], known[0], valid_text(arguments)))
    return found, written, call


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False


def _without_half(text: str) -> tuple[str, str]:
    """The text, and the first half of a surrogate pair at its end: JSON's escapes may put the two into two deltas."""
    return (text[:-1], text[-1]) if "\ud800" <= text[-1:] <= "\udbff" else (text, "")


def flush_call(call: CallState, *, whole: bool = False) -> tuple[str, str, CallState]:
    """What was held back when the call ended, as thought or text after all, and the call with it.

    `whole` says that the model ended its reply by itself: see `agent.thinking_tags.rest`.
    """
    thought, text, tags = rest(call.tags, whole=whole)
    inside = tags.inside and tags.thinks is not False
    thought, text = (thought + call.half, text) if inside else (thought, text + call.half)
    return call.half_thought + thought, text, replace(call, tags=tags)


def final_usage(output: Any, call: CallState) -> dict[str, int] | None:
    """The provider's final figures. LangChain adds up what the chunks tell, which is wrong where that is cumulative."""
    usage = output.usage_metadata if isinstance(output, AIMessage) else None
    if not usage:
        return None
    given, received = call.usage if call.grown and call.usage else _figures(usage)
    return {"input_tokens": given, "output_tokens": received}


def reasoning_tokens(output: Any) -> int:
    """The tokens of thinking that the provider counted in its figures of the output; 0 where it did not."""
    usage = output.usage_metadata if isinstance(output, AIMessage) else None
    return int((usage.get("output_token_details") or {}).get("reasoning") or 0) if usage else 0


def _counted(call: CallState, told: Figures) -> CallState:
    """Increments name the input once, and zero after that; cumulative figures name it each time."""
    last = call.usage
    if last is None:
        return replace(call, usage=told)
    grown = call.grown is not False and last[0] > 0 and told[0] >= last[0] and told[1] >= last[1]
    return replace(call, usage=told, grown=grown)


def _figures(usage: Mapping[str, Any]) -> Figures:
    return int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0)


def _thought(chunk: AIMessage) -> str:
    """The visible thinking in a chunk: the field that OpenAI's imitators use, or the content blocks of others."""
    if field := chunk.additional_kwargs.get("reasoning_content"):
        return _words(field)
    return "".join(_block_thought(block) for block in _blocks(chunk) if block.get("type") in _THOUGHTS)


def _block_thought(block: Mapping[str, Any]) -> str:
    return _words(block.get("reasoning") or block.get("thinking") or block.get("summary"))


def _words(value: Any) -> str:
    """A text, or those of a list of parts: Mistral's thinking and OpenAI's summaries come so."""
    if isinstance(value, list):
        return "".join(_words(part) for part in value if isinstance(part, dict))
    if isinstance(value, dict):
        return _words(value.get("text") or value.get("content"))
    return str(value or "")


def _blocks(chunk: AIMessage) -> list[dict[str, Any]]:
    return [] if isinstance(chunk.content, str) else [b for b in chunk.content if isinstance(b, dict)]


def _unshown(chunk: AIMessage) -> str:
    """Says by name what a model sent that this page cannot show."""
    kinds = [str(block["type"]).removesuffix("_url") for block in _blocks(chunk) if block.get("type") in _UNSHOWN]
    return "".join(f"[{kind}: not shown here]" for kind in kinds)
