"""The process of a local model: its secrets, its end and restart, and how texts are counted in it."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from langchain_core.messages import HumanMessage

from backends import tokenizer, watchdog
from backends.base import CountedText, ModelOptions
from backends.local import LocalBackend
from backends.weights import bundled_weights
from runs.errors import ChatError
from settings import BackendSettings
from tests.conftest import until
from tests.grammar import check_run
from tests.local_model import BUNDLED, event_with, on_session_loop, started


@pytest_asyncio.fixture(loop_scope="session")
async def own() -> AsyncIterator[LocalBackend]:
    """A backend whose process a test may kill."""
    backend = LocalBackend(BUNDLED.model_copy(update={"context": 512, "slots": 1}))
    await backend.open()
    yield backend
    await backend.close()


@on_session_loop
async def test_the_process_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "GLASSBOX_SECRET", "GLASSBOX_DATABASE_URL", "GLASSBOX_AUTH"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("GGML_OF_THE_TESTS", "kept")
    backend = LocalBackend(BUNDLED)
    await backend.open()
    try:
        await backend.wait_ready()
        assert backend._process
        given = psutil.Process(backend._process.pid).environ()
    finally:
        await backend.close()
    assert "canary" not in given.values()
    assert given["GGML_OF_THE_TESTS"] == "kept"


@on_session_loop
async def test_a_killed_process_is_reported_and_restarted(own: LocalBackend) -> None:
    assert own.health().state == "loading"
    await own.wait_ready()
    run = started(own, "Write a long story about a lighthouse")
    await event_with(run, '"type":"token"')
    assert own._process
    os.kill(own._process.pid, signal.SIGKILL)
    assert run.task
    await asyncio.wait_for(asyncio.shield(asyncio.wait({run.task})), 10)
    assert check_run(run)[-1]["type"] == "error"
    await until(lambda: not (own._process and own._process.alive))
    assert own.health().state == "unavailable"
    assert "next message" in own.health().reason
    await own.wait_ready()
    assert own.health().state == "ready"
    model: Any = own.chat_model(ModelOptions(max_tokens=3))
    assert (await model.ainvoke([HumanMessage("Hi")])).text
    assert model.extra_body["repeat_penalty"] > 1, "or so small a model goes round in circles"
    child = psutil.Process(own._process.pid)
    await own.close()
    assert not child.is_running()


@on_session_loop
async def test_a_hanging_process_is_reported_killed_and_restarted(
    own: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_EVERY_S", 0.3)
    monkeypatch.setattr(watchdog, "_TIMEOUT_S", 1.0)
    await own.wait_ready()
    assert own._process
    hung = own._process
    os.kill(hung.pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(own.count_tokens([f"text {n}"])) for n in range(20)]
    await until(lambda: own.health().state == "unreachable")
    assert "does not respond" in own.health().reason
    async with asyncio.timeout(2):  # what waits for the process holds up none of the threads that all share
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(20)))
    failed = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
    assert all(isinstance(error, ChatError) and error.retryable for error in failed)
    await until(lambda: not hung.alive)
    await own.wait_ready()
    assert own.health().ready
    assert (await own.count_tokens(["text"]))[0].tokens == 1


@on_session_loop
async def test_many_texts_are_counted_in_few_requests(local: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local._tokenizer
    texts = [f"word <{n}> [of] many" for n in range(3000)]
    requests: list[str] = []
    client = local._tokenizer._client
    real = client._request
    monkeypatch.setattr(
        client, "_request", lambda method, path, body: requests.append(path) or real(method, path, body)
    )
    readings = await local.count_tokens([*texts, *texts])
    assert len(requests) == 1, "no further one to look for control words"
    for n in range(0, 3000, 500):
        assert (
            readings[n]
            == readings[3000 + n]
            == CountedText(texts[n], len(local._tokenizer._client.tokenize(texts[n], special=False)))
        )


@on_session_loop
async def test_the_cache_of_counted_texts_is_bounded_in_characters(
    local: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "_CACHED_CHARACTERS", 50_000)
    assert local._tokenizer
    for n in range(40):
        await local.count_tokens([f"{n} " + "x " * 2_000, f"{n}", "again"])
        assert local._tokenizer._cached <= 50_000
    assert "again" in local._tokenizer._cache and "0" not in local._tokenizer._cache
    await local.count_tokens(["y " * 60_000])
    assert local._tokenizer._cached == sum(len(text) + 100 for text in local._tokenizer._cache) <= 50_000


@on_session_loop
@pytest.mark.parametrize("kind", ["missing", "truncated", "garbage", "other", "folder"])
async def test_weights_that_cannot_be_loaded_are_reported_with_advice(tmp_path: Path, kind: str) -> None:
    path, bundled = tmp_path / "weights.gguf", bundled_weights()
    assert bundled
    match kind:
        case "truncated":
            with bundled.open("rb") as whole:
                path.write_bytes(whole.read(3_000_000))
        case "garbage":
            path.write_bytes(b"GGUF" + random.Random(5).randbytes(100_000))
        case "other":
            path.write_bytes(b"<!DOCTYPE html>")
        case "folder":
            path.mkdir()
    backend = LocalBackend(BackendSettings(name="Broken", kind="local", model=str(path)))
    await backend.open()
    for _ in range(2):
        with pytest.raises(ChatError) as refused:
            await asyncio.wait_for(backend.wait_ready(), 60)
        assert refused.value.code == "backend_unavailable"
        assert "weights.gguf" in refused.value.message
        assert "make setup" in refused.value.message
        assert str(tmp_path) not in refused.value.message
    assert backend.health().state == "unavailable"
    await backend.close()
    assert backend._process is None


@on_session_loop
async def test_close_during_loading_leaves_no_process() -> None:
    before = set(psutil.Process().children())
    backend = LocalBackend(BUNDLED)
    await backend.open()
    await until(lambda: set(psutil.Process().children()) - before)
    children = set(psutil.Process().children()) - before
    await backend.close()
    assert not any(process.is_running() for process in children)


@on_session_loop
async def test_short_text_is_counted_between_the_steps_of_a_long_conversation(local: LocalBackend) -> None:
    long = asyncio.create_task(local.count_tokens([f"{n} " + "of a long conversation " * 500 for n in range(300)]))
    await asyncio.sleep(0)
    await local.count_tokens(["a short text"])
    assert not long.done()
    assert len(await long) == 300
