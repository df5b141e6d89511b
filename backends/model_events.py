"""Custom events of chat models, and keys of a chunk's metadata, for what LangChain's chunks have no field for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import adispatch_custom_event

PROGRESS = "prompt_progress"
"""The event of a model that reads its prompt: {"read": tokens, "total": tokens}."""
NOTICE = "model_notice"
"""The event of a sentence for the visitor about the request: {"content": sentence}."""
RESPONSE_STARTED = "model_response_started"
"""The event of a response's first byte, which may come long before the first token: {}."""
TOOL_INPUT = "model_tool_input"
"""The event of a delta of a tool call's arguments: {"tool", "tool_call_id", "delta"}."""
COMPLETE_TOOL_CALLS = "complete_tool_calls"
"""The metadata key of a chunk whose tool calls were also sent as TOOL_INPUT events."""
TIMINGS = "timings"
"""The metadata key of llama.cpp's measurements."""

_map_id: ContextVar[Callable[[str], str] | None] = ContextVar("map_id", default=None)


@contextmanager
def mapped_call_ids(map_id: Callable[[str], str]) -> Iterator[None]:
    """Maps the server's tool call ids in the TOOL_INPUT events of this block."""
    token = _map_id.set(map_id)
    try:
        yield
    finally:
        _map_id.reset(token)


async def dispatch_tool_input(delta: dict[str, str]) -> None:
    """Dispatches a TOOL_INPUT event; `delta` has the server's id of the call."""
    map_id, call_id = _map_id.get(), delta["tool_call_id"]
    await dispatch(TOOL_INPUT, {**delta, "tool_call_id": map_id(call_id) if map_id else call_id})


async def dispatch(name: str, data: dict[str, Any]) -> None:
    """Dispatches a custom event; does nothing outside of an agent's run."""
    with suppress(RuntimeError):
        await adispatch_custom_event(name, data)
