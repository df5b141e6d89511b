"""The backend seam: what every source of tokens offers, whatever stands behind it.

A backend gives a LangChain chat model for a turn, says whether it is ready, counts tokens, and turns its own exceptions
into `ChatError`s. Add a kind: one file with one subclass, and one line in `backends/__init__.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from langchain_core.language_models import BaseChatModel

from runs.errors import ChatError
from settings import BackendSettings

PROGRESS = "prompt_progress"
"""Name of the custom event by which a model tells how far it has read: {"read": tokens, "total": tokens}."""


class BackendError(Exception):
    """A backend's own settings cannot work; the message is for the person who starts the app."""


@dataclass(frozen=True, slots=True)
class Health:
    """`reason` says why it is not ready and what to do; `progress` is the loaded share, 0 to 1."""

    state: Literal["ready", "loading", "unavailable"]
    reason: str = ""
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What a visitor may set for a turn; None leaves it to the backend."""

    max_tokens: int
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as the model reads it: with its own control words made inert (read, not obeyed), and how many tokens."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Template:
    """The tokens that a model's chat template adds: once, and to each message by its role."""

    prompted: int = 3
    """Once, where a system prompt is given."""
    bare: int = 3
    """Once, where none is: some templates then bring their own."""
    user: int = 4
    """To each message, but an assistant's."""
    assistant: int = 4

    def once(self, *, prompted: bool) -> int:
        return self.prompted if prompted else self.bare

    def message(self, role: str) -> int:
        return self.assistant if role == "assistant" else self.user


class Backend(ABC):
    """One entry of the settings. Made on the main thread; everything async runs on the server's loop."""

    kind: ClassVar[str]
    uses: ClassVar[frozenset[str]] = frozenset()
    """The settings that this kind uses besides `name`, `kind` and `context`; others stop the start."""
    about: str = ""
    """A sentence for the page: what a visitor should know before they choose it."""
    is_model: ClassVar[bool] = True
    exact_counts: bool = False
    """Whether the tokens of `read` are counted by the model's own tokenizer, not estimated."""
    template = Template()

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.context = settings.context or 8192
        """The most tokens of prompt and reply together."""

    @property
    @abstractmethod
    def health(self) -> Health:
        """As known at this moment; never waits."""

    async def open(self) -> None:  # noqa: B027 - most kinds have nothing to do
        """Begins to get ready, in the background; returns at once."""

    async def close(self) -> None:  # noqa: B027
        """Lets go of whatever `open` took."""

    async def wait_ready(self) -> None:
        """Returns when a turn can start; raises ChatError `backend_unavailable` when none can."""
        health = self.health
        if health.state == "unavailable":
            raise ChatError("backend_unavailable", f"{self.name} is not available: {health.reason}")

    @abstractmethod
    def chat_model(self, options: Options) -> BaseChatModel:
        """The model for one turn; cheap to call. Only after `wait_ready`."""

    async def read(self, texts: Sequence[str]) -> list[Reading]:
        """How the model will read each text; here as it is, with an estimate of four bytes to a token."""
        return [Reading(text, -(-len(text.encode()) // 4)) for text in texts]

    def error(self, exception: Exception) -> ChatError | None:
        """The exception as one that a visitor may read; None if it is not this backend's to explain."""
        return explain(self.name, exception)


def explain(name: str, exception: Exception) -> ChatError | None:
    """What HTTP clients and SDKs have in common: a status code on the exception, or a class name for the network."""
    if isinstance(exception, ChatError):
        return exception
    status = getattr(exception, "status_code", None) or getattr(exception, "code", None)
    kinds = {kind.__name__ for kind in type(exception).__mro__}
    if kinds & {"APITimeoutError", "TimeoutException", "TimeoutError"}:
        return ChatError("timeout", f"{name} did not answer in time: try again.", retryable=True)
    if kinds & {"APIConnectionError", "ConnectError", "TransportError", "ConnectionError"}:
        return ChatError(
            "backend_unavailable", f"{name} cannot be reached: try again, or pick another.", retryable=True
        )
    if not isinstance(status, int):
        return None
    if status in (401, 403):
        return ChatError("authentication", f"{name} refused the key: check it, or pick another backend.")
    if status == 404:
        return ChatError("backend_unavailable", f"{name} does not know this model: check its `model` setting.")
    if status == 413:
        return ChatError("context_too_long", f"{name} says that this is too long for it: shorten the message.")
    if status == 429:
        return ChatError(
            "rate_limited", f"{name} has too many requests: wait a little, then try again.", retryable=True
        )
    if status >= 500:
        return ChatError("backend_unavailable", f"{name} failed (HTTP {status}): try again.", retryable=True)
    return ChatError("invalid_request", f"{name} did not accept the request (HTTP {status}).")
