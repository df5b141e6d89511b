"""The house as a whole: who may import whom, and what a start does without."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "runs": set[str](),
    "memory": {"runs"},
    "settings": {"memory"},
    "backends": {"runs", "settings", "hosting"},
    "documents": {"runs", "memory", "settings"},
    "agent": {"runs", "memory", "settings", "backends", "documents"},
    "hosting": {"runs", "settings"},
    "transports": {"runs", "hosting", "memory", "settings", "backends", "documents", "agent"},
    "components": {"runs", "hosting", "memory", "settings", "backends", "documents", "agent", "transports"},
}
"""Each package with those that it may import; `logs` is for all."""
BARRED = {name: {"gradio"} for name in FLOORS if name not in ("components", "hosting")} | {
    "runs": {"gradio", "langchain_core"}
}


def imported(file: Path) -> Iterator[str]:
    """The packages that a file imports when it runs."""
    for_types = set[ast.AST]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for_types.update(node.body)
        elif node in for_types:
            continue
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_one_way(package: str) -> None:
    barred = BARRED.get(package, set()) | FLOORS.keys() - FLOORS[package] - {package}
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {f"{file.relative_to(ROOT)}: {name}" for file in files for name in imported(file) if name in barred}
    assert wrong <= {"hosting/tunnel.py: gradio"}


START = """
import sys, transports.service
assert "gradio" not in sys.modules, "the service without a page imports it"
import app, gradio.component_meta
gradio.component_meta.create_or_modify_pyi(int, "int", [])
"""


def test_imports_of_a_start() -> None:
    """The service without a page does not import gradio; with it, gradio makes no stubs for editors."""
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_gradio_fails_to_make_a_stub_of_a_class_without_source() -> None:
    """The test above would see a stub being made."""
    package = importlib.import_module("gradio")
    spec = PathFinder.find_spec("gradio.component_meta", package.__path__)  # around the hook that the app installs
    assert spec and spec.loader
    unchanged = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unchanged)
    with pytest.raises(TypeError):
        unchanged.create_or_modify_pyi(int, "int", [])
