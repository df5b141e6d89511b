"""Tool calls, told as they happen: LangChain's own events carry no `tool_call_id`, and a tool that raises would end the
run and leave its siblings without an end.

Whatever goes wrong with a call becomes an observation for the model: an error, a time-out, a refusal, a cancel.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import ToolMessage

from agent.tool_results import plain_result, result_message
from agent.tools.streaming import output_listener
from runs.text import valid_text
from runs.threads import Threads, use_threads
from runs.tool_calls import ToolCalls

if TYPE_CHECKING:
    from langchain.agents.middleware import ToolCallRequest
    from langgraph.types import Command

TOOL_START, TOOL_OUTPUT, TOOL_END = "glassbox_tool_start", "glassbox_tool_output", "glassbox_tool_end"
APPROVAL, STATUS = "glassbox_approval", "glassbox_status"
"""Names of the custom events that carry the fields of our events; any tool may dispatch others."""
_MOST_ERROR = 2000
"""Characters of an error that are told."""
_MOST_INPUT = 20_000
_MOST_DIRECT = 100_000
"""Characters of a result that is the reply itself."""
_ENDING_S = 0.45
"""For a tool to end in when its call is cancelled; after that it is left to itself."""
_MOST_THREADS = 64
_BUSY = f"all {_MOST_THREADS} threads for tools are held by calls that have not ended; try again later"
_THREADS = Threads("tools", _MOST_THREADS, refusal=_BUSY)
"""For tools that are not async. Nothing ends a thread: a call that has timed out holds one until its tool returns."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all tool calls: those that need an approval, seconds for one, characters of a result."""

    approval: frozenset[str] = frozenset()
    seconds: float = 60.0
    characters: int = 6000
    direct: frozenset[str] = frozenset()
    """Tools whose result is the reply (`return_direct=True`); it is not cut after `characters`."""


class _Failed(Exception):
    """Why a call gave no result: `error` for people, `text` for the model."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(error)
        self.error, self.text = error, text


def tool_middleware(calls: ToolCalls, rules: Rules) -> Any:
    """Middleware that tells each call's start, outputs, approval and end, and bounds it."""
    from langchain.agents.middleware import AgentMiddleware

    class ToolMiddleware(AgentMiddleware[Any, Any, Any]):
        async def awrap_tool_call(
            self,
            request: "ToolCallRequest",
            handler: "Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]",
        ) -> Any:
            call, begun = request.tool_call, time.monotonic()
            told = {"tool": call["name"], "tool_call_id": str(call["id"])}
            await adispatch_custom_event(TOOL_START, {**told, "input": shown(call["args"])})
            error = None
            try:
                most = _MOST_DIRECT if call["name"] in rules.direct else rules.characters
                result: Any = plain_result(await _watched(calls, rules, told, request, handler), call, most)
            except _Failed as e:
                error = e.error
                result = ToolMessage(e.text, tool_call_id=call["id"], name=call["name"], status="error")
            message = result_message(result)
            output = message.text if message else ""
            if error is None and message and message.status == "error":
                error = output[:_MOST_ERROR]
            ended = {"output": output, "duration_s": round(time.monotonic() - begun, 3), "error": error}
            await adispatch_custom_event(TOOL_END, {**told, **ended})
            if error and call["name"] in rules.approval and calls.any_open and not calls.awaiting_approval:
                await adispatch_custom_event(STATUS, {"phase": "tool", "content": "Calling the other tools"})
            return result

    return ToolMiddleware()


async def _watched(calls: ToolCalls, rules: Rules, told: dict[str, str], request: Any, handler: Any) -> Any:
    """The call in a task of its own, so that it can be ended alone. Raises _Failed."""
    call_id = told["tool_call_id"]
    work = asyncio.create_task(_allowed(calls, rules, told, request, handler), name=f"call {call_id}")
    calls.begin(call_id, work)
    try:
        await asyncio.wait({work})
    finally:
        calls.end(call_id)
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=_ENDING_S)
    if work.cancelled() and call_id not in calls.cancelled:
        raise _Failed("it was cancelled", "The tool failed: it was cancelled.")
    if work.cancelled():
        raise _Failed("cancelled by the visitor", "The visitor cancelled this call. Go on without its result.")
    return work.result()


async def _allowed(calls: ToolCalls, rules: Rules, told: dict[str, str], request: Any, handler: Any) -> Any:
    """The call, after a person has allowed it where the rules want that."""
    call = request.tool_call
    if call["id"] in calls.invalid:
        error = "its arguments are no JSON object"
        raise _Failed(error, f"The tool was not called: {error}. Call it again with arguments that are one.")
    if told["tool"] in rules.approval:
        await adispatch_custom_event(APPROVAL, {**told, "input": shown(call["args"])})
        answer = await calls.wait_for_answer(told["tool_call_id"])
        if not answer.approved:
            raise _Failed("refused by the visitor", "The visitor refused this call. Go on without it.")
        said, edited = f"Calling {told['tool']}", None
        if answer.input is not None and answer.input not in (call["args"], shown(call["args"])):
            request = request.override(tool_call={**call, "args": answer.input})
            edited = shown(answer.input)
            said += f" with an input of yours: {json.dumps(answer.input, ensure_ascii=False)[:_MOST_ERROR]}"
        others = calls.awaiting_approval
        phase = {"phase": "approval" if others else "tool", "content": said}
        await adispatch_custom_event(STATUS, {**phase, "tool_call_id": told["tool_call_id"], "edited": edited})
    return await _timed(rules.seconds, told, request, handler)


async def _timed(seconds: float, told: dict[str, str], request: Any, handler: Any) -> Any:
    from langgraph.errors import GraphBubbleUp

    async def tell(chunk: str) -> None:
        if text := valid_text(chunk):
            await adispatch_custom_event(TOOL_OUTPUT, {**told, "chunk": text})

    async def call() -> Any:
        use_threads(_THREADS)  # LangChain runs a tool that is not async in the default executor
        with output_listener(tell):
            return await handler(request)

    work = asyncio.create_task(call())
    try:
        await asyncio.wait({work}, timeout=seconds)
    finally:
        late = not work.done()
        if late:
            work.cancel()
            await asyncio.wait({work}, timeout=_ENDING_S)
    if late:
        error = f"it took longer than {seconds:g} s"
        raise _Failed(error, f"The tool failed: {error}.")
    try:
        return work.result()
    except GraphBubbleUp:
        raise
    except Exception as e:
        error = error_of(e)
        raise _Failed(error, failure_text(error)) from e


def error_of(exception: Exception) -> str:
    """A tool's exception as people are told of it."""
    return valid_text(str(exception) or type(exception).__name__)[:_MOST_ERROR]


def failure_text(error: str) -> str:
    """What the model is told instead of a result."""
    return f"The tool failed: {error}"


def shown(arguments: Any) -> Any:
    """A call's input as JSON can hold it, or the beginning of one that is too long to be told."""
    text = valid_text(json.dumps(arguments, ensure_ascii=False, default=str))
    return (
        json.loads(text, parse_constant=str) if len(text) <= _MOST_INPUT else {"input": f"{text[:_MOST_INPUT]} [cut]"}
    )
