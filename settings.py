"""The settings: one frozen value, read once at the start and passed on as an argument.

An argument beats a `GLASSBOX_*` variable beats `glassbox.toml` beats the default. No other module reads the
environment. A wrong setting is a `SettingsError` that names file, line or key, what was found and what is allowed.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

MemoryMode = Literal["none", "full", "window", "tokens", "summary", "recall"]
_IGNORABLE = ("temperature", "max_tokens")
_MODELS, _MODEL_CHARACTERS = 200, 200

_FILE = "glassbox.toml"
_LOOPBACK = ["127.0.0.1", "::1"]
ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9_.~-]+)*")
"""A path prefix: without a final slash, and without what would have to be encoded."""
_PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable of the environment within a value."""
_UNSHOWN = {"headers", "query"}
"""Settings of a backend that may hold secrets: what was found there is not repeated."""

T = TypeVar("T", bound=BaseModel)


class SettingsError(Exception):
    """The message is for the person who starts the app."""


def _is_model_name(name: Any) -> bool:
    """Whether it is one line of text without blanks around it."""
    return isinstance(name, str) and name.isprintable() and name == name.strip() and 0 < len(name) <= _MODEL_CHARACTERS


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BackendSettings(_Section):
    """One `[[backends]]` entry. What a kind does not use it must not be given; the kind itself checks that."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    kind: Annotated[str, Field(min_length=1)]
    """One of `backends.KINDS`, which is checked there."""
    model: str | None = None
    """local: "bundled", the path of a .gguf file, or hf:OWNER/REPO/FILE.gguf; gemini, openai: the provider's name.

    With `models`, the default: the model that is used until a visitor chooses another one.
    """
    models: list[str] | Literal["*"] | None = None
    """gemini, openai: the models that a visitor may choose among; "*" stands for all chat models that the provider
    lists. `model = [...]` and `model = "*"` are short for it.
    """
    ignores: list[str] | dict[str, list[str]] = []
    """gemini, openai, langchain: the options that the model ignores. They are not sent, and the page says so. A table
    names them by model: `{ "family-3*" = ["temperature"] }`, where `*` stands for any characters.
    """
    key: str | None = None
    """The name of the environment variable that holds the key; without it visitors may bring their own."""
    key_field: str | None = None
    """langchain: the class's field that takes the key, where its `lc_secrets` does not say so."""
    base_url: str | None = None
    """gemini, openai: where the provider's server is."""
    class_: Annotated[str | None, Field(alias="class")] = None
    """langchain: `package.module:ClassName` of a BaseChatModel."""
    options: dict[str, Any] = {}
    """gemini, openai, langchain: further keyword arguments of the class."""
    headers: Annotated[dict[str, str], Field(repr=False)] = {}
    """openai: HTTP headers of every request. `${NAME}` in a value stands for the environment variable NAME."""
    query: Annotated[dict[str, str], Field(repr=False)] = {}
    """openai: query parameters of every request, with variables as in `headers`."""
    extra_body: dict[str, Any] = {}
    """openai: further fields of the request's body."""
    fields: dict[str, str | Literal[False]] = {}
    """openai: another name for a field of the request's body, or false to leave it out."""
    system_role: Literal["system", "developer", "user"] | None = None
    """openai: the role of the system prompt; "user" puts it in front of the first message."""
    context: Annotated[int, Field(ge=256)] | None = None
    """The most tokens that prompt and reply may have together."""
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    """local: how many replies are written at once."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """local: threads of the model, at most one for each logical processor; default: half as many."""
    tools: bool | None = None
    """Whether the model chooses tools; by default the kind knows."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds without a single byte from the provider, until the reply fails; the kind has a default."""
    thinking: Literal["open"] | None = None
    """openai, local, langchain: "open" if the model's template opens the thinking itself, so that its replies have only
    the closing tag `</think>`; it is learned from the first such reply.
    """
    price: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)] | None = None
    """US dollars for a million tokens, read and written; only to be shown."""
    fallback: str | None = None
    """The backend that answers instead where this one fails before its first token."""

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, entry: Any) -> Any:
        """`model = [...]` and `model = "*"` as `models`."""
        model = entry.get("model") if isinstance(entry, dict) and "models" not in entry else None
        if model == "*" or isinstance(model, list):
            return {name: value for name, value in entry.items() if name != "model"} | {"models": model}
        return entry

    @field_validator("models", mode="before")
    @classmethod
    def _listed_once(cls, models: Any) -> Any:
        if models == "*":
            return models
        if not isinstance(models, list) or not 1 <= len(models) <= _MODELS or not all(map(_is_model_name, models)):
            raise ValueError(f'found {models!r}, allowed: "*", or a list of 1 to {_MODELS} names of models')
        if twice := next((name for name in models if models.count(name) > 1), None):
            raise ValueError(f"{twice!r} is listed twice")
        return models

    @field_validator("ignores", mode="before")
    @classmethod
    def _options(cls, ignores: Any) -> Any:
        lists = list(ignores.values()) if isinstance(ignores, dict) else [ignores]
        if not all(isinstance(names, list) and all(name in _IGNORABLE for name in names) for names in lists):
            options = " or ".join(f'["{name}"]' for name in _IGNORABLE)
            table = '{ "family-3*" = ["temperature"] }'
            raise ValueError(f"found {ignores!r}, allowed: {options}, or a table such as {table}")
        return ignores

    @model_validator(mode="after")
    def _default_is_listed(self) -> Self:
        if isinstance(self.models, list) and self.model is not None and self.model not in self.models:
            names = ", ".join(map(repr, self.models))
            raise ValueError(f"model: found {self.model!r}, allowed: one of `models`, {names}")
        return self

    @property
    def default_model(self) -> str | None:
        """The model that is used where no other is chosen; None for the first one that the provider lists."""
        return self.model or (self.models[0] if isinstance(self.models, list) else None)

    def ignored(self, model: str | None) -> frozenset[str]:
        """The options that a model ignores."""
        if isinstance(self.ignores, list):
            return frozenset(self.ignores)
        name = (model or "").removeprefix("models/")
        return frozenset(o for pattern, names in self.ignores.items() if fnmatchcase(name, pattern) for o in names)

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise ValueError("a name has no control characters and no blanks around it")
        return name

    @property
    def key_name(self) -> str | None:
        """The variable that holds the key, also where the entry names none; None where no key is needed."""
        if self.key or self.kind not in ("gemini", "openai"):
            return self.key
        if self.kind == "gemini":
            return "GOOGLE_API_KEY"
        return None if self.base_url else "OPENAI_API_KEY"

    @property
    def variables(self) -> list[str]:
        """The environment variables that `headers` and `query` name."""
        values = (*self.headers.values(), *self.query.values())
        return list(dict.fromkeys(name for value in values for name in _VARIABLE.findall(value)))

    def resolved(self, variables: Mapping[str, str]) -> "BackendSettings":
        """A copy in which `headers` and `query` hold the variables' values. Raises KeyError for a missing one."""

        def filled(values: Mapping[str, str]) -> dict[str, str]:
            return {name: _VARIABLE.sub(lambda found: variables[found[1]], value) for name, value in values.items()}

        return self.model_copy(update={"headers": filled(self.headers), "query": filled(self.query)})

    @field_validator("headers")
    @classmethod
    def _sound_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise ValueError(f"found the name {name!r}, allowed: letters, digits and hyphens")
            if not (value.isascii() and value.isprintable()):  # which is not repeated: it may be a secret
                raise ValueError(f"the value of {name!r} has characters that no header can have")
        return headers

    @field_validator("fields")
    @classmethod
    def _sound_fields(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if fixed := fields.keys() & {"model", "messages", "stream"}:
            raise ValueError(f"{min(fixed)!r} is in every request; allowed: any other field")
        for name, new in fields.items():
            if new is not False and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", new):
                raise ValueError(f"{name}: found {new!r}, allowed: another name for the field, or false")
        return fields

    @field_validator("key", mode="before")
    @classmethod
    def _no_key_itself(cls, name: Any) -> Any:
        if not isinstance(name, str) or not re.fullmatch(r"(?=.{1,19}$|.*_)[A-Z_][A-Z0-9_]*", name):
            raise ValueError('this is the name of an environment variable, such as "OPENAI_API_KEY", never the key')
        return name

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or True)
            sound = sound and "@" not in parts.netloc and not re.search(r"\s", url)
        except ValueError:
            sound = False
        if not sound:  # which is not repeated: there may be a password in it
            raise ValueError("this is no address; allowed: http://HOST… or https://HOST…, without name and password")
        return url.rstrip("/")


class MemorySettings(_Section):
    """`[memory]`."""

    default: MemoryMode = "tokens"
    window_turns: Annotated[int, Field(ge=1, le=1000)] = 4
    """window, summary, recall: the latest turns that are kept whole."""
    token_limit: Annotated[int, Field(ge=64, le=10_000_000)] = 2000
    """tokens: the most tokens that are given in all, where the context does not set less."""
    summary_tokens: Annotated[int, Field(ge=32, le=4000)] = 200
    """summary: its longest."""
    recall_turns: Annotated[int, Field(ge=1, le=100)] = 3
    """recall: the most older turns that are given."""
    retention_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Conversations that nobody has gone on with for so long are deleted, and documents of visitors who have not used
    theirs; 0 keeps all.
    """
    mirror: str | None = None
    """`package.module:ClassName` of a LangChain message history that each finished turn is written into as well."""
    mirror_options: dict[str, Any] = {}
    """Its keyword arguments; {conversation_id} in them is replaced."""


def parameter_range(name: str) -> tuple[int, int]:
    """The least and the most that a memory mode's parameter can be."""
    bounds = MemorySettings.model_fields[name].metadata
    least, most = (next(getattr(one, end) for one in bounds if hasattr(one, end)) for end in ("ge", "le"))
    return least, most


class ToolSettings(_Section):
    """`[tools]`."""

    enabled: list[str] = ["calculator", "clock", "search", "count"]
    """Names of `agent.tools.TOOLS`, or `package.module:name` of any LangChain tool; checked there."""
    approval: list[str] = []
    """Those of them that wait for the visitor's approval."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """The longest that one call may take, waiting for an approval not counted."""
    result_characters: Annotated[int, Field(ge=100)] = 6000
    """The most of a result that a model is given."""
    rounds: Annotated[int, Field(ge=1, le=50)] = 8
    """How often in one reply a model may be given results and call again."""


_Limit = Annotated[int | None, Field(ge=0)]
PUBLIC_LIMITS = {
    "runs_per_visitor": 3,
    "messages_per_minute": 10,
    "messages_per_day": 200,
    "previews_per_minute": 60,
    "conversations_per_visitor": 200,
    "connections_per_address": 200,
    "document_bytes_per_day": 20_000_000,
    "document_characters_per_visitor": 5_000_000,
}
"""The limits of a page that strangers come to, where the settings do not say: by `--share` or on a Space."""


class LimitSettings(_Section):
    """`[limits]`. Where None is the default there is no limit, but for strangers; 0 is none for anybody."""

    message_characters: Annotated[int, Field(ge=1)] = 32_000
    reply_tokens: Annotated[int, Field(ge=1)] = 1024
    summary_calls: Annotated[int, Field(ge=1, le=100)] = 4
    """Memory mode `summary`: model calls after one turn."""
    summary_input_tokens: Annotated[int, Field(ge=500)] = 20_000
    """Memory mode `summary`: tokens that these calls read together."""
    run_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    stall_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    abandoned_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    runs: Annotated[int, Field(ge=1)] = 64
    """Replies that are written at once, all visitors together."""
    waiting: Annotated[int, Field(ge=0)] = 100
    """Replies that may wait in line for that, with their place told."""
    runs_per_visitor: _Limit = None
    messages_per_minute: _Limit = None
    """Messages that one visitor may send in a minute."""
    messages_per_day: _Limit = None
    """Messages that one visitor may send in a day. Those with a visitor's own key are not counted."""
    previews_per_minute: _Limit = None
    """Requests of one visitor for what a memory mode would give the model; no model is asked."""
    refused_keys_per_minute: Annotated[int, Field(ge=1)] = 10
    """Keys that a provider refuses, of one visitor or from one address, until no further one is tried."""
    visitors_per_address: Annotated[int, Field(ge=1)] = 4
    """What all visitors of one address may do together: as much as so many of them."""
    conversations_per_visitor: _Limit = None
    connections_per_address: _Limit = None
    """Open at once: requests, event streams and WebSockets. A page has two."""
    body_bytes: Annotated[int, Field(ge=1024)] = 4_000_000
    import_bytes: Annotated[int, Field(ge=1024)] = 32_000_000
    """Largest file of conversations that can be imported, in bytes; a ZIP file may unpack to as much."""
    document_bytes: Annotated[int, Field(ge=1024)] = 5_000_000
    """Largest document that a visitor can add for the tool `search`, in bytes."""
    document_bytes_per_day: _Limit = None
    """Bytes of all documents that one visitor may add in a day."""
    document_characters_per_visitor: _Limit = None
    """Characters of text of all documents that are kept for a visitor. With it, an address has `visitors_per_address`
    times as many, and as many times the documents of a visitor.
    """

    def with_public_limits(self) -> "LimitSettings":
        """With a number for every limit that is not set."""
        unset = {name: most for name, most in PUBLIC_LIMITS.items() if getattr(self, name) is None}
        return self.model_copy(update=unset)


class TracingSettings(_Section):
    """`[tracing]`."""

    langsmith: bool = False
    """Whether all messages and replies are sent to LangSmith; the page then says so. Variables that turn tracing on
    have no effect by themselves.
    """


class FileSettings(_Section):
    """The whole of `glassbox.toml`."""

    system_prompt: str = "You are a helpful assistant."
    allowed_origins: list[str] = []
    """Other sites whose pages may use our routes, as https://HOST; without cookies."""
    allowed_hosts: list[str] = []
    """Names under which browsers reach this server, besides those that it knows: that of a reverse proxy."""
    trusted_proxies: list[str] | None = None
    """Addresses or networks of reverse proxies, whose `X-Forwarded-*` headers count."""
    root_path: str = ""
    """The path prefix below which a reverse proxy serves the app, as /demo; or the whole address of the page."""
    backends: list[BackendSettings] = [
        BackendSettings(name="SmolLM2 135M", kind="local", model="bundled"),
        BackendSettings(name="Scripted tour", kind="scripted"),
    ]
    memory: MemorySettings = MemorySettings()
    tools: ToolSettings = ToolSettings()
    limits: LimitSettings = LimitSettings()
    tracing: TracingSettings = TracingSettings()

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", origin):
                raise ValueError(f"found {origin!r}, allowed: https://HOST or https://HOST:PORT, in small letters")
        return origins

    @model_validator(mode="before")
    @classmethod
    def _address_of_the_page(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A `root_path` that is a whole address names the host too."""
        if not re.match(r"https?://", str(values.get("root_path", ""))):
            return values
        try:
            parts = urlsplit(values["root_path"])
            allowed = [*values.get("allowed_hosts", []), parts.hostname]
        except (ValueError, TypeError):  # what is wrong the fields say
            return values
        return {**values, "root_path": parts.path, "allowed_hosts": allowed}

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, names: list[str]) -> list[str]:
        return [_host_name(name) for name in names]

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, path: str) -> str:
        prefix = "/" + path.strip().strip("/")
        if prefix == "/":
            return ""
        if not ROOT_PATH.fullmatch(prefix):
            raise ValueError(f"found {path!r}, allowed: a path of plain letters such as '/demo', or the page's address")
        return prefix

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, networks: list[str] | None) -> list[str] | None:
        for network in networks or []:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"found {network!r}, allowed: addresses and networks, as 10.0.0.0/8") from None
        return networks

    @field_validator("backends")
    @classmethod
    def _named_once(cls, backends: list[BackendSettings]) -> list[BackendSettings]:
        if not backends:
            raise ValueError("there must be at least one [[backends]] entry")
        seen: set[str] = set()
        for backend in backends:
            if backend.name in seen:
                raise ValueError(f"the name {backend.name!r} is used twice; each backend needs its own")
            seen.add(backend.name)
        for backend in backends:
            _check_fallback(backend, {b.name: b for b in backends})
        return backends


def _host_name(text: str) -> str:
    """A host's name as browsers send it. Raises ValueError for what is more or less than one."""
    name = text.strip().strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        name = name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not re.fullmatch(r"(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        allowed = "allowed: the name of a host, such as 'chat.example.org', without scheme, port, path and wildcard"
        raise ValueError(f"found {text!r}, {allowed}")
    return name


def _check_fallback(backend: BackendSettings, named: Mapping[str, BackendSettings]) -> None:
    """Raises ValueError for a chain of fallbacks that leads nowhere, or back."""
    passed, at = [backend.name], backend
    while at.fallback is not None:
        if at.fallback not in named:
            names = ", ".join(repr(name) for name in named if name != at.name)
            raise ValueError(f"fallback of {at.name!r}: found {at.fallback!r}, allowed: {names or 'no other backend'}")
        if at.fallback in passed:
            raise ValueError(f"fallback of {at.name!r}: {at.fallback!r} leads back to it")
        at = named[at.fallback]
        passed.append(at.name)


class Settings(FileSettings):
    """Everything that can be set."""

    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    share: bool = False
    auth: tuple[str, str] | None = None
    data: Path = Path("data")
    database_url: str = ""
    secret: str | None = None
    on_space: bool = False
    space_host: str | None = None
    sign_in: bool = False
    """Whether the Space lets visitors sign in with Hugging Face."""
    metrics_token: SecretStr | None = None
    log: Literal["text", "json"] = "text"
    log_messages: bool = False

    @property
    def proxies(self) -> list[str]:
        """Whose `X-Forwarded-*` headers count: by default nobody's, on a Space those of its own proxy."""
        if self.trusted_proxies is not None:
            return self.trusted_proxies
        return [*_LOOPBACK, *_PRIVATE] if self.on_space else []

    keys: dict[str, SecretStr] = {}
    """The keys that the operator gave, by the name of their variable."""


def load_settings(arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads everything. `arguments` holds what the command line named, None for what it did not.

    Raises SettingsError.
    """
    named = arguments.get("config") or environ.get("GLASSBOX_CONFIG")
    path = Path(named or Path(__file__).parent / _FILE)
    values = _read(path, must_exist=bool(named))
    port = arguments.get("port")
    if port is None and (found := environ.get("GRADIO_SERVER_PORT")):
        port = int(found) if re.fullmatch(r"[0-9]{1,5}", found) else 0
        if not 1 <= port <= 65535:
            raise SettingsError(f"GRADIO_SERVER_PORT: found {found!r}, allowed: a number from 1 to 65535")
    on_space = bool(environ.get("SPACE_ID"))
    data = _folder(environ["GLASSBOX_DATA"]) if environ.get("GLASSBOX_DATA") else _default_data(on_space)
    if model := environ.get("GLASSBOX_LOCAL_MODEL"):
        _use_local_model(values, model)
    for key in ("allowed_hosts", "trusted_proxies"):
        if (listed := environ.get(f"GLASSBOX_{key.upper()}")) is not None:
            values[key] = [value.strip() for value in listed.split(",") if value.strip()]
    if root_path := environ.get("GRADIO_ROOT_PATH"):
        values["root_path"] = root_path
    url = environ.get("GLASSBOX_DATABASE_URL") or f"sqlite:///{data / 'glassbox.db'}"
    if not re.fullmatch(r"sqlite:///.+|postgres(ql)?://\S+", url):  # which is not repeated: there is a password in it
        allowed = "'sqlite:///FILE' or 'postgresql://USER:PASSWORD@HOST/NAME'"
        raise SettingsError(f"GLASSBOX_DATABASE_URL: found {url.split(':')[0]!r}, allowed: {allowed}")
    file = _validate(FileSettings, values, str(path))
    if arguments.get("share") or on_space:
        values["limits"] = file.limits.with_public_limits().model_dump()
    if (log := environ.get("GLASSBOX_LOG")) not in (None, "", "text", "json"):
        raise SettingsError(f"GLASSBOX_LOG: found {log!r}, allowed: 'text' or 'json'")
    names = {backend.key_name for backend in file.backends} - {None}
    names |= _variables(file.backends, environ)
    values |= {
        "host": arguments.get("host"),
        "port": port,
        "share": bool(arguments.get("share")),
        "auth": _auth(arguments.get("auth"), "--auth") or _auth(environ.get("GLASSBOX_AUTH") or None, "GLASSBOX_AUTH"),
        "data": data,
        "database_url": url,
        "secret": environ.get("GLASSBOX_SECRET") or None,
        "on_space": on_space,
        "space_host": environ.get("SPACE_HOST") or None,
        "sign_in": on_space and bool(environ.get("OAUTH_CLIENT_ID")),
        "metrics_token": SecretStr(token) if (token := environ.get("GLASSBOX_METRICS_TOKEN", "").strip()) else None,
        "log": log or ("json" if on_space else "text"),
        "log_messages": _switch(environ, "GLASSBOX_LOG_MESSAGES"),
        "keys": {name: SecretStr(key) for name in names if name and (key := environ.get(name, "").strip())},
    }
    return _validate(Settings, values, "the command line")


def _variables(entries: Sequence[BackendSettings], environ: Mapping[str, str]) -> set[str | None]:
    """The variables that headers and query parameters name. Raises SettingsError for one that is not set."""
    for entry in entries:
        for name in entry.variables:
            if not environ.get(name, "").strip():
                raise SettingsError(f"backend {entry.name!r}: headers, query: the variable {name} is not set; set it")
    return {name for entry in entries for name in entry.variables}


def _folder(name: str) -> Path:
    """A folder that can be written into; it is made if there is none. Raises SettingsError."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SettingsError(f"GLASSBOX_DATA: found {name!r}, allowed: a folder ({e.strerror})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"GLASSBOX_DATA: found {name!r}, allowed: a folder that can be written into")
    return folder


def _default_data(on_space: bool) -> Path:
    """A Space's own disk if it has one; else the home, which a restart empties. The app's folder may be locked."""
    if not on_space:
        return Path("data")
    kept = Path("/data")
    return kept if kept.is_dir() and os.access(kept, os.W_OK) else Path.home() / "glassbox-data"


def _switch(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip()
    if value not in ("", "0", "1"):
        raise SettingsError(f"{name}: found {value!r}, allowed: 0 or 1")
    return value == "1"


def _read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if must_exist:
            raise SettingsError(
                f"{path}: there is no such file. Name another with --config or GLASSBOX_CONFIG."
            ) from None
        return {}
    except UnicodeDecodeError as e:
        raise SettingsError(f"{path}: not UTF-8 text (byte {e.start})") from None
    except OSError as e:
        raise SettingsError(f"{path}: cannot be read ({e.strerror})") from None
    except tomllib.TOMLDecodeError as e:
        raise SettingsError(f"{path}: not valid TOML: {e}") from None


def _use_local_model(values: dict[str, Any], model: str) -> None:
    """GLASSBOX_LOCAL_MODEL takes the place of every local backend's `model`."""
    entries = values.setdefault("backends", [b.model_dump(exclude_unset=True) for b in FileSettings().backends])
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("kind") == "local":
            entry["model"] = model


def _auth(text: str | None, where: str) -> tuple[str, str] | None:
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise SettingsError(f"{where}: found no USER:PASSWORD; write both, with a colon between them")
    return user, password


def _validate(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as e:
        problems = [_sentence(problem, values) for problem in e.errors()]
        raise SettingsError("\n".join(f"{where}: {problem}" for problem in problems)) from None


def _sentence(problem: Any, values: Mapping[str, Any]) -> str:
    """`backends[1] "Gemma": kind: found 'opnai', allowed: 'local', 'langchain' or 'scripted'`."""
    place, key = _place(problem["loc"], values), problem["loc"]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        allowed = sorted(_allowed(key))
        close = difflib.get_close_matches(str(key[-1]), allowed, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{place}: no such setting; {hint}allowed: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{place}: missing; every entry needs it"
    if problem["type"] == "literal_error":
        return f"{place}: found {problem['input']!r}, allowed: {problem['ctx']['expected']}"
    if problem["type"] == "value_error":
        return f"{place}: {message}"
    if _UNSHOWN & set(map(str, key)):
        return f"{place}: {message[0].lower()}{message[1:]}"
    return f"{place}: found {problem['input']!r}; {message[0].lower()}{message[1:]}"


def _allowed(loc: Sequence[str | int]) -> set[str]:
    sections: dict[str, type[BaseModel]] = {
        "backends": BackendSettings,
        "memory": MemorySettings,
        "tools": ToolSettings,
        "limits": LimitSettings,
        "tracing": TracingSettings,
    }
    section = sections.get(str(loc[0]), FileSettings) if len(loc) > 1 else FileSettings
    return {f.alias or name for name, f in section.model_fields.items()}


def _place(loc: Sequence[str | int], values: Mapping[str, Any]) -> str:
    """The key as a person would look for it: entries by number from 1, with their name."""
    parts: list[str] = []
    for i, step in enumerate(loc):
        if isinstance(step, int):
            entry = values.get(str(loc[0]), [])[step] if i == 1 else None
            name = entry.get("name") if isinstance(entry, dict) else None
            parts[-1] += f" entry {step + 1}" + (f" ({name!r})" if isinstance(name, str) else "")
        else:
            parts.append(step.removesuffix("_"))
    return ", ".join(parts)
