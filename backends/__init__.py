"""The registry of backends: the known kinds, and the entries of the settings.

A kind's module is imported when an entry names it. A missing package disables that backend; the app still starts.
"""

import difflib
import importlib
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from backends.base import OPTION_NAMES, Backend, BackendError, Health, ModelChoice, ModelOptions
from backends.free_memory import free_memory
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
    "agent": "backends.agent:AgentBackend",
    "agui": "backends.agui:AguiBackend",
}
"""The import path of each kind's class."""

_EVERY_KIND = frozenset({"name", "kind", "context", "timeout", "fallback", "price", "tools", "about"})
"""The settings that every kind accepts."""


class UnavailableBackend(Backend):
    """A placeholder for an entry whose package is not installed."""

    kind = "missing"

    def __init__(self, settings: BackendSettings, reason: str) -> None:
        super().__init__(settings)
        self._reason = reason

    def health(self) -> Health:
        """Returns `unavailable` with the reason."""
        return Health("unavailable", self._reason)

    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Raises ChatError `backend_unavailable`."""
        raise ChatError("backend_unavailable", f"{self.name} is not available: {self._reason}")


class Backends:
    """The configured backends, in the order of the settings."""

    def __init__(
        self, entries: list[BackendSettings], keys: Mapping[str, SecretStr] | None = None, *, downloads: bool = True
    ) -> None:
        """`keys` are the operator's secrets, by environment variable. Raises SettingsError for an unusable entry.

        `downloads` says whether visitors may download models.
        """
        self._secrets = {name: Key(secret.get_secret_value()) for name, secret in (keys or {}).items()}
        """The operator's keys and the values in `headers` and `query`, as keys so that the log redacts them."""
        self._backends = {entry.name: _build(entry, self._secrets) for entry in entries}
        self.keys = VisitorKeys()
        self._downloads = downloads
        self.default.is_default = True
        for backend in self:
            backend.make_room = partial(self._make_room, backend)
            backend.machine_idle = self._machine_idle

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends.values())

    @property
    def default(self) -> Backend:
        """The first backend, which is selected where a visitor has not chosen one."""
        return next(iter(self))

    def get(self, name: str) -> Backend:
        """Returns a backend by name. Raises ChatError `not_found`, which lists the names."""
        try:
            return self._backends[name]
        except KeyError:
            names = ", ".join(repr(n) for n in self._backends)
            raise ChatError("not_found", f"There is no backend {name[:60]!r}; there are {names}.") from None

    def bind(self, name: str, visitor: str | None) -> Backend:
        """Returns a backend with the visitor's own key, or the operator's. Raises ChatError `not_found`."""
        backend = self.get(name)
        return backend.bind(self.keys.get(visitor, name) or backend.key)

    def health(self, name: str, visitor: str | None) -> Health:
        """Returns a backend's last known health for a visitor, and refreshes it in the background if it is old."""
        backend = self.bind(name, visitor)
        backend.refresh_health()
        return backend.health()

    def describe(self, visitor: str | None) -> list[dict[str, Any]]:
        """Returns the items of `GET /backends`: each backend as this visitor sees it."""
        return [self._describe(name, visitor) for name in self._backends]

    def _describe(self, name: str, visitor: str | None) -> dict[str, Any]:
        backend, health = self.bind(name, visitor), self.health(name, visitor)
        used = backend.with_model(None)
        return {
            "name": backend.name,
            "kind": backend.kind,
            "ready": health.ready,
            "state": health.state,
            "reason": health.reason or None,
            "progress": health.progress,
            "until": health.until,
            "ttft_s": backend.ttft_s,
            "key": _key_owner(backend.key) if backend.settings.key_name else None,
            "takes": [name for name in OPTION_NAMES if name in used.supported_options],
            "tools": used.offers_tools,
            "fallback": backend.settings.fallback,
            "model": used.model,
            "models": [_describe_model(choice, backend.settings.images) for choice in backend.model_choices()],
            "context": used.context,
            "thinking": used.model_info.thinking,
            "images": used.images,
            "continues_replies": backend.continues_replies,
            "about": backend.about,
            "download_bytes": backend.download_bytes if health.state == "not_downloaded" else None,
            "can_download": self._downloads and health.state == "not_downloaded",
            "prompts": backend.prompts,
        }

    def with_fallbacks(self, name: str, model: str | None, visitor: str | None) -> list[Backend]:
        """Returns a bound backend with the chosen model, followed by its fallbacks with their default models."""
        found = [self.bind(name, visitor).with_model(model)]
        while fallback := found[-1].settings.fallback:
            found.append(self.bind(fallback, visitor).with_model(None))
        return found

    def download(self, name: str) -> None:
        """Begins the download of a backend's model. Raises ChatError."""
        backend = self.get(name)
        if not self._downloads and backend.health().state == "not_downloaded":
            message = f"{backend.name} is not downloaded, and only the operator can download it."
            raise ChatError("backend_unavailable", message)
        backend.download()

    def _machine_idle(self) -> bool:
        return all(backend.slots.idle for backend in self if backend.is_local)

    def _make_room(self, wanted: Backend, needed: int) -> int | None:
        """Unloads idle models, the default one last, until so many bytes are free.

        Returns the free bytes then, None where they are not known.
        """
        free = free_memory()
        for other in reversed([backend for backend in self if backend is not wanted]):
            if free is None or free >= needed:
                break
            other.unload()
            free = free_memory()
        return free

    async def open(self) -> None:
        """Opens all backends."""
        for backend in self:
            await backend.open()

    async def close(self) -> None:
        """Closes all backends."""
        for backend in self:
            await backend.close()


def _describe_model(choice: ModelChoice, images: bool | None) -> dict[str, Any]:
    return {
        "name": choice.model_info.name,
        "ready": not choice.problem,
        "reason": choice.problem or None,
        "context": choice.context,
        "takes": [name for name in OPTION_NAMES if name in choice.supported_options],
        "thinking": choice.model_info.thinking,
        "images": choice.model_info.images if images is None else images,
    }


def _key_owner(key: Key | None) -> str:
    return "missing" if key is None else "yours" if key.from_visitor else "everybody's"


def _resolved(entry: BackendSettings, secrets: Mapping[str, Key]) -> BackendSettings:
    """The entry with its environment variables replaced by their values. Raises SettingsError."""
    try:
        return entry.resolved({name: secrets[name].reveal() for name in entry.variables})
    except KeyError as e:
        raise SettingsError(f"backend {entry.name!r}: headers, query: the variable {e} is not set; set it") from None


def _build(entry: BackendSettings, secrets: Mapping[str, Key]) -> Backend:
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
        if entry.thinking == "switch" and entry.kind != "openai":
            raise BackendError("thinking: found 'switch', allowed for this kind: 'open'")
        backend: Backend = kind(_resolved(entry, secrets), secrets.get(entry.key_name or ""))
        return backend
    except ImportError as e:
        logger.warning("backend %r is disabled: %s", entry.name, e)
        return UnavailableBackend(entry, f"the Python package {e.name or 'it needs'} is not installed")
    except BackendError as e:
        raise SettingsError(f"backend {entry.name!r}: {e}") from None
