"""The app without its page: its objects, their lifetime, and the routes over them as an ASGI application."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from agent.document_vectors import document_vectors
from agent.loop import warm_up
from agent.mcp.servers import Servers
from agent.own_modes import add_own_modes
from agent.tools import Toolbox
from agent.turns import Turns
from backends import Backends
from documents.library import GUIDE, DocumentLimits, Library
from hosting.heaps import return_freed_memory
from hosting.identity import Identity, load_secret
from hosting.middleware import build_middleware
from hosting.security_headers import PageRewriter
from hosting.sessions import Sessions
from memory.conversation_list import fold_older_texts
from memory.store import Store
from runs.errors import ChatError
from runs.registry import RunRegistry
from runs.threads import Threads, separate_threads
from settings import Settings, SettingsError
from transports.mcp_server import McpEndpoint
from transports.routes import build_router, own_paths, unrouted_handler
from transports.share_link import ShareLink

logger = logging.getLogger(__name__)
_CLEANUP_S, _SESSIONS_S, _MEMORY_S = 3600.0, 20.0, 60.0
"""Intervals of the clean-up of the store, of closed pages and keys, and of freed memory, in seconds."""


class Service:
    """All routes and the objects that they use, without the page, which `App` adds."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for settings that contradict each other."""
        self.settings = settings
        add_own_modes(settings.memory)
        self.backends = Backends(settings.backends, settings.keys, downloads=not settings.public)
        try:
            self.store = Store(settings.database_url)
        except ValueError as e:
            raise SettingsError(f"GLASSBOX_DATABASE_URL: {e}") from None
        self.runs = RunRegistry(most=settings.limits.runs + settings.limits.waiting)
        secret = load_secret(settings.secret, settings.data)
        limits = DocumentLimits.from_settings(settings.limits)
        self.mcp = Servers.from_settings(settings)
        vectors = document_vectors(settings)
        self.library = Library(settings.data / "library.db", GUIDE, limits, secret.encode(), vectors)
        try:
            toolbox = Toolbox(settings.tools, self.library, self.mcp)
            self.turns = Turns(settings, self.backends, self.store, self.runs, toolbox, secret.encode())
        except ValueError as e:
            raise SettingsError(f"memory, mirror: {e}") from None
        self.identity = Identity(secret, cross_site=settings.on_space)
        self.sessions = Sessions()
        self.link = ShareLink("making" if settings.share else "off")
        self._router = build_router(self.turns, self.identity, self.link)
        self._endpoint = McpEndpoint(self.turns)
        self._router.routes.append(self._endpoint.route())
        self._own_paths = own_paths(self._router)
        self._loop: asyncio.AbstractEventLoop | None = None
        if (first := "/".join(settings.root_path.split("/")[:2])) in self._own_paths:
            raise SettingsError(
                f"root_path: found {settings.root_path!r}, allowed: a path that does not begin with {first}, which is "
                "one of the routes"
            )

    def asgi_options(
        self, rewrite: PageRewriter = lambda page: page, routes: Sequence[BaseRoute] = ()
    ) -> dict[str, Any]:
        """Arguments of FastAPI, which Gradio passes on as its `app_kwargs`.

        `rewrite` changes the HTML of pages; `routes` are added, with the rights of Gradio's routes.
        """
        unrouted = unrouted_handler(self._own_paths)
        return {
            "lifespan": self._lifespan,
            "openapi_url": None,
            "routes": [*self._router.routes, *routes],
            "exception_handlers": {404: unrouted, 405: unrouted},
            "middleware": build_middleware(
                self.settings,
                self.identity,
                self.turns.quota,
                self._own_paths,
                sessions=self.sessions,
                link=self.link.address,
                logged_in=self._is_logged_in,
                rewrite=rewrite,
            ),
        }

    def create_app(self) -> FastAPI:
        """Returns the routes without Gradio as an ASGI application."""
        return FastAPI(**self.asgi_options())

    def _is_logged_in(self, connection: HTTPConnection) -> bool:
        """Whether a connection has the cookie of the page's login."""
        return False

    async def _end_expired_sessions(self) -> None:
        """Ends the listeners of closed pages."""

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncGenerator[None, None]:
        self._loop = asyncio.get_running_loop()
        separate_threads()
        await self.store.open()
        await self.backends.open()
        await self.library.open()
        self.mcp.open()
        warming = asyncio.create_task(Threads("warm up", 1).run(warm_up))
        work = (self._clean_up, self._end_sessions, self._fold_earlier, self._return_memory)
        jobs = [asyncio.create_task(job()) for job in work]
        yield
        for job in jobs:
            job.cancel()
        await warming

    async def _clean_up(self) -> None:
        """Periodically deletes expired data."""
        while True:
            try:
                await self.turns.forget_idle()
            except ChatError as e:
                logger.error("clean-up: %s", e)
            await asyncio.sleep(_CLEANUP_S)

    async def _fold_earlier(self) -> None:
        """Makes conversations of earlier versions searchable."""
        try:
            await fold_older_texts(self.store)
        except ChatError as e:
            logger.error("search in earlier conversations: %s", e)

    async def _end_sessions(self) -> None:
        """Periodically drops the sessions of closed pages, and the keys of visitors who have left.

        One task does it for all: a timer set in a page's event would keep the whole page alive through its context.
        """
        while True:
            await asyncio.sleep(_SESSIONS_S)
            await self._end_expired_sessions()
            self.backends.keys.mark_present(self.sessions.visitors())
            self.backends.keys.expire()

    async def _return_memory(self) -> None:
        """Periodically gives freed memory back to the system."""
        while True:
            await asyncio.sleep(_MEMORY_S)
            await asyncio.to_thread(return_freed_memory)

    async def close_all(self) -> None:
        """Ends the runs and closes the backends and the databases."""
        await self.turns.close()
        await self._endpoint.close()
        await self.mcp.close()
        await self.backends.close()
        await self.library.close()
        await self.store.close()
