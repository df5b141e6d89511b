"""Models that are built from a class and, mostly, a key: what is known of each key, looked up and learned from turns.

Whoever uses a key has an `Account`: the model built with it, and how the provider answered. An account goes with its
key. Looking happens in the background, takes three seconds at most, and one account never waits for another.
"""

import asyncio
import logging
import time
import weakref
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel

from backends import model_choice
from backends.base import Backend, Health, ModelChoice, ModelOptions
from backends.errors import rate_limited
from backends.keys import Key
from backends.models import ModelList
from runs.errors import ChatError
from runs.threads import Threads
from settings import BackendSettings

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 3.0
_OLD_S = {"ready": 60.0, "unavailable": 60.0}
"""After how long an answer is looked up again, by the state that it told; others: `_SOON_S`."""
_SOON_S = 5.0
_CHOSEN = 64
_THREADS = Threads("making models", 4)
_UNKNOWN_LIMIT_S = 20.0
"""How long a rate limit is taken to last where the provider does not say."""


class ModelBuildError(Exception):
    """A model cannot be built; the message says why, for the page."""


@dataclass
class Account:
    """What is known of a backend as used with one key; `looked` is in seconds of the monotonic clock."""

    health: Health = field(default_factory=lambda: Health("loading", "it is being looked up"))
    """How the provider answered; whether it has a certain model is decided by `models`."""
    models: ModelList | None = None
    """What the provider listed, None as long as nobody has asked; empty where it lists nothing."""
    model: BaseChatModel | None = None
    """Used for all models of the backend, by copies of it."""
    refused_until: float = 0.0
    """Until when the provider itself asked not to be asked, in seconds of the monotonic clock."""
    limited_until: float = 0.0
    """The same of a rate limit that `health` tells, also where the provider did not say how long it lasts."""
    unbuilt: bool = False
    """Whether it is unavailable because the model could not be built."""
    looked: float = -1e9
    looking: "asyncio.Task[None] | None" = None
    building: "asyncio.Task[None] | None" = None


class ChatModelBackend(Backend):
    """Subclasses build the model and say how to probe; a keyless one has one account for all."""

    max_tokens_field: str = "max_tokens"
    model_field: str = ""
    """The chat model's field for the model's name; empty for a kind that lists no models."""

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        self.model = settings.default_model
        self._model_takes = self.supported_options = type(self).supported_options - settings.ignored(self.model)
        self._keyless = Account()
        self._accounts: weakref.WeakKeyDictionary[Key, Account] = weakref.WeakKeyDictionary()
        self._chosen: OrderedDict[str, ChatModelBackend] = OrderedDict()
        """This backend with each model that was chosen lately."""
        self._whole: ChatModelBackend | None = None
        """The backend that this is, with one of its models."""
        self._by_list = settings.models == "*"

    @abstractmethod
    def build(self, key: Key | None) -> BaseChatModel:
        """Makes the model; called in a thread, since its import may take seconds. Raises Unusable."""

    async def probe(self, key: Key | None) -> Health:
        """Asks the provider, within PROBE_TIMEOUT_S seconds. What it raises means that it cannot be reached."""
        return Health("ready")

    async def open(self) -> None:
        self.refresh_health(self.key)

    async def close(self) -> None:
        accounts = (self._keyless, *self._accounts.values())
        tasks = {task for a in accounts for task in (a.looking, a.building) if task and not task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def health(self, key: Key | None = None) -> Health:
        if self._key_missing(key):
            reason = f"it needs a key: paste yours below, or set {self.settings.key_name} before the start"
            return Health("key_missing", reason)
        account = self._account(key)
        health = account.health
        if health.until is not None and account.limited_until <= time.monotonic():
            return Health("ready")
        return model_choice.health(self.settings, self._listed(key)) if health.ready else health

    def model_choices(self, key: Key | None = None) -> Sequence[ModelChoice]:
        entry, listed = self.settings, self._listed(key)
        return [
            ModelChoice(
                one,
                model_choice.context(entry, one),
                model_choice.taken(entry, one, type(self).supported_options),
                listed.problem(one.name),
            )
            for one in model_choice.offered(entry, listed)
        ]

    def with_model(self, model: str | None, key: Key | None = None) -> Backend:
        """A copy that shares the accounts, and has the context and the options of the model."""
        listed = self._listed(key)
        if self.settings.models is None:
            self._describe(listed)
            return super().with_model(model, key)
        if model is None:
            model = model_choice.default(self.settings, listed)
        elif self._unlisted(key):
            pass  # whether it is there is checked when the list is
        elif refusal := model_choice.refusal(self.settings, listed, model):
            raise ChatError("invalid_request", refusal)
        return self if model is None else self._with(model, listed)

    def remember(self, key: Key | None, listed: ModelList) -> None:
        """Keeps what the provider listed for a key; accounts with equal lists share one, since it can be long."""
        known = (account.models for account in (self._keyless, *self._accounts.values()))
        self._account(key).models = next((one for one in known if one == listed), listed)

    def _listed(self, key: Key | None) -> ModelList:
        return self._account(key).models or ModelList()

    def _unlisted(self, key: Key | None) -> bool:
        """Whether the provider's list decides, and nobody has asked for it yet."""
        return self._by_list and self._account(key).models is None

    def _with(self, model: str, listed: ModelList) -> Backend:
        one = self._chosen.get(model)
        if one is None:
            one = type(self)(self.settings.model_copy(update={"model": model, "models": None}), self.key)
            one._accounts, one._keyless = self._accounts, self._keyless
            one.slots, one.threads = self.slots, self.threads
            one.chosen_model, one._by_list, one._whole = model, self._by_list, self._whole or self
            self._chosen[model] = one
            if len(self._chosen) > _CHOSEN:
                self._chosen.popitem(last=False)
        self._chosen.move_to_end(model)
        one._describe(listed)
        return one

    def _describe(self, listed: ModelList) -> None:
        """Takes over what the provider says of the model."""
        model_info = listed.find(self.model) if self.model else None
        if model_info and model_info != self.model_info:
            self.model_info, self.context = model_info, model_choice.context(self.settings, model_info)
            self._model_takes = model_choice.taken(self.settings, model_info, type(self).supported_options)
            self.update_takes()

    def unused_options(self) -> frozenset[str]:
        """The visitor's options that are not sent, whatever the model does with them."""
        return frozenset()

    def update_takes(self) -> None:
        """Brings `supported_options` up to date."""
        self.supported_options = self._model_takes - self.unused_options()

    def refresh_health(self, key: Key | None = None) -> None:
        if self._key_missing(key):
            return
        account = self._account(key)
        old = _OLD_S.get(account.health.state, _SOON_S)
        if (account.looking is None or account.looking.done()) and time.monotonic() - account.looked > old:
            account.looked = time.monotonic()
            account.looking = asyncio.create_task(self._look(account, key), name=f"look at {self.name}")

    async def check_health(self, key: Key | None = None) -> Health:
        """Asks at once, and waits for the answer."""
        account = self._account(key)
        account.looked = -1e9
        self.refresh_health(key)
        if account.looking:
            await asyncio.shield(account.looking)
        return self.health(key)

    def record_outcome(self, key: Key | None, error: ChatError | None, ttft_s: float | None = None) -> None:
        super().record_outcome(key, error, ttft_s)
        if self._whole and ttft_s is not None:
            self._whole.ttft_s = ttft_s
        if self._key_missing(key):
            return
        account = self._account(key)
        if error is None or error.code == "authentication":
            account.refused_until = 0.0
        if error is None:
            account.health = Health("ready")
        elif error.code == "rate_limited" and not error.retryable:  # no credit left: waiting does not help
            account.health = Health("key_refused", self._reason(error))
        elif error.code == "rate_limited":
            now, wait = time.monotonic(), error.retry_after or _UNKNOWN_LIMIT_S
            account.refused_until, account.limited_until = now + (error.retry_after or 0.0), now + wait
            account.health = Health("rate_limited", error.message, until=time.time() + wait)
        elif error.code == "authentication":
            account.health = Health("key_refused", refused(key))
        elif error.code in ("backend_unavailable", "timeout"):
            account.health, account.looked = Health("unreachable", self._reason(error)), time.monotonic()

    async def wait_ready(self, key: Key | None = None) -> None:
        if self._key_missing(key):
            raise ChatError("missing_key", f"{self.name} is not ready: {self.health(key).reason}.")
        account = self._account(key)
        await self._built(account, key)
        if self._unlisted(key):
            await self.check_health(key)
        health = self.health(key)
        if health.state == "unavailable" and not account.unbuilt:
            health = await self.check_health(key)  # its server may have got the model meanwhile
        if health.state == "unavailable":
            raise ChatError("backend_unavailable", f"{self.name} is not available: {health.reason}")
        if self.settings.models == "*" and model_choice.default(self.settings, self._listed(key)) is None:
            message = f"{self.name} could not be asked which models it has: {health.reason or 'try again'}"
            raise ChatError("backend_unavailable", message, retryable=True)
        if (wait := account.refused_until - time.monotonic()) > 0:
            raise rate_limited(self.name, wait)

    def chat_model(self, options: ModelOptions, key: Key | None = None) -> BaseChatModel:
        model = self._account(key).model
        assert model is not None
        wanted: dict[str, Any] = {self.model_field: self.model}
        if "temperature" in self.supported_options:
            wanted["temperature"] = options.temperature
        if "max_tokens" in self.supported_options:
            wanted[self.max_tokens_field] = options.max_tokens
        fields = type(model).model_fields
        return model.model_copy(update={k: v for k, v in wanted.items() if k in fields and v is not None})

    def _key_missing(self, key: Key | None) -> bool:
        return key is None and self.settings.key_name is not None

    def _account(self, key: Key | None) -> Account:
        return self._keyless if key is None else self._accounts.setdefault(key, Account())

    def _reason(self, error: ChatError) -> str:
        """An error's sentence as a part of one about this backend."""
        return "it " + error.message.removeprefix(f"{self.name} ")

    async def _built(self, account: Account, key: Key | None) -> None:
        """Builds the model if there is none; whoever is cancelled meanwhile takes nothing from the others who wait."""
        if account.model is None:
            if account.building is None or account.building.done():
                account.building = asyncio.create_task(self._build(account, key), name=f"build {self.name}")
            await asyncio.shield(account.building)

    async def _build(self, account: Account, key: Key | None) -> None:
        try:
            account.model = await _THREADS.run(self.build, key)
        except Exception as e:  # what a library raises may hold the key: only its kind is told
            reason = str(e) if isinstance(e, ModelBuildError) else f"its model cannot be made ({type(e).__name__})"
            account.health, account.unbuilt = Health("unavailable", reason), True
        else:
            if account.health.state == "loading" or account.unbuilt:
                account.health, account.unbuilt = Health("ready"), False

    async def _look(self, account: Account, key: Key | None) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                found = await self.probe(key)
        except TimeoutError:
            found = Health("unreachable", f"it did not answer within {PROBE_TIMEOUT_S:.0f} s")
        except Exception as e:
            logger.info("backend %r: the probe failed: %s", self.name, type(e).__name__)
            told = self.to_chat_error(e)
            found = Health("unreachable", self._reason(told) if told else f"it cannot be asked ({type(e).__name__})")
        self._describe(self._listed(key))
        if account.health.state != "rate_limited" or self.health(key).state != "rate_limited":
            account.health = found
            account.limited_until = time.monotonic() + (found.until or 0.0) - time.time()
        if found.ready:
            await self._built(account, key)  # so that the first turn need not wait for it


async def new_client(*, trust_env: bool = True) -> httpx.AsyncClient:
    """A client without timeouts, made in a thread: it reads certificates."""
    return await _THREADS.run(partial(httpx.AsyncClient, timeout=None, trust_env=trust_env))


async def read_body(answer: httpx.Response, most: int) -> bytes | None:
    """The body of a streamed answer; None where it has more bytes."""
    text = b""
    async for piece in answer.aiter_bytes():
        text += piece
        if len(text) > most:
            return None
    return text


def probed(name: str, key: Key | None, status: int, retry_after: float | None = None) -> Health:
    """What the status of a provider's answer to a probe tells."""
    if status in (401, 403):
        return Health("key_refused", refused(key))
    if status == 429:
        until = time.time() + (retry_after or _UNKNOWN_LIMIT_S)
        return Health("rate_limited", f"{name} has too many requests at the moment", until=until)
    if status >= 500:
        return Health("unreachable", f"its server fails (HTTP {status})")
    return Health("ready")


def refused(key: Key | None) -> str:
    """Why a provider answered 401 or 403, and what to do."""
    if key is None:
        return "its server asks for a key: name the variable that holds one in the entry's `key`, and set it"
    return "it refused your key: paste another below" if key and key.from_visitor else "it rejected the server's key"
