"""A server that speaks AG-UI as its scripts say, well or badly, and notes what it is sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

Body = dict[str, Any]
Script = Callable[[Body], AsyncIterator[bytes]]
SCRIPTS: dict[str, Script] = {}
REQUESTS: list[tuple[str, Body, dict[str, str]]] = []
"""The name, the body and the headers of each request."""
ENDED: list[str] = []
"""The names of the scripts whose connection ended before they did."""


def event(kind: str, **fields: Any) -> bytes:
    return b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


def text(*deltas: str, message_id: str = "m") -> bytes:
    content = b"".join(event("TEXT_MESSAGE_CONTENT", messageId=message_id, delta=delta) for delta in deltas)
    return event("TEXT_MESSAGE_START", messageId=message_id, role="assistant") + content


STARTED, FINISHED = event("RUN_STARTED", threadId="t", runId="r"), event("RUN_FINISHED", threadId="t", runId="r")


def script(function: Script) -> Script:
    SCRIPTS[function.__name__] = function
    return function


def sends(name: str, *parts: bytes) -> None:
    """A script that sends these bytes whatever it is asked."""

    async def send(body: Body) -> AsyncIterator[bytes]:
        for part in parts:
            yield part
            await asyncio.sleep(0)

    SCRIPTS[name] = send


async def _run(request: Request) -> Response:
    name, body = request.path_params["name"], await request.json()
    REQUESTS.append((name, body, dict(request.headers)))
    if name.isdigit():
        status = int(name)
        said = Response('{"error": {"type": "teapot", "message": "sk-canary-in-a-body"}}', status)
        return RedirectResponse("/hello", status) if 300 <= status < 400 else said
    if name == "page":
        return HTMLResponse("<html>Welcome</html>")

    async def send() -> AsyncIterator[bytes]:
        done = False
        try:
            async for part in SCRIPTS[name](body):
                yield part
            done = True
        finally:
            if not done:
                ENDED.append(name)

    return StreamingResponse(send(), media_type="text/event-stream")


def scripted_app() -> Starlette:
    return Starlette(routes=[Route("/{name}", _run, methods=["POST"])])
