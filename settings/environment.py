"""The environment variables that are settings."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from settings.validation import validate

_LISTS = ("GLASSBOX_ALLOWED_HOSTS", "GLASSBOX_TRUSTED_PROXIES")
"""Variables that may be empty; other empty variables count as missing."""


def parse_login(text: str) -> tuple[str, str]:
    """Splits USER:PASSWORD. Raises ValueError, whose message does not repeat them."""
    user, _, password = text.partition(":")
    if not (user and password):
        raise ValueError("found no USER:PASSWORD; write both, with a colon between them")
    return user, password


def _parse_list(text: str) -> list[str]:
    return [value.strip() for value in text.split(",") if value.strip()]


def _parse_port(text: str) -> int:
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 1 <= port <= 65535:
        raise ValueError(f"found {text!r}, allowed: a number from 1 to 65535")
    return port


def _parse_switch(text: str) -> bool:
    if text.strip() not in ("", "0", "1"):
        raise ValueError(f"found {text.strip()!r}, allowed: 0 or 1")
    return text.strip() == "1"


def _check_database_url(url: str) -> str:
    if not re.fullmatch(r"sqlite:///.+|postgres(ql)?://\S+", url):  # the URL is not repeated: it contains a password
        allowed = "'sqlite:///FILE' or 'postgresql://USER:PASSWORD@HOST/NAME'"
        raise ValueError(f"found {url.split(':')[0]!r}, allowed: {allowed}")
    return url


class Environment(BaseModel):
    """The environment variables. A field without an alias has the prefix `GLASSBOX_`."""

    model_config = ConfigDict(frozen=True, alias_generator=lambda name: f"GLASSBOX_{name.upper()}")

    config: str | None = None
    data: str | None = None
    database_url: Annotated[str, BeforeValidator(_check_database_url)] | None = None
    secret: str | None = None
    local_model: str | None = None
    auth: Annotated[tuple[str, str], BeforeValidator(parse_login)] | None = None
    metrics_token: str = ""
    log: Literal["text", "json"] | None = None
    log_messages: Annotated[bool, BeforeValidator(_parse_switch)] = False
    allowed_hosts: Annotated[list[str], BeforeValidator(_parse_list)] | None = None
    trusted_proxies: Annotated[list[str], BeforeValidator(_parse_list)] | None = None
    port: Annotated[int, BeforeValidator(_parse_port)] | None = Field(None, alias="GRADIO_SERVER_PORT")
    root_path: str | None = Field(None, alias="GRADIO_ROOT_PATH")
    space_id: str | None = Field(None, alias="SPACE_ID")
    space_host: str | None = Field(None, alias="SPACE_HOST")
    oauth_client_id: str | None = Field(None, alias="OAUTH_CLIENT_ID")

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Reads the variables. Raises SettingsError."""
        return validate(cls, {name: value for name, value in environ.items() if value or name in _LISTS})
