"""What the README tells a developer to write works as it is written there."""

import asyncio
import re
import tomllib
from pathlib import Path

import pytest

import backends
from agent.turns import Ask, Turns
from backends import Backends
from memory.store import Store
from runs.registry import Runs
from settings import BackendSettings, Settings

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

    turns = Turns(settings, Backends([BackendSettings(**entry)]), store, Runs())
    run = await turns.start(Ask("Polly wants a cracker"))
    assert run.task
    await asyncio.wait({run.task})

    assert (run.state.phase, run.text.strip()) == ("complete", "Polly wants a cracker")
    assert len(file.splitlines()) <= 100


def test_every_kind_is_in_the_table() -> None:
    table = README[README.index("## Backends") : README.index("### Add a backend")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(backends.KINDS)
