"""The kind `langchain` with real classes of langchain-community: keys, options and missing features."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memory.options import TurnOptions
from settings import BackendSettings
from tests import providers
from tests.conftest import until
from tests.house import CANARY, asked_for_replies, closed_within, housed, of
from tests.providers import OpenAIServer, Reply
from tests.remote import APART

MODELS = "langchain_community.chat_models"
ROOT = Path(__file__).parent.parent


def langchain(path: str, **more: Any) -> BackendSettings:
    return BackendSettings(
        **{"name": "Model", "kind": "langchain", "class": f"{MODELS}.{path}", "timeout": 5.0, **more}
    )


def baichuan(server: OpenAIServer | None = None, **more: Any) -> BackendSettings:
    """An entry whose class has `lc_secrets`."""
    options = {"baichuan_api_base": f"{server.base_url}/chat/completions", "streaming": True} if server else {}
    return langchain("baichuan:ChatBaichuan", **{"options": options, "key": "BAICHUAN_API_KEY", **more})


def minimax(server: OpenAIServer | None = None, **more: Any) -> BackendSettings:
    """An entry whose class has no `lc_secrets`."""
    options = {"minimax_api_host": f"{server.base_url}/chat/completions", "streaming": True} if server else {}
    named = {"options": options, "key": "MINIMAX_API_KEY", "key_field": "minimax_api_key", **more}
    return langchain("minimax:MiniMaxChat", **{name: value for name, value in named.items() if value is not None})


pytestmark = pytest.mark.filterwarnings("ignore:`langchain-community`:DeprecationWarning")
both = pytest.mark.parametrize("entry", [baichuan, minimax])


@both
async def test_a_reply_streams_with_the_key_in_a_header_only(tmp_path: Path, entry: Any) -> None:
    with OpenAIServer(Reply(["Hello", ", ", "wörld"], pause=APART)) as server:
        settings = entry(server)
        async with housed(tmp_path, settings, **{str(settings.key): CANARY}) as house:
            assert (await house.health()).ready
            received = await house.ask(options=TurnOptions(system_prompt="Be brief.", temperature=0.25))
            listed = house.backends.describe("anna")[0]
    assert [e["content"] for e in of(received, "token")] == ["Hello", ", ", "wörld"]
    assert received[-1]["type"] == "complete"
    assert received[-1]["timing"]["duration_s"] >= 3 * APART
    (request,) = server.requests
    assert [CANARY in value for value in request.headers.values()].count(True) == 1
    assert request.headers["authorization"] == f"Bearer {CANARY}"
    assert CANARY not in request.path + json.dumps(request.body)
    assert request.body["temperature"] == 0.25
    assert [(m["role"], m["content"]) for m in request.body["messages"]] == [("system", "Be brief."), ("user", "Hi")]
    assert (listed["takes"], listed["key"]) == (["system_prompt", "temperature", "max_tokens"], "everybody's")


@both
async def test_a_visitors_key_takes_precedence_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Any
) -> None:
    with OpenAIServer() as server:
        settings = entry(server)
        monkeypatch.setenv(str(settings.key), "env-key-of-the-operator")
        before = dict(os.environ)
        async with housed(tmp_path, settings) as house:
            house.backends.keys.put("anna", "Model", CANARY)
            assert (await house.ask())[-1]["type"] == "complete"
            assert CANARY not in await house.left_behind()
    assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert "env-key" not in str(server.requests)
    assert dict(os.environ) == before


@both
async def test_a_lost_connection_keeps_the_reply_so_far(tmp_path: Path, entry: Any) -> None:
    with OpenAIServer(Reply(breaks="cut", after=2, pause=APART)) as server:
        settings = entry(server)
        async with housed(tmp_path, settings, **{str(settings.key): CANARY}) as house:
            received = await house.ask()
    assert (received[-1]["code"], received[-1]["retryable"]) == ("backend_unavailable", True)
    assert received[-1]["content"] == "Hello there"
    assert "broke off" in received[-1]["message"]
    assert len(asked_for_replies(server)) == 1


@both
async def test_a_rejected_key_is_reported_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Any
) -> None:
    """These classes ignore the status; their exception for an unreadable body is still mapped to the key."""
    monkeypatch.setattr("agent.retries._BACKOFF", lambda state: 0.0)
    with OpenAIServer(providers.BAD_KEY) as server:
        settings = entry(server)
        async with housed(tmp_path, settings, **{str(settings.key): CANARY}) as house:
            received = await house.ask()
    assert received[-1]["type"] == "error"
    assert "check its address and the key" in received[-1]["message"]


@both
async def test_a_stop_ends_the_connection(tmp_path: Path, entry: Any) -> None:
    with OpenAIServer(Reply(), Reply(["word "] * 5000, pause=0.004)) as server:
        settings = entry(server)
        async with housed(tmp_path, settings, **{str(settings.key): CANARY}) as house:
            await house.ask()
            for number in range(4):
                run = await house.start()
                await until(lambda run=run: run.text, 5)
                await asyncio.sleep(0.013 * number)
                stopping = asyncio.create_task(run.stop("user"))
                await closed_within(server, 0.5)
                await stopping
    assert len(server.disconnects) == 4


async def test_the_longest_reply_is_in_the_request(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, minimax(server), MINIMAX_API_KEY=CANARY) as house:
            await house.ask(options=TurnOptions(max_tokens=77))
            await house.ask()
    tuned, plain = (request.body for request in server.requests)
    assert (tuned["max_tokens"], plain["max_tokens"]) == (77, 256)
    assert plain["temperature"] == 0.7, "the class's own"


async def test_a_longest_reply_that_the_class_ignores_still_cuts_the_reply(tmp_path: Path) -> None:
    with OpenAIServer(Reply(["word "] * 60, pause=0.005)) as server:
        async with housed(tmp_path, baichuan(server), BAICHUAN_API_KEY=CANARY) as house:
            received = await house.ask(options=TurnOptions(max_tokens=10))
    assert "max_tokens" not in server.requests[0].body
    assert len(of(received, "token")) < 30


async def test_a_class_without_fields_supports_only_a_system_prompt(tmp_path: Path) -> None:
    text = "Hello there, friend."
    entry = langchain("fake:FakeListChatModel", options={"responses": [text], "sleep": 0.001})
    async with housed(tmp_path, entry) as house:
        assert (await house.health()).ready
        listed = house.backends.describe("anna")[0]
        assert (listed["takes"], listed["key"]) == (["system_prompt"], None)
        received = await house.ask(options=TurnOptions(temperature=1.5))
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", text)
        assert len(of(received, "token")) == len(text)
        cut = await house.ask(options=TurnOptions(max_tokens=5))
        assert (cut[-1]["type"], cut[-1]["reason"], cut[-1]["content"]) == ("stopped", "limit", "Hello")


UNUSABLE = [
    pytest.param(
        minimax(key_field=None),
        "MiniMaxChat does not say which field takes MINIMAX_API_KEY: name it in `key_field`",
        id="no lc_secrets",
    ),
    pytest.param(
        baichuan(key="MY_KEY"),
        "ChatBaichuan does not say which field takes MY_KEY: name it in `key_field`",
        id="another variable",
    ),
    pytest.param(
        minimax(key_field="minimax_key"),
        "MiniMaxChat has no field 'minimax_key'",
        id="no such field",
    ),
    pytest.param(
        baichuan(key_field="secret"),
        "ChatBaichuan has no field 'secret'",
        id="no such field, and any are taken",
    ),
    pytest.param(
        langchain("tongyi:ChatTongyi", key="DASHSCOPE_API_KEY"),
        "ChatTongyi needs dashscope that is not installed",
        id="missing package",
    ),
    pytest.param(langchain("tongyi:ChatTongyi", key="DASHSCOPE_API_KEY"), "is not installed", id="some package"),
    pytest.param(langchain("baichuan:Chat"), "no 'Chat' in langchain_community.chat_models.baichuan", id="no class"),
    pytest.param(langchain("baichuan2:Chat"), "baichuan2 cannot be imported", id="no module"),
    pytest.param(langchain("fake:FakeListChatModel"), "FakeListChatModel did not accept its options", id="no options"),
]


@pytest.mark.parametrize(("entry", "reason"), UNUSABLE)
async def test_a_model_that_cannot_be_created_is_unavailable_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: BackendSettings, reason: str
) -> None:
    if entry.key:
        monkeypatch.setenv(entry.key, "env-key-of-the-operator")
    async with housed(tmp_path, entry, **({entry.key: CANARY} if entry.key else {})) as house:
        health = await house.health()
        assert health.state == "unavailable"
        assert reason in health.reason
        received = await house.ask()
        assert received[-1]["code"] == "backend_unavailable"
        assert reason in received[-1]["message"]


PROVIDERS = [
    "langchain_google_genai",
    "google.genai",
    "langchain_openai",
    "openai",
    "langchain_community",
    "xllamacpp",
    "tiktoken",
]


def test_a_provider_is_imported_on_first_use() -> None:
    """Checked in a new process; Gradio's own imports do not count."""
    code = """if True:
        import sys, gradio
        before = set(sys.modules)
        new = lambda: print(*(set(sys.modules) - before))
        import app
        from backends import Backends
        from settings import BackendSettings, load_settings
        Backends([BackendSettings(name="Script", kind="scripted")])
        new()
        Backends([*load_settings({}).backends, BackendSettings(name="Other", kind="openai", model="m")])
        new()
        import tiktoken
        new()"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    unused, configured, used = [
        {name for name in PROVIDERS if any(f"{module}.".startswith(f"{name}.") for module in line.split())}
        for line in done.stdout.splitlines()
    ]
    assert (unused, configured) == (set(), set())
    assert used == {"tiktoken"}, "it would be seen"
