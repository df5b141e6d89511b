"""All routes that are not Gradio's, and their errors in one shape."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from agent.turns import Turns
from hosting.error_responses import error_response
from hosting.guard import first_segment
from hosting.identity import Identity
from runs.errors import INTERNAL, ChatError
from transports.agui import add_agui
from transports.batch import add_batch
from transports.catalog import add_catalog
from transports.compare_page import add_compare_page
from transports.contexts import add_contexts
from transports.conversations import add_conversations
from transports.documents import add_documents
from transports.images import add_images
from transports.operations import add_operations
from transports.pages import add_pages
from transports.records import add_records
from transports.run_controls import add_run_controls
from transports.schemas import validation_error
from transports.send_budget import SendBudget
from transports.share_link import ShareLink, add_share_link
from transports.streams import add_streams
from transports.websocket import add_websocket

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """An error response; `message` says what to do."""

    code: str
    message: str


class _Route(APIRoute):
    """A route whose errors have the shape {code, message}."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except ChatError as e:
                return error_response(e)
            except RequestValidationError as e:
                return error_response(validation_error(e))
            except HTTPException as e:
                error = ChatError("invalid_request", f"The request cannot be read: {e.detail}")
                return error_response(error, e.status_code)
            except Exception:
                logger.exception("%s %s failed", request.method, first_segment(request.scope))
                return error_response(ChatError("internal", INTERNAL, retryable=True))

        return handle_errors


def build_router(turns: Turns, identity: Identity, link: ShareLink | None = None) -> APIRouter:
    """Returns all routes over these objects, which the page uses, too."""
    responses: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}, "5XX": {"model": Problem}}
    router, budget = APIRouter(route_class=_Route, responses=responses), SendBudget()
    add_operations(router, turns)
    add_catalog(router, turns)
    add_streams(router, turns)
    add_run_controls(router, turns)
    add_records(router, turns)
    add_batch(router, turns)
    add_agui(router, turns, identity)
    add_websocket(router, turns, budget)
    add_conversations(router, turns, budget)
    add_contexts(router, turns, budget)
    add_documents(router, turns)
    add_images(router, turns)
    add_share_link(router, link or ShareLink())
    add_compare_page(router, turns.settings.page, traced=turns.settings.tracing.langsmith)
    add_pages(router, turns.settings.page, traced=turns.settings.tracing.langsmith)
    return router


def own_paths(router: APIRouter) -> frozenset[str]:
    """The first path segments of the routes."""
    return frozenset(first_segment({"path": getattr(route, "path", "/")}) for route in router.routes)


def unrouted_handler(paths: frozenset[str]) -> Callable[[Request, Exception], Coroutine[Any, Any, Response]]:
    """Returns the app's handler of 404 and 405. Below `paths` it answers in our shape, elsewhere in Gradio's."""

    async def handle_unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if first_segment(request.scope) not in paths:
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        if error.status_code != 405:
            return error_response(ChatError("not_found", "There is nothing here: GET /docs lists the routes."))
        allowed = ", ".join(_methods(request))
        wrong = ChatError("invalid_request", f"{request.method} cannot be used here; use {allowed}.")
        response = error_response(wrong, 405)
        response.headers["Allow"] = allowed
        return response

    return handle_unrouted


def _methods(request: Request) -> list[str]:
    """All methods of a path: the error knows only those of the first matching route."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted(set().union(*matching))
