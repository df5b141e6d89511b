"""Backends that build a LangChain chat model, mostly with a key, and check their provider's health per key.

Each key has an `Account`: the model built with it, and the provider's health. It is dropped together with the key.
Health checks run in the background for at most three seconds; accounts never wait for each other.
"""

import asyncio
import logging
import ssl
import time
import weakref
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel

from backends import model_choice
from backends.base import Backend, Health, ModelChoice, ModelOptions
from backends.errors import rate_limited
from backends.keys import Key
from backends.models import Model, ModelList
from runs.errors import ChatError
from runs.threads import Threads
from settings import BackendSettings

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 3.0
_STALE_S = {"ready": 60.0, "unavailable": 60.0}
"""Seconds after which the health is checked again, by state; for other states `_SOON_S`."""
_SOON_S = 5.0
_CHOSEN = 64
_THREADS = Threads("build models", 4)
_UNKNOWN_LIMIT_S = 20.0
"""The assumed duration of a rate limit without `Retry-After`, in seconds."""


class ModelBuildError(Exception):
    """An error while a model is built; the message is for the page."""


@dataclass
class Account:
    """The state of a backend for one key. Times are in seconds of the monotonic clock."""

    health: Health = field(default_factory=lambda: Health("loading", "its provider is being checked"))
    """The provider's health; `models` says whether it has a certain model."""
    models: ModelList | None = None
    """The provider's list, None before the first check; empty if it lists nothing."""
    model: BaseChatModel | None = None
    """The built model; each model of the backend is a copy of it."""
    retry_at: float = 0.0
    """The end of a rate limit, as announced by the provider."""
    limited_until: float = 0.0
    """The end of a rate limit, announced or assumed."""
    unbuilt: bool = False
    """True if it is unavailable because the model could not be built."""
    checked_at: float = -1e9
    check: "asyncio.Task[None] | None" = None
    build: "asyncio.Task[None] | None" = None


class ChatModelBackend(Backend):
    """A backend whose subclass builds the chat model and, optionally, probes the provider.

    Without a key, all visitors share one account.
    """

    max_tokens_field: str = "max_tokens"
    """The chat model's field for the max reply length."""
    model_field: str = ""
    """The chat model's field for the model's name; empty for a kind without a list of models."""

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        self.model = settings.default_model
        named = Model(self.model or "")
        self._model_options = model_choice.supported_options(settings, named, type(self).supported_options)
        self.supported_options = self._model_options
        self._keyless = Account()
        self._accounts: weakref.WeakKeyDictionary[Key, Account] = weakref.WeakKeyDictionary()
        self._chosen: OrderedDict[str, ChatModelBackend] = OrderedDict()
        """This backend with each of the latest chosen models."""
        self._entry: ChatModelBackend | None = None
        """The backend of the whole entry, if this one has one of its models."""
        self._needs_list = settings.models == "*"

    @abstractmethod
    def build(self) -> BaseChatModel:
        """Builds the model. Runs in a thread, since an import may take seconds. Raises ModelBuildError."""

    async def probe(self) -> Health:
        """Asks the provider for its health, within `PROBE_TIMEOUT_S`. Any exception means that it is unreachable."""
        return Health("ready")

    async def open(self) -> None:
        """Starts the first health check."""
        self.refresh_health()

    async def close(self) -> None:
        """Cancels running checks and builds."""
        accounts = (self._keyless, *self._accounts.values())
        tasks = {task for a in accounts for task in (a.check, a.build) if task and not task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def health(self) -> Health:
        """Returns the last known health: of the key, the provider, and its list of models."""
        if self._key_missing:
            reason = f"it needs a key: enter yours, or set {self.settings.key_name} before the start"
            return Health("key_missing", reason)
        account = self._account
        health = account.health
        if health.until is not None and account.limited_until <= time.monotonic():
            return Health("ready")
        return model_choice.health(self.settings, self._listed) if health.ready else health

    def model_choices(self) -> Sequence[ModelChoice]:
        """Returns the entry's models, described by the provider's list."""
        entry, listed = self.settings, self._listed
        return [
            ModelChoice(
                one,
                model_choice.context(entry, one),
                model_choice.supported_options(entry, one, type(self).supported_options),
                listed.problem(one.name),
            )
            for one in model_choice.choices(entry, listed)
        ]

    def with_model(self, model: str | None) -> Backend:
        """Returns a backend that shares the accounts, with the model's context and options."""
        listed = self._listed
        if self.settings.models is None:
            self._describe(listed)
            return super().with_model(model)
        if model is None:
            model = model_choice.default(self.settings, listed)
        elif self._unlisted:
            pass  # `wait_ready` checks it against the list
        elif problem := model_choice.problem(self.settings, listed, model):
            raise ChatError("invalid_request", problem)
        return self if model is None else self._with(model, listed)

    def remember(self, listed: ModelList) -> None:
        """Keeps the provider's list for this key. Accounts with equal lists share one object, since lists are long."""
        known = (account.models for account in (self._keyless, *self._accounts.values()))
        self._account.models = next((one for one in known if one == listed), listed)

    @property
    def _listed(self) -> ModelList:
        return self._account.models or ModelList()

    @property
    def _unlisted(self) -> bool:
        """True if the provider's list decides, and it is not known yet."""
        return self._needs_list and self._account.models is None

    def _with(self, model: str, listed: ModelList) -> Backend:
        one = self._chosen.get(model)
        if one is None:
            one = type(self)(self.settings.model_copy(update={"model": model, "models": None}))  # it keeps no key
            one._accounts, one._keyless = self._accounts, self._keyless
            one.slots, one.threads = self.slots, self.threads
            one.chosen_model, one._needs_list, one._entry = model, self._needs_list, self._entry or self.bind(None)
            self._chosen[model] = one
            if len(self._chosen) > _CHOSEN:
                self._chosen.popitem(last=False)
        self._chosen.move_to_end(model)
        one._describe(listed)
        return one.bind(self.key)

    def _describe(self, listed: ModelList) -> None:
        """Sets the model's context and options by the provider's list."""
        model_info = listed.find(self.model) if self.model else None
        if model_info and model_info != self.model_info:
            self.model_info, self.context = model_info, model_choice.context(self.settings, model_info)
            supported = type(self).supported_options
            self._model_options = model_choice.supported_options(self.settings, model_info, supported)
            self.update_options()

    def unused_options(self) -> frozenset[str]:
        """The visitors' options that are not sent to the server."""
        return frozenset()

    def update_options(self) -> None:
        """Brings `supported_options` up to date."""
        self.supported_options = self._model_options - self.unused_options()

    def refresh_health(self) -> None:
        """Starts a check in the background, unless one is running or the last one is recent."""
        if self._key_missing:
            return
        account = self._account
        stale_s = _STALE_S.get(account.health.state, _SOON_S)
        if (account.check is None or account.check.done()) and time.monotonic() - account.checked_at > stale_s:
            account.checked_at = time.monotonic()
            account.check = asyncio.create_task(self._check(account), name=f"check {self.name}")

    async def check_health(self) -> Health:
        """Checks the provider now, and returns the health."""
        account = self._account
        account.checked_at = -1e9
        self.refresh_health()
        if account.check:
            await asyncio.shield(account.check)
        return self.health()

    def record_outcome(self, error: ChatError | None, ttft_s: float | None = None) -> None:
        """Derives the key's health from the outcome of a turn."""
        super().record_outcome(error, ttft_s)
        if self._entry and ttft_s is not None:
            self._entry.ttft_s = ttft_s
        if self._key_missing:
            return
        account = self._account
        if error is None or error.code == "authentication":
            account.retry_at = 0.0
        if error is None:
            account.health = Health("ready")
        elif error.code == "rate_limited" and not error.retryable:  # no credit left: waiting does not help
            account.health = Health("key_refused", self._reason(error))
        elif error.code == "rate_limited":
            now, wait = time.monotonic(), error.retry_after or _UNKNOWN_LIMIT_S
            account.retry_at, account.limited_until = now + (error.retry_after or 0.0), now + wait
            account.health = Health("rate_limited", error.message, until=time.time() + wait)
        elif error.code == "authentication":
            account.health = Health("key_refused", key_rejection(self.key))
        elif error.code in ("backend_unavailable", "timeout"):
            account.health, account.checked_at = Health("unreachable", self._reason(error)), time.monotonic()

    async def wait_ready(self) -> None:
        """Waits for the built model and, if it decides, for the provider's list."""
        if self._key_missing:
            raise ChatError("missing_key", f"Needs a key. {self.name} is not ready: {self.health().reason}.")
        account = self._account
        await self._built(account)
        if self._unlisted:
            await self.check_health()
        health = self.health()
        if health.state == "unavailable" and not account.unbuilt:
            health = await self.check_health()  # the server may have the model by now
        if health.state == "unavailable":
            raise ChatError("backend_unavailable", f"{self.name} is not available: {health.reason}")
        if self.settings.models == "*" and model_choice.default(self.settings, self._listed) is None:
            message = f"{self.name} could not list its models: {health.reason or 'try again'}"
            raise ChatError("backend_unavailable", message, retryable=True)
        if (wait := account.retry_at - time.monotonic()) > 0:
            raise rate_limited(self.name, wait)

    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Returns a copy of the built model with the model's name and the options."""
        model = self._account.model
        assert model is not None
        update: dict[str, Any] = {self.model_field: self.model}
        if "temperature" in self.supported_options:
            update["temperature"] = options.temperature
        if "max_tokens" in self.supported_options:
            update[self.max_tokens_field] = options.max_tokens
        fields = type(model).model_fields
        return model.model_copy(update={k: v for k, v in update.items() if k in fields and v is not None})

    @property
    def _key_missing(self) -> bool:
        return self.key is None and self.settings.key_name is not None

    @property
    def _account(self) -> Account:
        return self._keyless if self.key is None else self._accounts.setdefault(self.key, Account())

    def _reason(self, error: ChatError) -> str:
        """An error's message as a part of a sentence about this backend."""
        _, _, after = error.message.partition(f". {self.name} ")
        return "it " + (after or error.message.removeprefix(f"{self.name} "))

    async def _built(self, account: Account) -> None:
        """Builds the model if there is none. A cancelled caller does not cancel the build, for which others wait."""
        if account.model is None:
            if account.build is None or account.build.done():
                account.build = asyncio.create_task(self._build(account), name=f"build {self.name}")
            await asyncio.shield(account.build)

    async def _build(self, account: Account) -> None:
        try:
            account.model = await _THREADS.run(self.build)
        except Exception as e:  # a library's text may hold the key, so only the class is shown
            reason = str(e) if isinstance(e, ModelBuildError) else f"its model cannot be built ({type(e).__name__})"
            account.health, account.unbuilt = Health("unavailable", reason), True
        else:
            if account.health.state == "loading" or account.unbuilt:
                account.health, account.unbuilt = Health("ready"), False

    async def _check(self, account: Account) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                found = await self.probe()
        except TimeoutError:
            found = Health("unreachable", f"it did not answer within {PROBE_TIMEOUT_S:.0f} s")
        except Exception as e:
            logger.info("backend %r: the probe failed: %s", self.name, type(e).__name__)
            error = self.to_chat_error(e)
            found = Health("unreachable", self._reason(error) if error else f"the check failed ({type(e).__name__})")
        self._describe(self._listed)
        if account.health.state != "rate_limited" or self.health().state != "rate_limited":
            account.health = found
            account.limited_until = time.monotonic() + (found.until or 0.0) - time.time()
        if found.ready:
            await self._built(account)  # the first turn then need not wait for it


async def new_client(*, trust_env: bool = True) -> httpx.AsyncClient:
    """Creates a client without timeouts."""
    tls = await _THREADS.run(partial(_tls_context, trust_env))
    # a probe, and each turn, has a timeout of its own
    return httpx.AsyncClient(timeout=None, trust_env=trust_env, verify=tls)  # nosec B113


@cache
def _tls_context(trust_env: bool) -> ssl.SSLContext:
    """Returns the context that all clients share, since reading the certificates takes 20 ms of a processor."""
    return httpx.create_ssl_context(trust_env=trust_env)


async def read_body(response: httpx.Response, most: int) -> bytes | None:
    """Reads the body of a streamed response; returns None if it is longer than `most` bytes."""
    body = b""
    async for data in response.aiter_bytes():
        body += data
        if len(body) > most:
            return None
    return body


def health_of(name: str, key: Key | None, status: int, retry_after: float | None = None) -> Health:
    """Returns the health that the HTTP status of a probe stands for."""
    if status in (401, 403):
        return Health("key_refused", key_rejection(key))
    if status == 429:
        until = time.time() + (retry_after or _UNKNOWN_LIMIT_S)
        return Health("rate_limited", f"{name} has too many requests at the moment", until=until)
    if status >= 500:
        return Health("unreachable", f"its server fails (HTTP {status})")
    return Health("ready")


def key_rejection(key: Key | None) -> str:
    """Returns the reason for an HTTP 401 or 403, and what to do."""
    if key is None:
        return "its server asks for a key: name the variable that holds one in the entry's `key`, and set it"
    return "it rejected your key: paste another below" if key.from_visitor else "it rejected the server's key"
