"""The measurement of how a local model reads best: kept by model and machine, made once."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backends import local, reading_speed, reading_trial
from backends.base import ModelOptions
from backends.local import LocalBackend
from backends.reading_speed import _MOST_MODELS, default_reading, keep_reading, known_reading
from backends.weights import bundled_weights
from tests.conftest import until
from tests.local_model import BUNDLED

BEST = {"threads": 1, "batch": 128}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glassbox" / "reading_speed.json"


def kept(cache: Path) -> list[dict[str, int]]:
    return list(json.loads(cache.read_text()).values()) if cache.exists() else []


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
    for size in range(_MOST_MODELS + 5):
        model.write_bytes(b"x" * (size + 1))
        keep_reading(model, 1, BEST)
    assert len(kept(cache)) == _MOST_MODELS
    assert known_reading(model, 1) == BEST, "the latest is there"
    assert [file.name for file in cache.parent.iterdir()] == [cache.name], "no temporary file is left"


def test_a_model_that_was_not_measured_reads_with_all_threads_and_ends_a_batch_within_a_second(tmp_path: Path) -> None:
    for size, batch in ((100_000_000, 128), (250_000_000, 64), (1_000_000_000, 32), (40_000_000_000, 32)):
        with (tmp_path / str(size)).open("wb") as file:
            file.truncate(size)
        assert default_reading(tmp_path / str(size), 2) == {"threads": 2, "batch": batch}


@asynccontextmanager
async def loaded() -> AsyncIterator[LocalBackend]:
    """The real model, ready."""
    backend = LocalBackend(BUNDLED)
    await backend.open()
    try:
        await backend.wait_ready()
        assert backend.health().ready
        yield backend
    finally:
        await backend.close()


async def asked(backend: LocalBackend, conversation: str) -> None:
    await backend.wait_ready()
    async with backend.slots.acquire(lambda position: None):
        model = backend.chat_model(ModelOptions(max_tokens=2, conversation=conversation))
        assert [chunk async for chunk in model.astream("Hi")]


async def test_a_model_is_ready_before_it_is_measured(cache: Path) -> None:
    async with loaded() as backend:
        trial = backend._trial
        assert trial and not trial.running and kept(cache) == []
        await asked(backend, "c")
        assert not trial.running


async def test_an_idle_model_is_measured(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_trial, "_QUIET_S", 0.1)
    async with loaded() as backend:
        trial = backend._trial
        assert trial
        await until(lambda: trial.running)
        await until(lambda: not trial.running, 60)
        busy = trial._timer is not None  # then the machine did other things meanwhile, and it is tried again
        assert bool(kept(cache)) != busy
    for measured in kept(cache):
        assert 1 <= measured["threads"] <= (os.cpu_count() or 1) and measured["batch"] in (32, 64, 128, 256, 512)
    assert not trial.running, "nothing is left of it after the end"


async def test_a_message_ends_the_measurement_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_trial, "_QUIET_S", 0.1)
    async with loaded() as backend:
        trial = backend._trial
        assert trial
        await until(lambda: trial._process)
        measuring = trial._process
        assert measuring and measuring.alive
        await backend.wait_ready()
        assert not measuring.alive
        monkeypatch.setattr(reading_trial, "_QUIET_S", 60.0)
        await asked(backend, "c")
        await until(lambda: not trial.running)
        assert trial._timer, "it is tried again later"
        assert kept(cache) == []


async def test_failed_trials_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_trial, "_QUIET_S", 0.01)
    async with loaded() as backend:
        trial = backend._trial
        assert trial
        for number in range(1, reading_trial._TRIALS + 1):
            await until(lambda: trial._process)
            assert trial._trials == number
            trial.interrupt()
            await until(lambda: not trial.running)
        assert trial._timer is None, "the next start measures"


async def test_nothing_is_measured_while_another_model_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_trial, "_QUIET_S", 0.1)
    async with loaded() as backend:
        trial = backend._trial
        assert trial
        await until(lambda: trial._process)
        backend.machine_idle = lambda: False
        await until(lambda: not trial.running)
        count = trial._trials
        await asyncio.sleep(0.5 * 2**count)
        assert trial._trials == count and not trial.running


async def test_a_known_measurement_is_used() -> None:
    keep_reading(bundled_weights(), local._threads(None), BEST)
    async with loaded() as backend:
        assert backend._reading == BEST and backend._trial is None


async def test_a_model_that_has_read_nothing_is_loaded_again_as_measured(cache: Path) -> None:
    other = {"threads": 1, "batch": 64}
    async with loaded() as backend:
        process = backend._process
        await backend._use_reading(bundled_weights(), 1, other)
        assert backend._process is not process and process and not process.alive
        assert backend._reading == other and kept(cache) == [other]
        await asked(backend, "c")


async def test_a_model_that_has_read_a_conversation_keeps_its_process(cache: Path) -> None:
    other = {"threads": 1, "batch": 64}
    async with loaded() as backend:
        await asked(backend, "c")
        process = backend._process
        await backend._use_reading(bundled_weights(), 1, other)
        assert backend._process is process and kept(cache) == [other], "it is used from the next start on"


async def test_a_message_ends_the_loading_of_the_measured_model() -> None:
    async with loaded() as backend:
        process = backend._process
        loading = asyncio.create_task(backend._use_reading(bundled_weights(), 1, {"threads": 1, "batch": 64}))
        await until(lambda: backend._spare is not None)
        spare = backend._spare
        await asked(backend, "c")
        await loading
        assert backend._process is process and spare and not spare.alive
