"""What a chat model tells of a call beside its chunks: LangChain's custom events, and keys in a chunk's metadata."""

from contextlib import suppress
from typing import Any

from langchain_core.callbacks import adispatch_custom_event

PROGRESS = "prompt_progress"
"""Name of the custom event by which a model tells how far it has read: {"read": tokens, "total": tokens}."""
NOTICE = "model_notice"
"""Name of the custom event by which a model tells the visitor something about its request: {"content": sentence}."""
ANSWERED = "model_answered"
"""Name of the custom event for the first byte of a model's answer, which may come long before its first token: {}."""
TOOL_INPUT = "model_tool_input"
"""Name of the custom event for a piece of a tool call's arguments: {"tool", "tool_call_id", "delta"}."""
WHOLE_CALLS = "whole_calls"
"""Key in the metadata of a chunk whose tool calls have been told by TOOL_INPUT while they were written."""
TIMINGS = "timings"
"""Key in a reply's metadata for what llama.cpp measured."""


async def tell(name: str, data: dict[str, Any]) -> None:
    """Dispatches a custom event; a model that is used outside of an agent's run tells nobody."""
    with suppress(RuntimeError):
        await adispatch_custom_event(name, data)
