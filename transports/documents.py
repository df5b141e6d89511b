"""The routes of a visitor's documents, which the tool `search` reads."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from agent.turns import Turns
from documents.library import Library
from runs.errors import ChatError
from transports.dependencies import CurrentRequester, CurrentVisitor
from transports.disconnects import while_connected


def add_documents(router: APIRouter, turns: Turns) -> None:
    """Adds `GET|POST|DELETE /documents`. Documents belong to a visitor's cookie."""

    def library() -> Library:
        if turns.toolbox.library is None or "search" not in turns.toolbox.names:
            raise ChatError("not_found", "Documents cannot be added here: the tool 'search' is turned off.")
        return turns.toolbox.library

    @router.get("/documents")
    async def documents(visitor: CurrentVisitor) -> list[dict[str, Any]]:
        return [asdict(one) for one in await library().documents(visitor)] if visitor else []

    @router.post("/documents", status_code=201)
    async def add_document(
        name: Annotated[str, Query(max_length=400)], request: Request, requester: CurrentRequester
    ) -> dict[str, Any]:
        """Adds a document. The body is the file itself."""
        owner = _owner(requester.visitor)
        turns.quota.check(requester)
        turns.quota.count(requester)
        documents, data = library(), await request.body()
        turns.quota.take_document(requester, len(data))
        return asdict(await while_connected(request, documents.add(owner, name, data, requester.network)))

    @router.delete("/documents/{document_id}", status_code=204)
    async def remove_document(document_id: str, visitor: CurrentVisitor) -> None:
        await library().remove(_owner(visitor), document_id)


def _owner(visitor: str | None) -> str:
    if visitor is None:
        raise ChatError("authentication", "Documents belong to a visitor: open the page first, and send its cookie.")
    return visitor
