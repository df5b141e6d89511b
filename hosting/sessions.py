"""The sessions of pages: whose each is, and when it expires.

Gradio's `session_hash` is chosen by the client and bound to nothing. Here a session belongs to the visitor who used it
first, so that no other visitor can listen to that page, cancel its events or send to it.
"""

import json
import math
import re
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.types import Scope

from runs.errors import ChatError
from runs.requester import Requester

if TYPE_CHECKING:
    from gradio import Blocks

_EXPIRY = timedelta(minutes=2)
"""The time after which an unused session expires; web/page.js uses its session twice a minute."""
_MAX_NAME = 100
"""The most characters of a session's name; Gradio's own have 11."""
_NAMED = re.compile(r"/gradio_api/(?:heartbeat|call/v2/[^/]+|call/(?!v2/)[^/]+)/([^/]+)")
"""Paths that name a session, or an event of a call: Gradio takes an unknown event for a session."""


def session_of(scope: Scope, path: str, body: bytes = b"") -> str | None:
    """The session that a request names in its path, its body or its query.

    Raises ChatError for a body that is not a JSON object, which Gradio would answer with an error of its own.
    """
    if not path.startswith("/gradio_api/"):
        return None
    if match := _NAMED.match(path):
        return match[1]
    if body:
        try:
            content = json.loads(body, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise ChatError("invalid_request", "Send a JSON object.")
        if (session := content.get("session_hash")) is not None:
            return str(session)
    in_query = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash")
    return in_query[-1] if in_query else None


def _finite(text: str) -> float:
    """Rejects NaN and Infinity, which Python's JSON allows and on which Gradio fails."""
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


class Sessions:
    """The `max_sessions` sessions that were used last, with their owners.

    Gradio keeps the whole page of each session, some 150 kB, until thousands of newer ones have displaced it. Here a
    session expires soon after its page was closed. An expired session of a browser cannot be used again, for its page
    would be empty.
    """

    def __init__(self, max_sessions: int = 10_000, expiry: timedelta = _EXPIRY) -> None:
        self._owners: OrderedDict[str, Requester] = OrderedDict()
        self._expired: OrderedDict[str, None] = OrderedDict()
        self._connections: Counter[str] = Counter()
        self._used: dict[str, datetime] = {}
        self._per_address: Counter[str | None] = Counter()
        self._max_sessions, self._expiry = max_sessions, expiry

    def admit(self, session: str, requester: Requester, max_pages: int = 0) -> bool:
        """Returns whether the session is this visitor's; a new one becomes theirs.

        Raises ChatError `rate_limited` if their address would have more than `max_pages`; 0 is no limit.
        """
        if session in self._expired or len(session) > _MAX_NAME:
            return False
        if session not in self._owners:
            if max_pages and self._per_address[requester.network] >= max_pages:
                error = "Too many pages were opened from your address: wait some minutes before you open another."
                raise ChatError("rate_limited", error, retry_after=self._expiry.total_seconds())
            self._owners[session] = requester
            self._per_address[requester.network] += 1
            if len(self._owners) > self._max_sessions:
                self._drop(next(iter(self._owners)))
        self._owners.move_to_end(session)
        self._used[session] = datetime.now()
        return self._owners[session].visitor == requester.visitor

    def count_call(self, requester: Requester, max_pages: int) -> None:
        """Counts an API call that names no session, for which Gradio makes one. Raises ChatError as `admit` does."""
        self.admit(f"a call {secrets.token_hex(8)}", requester, max_pages)

    def visitors(self) -> set[str]:
        """The visitors whose sessions have not expired."""
        return {requester.visitor for requester in self._owners.values() if requester.visitor}

    @contextmanager
    def connected(self, session: str | None) -> Iterator[None]:
        """Keeps the session from expiring until the block ends."""
        if session is None:
            yield
            return
        self._connections[session] += 1
        try:
            yield
        finally:
            self._connections[session] -= 1
            if not self._connections[session]:
                del self._connections[session]
                self._used[session] = datetime.now()

    async def end_expired(self, blocks: "Blocks") -> None:
        """Drops expired sessions and ends the handlers that Gradio still runs for them."""
        queue: Any = blocks._queue
        for session in self.expire(blocks):
            await queue.clean_events(session_hash=session)

    def expire(self, blocks: "Blocks") -> list[str]:
        """Drops what Gradio keeps for unused sessions without a connection; returns these sessions."""
        holder: Any = blocks.state_holder
        queue: Any = blocks._queue
        now, never = datetime.now(), datetime.min  # without a time zone, as Gradio's own times are
        expired: list[str] = []
        for session in {*self._used, *holder.time_last_used}:
            last = max(self._used.get(session, never), holder.time_last_used.get(session, never))
            if session in self._connections or now - last < self._expiry:
                continue
            with holder.lock:
                state = holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)  # Gradio never drops these
            self._used.pop(session, None)
            expired.append(session)
            if session not in self._owners:
                continue
            # a program that calls `/chat` has no page that could be empty, so it may use its session again
            if self._drop(session).visitor or (state and state.state_data):
                self._expired[session] = None
                if len(self._expired) > self._max_sessions:
                    self._expired.popitem(last=False)
        return expired

    def _drop(self, session: str) -> Requester:
        owner = self._owners.pop(session)
        self._per_address[owner.network] -= 1
        if not self._per_address[owner.network]:
            del self._per_address[owner.network]
        return owner
