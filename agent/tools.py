"""Tool calls, told as they happen: LangChain's own events carry no `tool_call_id`, and a tool that raises would end the
run and leave its siblings without an end.
"""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import ToolMessage

if TYPE_CHECKING:
    from langchain.agents.middleware import ToolCallRequest
    from langgraph.types import Command

TOOL_START, TOOL_END = "tool_start", "tool_end"
"""Names of the custom events that carry the fields of a `ToolStart` and a `ToolEnd`."""
_MOST = 2000
"""Characters of an error that are told."""


def tool_middleware() -> Any:
    """Middleware that tells each call's start and end, and makes an error an observation for the model."""
    from langchain.agents.middleware import AgentMiddleware
    from langgraph.errors import GraphBubbleUp

    class ToolMiddleware(AgentMiddleware[Any, Any, Any]):
        async def awrap_tool_call(
            self,
            request: "ToolCallRequest",
            handler: "Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]",
        ) -> "ToolMessage | Command[Any]":
            call, begun, error = request.tool_call, time.monotonic(), None
            told = {"tool": call["name"], "tool_call_id": call["id"]}
            await adispatch_custom_event(TOOL_START, {**told, "input": call["args"]})
            try:
                result = await handler(request)
            except GraphBubbleUp:
                raise
            except Exception as e:
                error = (str(e) or type(e).__name__)[:_MOST]
                text = f"The tool failed: {error}"
                result = ToolMessage(text, tool_call_id=call["id"], name=call["name"], status="error")
            output = result.text if isinstance(result, ToolMessage) else ""
            if error is None and isinstance(result, ToolMessage) and result.status == "error":
                error = output[:_MOST]
            ended = {"output": output, "duration_s": round(time.monotonic() - begun, 3), "error": error}
            await adispatch_custom_event(TOOL_END, {**told, **ended})
            return result

    return ToolMiddleware()
