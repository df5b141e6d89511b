"""Any LangChain chat model, by import path: `class = "package.module:ClassName"` with `options`."""

import asyncio
import importlib
from typing import Any

from langchain_core.language_models import BaseChatModel

from backends.base import Backend, BackendError, Health, Options
from settings import BackendSettings


class LangChainBackend(Backend):
    """The class is imported and built in the background; a failure disables the backend with its reason."""

    kind = "langchain"
    uses = frozenset({"class", "options"})

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        module, colon, name = (settings.class_ or "").partition(":")
        if not (module and colon and name):
            found = settings.class_
            raise BackendError(f"class: found {found!r}, allowed: 'package.module:ClassName'")
        self._path = module, name
        self._model: BaseChatModel | None = None
        self._health = Health("loading", "it has not started to load")
        self._loading: asyncio.Task[None] | None = None

    @property
    def health(self) -> Health:
        return self._health

    async def open(self) -> None:
        self._loading = asyncio.create_task(asyncio.to_thread(self._build), name=f"load {self.name}")

    async def close(self) -> None:
        if self._loading:
            await asyncio.wait({self._loading})

    async def wait_ready(self) -> None:
        if self._loading is None:
            await self.open()
        if self._loading:
            await asyncio.shield(self._loading)
        await super().wait_ready()

    def chat_model(self, options: Options) -> BaseChatModel:
        assert self._model is not None
        fields = type(self._model).model_fields
        wanted: dict[str, Any] = {"max_tokens": options.max_tokens, "temperature": options.temperature}
        return self._model.model_copy(update={k: v for k, v in wanted.items() if k in fields and v is not None})

    def _build(self) -> None:
        module, name = self._path
        try:
            kind = getattr(importlib.import_module(module), name)
            model = kind(**self.settings.options)
        except ImportError as e:
            self._health = Health("unavailable", f"{e.name or module} cannot be imported: is it installed?")
        except AttributeError:
            self._health = Health("unavailable", f"there is no {name!r} in {module}")
        except Exception as e:  # a constructor may raise anything; its text may hold a key, so only its kind is told
            self._health = Health("unavailable", f"{name} did not accept its options ({type(e).__name__})")
        else:
            if isinstance(model, BaseChatModel):
                self._model, self._health = model, Health("ready")
            else:
                self._health = Health("unavailable", f"{name} is no LangChain chat model")
