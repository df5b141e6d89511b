"""The README and docs/ agree with the code: every block of code in them is run, and every table is complete.

`tests/test_docs_clients.py` runs the blocks for clients, `tests/test_reverse_proxy.py` that for nginx.
"""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import backends
from agent.commands import read_command
from agent.tools import TOOLS, Toolbox
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends
from documents.library import Library
from hosting.identity import Identity
from memory.langchain_history import Mirror
from memory.modes import MODES
from memory.store import Store
from runs.errors import STATUS
from runs.events import _OPTIONAL, WIRE_TYPES
from runs.registry import RunRegistry
from runs.tool_calls import ApprovalAnswer
from settings import (
    PUBLIC_LIMITS,
    BackendSettings,
    DocumentSettings,
    LimitSettings,
    McpSettings,
    MemorySettings,
    PageSettings,
    Settings,
    ToolSettings,
    TracingSettings,
    load_settings,
)
from settings.environment import Environment
from tests.conftest import until
from tests.test_house import FLOORS
from transports.conversations import _imported_fields
from transports.routes import build_router, own_paths

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(file.relative_to(ROOT)): file.read_text() for file in FILES}
README, ARCHITECTURE = TEXTS["README.md"], TEXTS["docs/architecture.md"]


@dataclass(frozen=True)
class Block:
    """A block of code in a document."""

    file: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _blocks(file: str) -> list[Block]:
    text = TEXTS[file]
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(file, text[: one.start()].count("\n") + 1, one[1], one[2]) for one in found]


BLOCKS = [block for file in TEXTS for block in _blocks(file)]
RUN_ELSEWHERE = Counter(
    {
        ("README.md", "python"): 3,  # the new backend and its line: below; the WebSocket: test_docs_clients.py
        ("README.md", "bash"): 1,  # test_docs_clients.py
        ("README.md", "text"): 1,  # the tree: below
        ("docs/agents.md", "python"): 1,  # below
        ("docs/api.md", "bash"): 2,  # test_docs_clients.py
        ("docs/api.md", "js"): 4,
        ("docs/api.md", "python"): 2,
        ("docs/architecture.md", "text"): 2,  # the paths in them: below
        ("docs/images.md", "bash"): 1,  # test_transports_images.py
        ("docs/imports.md", "json"): 1,  # below
        ("docs/mcp.md", "json"): 1,  # the address: test_transports_mcp_server.py
        ("docs/memory.md", "python"): 2,  # a history: below; a memory mode: test_memory_own_modes.py
        ("docs/reverse-proxy.md", "nginx"): 1,  # test_reverse_proxy.py
        ("docs/tools.md", "python"): 1,  # below
        ("docs/tools.md", "text"): 1,  # below
        ("docs/your-own.md", "html"): 1,  # browser/test_embed.py
        ("docs/your-own.md", "text"): 1,  # names of files
    }
)


def table(file: str, heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, each as its cells."""
    text = TEXTS[file]
    section = re.split(r"^##+ ", text[text.index(heading) + len(heading) :], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def ticked(text: str) -> list[str]:
    """The words in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_every_block_is_run() -> None:
    others = Counter((block.file, block.language) for block in BLOCKS if block.language not in ("toml", "sh"))
    assert others == RUN_ELSEWHERE
    for file, text in TEXTS.items():
        assert len(_blocks(file)) == text.count("```") / 2
        assert not re.search(r"\n\n    \S", re.sub(r"```.*?```", "", text, flags=re.DOTALL)), f"{file}: indented code"


def of_language(language: str) -> Any:
    return pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == language], ids=str)


@of_language("toml")
def test_settings_in_the_documents_are_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "glassbox.toml"
    file.write_text(block.code)
    load_settings({"config": str(file)}, {"AZURE_KEY": "key", "AGENT_TOKEN": "token"})


@of_language("sh")
def test_commands_in_the_documents_exist(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import _arguments

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "glassbox.toml").touch()
    for line in block.code.splitlines():
        words = shlex.split(line, comments=True)
        command = words[words.index("make") :]
        done = subprocess.run(
            [*command, "--dry-run", "PYTHON=python3"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        arguments = next((word.removeprefix("ARGS=") for word in command if word.startswith("ARGS=")), "")
        load_settings(_arguments(shlex.split(arguments)), dict(word.split("=", 1) for word in words[: -len(command)]))


def test_relative_links_lead_somewhere() -> None:
    for file in [*FILES, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
            assert "://" in link or (file.parent / link).exists(), f"{file.name}: {link}"


# Backends


async def test_a_backend_is_added_in_three_steps(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = README[README.index("### Add a backend in three steps") : README.index("## Use it from a program")]
    file, line, entry = re.findall(r"```(?:python|toml)\n(.*?)```", steps, re.DOTALL)
    (tmp_path / "echo.py").write_text(file)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    [(kind, where)] = re.findall(r'"(\w+)": "([\w.:]+)",', line)
    monkeypatch.setitem(backends.KINDS, kind, where)
    [found] = tomllib.loads(entry)["backends"]

    shipped = load_settings({"config": str(ROOT / "glassbox.toml")}, {})
    chosen = settings.model_copy(update={"tools": shipped.tools, "memory": shipped.memory, "limits": shipped.limits})
    toolbox = Toolbox(chosen.tools, Library(tmp_path / "library.db"))
    assert toolbox.names, "tools are on as shipped"
    turns = Turns(chosen, Backends([BackendSettings(**found)]), store, RunRegistry(), toolbox)
    run = await turns.start(TurnRequest("Polly wants a cracker"))
    assert run.task
    await asyncio.wait({run.task})

    assert (run.state.phase, run.text.strip(), run.note) == ("complete", "Polly wants a cracker", None)
    assert len(file.splitlines()) <= 100


async def test_the_documented_agent_answers(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, entry = (block.code for block in _blocks("docs/agents.md"))
    (tmp_path / "my_agent.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    [found] = tomllib.loads(entry)["backends"]
    known = Backends([BackendSettings(**found)])
    await known.open()
    run = await Turns(settings, known, store, RunRegistry()).start(TurnRequest("Whales"))
    await until(lambda: run.tool_calls.awaiting_approval)
    [call] = run.tool_calls.awaiting_approval
    run.tool_calls.answer(call, ApprovalAnswer(True, {"question": "?", "answer": "merry"}))
    assert run.task
    await asyncio.wait({run.task})
    assert (run.state.phase, run.text) == ("complete", "In a merry tone: I found nothing.")
    await known.close()


def test_every_kind_is_in_both_tables() -> None:
    assert [row[0].strip("`") for row in table("README.md", "## Backends")] == list(backends.KINDS)
    rows = {row[0].strip("`"): row[1] for row in table("docs/backends.md", "## Which backends are there?")}
    assert list(rows) == list(backends.KINDS)
    for kind, where in backends.KINDS.items():
        module, _, name = where.partition(":")
        uses = getattr(__import__(module, fromlist=[name]), name).uses
        assert set(re.findall(r"\w+", " ".join(ticked(re.sub(r": `[^;]*", "", rows[kind]))).split(" =")[0])) == uses


# Memory and tools


def test_every_memory_mode_is_in_the_table() -> None:
    assert [row[0].strip("`") for row in table("docs/memory.md", "## Memory modes")] == list(MODES)


def test_documented_history_import_works(tmp_path: Path) -> None:
    [code] = [one.code for one in _blocks("docs/memory.md") if one.language == "python" and "old_chat" in one.code]
    messages = [{"type": kind, "data": {"content": text}} for kind, text in (("human", "Hi"), ("ai", "Hello"))]
    (tmp_path / "old_chat.json").write_text(json.dumps(messages))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    link, history = done.stdout.splitlines()
    assert re.fullmatch(r"http://127\.0\.0\.1:7860/\?conversation=[\w-]{22}", link)
    assert "HumanMessage(content='Hi'" in history and "AIMessage(content='Hello'" in history


def test_documented_mirror_works() -> None:
    [mirror] = [block.code for block in _blocks("docs/memory.md") if "mirror =" in block.code]
    memory = MemorySettings(**tomllib.loads(mirror)["memory"])
    assert memory.mirror
    Mirror(memory.mirror, memory.mirror_options)


def test_the_answer_to_an_import_has_the_documented_fields() -> None:
    [block] = [block for block in _blocks("docs/imports.md") if block.language == "json"]

    class Several:
        conversations = (("id", "title"), ("other", "title"))
        skipped, skipped_in_all, left_out = ({"title": "a", "reason": "b"},), 1, 0

    answer, documented = _imported_fields(Several()), json.loads(block.code)  # type: ignore[arg-type]
    assert answer.keys() == documented.keys()
    for name in ("conversations", "skipped"):
        assert answer[name][0].keys() == documented[name][0].keys()


def test_every_tool_is_in_the_table() -> None:
    assert {row[0].strip("`") for row in table("docs/tools.md", "# Tools")} == set(TOOLS)


def test_documented_commands_name_tools() -> None:
    [block] = [block for block in _blocks("docs/tools.md") if block.language == "text"]
    tools = Toolbox(ToolSettings(), Library(Path("unused.db"))).tools(None)
    for line in block.code.splitlines():
        command = read_command(line, tools)
        assert command and line.startswith(f"/{command.tool} ")


async def test_the_documented_tool_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [block for block in _blocks("docs/tools.md") if block.language == "python"]
    (tmp_path / "my_tools.py").write_text(block.code)
    monkeypatch.syspath_prepend(tmp_path)
    [tool] = Toolbox(ToolSettings(enabled=["my_tools:spell"])).tools(None)
    assert (await tool.ainvoke({"word": "abc"})).strip() == "A B C"
    assert '"my_tools:spell"' in TEXTS["docs/tools.md"]


# Settings

SECTIONS: dict[str, type[BaseModel]] = {
    "backends": BackendSettings,
    "memory": MemorySettings,
    "tools": ToolSettings,
    "documents": DocumentSettings,
    "limits": LimitSettings,
    "tracing": TracingSettings,
    "page": PageSettings,
    "mcp": McpSettings,
}


def settings_with_defaults() -> dict[str, tuple[str, bool]]:
    """Every setting, with its default as the table writes it, and whether it is deprecated."""
    found = {}
    for section, model in [("", Settings), *SECTIONS.items()]:
        for name, field in model.model_fields.items():
            if section or name not in SECTIONS:
                shown = written(field.get_default(call_default_factory=True))
                key = f"{section}.{field.alias or name}".lstrip(".")
                public = PUBLIC_LIMITS.get(name) if section == "limits" else None
                found[key] = shown + (f"; public {public:,}" if public else ""), bool(field.deprecated)
    return found


def written(default: Any) -> str:
    """A default value as the table of docs/settings.md writes it."""
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, int | float) and not isinstance(default, bool):
        return f"{default:,g}" if isinstance(default, float) else f"{default:,}"
    return f"`{json.dumps(str(default) if isinstance(default, Path) else default)}`"


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = {row[0].strip("`"): row for row in table("docs/settings.md", "## All settings")}
    expected = settings_with_defaults()
    assert list(rows) == list(dict.fromkeys(rows)) and rows.keys() == expected.keys()
    for name, (default, deprecated) in expected.items():
        shown = rows[name][1] if "; public" in default else rows[name][1].split(";")[0]
        assert (name, shown) == (name, default)
        assert ("deprecated" in rows[name][2].lower()) == deprecated, name


def test_every_variable_of_the_environment_is_in_the_table() -> None:
    names = {str(field.alias) for field in Environment.model_fields.values()}
    assert {name for name in names if f"`{name}`" not in TEXTS["docs/settings.md"]} == set()


# The API


def test_every_event_is_in_the_table_with_its_fields() -> None:
    rows = {row[0].strip("`"): row[1] for row in table("docs/api.md", "## Events")}
    expected = {}
    for kind, name in WIRE_TYPES.items():
        optional = {field.name for field in fields(kind) if field.default is None and field.name in _OPTIONAL}
        expected[name] = {f"`{field.name}`{'?' * (field.name in optional)}" for field in fields(kind)}
    assert {name: set(row.split(", ")) for name, row in rows.items()} == expected


def test_every_route_and_every_code_is_documented(turns: Turns) -> None:
    api, paths = TEXTS["docs/api.md"], own_paths(build_router(turns, Identity("of the tests")))
    assert {path for path in paths if not re.search(rf"{re.escape(path)}\b", api)} == set()
    codes = {
        code: int(status)
        for cells, status in re.findall(r"(`\w+`(?:, `\w+`)?) \| (\d{3})", api)
        for code in ticked(cells)
    }
    assert codes == STATUS


# The architecture


def test_paths_in_the_documents_exist() -> None:
    for file in ("docs/architecture.md", "README.md"):
        named = re.findall(r"(?<![\w/.:-])((?:[a-z_]+/)+[\w.-]*|[\w-]+\.(?:py|toml|md))(?![\w/])", TEXTS[file])
        missing = {path.rstrip(".") for path in named if not (ROOT / path.rstrip(".")).exists()}
        assert missing - {"backends/echo.py", "my/glassbox.toml", "you/glassbox"} == set(), file
    assert len(re.findall(r"\w+/\w+\.py", ARCHITECTURE)) > 30


def test_imports_go_from_left_to_right() -> None:
    [order] = re.findall(r"^app → (.*)$", ARCHITECTURE, re.MULTILINE)
    packages = order.split(" → ")
    assert set(packages) == FLOORS.keys()
    for package, imported in FLOORS.items():
        assert imported <= set(packages[packages.index(package) + 1 :])


def test_names_in_the_architecture_exist() -> None:
    code = "\n".join(file.read_text() for file in ROOT.glob("*/*.py"))
    for name in ticked(re.sub(r"```.*?```", "", ARCHITECTURE, flags=re.DOTALL)):
        if re.fullmatch(r"[A-Za-z_.]+", name) and not (ROOT / name).exists():
            assert all(re.search(rf"\b{part}\b", code) for part in name.split(".")), name
