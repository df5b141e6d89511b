"""The routes for operators: health, readiness and metrics."""

import asyncio
import secrets

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse

from agent.metrics import Metrics
from agent.turns import Turns
from runs.errors import ChatError

_READY_TIMEOUT_S = 2.0


def add_operations(router: APIRouter, turns: Turns) -> None:
    """Adds `GET /healthz`, `/readyz` and `/metrics`."""
    metrics, settings = Metrics(turns), turns.settings

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", tags=["overview"])
    async def healthz() -> dict[str, str]:
        """200 as soon as the page can be served."""
        return {"status": "ok"}

    @router.get("/readyz", tags=["overview"])
    async def readyz() -> Response:
        """200 while the store answers and the app is not shutting down; else 503 with the reason."""
        reason = "it is ending" if turns.closing else None
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await turns.store.check()
        except (ChatError, TimeoutError):
            reason = "the database does not answer"
        body = {"status": "ok"} if reason is None else {"status": "not ready", "reason": reason}
        return JSONResponse(body, 200 if reason is None else 503)

    @router.get("/metrics", include_in_schema=False)
    async def prometheus_metrics(request: Request) -> Response:
        """Metrics for Prometheus, with the operator's token or behind `--auth`."""
        token = settings.metrics_token
        if token is None and settings.auth is None:
            raise ChatError("not_found", "There is nothing here: GET /docs lists the routes.")
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and not secrets.compare_digest(given.encode(), token.get_secret_value().encode()):
            raise ChatError("authentication", "Send the token: Authorization: Bearer TOKEN.")
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
