"""Validation of the settings, with error messages for the person who starts the app."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
"""The configuration of all parts of the settings: they cannot change, and reject unknown keys and wrong types."""
T = TypeVar("T", bound=BaseModel)
_UNSHOWN = {"headers", "query", "env"}
"""Settings of a backend or a server that may contain secrets: error messages do not repeat their values."""


KEY_NAME = re.compile(r"(?=.{1,19}$|.*_)[A-Z_][A-Z0-9_]*")
"""The name of an environment variable; a long one has underscores, so that most keys are none."""
_ORIGIN = re.compile(r"https?://(?!-)[a-z0-9-]+(\.[a-z0-9-]+)*(:[1-9]\d{0,4})?")


def check_origin(origin: str) -> str:
    """Returns the origin of a site. Raises ValueError for anything else, such as a path or a wildcard."""
    if _ORIGIN.fullmatch(origin):
        return origin
    near = re.sub(r"^(https?://)?([^/?#]+).*$", lambda found: f"{found[1] or 'https://'}{found[2]}", origin.lower())
    meant = f"; did you mean {near!r}?" if "." in near and _ORIGIN.fullmatch(near) else ""
    allowed = "allowed: https://HOST or https://HOST:PORT (or http://), in lower case, without path and wildcard"
    raise ValueError(f"found {origin!r}, {allowed}{meant}")


class SettingsError(Exception):
    """Invalid settings. The message is for the person who starts the app."""


def validate(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Validates settings that come from `where`, such as a file.

    Raises SettingsError with a line for each problem, as `FILE: backends entry 2 ('A'), kind: missing; every entry…`.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as e:
        problems = [_describe(problem, kind, values) for problem in e.errors()]
        raise SettingsError("\n".join(f"{where}: {problem}" if where else problem for problem in problems)) from None


def _describe(problem: Any, kind: type[BaseModel], values: Mapping[str, Any]) -> str:
    place, key = _place(problem["loc"], values), problem["loc"]
    message = problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            allowed = sorted(_allowed(kind, key))
            close = difflib.get_close_matches(str(key[-1]), allowed, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            return f"{place}: no such setting; {hint}allowed: {', '.join(allowed)}"
        case "missing":
            return f"{place}: missing; every entry needs it"
        case "literal_error":
            return f"{place}: found {problem['input']!r}, allowed: {problem['ctx']['expected']}"
        case "value_error":
            return f"{place}: {message}"
    if _UNSHOWN & set(map(str, key)):
        return f"{place}: {message[0].lower()}{message[1:]}"
    return f"{place}: found {problem['input']!r}; {message[0].lower()}{message[1:]}"


def _allowed(kind: type[BaseModel], location: Sequence[str | int]) -> set[str]:
    """Returns the names of the settings at a location."""
    if len(location) > 1:
        section: Any = kind.model_fields[str(location[0])].annotation
        kind = next(iter(get_args(section)), section)
    return {field.alias or name for name, field in kind.model_fields.items()}


def _place(location: Sequence[str | int], values: Mapping[str, Any]) -> str:
    """Returns the key as people would look for it: entries are numbered from 1 and have their name."""
    parts: list[str] = []
    for i, step in enumerate(location):
        if isinstance(step, int):
            entry = values.get(str(location[0]), [])[step] if i == 1 else None
            name = entry.get("name") if isinstance(entry, dict) else None
            parts[-1] += f" entry {step + 1}" + (f" ({name!r})" if isinstance(name, str) else "")
        else:
            parts.append(step.removesuffix("_"))
    return ", ".join(parts)


def is_address(url: str) -> bool:
    """Checks for an http or https address of a server, without a user's name and password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError
    except ValueError:
        return False
    valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    return valid and "@" not in parts.netloc and not re.search(r"\s", url)
