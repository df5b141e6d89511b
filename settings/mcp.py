"""The `[[mcp]]` entries: servers whose tools are offered beside the app's own."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from settings.validation import STRICT, is_address

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class McpSettings(BaseModel):
    """One `[[mcp]]` entry: a program that is started here (`command`), or a server that has an address (`url`)."""

    model_config = STRICT

    name: Annotated[str, Field(min_length=1, max_length=40)]
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """The program and its arguments. It runs in the folder of the settings file; `python` is the app's own Python."""
    url: str | None = None
    """The address of a server that speaks Streamable HTTP."""
    headers: dict[str, str] = {}
    """url: HTTP headers of each request, each with the name of the environment variable that has its value."""
    env: list[str] = []
    """command: the environment variables that the program gets, besides PATH, HOME and a few like them."""
    approval: Literal["always", "destructive", "never"] = "destructive"
    """Which tools wait for the visitor: all, all that do not say that they destroy nothing, or none."""
    tools: list[str] | None = None
    """The tools that are offered; by default all."""
    prompts: list[str] | None = None
    """The prompts that are offered; by default all."""
    on_space: bool = False
    """command: whether the program may run on a Hugging Face Space."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise ValueError("a name has no control characters and no blanks around it")
        return name

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not is_address(url):  # the value is not repeated: it could contain a password
            raise ValueError("not a valid address; allowed: http://HOST… or https://HOST…, without name and password")
        return url

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, variable in headers.items():
            if not _HEADER.fullmatch(name):
                raise ValueError(f"found the name {name!r}, allowed: letters, digits and hyphens")
            if not _VARIABLE.fullmatch(variable):  # the value is not repeated: it could be a secret
                raise ValueError(f"the value of {name!r} is the name of an environment variable, never the secret")
        return headers

    @field_validator("env")
    @classmethod
    def _check_env(cls, names: list[str]) -> list[str]:
        if not all(_VARIABLE.fullmatch(name) for name in names):  # not repeated: it could be NAME=SECRET
            raise ValueError('allowed: names of environment variables, such as ["FILES_TOKEN"], never their values')
        return names

    @model_validator(mode="after")
    def _check_transport(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("an entry has either a `command` or a `url`")
        if self.headers and self.url is None:
            raise ValueError("headers: only a server with a `url` gets headers; a `command` gets variables by `env`")
        if self.env and self.command is None:
            raise ValueError("env: only a `command` gets environment variables; a `url` gets `headers`")
        return self

    @property
    def variables(self) -> list[str]:
        """The environment variables that the entry names."""
        return list(dict.fromkeys([*self.headers.values(), *self.env]))


def check_servers(servers: Sequence[McpSettings]) -> None:
    """Checks the entries together. Raises ValueError for a repeated name."""
    names = [server.name for server in servers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the name {twice!r} is used twice; each server needs its own")


def missing_variable(servers: Sequence[McpSettings], environ: Mapping[str, str]) -> str | None:
    """Returns a sentence about a variable that an entry names and that is not set, None if all are."""
    for server in servers:
        for name in server.variables:
            if not environ.get(name, "").strip():
                field = "env" if name in server.env else "headers"
                return f"mcp {server.name!r}: {field}: the variable {name} is not set; set it"
    return None
