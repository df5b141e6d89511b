"""The kind `agui`: its settings, its health, and the mapping of its failures."""

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backends import Backends
from backends.agui import AguiBackend, outside_id
from backends.agui_client import FailedRun, RejectedRequest
from bench.ports import free_port
from runs.errors import ChatError
from settings import BackendSettings, SettingsError
from tests.agui_servers import served

SECRET = "Bearer sk-canary"


def entry(**more: Any) -> BackendSettings:
    return BackendSettings.model_validate({"name": "Remote", "kind": "agui", **more})


def backend_at(url: str, **more: Any) -> AguiBackend:
    backend = Backends([entry(base_url=url, **more)], {"AGENT_TOKEN": SecretStr(SECRET)}).default
    assert isinstance(backend, AguiBackend)
    return backend


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    def answer(request: Request) -> Response:
        if request.headers.get("authorization") not in (None, SECRET):
            return Response(status_code=401)
        return Response(status_code=int(request.path_params["status"]), headers={"Retry-After": "30"})

    with served(Starlette(routes=[Route("/{status}", answer)])) as url:
        yield url


def test_an_address_keeps_its_last_slash_and_has_two_names() -> None:
    for address in ("http://a.example/agent/", "https://a.example:8000/agent", "http://[::1]:8000/"):
        assert entry(base_url=address).base_url == entry(url=address).base_url == address
    for bad in ("ftp://a.example", "a.example/agent", "http://user:password@a.example", "http://", "http://a b"):
        with pytest.raises(ValidationError, match="not a valid address") as refused:
            entry(url=bad)
        assert "password@" not in str(refused.value.errors()[0]["msg"])
    with pytest.raises(ValidationError, match="remove one of them"):
        entry(url="http://a.example", base_url="http://b.example")
    with pytest.raises(SettingsError, match="base_url: missing"):
        Backends([entry()])
    with pytest.raises(SettingsError, match="key: not used by the kind 'agui'"):
        Backends([entry(url="http://a.example", key="A_KEY")])


def test_headers_name_variables() -> None:
    both = {"Authorization": "AGENT_TOKEN", "X-Team": "red ${TEAM}"}
    assert entry(url="http://a.example", headers=both).variables == ["AGENT_TOKEN", "TEAM"]
    keys = {"AGENT_TOKEN": SecretStr(SECRET), "TEAM": SecretStr("one")}
    settings = Backends([entry(url="http://a.example", headers=both)], keys).default.settings
    assert settings.headers == {"Authorization": SECRET, "X-Team": "red one"}
    with pytest.raises(SettingsError, match="the variable 'TEAM' is not set"):
        Backends([entry(url="http://a.example", headers=both)], {"AGENT_TOKEN": SecretStr(SECRET)})
    for secret in ("Bearer sk-123", "sk-123", "SKABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        with pytest.raises(ValidationError, match="name an environment variable") as refused:
            entry(url="http://a.example", headers={"Authorization": secret})
        assert secret not in refused.value.errors()[0]["msg"]
    with pytest.raises(SettingsError, match="no header can have") as stopped:
        Backends([entry(url="http://a.example", headers=both)], keys | {"TEAM": SecretStr("line\nbreak")})
    assert "line" not in str(stopped.value)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((status, "ready") for status in (200, 302, 404, 405)),
        (403, "key_refused"),
        (429, "rate_limited"),
        (502, "unreachable"),
    ],
)
async def test_health_is_whether_the_server_answers(url: str, status: int, state: str) -> None:
    backend = backend_at(f"{url}/{status}", headers={"Authorization": "AGENT_TOKEN"})
    assert (await backend.check_health()).state == state
    if state == "rate_limited":
        with pytest.raises(ChatError, match="Rate limited"):
            await backend.wait_ready()
    else:
        await backend.wait_ready()


async def test_a_check_that_is_not_allowed_says_nothing_after_a_turn(url: str) -> None:
    backend = backend_at(f"{url}/403")
    assert (await backend.check_health()).state == "key_refused"
    backend.record_outcome(None)
    assert (await backend.check_health()).ready


async def test_an_unreachable_server_says_so_and_may_be_tried() -> None:
    backend = backend_at(f"http://127.0.0.1:{free_port()}/agent")
    assert backend.health().state == "loading"
    health = await backend.check_health()
    assert (health.state, health.reason) == (
        "unreachable",
        "it cannot be reached: is its server running, and is there a network?",
    )
    await backend.wait_ready()
    backend.record_outcome(None)
    assert backend.health().ready
    backend.record_outcome(ChatError("authentication", "Remote is not ready."))
    assert backend.health().state == "key_refused" and "headers" in backend.health().reason
    await backend.close()


def test_a_failure_names_its_code_and_not_its_text() -> None:
    backend = backend_at("http://a.example")
    failed = FailedRun({"type": "RUN_ERROR", "code": "tool_limit", "message": SECRET})
    error = backend.to_chat_error(failed)
    assert error and error.message == "Remote failed (tool_limit): try again. The log has its text." and error.retryable
    for body in ("sk-canary", f'{{"detail": "{SECRET}"}}'):
        response = httpx.Response(422, request=httpx.Request("POST", "http://a.example"))
        error = backend.to_chat_error(RejectedRequest(response, body))
        assert error and error.code == "invalid_request" and "canary" not in error.message


def test_the_log_has_the_text_of_a_failure_without_keys(caplog: pytest.LogCaptureFixture) -> None:
    from backends.errors import log_text
    from backends.keys import redact_keys

    backend_at("http://a.example", headers={"Authorization": "AGENT_TOKEN"})
    caplog.set_level(logging.INFO)
    received = log_text(FailedRun({"message": f"the planner is broken: {SECRET}"}))
    assert "the planner is broken" in received and "canary" not in redact_keys(received)


def test_ids_of_glassbox_are_not_sent() -> None:
    remembers, forgets = backend_at("http://a.example", memory="own"), backend_at("http://a.example")
    assert remembers.thread_id("run", "conversation") == outside_id("conversation") != "conversation"
    assert forgets.thread_id("run", "conversation") == outside_id("run")
