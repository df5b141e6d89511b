"""The measurement of how a local model reads best: kept by model and machine, made once."""

import json
import os
from pathlib import Path

import pytest

from backends import local, reading_speed
from backends.local import LocalBackend
from backends.reading_speed import _MOST, keep_reading, known_reading
from backends.weights import bundled_weights
from tests.local_model import BUNDLED

BEST = {"threads": 1, "batch": 128}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glassbox" / "reading_speed.json"


def kept(cache: Path) -> list[dict[str, int]]:
    return list(json.loads(cache.read_text()).values())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


def test_a_measurement_is_valid_for_a_model_on_a_machine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_reading(model, 1) is None
    keep_reading(model, 1, BEST)
    assert known_reading(model, 1) == BEST
    assert known_reading(model, 2) is None, "another number of threads"
    model.write_bytes(b"other weights")
    assert known_reading(model, 1) is None
    model.write_bytes(b"weights")
    monkeypatch.setattr(reading_speed, "version", lambda name: "another")
    assert known_reading(model, 1) is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "null", *(json.dumps(one) for one in ({}, {"threads": 1}, {"threads": "1", "batch": 1}, [], 7))],
)
def test_a_damaged_file_is_measured_again(model: Path, cache: Path, content: str) -> None:
    keep_reading(model, 1, BEST)
    (key,) = json.loads(cache.read_text())
    for text in (content, f"{{{json.dumps(key)}: {content or 'x'}}}"):
        cache.write_text(text)
        assert known_reading(model, 1) is None
        keep_reading(model, 1, BEST)
        assert known_reading(model, 1) == BEST


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": 10_000}, {"batch": 0}, {"batch": 1 << 40}])
def test_impossible_values_are_measured_again(model: Path, wrong: dict[str, int]) -> None:
    keep_reading(model, 1, BEST | wrong)
    assert known_reading(model, 1) is None


def test_a_folder_that_cannot_be_written_is_no_error(model: Path, cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    keep_reading(model, 1, BEST)
    assert known_reading(model, 1) is None


def test_few_measurements_are_kept(model: Path, cache: Path) -> None:
    for size in range(_MOST + 5):
        model.write_bytes(b"x" * (size + 1))
        keep_reading(model, 1, BEST)
    assert len(kept(cache)) == _MOST
    assert known_reading(model, 1) == BEST, "the latest is there"
    assert [file.name for file in cache.parent.iterdir()] == [cache.name], "no temporary file is left"


async def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Loads the real model; returns the measurements that were kept."""
    found = []
    monkeypatch.setattr(local, "keep_reading", lambda *given: (found.append(given[-1]), keep_reading(*given)))
    backend = LocalBackend(BUNDLED)
    await backend.open()
    await backend.wait_ready()
    assert backend.health().ready
    await backend.close()
    return found


async def test_the_first_load_measures_where_the_machine_is_idle(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for measured in await loaded(monkeypatch):
        assert 1 <= measured["threads"] <= (os.cpu_count() or 1) and measured["batch"] in (32, 64, 128, 256, 512)
        assert kept(cache) == [measured]


async def test_a_known_measurement_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_reading(bundled_weights(), local._threads(None), BEST)
    assert await loaded(monkeypatch) == []
