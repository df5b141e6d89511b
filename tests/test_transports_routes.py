"""The routes of a real running app, as API clients and browsers reach them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.turns import Ask
from app import App
from settings import BackendSettings, LimitSettings, Settings
from tests.conftest import free_port, scripted
from transports.identity import COOKIE


def launched(data: Path, **more: Any) -> App:
    broken = BackendSettings(name="Gone", kind="langchain", **{"class": "no_such_package:Model"})
    app = App(
        Settings(
            backends=[scripted("Script", speed=5), broken],
            limits=LimitSettings(body_bytes=50_000),
            data=data,
            database_url=f"sqlite:///{data / 'glassbox.db'}",
            host="127.0.0.1",
            port=free_port(),
            **more,
        )
    )
    app.launch()
    return app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    app = launched(tmp_path_factory.mktemp("open"))
    yield app
    app.close()


@pytest.fixture(scope="module")
def closed_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    app = launched(tmp_path_factory.mktemp("closed"), auth=("ann", "one"), on_space=True)
    yield app
    app.close()


@pytest.fixture
def http(app: App) -> Iterator[httpx.Client]:
    """A client without a cookie."""
    with httpx.Client(base_url=app.url, timeout=20) as client:
        yield client


@pytest.fixture
def browser(app: App) -> Iterator[httpx.Client]:
    """A client that has seen the page, and so has a cookie."""
    with httpx.Client(base_url=app.url, timeout=20) as client:
        client.get("/").raise_for_status()
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


def test_the_page_and_its_health_are_served(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    page = http.get("/")
    assert page.status_code == 200
    assert "Glassbox" in page.text


def test_backends_are_listed_with_why_they_are_not_ready(app: App, http: httpx.Client) -> None:
    first, second = http.get("/backends").json()
    assert (first["name"], first["kind"], first["ready"], first["reason"]) == ("Script", "scripted", True, None)
    assert (second["name"], second["kind"]) == ("Gone", "langchain")


def test_memory_modes_are_listed_with_their_parameters(http: httpx.Client) -> None:
    modes = {mode["name"]: mode for mode in http.get("/memory-modes").json()}
    assert modes.keys() == {"none", "full", "window", "tokens"}
    assert modes["window"]["parameters"] == {"window_turns": 4}
    assert modes["tokens"]["parameters"] == {"token_limit": 2000}
    assert [name for name, mode in modes.items() if mode["default"]] == ["tokens"]


def test_a_conversation_goes_in_and_comes_out_and_is_deleted(http: httpx.Client) -> None:
    conversation_id = imported(http)
    assert len(conversation_id) >= 22
    told = http.get(f"/conversations/{conversation_id}").json()
    assert (told["conversation_id"], told["title"]) == (conversation_id, "Hi <b>")
    assert [{"role": m["role"], "content": m["content"]} for m in told["messages"]] == TALK
    assert http.delete(f"/conversations/{conversation_id}").status_code == 204
    refused(http.get(f"/conversations/{conversation_id}"), 404, "not_found")
    refused(http.delete(f"/conversations/{conversation_id}"), 404, "not_found")


def test_every_role_and_odd_characters_are_taken(http: httpx.Client) -> None:
    messages = [
        {"role": role, "content": "a\x00\r\n\u05e9\u05dc\u05d5\u05dd\u202e"}
        for role in ("system", "user", "assistant", "tool")
    ]
    told = http.get(f"/conversations/{imported(http, messages)}").json()["messages"]
    assert [m["role"] for m in told] == ["system", "user", "assistant", "tool"]
    assert {m["content"] for m in told} == {"a\u2400\n\u05e9\u05dc\u05d5\u05dd\u202e"}
    assert http.get(f"/conversations/{imported(http, [])}").json()["messages"] == []


def test_a_conversation_belongs_to_its_cookie(app: App, browser: httpx.Client, http: httpx.Client) -> None:
    conversation_id = imported(browser)
    assert browser.get(f"/conversations/{conversation_id}").status_code == 200
    with httpx.Client(base_url=app.url) as other:
        other.get("/")
        for stranger in (http, other):
            refused(stranger.get(f"/conversations/{conversation_id}"), 404, "not_found")
            refused(stranger.delete(f"/conversations/{conversation_id}"), 404, "not_found")
        forged = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}x"}
        refused(http.get(f"/conversations/{conversation_id}", headers=forged), 404, "not_found")
        free = imported(http)
        assert other.get(f"/conversations/{free}").status_code == 200


def test_deleting_a_conversation_ends_its_run(app: App, http: httpx.Client) -> None:
    assert app._loop
    starting = asyncio.run_coroutine_threadsafe(app.turns.start(Ask("endless")), app._loop)
    run = starting.result(timeout=10)
    assert http.get(f"/conversations/{run.conversation_id}").json()["messages"][0]["content"] == "endless"
    assert not run.ended
    assert http.delete(f"/conversations/{run.conversation_id}").status_code == 204
    assert run.ended
    refused(http.get(f"/conversations/{run.conversation_id}"), 404, "not_found")


def test_half_a_character_is_replaced_or_refused(http: httpx.Client) -> None:
    body = b'{"messages": [{"role": "user", "content": "a\\ud83d"}]}'
    answer = http.post("/conversations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400)
    if answer.status_code == 201:
        told = http.get(f"/conversations/{answer.json()['conversation_id']}").json()
        assert told["messages"][0]["content"] == "a\ufffd"


def test_only_the_page_sets_the_cookie(browser: httpx.Client, http: httpx.Client) -> None:
    assert COOKIE in browser.cookies
    assert COOKIE not in browser.get("/").headers.get("set-cookie", "")
    for path in ("/healthz", "/backends", "/memory-modes", f"/conversations/{imported(http)}", "/config"):
        assert COOKIE not in http.get(path).headers.get("set-cookie", "")
    flags = http.get("/").headers["set-cookie"]
    assert "HttpOnly" in flags
    assert "SameSite=Lax" in flags


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_pages_of_other_sites_are_refused(http: httpx.Client, headers: dict[str, str]) -> None:
    refused(http.get("/backends", headers=headers), 403, "authentication")
    refused(http.post("/conversations", headers=headers, json={"messages": []}), 403, "authentication")
    refused(http.post("/gradio_api/queue/join", headers=headers, json={}), 403, "authentication")


def test_no_other_origin_is_allowed_to_read(http: httpx.Client, app: App) -> None:
    own = http.get("/backends", headers={"origin": app.url.rstrip("/")})
    assert own.status_code == 200
    for answer in (own, http.get("/", headers={"origin": "http://evil.example"})):
        assert "access-control-allow-origin" not in answer.headers


def test_too_large_a_body_is_refused(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "x" * 60_000}]
    told = refused(http.post("/conversations", json={"messages": messages}), 413, "too_large")
    assert "50,000" in told


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
def test_a_body_that_cannot_be_read_is_told_where(http: httpx.Client, body: bytes, where: str) -> None:
    answer = http.post("/conversations", content=body, headers={"content-type": "application/json"})
    assert where in refused(answer, 400, "invalid_request")


def test_what_was_exported_can_be_imported(http: httpx.Client) -> None:
    exported = http.get(f"/conversations/{imported(http)}").json()
    again = http.post("/conversations", json=exported).json()["conversation_id"]
    told = http.get(f"/conversations/{again}").json()["messages"]
    assert [m["content"] for m in told] == [m["content"] for m in exported["messages"]]


def test_nobody_publishes_a_page_or_uploads_a_file(http: httpx.Client) -> None:
    assert http.get("/gradio_api/deep_link", params={"session_hash": "x"}).status_code == 404
    assert http.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404
    assert http.get("/openapi.json").status_code == 404


def test_a_login_closes_all_our_routes_but_the_health(closed_app: App) -> None:
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


def test_a_taken_port_is_an_error(app: App, tmp_path: Path) -> None:
    settings = app.settings.model_copy(update={"data": tmp_path, "database_url": f"sqlite:///{tmp_path / 'x.db'}"})
    with pytest.raises(OSError, match=str(settings.port)):
        App(settings).launch()
