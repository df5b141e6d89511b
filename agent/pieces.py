"""One piece of a model's stream as thought and text, whatever the provider calls them, and its usage at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage

_THOUGHTS = {"reasoning", "thinking"}
_UNSHOWN = {"image", "image_url", "audio", "video", "file"}
_OPEN, _CLOSE = "<think>", "</think>"

Figures = tuple[int, int]
"""Tokens of input and output."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one model call has streamed so far."""

    begun: bool = False
    """Whether there was text, so that a <think> tag can no longer begin it."""
    inside: bool = False
    """Whether the text stands within such tags."""
    fresh: bool = False
    """Whether they have just been closed: the line ends that follow belong to them."""
    held: str = ""
    """Text that may yet become a tag."""
    usage: Figures | None = None
    """The latest figures that it told."""
    grown: bool | None = None
    """Whether each told figures grew out of the ones before; None while there were not two."""


def read_piece(chunk: AIMessage, call: Call) -> tuple[str, str, Call]:
    """The thought and the text in a chunk, and the call with it."""
    if chunk.usage_metadata:
        call = _counted(call, _figures(chunk.usage_metadata))
    thought, text = _thought(chunk), chunk.text + _unshown(chunk)
    if text and (not call.begun or call.inside or call.fresh):
        tagged, text, call = _untagged(text, call)
        thought += tagged
    return thought, text, call


def held_back(call: Call) -> tuple[str, str]:
    """What was taken for the beginning of a tag when the call ended: thought or text after all."""
    return (call.held, "") if call.inside else ("", call.held)


def final_usage(output: Any, call: Call) -> dict[str, int] | None:
    """The provider's final figures. LangChain adds up what the chunks tell, which is wrong where that is cumulative."""
    usage = output.usage_metadata if isinstance(output, AIMessage) else None
    if not usage:
        return None
    given, received = call.usage if call.grown and call.usage else _figures(usage)
    return {"input_tokens": given, "output_tokens": received}


def _counted(call: Call, told: Figures) -> Call:
    """Increments name the input once, and zero after that; cumulative figures name it each time."""
    last = call.usage
    if last is None:
        return replace(call, usage=told)
    grown = call.grown is not False and last[0] > 0 and told[0] >= last[0] and told[1] >= last[1]
    return replace(call, usage=told, grown=grown)


def _figures(usage: Mapping[str, Any]) -> Figures:
    return int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0)


def _untagged(text: str, call: Call) -> tuple[str, str, Call]:
    """Splits a reply that begins with <think>…</think> into thought and text: some servers leave the tags in."""
    text = call.held + text
    if not call.begun:
        start = text.lstrip()
        if len(start) < len(_OPEN) and _OPEN.startswith(start):
            return "", "", replace(call, held=text)
        call = replace(call, begun=True, inside=start.startswith(_OPEN), held="")
        text = start[len(_OPEN) :] if call.inside else text
    if not call.inside:
        text = text.lstrip("\n") if call.fresh else text
        return "", text, replace(call, held="", fresh=call.fresh and not text)
    thought, closed, after = text.partition(_CLOSE)
    if closed:
        after = after.lstrip("\n")
        return thought, after, replace(call, inside=False, held="", fresh=not after)
    kept = next((n for n in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:n])), 0)
    cut = len(thought) - kept
    return thought[:cut], "", replace(call, held=thought[cut:])


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
