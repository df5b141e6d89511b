"""The backend seam: what every source of tokens offers, whatever stands behind it.

A backend gives a LangChain chat model for a turn, says whether it is ready, counts tokens, and turns its own exceptions
into `ChatError`s. Add a kind: one file with one subclass, and one line in `backends/__init__.py`.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool

from backends.errors import to_chat_error
from backends.keys import Key
from backends.models import Model
from runs.errors import ChatError
from runs.slots import Slots
from runs.threads import Threads, in_thread
from runs.tokens import estimate_tokens
from settings import BackendSettings

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 8192
"""Tokens of prompt and reply together, where neither the settings nor the provider say."""
_BLOCKING = 64
"""Threads of one backend."""
_LONG = 200_000
"""Characters from which on tokens are estimated in a thread."""


class BackendError(Exception):
    """A backend's own settings cannot work; the message is for the person who starts the app."""


State = Literal["ready", "loading", "key_missing", "key_refused", "unreachable", "rate_limited", "unavailable"]


@dataclass(frozen=True, slots=True)
class Health:
    """`reason` says why it is not ready and what to do; `progress` is the loaded share, 0 to 1.

    `until` is when a `rate_limited` one may be asked again, in epoch seconds.
    """

    state: State
    reason: str = ""
    progress: float | None = None
    until: float | None = None

    @property
    def ready(self) -> bool:
        return self.state == "ready"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One of the models that a visitor may choose among: what the provider says of it, and what holds for it here."""

    model_info: Model
    context: int
    """The most tokens of prompt and reply together."""
    supported_options: frozenset[str]
    """Those of `OPTION_NAMES` that make a difference to it."""
    problem: str = ""
    """Why it cannot be used, such as that the provider has it no more."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a visitor may set for a turn; None leaves it to the backend."""

    max_tokens: int
    temperature: float | None = None


OPTION_NAMES = ("system_prompt", "temperature", "max_tokens")
"""What a visitor may set beside backend and memory mode."""


@dataclass(frozen=True, slots=True)
class CountedText:
    """A text as the model reads it: with its own control words made inert (read, not obeyed), and how many tokens."""

    text: str
    tokens: int
    estimated: bool = False
    """Whether the tokens are estimated: nobody has counted them."""


@dataclass(frozen=True, slots=True)
class TemplateTokens:
    """The tokens that a model's chat template adds: once, and to each message by its role."""

    with_system: int = 3
    """Once, where a system prompt is given."""
    without_system: int = 3
    """Once, where none is: some templates then bring their own."""
    user: int = 4
    """To each message, but an assistant's."""
    assistant: int = 4
    system: str = ""
    """The system prompt that it adds where none is given."""

    def per_prompt(self, *, with_system: bool) -> int:
        return self.with_system if with_system else self.without_system

    def per_message(self, role: str) -> int:
        return self.assistant if role == "assistant" else self.user


def _guessed(texts: Sequence[str]) -> list[CountedText]:
    return [CountedText(text, estimate_tokens(text), estimated=True) for text in texts]


class Backend(ABC):
    """One entry of the settings. Made on the main thread; everything async runs on the server's loop."""

    kind: ClassVar[str]
    uses: ClassVar[frozenset[str]] = frozenset()
    """The settings that this kind uses besides those that every kind does; others stop the start."""
    timeout_s: ClassVar[float] = 60.0
    """Seconds without a single byte from the provider, until the reply fails, where the settings say nothing."""
    supported_options: frozenset[str] = frozenset(OPTION_NAMES)
    """Those of `OPTION_NAMES` that make a difference to it."""
    about: str = ""
    """A sentence for the page: what a visitor should know before they choose it."""
    is_model: ClassVar[bool] = True
    in_process: ClassVar[bool] = False
    """Whether its model runs on this machine's own processors, so that what it writes for one delays another."""
    template = TemplateTokens()

    supports_tools: bool = True
    """Whether its model can choose tools, as far as is known."""
    has_bind_tools: bool = True
    """Whether the class of its model can be offered tools at all; where it cannot, `tools = true` changes nothing."""
    max_result_tokens: int | None = None
    """The most of a tool's result that its model can make something of, where that is less than its room."""
    tools: Sequence[BaseTool] = ()
    """Tools of its own."""
    approval: frozenset[str] = frozenset()
    """Those of them that wait for the visitor's approval."""
    prompts: dict[str, str]
    """What may be sent to it at a click, and what then happens: the scripted backend's menu."""

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        """`key` is the operator's. Raises BackendError for settings that cannot work."""
        self.settings, self.key = settings, key
        self.name = settings.name
        self.model: str | None = None
        """The provider's name of its model; None where the kind has no provider, or the provider's list decides."""
        self.chosen_model: str | None = None
        """The same where a visitor can choose among several."""
        self.model_info = Model("")
        """What the provider says of its model."""
        self.context = settings.context or DEFAULT_CONTEXT
        """The most tokens of prompt and reply together."""
        self.timeout = settings.timeout or self.timeout_s
        self.ttft_s: float | None = None
        """The last time to first token, in seconds."""
        self.opens_thinking = settings.thinking == "open"
        """Whether its template opens the thinking, so that a reply has only the closing tag; learned from replies."""
        self.prompts = {}
        self._checked: type[BaseChatModel] | None = None
        self.slots = Slots()
        """Where a turn waits for its model; a kind that does only so much at once has fewer places in it."""
        self.threads = Threads(f"model of {self.name}", _BLOCKING)
        """Where the model blocks if its class has no async methods; not shared with other backends."""

    @property
    def context_note(self) -> str | None:
        """A sentence about how its requests differ from the context that the page shows."""
        return None

    @property
    def offers_tools(self) -> bool:
        """Whether its model is offered tools; else they are run by the visitor's word only."""
        known = self.supports_tools and self.model_info.tools is not False
        return self.has_bind_tools and (known if self.settings.tools is None else self.settings.tools)

    def check_tools(self, model: BaseChatModel, tools: Sequence[BaseTool]) -> None:
        """Finds out, by a turn's model, whether its class can be offered tools: many of LangChain's cannot."""
        if not self.offers_tools or not tools or type(model) is self._checked:
            return
        self._checked = type(model)
        try:
            model.bind_tools(list(tools))
        except NotImplementedError:
            self.has_bind_tools = False
        except Exception as e:  # whatever stands in the way is raised again by the turn itself, and explained there
            logger.debug("backend %r: %s", self.name, type(e).__name__)

    def model_choices(self, key: Key | None = None) -> Sequence[ModelChoice]:
        """The models that a visitor with this key may choose among; empty where there is no choice."""
        return ()

    def with_model(self, model: str | None, key: Key | None = None) -> "Backend":
        """The backend with one of its models, the default for None. Raises ChatError for a model that it has not."""
        if model is not None and model != self.model:
            message = f"{self.name} offers no model {model[:60]!r}: it has one model, so leave `model` out."
            raise ChatError("invalid_request", message)
        return self

    @abstractmethod
    def health(self, key: Key | None = None) -> Health:
        """As known at this moment to whoever uses this key; never waits."""

    def refresh_health(self, key: Key | None = None) -> None:  # noqa: B027 - most kinds know without looking
        """Asks in the background how it is, if the last answer is old; returns at once."""

    async def check_health(self, key: Key | None = None) -> Health:
        """Asks at once, and waits for the answer."""
        return self.health(key)

    def record_outcome(self, key: Key | None, error: ChatError | None, ttft_s: float | None = None) -> None:
        """What a turn showed: the error that it failed with before its first token, or how long that took."""
        if ttft_s is not None:
            self.ttft_s = ttft_s

    def record_thinking(self, *, opened: bool) -> None:
        """Keeps what a reply showed of the template for the replies to all visitors. What the settings say stands."""
        self.opens_thinking = opened or self.settings.thinking == "open"

    async def open(self) -> None:  # noqa: B027 - most kinds have nothing to do
        """Begins to get ready, in the background; returns at once."""

    async def close(self) -> None:  # noqa: B027
        """Lets go of whatever `open` took."""

    async def wait_ready(self, key: Key | None = None) -> None:
        """Returns when a turn can start; raises ChatError when none can."""
        health = self.health(key)
        if health.state == "unavailable":
            raise ChatError("backend_unavailable", f"{self.name} is not available: {health.reason}")

    @abstractmethod
    def chat_model(self, options: ModelOptions, key: Key | None = None) -> BaseChatModel:
        """The model for one turn; cheap to call. Only after `wait_ready`."""

    async def count_tokens(self, texts: Sequence[str], key: Key | None = None) -> list[CountedText]:
        """How the model will read each text; here as it is, with an estimate of four bytes to a token.

        `key` lets a provider be asked; without one nothing leaves this machine.
        """
        return await in_thread(sum(map(len, texts)) > _LONG, _guessed, texts)

    async def count_prompt_tokens(self, messages: Sequence[tuple[str, str]]) -> list[int] | None:
        """The exact tokens of a whole prompt: those of each message (role and text), and last those of what is in none.

        A system prompt that the template adds counts as the first message. None where only single texts are counted.
        """
        return None

    def notices(self, model: BaseChatModel) -> Sequence[str]:
        """Sentences about a turn's requests, by its model, to be shown with the reply."""
        return ()

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """The exception as one that a visitor may read; None if it is not this backend's to explain."""
        return to_chat_error(self.name, exception)
