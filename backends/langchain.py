"""Any LangChain chat model, by import path: `class = "package.module:ClassName"` with `options`."""

import importlib
from typing import Any

from langchain_core.language_models import BaseChatModel

from backends.base import Backend, BackendError, Health, Options
from settings import BackendSettings


class LangChainBackend(Backend):
    """The class is imported and built when it is first needed; a failure disables the backend with its reason."""

    kind = "langchain"

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        module, colon, name = (settings.class_ or "").partition(":")
        if not (module and colon and name):
            found = settings.class_
            raise BackendError(f"class: found {found!r}, allowed: 'package.module:ClassName'")
        self._path = module, name
        self._model: BaseChatModel | None = None
        self._health = Health("ready")

    @property
    def health(self) -> Health:
        return self._health

    async def wait_ready(self) -> None:
        if self._model is None and self._health.state == "ready":
            self._build()
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
                self._model = model
            else:
                self._health = Health("unavailable", f"{name} is no LangChain chat model")
