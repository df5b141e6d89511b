"""The routes of conversations: the list, import, export, rename, delete."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from agent.turns import Turns
from hosting.identity import Identity
from memory.conversation_list import find_conversations, set_title
from memory.conversations import Conversation
from memory.imports import ConversationImporter, ImportResult
from memory.messages import Message
from runs.events import JSON, json_texts, text_bytes
from runs.threads import Threads
from transports.markdown_export import download, markdown_of
from transports.send_budget import Answer, SendBudget

_THREADS = Threads("exports", 2)
_FIXED = 500
"""What a message takes besides its texts."""
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A conversation as `GET /conversations/{conversation_id}` answers it, or a list of such; or the "
        "export file of ChatGPT or Claude: `conversations.json`, or the ZIP file that has it.",
        "content": {
            "application/json": {"schema": {"type": "object", "properties": {"messages": {"type": "array"}}}},
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Renamed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    title: str


def add_conversations(router: APIRouter, turns: Turns, identity: Identity, held: SendBudget) -> None:
    """Adds `GET|POST /conversations` and `GET|PATCH|DELETE /conversations/{conversation_id}`."""
    store, imports = turns.store, ConversationImporter(turns.store, turns.settings.limits.import_bytes)

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
        found, following = await find_conversations(store, visitor, search, limit, before) if visitor else ([], None)
        told = [
            {
                "id": one.id,
                "title": one.title,
                "updated": datetime.fromtimestamp(one.updated, UTC).isoformat(timespec="milliseconds"),
                "backend": one.backend,
                "memory": one.memory,
                "live": turns.runs.live_run(one.id) is not None,
                "found": one.found,
                "mark": one.mark,
            }
            for one in found
        ]
        return {"conversations": told, "next": following}

    @router.post("/conversations", tags=["conversations"], openapi_extra=_BODY)
    async def import_conversations(request: Request) -> dict[str, Any]:
        """Of one conversation {conversation_id}; of a file with several also all of them, and what was left out."""
        requester = identity.requester(request)
        await turns.conversations.check_limit(requester.visitor)
        turns.quota.check(requester)
        turns.quota.count(requester)

        async def room() -> int | None:
            await turns.conversations.check_limit(requester.visitor)
            return await turns.conversations.left(requester.visitor)

        return _answer(await imports.import_file(requester.visitor, await request.body(), room))

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
        branch, requester = await store.history(found.id), identity.requester(request)
        if format == "markdown":
            size, headers = await _THREADS.run(_size, branch), download(found.title, "md")
            return Answer(markdown_of(found, branch), held.hold(requester, size), "text/markdown", headers)
        here, tree = {message.id for message in branch}, await store.tree(found.id)
        del branch
        told = {
            "conversation_id": found.id,
            "title": found.title,
            "messages": (_told(message) for message in tree if message.id in here),
            "other_messages": (_told(message) for message in tree if message.id not in here),
        }
        return Answer(json_texts(told, 2), held.hold(requester, await _THREADS.run(_size, tree)))

    @router.patch("/conversations/{conversation_id}", tags=["conversations"])
    async def rename_conversation(conversation_id: str, given: Renamed, request: Request) -> dict[str, str]:
        found = await theirs(conversation_id, request)
        return {"id": found.id, "title": await set_title(store, found.id, given.title)}

    @router.delete("/conversations/{conversation_id}", status_code=204, tags=["conversations"])
    async def delete_conversation(conversation_id: str, request: Request) -> None:
        found = await theirs(conversation_id, request)
        await turns.conversations.delete(found.id)


def _size(messages: Sequence[Message]) -> int:
    """About how many characters of memory they take."""
    texts = (len(m.text) + sum(text_bytes(part.wire()) for part in m.parts) for m in messages)
    return _FIXED * len(messages) + sum(texts)


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
        "backend": message.backend,
        "model": message.model,
    }


def _answer(imported: ImportResult) -> JSON:
    first = imported.conversations[0][0]
    if len(imported.conversations) == 1 and not (imported.skipped or imported.left_out):
        return {"conversation_id": first}
    return {
        "conversation_id": first,
        "conversations": [{"conversation_id": each, "title": title} for each, title in imported.conversations],
        "skipped": imported.skipped,
        "skipped_in_all": imported.skipped_in_all,
        "left_out": imported.left_out,
    }
