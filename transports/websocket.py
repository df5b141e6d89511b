"""The WebSocket: messages in, the unchanged events of one run at a time out.

A socket owns nothing: when it closes, its run continues, and another socket may resume it.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, aclosing
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketState
from websockets.frames import CloseCode

from agent.turns import Turns
from runs.errors import ChatError
from runs.events import JSON
from runs.live import LiveRun
from runs.requester import Requester
from transports.dependencies import CurrentRequester
from transports.run_lookup import RunEvents, load_run
from transports.schemas import Approval, Id, Message, check_field_count, validation_error
from transports.send_budget import SendBudget
from transports.streams import follow_run

_TYPES = "message, stop, end_thinking, approve, resume, ping"


class ResumeRequest(BaseModel):
    """The run to follow, and the last event that the client has."""

    model_config = ConfigDict(extra="forbid", strict=True)
    run_id: Id
    after: int = Field(0, ge=0)


class _NoFields(BaseModel):
    model_config = ConfigDict(extra="forbid")


def add_websocket(router: APIRouter, turns: Turns, budget: SendBudget) -> None:
    """Adds `WS /ws/chat`. The guard has checked the right to open it."""

    @router.websocket("/ws/chat")
    async def chat(websocket: WebSocket, requester: CurrentRequester) -> None:
        await websocket.accept()
        await _Socket(websocket, turns, requester, budget).serve()


class _Socket:
    """One open socket."""

    def __init__(self, websocket: WebSocket, turns: Turns, requester: Requester, budget: SendBudget) -> None:
        self._websocket, self._turns, self._requester, self._budget = websocket, turns, requester, budget
        self._run: LiveRun | None = None
        self._following: asyncio.Task[None] | None = None
        self._handlers: dict[str, Callable[[JSON], Coroutine[Any, Any, None]]] = {
            "message": self._message,
            "stop": self._stop,
            "end_thinking": self._end_thinking,
            "approve": self._approve,
            "resume": self._resume,
            "ping": self._ping,
        }

    async def serve(self) -> None:
        """Handles messages until the client disconnects."""
        try:
            while True:
                frame = await self._websocket.receive()
                if frame["type"] == "websocket.disconnect":
                    return
                try:
                    await self._handle(frame)
                except ChatError as e:
                    await self._send_error(e)
                except ValidationError as e:
                    await self._send_error(validation_error(e))
        except WebSocketDisconnect:  # while something was sent
            return
        finally:
            if self._following:
                self._following.cancel()

    async def _handle(self, frame: Any) -> None:
        text = frame.get("text")
        if text is None:
            raise ChatError("invalid_request", "This is a binary frame: send JSON as text.")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise ChatError("invalid_request", "This is not JSON.") from None
        if not isinstance(message, dict):
            raise ChatError("invalid_request", 'Send a JSON object, such as {"message": "Hello"}.')
        try:
            check_field_count(message)
        except ValueError as e:
            raise ChatError("invalid_request", str(e)) from None
        kind = message.pop("type", "message")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            raise ChatError("invalid_request", f"type: found {str(kind)[:60]!r}, allowed: {_TYPES}")
        await handler(message)

    async def _message(self, fields: JSON) -> None:
        message = Message.model_validate(fields)
        self._check_idle()
        ask = await message.turn_request(self._turns, message.message, self._requester)
        self._follow(RunEvents.of(await self._turns.start(ask)), 0)

    async def _resume(self, fields: JSON) -> None:
        request = ResumeRequest.model_validate(fields)
        self._check_idle()
        self._follow(await load_run(self._turns, request.run_id, self._requester), request.after)

    async def _stop(self, fields: JSON) -> None:
        _NoFields.model_validate(fields)
        if self._run is None:
            raise ChatError("invalid_request", "There is no run to stop: send a message, or resume a run.")
        self._run.request_stop("user")  # the event `stopped` follows when it has ended

    async def _end_thinking(self, fields: JSON) -> None:
        _NoFields.model_validate(fields)
        if self._run is None:
            raise ChatError("busy", "No model is thinking here.")
        self._run.end_thinking()

    async def _approve(self, fields: JSON) -> None:
        approval = Approval.model_validate(fields)
        if self._run is None:
            raise ChatError("busy", "No tool call waits for an approval here.")
        self._run.tool_calls.answer(approval.tool_call_id, approval.answer())

    async def _ping(self, fields: JSON) -> None:
        await self._send('{"type":"pong"}')

    def _check_idle(self) -> None:
        if self._following and not self._following.done():
            raise ChatError("busy", "A reply is still being written here: stop it, or wait for its end.")

    def _follow(self, run: RunEvents, after: int) -> None:
        self._run = run.live
        self._following = asyncio.create_task(self._send_events(run, after), name=f"socket on {run.run_id}")

    async def _send_events(self, run: RunEvents, after: int) -> None:
        try:
            if run.live is None:
                for line in run.lines[after:]:
                    await self._send_event(line.json)
                return
            async with aclosing(follow_run(run.live, after)) as batches:
                async for batch in batches:
                    for entry in batch:
                        await self._send_event(entry.json)
        except WebSocketDisconnect:  # `serve` notices it by itself
            return

    async def _send_event(self, event: str) -> None:
        """Sends an event within the budget of its address.

        Closes the socket where it exceeds the budget; the client may come back for the rest. Raises
        WebSocketDisconnect then, too.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._budget.reserve(self._requester, len(event)))
            except ChatError as e:
                self._check_open()
                await self._websocket.close(CloseCode.TRY_AGAIN_LATER, e.message)
                raise WebSocketDisconnect(CloseCode.TRY_AGAIN_LATER) from None
            await self._send(event)

    async def _send_error(self, error: ChatError) -> None:
        event = {"code": error.code, "message": error.message, "retryable": error.retryable, "content": ""}
        if error.retry_after is not None:
            event["retry_after"] = error.retry_after
        await self._send(json.dumps({"type": "error", **event}))

    async def _send(self, text: str) -> None:
        """Raises WebSocketDisconnect, also if another task has noticed it before."""
        self._check_open()
        await self._websocket.send_text(text)

    def _check_open(self) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(1006)
