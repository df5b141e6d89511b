"""The kind `langchain`: any LangChain chat model, by import path: `class = "package.module:ClassName"`."""

import logging
from typing import Any

from langchain_core.language_models import BaseChatModel

from backends.base import BackendError
from backends.chat_model import ChatModelBackend, ModelBuildError
from backends.import_path import ImportPathError, import_object, split_path
from backends.keys import Key
from runs.errors import ChatError
from settings import BackendSettings

logger = logging.getLogger(__name__)

_LONGEST_REPLY = ("max_tokens", "max_output_tokens", "max_new_tokens", "num_predict", "max_tokens_to_sample")
"""The classes' names for the max reply length."""


class LangChainBackend(ChatModelBackend):
    """An entry of the kind `langchain`. The class is imported in the background; a failure is its health's reason."""

    kind = "langchain"
    sends_images = True
    uses = frozenset({"class", "options", "key", "key_field", "thinking", "ignores", "images"})

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        self._path = split_path(settings.class_, "package.module:ClassName")
        if settings.key_field and not settings.key:
            raise BackendError("key_field: has no effect without `key`, the name of the variable that holds the key")

    def build(self) -> BaseChatModel:
        """Imports the class and creates the model."""
        module, name = self._path
        try:
            kind = import_object(module, name)
        except ImportPathError as e:
            raise ModelBuildError(str(e)) from e.__cause__
        if not (isinstance(kind, type) and issubclass(kind, BaseChatModel)):
            raise ModelBuildError(f"{name} is not a LangChain chat model")
        options = dict(self.settings.options)
        if self.key is not None:
            options[self._key_field(kind)] = self.key.reveal()
        try:
            model = kind(**options)
        except ImportError as e:
            raise ModelBuildError(f"{name} needs {_package(e)} that is not installed") from None
        except (Exception, SystemExit) as e:
            # a constructor may raise anything; its text may hold a key, so only the class is shown
            raise ModelBuildError(f"{name} did not accept its options ({type(e).__name__})") from None
        self._inspect(model)
        return model

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """Maps an exception; an unknown one counts as a failure of the class, which may raise anything."""
        if error := super().to_chat_error(exception):
            return error
        logger.error("backend %r failed", self.name, exc_info=exception)
        return ChatError("backend_unavailable", f"{self.name} failed ({type(exception).__name__}): try again.")

    def _model_name(self) -> str | None:
        """The model's name, if the options have it."""
        name = self.settings.options.get("model")
        return name if isinstance(name, str) else None

    def _key_field(self, kind: type[BaseChatModel]) -> str:
        """The constructor's argument for the key: `key_field`, or the field that `lc_secrets` maps to the variable."""
        field = self.settings.key_field or _secret_field(kind, str(self.settings.key))
        if field is None:
            raise ModelBuildError(
                f"{kind.__name__} does not say which field takes {self.settings.key}: name it in `key_field`"
            )
        for known, about in kind.model_fields.items():
            if field in (known, about.alias):
                return about.alias or known
        raise ModelBuildError(f"{kind.__name__} has no field {field!r}: name another in `key_field`")

    def _inspect(self, model: BaseChatModel) -> None:
        """Finds out which options the class has, and whether it accepts tools."""
        fields = type(model).model_fields
        self.max_tokens_field = next((name for name in _LONGEST_REPLY if name in fields), "")
        self.supports_tools = type(model).bind_tools is not BaseChatModel.bind_tools
        found = {
            "system_prompt",
            *({"max_tokens"} if self.max_tokens_field else ()),
            *({"temperature"} & fields.keys()),
        }
        self.supported_options = frozenset(found) - self.settings.ignored(self._model_name())


def _package(error: ImportError) -> str:
    """The missing package; classes raise their own error, whose cause names it."""
    causes = (error, error.__cause__, error.__context__)
    return next((e.name for e in causes if isinstance(e, ImportError) and e.name), "a package")


def _secret_field(kind: type[BaseChatModel], variable: str) -> str | None:
    """The field that `lc_secrets` maps to the variable; None if the class does not say.

    `lc_secrets` is a property of instances, so it is read from one without values.
    """
    try:
        secrets: dict[str, Any] = kind.model_construct().lc_secrets
    except Exception:
        return None
    found = [field for field, name in secrets.items() if name == variable]
    return next((field for field in found if field in kind.model_fields), found[0] if found else None)
