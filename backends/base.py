"""The interface of all backends.

A backend builds a LangChain chat model for a turn, reports its health, counts tokens, and turns its provider's
exceptions into `ChatError`s. A new kind is one file with one subclass, and one line in `backends/__init__.py`.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
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
"""Tokens of prompt and reply together, if neither the settings nor the provider give a number."""
_BLOCKING = 64
"""Threads of one backend."""
_LONG_TEXT = 200_000
"""Longer texts, in characters, are counted in a thread."""


class BackendError(Exception):
    """An error in the settings of a backend; the message is for the operator."""


State = Literal[
    "ready",
    "loading",
    "not_loaded",
    "not_downloaded",
    "key_missing",
    "key_refused",
    "unreachable",
    "rate_limited",
    "unavailable",
]
"""`not_loaded`: the next message loads it. `not_downloaded`: it must be downloaded first, on request."""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a backend."""

    state: State
    reason: str = ""
    """Says why it is not ready, and what to do."""
    progress: float | None = None
    """The loaded share, 0 to 1."""
    until: float | None = None
    """The end of a rate limit, in epoch seconds."""

    @property
    def ready(self) -> bool:
        """True if a turn can start."""
        return self.state == "ready"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One of the models that a visitor may choose."""

    model_info: Model
    context: int
    """The limit of prompt and reply together, in tokens."""
    supported_options: frozenset[str]
    """The subset of `OPTION_NAMES` that affects it."""
    problem: str = ""
    """The reason why it cannot be used, for instance that the provider has removed it."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The sampling options of one turn; None leaves an option to the backend."""

    max_tokens: int
    temperature: float | None = None
    logprobs: int | None = None
    """Number of alternatives in the probabilities of each token; None for no probabilities."""
    thinking: bool | None = None
    """Whether the model thinks before it answers, where that can be switched."""
    continues: bool = False
    """Whether the last message of the input is the beginning of the reply."""
    conversation: str | None = None
    """The id of the conversation that is read, for backends that keep its text in a cache."""


OPTION_NAMES = ("system_prompt", "temperature", "max_tokens", "thinking")
"""The options that a visitor may set, besides backend and memory mode."""
ALWAYS_SUPPORTED = frozenset(OPTION_NAMES) - {"thinking"}
"""Those that backends support unless they say otherwise."""


@dataclass(frozen=True, slots=True)
class CountedText:
    """A text as the model reads it, with its number of tokens."""

    text: str
    """The text, with the model's control words made inert."""
    tokens: int
    estimated: bool = False
    """True if the number is an estimate."""


@dataclass(frozen=True, slots=True)
class PromptToken:
    """A token of a prompt as the model reads it."""

    id: int
    text: str | None
    """Its text; None for a part of a character."""
    bytes: list[int] | None = None
    """The bytes of a part of a character."""
    control: bool = False
    """Whether it is a control word of the chat template."""


@dataclass(frozen=True, slots=True)
class TemplateTokens:
    """The tokens that a model's chat template adds to a prompt and to each message."""

    with_system: int = 3
    """Tokens added to a prompt with a system prompt."""
    without_system: int = 3
    """Tokens added to a prompt without one; some templates then add their own."""
    user: int = 4
    """Tokens added to each message that is not an assistant's."""
    assistant: int = 4
    """Tokens added to each assistant message."""
    system: str = ""
    """The template's own system prompt, used if none is given."""
    thinking: Mapping[bool, int] = field(default_factory=dict)
    """Tokens added to a prompt whose thinking is switched on or off, besides."""

    def per_prompt(self, *, with_system: bool, thinking: bool | None = None) -> int:
        """Returns the tokens added to a prompt; `thinking` is its switch, None where it is not used."""
        extra = 0 if thinking is None else self.thinking.get(thinking, 0)
        return extra + (self.with_system if with_system else self.without_system)

    def per_message(self, role: str) -> int:
        """Returns the tokens added to a message of this role."""
        return self.assistant if role == "assistant" else self.user


def _estimates(texts: Sequence[str]) -> list[CountedText]:
    return [CountedText(text, estimate_tokens(text), estimated=True) for text in texts]


class Backend(ABC):
    """One entry of the settings, for requests with one key.

    It is created with the operator's key; `bind` gives it another one. It is created on the main thread; its coroutines
    run on the server's event loop.
    """

    __slots__ = ("__dict__", "key")  # `bind` returns an object that shares `__dict__`; only `key` differs

    kind: ClassVar[str]
    uses: ClassVar[frozenset[str]] = frozenset()
    """The settings of this kind, besides those of every kind; any other one stops the start."""
    timeout_s: ClassVar[float] = 60.0
    """The default idle timeout, in seconds without a byte from the provider."""
    reports_logprobs: bool = False
    """Whether its servers can report the probabilities of tokens."""
    tells_prompt: bool = False
    """Whether it knows the whole prompt that is made of the messages."""
    reads_ahead: bool = False
    """Whether it can read a conversation before its next message."""
    continues_replies: bool = False
    """Whether its models can continue a reply that has been begun."""
    supported_options: frozenset[str] = ALWAYS_SUPPORTED
    """The subset of `OPTION_NAMES` that affects it."""
    about: str = ""
    """A sentence for the page about this backend: the settings', or the kind's."""
    is_default: bool = False
    """Whether it is the first entry, which is selected at the start."""
    download_bytes: int | None = None
    """The size of the download that it needs; None if none is needed, or if its size is not known."""
    runs_agent: ClassVar[bool] = False
    """True if it answers by an agent of its own: it has no chat model, and is offered no tools."""
    is_model: ClassVar[bool] = True
    """False for the script, which is no language model."""
    is_local: ClassVar[bool] = False
    """True if its model runs on this machine's processors, so that concurrent replies slow each other down."""
    sends_images: ClassVar[bool] = False
    """True if its kind can send images to the model."""
    template = TemplateTokens()

    supports_tools: bool = True
    """False if its model is known not to choose tools."""
    has_bind_tools: bool = True
    """False if the chat model's class has no `bind_tools`; then `tools = true` has no effect."""
    max_result_tokens: int | None = None
    """A lower limit for tool results than the context gives, for small models."""
    tools: Sequence[BaseTool] = ()
    """The backend's own tools."""
    approval: frozenset[str] = frozenset()
    """The names of its own tools that need approval."""
    prompts: dict[str, str]
    """Example prompts and their descriptions: the scripted backend's menu."""
    key: Key | None
    """The key of its requests: the visitor's, the operator's, or none."""

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        """`key` is the operator's. Raises BackendError for settings that cannot work."""
        self.settings, self.key = settings, key
        self.name = settings.name
        self.model: str | None = None
        """The provider's name for its model; None without a provider, or until its list of models is known."""
        self.chosen_model: str | None = None
        """The same, if the entry has several models."""
        self.model_info = Model("")
        """The provider's description of its model."""
        self.about = settings.about or self.about
        self.context = settings.context or DEFAULT_CONTEXT
        """The limit of prompt and reply together, in tokens."""
        self.timeout = settings.timeout or self.timeout_s
        """The idle timeout, in seconds."""
        self.ttft_s: float | None = None
        """The latest time to first token, in seconds."""
        self.opens_thinking = settings.thinking == "open"
        """True if the chat template opens the thinking, so that replies hold only the closing tag."""
        self.prompts = {}
        self.make_room: Callable[[int], int | None] = lambda needed: None
        """Frees memory for so many bytes where it can, and returns the free bytes; None where they are not known."""
        self.machine_idle: Callable[[], bool] = lambda: self.slots.idle
        """Returns whether no model that runs on this machine's processors is in use or waited for."""
        self._checked: type[BaseChatModel] | None = None
        self.slots = Slots()
        """The queue for the model; the local kind limits its slots."""
        self.threads = Threads(f"model of {self.name}", _BLOCKING)
        """The threads of a model whose class has no async methods."""

    def bind(self, key: Key | None) -> Self:
        """Returns the backend with another key. All its other attributes are shared, also those that change."""
        bound = object.__new__(type(self))
        bound.__dict__, bound.key = self.__dict__, key
        return bound

    @property
    def has_visitors_key(self) -> bool:
        """True if the visitor pays for its requests."""
        return self.key is not None and self.key.from_visitor

    @property
    def context_note(self) -> str | None:
        """A sentence about a difference between its requests and the shown context."""
        return None

    @property
    def offers_tools(self) -> bool:
        """True if its model is offered tools; if not, only the visitor's commands run them."""
        known = self.supports_tools and self.model_info.tools is not False
        return self.has_bind_tools and (known if self.settings.tools is None else self.settings.tools)

    @property
    def images(self) -> bool | None:
        """True if its model takes images; None if that is not known, and they are sent."""
        known = self.model_info.images if self.settings.images is None else self.settings.images
        return known if self.sends_images else False

    def check_tools(self, model: BaseChatModel, tools: Sequence[BaseTool]) -> None:
        """Tries `bind_tools` of a turn's model, which many of LangChain's classes lack."""
        if not self.offers_tools or not tools or type(model) is self._checked:
            return
        self._checked = type(model)
        try:
            model.bind_tools(list(tools))
        except NotImplementedError:
            self.has_bind_tools = False
        except Exception as e:  # the turn itself raises it again and reports it
            logger.debug("backend %r: %s", self.name, type(e).__name__)

    def model_choices(self) -> Sequence[ModelChoice]:
        """Returns the models that a visitor may choose; empty if there is no choice."""
        return ()

    def with_model(self, model: str | None) -> "Backend":
        """Returns the backend with one of its models, the default for None. Raises ChatError for an unknown model."""
        if model is not None and model != self.model:
            message = f"{self.name} offers no model {model[:60]!r}: it has one model, so leave `model` out."
            raise ChatError("invalid_request", message)
        return self

    @abstractmethod
    def health(self) -> Health:
        """Returns the last known health; never waits."""

    def refresh_health(self) -> None:  # noqa: B027 - most kinds need no check
        """Starts a health check in the background if the last one is old."""

    async def check_health(self) -> Health:
        """Checks the health now, and returns it."""
        return self.health()

    def record_outcome(self, error: ChatError | None, ttft_s: float | None = None) -> None:
        """Records the outcome of a turn: its error before the first token, or the time to first token."""
        if ttft_s is not None:
            self.ttft_s = ttft_s

    def record_thinking(self, *, opened: bool) -> None:
        """Records whether the chat template opens the thinking. The settings take precedence."""
        self.opens_thinking = opened or self.settings.thinking == "open"

    async def open(self) -> None:  # noqa: B027 - most kinds have nothing to do
        """Starts to load in the background; returns at once."""

    async def close(self) -> None:  # noqa: B027
        """Releases what `open` has acquired."""

    def download(self) -> None:
        """Begins to download and load what it needs. Raises ChatError if it needs no download."""
        raise ChatError("invalid_request", f"{self.name} needs no download.")

    def unload(self) -> None:  # noqa: B027
        """Frees the memory of an idle model; the next message loads it again."""

    async def forget_conversation(self, conversation_id: str) -> None:  # noqa: B027
        """Removes what is cached of a deleted conversation."""

    async def read_ahead(self, messages: Sequence[BaseMessage], options: ModelOptions, visitor: str) -> None:
        """Reads a conversation before its next message where it `reads_ahead`, unless a reply is waited for."""
        raise NotImplementedError

    async def wait_ready(self) -> None:
        """Waits until a turn can start. Raises ChatError if none can."""
        health = self.health()
        if health.state == "unavailable":
            raise ChatError("backend_unavailable", f"{self.name} is not available: {health.reason}")

    @abstractmethod
    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Returns the model for one turn; cheap. Call it only after `wait_ready`."""

    async def count_tokens(self, texts: Sequence[str]) -> list[CountedText]:
        """Counts the tokens of each text; by default an estimate of four bytes a token.

        With a key the provider may count them; without one (`bind(None)`) no text leaves this machine.
        """
        return await in_thread(sum(map(len, texts)) > _LONG_TEXT, _estimates, texts)

    async def count_prompt_tokens(
        self, messages: Sequence[tuple[str, str]], thinking: bool | None = None
    ) -> list[int] | None:
        """Counts a whole prompt exactly: the tokens of each (role, text), and last those outside of any message.

        A system prompt that the template adds counts as the first message. `thinking` is the switch of the model's
        thinking, if it is used. Returns None if the kind cannot count.
        """
        return None

    async def prompt_tokens(
        self, messages: Sequence[tuple[str, str]], thinking: bool | None = None
    ) -> list[PromptToken]:
        """Returns the prompt of (role, text) messages, token by token, where it `tells_prompt`. Raises ChatError."""
        raise NotImplementedError

    def notices(self, model: BaseChatModel) -> Sequence[str]:
        """Returns sentences about changed requests of a turn's model, to be shown with the reply."""
        return ()

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """Turns an exception into a ChatError for the visitor; None for an unknown exception."""
        return to_chat_error(self.name, exception)
