"""What the README tells a developer to write works as it is written there."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import backends
from agent.tools import Toolbox
from agent.turns import TurnRequest, Turns
from backends import Backends
from documents.library import Library
from memory.langchain_history import Mirror
from memory.modes import MODES
from memory.store import Store
from runs.registry import RunRegistry
from settings import BackendSettings, MemorySettings, Settings, load_settings

README = (Path(__file__).parents[1] / "README.md").read_text()


def _blocks(kind: str) -> list[str]:
    steps = README[README.index("### Add a backend in three steps") : README.index("## Memory")]
    return re.findall(rf"```{kind}\n(.*?)```", steps, re.DOTALL)


async def test_a_backend_is_added_in_three_steps(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, line = _blocks("python")
    (tmp_path / "echo.py").write_text(file)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    [(kind, where)] = re.findall(r'"(\w+)": "([\w.:]+)",', line)
    monkeypatch.setitem(backends.KINDS, kind, where)
    [entry] = tomllib.loads(_blocks("toml")[0])["backends"]

    shipped = load_settings({"config": str(Path(__file__).parents[1] / "glassbox.toml")}, {})
    chosen = settings.model_copy(update={"tools": shipped.tools, "memory": shipped.memory, "limits": shipped.limits})
    toolbox = Toolbox(chosen.tools, Library(tmp_path / "library.db"))
    assert toolbox.names, "tools are on as shipped"
    turns = Turns(chosen, Backends([BackendSettings(**entry)]), store, RunRegistry(), toolbox)
    run = await turns.start(TurnRequest("Polly wants a cracker"))
    assert run.task
    await asyncio.wait({run.task})

    assert (run.state.phase, run.text.strip(), run.note) == ("complete", "Polly wants a cracker", None)
    assert len(file.splitlines()) <= 100


def test_every_kind_is_in_the_table() -> None:
    table = README[README.index("## Backends") : README.index("### Add a backend")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(backends.KINDS)


def test_every_memory_mode_is_in_the_table() -> None:
    table = README[README.index("## Memory") : README.index("## Conversations")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(MODES)


def test_another_history_is_read_in_as_it_is_written_there(tmp_path: Path) -> None:
    section = README[README.index("## Conversations") : README.index("## Settings")]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    said = [{"type": kind, "data": {"content": text}} for kind, text in (("human", "Hi"), ("ai", "Hello"))]
    (tmp_path / "old_chat.json").write_text(json.dumps(said))
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=here, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    link, told = done.stdout.splitlines()
    assert re.fullmatch(r"http://127\.0\.0\.1:7860/\?conversation=[\w-]{22}", link)
    assert "HumanMessage(content='Hi'" in told and "AIMessage(content='Hello'" in told


def test_the_mirror_is_written_as_it_is_read() -> None:
    section = README[README.index("## Conversations") : README.index("## Settings")]
    [mirror] = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    memory = MemorySettings(**tomllib.loads(mirror)["memory"])
    assert memory.mirror
    Mirror(memory.mirror, memory.mirror_options)
