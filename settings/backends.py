"""The `[[backends]]` entries."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from settings.validation import KEY_NAME, STRICT, is_address

_IGNORABLE = ("temperature", "max_tokens")
_MODELS, _MODEL_CHARACTERS = 200, 200
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""An environment variable in a value."""


class BackendSettings(BaseModel):
    """One `[[backends]]` entry. The kind itself rejects settings that it does not use."""

    model_config = STRICT

    name: Annotated[str, Field(min_length=1, max_length=60)]
    kind: Annotated[str, Field(min_length=1)]
    """A key of `backends.KINDS`, checked there."""
    model: str | None = None
    """local: "bundled", the path of a .gguf file, or hf:OWNER/REPO/FILE.gguf; gemini, openai: the provider's name.

    With `models`, the model that is used until a visitor chooses another one.
    """
    models: list[str] | Literal["*"] | None = None
    """gemini, openai: the models that visitors can choose; "*" means all chat models that the provider lists.

    `model = [...]` and `model = "*"` are short for it.
    """
    ignores: list[str] | dict[str, list[str]] = []
    """gemini, openai, langchain: the options that the model ignores. They are not sent, and the page shows this.

    A table lists them by model, where `*` matches any characters: `{ "family-3*" = ["temperature"] }`.
    """
    key: str | None = None
    """The name of the environment variable with the key; without it visitors can use their own keys."""
    key_field: str | None = None
    """langchain: the field of the class that takes the key, unless its `lc_secrets` names it."""
    base_url: str | None = None
    """gemini, openai: the address of the provider's server. agui: that of the agent, which `url` means, too."""
    class_: Annotated[str | None, Field(alias="class")] = None
    """langchain: `package.module:ClassName` of a BaseChatModel.

    agent: `package.module:name` of a graph, a Runnable, or a function that returns one.
    """
    options: dict[str, Any] = {}
    """gemini, openai, langchain: further keyword arguments of the class. agent: those of the function.

    agui: the `forwardedProps` of each request.
    """
    input: str | None = None
    """agent: the form of its input: "messages", "text", or the name of the field for the visitor's message."""
    tokens_from: list[str] = []
    """agent: the nodes whose text is the reply; by default those after which the graph can end."""
    memory: Literal["own"] | None = None
    """agent, agui: "own" if it remembers the conversation itself; then it is given only the visitor's message."""
    headers: Annotated[dict[str, str], Field(repr=False)] = {}
    """openai, agui: HTTP headers of every request. `${NAME}` in a value is replaced by the environment variable NAME.

    agui: a value may also be the name of a variable. It is never the secret.
    """
    query: Annotated[dict[str, str], Field(repr=False)] = {}
    """openai: query parameters of every request, with variables as in `headers`."""
    extra_body: dict[str, Any] = {}
    """openai: further fields of the request's body."""
    fields: dict[str, str | Literal[False]] = {}
    """openai: other names for fields of the request's body; false omits a field."""
    system_role: Literal["system", "developer", "user"] | None = None
    """openai: the role of the system prompt; "user" prepends it to the first message."""
    context: Annotated[int, Field(ge=256)] | None = None
    """The most tokens that prompt and reply can have together."""
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    """local: concurrent replies."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """local: threads of the model, at most one for each logical processor; default: half as many."""
    tools: bool | None = None
    """Whether the model can call tools; the default depends on the kind."""
    images: bool | None = None
    """gemini, openai, langchain: whether the model takes images; by default what its provider says, else true."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Idle timeout of the provider's response, in seconds; the default depends on the kind."""
    thinking: Literal["open", "switch"] | None = None
    """openai, local, langchain: "open" if the model's template opens the thinking, so that replies contain only the
    closing tag `</think>`. Otherwise this is detected in the first such reply.

    openai: "switch" if the template knows `enable_thinking`, so that visitors can switch the thinking off. A
    llama-server says so by itself.
    """
    price: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=3)] | None = None
    """US dollars for a million input and output tokens, and for cached input; only for display."""
    about: Annotated[str, Field(max_length=300)] | None = None
    """A sentence for the page about this backend."""
    preload: bool | None = None
    """local: whether the model is downloaded and loaded at the start, not when it is first wanted.

    The default is true for the first entry, and for a file of this machine.
    """
    fallback: str | None = None
    """The backend that replies if this one fails before its first token."""

    @model_validator(mode="before")
    @classmethod
    def _expand_model(cls, entry: Any) -> Any:
        """Turns `model = [...]` and `model = "*"` into `models`."""
        model = entry.get("model") if isinstance(entry, dict) and "models" not in entry else None
        if model == "*" or isinstance(model, list):
            return {name: value for name, value in entry.items() if name != "model"} | {"models": model}
        return entry

    @model_validator(mode="before")
    @classmethod
    def _rename_url(cls, entry: Any) -> Any:
        """Turns the `url` of an agent into `base_url`."""
        if not (isinstance(entry, dict) and entry.get("kind") == "agui" and "url" in entry):
            return entry
        if "base_url" in entry:
            raise ValueError("url: found beside `base_url`, which means the same; remove one of them")
        return {name: value for name, value in entry.items() if name != "url"} | {"base_url": entry["url"]}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise ValueError("a name has no control characters and no blanks around it")
        return name

    @field_validator("models", mode="before")
    @classmethod
    def _check_models(cls, models: Any) -> Any:
        if models == "*":
            return models
        if not isinstance(models, list) or not 1 <= len(models) <= _MODELS or not all(map(_is_model_name, models)):
            raise ValueError(f'found {models!r}, allowed: "*", or a list of 1 to {_MODELS} names of models')
        if twice := next((name for name in models if models.count(name) > 1), None):
            raise ValueError(f"{twice!r} is listed twice")
        return models

    @model_validator(mode="after")
    def _check_default_model(self) -> Self:
        if isinstance(self.models, list) and self.model is not None and self.model not in self.models:
            names = ", ".join(map(repr, self.models))
            raise ValueError(f"model: found {self.model!r}, allowed: one of `models`, {names}")
        return self

    @field_validator("ignores", mode="before")
    @classmethod
    def _check_ignores(cls, ignores: Any) -> Any:
        lists = list(ignores.values()) if isinstance(ignores, dict) else [ignores]
        if not all(isinstance(names, list) and all(name in _IGNORABLE for name in names) for names in lists):
            options = " or ".join(f'["{name}"]' for name in _IGNORABLE)
            table = '{ "family-3*" = ["temperature"] }'
            raise ValueError(f"found {ignores!r}, allowed: {options}, or a table such as {table}")
        return ignores

    @field_validator("key", mode="before")
    @classmethod
    def _check_key(cls, name: Any) -> Any:
        if not isinstance(name, str) or not KEY_NAME.fullmatch(name):
            raise ValueError('this is the name of an environment variable, such as "OPENAI_API_KEY", never the key')
        return name

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str, info: ValidationInfo) -> str:
        if not is_address(url):  # the value is not repeated: it could contain a password
            raise ValueError("not a valid address; allowed: http://HOST… or https://HOST…, without name and password")
        return url if info.data.get("kind") == "agui" else url.rstrip("/")  # `/agent/` and `/agent` differ

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for name, value in headers.items():
            if info.data.get("kind") == "agui" and not _VARIABLE.search(value):
                if not KEY_NAME.fullmatch(value):  # the value is not repeated: it could be a secret
                    raise ValueError(f"{name}: name an environment variable, as AGENT_TOKEN or ${{AGENT_TOKEN}}")
                headers = {**headers, name: f"${{{value}}}"}
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise ValueError(f"found the name {name!r}, allowed: letters, digits and hyphens")
            if not (value.isascii() and value.isprintable()):  # the value is not repeated: it could be a secret
                raise ValueError(f"the value of {name!r} has characters that no header can have")
        return headers

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if fixed := fields.keys() & {"model", "messages", "stream"}:
            raise ValueError(f"{min(fixed)!r} is in every request; allowed: any other field")
        for name, new in fields.items():
            if new is not False and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", new):
                raise ValueError(f"{name}: found {new!r}, allowed: another name for the field, or false")
        return fields

    @property
    def default_model(self) -> str | None:
        """The model that is used if no other is chosen; None for the first one that the provider lists."""
        return self.model or (self.models[0] if isinstance(self.models, list) else None)

    def ignored(self, model: str | None) -> frozenset[str]:
        """Returns the options that a model ignores."""
        if isinstance(self.ignores, list):
            return frozenset(self.ignores)
        name = (model or "").removeprefix("models/")
        return frozenset(o for pattern, names in self.ignores.items() if fnmatchcase(name, pattern) for o in names)

    @property
    def key_name(self) -> str | None:
        """The variable with the key, or the provider's usual one; None if no key is needed."""
        if self.key or self.kind not in ("gemini", "openai"):
            return self.key
        if self.kind == "gemini":
            return "GOOGLE_API_KEY"
        return None if self.base_url else "OPENAI_API_KEY"

    @property
    def variables(self) -> list[str]:
        """The environment variables in `headers` and `query`."""
        values = (*self.headers.values(), *self.query.values())
        return list(dict.fromkeys(name for value in values for name in _VARIABLE.findall(value)))

    def resolved(self, variables: Mapping[str, str]) -> "BackendSettings":
        """Returns a copy with the variables of `headers` and `query` replaced. Raises KeyError for a missing one."""

        def replaced(values: Mapping[str, str]) -> dict[str, str]:
            return {name: _VARIABLE.sub(lambda found: variables[found[1]], value) for name, value in values.items()}

        return self.model_copy(update={"headers": replaced(self.headers), "query": replaced(self.query)})


def check_backends(backends: Sequence[BackendSettings]) -> None:
    """Checks the entries together. Raises ValueError for a repeated name and for a bad chain of fallbacks."""
    if not backends:
        raise ValueError("there must be at least one [[backends]] entry")
    by_name: dict[str, BackendSettings] = {}
    for backend in backends:
        if backend.name in by_name:
            raise ValueError(f"the name {backend.name!r} is used twice; each backend needs its own")
        by_name[backend.name] = backend
    for backend in backends:
        _check_fallbacks(backend, by_name)


def _check_fallbacks(backend: BackendSettings, by_name: Mapping[str, BackendSettings]) -> None:
    """Raises ValueError for a chain of fallbacks with a missing backend or a cycle."""
    passed, at = [backend.name], backend
    while at.fallback is not None:
        if at.fallback not in by_name:
            names = ", ".join(repr(name) for name in by_name if name != at.name)
            raise ValueError(f"fallback of {at.name!r}: found {at.fallback!r}, allowed: {names or 'no other backend'}")
        if at.fallback in passed:
            raise ValueError(f"fallback of {at.name!r}: {at.fallback!r} leads back to it")
        at = by_name[at.fallback]
        passed.append(at.name)


def _is_model_name(name: Any) -> bool:
    """Checks whether a value is one line of text without blanks around it."""
    return isinstance(name, str) and name.isprintable() and name == name.strip() and 0 < len(name) <= _MODEL_CHARACTERS
