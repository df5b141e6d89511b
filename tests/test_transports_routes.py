"""The routes of a running app, with its page and without."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agent.turn import TurnRequest
from app import App
from bench.ports import free_port
from hosting.identity import COOKIE
from runs.errors import ChatError
from settings import BackendSettings, LimitSettings
from tests.conftest import scripted
from tests.live_app import Api, launch_app, live_api, live_app

SECRET, VISITORS = "sk-of-the-operator", "sk-of-a-visitor"


def settings(**more: Any) -> dict[str, Any]:
    broken = BackendSettings(name="Gone", kind="langchain", **{"class": "no_such_package:Model"})
    away: Any = {"kind": "openai", "model": "m", "base_url": f"http://127.0.0.1:{free_port()}/v1"}
    keyed = BackendSettings(name="Keyed", key="KEYED_KEY", fallback="Script", context=1000, **away)
    bring = BackendSettings(name="Bring", key="BRING_KEY", **away)
    return {
        "backends": [scripted("Script", speed=5), broken, keyed, bring],
        "keys": {"KEYED_KEY": SecretStr(SECRET)},
        "limits": LimitSettings(body_bytes=50_000),
        **more,
    }


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with live_api(tmp_path_factory.mktemp("open"), **settings()) as app:
        yield app


@pytest.fixture(scope="module")
def page_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with live_app(tmp_path_factory.mktemp("page"), **settings()) as app:
        yield app


@pytest.fixture(scope="module")
def closed_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with live_app(tmp_path_factory.mktemp("closed"), **settings(auth=("ann", "one"), on_space=True)) as app:
        yield app


@pytest.fixture
def page(page_app: App) -> Iterator[httpx.Client]:
    """A client of the app with its page, without a cookie."""
    with httpx.Client(base_url=page_app.url, timeout=20) as client:
        yield client


@pytest.fixture
def http(app: Api) -> Iterator[httpx.Client]:
    """A client without a cookie."""
    with httpx.Client(base_url=app.url, timeout=20) as client:
        yield client


@pytest.fixture
def browser(app: Api) -> Iterator[httpx.Client]:
    """A client with a visitor's cookie."""
    with httpx.Client(base_url=app.url, timeout=20) as client:
        client.get("/example").raise_for_status()
        yield client


TALK = [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Hello"}]


def imported(client: httpx.Client, messages: Any = TALK) -> str:
    answer = client.post("/conversations", json={"messages": messages})
    assert answer.status_code == 200
    return str(answer.json()["conversation_id"])


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json().keys()) == (status, {"code", "message"})
    assert answer.json()["code"] == code
    return str(answer.json()["message"])


def test_the_page_and_its_health_are_served(page: httpx.Client) -> None:
    assert page.get("/healthz").json() == {"status": "ok"}
    answer = page.get("/")
    assert answer.status_code == 200
    assert "Glassbox" in answer.text


def test_unexpected_exception_is_an_internal_error_and_logged(
    http: httpx.Client, app: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(visitor: str | None) -> None:
        raise KeyError("/home/somebody")

    monkeypatch.setattr(app.backends, "describe", broken)
    assert "somebody" not in refused(http.get("/backends"), 500, "internal")
    assert [record.message for record in caplog.records if record.exc_info] == ["GET /backends failed"]


def listed(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """The backends of `GET /backends` by name."""
    answer = client.get("/backends").raise_for_status()
    assert SECRET not in answer.text
    assert VISITORS not in answer.text
    return {received["name"]: received for received in answer.json()}


def settled(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """The backends once none is loading."""
    for _ in range(200):
        found = listed(client)
        if not [received for received in found.values() if received["state"] == "loading"]:
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def test_backends_are_listed_in_order_with_their_fields(http: httpx.Client) -> None:
    found = listed(http)
    assert list(found) == ["Script", "Gone", "Keyed", "Bring"]
    fields = {"name", "kind", "ready", "state", "reason", "progress", "until", "ttft_s", "key", "takes", "fallback"}
    fields |= {"context", "about", "prompts", "model", "models", "thinking", "images", "tools", "continues_replies"}
    fields |= {"download_bytes", "can_download"}
    assert all(received.keys() == fields for received in found.values())
    script, keyed = found["Script"], found["Keyed"]
    assert (script["kind"], script["ready"], script["state"], script["reason"]) == ("scripted", True, "ready", None)
    assert (script["takes"], script["key"], script["fallback"], script["context"]) == ([], None, None, 8192)
    assert "rate limit" in script["prompts"]
    assert "No model" in script["about"]
    assert (keyed["takes"], keyed["fallback"]) == (["system_prompt", "temperature", "max_tokens"], "Script")
    assert (keyed["model"], keyed["models"], script["model"]) == ("m", [], None)
    assert (keyed["context"], keyed["prompts"], keyed["ttft_s"]) == (1000, {}, None)


def test_a_backend_that_is_not_ready_says_why(http: httpx.Client) -> None:
    found = settled(http)
    states = {name: received["state"] for name, received in found.items()}
    assert states == {"Script": "ready", "Gone": "unavailable", "Keyed": "unreachable", "Bring": "key_missing"}
    assert all(received["ready"] is (received["state"] == "ready") for received in found.values())
    assert "no_such_package" in found["Gone"]["reason"]
    assert "cannot be reached" in found["Keyed"]["reason"]
    assert "BRING_KEY" in found["Bring"]["reason"]


def test_a_rate_limit_says_until_when(app: Api, http: httpx.Client) -> None:
    settled(http)
    backend = app.backends.get("Keyed")
    backend.record_outcome(ChatError("rate_limited", "Too many.", retryable=True, retry_after=30))
    received = listed(http)["Keyed"]
    assert (received["state"], received["ready"]) == ("rate_limited", False)
    assert received["until"] == pytest.approx(time.time() + 30, abs=5)
    backend.record_outcome(None, 0.25)
    received = listed(http)["Keyed"]
    assert (received["state"], received["ttft_s"]) == ("ready", 0.25)


def test_each_visitor_sees_whose_key_is_used(app: Api, http: httpx.Client, browser: httpx.Client) -> None:
    def keys(client: httpx.Client) -> list[Any]:
        return [received["key"] for received in listed(client).values()]

    for client in (http, browser):
        assert keys(client) == [None, None, "everybody's", "missing"]
    visitor = app.identity.visitor(browser.cookies)
    for name in ("Keyed", "Bring"):
        app.backends.keys.put(visitor, name, VISITORS)
    assert keys(browser) == [None, None, "yours", "yours"]
    assert listed(browser)["Bring"]["state"] != "key_missing"
    assert keys(http) == [None, None, "everybody's", "missing"]
    assert listed(http)["Bring"]["state"] == "key_missing"
    app.backends.keys.forget(visitor, "Keyed")
    assert keys(browser) == [None, None, "everybody's", "yours"]


def test_memory_modes_are_listed_with_their_parameters(http: httpx.Client) -> None:
    modes = {mode["name"]: mode for mode in http.get("/memory-modes").json()}
    assert list(modes) == ["none", "full", "window", "tokens", "summary", "recall"]
    assert modes["window"]["parameters"] == {"window_turns": 4}
    assert modes["tokens"]["parameters"] == {"token_limit": 2000}
    assert modes["summary"]["parameters"] == {"window_turns": 4, "summary_tokens": 200}
    assert modes["recall"]["parameters"] == {"window_turns": 4, "recall_turns": 3}
    assert [name for name, mode in modes.items() if mode["default"]] == ["tokens"]


def test_conversation_is_imported_exported_and_deleted(http: httpx.Client) -> None:
    conversation_id = imported(http)
    assert len(conversation_id) >= 22
    received = http.get(f"/conversations/{conversation_id}").json()
    assert (received["conversation_id"], received["title"]) == (conversation_id, "Hi <b>")
    assert [{"role": m["role"], "content": m["content"]} for m in received["messages"]] == TALK
    assert http.delete(f"/conversations/{conversation_id}").status_code == 204
    refused(http.get(f"/conversations/{conversation_id}"), 404, "not_found")
    refused(http.delete(f"/conversations/{conversation_id}"), 404, "not_found")


def test_import_accepts_all_roles_and_odd_characters(http: httpx.Client) -> None:
    messages = [
        {"role": role, "content": "a\x00\r\n\u05e9\u05dc\u05d5\u05dd\u202e"}
        for role in ("system", "user", "assistant", "tool")
    ]
    received = http.get(f"/conversations/{imported(http, messages)}").json()["messages"]
    assert [m["role"] for m in received] == ["system", "user", "assistant", "tool"]
    assert {m["content"] for m in received} == {"a\u2400\n\u05e9\u05dc\u05d5\u05dd\u202e"}
    assert http.get(f"/conversations/{imported(http, [])}").json()["messages"] == []


def test_the_texts_of_a_message_in_parts_are_joined(http: httpx.Client) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    received = http.get(f"/conversations/{imported(http, [{'role': 'user', 'content': parts}])}").json()["messages"]
    assert received[0]["content"] == "one two"


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "data:,sk"}}, {"type": "text"}, "sk", 3, None]
)
def test_message_part_that_is_not_text_is_refused_with_its_type(http: httpx.Client, part: Any) -> None:
    parts = [{"type": "text", "text": "look"}, part]
    answer = http.post("/conversations", json={"messages": [{"role": "user", "content": parts}]})
    received = refused(answer, 400, "invalid_request")
    assert "messages.0.content" in received
    assert str(part["type"] if isinstance(part, dict) else type(part).__name__) in received
    assert "data:,sk" not in received


def test_a_conversation_belongs_to_its_cookie(app: Api, browser: httpx.Client, http: httpx.Client) -> None:
    conversation_id = imported(browser)
    assert browser.get(f"/conversations/{conversation_id}").status_code == 200
    with httpx.Client(base_url=app.url) as other:
        other.get("/example")
        for other_client in (http, other):
            refused(other_client.get(f"/conversations/{conversation_id}"), 404, "not_found")
            refused(other_client.delete(f"/conversations/{conversation_id}"), 404, "not_found")
        forged = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}x"}
        refused(http.get(f"/conversations/{conversation_id}", headers=forged), 404, "not_found")
        free = imported(http)
        assert other.get(f"/conversations/{free}").status_code == 200


def test_deleting_a_conversation_ends_its_run(app: Api, http: httpx.Client) -> None:
    assert app._loop
    starting = asyncio.run_coroutine_threadsafe(app.turns.start(TurnRequest("endless")), app._loop)
    run = starting.result(timeout=10)
    assert http.get(f"/conversations/{run.conversation_id}").json()["messages"][0]["content"] == "endless"
    assert not run.ended
    assert http.delete(f"/conversations/{run.conversation_id}").status_code == 204
    assert run.ended
    refused(http.get(f"/conversations/{run.conversation_id}"), 404, "not_found")


def test_lone_surrogate_is_replaced_or_refused(http: httpx.Client) -> None:
    body = b'{"messages": [{"role": "user", "content": "a\\ud83d"}]}'
    answer = http.post("/conversations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        received = http.get(f"/conversations/{answer.json()['conversation_id']}").json()
        assert received["messages"][0]["content"] == "a\ufffd"


def test_only_the_page_sets_the_cookie(page: httpx.Client) -> None:
    for path in ("/healthz", "/backends", "/memory-modes", f"/conversations/{imported(page)}", "/config"):
        assert COOKIE not in page.get(path).headers.get("set-cookie", "")
    flags = page.get("/").headers["set-cookie"]
    assert "HttpOnly" in flags
    assert "SameSite=Lax" in flags
    assert COOKIE in page.cookies
    assert COOKIE not in page.get("/").headers.get("set-cookie", "")


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_pages_of_other_sites_are_refused(page: httpx.Client, headers: dict[str, str]) -> None:
    refused(page.get("/backends", headers=headers), 403, "authentication")
    refused(page.post("/conversations", headers=headers, json={"messages": []}), 403, "authentication")
    refused(page.post("/gradio_api/queue/join", headers=headers, json={}), 403, "authentication")


def test_no_other_origin_is_allowed_to_read(page: httpx.Client, page_app: App) -> None:
    own = page.get("/backends", headers={"origin": page_app.url.rstrip("/")})
    assert own.status_code == 200
    for answer in (own, page.get("/", headers={"origin": "http://evil.example"})):
        assert "access-control-allow-origin" not in answer.headers


def test_too_large_body_is_refused(http: httpx.Client) -> None:
    received = refused(http.post("/stream", json={"message": "x" * 60_000}), 413, "too_large")
    assert "50,000" in received


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{not json", "JSON"),
        (b"", "body"),
        (b"[]", "body"),
        (b"{}", "messages"),
        (b'{"messages": 3}', "messages"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "messages.0.role"),
        (b'{"messages": [{"role": "user"}]}', "messages.0.content"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "messages.0.content"),
        (b"\xff\xfe", ""),
    ],
)
def test_error_names_the_invalid_field_of_a_body(http: httpx.Client, body: bytes, where: str) -> None:
    answer = http.post("/conversations", content=body, headers={"content-type": "application/json"})
    assert where in refused(answer, 400, "invalid_request")


def test_export_can_be_imported(http: httpx.Client) -> None:
    exported = http.get(f"/conversations/{imported(http)}").json()
    again = http.post("/conversations", json=exported).json()["conversation_id"]
    received = http.get(f"/conversations/{again}").json()["messages"]
    assert [m["content"] for m in received] == [m["content"] for m in exported["messages"]]


def test_uploads_and_deep_links_are_not_found(page: httpx.Client) -> None:
    assert page.get("/gradio_api/deep_link", params={"session_hash": "x"}).status_code == 404
    assert page.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404
    described = page.get("/openapi.json").json()["paths"]
    assert "/stream" in described and not [path for path in described if "gradio" in path]


def test_login_is_required_for_all_routes_but_health(closed_app: App) -> None:
    with httpx.Client(base_url=closed_app.url, timeout=20) as http:
        assert http.get("/healthz").status_code == 200
        for path in ("/backends", "/memory-modes", "/conversations/x"):
            refused(http.get(path), 401, "authentication")
        refused(http.post("/conversations", json={"messages": []}), 401, "authentication")
        refused(http.get("/backends", auth=("ann", "wrong")), 401, "authentication")
        assert http.get("/backends", auth=("ann", "one")).status_code == 200
        assert http.post("/login", data={"username": "ann", "password": "one"}).status_code == 200
        assert http.get("/backends").status_code == 200


def test_on_a_space_the_cookie_works_in_a_frame(closed_app: App) -> None:
    flags = httpx.get(closed_app.url, timeout=20).headers["set-cookie"]
    for flag in ("HttpOnly", "SameSite=None", "Secure", "Partitioned"):
        assert flag in flags


def test_a_taken_port_is_an_error(app: Api, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(app.settings.port)):
        launch_app(tmp_path, port=app.settings.port)
