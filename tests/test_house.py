"""The house as a whole: who may import whom, and what a start does without."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "runs": set[str](),
    "memory": {"runs"},
    "backends": {"runs", "hosting"},
    "documents": {"runs", "memory"},
    "agent": {"runs", "memory", "backends", "documents"},
    "hosting": {"runs"},
    "transports": {"runs", "hosting", "memory", "backends", "documents", "agent"},
    "components": {"runs", "hosting", "memory", "backends", "documents", "agent", "transports"},
}
"""Each package with those that it may import; `settings` and `logs` are for all."""
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


def test_service_without_a_page_does_not_import_gradio() -> None:
    code = "import sys, transports.service\nassert 'gradio' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_start_makes_no_stubs_for_editors() -> None:
    """Of a class that has no source Gradio's own says so with an error."""
    code = "import app, gradio.component_meta as meta\nmeta.create_or_modify_pyi(int, 'int', [])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    without = code.replace("import app, ", "import ")
    bare = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert "TypeError" in bare.stderr, "it would be seen"
