"""Bounds the long responses that are on their way to slow readers, for each address.

It counts events over WebSockets, which are sent whole, and exports and contexts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hosting.error_responses import error_response
from runs.errors import ChatError
from runs.requester import Requester
from transports.chunks import in_chunks

_MAX_CHARACTERS = 32_000_000
"""The most characters on their way to one address; a single response may be longer."""
_SMALL = 100_000
"""Responses up to this length are not counted: `connections_per_address` bounds their number."""


class SendBudget:
    """Counts the characters on their way, by address. There is one for the whole app."""

    def __init__(self) -> None:
        self._reserved = Counter[str]()

    @contextmanager
    def reserve(self, requester: Requester, characters: int) -> Iterator[None]:
        """Counts a response until the block ends. Raises ChatError `busy` where it exceeds the budget."""
        if characters <= _SMALL:
            yield
            return
        address = requester.network or ""
        if self._reserved[address] and self._reserved[address] + characters > _MAX_CHARACTERS:
            message = "Your address is being sent too much at once: wait until some of it has arrived."
            raise ChatError("busy", message, retryable=True, retry_after=5)
        self._reserved[address] += characters
        try:
            yield
        finally:
            self._reserved[address] -= characters
            if not self._reserved[address]:
                del self._reserved[address]


class BudgetedResponse(StreamingResponse):
    """Streams texts in chunks. It holds its reservation until it is sent, or is an error if the budget is exceeded."""

    def __init__(
        self,
        texts: Iterable[str],
        reservation: AbstractContextManager[None],
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(in_chunks(("", text, "") for text in texts), media_type=media_type, headers=headers)
        self._reservation = reservation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._reservation)
            except ChatError as e:
                await error_response(e)(scope, receive, send)
                return
            await super().__call__(scope, receive, send)
