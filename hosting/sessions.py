"""Whose each page's session is, and how long it is kept.

Gradio's `session_hash` is chosen by the client and bound to nothing: here it belongs to the visitor who used it first,
so that nobody listens to, cancels or feeds another's page.
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

_KEPT = timedelta(minutes=2)
"""For a page to say again that it is there, which web/page.js does twice a minute."""
_LONGEST = 100
"""Characters of a session's name; Gradio's own are 11."""
_NAMED = re.compile(r"/gradio_api/(?:heartbeat|call/v2/[^/]+|call/(?!v2/)[^/]+)/([^/]+)")
"""A call's events, too: Gradio takes an event that it does not know for a session."""


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
    """Whose each page's session is, of the `most` that were used last; and which of them nobody needs any more.

    Gradio keeps the whole page with all that was drawn on it for each session, some 150 kB, until thousands of newer
    ones have pushed it out: a visitor who reloads has two. Here one is forgotten when its page has been gone for a
    while; a browser's can then not be taken up again, for its page would be an empty one.
    """

    def __init__(self, most: int = 10_000, kept: timedelta = _KEPT) -> None:
        self._owners: OrderedDict[str, Requester] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._open: Counter[str] = Counter()
        self._used: dict[str, datetime] = {}
        self._from: Counter[str | None] = Counter()
        self._most, self._kept = most, kept

    def admit(self, session: str, requester: Requester, most: int = 0) -> bool:
        """Whether the session is this visitor's; one that is new becomes theirs. Raises ChatError `rate_limited` if
        that were more than `most` of one address; 0 is no bound.
        """
        if session in self._gone or len(session) > _LONGEST:
            return False
        if session not in self._owners:
            if most and self._from[requester.network] >= most:
                told = "Too many pages were opened from your address: wait some minutes before you open another."
                raise ChatError("rate_limited", told, retry_after=self._kept.total_seconds())
            self._owners[session] = requester
            self._from[requester.network] += 1
            if len(self._owners) > self._most:
                self._drop(next(iter(self._owners)))
        self._owners.move_to_end(session)
        self._used[session] = datetime.now()
        return self._owners[session].visitor == requester.visitor

    def call(self, requester: Requester, most: int) -> None:
        """Counts a call without a session, for which Gradio makes one. Raises ChatError `rate_limited` as `admit`."""
        self.admit(f"a call {secrets.token_hex(8)}", requester, most)

    def visitors(self) -> set[str]:
        """Who has a page, or had one a while ago."""
        return {requester.visitor for requester in self._owners.values() if requester.visitor}

    @contextmanager
    def connected(self, session: str | None) -> Iterator[None]:
        """While it is open, the session is not forgotten."""
        if session is None:
            yield
            return
        self._open[session] += 1
        try:
            yield
        finally:
            self._open[session] -= 1
            if not self._open[session]:
                del self._open[session]
                self._used[session] = datetime.now()

    async def end_expired(self, blocks: "Blocks") -> None:
        """Forgets the sessions of pages that have gone, and ends what Gradio still runs for them."""
        queue: Any = blocks._queue
        for session in self.forget(blocks):
            await queue.clean_events(session_hash=session)

    def forget(self, blocks: "Blocks") -> list[str]:
        """Drops what Gradio keeps for sessions that have held no connection, and were not used, for a while. Returns
        these sessions.
        """
        holder: Any = blocks.state_holder
        queue: Any = blocks._queue
        now, never = datetime.now(), datetime.min  # as Gradio's own times are
        gone: list[str] = []
        for session in {*self._used, *holder.time_last_used}:
            last = max(self._used.get(session, never), holder.time_last_used.get(session, never))
            if session in self._open or now - last < self._kept:
                continue
            with holder.lock:
                kept = holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)  # Gradio keeps these for ever
            self._used.pop(session, None)
            gone.append(session)
            if session not in self._owners:
                continue
            # a program that calls `/chat` has no page, whose state would be missed: it goes on when it likes
            if self._drop(session).visitor or (kept and kept.state_data):
                self._gone[session] = None
                if len(self._gone) > self._most:
                    self._gone.popitem(last=False)
        return gone

    def _drop(self, session: str) -> Requester:
        owner = self._owners.pop(session)
        self._from[owner.network] -= 1
        if not self._from[owner.network]:
            del self._from[owner.network]
        return owner
