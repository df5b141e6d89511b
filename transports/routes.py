"""The HTTP routes beside the page: health, what can be chosen, and those of its neighbours here."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from agent.turns import Turns
from hosting.error_responses import error_response
from hosting.guard import first_segment
from hosting.identity import Identity
from memory.modes import MODES
from runs.errors import INTERNAL, ChatError
from transports.agui import add_agui
from transports.batch import add_batch
from transports.contexts import add_contexts
from transports.conversations import add_conversations
from transports.documents import add_documents
from transports.limits import add_limits
from transports.operations import add_operations
from transports.pages import add_pages
from transports.records import add_records
from transports.schemas import validation_error
from transports.send_budget import SendBudget
from transports.share_link import ShareLink, add_sharing
from transports.streams import add_streams
from transports.websocket import add_socket

logger = logging.getLogger(__name__)

OWN_PATHS = frozenset(
    f"/{name}"
    for name in (
        *("healthz", "readyz", "metrics", "backends", "memory-modes", "conversations", "context", "tools", "documents"),
        *("stream", "runs", "ws", "batch", "agui", "client.js", "example", "docs", "openapi.json", "limits"),
        *("share", "share.svg"),
    )
)
"""First path segments of the routes here."""


class Problem(BaseModel):
    """What every refusal is: `message` says what to do."""

    code: str
    message: str


class _Route(APIRoute):
    """Answers what goes wrong in our own shape, {code, message}."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_ours(request: Request) -> Response:
            try:
                return await handle(request)
            except ChatError as e:
                return error_response(e)
            except RequestValidationError as e:
                return error_response(validation_error(e))
            except HTTPException as e:
                return error_response(
                    ChatError("invalid_request", f"The request cannot be read: {e.detail}"), e.status_code
                )
            except Exception:
                logger.exception("%s %s failed", request.method, first_segment(request.scope))
                return error_response(ChatError("internal", INTERNAL, retryable=True))

        return handle_ours


async def unrouted_response(request: Request, error: Exception) -> Response:
    """The app's handler of 404 and 405: in our shape on our paths, as Gradio's clients expect it on all others."""
    assert isinstance(error, HTTPException)
    if first_segment(request.scope) not in OWN_PATHS:
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    if error.status_code == 405:
        allowed = ", ".join(_methods(request))
        answer = error_response(
            ChatError("invalid_request", f"{request.method} cannot be used here; use {allowed}."), 405
        )
        answer.headers["Allow"] = allowed
        return answer
    return error_response(ChatError("not_found", "There is nothing here: GET /docs shows what there is."))


def _methods(request: Request) -> list[str]:
    """All methods of a path: the error knows those of its first route alone."""
    routes = [route for route in request.app.routes if isinstance(route, APIRoute)]
    here = [route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted(set().union(*here))


def build_router(turns: Turns, identity: Identity, link: ShareLink | None = None) -> APIRouter:
    """The routes, over the same pieces that the page uses."""
    refusals: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}, "5XX": {"model": Problem}}
    router, held = APIRouter(route_class=_Route, responses=refusals), SendBudget()

    add_operations(router, turns)

    @router.get("/backends", tags=["what there is"])
    async def backends(request: Request) -> list[dict[str, Any]]:
        """The backends that can be chosen, whether each is ready, and if not why."""
        return turns.backends.describe(identity.visitor(request.cookies))

    @router.get("/memory-modes", tags=["what there is"])
    async def memory_modes() -> list[dict[str, Any]]:
        """What a conversation may remember."""
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

    add_streams(router, turns, identity)
    add_records(router, turns, identity)
    add_batch(router, turns, identity)
    add_agui(router, turns, identity)
    add_socket(router, turns, identity, held)
    add_conversations(router, turns, identity, held)
    add_contexts(router, turns, identity, held)
    add_documents(router, turns, identity)
    add_limits(router, turns, identity)
    add_sharing(router, link or ShareLink())
    add_pages(router, traced=turns.settings.tracing.langsmith)
    return router
