"""Long answers on their way to slow readers, bounded for each address: an event over a WebSocket, which is sent whole,
and what an export or a context is made of.
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

_MOST = 32_000_000
"""Characters of long answers that may be on their way to one address; one alone may be longer."""
_SMALL = 100_000
"""Characters of an answer that are not counted: `connections_per_address` bounds the number of these."""


class SendBudget:
    """One for the whole app."""

    def __init__(self) -> None:
        self._held = Counter[str]()

    @contextmanager
    def hold(self, requester: Requester, characters: int) -> Iterator[None]:
        """Counts an answer for as long as it is on its way. Raises ChatError `busy` for one too many."""
        if characters <= _SMALL:
            yield
            return
        here = requester.network or ""
        if self._held[here] and self._held[here] + characters > _MOST:
            message = "Your address is being sent too much at once: wait until some of it has arrived."
            raise ChatError("busy", message, retryable=True, retry_after=5)
        self._held[here] += characters
        try:
            yield
        finally:
            self._held[here] -= characters
            if not self._held[here]:
                del self._held[here]


class Answer(StreamingResponse):
    """Texts as one answer, made and sent in pieces. It is `held` until it has been sent, and a refusal where that is
    too much.
    """

    def __init__(
        self,
        texts: Iterable[str],
        held: AbstractContextManager[None],
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(in_chunks(("", text, "") for text in texts), media_type=media_type, headers=headers)
        self._hold = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._hold)
            except ChatError as e:
                await error_response(e)(scope, receive, send)
                return
            await super().__call__(scope, receive, send)
