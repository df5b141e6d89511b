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
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel

from backends.base import DEFAULT_CONTEXT, Backend, Health, Offer, Options
from backends.errors import limited
from backends.keys import Key
from backends.models import Model, ModelList, nearest
from runs.errors import ChatError
from settings import BackendSettings

logger = logging.getLogger(__name__)

PROBE_S = 3.0
_OLD_S = {"ready": 60.0, "unavailable": 60.0}
"""After how long an answer is looked up again, by the state that it told; others: `_SOON_S`."""
_SOON_S = 5.0
_CHOSEN, _NAME_CHARACTERS = 64, 200
_UNKNOWN_LIMIT_S = 20.0
"""How long a rate limit is taken to last where the provider does not say."""


class Unusable(Exception):
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
    """Until when the provider itself asked not to be asked, epoch seconds."""
    unbuilt: bool = False
    """Whether it is unavailable because the model could not be built."""
    looked: float = -1e9
    looking: "asyncio.Task[None] | None" = None
    building: "asyncio.Task[None] | None" = None


class RemoteBackend(Backend):
    """Subclasses build the model and say how to probe; a keyless one has one account for all."""

    max_tokens_field: str = "max_tokens"
    model_field: str = ""
    """The chat model's field for the model's name; empty for a kind that lists no models."""

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        self.model = settings.default_model
        self.takes -= settings.ignored(self.model)
        self._keyless = Account()
        self._accounts: weakref.WeakKeyDictionary[Key, Account] = weakref.WeakKeyDictionary()
        self._chosen: OrderedDict[str, RemoteBackend] = OrderedDict()
        """This backend with each model that was chosen lately."""

    @abstractmethod
    def build(self, key: Key | None) -> BaseChatModel:
        """Makes the model; called in a thread, since its import may take seconds. Raises Unusable."""

    async def probe(self, key: Key | None) -> Health:
        """Asks the provider, within PROBE_S seconds. What it raises means that it cannot be reached."""
        return Health("ready")

    async def open(self) -> None:
        self.look(self.key)

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
        health = self._account(key).health
        if health.until is not None and health.until <= time.time():
            return Health("ready")
        return self._having_models(key) if health.ready else health

    def offers(self, key: Key | None = None) -> Sequence[Offer]:
        """The models that the entry lists, or that the provider does, by name."""
        listed = self._account(key).models or ModelList()
        return [
            Offer(one, self._context(one), self._takes(one), listed.problem(one.name)) for one in self._offered(listed)
        ]

    def _offered(self, listed: ModelList) -> Sequence[Model]:
        wanted = self.settings.models
        if wanted is None:
            return ()
        if wanted == "*":
            names = {model.name for model in listed.offered}
            own = [Model(self.settings.model)] if self.settings.model and self.settings.model not in names else []
            return [*own, *listed.offered]
        return [listed.find(name) or Model(name) for name in wanted]

    def with_model(self, model: str | None, key: Key | None = None) -> Backend:
        """A copy that shares the accounts, and has the context and the options of the model."""
        listed = self._account(key).models
        if self.settings.models is None:
            self._describe(listed)
            return super().with_model(model, key)
        if model is None:
            model = self._default(key)
        elif listed is None and self.settings.models == "*":
            pass  # checked when the list is there
        elif model not in (names := [one.name for one in self._offered(listed or ModelList())]):
            near = ", ".join(nearest(model[:_NAME_CHARACTERS], map(Model, names))) or "none at the moment"
            raise ChatError("invalid_request", f"{self.name} offers no model {model[:60]!r}; it offers {near}.")
        return self if model is None else self._with(model, listed)

    def _with(self, model: str, listed: ModelList | None) -> Backend:
        one = self._chosen.get(model)
        if one is None:
            one = type(self)(self.settings.model_copy(update={"model": model, "models": None}), self.key)
            one._accounts, one._keyless, one.line = self._accounts, self._keyless, self.line
            one.choice = model
            self._chosen[model] = one
            if len(self._chosen) > _CHOSEN:
                self._chosen.popitem(last=False)
        self._chosen.move_to_end(model)
        one._describe(listed)
        return one

    def _describe(self, listed: ModelList | None) -> None:
        """Takes over what the provider says of the model; the settings' `context` stays the most."""
        facts = listed.find(self.model) if listed and self.model else None
        if facts and facts != self.facts:
            self.facts, self.context, self.takes = facts, self._context(facts), self._takes(facts)

    def _context(self, facts: Model) -> int:
        return min([size for size in (self.settings.context, facts.context) if size], default=DEFAULT_CONTEXT)

    def _takes(self, facts: Model) -> frozenset[str]:
        return type(self).takes - self.settings.ignored(facts.name) - facts.ignores

    def _default(self, key: Key | None) -> str | None:
        """The model where none is chosen: the settings' own, or the first one where the provider has not got that."""
        listed, own = self._account(key).models or ModelList(), self.settings.default_model
        if own and not listed.problem(own):
            return own
        return next((one.name for one in self._offered(listed) if not listed.problem(one.name)), own)

    def _having_models(self, key: Key | None) -> Health:
        """Ready, or unavailable where the provider lists none of the models; the reason names what is missing."""
        listed, wanted = self._account(key).models or ModelList(), self.settings.models
        names = wanted if isinstance(wanted, list) else [self.model] if self.model else []
        missing = [problem for name in names if (problem := listed.problem(name))]
        if wanted == "*" and self._default(key) is None:
            return Health("unavailable", "its server lists no chat models: name one in `model`")
        if missing and len(missing) == len(names) and wanted != "*":
            return Health("unavailable", missing[0])
        return Health("ready", missing[0] if missing else "")

    def look(self, key: Key | None = None) -> None:
        if self._key_missing(key):
            return
        account = self._account(key)
        old = _OLD_S.get(account.health.state, _SOON_S)
        if (account.looking is None or account.looking.done()) and time.monotonic() - account.looked > old:
            account.looked = time.monotonic()
            account.looking = asyncio.create_task(self._look(account, key), name=f"look at {self.name}")

    async def look_now(self, key: Key | None = None) -> Health:
        """Asks at once, and waits for the answer."""
        account = self._account(key)
        account.looked = -1e9
        self.look(key)
        if account.looking:
            await asyncio.shield(account.looking)
        return self.health(key)

    def learn(self, key: Key | None, error: ChatError | None, ttft_s: float | None = None) -> None:
        super().learn(key, error, ttft_s)
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
            account.refused_until = time.time() + (error.retry_after or 0.0)
            until = time.time() + (error.retry_after or _UNKNOWN_LIMIT_S)
            account.health = Health("rate_limited", error.message, until=until)
        elif error.code == "authentication":
            account.health = Health("key_refused", _refused(key))
        elif error.code in ("backend_unavailable", "timeout"):
            account.health, account.looked = Health("unreachable", self._reason(error)), time.monotonic()

    async def wait_ready(self, key: Key | None = None) -> None:
        if self._key_missing(key):
            raise ChatError("missing_key", f"{self.name} is not ready: {self.health(key).reason}.")
        account = self._account(key)
        await self._built(account, key)
        if account.models is None and self.settings.models == "*":
            await self.look_now(key)  # which models there are is to be known
        health = self.health(key)
        if health.state == "unavailable" and not account.unbuilt:
            health = await self.look_now(key)  # its server may have got the model meanwhile
        if health.state == "unavailable":
            raise ChatError("backend_unavailable", f"{self.name} is not available: {health.reason}")
        if self.settings.models == "*" and self._default(key) is None:
            message = f"{self.name} could not be asked which models it has: {health.reason or 'try again'}"
            raise ChatError("backend_unavailable", message, retryable=True)
        if (wait := account.refused_until - time.time()) > 0:
            raise limited(self.name, wait)

    def chat_model(self, options: Options, key: Key | None = None) -> BaseChatModel:
        model = self._account(key).model
        assert model is not None
        wanted: dict[str, Any] = {self.model_field: self.model}
        if "temperature" in self.takes:
            wanted["temperature"] = options.temperature
        if "max_tokens" in self.takes:
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
            account.model = await asyncio.to_thread(self.build, key)
        except Exception as e:  # what a library raises may hold the key: only its kind is told
            reason = str(e) if isinstance(e, Unusable) else f"its model cannot be made ({type(e).__name__})"
            account.health, account.unbuilt = Health("unavailable", reason), True
        else:
            if account.health.state == "loading" or account.unbuilt:
                account.health, account.unbuilt = Health("ready"), False

    async def _look(self, account: Account, key: Key | None) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                found = await self.probe(key)
        except TimeoutError:
            found = Health("unreachable", f"it did not answer within {PROBE_S:.0f} s")
        except Exception as e:
            logger.info("backend %r: the probe failed: %s", self.name, type(e).__name__)
            told = self.error(e)
            found = Health("unreachable", self._reason(told) if told else f"it cannot be asked ({type(e).__name__})")
        self._describe(account.models)
        if account.health.state != "rate_limited" or self.health(key).state != "rate_limited":
            account.health = found
        if found.ready:
            await self._built(account, key)  # so that the first turn need not wait for it


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
        return Health("key_refused", _refused(key))
    if status == 429:
        until = time.time() + (retry_after or _UNKNOWN_LIMIT_S)
        return Health("rate_limited", f"{name} has too many requests at the moment", until=until)
    if status >= 500:
        return Health("unreachable", f"its server fails (HTTP {status})")
    return Health("ready")


def _refused(key: Key | None) -> str:
    return "it refused your key: paste another below" if key and key.own else "it refused the key of this place"
