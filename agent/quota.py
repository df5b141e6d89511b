"""Quotas: messages and previews per minute, messages per day, live runs, documents, logins and refused keys.

They are counted per visitor and per address, since a new cookie is free. The moving windows of `limits` are in memory.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from runs.errors import ChatError
from runs.registry import RunRegistry
from runs.requester import Requester
from settings import LimitSettings

_LOGINS = RateLimitItemPerMinute(10)


@dataclass(frozen=True, slots=True)
class Left:
    """The number of messages that may still be sent; None where there is no limit."""

    minute: int | None
    day: int | None


class Quota:
    """The quotas of the app. 0 in the settings means no limit."""

    def __init__(self, limits: LimitSettings, runs: RunRegistry) -> None:
        self._limits, self._runs = limits, runs
        self._storage = MemoryStorage()
        self._windows = MovingWindowRateLimiter(self._storage)
        self._bytes = FixedWindowRateLimiter(MemoryStorage())  # a moving window stores a time for each unit
        self._shared = limits.visitors_per_address
        self._refused_keys = RateLimitItemPerMinute(limits.refused_keys_per_minute)
        self._tried = Counter[str]()
        """The number of keys that are being tried, per visitor and address."""

    def check(self, requester: Requester, messages: int = 1, *, own_key: bool = False) -> None:
        """Raises ChatError `busy` or `rate_limited` if so many messages cannot be sent now, `too_large` if never.

        Counts nothing. With a key of their own a visitor has no daily limit.
        """
        self.check_runs(requester)
        for window, who in self._bounds(requester, own_key):
            if messages > window.amount:
                problem = f"These are {messages:,} messages at once, and {window.amount:,} can be sent"
                raise ChatError("too_large", f"{problem} in a {window.GRANULARITY.name}: send fewer together.")
            if not self._windows.test(window, who, cost=messages):
                raise self._refusal(window, who, problem=self._too_many(window, who, messages))

    def count(self, requester: Requester, messages: int = 1, *, own_key: bool = False) -> None:
        """Counts messages that have been checked."""
        for window, who in self._bounds(requester, own_key):
            self._windows.hit(window, who, cost=messages)

    def take_call(self, requester: Requester, *, own_key: bool = False) -> None:
        """Counts a model call that is no reply to a message as one message of the day.

        Raises ChatError `rate_limited` if no message is left today. The limit per minute does not apply.
        """
        daily = [bound for bound in self._bounds(requester, own_key) if bound[0].GRANULARITY.name == "day"]
        for window, who in daily:
            if not self._windows.test(window, who):
                raise self._refusal(window, who)
        for window, who in daily:
            self._windows.hit(window, who)

    def take_document(self, requester: Requester, size: int) -> None:
        """Counts the bytes of a document or an image.

        Raises ChatError `rate_limited` if they exceed what is left of the day.
        """
        most = self._limits.document_bytes_per_day
        bounds = [
            (RateLimitItemPerDay(most * share), f"{kind} {name}", whose)
            for name, kind, share, whose in (
                (requester.visitor, "visitor", 1, "you"),
                (requester.network, "address", self._shared, "your address"),
            )
            if name and most
        ]
        for window, who, whose in bounds:
            if not self._bytes.test(window, who, cost=size):
                wait = max(1.0, self._bytes.get_window_stats(window, who).reset_time - time.time())
                limit = f"Documents and images of {window.amount / 1e6:g} MB in all may be added by {whose} in a day"
                raise ChatError(
                    "rate_limited", f"{limit}: try again in {_in_words(wait)}.", retryable=True, retry_after=wait
                )
        for window, who, _ in bounds:
            self._bytes.hit(window, who, cost=size)

    def left(self, requester: Requester) -> Left:
        """Returns how many messages may be sent before a limit of the visitor or the address is reached."""
        found: dict[str, int] = {}
        for window, who in self._bounds(requester, own_key=False):
            remaining = max(0, self._windows.get_window_stats(window, who).remaining)
            found[window.GRANULARITY.name] = min(remaining, found.get(window.GRANULARITY.name, remaining))
        return Left(found.get("minute"), found.get("day"))

    def check_login(self, requester: Requester) -> None:
        """Raises ChatError `rate_limited` after too many attempts to log in."""
        who = requester.network or ""
        if not self._windows.test(_LOGINS, "login", who):
            raise self._refusal(_LOGINS, "login", who, problem="Too many attempts to log in")

    def take_login(self, requester: Requester) -> None:
        """Counts an attempt to log in. Raises ChatError `rate_limited`."""
        who = requester.network or ""
        if not self._windows.hit(_LOGINS, "login", who):
            raise self._refusal(_LOGINS, "login", who, problem="Too many attempts to log in")

    def take_preview(self, requester: Requester, problem: str = "Too many previews") -> None:
        """Counts a preview, or another request that only reads. Raises ChatError `rate_limited` after too many."""
        most = self._limits.previews_per_minute
        bounds = [(RateLimitItemPerMinute(most * share), who) for who, share in self._who(requester)] if most else []
        for window, who in bounds:
            if not self._windows.test(window, "preview", who):
                raise self._refusal(window, "preview", who, problem=problem)
        for window, who in bounds:
            self._windows.hit(window, "preview", who)

    def check_key(self, requester: Requester) -> None:
        """Raises ChatError `rate_limited` if too many keys were refused or are being tried."""
        window = self._refused_keys
        for who, _ in self._who(requester):
            if self._windows.get_window_stats(window, "key", who).remaining <= self._tried[who]:
                raise self._refusal(window, "key", who, problem="Too many keys were refused")

    def count_refused_key(self, requester: Requester) -> None:
        """Counts a key that the provider has refused."""
        for who, _ in self._who(requester):
            self._windows.hit(self._refused_keys, "key", who)

    @contextmanager
    def trying_key(self, requester: Requester) -> Iterator[None]:
        """Counts a key as being tried within the block. Raises ChatError like `check_key`."""
        self.check_key(requester)
        names = Counter(who for who, _ in self._who(requester))
        self._tried += names
        try:
            yield
        finally:
            self._tried -= names

    def forget_idle(self) -> None:
        """Drops expired counters."""
        for name, counted in list(self._storage.events.items()):
            if not counted or counted[0].expiry <= time.time():  # the latest
                self._storage.clear(name)

    def runs_at_once(self, most: int) -> int:
        """Returns how many live runs one visitor may have, at most `most`."""
        return min(most, self._limits.runs_per_visitor or most)

    def check_runs(self, requester: Requester) -> None:
        """Raises ChatError `busy` if the visitor or the address has as many live runs as allowed."""
        most = self._limits.runs_per_visitor or 0
        live = [run.requester for run in self._runs.live()] if most else []
        own = sum(one.name == requester.name for one in live)
        near = sum(one.network == requester.network for one in live)
        for used, bound in ((own, most), (near, most * self._shared)):
            if most and used >= bound:
                replies = "reply is" if used == 1 else "replies are"
                raise ChatError(
                    "busy",
                    f"{used} {replies} being written for you already, the most at once: stop one, or wait for its end.",
                    retryable=True,
                )

    def _too_many(self, window: RateLimitItem, who: str, messages: int) -> str | None:
        """Returns why so many messages at once are refused where fewer are not; None if none can be sent."""
        remaining = self._windows.get_window_stats(window, who).remaining
        if remaining <= 0:
            return None
        unit, whose = window.GRANULARITY.name, _whose(who)
        return f"These are {messages:,} messages at once, and {whose} may send {remaining:,} more in this {unit}"

    def _bounds(self, requester: Requester, own_key: bool) -> list[tuple[RateLimitItem, str]]:
        minute, day = self._limits.messages_per_minute, self._limits.messages_per_day
        bounds: list[tuple[RateLimitItem, str]] = []
        for who, share in self._who(requester):
            if minute:
                bounds.append((RateLimitItemPerMinute(minute * share), who))
            if day and not own_key:
                bounds.append((RateLimitItemPerDay(day * share), who))
        return bounds

    def _who(self, requester: Requester) -> list[tuple[str, int]]:
        """Returns the names that count, each with the number of visitors that it stands for."""
        known = (("visitor ", requester.visitor, 1), ("address ", requester.network, self._shared))
        return [(kind + name, share) for kind, name, share in known if name]

    def _refusal(self, window: RateLimitItem, *who: str, problem: str | None = None) -> ChatError:
        """Returns the error for a full window; `who` is what the window counts by."""
        wait = max(1.0, self._windows.get_window_stats(window, *who).reset_time - time.time())
        if problem is None:
            most = f"{_whose(who[-1])} may send in a {window.GRANULARITY.name}, {window.amount}"
            problem = f"The most messages that {most}, are used"
        hint = " With your own key you can continue." if window.GRANULARITY.name == "day" else ""
        return ChatError(
            "rate_limited", f"{problem}: try again in {_in_words(wait)}.{hint}", retryable=True, retry_after=wait
        )

    def listed(self, requester: Requester) -> dict[str, Any]:
        """Returns the limits by their names in the settings, without unlimited ones, and what is left."""
        limits = {name: value for name, value in self._limits.model_dump().items() if value}
        return {"limits": limits, "left": asdict(self.left(requester))}


def _whose(who: str) -> str:
    return "your address" if who.startswith("address ") else "you"


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{math.ceil(seconds / 3600)} h"
