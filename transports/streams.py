"""A run as Server-Sent Events: started, followed from any place, stopped, approved.

The protocol: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import fastapi
from fastapi import APIRouter, Header, Request, Response
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Message as Written
from starlette.types import Receive, Scope, Send

from agent.turns import Turns
from agent.validation import validate_message
from hosting.identity import Identity
from memory.record_cache import StoredEvent
from runs.errors import ChatError
from runs.events import Entry
from runs.live import LiveRun
from transports.chunks import Parts, in_chunks
from transports.run_lookup import RunEvents, RunHandle, get_run, load_run_events
from transports.schemas import Approved, Message, Query, RequestFields

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
_HEARTBEAT = b": ping\n\n"
_SEND_S = 30.0
"""For a client to take what it is sent; one that does not is let go, and may come back for the rest."""
_AT_ONCE = 500
"""Events in one write, before others get their turn: encoding one that nobody has followed takes 20 µs."""
_RENAMED = {"complete": "done", "error": "failed"}
"""EventSource keeps the name `error` for itself."""
_MOST_DIGITS = 15

_LastEventId = Annotated[str | None, Header(description="The last event that was received: what comes after is sent.")]
_After = Annotated[int, fastapi.Query(ge=0, description="As Last-Event-ID, which goes before it.")]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "The run's events.", "content": {"text/event-stream": {}}},
    204: {"description": "There is nothing more to come."},
}


def encode(kind: str, body: str, seq: int | None = None) -> bytes:
    """One event on the wire. `body` is JSON, which escapes line ends."""
    return f"{_head(kind, seq)}{body}\n\n".encode("utf-8", "replace")


def _head(kind: str, seq: int | None) -> str:
    place = f"id: {seq}\n" if seq else ""
    return f"{place}event: {_RENAMED.get(kind, kind)}\ndata: "


class Stream(EventSourceResponse):
    """Bytes as an SSE answer that no proxy holds back, with a comment line wherever it is silent for long. An event may
    be several writes: comment lines go out between events alone.
    """

    def __init__(self, content: AsyncIterable[bytes], headers: dict[str, str] | None = None) -> None:
        told = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
        super().__init__(content, headers=told, ping=HEARTBEAT_S, send_timeout=_SEND_S, sep="\n")
        self.ping_message_factory = lambda: _HEARTBEAT  # type: ignore[assignment]  # bytes go out as they are

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        one_at_a_time, whole = asyncio.Lock(), True

        async def send_in_order(message: Written) -> None:
            nonlocal whole
            body = message.get("body")
            if body is _HEARTBEAT and (one_at_a_time.locked() or not whole):
                return  # what is on its way is a sign of life itself
            async with one_at_a_time:
                if body:
                    whole = body.endswith(b"\n\n")
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_order)
        except SendTimeoutError:
            logger.info("a reader of %s took nothing for %.0f s and is let go", scope["path"], _SEND_S)


def add_streams(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `GET|POST /stream` and, below `/runs/{run_id}`, `GET /events`, `POST /stop` and `POST /approve`."""

    async def start(wanted: RequestFields, message: str, request: Request) -> Response:
        run = await turns.start(await wanted.turn_request(turns, message, identity.requester(request)))
        return _stream(RunEvents.of(run), after=0)

    async def answer(known: RunHandle, after: int, request: Request) -> Response:
        """The events after a place; 204 where nothing follows, which needs no reading of a record."""
        if known.ended and after and after >= (await known.end(turns)).events:
            return Response(status_code=204)
        return _stream(await load_run_events(turns, known, identity.requester(request)), after)

    @router.post("/stream", response_class=Response, responses=_STREAM, tags=["runs"])
    async def post_stream(message: Message, request: Request) -> Response:
        """Starts a run and follows it."""
        return await start(message, message.message, request)

    @router.get("/stream", response_class=Response, responses=_STREAM, tags=["runs"])
    async def get_stream(
        query: Annotated[Query, fastapi.Query()], request: Request, last_event_id: _LastEventId = None
    ) -> Response:
        """Starts a run and follows it; for EventSource, which resumes it by `Last-Event-ID` when the line drops."""
        if last_event_id is None:
            return await start(query, query.query, request)
        visitor = identity.visitor(request.cookies)
        after = _place(last_event_id or "0")
        same = query.model_dump(include={"backend", "memory", "conversation_id"}, exclude_none=True)
        run_id = None
        if visitor:
            asked = validate_message(query.query, turns.settings.limits)
            run_id = await turns.store.newest_run(visitor, asked, **same)
        if run_id is None:
            return Response(status_code=204)
        try:
            return await answer(await get_run(turns, run_id, visitor), after, request)
        except ChatError as e:
            if e.code != "not_found":
                raise
            return Response(status_code=204)  # it was cut off with the process, and has no record

    @router.get("/runs/{run_id}/events", response_class=Response, responses=_STREAM, tags=["runs"])
    async def follow(run_id: str, request: Request, after: _After = 0, last_event_id: _LastEventId = None) -> Response:
        """Follows a run, live or ended, from the start or from any place."""
        known = await get_run(turns, run_id, identity.visitor(request.cookies))
        return await answer(known, _place(last_event_id) if last_event_id else after, request)

    @router.post("/runs/{run_id}/stop", tags=["runs"])
    async def stop(run_id: str, request: Request) -> dict[str, str]:
        """Ends a run and answers when it has ended; may be called as often as you like."""
        known = await get_run(turns, run_id, identity.visitor(request.cookies))
        if known.live:
            await known.live.stop("user")
        return {"status": (await known.end(turns)).type}

    @router.post("/runs/{run_id}/approve", tags=["runs"])
    async def approve(run_id: str, given: Approved, request: Request) -> dict[str, str]:
        """Answers a tool call that waits for a person; 409 if it does not."""
        known = await get_run(turns, run_id, identity.visitor(request.cookies))
        if known.live is None:
            raise ChatError("busy", "This run has ended: nothing in it waits for an approval.")
        known.live.tool_calls.answer(given.tool_call_id, given.answer())
        return {"status": known.live.state.phase}


async def events_of(run: LiveRun, after: int = 0) -> AsyncGenerator[Sequence[Entry], None]:
    """Follows a run in batches small enough that others get their turn between them. Hold it in `aclosing`."""
    async with aclosing(run.log.follow(after)) as batches:
        async for batch in batches:
            for start in range(0, len(batch), _AT_ONCE):
                yield batch[start : start + _AT_ONCE]
                if len(batch) > _AT_ONCE:
                    await asyncio.sleep(0)


def _stream(found: RunEvents, after: int) -> Response:
    return Stream(_written(found, after), {"X-Run-Id": found.run_id, "X-Conversation-Id": found.conversation_id})


async def _written(found: RunEvents, after: int) -> AsyncGenerator[bytes, None]:
    if found.live is None:
        async for data in in_chunks(_parts(line) for line in found.lines[after:]):
            yield data
        return
    async with aclosing(events_of(found.live, after)) as batches:
        async for batch in batches:
            async for data in in_chunks(_parts(entry) for entry in batch):
                yield data


def _parts(line: Entry | StoredEvent) -> Parts:
    return _head(line.type, line.seq), line.json, "\n\n"


def _place(last_event_id: str) -> int:
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _MOST_DIGITS):
        raise ChatError("invalid_request", "Last-Event-ID: this is not the id of an event that was sent: a number.")
    return int(last_event_id)
