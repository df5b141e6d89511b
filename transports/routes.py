"""The HTTP routes beside the page: health, what can be chosen, conversations, and those of its neighbours here."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.exceptions import HTTPException

from agent.turns import Turns
from memory.messages import Role
from memory.modes import MODES
from memory.text import clean
from runs.errors import ChatError
from transports.documents import add_documents
from transports.guard import problem
from transports.identity import Identity
from transports.records import add_records

OURS = frozenset({"/healthz", "/backends", "/memory-modes", "/conversations", "/tools", "/documents", "/runs"})
"""First path segments of the routes here."""

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


class _Route(APIRoute):
    """Answers what goes wrong in our own shape, {code, message}."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_ours(request: Request) -> Response:
            try:
                return await handle(request)
            except ChatError as e:
                return problem(e)
            except RequestValidationError as e:
                return problem(ChatError("invalid_request", _first_problem(e)))
            except HTTPException as e:
                return problem(ChatError("invalid_request", f"The request cannot be read: {e.detail}"), e.status_code)

        return handle_ours


def _first_problem(error: RequestValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def build_router(turns: Turns, identity: Identity) -> APIRouter:
    """The routes, over the same pieces that the page uses."""
    router = APIRouter(route_class=_Route)
    store = turns.store

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/backends")
    async def backends(request: Request) -> list[dict[str, Any]]:
        return turns.backends.listed(identity.visitor(request.cookies))

    @router.get("/memory-modes")
    async def memory_modes() -> list[dict[str, Any]]:
        memory = turns.settings.memory
        return [
            {
                "name": mode.name,
                "about": mode.about,
                "default": mode.name == memory.default,
                "parameters": {name: getattr(memory, name) for name in mode.parameters},
            }
            for mode in MODES.values()
        ]

    @router.post("/conversations")
    async def import_conversation(given: ImportedConversation, request: Request) -> dict[str, str]:
        pairs = [(m.role, clean(m.content)) for m in given.messages]
        return {"conversation_id": await store.create(identity.visitor(request.cookies), pairs)}

    @router.get("/conversations/{conversation_id}")
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

    @router.delete("/conversations/{conversation_id}", status_code=204)
    async def delete_conversation(conversation_id: str, request: Request) -> None:
        found = await store.conversation(conversation_id, identity.visitor(request.cookies))
        await turns.delete(found.id)

    add_documents(router, turns.toolbox, identity)
    add_records(router, turns, identity)
    return router
