"""A real running app for tests of its transports, and clients of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
from gradio.routes import App as GradioServer
from websockets.asyncio.client import ClientConnection, connect

from app import App
from bench.ports import free_port
from settings import Settings
from tests.conftest import scripted

Events = list[dict[str, Any]]
NAMES = {"done": "complete", "failed": "error"}


def launch_app(data: Path, **more: Any) -> App:
    settings: dict[str, Any] = {
        "backends": [scripted("Script"), scripted("Slow script", speed=5)],
        "data": data,
        "database_url": f"sqlite:///{data / 'glassbox.db'}",
        "host": "127.0.0.1",
        "port": free_port(),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradioServer, "create_app", _created_once)
        app = App(Settings(**{**settings, **more}))
        app.launch()
    return app


_create_app = GradioServer.create_app


def _created_once(*args: Any, **options: Any) -> Any:
    """Makes the server that serves. Gradio makes three more before it, which take most of the time of a start."""
    return _create_app(*args, **options) if "app_kwargs" in options else None


@contextmanager
def live_app(data: Path, **more: Any) -> Iterator[App]:
    app = launch_app(data, **more)
    try:
        yield app
    finally:
        app.close()


def run_on_loop(app: App, work: Coroutine[Any, Any, Any]) -> Any:
    """Runs something on the app's own loop."""
    assert app._loop
    return asyncio.run_coroutine_threadsafe(work, app._loop).result(timeout=20)


@asynccontextmanager
async def client_of(app: App, *, cookie: bool = True, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who has opened the page and so has a cookie, or an API client without one."""
    async with httpx.AsyncClient(base_url=app.url, timeout=30, **more) as client:
        if cookie:
            (await client.get("/example")).raise_for_status()  # a page that costs little
        yield client


async def events_of(client: httpx.AsyncClient, method: str, path: str, most: int | None = None, **sent: Any) -> Events:
    """The events of an SSE answer, as another SSE client reads them; after `most` of them the line is dropped."""
    told: Events = []
    async with asyncio.timeout(60), httpx_sse.aconnect_sse(client, method, path, **sent) as source:
        source.response.raise_for_status()
        async for sse in source.aiter_sse():
            if not sse.data:
                continue  # httpx-sse makes an event of a comment, which the specification does not
            event = json.loads(sse.data)
            assert NAMES.get(sse.event, sse.event) == event["type"]
            assert sse.id == ("" if "index" in event or event["type"] == "batch_done" else str(event["seq"])), (
                "a batch has no place to resume from"
            )
            told.append(event)
            if len(told) == most or event["type"] == "batch_done":
                break
    return told


async def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"code", "message"}
    return str(answer.json()["message"])


@asynccontextmanager
async def socket_of(app: App, client: httpx.AsyncClient | None = None, **more: Any) -> AsyncIterator[ClientConnection]:
    """A WebSocket, with the cookie of a client."""
    headers = dict(more.pop("headers", {}))
    if client and client.cookies:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    url = app.url.replace("http://", "ws://") + "ws/chat"
    async with connect(url, additional_headers=headers, max_size=None, **more) as socket:
        yield socket


async def told(socket: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(await asyncio.wait_for(socket.recv(), 20)))


async def events_until_end(socket: ClientConnection) -> Events:
    """The events of a run, to its last."""
    events: Events = []
    while not events or events[-1]["type"] not in ("complete", "stopped", "error"):
        events.append(await told(socket))
    return events
