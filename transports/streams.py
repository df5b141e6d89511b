"""The routes that start a run or follow it, as Server-Sent Events.

The protocol: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from itertools import chain
from typing import Annotated, Any

import fastapi
from fastapi import APIRouter, Header, Response
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Message as SentMessage
from starlette.types import Receive, Scope, Send

from agent.turns import Turns
from agent.validation import validate_message
from memory.record_cache import StoredEvent
from runs.errors import ChatError
from runs.events import Entry
from runs.live import LiveRun
from runs.requester import Requester
from transports.chunks import FramedText, in_chunks
from transports.dependencies import CurrentRequester
from transports.run_lookup import RunEvents, RunHandle, get_run, load_run_events
from transports.schemas import Message, Query, RequestFields

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
_HEARTBEAT = b": ping\n\n"
_SEND_S = 30.0
"""Write timeout, in seconds. A client that exceeds it is disconnected; it may resume later."""
_AT_ONCE = 500
"""The most events in one write, so that other requests are served in between."""
_RENAMED = {"complete": "done", "error": "failed"}
"""EventSource keeps the name `error` for itself."""
_MAX_DIGITS = 15

_LastEventId = Annotated[str | None, Header(description="The last event that was received: later ones are sent.")]
_After = Annotated[int, fastapi.Query(ge=0, description="As Last-Event-ID, which has precedence.")]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "The run's events.", "content": {"text/event-stream": {}}},
    204: {"description": "There are no more events."},
}


def encode_sse(event_type: str, body: str, seq: int | None = None) -> bytes:
    """Encodes an event. `body` is JSON, which escapes line ends."""
    return f"{_head(event_type, seq)}{body}\n\n".encode("utf-8", "replace")


def _head(event_type: str, seq: int | None) -> str:
    event_id = f"id: {seq}\n" if seq else ""
    return f"{event_id}event: {_RENAMED.get(event_type, event_type)}\ndata: "


class SSEResponse(EventSourceResponse):
    """An SSE response of encoded events, with headers against buffering proxies and a comment line as heartbeat.

    An event may be several writes: a heartbeat goes out only between events.
    """

    def __init__(self, content: AsyncIterable[bytes], headers: dict[str, str] | None = None) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
        super().__init__(content, headers=headers, ping=HEARTBEAT_S, send_timeout=_SEND_S, sep="\n")
        self.ping_message_factory = lambda: _HEARTBEAT  # type: ignore[assignment]  # bytes are sent unchanged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lock, between_events = asyncio.Lock(), True

        async def send_in_order(message: SentMessage) -> None:
            nonlocal between_events
            body = message.get("body")
            if body is _HEARTBEAT and (lock.locked() or not between_events):
                return  # the event that is being sent serves as heartbeat
            async with lock:
                if body:
                    between_events = body.endswith(b"\n\n")
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_order)
        except SendTimeoutError:
            logger.info("a client of %s read nothing for %.0f s and was disconnected", scope["path"], _SEND_S)


def add_streams(router: APIRouter, turns: Turns) -> None:
    """Adds `GET|POST /stream` and `GET /runs/{run_id}/events`."""

    async def start(options: RequestFields, message: str, requester: Requester) -> Response:
        run = await turns.start(await options.turn_request(turns, message, requester))
        return _sse_response(RunEvents.of(run), after=0)

    async def follow_from(run: RunHandle, after: int, requester: Requester) -> Response:
        """The events after `after`; 204 if there are none, without loading a record."""
        if run.ended and after and after >= (await run.end(turns)).events:
            return Response(status_code=204)
        return _sse_response(await load_run_events(turns, run, requester), after)

    @router.post("/stream", response_class=Response, responses=_STREAM, tags=["runs"])
    async def post_stream(message: Message, requester: CurrentRequester) -> Response:
        """Starts a run and follows it."""
        return await start(message, message.message, requester)

    @router.get("/stream", response_class=Response, responses=_STREAM, tags=["runs"])
    async def get_stream(
        query: Annotated[Query, fastapi.Query()], requester: CurrentRequester, last_event_id: _LastEventId = None
    ) -> Response:
        """Starts a run and follows it. EventSource resumes it with `Last-Event-ID` when the connection is lost."""
        if last_event_id is None:
            return await start(query, query.query, requester)
        after = _parse_event_id(last_event_id or "0")
        same = query.model_dump(include={"backend", "memory", "conversation_id"}, exclude_none=True)
        run_id = None
        if requester.visitor:
            message = validate_message(query.query, turns.settings.limits)
            run_id = await turns.store.newest_run(requester.visitor, message, **same)
        if run_id is None:
            return Response(status_code=204)
        try:
            return await follow_from(await get_run(turns, run_id, requester.visitor), after, requester)
        except ChatError as e:
            if e.code != "not_found":
                raise
            return Response(status_code=204)  # the run was cut off with the process, and has no record

    @router.get("/runs/{run_id}/events", response_class=Response, responses=_STREAM, tags=["runs"])
    async def follow(
        run_id: str, requester: CurrentRequester, after: _After = 0, last_event_id: _LastEventId = None
    ) -> Response:
        """Follows a live or ended run from its start or from any event."""
        run = await get_run(turns, run_id, requester.visitor)
        return await follow_from(run, _parse_event_id(last_event_id) if last_event_id else after, requester)


async def follow_run(run: LiveRun, after: int = 0) -> AsyncGenerator[Sequence[Entry], None]:
    """Yields a run's events in batches, between which other requests are served. Use it with `aclosing`."""
    async with aclosing(run.log.follow(after)) as batches:
        async for batch in batches:
            for start in range(0, len(batch), _AT_ONCE):
                yield batch[start : start + _AT_ONCE]
                if len(batch) > _AT_ONCE:
                    await asyncio.sleep(0)


def _sse_response(run: RunEvents, after: int) -> Response:
    headers = {"X-Run-Id": run.run_id, "X-Conversation-Id": run.conversation_id}
    return SSEResponse(_encoded_events(run, after), headers)


async def _encoded_events(run: RunEvents, after: int) -> AsyncGenerator[bytes, None]:
    if run.live is None:
        async for data in in_chunks(_framed(line) for line in run.lines[after:]):
            yield data
        return
    async with aclosing(follow_run(run.live, after)) as batches:
        async for batch in batches:
            async for data in in_chunks(_framed(entry) for entry in batch):
                yield data


def _framed(line: Entry | StoredEvent) -> FramedText:
    return chain([_head(line.type, line.seq)], line.texts() if isinstance(line, Entry) else [line.json], ["\n\n"])


def _parse_event_id(last_event_id: str) -> int:
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _MAX_DIGITS):
        raise ChatError("invalid_request", "Last-Event-ID: this is not the id of an event that was sent: a number.")
    return int(last_event_id)
