"""AG-UI (https://docs.ag-ui.com, protocol 1.0) over HTTP: `RunAgentInput` in, its events out.

A visitor's thread is a conversation of ours, found by the visitor and the thread's id together. Without a cookie each
request stands by itself, on the messages that it brings, since anybody may send the same thread id. The one exception
is a thread id that equals an `X-Conversation-Id` of ours: only the client that got it knows it. The store decides what
a known thread contains. A client's own `state`, `context` and `tools` are not used.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from ag_ui.core import BaseEvent, Message, RunAgentInput, TextPart
from ag_ui.encoder import EventEncoder
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent.turns import Turns
from agent.validation import validate_message
from hosting.identity import Identity
from memory.messages import Role
from runs.errors import ChatError
from runs.events import escape_line_ends
from runs.live import LiveRun
from runs.requester import Requester
from runs.text import clean_text, valid_text
from transports.agui_events import EventTranslation
from transports.agui_resume import resume
from transports.schemas import RequestFields, validation_error
from transports.streams import HEARTBEAT_S, Stream

_LONGEST_ID = 1000
_MOST_IMPORTED = 10_000
"""The most earlier messages that a new thread takes, as `POST /conversations` does."""
_SETTLED_S = 0.25
"""A run that waits has told all its questions when nothing came for as long: calls made together ask one by one."""
_AT_ONCE = 500
"""Entries in one write, before others get their turn."""
_KINDS = frozenset(("text", "image", "audio", "video", "document"))
_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
}
"""Messages of other roles are what a client shows, and no part of the conversation."""


class AgentInput(RunAgentInput):
    """As the protocol has it; a part of a kind that it does not know is refused by its name."""

    @field_validator("messages", mode="before")
    @classmethod
    def _known_parts(cls, messages: Any) -> Any:
        if isinstance(messages, list) and len(messages) > 2 * _MOST_IMPORTED:
            raise _too_many(len(messages))
        for message in messages if isinstance(messages, list) else ():
            content = message.get("content") if isinstance(message, dict) else None
            for part in content if isinstance(content, list) else ():
                if isinstance(part, dict) and (kind := str(part.get("type"))) not in _KINDS:
                    raise ValueError(_unusable(kind))
        return messages


class _Chosen(BaseModel):
    """`forwardedProps`; what others mean by it is left alone."""

    model_config = ConfigDict(extra="ignore", strict=True)
    backend: str | None = None
    memory: str | None = None
    model: Annotated[str | None, Field(max_length=200)] = None


def add_agui(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `POST /agui`."""

    @router.post(
        "/agui",
        response_class=Response,
        responses={200: {"description": "AG-UI events.", "content": {"text/event-stream": {}}}},
        tags=["runs"],
    )
    async def run_agent(given: AgentInput, request: Request) -> Response:
        """Starts a run in a thread with the last user message, or goes on with one that waits, by `resume`."""
        _check_ids(given)
        requester = identity.requester(request)
        visitor = requester.visitor
        conversation_id = identity.derive("agui thread", visitor, given.thread_id) if visitor else None
        view, seq = EventTranslation(given.thread_id, given.run_id, given.messages), 0
        resumed = None
        if given.resume:
            last = given.messages[-1] if given.messages else None
            text = validate_message(_text(last), turns.settings.limits) if last and last.role == "user" else None
            resumed = await resume(turns, given.resume, visitor, conversation_id, text)
        if resumed:
            run, seq = resumed.run, resumed.seq
        else:
            run = await _started(turns, given, requester, conversation_id)
        headers = {"X-Run-Id": run.id, "X-Conversation-Id": run.conversation_id}
        return Stream(_written(run, view, seq), headers)


async def _started(turns: Turns, given: RunAgentInput, requester: Requester, conversation_id: str | None) -> LiveRun:
    """A turn with the last user message; a thread that is new to us begins with those before it."""
    chosen = _chosen(given.forwarded_props)
    place = next((i for i in reversed(range(len(given.messages))) if given.messages[i].role == "user"), None)
    if place is None:
        raise ChatError("invalid_request", "messages: there is none of the user's to answer.")
    text, earlier = _text(given.messages[place]), given.messages[:place]
    existing = conversation_id or given.thread_id
    known = existing if await _is_known(turns, existing, requester.visitor) else None
    wanted = RequestFields(backend=chosen.backend, memory=chosen.memory, model=chosen.model, conversation_id=known)
    ask = await wanted.turn_request(turns, text, requester)
    if known is None:
        if len(earlier) > _MOST_IMPORTED:
            raise _too_many(len(earlier))
        ask = replace(ask, new_id=conversation_id, earlier=_imported(earlier))
    return await turns.start(ask)


def _too_many(count: int) -> ChatError:
    message = f"messages: {count:,} earlier messages; a new thread takes at most {_MOST_IMPORTED:,}."
    return ChatError("too_large", message)


async def _is_known(turns: Turns, conversation_id: str, visitor: str | None) -> bool:
    try:
        await turns.store.conversation(conversation_id, visitor)
    except ChatError as e:
        if e.code != "not_found":
            raise
        return False
    return True


async def _written(run: LiveRun, view: EventTranslation, seq: int) -> AsyncGenerator[bytes, None]:
    """The run as the client sees it, from where an earlier AG-UI run of its left off, up to its end or a pause."""
    told = view.begin(run.log.entries[:seq])
    if len(run.log.entries) <= seq:  # nothing to go with it yet
        yield _encoded(told)
        told = []
    async with aclosing(run.log.follow(seq, lambda: _SETTLED_S if view.paused else HEARTBEAT_S)) as batches:
        async for batch in batches:
            if not batch and view.paused:
                told = view.pause(run.lifetime.seconds)
            for start in range(0, len(batch), _AT_ONCE):
                told += [event for entry in batch[start : start + _AT_ONCE] for event in view.take(entry)]
                yield _encoded(told)
                told = []
                await asyncio.sleep(0)
            if told:
                yield _encoded(told)
            if view.ended:
                return


def _encoded(told: Sequence[BaseEvent]) -> bytes:
    encoder = EventEncoder()
    return escape_line_ends("".join(encoder.encode(event) for event in told)).encode()


def _check_ids(given: RunAgentInput) -> None:
    for name, value in (("threadId", given.thread_id), ("runId", given.run_id)):
        if len(value) > _LONGEST_ID or valid_text(value) != value:
            raise ChatError("invalid_request", f"{name}: at most {_LONGEST_ID:,} characters of text.")


def _chosen(props: Any) -> _Chosen:
    try:
        return _Chosen.model_validate({} if props is None else props)
    except ValidationError as e:
        raise ChatError("invalid_request", f"forwardedProps: {validation_error(e).message}") from None


def _imported(messages: Sequence[Message]) -> list[tuple[Role, str]]:
    pairs = [(_ROLES[m.role], clean_text(_text(m))) for m in messages if m.role in _ROLES]
    return [(role, text) for role, text in pairs if text]


def _text(message: Message) -> str:
    """The text of a message; a part that is none is refused by its name."""
    content = message.content
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, TextPart):
                raise ChatError("invalid_request", f"messages: {_unusable(part.type)}")
        return "".join(part.text for part in content if isinstance(part, TextPart))
    return content if isinstance(content, str) else ""


def _unusable(kind: str) -> str:
    return f"a part of the type {kind[:40]!r} cannot be taken: no model here is given any"
