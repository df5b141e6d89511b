"""docs/bounds.md and docs/security.md say what is there."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runs.threads import Threads
from settings import PUBLIC_LIMITS, LimitSettings, MemorySettings, ToolSettings

ROOT = Path(__file__).parent.parent
BOUNDS, SECURITY = ((ROOT / "docs" / name).read_text() for name in ("bounds.md", "security.md"))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in BOUNDS.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| what"))
]
SETTINGS = {"limits": LimitSettings, "memory": MemorySettings, "tools": ToolSettings}
HOLDERS = {
    "deque",
    "Queue",
    "OrderedDict",
    "Semaphore",
    "ThreadPoolExecutor",
    "Threads",
    "lru_cache",
    "cache",
    "WeakValueDictionary",
}
PACKAGES = "agent", "backends", "documents", "components", "hosting", "memory", "runs", "settings", "transports"


def value_at(where: str) -> float | None:
    """The number that stands at a place; None if the place names no number."""
    if setting := re.match(r"`(limits|memory|tools)\.(\w+)`$", where):
        default = SETTINGS[setting[1]].model_fields[setting[2]].default
        return float(PUBLIC_LIMITS[setting[2]] if default is None else default)
    file, _, name = where.strip("`").partition(": ")
    assert (ROOT / file).is_file(), f"{file} is not there"
    return _number(_found(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)) if name else None


def _found(holder: Any, name: str) -> Any:
    """A module's constant, a field's or an argument's default."""
    for part in name.split("."):
        defaults = {one.name: one.default for one in fields(holder)} if is_dataclass(holder) else {}
        if part in defaults:
            holder = defaults[part]
        elif hasattr(holder, part):
            holder = getattr(holder, part)
        else:
            holder = inspect.signature(holder).parameters[part].default
    return holder


def _number(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "cache_info"):
        return float(value.cache_info().maxsize)
    if isinstance(value, Threads):
        return float(value._most)
    return float(len(value) if isinstance(value, tuple) else getattr(value, "amount", value))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_bound_is_as_the_table_says(row: list[str]) -> None:
    _, where, size, met, test = row
    assert met and test
    if (value := value_at(where)) is not None:
        said = re.match(r"[\d,.]+\d|\d", size)
        assert said and float(said[0].replace(",", "")) == value


def test_every_limit_is_in_the_table() -> None:
    assert {f"`limits.{name}`" for name in LimitSettings.model_fields} <= {row[1] for row in ROWS}


@pytest.mark.parametrize("document", ["bounds.md", "security.md"])
def test_every_test_that_a_document_names_is_there(document: str) -> None:
    named = re.findall(r"`((?:\w+/)*\w+\.py)(?:::(\w+))?`", BOUNDS if document == "bounds.md" else SECURITY)
    for file, name in named:
        if Path(file).name.startswith("test_"):
            found = list((ROOT / "tests").rglob(file.removeprefix("tests/")))
            assert found, f"{file} is not there"
            assert not name or f"def {name}(" in found[0].read_text(), f"{file} has no {name}"


def holders(file: Path) -> Iterator[str]:
    """What a module makes that may hold any number of things."""
    for node in ast.walk(ast.parse(file.read_text())):
        called = node.func if isinstance(node, ast.Call) else None
        called = called.value if isinstance(called, ast.Subscript) else called
        decorators = getattr(node, "decorator_list", [])
        for one in (called, *decorators):
            name = getattr(one, "attr", getattr(one, "id", ""))
            if name in HOLDERS:
                yield name


def test_every_module_with_a_queue_or_a_cache_is_in_the_table() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    made = {str(file.relative_to(ROOT)): sorted(set(holders(file))) for file in files}
    missing = {file: names for file, names in made.items() if names and f"`{file}" not in BOUNDS}
    assert missing == {}
