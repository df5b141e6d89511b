"""The routes of the documents that a visitor lets the tool `search` look into, and of the tools themselves."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from agent.tools import Toolbox
from agent.turns import Turns
from documents.library import Library
from hosting.identity import Identity
from runs.errors import ChatError


def add_documents(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `GET /tools` and `GET|POST|DELETE /documents`; a visitor is known by their cookie alone."""
    toolbox = turns.toolbox

    @router.get("/tools")
    async def tools() -> list[dict[str, Any]]:
        return toolbox.listed()

    @router.get("/documents")
    async def documents(request: Request) -> list[dict[str, Any]]:
        visitor = identity.visitor(request.cookies)
        return [asdict(one) for one in await _library(toolbox).documents(visitor)] if visitor else []

    @router.post("/documents", status_code=201)
    async def add_document(name: Annotated[str, Query(max_length=400)], request: Request) -> dict[str, Any]:
        """The body is the file as it is."""
        requester, owner = identity.requester(request), _owner(identity, request)
        turns.quota.check(requester)
        turns.quota.count(requester)
        library, data = _library(toolbox), await request.body()
        turns.quota.take_document(requester, len(data))
        return asdict(await library.add(owner, name, data, requester.network))

    @router.delete("/documents/{document_id}", status_code=204)
    async def remove_document(document_id: str, request: Request) -> None:
        await _library(toolbox).remove(_owner(identity, request), document_id)


def _library(toolbox: Toolbox) -> Library:
    if toolbox.library is None or "search" not in toolbox.names:
        raise ChatError("not_found", "No documents are taken here: the tool 'search' is turned off.")
    return toolbox.library


def _owner(identity: Identity, request: Request) -> str:
    if owner := identity.visitor(request.cookies):
        return owner
    raise ChatError("authentication", "Documents belong to a visitor: open the page first, and send its cookie.")
