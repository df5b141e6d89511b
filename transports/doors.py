"""Which of Gradio's own routes are open, and whose a page's session is.

Gradio serves more than the page and its clients need: files, proxies, uploads, run history, monitoring, an editor of
its own. Only what is needed is open; all the rest is not found. And its `session_hash` is chosen by the client and
bound to nothing: here it belongs to the visitor who used it first, so that nobody listens to, cancels or feeds
another's page.
"""

import json
import math
import re
from collections import OrderedDict
from urllib.parse import parse_qs

from starlette.types import Scope

from runs.errors import ChatError

_PAGE = re.compile(
    r"/(|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\w+)?|log(in|out)/?"
    r"|login/(huggingface|callback)|(assets|static|svelte)/.+)"
)
_API = re.compile(
    r"/gradio_api/((app_id|user|login_check|info|startup-events|theme\.css|reset|cancel|queue/(join|data)|run/predict)/?"
    r"|heartbeat/[^/]+|call/(v2/)?[^/]+(/[^/]*)?)"
)
LOGIN_PAGE = re.compile(
    r"/(|login/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\w+)?|(assets|static|svelte)/.+)"
    r"|/gradio_api/(startup-events|theme\.css)/?"
)
"""What a browser loads to show the login, and the login itself."""
_NAMED = re.compile(r"/gradio_api/(?:heartbeat)/([^/]+)")


def is_open(path: str) -> bool:
    """Whether one of Gradio's paths is served at all."""
    return bool(_PAGE.fullmatch(path) or _API.fullmatch(path))


def session_of(scope: Scope, path: str, body: bytes = b"") -> str | None:
    """The session that a request is about: named in its path, its query or its body.

    Raises ChatError for a body that is no JSON object, which Gradio would answer with an error of its own.
    """
    if not path.startswith("/gradio_api/"):
        return None
    if named := _NAMED.match(path):
        return named[1]
    if body:
        try:
            given = json.loads(body, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise ChatError("invalid_request", "Send a JSON object.")
        if (found := given.get("session_hash")) is not None:
            return str(found)
    queried = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash")
    return queried[-1] if queried else None


def _finite(text: str) -> float:
    """Python's JSON has numbers that no other has, and that Gradio trips over."""
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


class Sessions:
    """Whose each session is; of the `most` that were used last."""

    def __init__(self, most: int = 10_000) -> None:
        self._owners: OrderedDict[str, str | None] = OrderedDict()
        self._most = most

    def admit(self, session: str, visitor: str | None) -> bool:
        """Whether the session is this visitor's; one that is new becomes theirs."""
        if session not in self._owners:
            self._owners[session] = visitor
            if len(self._owners) > self._most:
                self._owners.popitem(last=False)
        self._owners.move_to_end(session)
        return self._owners[session] == visitor
