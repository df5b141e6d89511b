"""A conversation over a WebSocket: messages in, the events of one run at a time out, as they are.

A socket owns nothing: when it goes, its run goes on, and another socket may resume it.
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
from hosting.identity import Identity
from runs.errors import ChatError
from runs.events import JSON
from runs.live import LiveRun
from runs.requester import Requester
from transports.run_lookup import RunEvents, load_run
from transports.schemas import Approved, Id, Message, check_field_count, validation_error
from transports.send_budget import SendBudget
from transports.streams import events_of

_TYPES = "message, stop, approve, resume, ping"


class Resume(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    run_id: Id
    after: int = Field(0, ge=0)


class _Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def add_socket(router: APIRouter, turns: Turns, identity: Identity, held: SendBudget) -> None:
    """Adds `WS /ws/chat`; who may open it has been checked by the guard."""

    @router.websocket("/ws/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await _Socket(websocket, turns, identity.requester(websocket), held).serve()


class _Socket:
    """One open socket."""

    def __init__(self, websocket: WebSocket, turns: Turns, requester: Requester, held: SendBudget) -> None:
        self._socket, self._turns, self._requester, self._held = websocket, turns, requester, held
        self._run: LiveRun | None = None
        self._following: asyncio.Task[None] | None = None
        self._does: dict[str, Callable[[JSON], Coroutine[Any, Any, None]]] = {
            "message": self._message,
            "stop": self._stop,
            "approve": self._approve,
            "resume": self._resume,
            "ping": self._ping,
        }

    async def serve(self) -> None:
        """Until the client leaves."""
        try:
            while True:
                frame = await self._socket.receive()
                if frame["type"] == "websocket.disconnect":
                    return
                try:
                    await self._take(frame)
                except ChatError as e:
                    await self._refuse(e)
                except ValidationError as e:
                    await self._refuse(validation_error(e))
        except WebSocketDisconnect:  # it left while it was written to
            return
        finally:
            if self._following:
                self._following.cancel()

    async def _take(self, frame: Any) -> None:
        text = frame.get("text")
        if text is None:
            raise ChatError("invalid_request", "This is a binary frame: send JSON as text.")
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            raise ChatError("invalid_request", "This is no JSON.") from None
        if not isinstance(given, dict):
            raise ChatError("invalid_request", 'Send a JSON object, such as {"message": "Hello"}.')
        try:
            check_field_count(given)
        except ValueError as e:
            raise ChatError("invalid_request", str(e)) from None
        kind = given.pop("type", "message")
        do = self._does.get(kind) if isinstance(kind, str) else None
        if do is None:
            raise ChatError("invalid_request", f"type: found {str(kind)[:60]!r}, allowed: {_TYPES}")
        await do(given)

    async def _message(self, given: JSON) -> None:
        message = Message.model_validate(given)
        self._check_free()
        ask = await message.turn_request(self._turns, message.message, self._requester)
        self._follow(RunEvents.of(await self._turns.start(ask)), 0)

    async def _resume(self, given: JSON) -> None:
        wanted = Resume.model_validate(given)
        self._check_free()
        self._follow(await load_run(self._turns, wanted.run_id, self._requester), wanted.after)

    async def _stop(self, given: JSON) -> None:
        _Nothing.model_validate(given)
        if self._run is None:
            raise ChatError("invalid_request", "There is no run to stop: send a message, or resume a run.")
        self._run.request_stop("user")  # its `stopped` says when it has ended

    async def _approve(self, given: JSON) -> None:
        approved = Approved.model_validate(given)
        if self._run is None:
            raise ChatError("busy", "No tool call waits for an approval here.")
        self._run.tool_calls.answer(approved.tool_call_id, approved.answer())

    async def _ping(self, given: JSON) -> None:
        await self._send('{"type":"pong"}')

    def _check_free(self) -> None:
        if self._following and not self._following.done():
            raise ChatError("busy", "A reply is still being written here: stop it, or wait for its end.")

    def _follow(self, found: RunEvents, after: int) -> None:
        self._run = found.live
        self._following = asyncio.create_task(self._write(found, after), name=f"socket on {found.run_id}")

    async def _write(self, found: RunEvents, after: int) -> None:
        try:
            if found.live is None:
                for line in found.lines[after:]:
                    await self._tell(line.json)
                return
            async with aclosing(events_of(found.live, after)) as batches:
                async for batch in batches:
                    for entry in batch:
                        await self._tell(entry.json)
        except WebSocketDisconnect:  # which the reader notices by itself
            return

    async def _tell(self, event: str) -> None:
        """Sends an event, which is held until the client has taken it. Where its address is sent too much, the socket
        is closed: the client may come back for the rest. Raises WebSocketDisconnect then, too.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._held.hold(self._requester, len(event)))
            except ChatError as e:
                self._check_open()
                await self._socket.close(CloseCode.TRY_AGAIN_LATER, e.message)
                raise WebSocketDisconnect(CloseCode.TRY_AGAIN_LATER) from None
            await self._send(event)

    async def _refuse(self, error: ChatError) -> None:
        told = {"code": error.code, "message": error.message, "retryable": error.retryable, "content": ""}
        if error.retry_after is not None:
            told["retry_after"] = error.retry_after
        await self._send(json.dumps({"type": "error", **told}))

    async def _send(self, text: str) -> None:
        """Raises WebSocketDisconnect, also where another write has noticed it before."""
        self._check_open()
        await self._socket.send_text(text)

    def _check_open(self) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(1006)
