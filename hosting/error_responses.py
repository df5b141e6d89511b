"""Responses for errors, all in one shape, and a log of refused requests that cannot be flooded."""

import html
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Scope

from hosting.hosts import printable_host
from runs.errors import STATUS, ChatError

logger = logging.getLogger(__name__)

Kind = Literal["host", "origin", "site", "forwarded", "path", "login", "connections", "session", "body"]
_SETTING_KINDS = {"host", "origin", "site", "forwarded"}
"""Kinds that a wrong setting can cause; they are logged as warnings."""
RETRY_S = 60.0
"""`Retry-After` of an error that does not know how long to wait, in seconds."""
_WINDOW_S = 60.0
_REASONS = 3
"""The most log lines of one kind in a window."""
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title} · {site}</title>
<style>body {{ max-width: 40em; margin: 12vh auto; padding: 0 1.5em; font: 16px/1.6 system-ui, sans-serif; }}</style>
<h1>{title}</h1><p role="alert">{message}</p></html>
"""


def error_response(error: ChatError, status: int | None = None) -> JSONResponse:
    """An error as JSON: {code, message}."""
    body = {"code": error.code, "message": error.message}
    wait = error.retry_after or (RETRY_S if error.code == "rate_limited" else None)
    headers = {"Retry-After": f"{wait:.0f}"} if wait else None
    return JSONResponse(body, status or STATUS[error.code], headers)


def error_response_for(scope: Scope, error: ChatError, status: int | None = None, site: str = "Glassbox") -> Response:
    """An error as a page of `site` if a person followed a link or typed an address, else as JSON.

    Browsers send `Sec-Fetch-Mode` only over TLS and to localhost; elsewhere `Accept` alone decides.
    """
    response, headers = error_response(error, status), Headers(scope=scope)
    navigates = headers.get("sec-fetch-mode", "navigate") == "navigate"
    if scope["type"] != "http" or not navigates or not headers.get("accept", "").startswith("text/html"):
        return response
    title = "Not found" if error.code == "not_found" else "This request was refused"
    text = _PAGE.format(title=title, site=html.escape(site), message=html.escape(error.message))
    page = HTMLResponse(text, response.status_code)
    if wait := response.headers.get("retry-after"):
        page.headers["Retry-After"] = wait
    return page


@dataclass
class _Window:
    started: float
    reasons: set[str] = field(default_factory=set)
    left_out: int = 0


class RefusalLog:
    """Logs why requests are refused: each reason once a minute, and at most a few reasons of each kind."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[Kind, _Window] = {}

    def note(self, kind: Kind, reason: str) -> None:
        """Logs a refusal. `reason` says what was refused and which setting allows it.

        It must not contain keys or text that visitors wrote.
        """
        now = self._clock()
        window = self._windows.get(kind)
        more = ""
        if window is None or now - window.started >= _WINDOW_S:
            more = f" ({window.left_out} more of this kind since the last line)" if window and window.left_out else ""
            window = self._windows[kind] = _Window(now)
        if reason in window.reasons or len(window.reasons) >= _REASONS:
            window.left_out += 1
            return
        window.reasons.add(reason)
        level = logging.WARNING if kind in _SETTING_KINDS else logging.INFO
        logger.log(level, "refused (%s): %s%s", kind, reason, more)


class LoggedCORSMiddleware(CORSMiddleware):
    """Starlette's CORS middleware, which also logs the preflight requests that it refuses."""

    def __init__(self, app: ASGIApp, /, log: RefusalLog, **options: Any) -> None:
        super().__init__(app, **options)
        self._log = log

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answers a preflight request; a refusal is logged."""
        response = super().preflight_response(request_headers)
        if response.status_code >= 400:
            scheme, _, host = request_headers.get("origin", "").partition("://")
            site = f"{'https' if scheme == 'https' else 'http'}://{printable_host(host)}"
            self._log.note("origin", f"pages of {site} may not call the routes: add it to allowed_origins if they may")
        return response
