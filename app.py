"""Glassbox: loads the settings, builds the parts of the app and serves them."""

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
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: no network access at the start
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
ENVIRON = dict(os.environ)

from hosting.proxies import use_proxies

PROXY_PROBLEMS = use_proxies(os.environ, None, [])  # some libraries create a client when they are imported
os.environ.pop("GRADIO_SERVER_PORT", None)  # gradio reads it when it is imported, and fails if it is invalid

from hosting.gradio_stubs import skip_stub_generation

skip_stub_generation()

import segno
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.routing import Route

from components.assets import WEB, page_head
from components.brand import Brand
from components.handlers import Handlers
from components.page import build_page
from components.page_html import GRADIO_ASSETS, PageHtml
from components.theme import build_theme
from hosting.heaps import limit_heaps
from hosting.output import nonblocking_output
from hosting.static_files import StaticFiles
from hosting.timeouts import set_connection_limits
from hosting.tunnel import OpenTunnel, TunnelError, open_tunnel
from logs import configure_logging, use_root_handler
from settings import Settings, SettingsError, load_settings
from tracing import configure_langsmith
from transports.service import Service

logger = logging.getLogger("glassbox")


class App(Service):
    """The running app: the page and the routes on one port."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for settings that contradict each other."""
        super().__init__(settings)
        self.brand = Brand(settings.page, settings.folder)
        self.demo = build_page(Handlers(self.turns, self.identity), self.brand)
        self._tunnel: OpenTunnel | None = None
        self.url = ""

    def launch(self) -> None:
        """Starts the server in the background. Raises OSError if the port is in use."""
        s = self.settings
        servers = [*(b.base_url for b in s.backends), *(m.url for m in s.mcp), s.documents.base_url]
        problems = use_proxies(os.environ, s.host, [address for address in servers if address])
        for problem in (*PROXY_PROBLEMS, *problems, *configure_langsmith(os.environ, s.tracing.langsmith)):
            logger.warning(problem)
        files = StaticFiles(GRADIO_ASSETS)
        # Gradio has no other way to tell uvicorn that ForwardedMiddleware does this
        os.environ["FORWARDED_ALLOW_IPS"] = ""
        _, local_url, _ = self.demo.launch(
            server_name=s.host,
            server_port=s.port,
            share=False,
            root_path="",  # ForwardedMiddleware sets it for each request
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
            css_paths=[WEB / f"{name}.css" for name in ("colours", "page", "header", "chat", "composer", "reply")],
            head=page_head(self.brand.style()),
            favicon_path=self.brand.favicon(s.data),
            app_kwargs=self.asgi_options(
                PageHtml(self.demo, files, self.brand).rewrite, [Route("/assets/{name}", files, methods=["GET"])]
            ),
        )
        self.url = local_url
        set_connection_limits(self.demo.server, s.limits.body_bytes)
        use_root_handler("uvicorn")

    def share(self) -> None:
        """Creates the public link and prints it, or why it failed; returns when the link has ended."""
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
            self.link.state, self.link.message = (
                "failed",
                "The public link has ended: start the app again to create another.",
            )
            print(self.link.message, flush=True)

    def close(self) -> None:
        """Ends the runs, the backends and the server."""
        if self._loop:
            try:
                asyncio.run_coroutine_threadsafe(self.close_all(), self._loop).result(timeout=8)
            except TimeoutError:
                logger.error("the app did not shut down in time and is ended now")
        if server := getattr(self.demo, "server", None):
            server.config.timeout_graceful_shutdown = 1  # open pages keep their event streams open
        self.demo.close(verbose=False)
        if self._tunnel:
            self._tunnel.close()

    def _is_logged_in(self, connection: HTTPConnection) -> bool:
        app: Any = self.demo.app
        names = f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"
        return any(connection.cookies.get(name) in app.tokens for name in names if name in connection.cookies)

    async def _end_expired_sessions(self) -> None:
        await self.sessions.end_expired(self.demo)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncGenerator[None, None]:
        # Gradio's CORS middleware allows credentials from any origin; ours never does. Gradio's compression also uses
        # encodings that a client refuses, and compresses the same files again for each request.
        theirs = {"CustomCORSMiddleware", "BrotliMiddleware"}
        app.user_middleware = [m for m in app.user_middleware if getattr(m.cls, "__name__", "") not in theirs]
        app.middleware_stack = app.build_middleware_stack()
        async with super()._lifespan(app):
            yield


def _bind_error(settings: Settings) -> str:
    """Explains why the server cannot listen."""
    host = settings.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except OSError:
        return f"{host} is not an address of this machine: choose another with --host or GRADIO_SERVER_NAME."
    port = settings.port or "7860-7959"
    return f"Port {port} is in use: choose another with --port or GRADIO_SERVER_PORT."


def _catch_signals() -> Callable[[], object]:
    """Catches SIGTERM and SIGINT from now on; returns a function that waits for the first of them.

    The interpreter writes signals to a socket: a `threading.Event` that a handler sets deadlocks if a second signal
    interrupts it.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return lambda keep_open=theirs: ours.recv(1)  # type: ignore[misc]


def _arguments(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python app.py", description=__doc__)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="also create a public link")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="require a login")
    parser.add_argument("--config", metavar="FILE", help="settings file (default glassbox.toml)")
    return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> int:
    """Runs the app until a signal ends it; returns the exit code."""
    limit_heaps()
    configure_logging("text")
    try:
        settings = load_settings(_arguments(sys.argv[1:] if argv is None else argv), ENVIRON)
        configure_logging(settings.log)
        sys.path.append(str(settings.folder))  # agents, models and tools may be files beside the settings
        app = App(settings)
    except SettingsError as e:
        print(e, file=sys.stderr)
        return 2
    wait_for_signal = _catch_signals()
    try:
        app.launch()
    except OSError:
        print(_bind_error(settings), file=sys.stderr)
        return 1
    print(f"Glassbox is at {app.url}", flush=True)
    if settings.share:
        threading.Thread(target=app.share, name="share", daemon=True).start()
    wait_for_signal()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C does not wait
    app.close()
    return 0


if __name__ == "__main__":
    with nonblocking_output():
        sys.exit(main())
