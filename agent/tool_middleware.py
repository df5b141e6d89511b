"""The middleware around each tool call: events, approval, timeout and errors.

LangChain's own tool events have no `tool_call_id`, and a tool that raises would end the run. Here every failure becomes
a result for the model: an error, a timeout, a refusal, a cancellation.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.messages import ToolMessage

from agent.event_mapper import dispatch_event
from agent.questions import question_handler
from agent.tool_results import attachments_of, input_for_display, plain_result, result_message
from agent.tool_set import ToolSet
from agent.tools.streaming import output_listener
from runs import events
from runs.text import valid_text
from runs.threads import Threads, use_threads
from runs.tool_calls import ApprovalAnswer, ToolCalls

if TYPE_CHECKING:
    from langchain.agents.middleware import ToolCallRequest
    from langgraph.types import Command

_MOST_ERROR = 2000
"""Longest error, in characters."""
_MOST_DIRECT = 100_000
"""Longest result that is the reply itself, in characters."""
_ENDING_S = 0.45
"""Seconds that a cancelled call may take to end; then it is left alone."""
_MOST_THREADS = 64
_BUSY = f"all {_MOST_THREADS} threads for tools are held by calls that have not ended; try again later"
_THREADS = Threads("tools", _MOST_THREADS, refusal=_BUSY)
"""Threads of tools that are not async. Nothing ends a thread: a call that timed out holds it until its tool returns."""


class _Failed(Exception):
    """A call that gave no result: `error` is for people, `text` for the model."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(error)
        self.error, self.text = error, text


@dataclass(frozen=True, slots=True)
class _Call:
    """One call on its way through the middleware."""

    request: "ToolCallRequest"
    handler: "Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]"
    calls: ToolCalls
    tool_set: ToolSet

    @property
    def id(self) -> str:
        return str(self.request.tool_call["id"])

    @property
    def tool(self) -> str:
        return self.request.tool_call["name"]

    @property
    def input(self) -> Any:
        return input_for_display(self.request.tool_call["args"])


def tool_middleware(calls: ToolCalls, tool_set: ToolSet) -> Any:
    """Returns the middleware that dispatches the events of each tool call and enforces the limits of the tool set."""
    from langchain.agents.middleware import AgentMiddleware

    class ToolMiddleware(AgentMiddleware[Any, Any, Any]):
        async def awrap_tool_call(
            self,
            request: "ToolCallRequest",
            handler: "Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]",
        ) -> Any:
            call, started = _Call(request, handler, calls, tool_set), time.monotonic()
            await dispatch_event(events.ToolStart(call.tool, call.id, call.input))
            error = None
            try:
                most = _MOST_DIRECT if call.tool in tool_set.direct else tool_set.result_characters
                result: Any = plain_result(await _run(call), request.tool_call, most)
            except _Failed as e:
                error = e.error
                result = ToolMessage(e.text, tool_call_id=request.tool_call["id"], name=call.tool, status="error")
            message = result_message(result)
            output = message.text if message else ""
            if error is None and message and message.status == "error":
                error = output[:_MOST_ERROR]
            duration = round(time.monotonic() - started, 3)
            attachments = attachments_of(message)
            await dispatch_event(events.ToolEnd(call.tool, call.id, output, duration, error, attachments))
            if error and call.tool in tool_set.approval and calls.any_open and not calls.awaiting_approval:
                await dispatch_event(events.Status("tool", "Calling the other tools"))
            return result

    return ToolMiddleware()


async def _run(call: _Call) -> Any:
    """Runs the call in a task of its own, so that it can be cancelled alone. Raises _Failed."""
    work = asyncio.create_task(_approved(call), name=f"call {call.id}")
    call.calls.begin(call.id, work)
    try:
        await asyncio.wait({work})
    finally:
        call.calls.end(call.id)
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=_ENDING_S)
    if work.cancelled() and call.id not in call.calls.cancelled:
        raise _Failed("it was cancelled", "The tool failed: it was cancelled.")
    if work.cancelled():
        raise _Failed("cancelled by the visitor", "The visitor cancelled this call. Continue without its result.")
    return work.result()


async def _approved(call: _Call) -> Any:
    """Waits for the visitor's approval where the tool needs one, then runs the call."""
    request = call.request
    if call.id in call.calls.invalid:
        error = "its arguments are no JSON object"
        raise _Failed(error, f"The tool was not called: {error}. Call it again with arguments that are one.")
    if call.tool in call.tool_set.approval:
        await dispatch_event(events.Approval(call.tool, call.id, call.input))
        answer = await call.calls.wait_for_answer(call.id)
        if not answer.approved:
            raise _Failed("refused by the visitor", "The visitor refused this call. Continue without it.")
        content, edited = f"Calling {call.tool}", None
        if answer.input is not None and answer.input not in (request.tool_call["args"], call.input):
            request = request.override(tool_call={**request.tool_call, "args": answer.input})
            edited = input_for_display(answer.input)
            content += f" with your input: {json.dumps(answer.input, ensure_ascii=False)[:_MOST_ERROR]}"
        phase: events.Phase = "approval" if call.calls.awaiting_approval else "tool"
        await dispatch_event(events.Status(phase, content, tool_call_id=call.id, edited=edited))
    return await _timed(call, request)


async def _timed(call: _Call, request: "ToolCallRequest") -> Any:
    from langgraph.errors import GraphBubbleUp

    async def on_output(chunk: str) -> None:
        if text := valid_text(chunk):
            await dispatch_event(events.ToolOutput(call.tool, call.id, text))

    async def handled() -> Any:
        use_threads(_THREADS)  # LangChain runs a tool that is not async in the default executor
        with output_listener(on_output), question_handler(partial(_ask, call)):
            return await call.handler(request)

    work, began = asyncio.create_task(handled()), time.monotonic()
    try:
        left = call.tool_set.seconds
        while left > 0 and not work.done():  # the time in which the visitor answers a question does not count
            await asyncio.wait({work}, timeout=left)
            left = began + call.tool_set.seconds + call.calls.asked_s(call.id) - time.monotonic()
    finally:
        late = not work.done()
        if late:
            work.cancel()
            await asyncio.wait({work}, timeout=_ENDING_S)
    if late:
        error = f"it took longer than {call.tool_set.seconds:g} s"
        raise _Failed(error, failure_text(f"{error}."))
    try:
        return work.result()
    except GraphBubbleUp:
        raise
    except Exception as e:
        error = error_text(e)
        raise _Failed(error, failure_text(error)) from e


async def _ask(call: _Call, question: events.JSON) -> ApprovalAnswer:
    """Asks the visitor a question of a running tool, as a call of its own, and returns the answer."""
    question_id, began, error, output = f"{call.id}-question-{uuid4().hex[:8]}", time.monotonic(), "cancelled", ""
    await dispatch_event(events.ToolStart(events.QUESTION, question_id, question, call.id))
    try:
        await dispatch_event(events.Approval(events.QUESTION, question_id, question))
        answer = await call.calls.wait_for_question(call.id, question_id)
        phase: events.Phase = "approval" if call.calls.awaiting_approval else "tool"
        edited = input_for_display(answer.input) if answer.input is not None else None
        await dispatch_event(events.Status(phase, f"Calling {call.tool}", tool_call_id=question_id, edited=edited))
        given = (answer.input or question).get("answer")
        error = "" if answer.approved else "refused by the visitor"
        output = json.dumps(given, ensure_ascii=False)[:_MOST_ERROR] if answer.approved else ""
        return answer
    finally:
        duration = round(time.monotonic() - began, 3)
        await dispatch_event(events.ToolEnd(events.QUESTION, question_id, output, duration, error or None))


def error_text(exception: Exception) -> str:
    """Returns a tool's exception as text for people."""
    return valid_text(str(exception) or type(exception).__name__)[:_MOST_ERROR]


def failure_text(error: str) -> str:
    """Returns the result that the model gets of a call that failed."""
    return f"The tool failed: {error}"
