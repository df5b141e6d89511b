"""The routes of conversations: the list, import, export, rename, delete."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent.calls import shown
from agent.turns import Turns
from memory.listing import listed, rename
from memory.messages import Message, Role, Standing
from memory.store import Conversation
from memory.text import clean
from runs.events import JSON
from runs.live import new_id
from runs.parts import Part
from transports.identity import Identity
from transports.markdown import as_markdown, download

_MOST_MESSAGES = 10_000


class ImportedMessage(BaseModel):
    """`id` and `parent_id` make branches of a list; without them each message follows the one before."""

    model_config = ConfigDict(extra="ignore")
    role: Role
    content: str
    id: str | None = None
    parent_id: str | None = None
    standing: Standing = "whole"
    note: Annotated[str | None, Field(max_length=1000)] = None
    parts: list[Any] = []

    @field_validator("content", mode="before")
    @classmethod
    def _text_only(cls, content: Any) -> Any:
        """Joins the text of a message in parts; a part of another kind is refused by its name."""
        if not isinstance(content, list):
            return content
        for part in content:
            if not (isinstance(part, dict) and isinstance(part.get("text"), str)):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise ValueError(f"a part of the type {str(kind)[:40]!r} cannot be taken: no model here is given any")
        return "".join(part["text"] for part in content)


class ImportedConversation(BaseModel):
    """What `GET /conversations/{id}` answers can be sent back as it is."""

    model_config = ConfigDict(extra="ignore")
    messages: Annotated[list[ImportedMessage], Field(max_length=_MOST_MESSAGES)]
    other_messages: Annotated[list[ImportedMessage], Field(max_length=_MOST_MESSAGES)] = []
    """Those of other branches."""
    title: Annotated[str, Field(max_length=200)] = ""


class Renamed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    title: str


def add_conversations(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `GET|POST /conversations` and `GET|PATCH|DELETE /conversations/{conversation_id}`."""
    store = turns.store

    async def theirs(conversation_id: str, request: Request) -> Conversation:
        return await store.conversation(conversation_id, identity.visitor(request.cookies))

    @router.get("/conversations", tags=["conversations"])
    async def list_conversations(
        request: Request,
        search: Annotated[str, Query(max_length=200, description="In titles and messages.")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        before: Annotated[str | None, Query(max_length=100, description="`next` of the answer before.")] = None,
    ) -> dict[str, Any]:
        """The visitor's own, the newest first; none without a cookie."""
        visitor = identity.visitor(request.cookies)
        found, following = await listed(store, visitor, search, limit, before) if visitor else ([], None)
        told = [
            {
                "id": one.id,
                "title": one.title,
                "updated": datetime.fromtimestamp(one.updated, UTC).isoformat(timespec="milliseconds"),
                "backend": one.backend,
                "memory": one.memory,
                "live": turns.runs.of(one.id) is not None,
                "found": one.found,
                "mark": one.mark,
            }
            for one in found
        ]
        return {"conversations": told, "next": following}

    @router.post("/conversations", tags=["conversations"])
    async def import_conversation(given: ImportedConversation, request: Request) -> dict[str, str]:
        made, head = _tree(given)
        asker = identity.asker(request)
        owner = asker.visitor
        await turns.check_room(owner)
        turns.quota.check(asker)
        turns.quota.count(asker)
        return {"conversation_id": await store.take_in(owner, made, head, title=clean(given.title).strip())}

    @router.get(
        "/conversations/{conversation_id}",
        tags=["conversations"],
        responses={200: {"content": {"application/json": {}, "text/markdown": {}}}},
    )
    async def export_conversation(
        conversation_id: str, request: Request, format: Literal["json", "markdown"] = "json"
    ) -> Response:
        """The current branch as `messages`, and those of the other branches as `other_messages`."""
        found = await theirs(conversation_id, request)
        branch = await store.history(found.id)
        if format == "markdown":
            headers = download(found.title, "md")
            return Response(as_markdown(found, branch), media_type="text/markdown", headers=headers)
        here = {message.id for message in branch}
        others = [message for message in await store.tree(found.id) if message.id not in here]
        told = {"conversation_id": found.id, "title": found.title, "messages": [_told(m) for m in branch]}
        return JSONResponse(told | {"other_messages": [_told(m) for m in others]})

    @router.patch("/conversations/{conversation_id}", tags=["conversations"])
    async def rename_conversation(conversation_id: str, given: Renamed, request: Request) -> dict[str, str]:
        found = await theirs(conversation_id, request)
        return {"id": found.id, "title": await rename(store, found.id, given.title)}

    @router.delete("/conversations/{conversation_id}", status_code=204, tags=["conversations"])
    async def delete_conversation(conversation_id: str, request: Request) -> None:
        found = await theirs(conversation_id, request)
        await turns.delete(found.id)


def _told(message: Message) -> JSON:
    return {
        "role": message.role,
        "content": message.text,
        "id": message.id,
        "parent_id": message.parent_id,
        "standing": message.standing,
        "run_id": message.run_id,
        "note": message.note,
        "parts": [part.wire() for part in message.parts],
    }


def _tree(given: ImportedConversation) -> tuple[list[Message], str | None]:
    """The messages under new ids, each after its parent, and the head of the current branch.

    One that names no parent that is known follows the message before it; the others then hang where they did.
    """
    made: dict[str, Message] = {}
    order: list[Message] = []
    last: str | None = None
    for n, one in enumerate(given.messages):
        message = _taken(one, last)
        made[one.id or f"message {n}"] = message
        order.append(message)
        last = message.id
    waiting: Sequence[ImportedMessage] = given.other_messages
    while waiting:
        hanging = [one for one in waiting if one.parent_id is None or one.parent_id in made]
        for one in hanging:
            message = _taken(one, made[one.parent_id].id if one.parent_id else None)
            made[one.id or message.id] = message
            order.append(message)
        if not hanging:
            break  # what hangs nowhere has no branch to be on
        kept = {id(one) for one in hanging}
        waiting = [one for one in waiting if id(one) not in kept]
    return order, last


def _taken(one: ImportedMessage, parent_id: str | None) -> Message:
    standing: Standing = "interrupted" if one.standing == "growing" else one.standing
    note = clean(one.note) if one.note else None
    return Message(
        new_id(), one.role, clean(one.content), standing, None, note, parts=_parts(one.parts), parent_id=parent_id
    )


def _parts(given: list[Any]) -> tuple[Part, ...]:
    """Those that are whole; a reply is not refused for what stands beside it."""
    return tuple(part for one in given if (part := _part(one)))


def _part(given: Any) -> Part | None:
    try:
        return _PartShape.model_validate(given).part()
    except ValidationError:
        return None


class _PartShape(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
    kind: Literal["thinking", "tool"]
    text: str
    start: float
    end: float | None = None
    name: Annotated[str, Field(max_length=200)] = ""
    input: Any = None
    error: Annotated[str | None, Field(max_length=2000)] = None

    def part(self) -> Part:
        error = None if self.error is None else clean(self.error)
        return Part(self.kind, clean(self.text), self.start, self.end, clean(self.name), shown(self.input), error)
