"""AG-UI (https://docs.ag-ui.com, protocol 1.0) over HTTP: `RunAgentInput` in, its events out.

A visitor's thread is a conversation, whose id is derived from the visitor and the thread id. Without a cookie each
request is a new conversation with the messages that it brings, since all clients may send one thread id; the exception
is a thread id that equals one of our `X-Conversation-Id` headers, which only the client that received it knows. The
store decides what a known thread contains. A client's own `state`, `context` and `tools` are not used.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ag_ui.core import BaseEvent, ImagePart, Message, RunAgentInput, TextPart
from ag_ui.encoder import EventEncoder
from fastapi import APIRouter, Response
from pydantic import ConfigDict, ValidationError, field_validator

from agent.turns import Turns
from agent.validation import validate_message
from hosting.identity import Identity
from memory.messages import Role
from memory.options import TurnOptions
from runs.errors import ChatError
from runs.json_text import escape_line_ends
from runs.live import LiveRun
from runs.requester import Requester
from runs.text import clean_text, valid_text
from transports.agui_events import EventTranslation
from transports.agui_interrupts import resume
from transports.dependencies import CurrentRequester
from transports.schemas import Logprobs, RequestFields, validation_error
from transports.streams import HEARTBEAT_S, SSEResponse

_MAX_ID = 1000
_ID = re.compile(r"[\w-]{16,64}", re.ASCII)
"""The form of an image's id."""
_MAX_IMPORTED = 10_000
"""The most earlier messages of a new thread, as of `POST /conversations`."""
_PAUSE_S = 0.25
"""Silence after which a run that waits has asked for all approvals, in seconds: parallel calls ask one by one."""
_AT_ONCE = 500
"""The most entries in one write, so that other requests are served in between."""
_PART_TYPES = frozenset(("text", "image", "audio", "video", "document"))
_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
}
"""Roles by AG-UI's. Messages of other roles are for display only, and not part of the conversation."""


class AgentInput(RunAgentInput):
    """The protocol's input. An image of the type `binary`, which older clients send, becomes one of the type `image`;
    a message part of an unknown type is refused with its type.
    """

    @field_validator("messages", mode="before")
    @classmethod
    def _check_part_types(cls, messages: Any) -> Any:
        if isinstance(messages, list) and len(messages) > 2 * _MAX_IMPORTED:
            raise _too_many(len(messages))
        for message in messages if isinstance(messages, list) else ():
            content = message.get("content") if isinstance(message, dict) else None
            parts: list[Any] = content if isinstance(content, list) else []
            for i, part in enumerate(parts):
                if isinstance(part, dict) and (image := _binary_image(part)):
                    parts[i] = image
                elif isinstance(part, dict) and (kind := str(part.get("type"))) not in _PART_TYPES:
                    raise ValueError(_not_accepted(kind))
        return messages


class _ForwardedProps(TurnOptions):
    """Our fields of `forwardedProps`; others are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)
    backend: str | None = None
    memory: str | None = None
    logprobs: Logprobs = None


def add_agui(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `POST /agui`."""

    @router.post(
        "/agui",
        response_class=Response,
        responses={200: {"description": "AG-UI events.", "content": {"text/event-stream": {}}}},
        tags=["runs"],
    )
    async def run_agent(agent_input: AgentInput, requester: CurrentRequester) -> Response:
        """Starts a run with the thread's last user message, or continues a waiting one by `resume`."""
        _check_ids(agent_input)
        visitor = requester.visitor
        conversation_id = identity.derive("agui thread", visitor, agent_input.thread_id) if visitor else None
        translation = EventTranslation(agent_input.thread_id, agent_input.run_id, agent_input.messages)
        resumed, seq = None, 0
        if agent_input.resume:
            last = agent_input.messages[-1] if agent_input.messages else None
            text = validate_message(_text(last), turns.settings.limits) if last and last.role == "user" else None
            resumed = await resume(turns, agent_input.resume, visitor, conversation_id, text)
        if resumed:
            run, seq = resumed.run, resumed.seq
        else:
            run = await _start(turns, agent_input, requester, conversation_id)
        headers = {"X-Run-Id": run.id, "X-Conversation-Id": run.conversation_id}
        return SSEResponse(_encoded_events(run, translation, seq), headers)


async def _start(
    turns: Turns, agent_input: RunAgentInput, requester: Requester, conversation_id: str | None
) -> LiveRun:
    """Starts a turn with the last user message; a new thread imports the messages before it."""
    chosen, messages = _forwarded_props(agent_input.forwarded_props), agent_input.messages
    last = next((i for i in reversed(range(len(messages))) if messages[i].role == "user"), None)
    if last is None:
        raise ChatError("invalid_request", "messages: there is no user message to answer.")
    text, images, earlier = _text(messages[last]), _images(messages[last]), messages[:last]
    existing = conversation_id or agent_input.thread_id
    known = existing if await _is_known(turns, existing, requester.visitor) else None
    options = RequestFields(**chosen.model_dump(exclude_none=True), conversation_id=known)
    ask = replace(await options.turn_request(turns, text, requester), images=images)
    if known is None:
        if len(earlier) > _MAX_IMPORTED:
            raise _too_many(len(earlier))
        ask = replace(ask, new_id=conversation_id, earlier=_imported(earlier))
    return await turns.start(ask)


def _too_many(count: int) -> ChatError:
    message = f"messages: {count:,} earlier messages; a new thread takes at most {_MAX_IMPORTED:,}."
    return ChatError("too_large", message)


async def _is_known(turns: Turns, conversation_id: str, visitor: str | None) -> bool:
    try:
        await turns.store.conversation(conversation_id, visitor)
    except ChatError as e:
        if e.code != "not_found":
            raise
        return False
    return True


async def _encoded_events(run: LiveRun, translation: EventTranslation, seq: int) -> AsyncGenerator[bytes, None]:
    """Yields the run's events after `seq`, where an earlier AG-UI run ended, up to its end or a pause."""
    out = translation.begin(run.log.entries[:seq])
    if len(run.log.entries) <= seq:
        yield _encode(out)
        out = []
    async with aclosing(run.log.follow(seq, lambda: _PAUSE_S if translation.paused else HEARTBEAT_S)) as batches:
        async for batch in batches:
            if not batch and translation.paused:
                out = translation.pause(run.lifetime.seconds)
            for start in range(0, len(batch), _AT_ONCE):
                out += [event for entry in batch[start : start + _AT_ONCE] for event in translation.take(entry)]
                yield _encode(out)
                out = []
                await asyncio.sleep(0)
            if out:
                yield _encode(out)
            if translation.ended:
                return


def _encode(out: Sequence[BaseEvent]) -> bytes:
    encoder = EventEncoder()
    return escape_line_ends("".join(encoder.encode(event) for event in out)).encode()


def _check_ids(agent_input: RunAgentInput) -> None:
    for name, value in (("threadId", agent_input.thread_id), ("runId", agent_input.run_id)):
        if len(value) > _MAX_ID or valid_text(value) != value:
            raise ChatError("invalid_request", f"{name}: at most {_MAX_ID:,} characters of text.")


def _forwarded_props(props: Any) -> _ForwardedProps:
    try:
        return _ForwardedProps.model_validate({} if props is None else props)
    except ValidationError as e:
        raise ChatError("invalid_request", f"forwardedProps: {validation_error(e).message}") from None


def _imported(messages: Sequence[Message]) -> list[tuple[Role, str]]:
    pairs = [(_ROLES[m.role], clean_text(_text(m))) for m in messages if m.role in _ROLES]
    return [(role, text) for role, text in pairs if text]


def _text(message: Message) -> str:
    """The text of a message. Raises ChatError for a part that is neither text nor an image."""
    content = message.content
    if isinstance(content, list):
        _images(message)
        return "".join(part.text for part in content if isinstance(part, TextPart))
    return content if isinstance(content, str) else ""


def _images(message: Message) -> tuple[str, ...]:
    """The images of a message as `data:` addresses or ids. Raises ChatError for a part that is neither text nor image.

    An address of another site is not fetched.
    """
    content = message.content
    found = list[str]()
    for part in content if isinstance(content, list) else ():
        if isinstance(part, TextPart):
            continue
        source = part.source if isinstance(part, ImagePart) else None
        value = str(getattr(source, "value", ""))
        if getattr(source, "type", "") == "data":
            found.append(f"data:{getattr(source, 'mime_type', None) or 'image'};base64,{value}")
        elif value.startswith("data:") or _ID.fullmatch(value):
            found.append(value)
        else:
            raise ChatError("invalid_request", f"messages: {_not_accepted(part.type)}")
    return tuple(found)


def _binary_image(part: dict[str, Any]) -> dict[str, Any] | None:
    """An image of the protocol's older type `binary` in the current form; None for any other part."""
    kind, data, image_id = part.get("mimeType"), part.get("data"), part.get("id")
    if part.get("type") != "binary" or not (isinstance(kind, str) and kind.startswith("image/")):
        return None
    if isinstance(data, str) and data:
        return {"type": "image", "source": {"type": "data", "value": data, "mimeType": kind}}
    if isinstance(image_id, str) and image_id:
        return {"type": "image", "source": {"type": "url", "value": image_id, "mimeType": kind}}
    return None


def _not_accepted(part_type: str) -> str:
    accepted = "allowed are text, and images as data or by an id of POST /images"
    return f"a part of the type {part_type[:40]!r} is not accepted: {accepted}"
