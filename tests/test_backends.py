"""The contract of every kind of backend, and the registry."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from google.genai.errors import ClientError
from langchain_core.messages import HumanMessage, SystemMessage

import backends as module
from agent.loop import agent_events
from agent.model_input import ModelInput
from agent.tool_set import ToolSet
from backends import Backend, Backends, ModelOptions
from backends.langchain import LangChainBackend
from backends.local import LocalBackend
from backends.scripted import ScriptedBackend
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun
from settings import BackendSettings, SettingsError
from tests.conftest import scripted
from tests.grammar import check_run
from tests.local_model import busy_slots, free_within

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = [HumanMessage("endless please: write a long story about a lighthouse keeper")]


@dataclass
class Subject:
    backend: Backend
    at_rest: Callable[[], Awaitable[Any]]
    """Returns when none of the backend's work goes on, and fails if it does go on."""
    at_work: Callable[[], Awaitable[Any]] | None
    """Whether it goes on, where that can be seen from outside."""


async def _no_tasks() -> None:
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture(params=["scripted", "langchain", "local"])
def subject(request: pytest.FixtureRequest, local: LocalBackend) -> Subject:
    if request.param == "scripted":
        return Subject(ScriptedBackend(scripted(speed=20)), _no_tasks, None)
    if request.param == "local":
        return Subject(local, lambda: free_within(local, 0.5), lambda: busy_slots(local))
    calls = [0]
    options = {"text": "word " * 200, "calls": calls}

    async def at_rest() -> None:
        assert calls == [0]

    async def at_work() -> int:
        return calls[0]

    entry = BackendSettings(name="Talker", kind="langchain", options=options, **{"class": "tests.models:Talker"})
    return Subject(LangChainBackend(entry), at_rest, at_work)


async def test_wait_ready_makes_it_ready(subject: Subject) -> None:
    await subject.backend.wait_ready()
    assert subject.backend.health().state == "ready"
    assert subject.backend.health().reason == ""


async def test_its_model_streams(subject: Subject) -> None:
    await subject.backend.wait_ready()
    model = subject.backend.chat_model(ModelOptions(max_tokens=12, temperature=0.1))
    pieces = [chunk.text async for chunk in model.astream([HumanMessage("tell me of lighthouses")]) if chunk.text]
    assert len(pieces) > 3
    await subject.at_rest()


async def test_closing_its_stream_stops_the_model(subject: Subject) -> None:
    await subject.backend.wait_ready()
    model = subject.backend.chat_model(ModelOptions(max_tokens=500))
    async with aclosing(model.astream(LONG)) as chunks:  # type: ignore[type-var]
        found = ""
        async for chunk in chunks:
            found += chunk.text
            if len(found) > 10:
                break
        if subject.at_work:
            assert await subject.at_work() == 1
    await subject.at_rest()


async def test_cancelling_its_reader_stops_the_model(subject: Subject) -> None:
    await subject.backend.wait_ready()
    model, begun = subject.backend.chat_model(ModelOptions(max_tokens=500)), asyncio.Event()

    async def read() -> None:
        async for chunk in model.astream(LONG):
            if chunk.text:
                begun.set()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(begun.wait(), 20)
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()
    await subject.at_rest()


async def test_it_counts_the_tokens_of_texts(subject: Subject) -> None:
    await subject.backend.wait_ready()
    texts = ["", "word", "Some words, in a sentence.", "Some words, in a sentence." * 50, "Ünïcödé 日本 \U0001f600"]
    readings = await subject.backend.count_tokens(texts)
    assert [r.text for r in readings] == texts
    assert readings[0].tokens == 0
    assert 0 < readings[1].tokens < readings[2].tokens < readings[3].tokens < len(texts[3])
    assert readings == await subject.backend.count_tokens(texts)


async def test_a_run_on_it_follows_the_grammar(subject: Subject) -> None:
    await subject.backend.wait_ready()
    model = subject.backend.chat_model(ModelOptions(max_tokens=8))
    messages = [SystemMessage("Be brief.", id="system"), HumanMessage("Who are you?", id="asked")]

    async def work(run: LiveRun) -> None:
        given = ModelInput(messages, [], 4000, "none")
        async with aclosing(agent_events(model, subject.backend, given, ToolSet(), run.tool_calls)) as found:
            async for event in found:
                run.emit(event)

    run = LiveRun(conversation_id="c", backend="b", memory="none", owner="anna", lifetime=Lifetime())
    run.start(work)
    assert run.task
    await run.task
    received = check_run(run)
    assert received[-1]["type"] == "complete"
    assert received[-1]["content"].strip()
    context = next(e for e in received if e["type"] == "context")
    assert [m["content"] for m in context["messages"]] == ["Be brief.", "Who are you?"]
    (reading,) = await subject.backend.count_tokens(["Who are you?"])
    assert context["estimated"] is reading.estimated


def answered(status: int) -> Exception:
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    kinds: dict[int, type[openai.APIStatusError]] = {
        401: openai.AuthenticationError,
        404: openai.NotFoundError,
        429: openai.RateLimitError,
    }
    kind = kinds.get(status, openai.APIStatusError)
    return kind("sk-secret", response=httpx.Response(status, request=request), body=None)


REQUEST = httpx.Request("POST", "http://127.0.0.1/v1")
EXPLAINED: list[tuple[Exception, str, bool]] = [
    (answered(400), "invalid_request", False),
    (answered(401), "authentication", False),
    (answered(403), "authentication", False),
    (answered(404), "backend_unavailable", False),
    (answered(413), "context_too_long", False),
    (answered(429), "rate_limited", True),
    (answered(500), "backend_unavailable", True),
    (answered(503), "backend_unavailable", True),
    (ClientError(429, {"error": {"message": "secret"}}), "rate_limited", True),
    (openai.APIConnectionError(request=REQUEST), "backend_unavailable", True),
    (openai.APITimeoutError(request=REQUEST), "timeout", True),
    (httpx.ConnectError("secret"), "backend_unavailable", True),
    (httpx.RemoteProtocolError("secret"), "backend_unavailable", True),
    (httpx.ReadTimeout("secret"), "timeout", True),
    (ConnectionRefusedError("secret"), "backend_unavailable", True),
    (TimeoutError(), "timeout", True),
]


@pytest.mark.parametrize(("raised", "code", "retryable"), EXPLAINED, ids=lambda v: repr(v)[:40])
async def test_errors_of_sdks_become_chat_errors(
    subject: Subject, raised: Exception, code: str, retryable: bool
) -> None:
    received = subject.backend.to_chat_error(raised)
    assert received
    assert (received.code, received.retryable) == (code, retryable)
    assert subject.backend.name in received.message
    assert "secret" not in received.message


async def test_a_chat_error_is_unchanged_and_a_bug_gives_none(subject: Subject) -> None:
    known = ChatError("busy", "Wait.")
    assert subject.backend.to_chat_error(known) is known
    received = subject.backend.to_chat_error(ValueError("defect"))
    if subject.backend.kind != "langchain":
        assert received is None
    else:  # any class may be named there, so its defects are not ours
        assert received
        assert (received.code, received.retryable) == ("backend_unavailable", False)
        assert "ValueError" in received.message
        assert "defect" not in received.message


async def test_the_registry_keeps_the_order_and_lists_names() -> None:
    registry = Backends([scripted("One"), scripted("Two")])
    assert [b.name for b in registry] == ["One", "Two"]
    assert registry.default is registry.get("One")
    with pytest.raises(ChatError) as refused:
        registry.get("Three" * 100)
    assert refused.value.code == "not_found"
    assert "'One', 'Two'" in refused.value.message
    assert len(refused.value.message) < 200


async def test_a_missing_package_disables_only_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.KINDS, "langchain", "no_such_package.backend:Backend")
    registry = Backends([BackendSettings(name="Gone", kind="langchain"), scripted("Here")])
    await registry.open()
    gone = registry.get("Gone")
    assert gone.health().state == "unavailable"
    assert "no_such_package" in gone.health().reason
    for use in (gone.wait_ready(), asyncio.to_thread(gone.chat_model, ModelOptions(max_tokens=1))):
        with pytest.raises(ChatError) as refused:
            await use
        assert refused.value.code == "backend_unavailable"
    await registry.get("Here").wait_ready()
    await registry.close()


async def test_an_unknown_kind_lists_the_allowed_ones() -> None:
    with pytest.raises(SettingsError) as refused:
        Backends([scripted("A"), BackendSettings(name="B", kind="opnai")])
    received = str(refused.value)
    assert "backend 'B': kind: found 'opnai'; did you mean 'openai'?" in received
    for kind in ("local", "gemini", "openai", "langchain", "scripted"):
        assert f"'{kind}'" in received
    assert "'A'" not in received


@pytest.mark.parametrize(
    ("entry", "received"),
    [
        ({"kind": "langchain"}, "class: found None"),
        ({"kind": "langchain", "class": "no colon"}, "class: found 'no colon'"),
        ({"kind": "local", "model": "gpt-5"}, "model: found 'gpt-5'"),
        ({"kind": "local", "thinking": "switch"}, "thinking: found 'switch'"),
    ],
)
async def test_an_unusable_entry_stops_the_start(entry: dict[str, Any], received: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Backends([BackendSettings(name="Wrong", **entry)])
    assert "'Wrong'" in str(refused.value)
    assert received in str(refused.value)
    assert "allowed" in str(refused.value)


@pytest.mark.parametrize("kind", sorted(module.KINDS.keys() - {"agent", "agui"}))  # these are never offered tools
@pytest.mark.parametrize("tools", [True, False])
async def test_the_setting_tools_applies_to_every_model(kind: str, tools: bool) -> None:
    needs = {"langchain": {"class": "tests.models:Talker"}, "local": {}, "scripted": {}}.get(kind, {"model": "m"})
    entry = BackendSettings(name="Backend", kind=kind, tools=tools, **needs)
    assert Backends([entry]).default.offers_tools is tools
