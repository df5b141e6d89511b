"""The registry: which kinds of backend there are, and the ones that the settings name.

A kind's module is imported when an entry names it, so that what nobody uses costs nothing and a missing package
disables one backend, with its reason, instead of stopping the start.
"""

import difflib
import importlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from backends.base import OPTION_NAMES, Backend, BackendError, Health, ModelChoice, ModelOptions
from backends.keys import Key, VisitorKeys
from runs.errors import ChatError
from settings import BackendSettings, SettingsError

__all__ = [
    "KINDS",
    "OPTION_NAMES",
    "Backend",
    "BackendError",
    "Backends",
    "Health",
    "Key",
    "ModelChoice",
    "ModelOptions",
    "VisitorKeys",
]

logger = logging.getLogger(__name__)

KINDS: dict[str, str] = {
    "local": "backends.local:LocalBackend",
    "gemini": "backends.gemini:GeminiBackend",
    "openai": "backends.openai:OpenAIBackend",
    "langchain": "backends.langchain:LangChainBackend",
    "scripted": "backends.scripted:ScriptedBackend",
}
"""Kind -> where its class is."""

_EVERY_KIND = frozenset({"name", "kind", "context", "timeout", "fallback", "price", "tools"})
"""The settings that every kind uses."""


class UnavailableBackend(Backend):
    """Stands for an entry whose package is not installed."""

    kind = "missing"

    def __init__(self, settings: BackendSettings, reason: str) -> None:
        super().__init__(settings)
        self._reason = reason

    def health(self, key: Key | None = None) -> Health:
        return Health("unavailable", self._reason)

    def chat_model(self, options: ModelOptions, key: Key | None = None) -> BaseChatModel:
        raise ChatError("backend_unavailable", f"{self.name} is not available: {self._reason}")


class Backends:
    """The configured backends, in their order; the first is the one chosen at the start."""

    def __init__(self, entries: list[BackendSettings], keys: Mapping[str, SecretStr] | None = None) -> None:
        """`keys` are the operator's, by variable. Raises SettingsError for an entry that its kind cannot use."""
        self._held = {name: Key(secret.get_secret_value()) for name, secret in (keys or {}).items()}
        """The operator's keys, and the variables of headers and query parameters; the log is cleared of them."""
        self._backends = {entry.name: _build(entry, self._held) for entry in entries}
        self.keys = VisitorKeys()
        """What visitors brought."""

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends.values())

    @property
    def default(self) -> Backend:
        return next(iter(self))

    def get(self, name: str) -> Backend:
        """Raises ChatError `not_found`, naming what there is."""
        try:
            return self._backends[name]
        except KeyError:
            names = ", ".join(repr(n) for n in self._backends)
            raise ChatError("not_found", f"There is no backend {name[:60]!r}; there are {names}.") from None

    def key(self, backend: Backend, visitor: str | None) -> Key | None:
        """The key that a visitor uses a backend with: their own, else the operator's."""
        return self.keys.get(visitor, backend.name) or backend.key

    def health(self, backend: Backend, visitor: str | None) -> Health:
        """How a backend is for this visitor, as far as is known; what is old news is looked up for the next time."""
        key = self.key(backend, visitor)
        backend.refresh_health(key)
        return backend.health(key)

    def describe(self, visitor: str | None) -> list[dict[str, Any]]:
        """What `GET /backends` and the page tell a visitor of each backend."""
        return [self._told(backend, visitor) for backend in self]

    def _told(self, backend: Backend, visitor: str | None) -> dict[str, Any]:
        key, health = self.key(backend, visitor), self.health(backend, visitor)
        used = backend.with_model(None, key)
        return {
            "name": backend.name,
            "kind": backend.kind,
            "ready": health.ready,
            "state": health.state,
            "reason": health.reason or None,
            "progress": health.progress,
            "until": health.until,
            "ttft_s": backend.ttft_s,
            "key": _whose(key) if backend.settings.key_name else None,
            "takes": [name for name in OPTION_NAMES if name in used.supported_options],
            "fallback": backend.settings.fallback,
            "model": used.model,
            "models": [_model(offered) for offered in backend.model_choices(key)],
            "context": used.context,
            "thinking": used.model_info.thinking,
            "images": used.model_info.images,
            "about": backend.about,
            "prompts": backend.prompts,
        }

    def chosen(self, backend: Backend, model: str | None, visitor: str | None) -> Backend:
        """A backend with a model that a visitor chose, or its default. Raises ChatError for one that it has not."""
        return backend.with_model(model, self.key(backend, visitor))

    def chain(self, backend: Backend, model: str | None = None, visitor: str | None = None) -> list[Backend]:
        """A backend with the chosen model, its fallback with the default one, the fallback's own, and so on."""
        found = [self.chosen(backend, model, visitor)]
        while found[-1].settings.fallback:
            found.append(self.chosen(self._backends[found[-1].settings.fallback], None, visitor))
        return found

    async def open(self) -> None:
        for backend in self:
            await backend.open()

    async def close(self) -> None:
        for backend in self:
            await backend.close()


def _model(offer: ModelChoice) -> dict[str, Any]:
    return {
        "name": offer.model_info.name,
        "ready": not offer.problem,
        "reason": offer.problem or None,
        "context": offer.context,
        "takes": [name for name in OPTION_NAMES if name in offer.supported_options],
        "thinking": offer.model_info.thinking,
        "images": offer.model_info.images,
    }


def _whose(key: Key | None) -> str:
    return "missing" if key is None else "yours" if key.from_visitor else "everybody's"


def _resolved(entry: BackendSettings, held: Mapping[str, Key]) -> BackendSettings:
    """The entry with the values of the variables that it names. Raises SettingsError."""
    try:
        return entry.resolved({name: held[name].reveal() for name in entry.variables})
    except KeyError as e:
        raise SettingsError(f"backend {entry.name!r}: headers, query: the variable {e} is not set; set it") from None


def _build(entry: BackendSettings, held: Mapping[str, Key]) -> Backend:
    if entry.kind not in KINDS:
        close = difflib.get_close_matches(entry.kind, KINDS, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        allowed = ", ".join(map(repr, KINDS))
        raise SettingsError(f"backend {entry.name!r}: kind: found {entry.kind!r}; {hint}allowed: {allowed}")
    module, _, name = KINDS[entry.kind].partition(":")
    try:
        kind: type[Backend] = getattr(importlib.import_module(module), name)
        usable = _EVERY_KIND | kind.uses
        if unused := {field.removesuffix("_") for field in entry.model_fields_set} - usable:
            allowed = ", ".join(sorted(usable))
            raise BackendError(f"{', '.join(sorted(unused))}: not used by the kind {entry.kind!r}; allowed: {allowed}")
        backend: Backend = kind(_resolved(entry, held), held.get(entry.key_name or ""))
        return backend
    except ImportError as e:
        logger.warning("backend %r is disabled: %s", entry.name, e)
        return UnavailableBackend(entry, f"the Python package {e.name or 'it needs'} is not installed")
    except BackendError as e:
        raise SettingsError(f"backend {entry.name!r}: {e}") from None
