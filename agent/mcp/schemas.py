"""The tools that a server lists, checked: a model gets only a sound name and a schema of a bounded size."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runs.events import JSON
from runs.text import valid_text

_UNSOUND = re.compile(r"[^A-Za-z0-9_-]")
"""Characters that providers refuse in the name of a tool."""
_LONGEST_NAME = 64
_LONGEST_SCHEMA = 20_000
"""Characters of a schema, with its references replaced."""
_DEEPEST = 20
"""Levels of a schema."""
_LONGEST_DESCRIPTION = 2000
"""Characters of a description."""
MOST_TOOLS = 100
"""Tools of one server."""
_MOST_REFUSED = 20
"""Sentences about refused tools that are kept of a server."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool of a server. `name` is for models and commands, `called` is the server's own name."""

    name: str
    called: str
    description: str
    schema: JSON
    read_only: bool | None
    destructive: bool | None

    @property
    def harmless(self) -> bool:
        """True if the server says that the tool changes nothing, or destroys nothing."""
        return self.read_only is True or self.destructive is False


class SchemaError(ValueError):
    """A schema that no model is given. The message is a sentence part: "its schema …"."""


def check_tools(listed: Iterable[Any], wanted: Sequence[str] | None) -> tuple[list[ListedTool], list[str]]:
    """Returns the sound tools of a server's list, those that are `wanted`, and sentences about the others."""
    found, refused = dict[str, ListedTool](), list[str]()
    for one in listed:
        if wanted is not None and one.name not in wanted:
            continue
        label = repr(valid_text(one.name)[:_LONGEST_NAME])
        name = sound_name(one.name)
        if not name.strip("_-"):
            refused.append(f"{label}: its name has no letters or digits.")
        elif name in found:
            refused.append(f"{label}: another tool of the server has the same name.")
        elif len(found) >= MOST_TOOLS:
            refused.append(f"{label} and those after it: only {MOST_TOOLS} tools of a server are offered.")
            break
        elif one.execution and one.execution.task_support == "required":
            refused.append(f"{label}: it runs only as a task, which is not supported here.")
        else:
            try:
                found[name] = _listed_tool(name, one)
            except SchemaError as e:
                refused.append(f"{label}: {e}.")
    missing = [name for name in wanted or () if name not in {tool.called for tool in found.values()}]
    known = " ".join(refused)
    refused += [f"{name!r}: the server has no such tool." for name in missing if repr(name) not in known]
    return list(found.values()), refused[:_MOST_REFUSED]


def sound_name(name: str) -> str:
    """Returns a name with the characters and the length that all providers accept."""
    return _UNSOUND.sub("_", name)[:_LONGEST_NAME]


def _listed_tool(name: str, one: Any) -> ListedTool:
    notes = one.annotations
    title = one.title or (notes.title if notes else None) or one.name
    description = valid_text(one.description or title)[:_LONGEST_DESCRIPTION]
    read_only, destructive = (notes.read_only_hint, notes.destructive_hint) if notes else (None, None)
    return ListedTool(name, one.name, description, sound_schema(one.input_schema), read_only, destructive)


def sound_schema(schema: JSON) -> JSON:
    """Returns the schema of a tool's arguments with its references replaced. Raises SchemaError."""
    if len(_as_json(schema)) > _LONGEST_SCHEMA:
        raise SchemaError(f"its schema is longer than {_LONGEST_SCHEMA:,} characters")
    if schema.get("type", "object") != "object":
        raise SchemaError("its schema does not describe an object")
    left = [_LONGEST_SCHEMA]
    plain = _without_references(schema, schema, (), 0, left)
    properties = plain.get("properties", {})
    required = plain.get("required", [])
    if not isinstance(properties, dict) or not all(isinstance(one, dict | bool) for one in properties.values()):
        raise SchemaError("its schema has `properties` that are no schemas")
    if not isinstance(required, list) or not all(isinstance(one, str) and one in properties for one in required):
        raise SchemaError("its schema requires arguments that it does not describe")
    described = {key: one if isinstance(one, dict) else {} for key, one in properties.items()}
    others = {key: value for key, value in plain.items() if key not in ("$defs", "definitions", "$schema", "$id")}
    return {**others, "type": "object", "properties": described, "required": required}


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise SchemaError("its schema is no JSON, or nested too deeply") from None


def _without_references(part: Any, whole: JSON, inside: tuple[str, ...], depth: int, left: list[int]) -> Any:
    """Replaces each reference by what it names. `inside` are the open references, `left` the characters that remain."""
    if depth > _DEEPEST:
        raise SchemaError(f"its schema has more than {_DEEPEST} levels")
    left[0] -= 2 if isinstance(part, dict | list) else len(_as_json(part))
    if left[0] < 0:
        raise SchemaError(f"its schema is longer than {_LONGEST_SCHEMA:,} characters with its references replaced")
    if isinstance(part, list):
        return [_without_references(one, whole, inside, depth + 1, left) for one in part]
    if not isinstance(part, dict):
        return valid_text(part) if isinstance(part, str) else part
    if isinstance(reference := part.get("$ref"), str):
        if reference in inside or reference == "#":
            raise SchemaError("its schema refers to itself, which models cannot be given")
        named = _named(whole, reference)
        beside = {key: value for key, value in part.items() if key != "$ref"}
        merged = {**named, **beside} if isinstance(named, dict) else named
        return _without_references(merged, whole, (*inside, reference), depth + 1, left)
    skipped = ("$defs", "definitions") if part is whole else ()
    return {
        valid_text(key): _without_references(value, whole, inside, depth + 1, left)
        for key, value in part.items()
        if key not in skipped
    }


def _named(whole: JSON, reference: str) -> Any:
    """Returns the part of a schema that a reference within it names."""
    found: Any = whole
    if not reference.startswith("#/"):
        raise SchemaError(f"its schema refers to {reference[:60]!r}, which is outside of it")
    for step in reference[2:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or step not in found:
            raise SchemaError(f"its schema refers to {reference[:60]!r}, which it does not have")
        found = found[step]
    return found
