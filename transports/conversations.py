"""The routes of conversations: import, export, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agent.turns import Turns
from memory.messages import Role
from memory.text import clean
from transports.identity import Identity

_MOST_MESSAGES = 10_000


class ImportedMessage(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Role
    content: str

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


def add_conversations(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `POST /conversations` and `GET|DELETE /conversations/{conversation_id}`."""
    store = turns.store

    @router.post("/conversations", tags=["conversations"])
    async def import_conversation(given: ImportedConversation, request: Request) -> dict[str, str]:
        pairs = [(m.role, clean(m.content)) for m in given.messages]
        return {"conversation_id": await store.create(identity.visitor(request.cookies), pairs)}

    @router.get("/conversations/{conversation_id}", tags=["conversations"])
    async def export_conversation(conversation_id: str, request: Request) -> dict[str, Any]:
        found = await store.conversation(conversation_id, identity.visitor(request.cookies))
        messages = [
            {
                "role": m.role,
                "content": m.text,
                "id": m.id,
                "standing": m.standing,
                "run_id": m.run_id,
                "parts": [part.wire() for part in m.parts],
            }
            for m in await store.history(found.id)
        ]
        return {"conversation_id": found.id, "title": found.title, "messages": messages}

    @router.delete("/conversations/{conversation_id}", status_code=204, tags=["conversations"])
    async def delete_conversation(conversation_id: str, request: Request) -> None:
        found = await store.conversation(conversation_id, identity.visitor(request.cookies))
        await turns.delete(found.id)
