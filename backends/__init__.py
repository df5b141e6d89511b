"""The registry: which kinds of backend there are, and the ones that the settings name.

A kind's module is imported when an entry names it, so that what nobody uses costs nothing and a missing package
disables one backend, with its reason, instead of stopping the start.
"""

import importlib
import logging
from collections.abc import Iterator

from langchain_core.language_models import BaseChatModel

from backends.base import Backend, BackendError, Health, Options
from runs.errors import ChatError
from settings import BackendSettings, SettingsError

__all__ = ["KINDS", "Backend", "BackendError", "Backends", "Health", "Options"]

logger = logging.getLogger(__name__)

KINDS: dict[str, str] = {
    "local": "backends.local:LocalBackend",
    "langchain": "backends.langchain:LangChainBackend",
    "scripted": "backends.scripted:ScriptedBackend",
}
"""Kind -> where its class is."""


class MissingBackend(Backend):
    """Stands for an entry whose package is not installed."""

    kind = "missing"

    def __init__(self, settings: BackendSettings, reason: str) -> None:
        super().__init__(settings)
        self._reason = reason

    @property
    def health(self) -> Health:
        return Health("unavailable", self._reason)

    def chat_model(self, options: Options) -> BaseChatModel:
        raise ChatError("backend_unavailable", f"{self.name} is not available: {self._reason}")


class Backends:
    """The configured backends, in their order; the first is the one chosen at the start."""

    def __init__(self, entries: list[BackendSettings]) -> None:
        """Raises SettingsError for an entry that its kind cannot use."""
        self._backends = {entry.name: _build(entry) for entry in entries}

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends.values())

    @property
    def first(self) -> Backend:
        return next(iter(self))

    def get(self, name: str) -> Backend:
        """Raises ChatError `not_found`, naming what there is."""
        try:
            return self._backends[name]
        except KeyError:
            names = ", ".join(repr(n) for n in self._backends)
            raise ChatError("not_found", f"There is no backend {name[:60]!r}; there are {names}.") from None

    async def open(self) -> None:
        for backend in self:
            await backend.open()

    async def close(self) -> None:
        for backend in self:
            await backend.close()


def _build(entry: BackendSettings) -> Backend:
    module, _, name = KINDS[entry.kind].partition(":")
    try:
        kind: type[Backend] = getattr(importlib.import_module(module), name)
        given = {field.removesuffix("_") for field in entry.model_fields_set} - {"name", "kind", "context"}
        if unused := given - kind.uses:
            allowed = ", ".join(sorted({"name", "kind", "context"} | kind.uses))
            raise BackendError(f"{', '.join(sorted(unused))}: not used by the kind {entry.kind!r}; allowed: {allowed}")
        backend: Backend = kind(entry)
        return backend
    except ImportError as e:
        logger.warning("backend %r is disabled: %s", entry.name, e)
        return MissingBackend(entry, f"the Python package {e.name or 'it needs'} is not installed")
    except BackendError as e:
        raise SettingsError(f"backend {entry.name!r}: {e}") from None
