"""The routes of conversations: the list, import, export, rename, delete."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from agent.turns import Turns
from memory.conversation_list import find_conversations, set_title
from memory.imports import ConversationImporter, ImportResult
from memory.messages import Message
from runs.events import JSON
from runs.json_text import json_texts, text_bytes
from runs.threads import Threads
from transports.dependencies import CurrentRequester, CurrentVisitor
from transports.disconnects import while_connected
from transports.markdown_export import attachment_headers, markdown_texts
from transports.send_budget import BudgetedResponse, SendBudget

_THREADS = Threads("exports", 2)
_MESSAGE_BYTES = 500
"""Memory of a message beside its texts."""
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


class RenameRequest(BaseModel):
    """The new title of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)
    title: str


def add_conversations(router: APIRouter, turns: Turns, budget: SendBudget) -> None:
    """Adds `GET|POST /conversations` and `GET|PATCH|DELETE /conversations/{conversation_id}`."""
    store, imports = turns.store, ConversationImporter(turns.store, turns.settings.limits.import_bytes)

    @router.get("/conversations", tags=["conversations"])
    async def list_conversations(
        visitor: CurrentVisitor,
        search: Annotated[str, Query(max_length=200, description="In titles and messages.")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        before: Annotated[str | None, Query(max_length=100, description="`next` of the previous answer.")] = None,
    ) -> dict[str, Any]:
        """The visitor's own conversations, the newest first; none without a cookie."""
        found, following = await find_conversations(store, visitor, search, limit, before) if visitor else ([], None)
        conversations = [
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
        return {"conversations": conversations, "next": following}

    @router.post("/conversations", tags=["conversations"], openapi_extra=_BODY)
    async def import_conversations(request: Request, requester: CurrentRequester) -> dict[str, Any]:
        """Answers {conversation_id}; for a file with several also all of them, and what was left out."""
        await turns.conversations.check_limit(requester.visitor)
        turns.quota.check(requester)
        turns.quota.count(requester)

        async def room() -> int | None:
            await turns.conversations.check_limit(requester.visitor)
            return await turns.conversations.left(requester.visitor)

        importing = imports.import_file(requester.visitor, await request.body(), room)
        return _imported_fields(await while_connected(request, importing))

    @router.get(
        "/conversations/{conversation_id}",
        tags=["conversations"],
        responses={200: {"content": {"application/json": {}, "text/markdown": {}}}},
    )
    async def export_conversation(
        conversation_id: str, requester: CurrentRequester, format: Literal["json", "markdown"] = "json"
    ) -> Response:
        """The current branch as `messages`, and the messages of other branches as `other_messages`."""
        conversation = await store.conversation(conversation_id, requester.visitor)
        branch = await store.history(conversation.id)
        if format == "markdown":
            size = await _THREADS.run(_memory_bytes, branch)
            headers = attachment_headers(conversation.title, "md")
            texts = markdown_texts(conversation, branch)
            return BudgetedResponse(texts, budget.reserve(requester, size), "text/markdown", headers)
        in_branch, tree = {message.id for message in branch}, await store.tree(conversation.id)
        del branch
        body = {
            "conversation_id": conversation.id,
            "title": conversation.title,
            "messages": (_message_fields(message) for message in tree if message.id in in_branch),
            "other_messages": (_message_fields(message) for message in tree if message.id not in in_branch),
        }
        return BudgetedResponse(json_texts(body, 2), budget.reserve(requester, await _THREADS.run(_memory_bytes, tree)))

    @router.patch("/conversations/{conversation_id}", tags=["conversations"])
    async def rename_conversation(
        conversation_id: str, request: RenameRequest, visitor: CurrentVisitor
    ) -> dict[str, str]:
        conversation = await store.conversation(conversation_id, visitor)
        return {"id": conversation.id, "title": await set_title(store, conversation.id, request.title)}

    @router.delete("/conversations/{conversation_id}", status_code=204, tags=["conversations"])
    async def delete_conversation(conversation_id: str, visitor: CurrentVisitor) -> None:
        conversation = await store.conversation(conversation_id, visitor)
        await turns.conversations.delete(conversation.id)


def _memory_bytes(messages: Sequence[Message]) -> int:
    """The approximate memory of messages."""
    texts = (len(m.text) + sum(text_bytes(part.wire()) for part in m.parts) for m in messages)
    return _MESSAGE_BYTES * len(messages) + sum(texts)


def _message_fields(message: Message) -> JSON:
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
        "images": [image.wire() for image in message.images],
    }


def _imported_fields(imported: ImportResult) -> JSON:
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
