"""What a chat model tells of a call beside its chunks: LangChain's custom events, and keys in a chunk's metadata."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import adispatch_custom_event

PROGRESS = "prompt_progress"
"""Name of the custom event by which a model tells how far it has read: {"read": tokens, "total": tokens}."""
NOTICE = "model_notice"
"""Name of the custom event by which a model tells the visitor something about its request: {"content": sentence}."""
RESPONSE_STARTED = "model_answered"
"""Name of the custom event for the first byte of a model's answer, which may come long before its first token: {}."""
TOOL_INPUT = "model_tool_input"
"""Name of the custom event for a piece of a tool call's arguments: {"tool", "tool_call_id", "delta"}."""
COMPLETE_TOOL_CALLS = "whole_calls"
"""Key in the metadata of a chunk whose tool calls have been told by TOOL_INPUT while they were written."""
TIMINGS = "timings"
"""Key in a reply's metadata for what llama.cpp measured."""

_name: ContextVar[Callable[[str], str] | None] = ContextVar("name", default=None)


@contextmanager
def mapped_call_ids(name: Callable[[str], str]) -> Iterator[None]:
    """Within this block, what is told of a tool call's arguments has the id that `name` makes of the server's."""
    token = _name.set(name)
    try:
        yield
    finally:
        _name.reset(token)


async def dispatch_tool_input(piece: dict[str, str]) -> None:
    """Tells a piece of a tool call's arguments, as TOOL_INPUT has it, with the server's own id of the call."""
    name, call_id = _name.get(), piece["tool_call_id"]
    await dispatch(TOOL_INPUT, {**piece, "tool_call_id": name(call_id) if name else call_id})


async def dispatch(name: str, data: dict[str, Any]) -> None:
    """Dispatches a custom event; a model that is used outside of an agent's run tells nobody."""
    with suppress(RuntimeError):
        await adispatch_custom_event(name, data)
