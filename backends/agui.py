"""The kind `agui`: a remote agent at an address, which speaks AG-UI (https://docs.ag-ui.com).

It answers by itself: `agent/agui_run.py` sends it the messages, and shows its steps, tools, state and questions.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from backends.agui_client import (
    FailedRun,
    InvalidEvent,
    NoAgent,
    Received,
    RejectedRequest,
    RunCut,
    agent_events,
)
from backends.agui_states import KeptStates
from backends.base import BackendError, Health
from backends.chat_model import PROBE_TIMEOUT_S, health_of, new_client
from backends.errors import connection_lost, rate_limited, retry_after
from backends.foreign_agent import ForeignAgent
from backends.keys import Key
from backends.provider_errors import provider_error
from hosting.proxies import on_this_machine
from runs.errors import ChatError
from settings import BackendSettings

logger = logging.getLogger(__name__)

_STALE_S, _SOON_S = 60.0, 5.0
"""Seconds after which the health is checked again; the shorter time applies while it is not ready."""
_REFUSED = "its server did not accept the request: check the variables that `headers` of its entry name"


class AguiBackend(ForeignAgent):
    """An entry of the kind `agui`. Its health is whether its server answers at all: a run would cost something."""

    kind = "agui"
    uses = frozenset({"base_url", "headers", "memory", "options"})

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        if settings.base_url is None:
            raise BackendError('base_url: missing; allowed: the address of the agent, such as "https://HOST/agent"')
        for name, value in settings.headers.items():
            if not (value.isascii() and value.isprintable()):
                raise BackendError(f"headers: {name}: its variable has characters that no header can have")
        self._address = settings.base_url
        self._is_local = on_this_machine(urlsplit(self._address).hostname)
        """True for a server on this machine, which is never reached through a proxy."""
        self._health = Health("loading", "its server is being checked")
        self._checked_at = -1e9
        self._checking: asyncio.Task[None] | None = None
        self._accepted = False
        """Whether its latest turn was accepted. Then a check that is not allowed says nothing about turns."""
        self.states = KeptStates()

    def thread_id(self, run_id: str, conversation_id: str) -> str:
        """Returns the id of the agent's thread: that of the conversation if the agent remembers it, else of the run.

        The id of a run or a conversation without an owner gives access to it, so its hash is sent.
        """
        return outside_id(conversation_id if self.keeps_memory else run_id)

    async def events(self, body: Mapping[str, Any]) -> AsyncGenerator[Sequence[Received], None]:
        """Sends a `RunAgentInput` and yields the events, as they arrive together. Closing it ends the remote run."""
        async with await new_client(trust_env=not self._is_local) as client:
            async with aclosing(agent_events(client, self._address, self.settings.headers, body)) as found:
                async for received in found:
                    yield received

    async def forget_conversation(self, conversation_id: str) -> None:
        """Drops the states of a deleted conversation."""
        self.states.forget(conversation_id)

    async def open(self) -> None:
        """Starts the first health check."""
        self.refresh_health()

    async def close(self) -> None:
        """Cancels a running check."""
        if self._checking and not self._checking.done():
            self._checking.cancel()
            await asyncio.wait({self._checking})

    def health(self) -> Health:
        """Returns what the latest check or turn has shown."""
        if self._health.until is not None and self._health.until <= time.time():
            return Health("ready")
        return self._health

    def refresh_health(self) -> None:
        """Starts a check in the background, unless one is running or the last one is recent."""
        stale_s = _STALE_S if self._health.ready else _SOON_S
        if (self._checking is None or self._checking.done()) and time.monotonic() - self._checked_at > stale_s:
            self._checked_at = time.monotonic()
            self._checking = asyncio.create_task(self._check(), name=f"check {self.name}")

    async def check_health(self) -> Health:
        """Checks the server now, and returns the health."""
        self._checked_at = -1e9
        self.refresh_health()
        if self._checking:
            await asyncio.shield(self._checking)
        return self.health()

    async def wait_ready(self) -> None:
        """Returns at once, since the request itself shows whether the server answers. Raises ChatError in a limit."""
        if self._health.until is not None and (wait := self._health.until - time.time()) > 0:
            raise rate_limited(self.name, wait)

    def record_outcome(self, error: ChatError | None, ttft_s: float | None = None) -> None:
        """Derives the health from the outcome of a turn."""
        super().record_outcome(error, ttft_s)
        self._accepted = error is None
        if error is None:
            self._health, self._checked_at = Health("ready"), time.monotonic()
        elif error.code == "authentication":
            self._health, self._checked_at = Health("key_refused", _REFUSED), time.monotonic()
        elif error.code == "rate_limited" and error.retry_after:
            self._health = Health("rate_limited", error.message, until=time.time() + error.retry_after)
        elif error.code in ("backend_unavailable", "timeout"):
            reason = f"it {error.message.removeprefix(f'{self.name} ')}"
            self._health, self._checked_at = Health("unreachable", reason), time.monotonic()

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """Maps an exception. A message has no text of the agent's, which may repeat keys and other visitors' words."""
        match exception:
            case RejectedRequest():
                return self._rejected(exception) or super().to_chat_error(exception)
            case FailedRun():
                return self._failed(exception)
            case InvalidEvent(what=what):
                message = f"{self.name} sent an invalid event of AG-UI ({what}): try again, or update its server."
                return ChatError("backend_unavailable", message)
            case NoAgent():
                message = f"{self.name} answered with {exception}, not with AG-UI: check its `base_url`."
                return ChatError("backend_unavailable", message)
            case RunCut():
                return connection_lost(self.name)
            case _:
                return super().to_chat_error(exception)

    def _rejected(self, rejection: RejectedRequest) -> ChatError | None:
        status = rejection.status_code
        if status in (401, 403):
            return ChatError("authentication", f"{self.name} is not ready (HTTP {status}): {_REFUSED}.")
        if status in (404, 405):
            message = f"{self.name}'s server has no agent at this address (HTTP {status}): check its `base_url`."
            return ChatError("backend_unavailable", message)
        if status < 300 or status in (400, 415, 422):
            message = f"{self.name} did not accept the request (HTTP {status}): does its server speak AG-UI there?"
            return ChatError("invalid_request", f"{message} The log has its text.")
        return None

    def _failed(self, failure: FailedRun) -> ChatError:
        error = provider_error(failure)
        names = f" ({', '.join(error.names)})" if error and error.names else ""
        metadata = failure.event.get("metadata")
        again = not (isinstance(metadata, Mapping) and metadata.get("retryable") is False)
        message = f"{self.name} failed{names}: try again. The log has its text."
        return ChatError("backend_unavailable", message, retryable=again)

    async def _check(self) -> None:
        """Asks for the address, without starting a run: any answer but a failure shows that a server is there."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S), await new_client(trust_env=not self._is_local) as client:
                async with client.stream("GET", self._address, headers=self.settings.headers) as response:
                    found = health_of(self.name, None, response.status_code, retry_after(response))
            if found.state == "key_refused":
                found = Health("ready") if self._accepted else replace(found, reason=_REFUSED)
        except TimeoutError:
            found = Health("unreachable", f"it did not answer within {PROBE_TIMEOUT_S:.0f} s")
        except Exception as e:
            logger.info("backend %r: the check failed: %s", self.name, type(e).__name__)
            error = super().to_chat_error(e)
            reason = error.message.removeprefix(f"{self.name} ") if error else f"cannot be asked ({type(e).__name__})"
            found = Health("unreachable", f"it {reason}")
        self._health = found


def outside_id(own_id: str) -> str:
    """Returns an id that may be sent to others: a hash of an id in this app."""
    return hashlib.sha256(f"agui {own_id}".encode()).hexdigest()[:32]
