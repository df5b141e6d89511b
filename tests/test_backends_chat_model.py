"""Accounts: health checks in the background, outcomes of turns, and the end of an account with its key."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel

from backends import Key, ModelOptions
from backends import chat_model as module
from backends.base import Health
from backends.chat_model import ChatModelBackend, ModelBuildError, health_of
from runs.errors import ChatError
from settings import BackendSettings
from tests.conftest import until
from tests.models import Talker

Probe = Callable[[Key | None], Awaitable[Health]]


class Remote(ChatModelBackend):
    """A backend with a key that builds a `Talker`; tests set the results of its probes."""

    kind = "openai"

    def __init__(self, **entry: Any) -> None:
        super().__init__(BackendSettings(name="X", kind="openai", **(entry or {"key": "X_KEY"})))
        self.asked: list[Key | None] = []
        self.built = 0
        self.answer: Probe | None = None
        self.fails: Exception | None = None

    async def probe(self) -> Health:
        self.asked.append(self.key)
        return await self.answer(self.key) if self.answer else Health("ready")

    def build(self) -> BaseChatModel:
        self.built += 1
        if self.fails:
            raise self.fails
        return Talker(text=self.key.reveal() if self.key else "")


def says(state: Any, reason: str = "", **more: Any) -> Probe:
    async def answer(key: Key | None) -> Health:
        return Health(state, reason, **more)

    return answer


async def hangs(key: Key | None) -> Health:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
def key() -> Key:
    return Key("sk-of-the-tests", from_visitor=True)


@pytest.fixture
async def remote(key: Key) -> AsyncIterator[Remote]:
    backend = Remote().bind(key)
    yield backend
    await backend.close()


async def refusal(backend: ChatModelBackend) -> ChatError:
    with pytest.raises(ChatError) as refused:
        await backend.wait_ready()
    return refused.value


def error(code: Any, retry_after: float | None = None) -> ChatError:
    return ChatError(code, "X cannot be reached: is its server running?", retryable=True, retry_after=retry_after)


async def test_a_check_runs_in_the_background_and_builds_the_model(remote: Remote) -> None:
    begun = asyncio.Event()

    async def answer(key: Key | None) -> Health:
        await begun.wait()
        return Health("ready")

    remote.answer = answer
    remote.refresh_health()
    await asyncio.sleep(0)
    assert (remote.health().state, remote.built) == ("loading", 0)
    begun.set()
    await until(lambda: remote.built)
    assert remote.health().ready
    await remote.wait_ready()
    assert remote.built == 1, "the first turn need not wait for it"


async def test_an_operators_key_is_checked_at_the_start(key: Key) -> None:
    backend = Remote()
    backend.key = key
    await backend.open()
    await until(lambda: backend.built)
    assert backend.asked == [key]
    await backend.close()


async def test_a_recent_check_is_not_repeated(remote: Remote, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        remote.refresh_health()
        await asyncio.sleep(0.005)
    assert remote.asked == [key]
    monkeypatch.setitem(module._STALE_S, "ready", 0.0)
    remote.refresh_health()
    await asyncio.sleep(0.005)
    assert remote.asked == [key, key]


async def test_a_failed_check_is_repeated_sooner(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.answer = says("unreachable", "it is away")
    assert (await remote.check_health()).reason == "it is away"
    remote.refresh_health()
    await asyncio.sleep(0.005)
    assert len(remote.asked) == 1
    monkeypatch.setattr(module, "_SOON_S", 0.0)
    remote.answer = says("ready")
    remote.refresh_health()
    await until(lambda: remote.health().ready)
    assert len(remote.asked) == 2


async def test_check_health_repeats_a_recent_check(remote: Remote) -> None:
    await remote.check_health()
    remote.answer = says("key_refused", "no")
    assert (await remote.check_health()).state == "key_refused"
    assert len(remote.asked) == 2


async def test_a_probe_times_out(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 0.02)
    remote.answer = hangs
    health = await asyncio.wait_for(remote.check_health(), 1)
    assert (health.state, health.ready) == ("unreachable", False)
    assert "did not answer" in health.reason


async def test_a_slow_account_does_not_delay_another(remote: Remote) -> None:
    slow = Key("sk-slow")

    async def answer(key: Key | None) -> Health:
        return await hangs(key) if key is slow else Health("ready")

    remote.answer = answer
    remote.bind(slow).refresh_health()
    assert (await asyncio.wait_for(remote.check_health(), 1)).ready
    assert remote.bind(slow).health().state == "loading"
    await asyncio.wait_for(remote.bind(slow).wait_ready(), 1)


async def test_an_exception_of_a_probe_is_reported_without_its_text(remote: Remote) -> None:
    async def refused(key: Key | None) -> Health:
        raise ConnectionRefusedError("sk-secret")

    async def broken(key: Key | None) -> Health:
        raise KeyError("sk-secret")

    remote.answer = refused
    assert "it cannot be reached" in (await remote.check_health()).reason
    remote.answer = broken
    health = await remote.check_health()
    assert (health.state, health.reason) == ("unreachable", "the check failed (KeyError)")
    assert remote.built == 0


async def test_each_key_has_its_own_model_and_its_own_health(remote: Remote, key: Key) -> None:
    other = Key("sk-other")
    await remote.wait_ready()
    await remote.bind(other).wait_ready()
    texts = [getattr(remote.bind(k).chat_model(ModelOptions(max_tokens=5)), "text", "") for k in (key, other)]
    assert texts == ["sk-of-the-tests", "sk-other"]
    remote.bind(other).record_outcome(error("authentication"))
    assert (remote.health().state, remote.bind(other).health().state) == ("ready", "key_refused")


@pytest.mark.parametrize("probe_fails", [False, True])
async def test_an_account_is_dropped_with_its_key(remote: Remote, probe_fails: bool) -> None:
    key = Key("sk-for-a-moment", from_visitor=True)
    if probe_fails:
        remote.fails = ModelBuildError("no")

        async def answer(key: Key | None) -> Health:
            raise ConnectionRefusedError(111, key)

        remote.answer = answer
    bound = remote.bind(key)
    await bound.check_health()
    if not probe_fails:
        await bound.wait_ready()
    bound.record_outcome(error("timeout"))
    account = bound._account
    kept = [weakref.ref(account), weakref.ref(key)]
    if account.model:
        kept.append(weakref.ref(account.model))
    remote.asked.clear()
    del key, bound, account
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)
    assert not list(remote._accounts)


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("rate_limited", "rate_limited"),
        ("authentication", "key_refused"),
        ("backend_unavailable", "unreachable"),
        ("timeout", "unreachable"),
        ("context_too_long", "ready"),
        ("invalid_request", "ready"),
        ("busy", "ready"),
        ("internal", "ready"),
    ],
)
async def test_a_turns_error_sets_the_health(remote: Remote, code: str, state: str) -> None:
    await remote.wait_ready()
    remote.record_outcome(error(code))
    health = remote.health()
    assert (health.state, health.ready) == (state, state == "ready")
    assert bool(health.reason) is not health.ready
    remote.record_outcome(None, 0.5)
    assert remote.health().ready
    assert remote.ttft_s == 0.5


async def test_a_turns_error_becomes_part_of_a_sentence(remote: Remote) -> None:
    remote.record_outcome(error("backend_unavailable"))
    assert remote.health().reason == "it cannot be reached: is its server running?"


@pytest.mark.parametrize(("own", "received"), [(True, "your key"), (False, "the server's key")])
async def test_a_rejected_key_names_its_owner(remote: Remote, own: bool, received: str) -> None:
    bound = remote.bind(Key("sk-of-the-tests", from_visitor=own))
    bound.record_outcome(error("authentication"))
    assert received in bound.health().reason


async def test_a_rate_limit_expires(remote: Remote) -> None:
    await remote.wait_ready()
    remote.record_outcome(error("rate_limited", 0.3))
    health = remote.health()
    assert health.state == "rate_limited"
    assert health.until == pytest.approx(time.time() + 0.3, abs=0.1)
    refused = await refusal(remote)
    assert (refused.code, refused.retryable) == ("rate_limited", True)
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 0.3
    await asyncio.sleep(0.31)
    assert remote.health().ready
    await remote.wait_ready()


async def test_a_successful_probe_does_not_end_a_rate_limit(remote: Remote) -> None:
    remote.record_outcome(error("rate_limited", 30))
    assert (await remote.check_health()).state == "rate_limited"
    remote.record_outcome(error("rate_limited", 0.001))
    await asyncio.sleep(0.002)
    remote.answer = says("key_refused", "no")
    assert (await remote.check_health()).state == "key_refused"


async def test_a_rate_limit_without_a_time_allows_a_second_attempt(remote: Remote) -> None:
    await remote.wait_ready()
    remote.record_outcome(error("rate_limited"))
    await remote.wait_ready()


async def test_a_missing_key_is_reported(remote: Remote) -> None:
    remote = remote.bind(None)
    health = remote.health()
    assert health.state == "key_missing"
    assert "X_KEY" in health.reason
    remote.refresh_health()
    await remote.check_health()
    remote.record_outcome(error("authentication"))
    assert remote.health() == health
    refused = await refusal(remote)
    assert refused.code == "missing_key"
    assert refused.message.startswith("Needs a key. X is not ready: it needs a key")
    assert (remote.asked, remote.built) == ([], 0)


async def test_a_keyless_backend_has_one_account() -> None:
    backend = Remote(base_url="http://127.0.0.1:9/v1")
    await backend.open()
    await until(lambda: backend.health().ready)
    await backend.wait_ready()
    assert (backend.asked, backend.built) == ([None], 1)
    await backend.close()


async def test_a_model_is_unavailable_until_it_can_be_built(remote: Remote) -> None:
    remote.fails = ModelBuildError("a package is missing")
    assert (await remote.check_health()).state == "unavailable"
    refused = await refusal(remote)
    assert (refused.code, refused.retryable) == ("backend_unavailable", False)
    assert refused.message == "X is not available: a package is missing"
    remote.fails = None
    await remote.wait_ready()
    assert remote.health().ready


async def test_any_exception_of_a_build_makes_it_unavailable(remote: Remote) -> None:
    remote.fails = KeyError("sk-secret")
    health = await remote.check_health()
    assert health.state == "unavailable"
    assert "KeyError" in health.reason
    refused = await refusal(remote)
    assert refused.code == "backend_unavailable"
    assert "secret" not in f"{health}{refused.message}"


async def test_concurrent_turns_build_once_and_a_cancel_does_not_end_the_build(remote: Remote) -> None:
    begin = threading.Event()

    def build() -> BaseChatModel:
        remote.built += 1
        assert begin.wait(5)
        return Talker()

    remote.build = build  # type: ignore[method-assign]
    waiting = [asyncio.create_task(remote.wait_ready()) for _ in range(3)]
    await until(lambda: remote.built)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    begin.set()
    await asyncio.gather(*waiting[1:])
    assert (remote.built, waiting[0].cancelled()) == (1, True)
    assert remote.health().ready


async def test_a_provider_without_the_model_is_unavailable(remote: Remote) -> None:
    remote.answer = says("unavailable", "it has no such model")
    await remote.check_health()
    for _ in range(2):
        assert "it has no such model" in (await refusal(remote)).message


@pytest.mark.parametrize("state", ["key_refused", "unreachable"])
async def test_a_failed_probe_does_not_prevent_a_turn(remote: Remote, state: str) -> None:
    remote.answer = says(state, "no")
    await remote.check_health()
    await remote.wait_ready()
    assert remote.health().state == state


async def test_close_ends_probes(key: Key) -> None:
    backend, ended = Remote().bind(key), list[str]()

    async def answer(key: Key | None) -> Health:
        try:
            return await hangs(key)
        finally:
            ended.append("ended")

    backend.answer = answer
    backend.refresh_health()
    await asyncio.sleep(0)
    await asyncio.wait_for(backend.close(), 1)
    assert ended == ["ended"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await backend.close()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, "ready"),
        (204, "ready"),
        (401, "key_refused"),
        (403, "key_refused"),
        (404, "ready"),
        (405, "ready"),
        (429, "rate_limited"),
        (500, "unreachable"),
        (503, "unreachable"),
    ],
)
def test_the_status_of_a_probe_sets_the_health(status: int, state: str) -> None:
    found = health_of("X", None, status, 5.0)
    assert found.state == state
    assert (found.until or 0) == (pytest.approx(time.time() + 5, abs=1) if state == "rate_limited" else 0)
    assert bool(found.reason) is (state != "ready")
