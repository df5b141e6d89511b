"""The settings of the file as a whole, and those of the server."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from settings.backends import BackendSettings, check_backends
from settings.documents import DocumentSettings
from settings.limits import LimitSettings
from settings.mcp import McpSettings, check_servers
from settings.memory import MemorySettings
from settings.page import PageSettings
from settings.tools import ToolSettings, TracingSettings
from settings.validation import STRICT, check_origin

ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9_.~-]+)*")
"""A path prefix without a final slash and without characters that would have to be encoded."""
_LOOPBACK = ["127.0.0.1", "::1"]
_PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]


def _host_name(text: str) -> str:
    """Normalizes a host name as browsers do. Raises ValueError for anything but a host name."""
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


class FileSettings(BaseModel):
    """The settings in `glassbox.toml`."""

    model_config = STRICT

    system_prompt: str = "You are a helpful assistant."
    allowed_origins: list[str] = []
    """Other sites whose pages can use our routes, without cookies, as https://HOST."""
    allowed_hosts: list[str] = []
    """Further host names of this server, such as the name of a reverse proxy."""
    trusted_proxies: list[str] | None = None
    """Addresses or networks of reverse proxies whose `X-Forwarded-*` headers are trusted."""
    root_path: str = ""
    """The path prefix of the app behind a reverse proxy, such as /demo; or the full address of the page."""
    backends: list[BackendSettings] = [
        BackendSettings(name="SmolLM2 135M", kind="local", model="bundled"),
        BackendSettings(name="Scripted tour", kind="scripted"),
    ]
    mcp: list[McpSettings] = []
    memory: MemorySettings = MemorySettings()
    tools: ToolSettings = ToolSettings()
    documents: DocumentSettings = DocumentSettings()
    limits: LimitSettings = LimitSettings()
    tracing: TracingSettings = TracingSettings()
    page: PageSettings = PageSettings()

    @model_validator(mode="before")
    @classmethod
    def _split_address(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Turns a `root_path` that is a full address into a path and an allowed host."""
        if not re.match(r"https?://", str(values.get("root_path", ""))):
            return values
        try:
            parts = urlsplit(values["root_path"])
            allowed = [*values.get("allowed_hosts", []), parts.hostname]
        except (ValueError, TypeError):  # the validators of the fields report it
            return values
        return {**values, "root_path": parts.path, "allowed_hosts": allowed}

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        return [check_origin(origin) for origin in origins]

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, names: list[str]) -> list[str]:
        return [_host_name(name) for name in names]

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        prefix = "/" + path.strip().strip("/")
        if prefix == "/":
            return ""
        if not ROOT_PATH.fullmatch(prefix):
            raise ValueError(f"found {path!r}, allowed: a path of plain letters such as '/demo', or the page's address")
        return prefix

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, networks: list[str] | None) -> list[str] | None:
        for network in networks or []:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"found {network!r}, allowed: addresses and networks such as 10.0.0.0/8") from None
        return networks

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        names = [backend.name for backend in self.backends]
        for one in self.page.prompts or ():
            if one.backend and one.backend not in names:
                allowed = ", ".join(map(repr, names))
                raise ValueError(f"page, prompts: backend: found {one.backend!r}, allowed: {allowed}")
        return self

    @field_validator("mcp")
    @classmethod
    def _check_servers(cls, servers: list[McpSettings]) -> list[McpSettings]:
        check_servers(servers)
        return servers

    @field_validator("backends")
    @classmethod
    def _check_backends(cls, backends: list[BackendSettings]) -> list[BackendSettings]:
        check_backends(backends)
        return backends


class Settings(FileSettings):
    """All settings."""

    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    share: bool = False
    auth: tuple[str, str] | None = None
    """The user name and password of the login."""
    folder: Path = Path()
    """The folder of the settings file: what the settings import by path may be there."""
    data: Path = Path("data")
    """The folder of the database, the documents and the secret."""
    database_url: str = ""
    secret: str | None = None
    """The secret that signs cookies."""
    on_space: bool = False
    space_host: str | None = None
    sign_in: bool = False
    """Whether visitors of the Space can sign in with Hugging Face."""
    metrics_token: SecretStr | None = None
    log: Literal["text", "json"] = "text"
    log_messages: bool = False
    keys: dict[str, SecretStr] = {}
    """The operator's keys, by the names of their variables."""
    mcp_variables: dict[str, SecretStr] = {}
    """The environment variables that the entries of `mcp` name."""

    @property
    def public(self) -> bool:
        """True if the app is open to the public: over a share link, or on a Space."""
        return self.share or self.on_space

    @property
    def proxies(self) -> list[str]:
        """The proxies whose `X-Forwarded-*` headers are trusted: none by default, the Space's own proxy on a Space."""
        if self.trusted_proxies is not None:
            return self.trusted_proxies
        return [*_LOOPBACK, *_PRIVATE] if self.on_space else []
