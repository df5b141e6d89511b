"""A running app for tests of its transports, with its page or without, and clients of it."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import httpx_sse
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from bench.ports import free_port
from hosting.proxies import use_proxies
from hosting.timeouts import set_connection_limits
from settings import Settings
from tests.conftest import scripted
from transports.service import Service

if TYPE_CHECKING:
    from app import App

use_proxies(os.environ, None, [])

Events = list[dict[str, Any]]
NAMES = {"done": "complete", "failed": "error"}


class Api(Service):
    """The app without its page, served by uvicorn in a thread."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.url = f"http://127.0.0.1:{settings.port}/"
        config = uvicorn.Config(self.create_app(), port=settings.port or 0, log_level="warning", proxy_headers=False)
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, name="api", daemon=True)

    def launch(self) -> None:
        """Returns when it serves."""
        self._thread.start()
        while not self.server.started:
            assert self._thread.is_alive(), "it did not start"
            threading.Event().wait(0.005)
        set_connection_limits(self.server, self.settings.limits.body_bytes)

    def close(self) -> None:
        run_on_loop(self, self.close_all())
        self.server.config.timeout_graceful_shutdown = 1
        self.server.should_exit = True
        self._thread.join(20)


def settings_for(data: Path, **more: Any) -> Settings:
    settings: dict[str, Any] = {
        "backends": [scripted("Script"), scripted("Slow script", speed=5)],
        "data": data,
        "database_url": f"sqlite:///{data / 'glassbox.db'}",
        "host": "127.0.0.1",
        "port": free_port(),
    }
    return Settings(**{**settings, **more})


def launch_app(data: Path, **more: Any) -> "App":
    """The app with its page."""
    from app import App

    server: Any = import_module("gradio.routes").App
    create_app = server.create_app

    def create_once(*args: Any, **options: Any) -> Any:
        """Makes the server that serves. Gradio makes three more before it, which take most of the time of a start."""
        return create_app(*args, **options) if "app_kwargs" in options else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "create_app", create_once)
        app = App(settings_for(data, **more))
        app.launch()
    return app


@contextmanager
def live_app(data: Path, **more: Any) -> "Iterator[App]":
    """The app with its page."""
    app = launch_app(data, **more)
    try:
        yield app
    finally:
        app.close()


@contextmanager
def live_api(data: Path, **more: Any) -> Iterator[Api]:
    """The app without its page: it starts and ends in a fraction of the time."""
    api = Api(settings_for(data, **more))
    api.launch()
    try:
        yield api
    finally:
        api.close()


def run_on_loop(app: Service, work: Coroutine[Any, Any, Any]) -> Any:
    """Runs something on the app's own loop."""
    assert app._loop
    return asyncio.run_coroutine_threadsafe(work, app._loop).result(timeout=20)


@asynccontextmanager
async def client_of(app: "Api | App", *, cookie: bool = True, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A visitor with a cookie, or an API client without one."""
    async with httpx.AsyncClient(base_url=app.url, timeout=30, **more) as client:
        if cookie:
            (await client.get("/example")).raise_for_status()
        yield client


async def events_of(client: httpx.AsyncClient, method: str, path: str, most: int | None = None, **sent: Any) -> Events:
    """The events of an SSE answer, as another SSE client reads them; after `most` of them the line is dropped."""
    received: Events = []
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
            received.append(event)
            if len(received) == most or event["type"] == "batch_done":
                break
    return received


async def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"code", "message"}
    return str(answer.json()["message"])


@asynccontextmanager
async def socket_of(
    app: "Api | App", client: httpx.AsyncClient | None = None, **more: Any
) -> AsyncIterator[ClientConnection]:
    """A WebSocket, with the cookie of a client."""
    headers = dict(more.pop("headers", {}))
    if client and client.cookies:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    url = app.url.replace("http://", "ws://") + "ws/chat"
    async with connect(url, additional_headers=headers, max_size=None, **more) as socket:
        yield socket


async def next_event(socket: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(await asyncio.wait_for(socket.recv(), 20)))


async def events_until_end(socket: ClientConnection) -> Events:
    """The events of a run, to its last."""
    events: Events = []
    while not events or events[-1]["type"] not in ("complete", "stopped", "error"):
        events.append(await next_event(socket))
    return events
