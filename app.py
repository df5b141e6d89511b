"""Glassbox: reads the settings, builds the pieces, launches."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: no network at the start
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
ENVIRON = dict(os.environ)

from proxies import use_proxies

PROXY_PROBLEMS = use_proxies(os.environ, None, [])  # some libraries make a client as they are imported
os.environ.pop("GRADIO_SERVER_PORT", None)  # gradio reads it as it is imported, and fails over a wrong one

from hosting.gradio_stubs import skip_stub_generation

skip_stub_generation()

import segno
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection

from agent.loop import warm_up
from agent.tools import Toolbox
from agent.turns import Turns
from backends import Backends
from components.assets import WEB, early_script, page_head
from components.handlers import Handlers
from components.page import build_page
from components.theme import build_theme
from documents.library import DocumentLimits, Library
from hosting.error_responses import LoggedCORSMiddleware, RefusalLog
from hosting.forwarded_headers import ForwardedMiddleware
from hosting.guard import GuardConfig, GuardMiddleware
from hosting.hosts import Hosts
from hosting.identity import Identity, VisitorMiddleware, load_secret
from hosting.security_headers import SecurityHeadersMiddleware
from hosting.sessions import Sessions
from hosting.timeouts import set_connection_limits
from hosting.tunnel import OpenTunnel, TunnelError, open_tunnel
from logs import begin_log, take_over
from memory.conversation_list import fold_older_texts
from memory.store import Store
from outlets import outlets
from runs.errors import ChatError
from runs.registry import RunRegistry
from runs.threads import Threads, separate_threads
from settings import Settings, SettingsError, load_settings
from tracing import use_langsmith
from transports.routes import OWN_PATHS, build_router, unrouted_response
from transports.share_link import ShareLink

logger = logging.getLogger("glassbox")
_TIDY_S, _SESSIONS_S = 3600.0, 20.0


class App:
    """The running app: the page and the routes on one port, and what they share."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for settings that cannot work together."""
        self.settings = settings
        if (first := "/".join(settings.root_path.split("/")[:2])) in OWN_PATHS:
            found = f"root_path: found {settings.root_path!r}"
            raise SettingsError(
                f"{found}, allowed: a path that does not begin with {first}, which is one of the routes"
            )
        self.backends = Backends(settings.backends, settings.keys)
        try:
            self.store = Store(settings.database_url)
        except ValueError as e:
            raise SettingsError(f"GLASSBOX_DATABASE_URL: {e}") from None
        self.runs = RunRegistry(most=settings.limits.runs + settings.limits.waiting)
        secret = load_secret(settings.secret, settings.data)
        guide, bounds = Path(__file__).parent / "README.md", DocumentLimits.of(settings.limits)
        self.library = Library(settings.data / "library.db", guide, bounds, secret.encode())
        try:
            self.turns = Turns(settings, self.backends, self.store, self.runs, Toolbox(settings.tools, self.library))
        except ValueError as e:
            raise SettingsError(f"memory, mirror: {e}") from None
        self.identity = Identity(secret, cross_site=settings.on_space)
        self.sessions, self.refusals = Sessions(), RefusalLog()
        self.demo = build_page(Handlers(self.turns, self.identity))
        self.link = ShareLink("making" if settings.share else "off")
        self._tunnel: OpenTunnel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.url = ""

    def launch(self) -> None:
        """Serves in the background. Raises OSError if the port is taken."""
        s = self.settings
        problems = use_proxies(os.environ, s.host, [b.base_url for b in s.backends if b.base_url])
        for problem in (*PROXY_PROBLEMS, *problems, *use_langsmith(os.environ, s.tracing.langsmith)):
            logger.warning(problem)
        # Gradio offers no other way to tell uvicorn that ForwardedMiddleware does this
        os.environ["FORWARDED_ALLOW_IPS"] = ""
        _, local_url, _ = self.demo.launch(
            server_name=s.host,
            server_port=s.port,
            share=False,
            root_path="",  # ForwardedMiddleware sets it, for each request
            auth=s.auth,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            max_threads=200,
            state_session_capacity=2000,
            footer_links=[],
            theme=build_theme(),
            css_paths=[WEB / "page.css", WEB / "reply.css"],
            head=page_head(),
            favicon_path=WEB / "favicon.svg",
            app_kwargs={
                "lifespan": self._lifespan,
                "openapi_url": None,
                "routes": build_router(self.turns, self.identity, self.link).routes,
                "exception_handlers": {404: unrouted_response, 405: unrouted_response},
                "middleware": self._middleware(),
            },
        )
        self.url = local_url
        set_connection_limits(self.demo.server, s.limits.body_bytes)
        take_over("uvicorn")

    def share(self) -> None:
        """Makes the public link, prints it or why there is none, and returns when it has ended."""
        demo: Any = self.demo
        try:
            self._tunnel = open_tunnel(demo.server_port, demo.share_token, self.settings.data)
        except TunnelError as e:
            self.link.state, self.link.message = "failed", f"No public link: {e}"
            print(self.link.message, flush=True)
            return
        self.link.url, self.link.state = self._tunnel.url or "", "ready"
        print(f"Public link (for a week at most): {self.link.url}", flush=True)
        if sys.stdout.isatty():
            segno.make(self.link.url).terminal(compact=True)
        self._tunnel.wait()
        if not self.turns.closing:
            self.link.state, self.link.message = "failed", "The public link has ended: start the app again for another."
            print(self.link.message, flush=True)

    def close(self) -> None:
        """Ends the runs, then the server, then the backends."""
        if self._loop:
            try:
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=8)
            except TimeoutError:
                logger.error("not everything ended in time: the process ends all the same")
        if server := getattr(self.demo, "server", None):
            server.config.timeout_graceful_shutdown = 1  # open pages hold their event streams
        self.demo.close(verbose=False)
        if self._tunnel:
            self._tunnel.close()

    def _middleware(self) -> list[Middleware]:
        s = self.settings
        hosts = Hosts(s.allowed_hosts, [s.host, s.space_host], self.link.address, on_space=s.on_space)
        rules = GuardConfig(
            ours=OWN_PATHS,
            body_bytes=s.limits.body_bytes,
            requester=self.identity.requester,
            quota=self.turns.quota,
            auth=s.auth,
            logged_in=self._logged_in,
            uploads={"/documents": s.limits.document_bytes, "/conversations": s.limits.import_bytes},
            origins=s.allowed_origins,
            opened=frozenset({"/metrics"} if s.metrics_token else ()),
            connections=s.limits.connections_per_address or 0,
            sessions=self.sessions,
            hosts=hosts,
            log=self.refusals,
        )
        told = ["X-Run-Id", "X-Conversation-Id", "Retry-After"]
        return [
            Middleware(
                ForwardedMiddleware,
                trusted=s.proxies,
                root_path=s.root_path,
                tunnel=self.link.address,
                log=self.refusals,
                knows=hosts.knows,
            ),
            Middleware(SecurityHeadersMiddleware, on_space=s.on_space, origins=s.allowed_origins, first=early_script()),
            Middleware(
                LoggedCORSMiddleware,
                log=self.refusals,
                allow_origins=s.allowed_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=told,
            ),
            Middleware(GuardMiddleware, rules=rules),
            Middleware(VisitorMiddleware, identity=self.identity),
        ]

    def _logged_in(self, connection: HTTPConnection) -> bool:
        app: Any = self.demo.app
        names = f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"
        return any(connection.cookies.get(name) in app.tokens for name in names if name in connection.cookies)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncGenerator[None, None]:
        # Gradio's own CORS middleware reflects any origin with credentials; ours has none to allow
        app.user_middleware = [m for m in app.user_middleware if "CustomCORS" not in getattr(m.cls, "__name__", "")]
        app.middleware_stack = app.build_middleware_stack()
        self._loop = asyncio.get_running_loop()
        separate_threads()
        await self.store.open()
        await self.backends.open()
        await self.library.open()
        warming = asyncio.create_task(Threads("warm up", 1).run(warm_up))
        tidying = [asyncio.create_task(work()) for work in (self._tidy, self._forget_absent, self._fold_earlier)]
        yield
        for task in tidying:
            task.cancel()
        await warming

    async def _tidy(self) -> None:
        """Now and then lets go of what is kept only for a time."""
        while True:
            try:
                await self.turns.forget_idle()
            except ChatError as e:
                logger.error("what is too old: %s", e)
            await asyncio.sleep(_TIDY_S)

    async def _fold_earlier(self) -> None:
        """Makes what an earlier version has stored searchable as everything else is."""
        try:
            await fold_older_texts(self.store)
        except ChatError as e:
            logger.error("search in earlier conversations: %s", e)

    async def _forget_absent(self) -> None:
        """Lets go of the pages and the keys of visitors who have gone.

        One task does it for all: a timer that a page's event set would hold, by its context, all of that page.
        """
        while True:
            await asyncio.sleep(_SESSIONS_S)
            await self.sessions.end_expired(self.demo)
            self.backends.keys.mark_present(self.sessions.visitors())
            self.backends.keys.expire()

    async def _end(self) -> None:
        await self.turns.close()
        await self.backends.close()
        await self.library.close()
        await self.store.close()


def _refusal(settings: Settings) -> str:
    """Why the address cannot be had."""
    host = settings.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except OSError:
        return f"{host} is no address of this machine: choose another with --host or GRADIO_SERVER_NAME."
    port = settings.port or "7860-7959"
    return f"Port {port} is taken: choose another with --port or GRADIO_SERVER_PORT."


def _end_signals() -> Callable[[], object]:
    """From now on SIGTERM and SIGINT are noted; what is returned waits for the first.

    By the descriptor that the interpreter itself writes to: a `threading.Event` that is set in a handler locks up when
    a second signal comes in the middle of it.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return lambda kept=theirs: ours.recv(1)  # type: ignore[misc]


def _arguments(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python app.py", description=__doc__)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="also make a public link")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a login")
    parser.add_argument("--config", metavar="FILE", help="settings file (default glassbox.toml)")
    return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> int:
    begin_log("text")
    try:
        settings = load_settings(_arguments(sys.argv[1:] if argv is None else argv), ENVIRON)
        begin_log(settings.log)
        app = App(settings)
    except SettingsError as e:
        print(e, file=sys.stderr)
        return 2
    wait_for_end = _end_signals()
    try:
        app.launch()
    except OSError:
        print(_refusal(settings), file=sys.stderr)
        return 1
    print(f"Glassbox is at {app.url}", flush=True)
    if settings.share:
        threading.Thread(target=app.share, name="share", daemon=True).start()
    wait_for_end()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who asks again does not want to wait
    app.close()
    return 0


if __name__ == "__main__":
    with outlets():
        sys.exit(main())
