"""Chunks of a model's stream: their thinking, text, tool arguments and usage, in the forms of all providers."""

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
    """The state of one model call's stream."""

    tags: Tags = field(default_factory=Tags)
    half: str = ""
    half_thought: str = ""
    """The first half of a character whose second half may come with the next text, or thinking."""
    usage: Figures | None = None
    """The latest token counts."""
    tools: Mapping[Any, tuple[str, str]] = field(default_factory=dict)
    """The id and name of each tool call that has begun, by its index."""
    logprobs: tuple[events.JSON, ...] = ()
    """Probabilities of tokens whose text is held back."""
    grown: bool | None = None
    """Whether the token counts are cumulative; None before the second ones."""


def read_chunk(chunk: AIMessage, call: CallState) -> tuple[str, str, CallState]:
    """Returns the thinking and the text in a chunk, and the next state of its call."""
    if chunk.usage_metadata:
        call = _counted(call, _figures(chunk.usage_metadata))
    thought, text = _thought(chunk), chunk.text + _unshown(chunk)
    if thought and not call.tags.begun:  # the server removes the thinking from the text
        call = replace(call, tags=replace(call.tags, opened=False, apart=True))
    if thought or call.half_thought:
        thought, half = _without_half(call.half_thought + thought)
        if text:  # the other half cannot follow it
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
    """Returns the deltas of tool arguments in a chunk, all arguments in it, and the next state of its call.

    A tool call that comes whole in one chunk has no delta.
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
    """Splits off the first half of a surrogate pair at the end: a provider may send the halves in two deltas."""
    return (text[:-1], text[-1]) if "\ud800" <= text[-1:] <= "\udbff" else (text, "")


def flush_call(call: CallState, *, whole: bool = False) -> tuple[str, str, CallState]:
    """Returns what was held back when the call ended, as thinking and as text, and the final state.

    `whole` means that the model ended its reply itself: see `agent.thinking_tags.rest`.
    """
    thought, text, tags = rest(call.tags, whole=whole)
    inside = tags.inside and tags.thinks is not False
    thought, text = (thought + call.half, text) if inside else (thought, text + call.half)
    return call.half_thought + thought, text, replace(call, tags=tags)


def final_usage(output: Any, call: CallState) -> dict[str, int] | None:
    """Returns the provider's final counts. LangChain sums the chunks' counts, which may be cumulative."""
    usage = output.usage_metadata if isinstance(output, AIMessage) else None
    if not usage:
        return None
    if call.grown and call.usage:  # the sums of cumulative details are wrong
        return dict(zip(("input_tokens", "output_tokens"), call.usage, strict=True))
    given, received = _figures(usage)
    return {"input_tokens": given, "output_tokens": received, **_details(usage)}


def reasoning_tokens(output: Any) -> int:
    """Returns the number of thinking tokens among the output tokens; 0 where the provider does not count them."""
    usage = output.usage_metadata if isinstance(output, AIMessage) else None
    return int((usage.get("output_token_details") or {}).get("reasoning") or 0) if usage else 0


def _details(usage: Mapping[str, Any]) -> dict[str, int]:
    """Returns the tokens that the provider read from its cache, and those of thinking, where there are any."""
    found = {
        "cached_tokens": (usage.get("input_token_details") or {}).get("cache_read"),
        "reasoning_tokens": (usage.get("output_token_details") or {}).get("reasoning"),
    }
    return {name: int(tokens) for name, tokens in found.items() if tokens}


def _counted(call: CallState, counts: Figures) -> CallState:
    """Updates the counts. Increments have the input tokens once, then zero; cumulative counts have them each time."""
    last = call.usage
    if last is None:
        return replace(call, usage=counts)
    grown = call.grown is not False and last[0] > 0 and counts[0] >= last[0] and counts[1] >= last[1]
    return replace(call, usage=counts, grown=grown)


def _figures(usage: Mapping[str, Any]) -> Figures:
    return int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0)


def _thought(chunk: AIMessage) -> str:
    """Returns the visible thinking: a field of OpenAI-compatible servers, or the content blocks of others."""
    if field := chunk.additional_kwargs.get("reasoning_content"):
        return _words(field)
    return "".join(_block_thought(block) for block in _blocks(chunk) if block.get("type") in _THOUGHTS)


def _block_thought(block: Mapping[str, Any]) -> str:
    return _words(block.get("reasoning") or block.get("thinking") or block.get("summary"))


def _words(value: Any) -> str:
    """Returns a text, or the texts of a list of parts, as in Mistral's thinking and OpenAI's summaries."""
    if isinstance(value, list):
        return "".join(_words(part) for part in value if isinstance(part, dict))
    if isinstance(value, dict):
        return _words(value.get("text") or value.get("content"))
    return str(value or "")


def _blocks(chunk: AIMessage) -> list[dict[str, Any]]:
    return [] if isinstance(chunk.content, str) else [b for b in chunk.content if isinstance(b, dict)]


def _unshown(chunk: AIMessage) -> str:
    """Returns the names of content blocks that the page cannot show."""
    kinds = [str(block["type"]).removesuffix("_url") for block in _blocks(chunk) if block.get("type") in _UNSHOWN]
    return "".join(f"[{kind}: not shown here]" for kind in kinds)
