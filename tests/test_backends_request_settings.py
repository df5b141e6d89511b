"""The settings of requests to OpenAI-compatible servers: `fields`, `extra_body`, `headers`, `query`, `system_role`."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends import Backends
from memory.options import TurnOptions
from settings import SettingsError, load_settings
from tests.house import CANARY, asked_for_replies
from tests.providers import OpenAIServer, Request
from tests.test_backends_adaptive_chat import picky


async def test_the_settings_rename_drop_and_add_fields(tmp_path: Path) -> None:
    more = {
        "fields": {"max_tokens": "max_completion_tokens", "temperature": False, "stream_options": False},
        "extra_body": {"think": False, "provider": {"order": ["a"]}},
        "headers": {"X-Title": "Glassbox", "api-key": "${PICKY_KEY}"},
        "query": {"api-version": "2026-01-01", "token": "t-${PICKY_KEY}"},
        "system_role": "developer",
    }
    async with picky(tmp_path, **more, PICKY_KEY=CANARY) as (house, server):
        await house.health()
        takes = house.backends.describe("anna")[0]["takes"]
    assert takes == ["system_prompt", "max_tokens"]
    (probe,) = server.requests
    assert probe.path == f"/v1/models?api-version=2026-01-01&token=t-{CANARY}"
    assert (probe.headers["x-title"], probe.headers["api-key"]) == ("Glassbox", CANARY)
    assert "authorization" not in probe.headers


class WithQuery(OpenAIServer):
    """A server that ignores the query."""

    def streams(self, request: Request) -> bool | None:
        return bool(request.body.get("stream")) if request.path.startswith("/v1/chat/completions") else None


async def test_requests_have_the_fields_headers_and_query_of_the_settings(tmp_path: Path) -> None:
    more = {
        "fields": {"max_tokens": "max_completion_tokens", "temperature": False, "stream_options": False},
        "extra_body": {"think": False},
        "headers": {"X-Title": "Glassbox", "api-key": "${PICKY_KEY}"},
        "query": {"api-version": "2026-01-01"},
        "system_role": "developer",
        "options": {"extra_body": {"top_k": 5}, "default_headers": {"X-More": "yes"}},
    }
    async with picky(tmp_path, **more, PICKY_KEY=CANARY, server=WithQuery) as (house, server):
        received = await house.ask(options=TurnOptions(temperature=0.3, system_prompt="Be brief."))
    assert received[-1]["type"] == "complete", received[-1]
    (request,) = asked_for_replies(server)
    assert request.path == "/v1/chat/completions?api-version=2026-01-01"
    assert request.body == {
        "model": "test-model",
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "max_completion_tokens": 256,
        "think": False,
        "top_k": 5,
    }
    assert (request.headers["x-title"], request.headers["x-more"]) == ("Glassbox", "yes")
    assert request.headers["api-key"] == CANARY
    assert "authorization" not in request.headers


async def test_thinking_is_switched_where_the_template_can(tmp_path: Path) -> None:
    more = {"thinking": "switch", "extra_body": {"chat_template_kwargs": {"style": "short"}, "top_k": 5}}
    async with picky(tmp_path, **more, PICKY_KEY=CANARY) as (house, server):
        assert "thinking" in house.backends.describe("anna")[0]["takes"]
        for thinking in (None, False, True):
            assert (await house.ask(options=TurnOptions(thinking=thinking)))[-1]["type"] == "complete"
    bodies = [request.body for request in asked_for_replies(server)]
    switched = [{}, {"enable_thinking": False}, {"enable_thinking": True}]
    assert [body["chat_template_kwargs"] for body in bodies] == [{"style": "short"} | one for one in switched]
    assert {body["top_k"] for body in bodies} == {5}


async def test_thinking_is_not_switched_elsewhere(tmp_path: Path) -> None:
    async with picky(tmp_path, PICKY_KEY=CANARY) as (house, server):
        assert "thinking" not in house.backends.describe("anna")[0]["takes"]
        assert (await house.ask(options=TurnOptions(thinking=False)))[-1]["type"] == "complete"
    assert "chat_template_kwargs" not in asked_for_replies(server)[0].body


async def test_an_authorization_header_replaces_the_key(tmp_path: Path) -> None:
    more = {"headers": {"authorization": "Basic ${PICKY_KEY}"}}
    async with picky(tmp_path, **more, PICKY_KEY=CANARY) as (house, server):
        assert (await house.health()).ready
        assert (await house.ask())[-1]["type"] == "complete"
    assert [request.headers["authorization"] for request in server.requests] == [f"Basic {CANARY}"] * 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"headers": {"X Y": "a"}}, "'X Y'"),
        ({"headers": {"X": "a\nb"}}, "'X'"),
        ({"headers": f"Bearer {CANARY}"}, "headers"),
        ({"headers": {"X": ["" + CANARY]}}, "headers"),
        ({"fields": {"messages": False}}, "'messages'"),
        ({"fields": {"temperature": True}}, "fields"),
        ({"fields": {"temperature": "a b"}}, "'a b'"),
        ({"system_role": "boss"}, "'boss'"),
        ({"headers": {"X": "${NOT_SET_ANYWHERE}"}}, "NOT_SET_ANYWHERE"),
    ],
)
def test_wrong_settings_stop_the_start(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    def toml(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
        return json.dumps(value)

    lines = [f"{name} = {toml(value)}" for name, value in more.items()]
    file = tmp_path / "glassbox.toml"
    file.write_text("\n".join(['[[backends]]\nname = "A"\nkind = "openai"\nmodel = "m"', *lines]))
    with pytest.raises(SettingsError) as raised:
        load_settings({"config": str(file)}, {})
    assert said in str(raised.value)
    assert CANARY not in str(raised.value)


def test_variables_reach_the_backend_and_are_never_printed(tmp_path: Path) -> None:
    file = tmp_path / "glassbox.toml"
    head = '[[backends]]\nname = "A"\nkind = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:1/v1"\n'
    file.write_text(head + 'headers = { "X-Key" = "${OWN_TOKEN}" }')
    settings = load_settings({"config": str(file)}, {"OWN_TOKEN": CANARY})
    backends = Backends(settings.backends, settings.keys)
    assert backends.default.settings.headers == {"X-Key": CANARY}
    assert CANARY not in f"{settings!r} {settings} {backends.default.settings!r}"


async def test_a_field_of_extra_body_may_replace_another(tmp_path: Path) -> None:
    more = {"fields": {"max_tokens": False}, "extra_body": {"max_completion_tokens": 5}}
    async with picky(tmp_path, **more) as (house, server):
        await house.ask()
    (request,) = asked_for_replies(server)
    assert ("max_tokens" in request.body, request.body["max_completion_tokens"]) == (False, 5)
