"""A visitor tries to reach the data of another: by id, session, cookie, or Gradio's own routes."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from itsdangerous import Signer

from app import App
from hosting.identity import COOKIE
from settings import BackendSettings
from tests.conftest import scripted
from tests.images import picture
from tests.live_app import client_of, events_of, live_app, next_event, socket_of

WORDS = "the victim's own words"


@dataclass
class Scene:
    app: App
    victim: httpx.AsyncClient
    attacker: httpx.AsyncClient
    run_id: str
    conversation_id: str
    document_id: str
    image_id: str


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    seer = BackendSettings(name="Seer", kind="langchain", **{"class": "tests.models:Talker"})
    folder = tmp_path_factory.mktemp("attacked")
    with live_app(folder, secret="of the tests", backends=[scripted("Script"), seer]) as app:
        yield app


@pytest.fixture
async def scene(app: App) -> AsyncIterator[Scene]:
    async with client_of(app) as victim, client_of(app) as attacker:
        events = await events_of(victim, "POST", "/stream", json={"message": WORDS})
        added = await victim.post("/documents?name=mine.txt", content=WORDS.encode())
        image = await victim.post("/images", content=picture())
        ids = events[0]["run_id"], events[0]["conversation_id"], added.json()["id"], image.json()["id"]
        yield Scene(app, victim, attacker, *ids)


PATHS = [
    ("GET", "/runs/{run}", None),
    ("GET", "/runs/{run}/events", None),
    ("GET", "/runs/{run}/context", None),
    ("POST", "/runs/{run}/stop", None),
    ("POST", "/runs/{run}/approve", {"tool_call_id": "x", "approved": True}),
    ("GET", "/conversations/{conversation}", None),
    ("GET", "/conversations/{conversation}?format=markdown", None),
    ("PATCH", "/conversations/{conversation}", {"title": "owned"}),
    ("DELETE", "/conversations/{conversation}", None),
    ("POST", "/stream", {"message": "go on", "conversation_id": "{conversation}"}),
    ("GET", "/stream?query=go+on&conversation_id={conversation}", None),
    ("POST", "/context", {"message": "go on", "conversation_id": "{conversation}"}),
    ("DELETE", "/documents/{document}", None),
    ("GET", "/images/{image}", None),
    ("GET", "/images/{image}?conversation_id={conversation}", None),
    ("DELETE", "/images/{image}", None),
    ("POST", "/stream", {"message": "look", "images": ["{image}"], "backend": "Seer"}),
]


def filled(template: Any, scene: Scene) -> Any:
    text = json.dumps(template)
    for name, value in (
        ("run", scene.run_id), ("conversation", scene.conversation_id), ("document", scene.document_id),
        ("image", scene.image_id),
    ):  # fmt: skip
        text = text.replace(f"{{{name}}}", value)
    return json.loads(text)


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
@pytest.mark.parametrize("who", ["another", "nobody", "forged", "other secret", "stretched"])
async def test_ids_of_another_visitor_are_not_found(scene: Scene, method: str, path: str, body: Any, who: str) -> None:
    mine = scene.victim.cookies[COOKIE]
    visitor, _, signature = mine.rpartition(".")
    cookies = {
        "another": scene.attacker.cookies[COOKIE],
        "nobody": "",
        "forged": f"{visitor}.{signature[::-1]}",
        "other secret": Signer("another", salt="glassbox.visitor").sign(visitor).decode(),
        "stretched": f"{mine}x",
    }
    async with httpx.AsyncClient(base_url=scene.app.url, cookies={COOKIE: cookies[who]}, timeout=30) as client:
        sent = {"json": filled(body, scene)} if body else {}
        answer = await client.request(method, filled(path, scene), **sent)
    # without a cookie there are no documents and images: the error says to open the page first
    belongs = "documents" in path or ("/images/" in path and "conversation" not in path)
    assert answer.status_code == (401 if belongs and who != "another" else 404), answer.text
    assert WORDS not in answer.text and scene.conversation_id not in answer.text
    kept = (await scene.victim.get(f"/conversations/{scene.conversation_id}")).json()
    assert kept["messages"][0]["content"] == WORDS and kept["title"] != "owned"
    assert len((await scene.victim.get("/documents")).json()) == 1
    assert (await scene.victim.get(f"/images/{scene.image_id}")).status_code == 200


async def test_lists_and_search_exclude_other_visitors(scene: Scene) -> None:
    for path in ("/conversations", "/conversations?search=victim", "/documents"):
        answer = await scene.attacker.get(path)
        assert "mine.txt" not in answer.text and scene.conversation_id not in answer.text and WORDS not in answer.text
    events = await events_of(scene.attacker, "POST", "/stream", json={"message": "/search victim"})
    assert WORDS not in json.dumps([e for e in events if e["type"] == "tool_end"])


async def test_socket_does_not_resume_a_run_of_another_visitor(scene: Scene) -> None:
    async with socket_of(scene.app, scene.attacker) as socket:
        await socket.send(json.dumps({"type": "resume", "run_id": scene.run_id, "after": 0}))
        assert (await next_event(socket))["code"] == "not_found"
        await socket.send(json.dumps({"message": "x", "conversation_id": scene.conversation_id}))
        assert (await next_event(socket))["code"] == "not_found"


async def test_event_stream_does_not_resume_a_run_of_another_visitor(scene: Scene) -> None:
    answer = await scene.attacker.get("/stream", params={"query": WORDS}, headers={"Last-Event-ID": "1"})
    assert answer.status_code == 204


# Gradio's own routes


def config_of(app: App) -> dict[str, Any]:
    return dict(app.demo.config)


async def joined(client: httpx.AsyncClient, app: App, session: str, **more: Any) -> httpx.Response:
    load = next(one["id"] for one in config_of(app)["dependencies"] if "load" in str(one["targets"]))
    body = {"data": [], "fn_index": load, "session_hash": session, "trigger_id": None, "event_data": None, **more}
    return await client.post("/gradio_api/queue/join", json=body)


async def test_session_of_another_visitor_is_not_found(scene: Scene) -> None:
    session = "ofthevictim"
    assert (await joined(scene.victim, scene.app, session)).status_code == 200
    body = {"session_hash": session, "event_id": "any", "fn_index": 0}
    for attacker in (scene.attacker, httpx.AsyncClient(base_url=scene.app.url, timeout=30)):
        for answer in (
            await attacker.get("/gradio_api/queue/data", params={"session_hash": session}),
            await attacker.get("/gradio_api/queue/data", params=[("session_hash", "mine"), ("session_hash", session)]),
            await attacker.get(f"/gradio_api/heartbeat/{session}"),
            await attacker.get(f"/gradio_api/call/chat/{session}"),
            await attacker.get(f"/gradio_api/call/v2/chat/{session}"),
            await joined(attacker, scene.app, session),
            await attacker.post("/gradio_api/cancel", json=body),
            await attacker.post("/gradio_api/reset", json=body),
            await attacker.post("/gradio_api/run/predict", json={**body, "data": [None]}),
        ):
            assert answer.status_code == 404, answer.url
            assert WORDS not in answer.text
    async with scene.victim.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as heard:
        assert heard.status_code == 200
        async for line in heard.aiter_lines():
            if "process_completed" in line:
                break


async def test_only_quick_handlers_bypass_the_queue_of_gradio(scene: Scene) -> None:
    """Stop must work at any moment."""
    direct = [one["id"] for one in config_of(scene.app)["dependencies"] if not one["queue"]]
    assert direct
    for one in config_of(scene.app)["dependencies"]:
        body = {"data": [None] * len(one["inputs"]), "fn_index": one["id"], "session_hash": "oftheattacker"}
        answer = await scene.attacker.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == (200 if one["id"] in direct else 404), one


async def test_unknown_session_is_an_error_that_fills_no_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    answer = await scene.attacker.get("/gradio_api/queue/data", params={"session_hash": "guessed"})
    assert '"session_not_found":true' in answer.text.replace(" ", "")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


CLOSED = [
    "/gradio_api/deep_link?session_hash=x",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../../app.py",
    "/gradio_api/file=..%2f..%2fapp.py",
    "/gradio_api/file=http://127.0.0.1:1/",
    "/gradio_api/file/etc/passwd",
    "/file=/etc/passwd",
    "/gradio_api/proxy=http://127.0.0.1:1/",
    "/gradio_api/runs",
    "/gradio_api/run-history/records",
    "/gradio_api/run-history/buckets",
    "/gradio_api/upload_progress?upload_id=x",
    "/gradio_api/openapi.json",
    "/gradio_api/token",
    "/gradio_api/dev/reload",
    "/gradio_api/vibe-code",
    "/gradio_api/profiling/traces",
    "/gradio_api/custom_component/x/client/component/..%2f..%2findex.js",
    "/gradio_api/stream/x/0/1/playlist.m3u8",
    "/monitoring",
    "/monitoring/summary",
]


@pytest.mark.parametrize("path", CLOSED)
async def test_other_routes_of_gradio_are_not_found(scene: Scene, path: str) -> None:
    answer = await scene.attacker.get(path, follow_redirects=True)
    assert answer.status_code == 404 and "root:" not in answer.text


POSTS = ["upload", "run/chat", "api/chat", "api/predict", "process_recording", "vibe-edit", "component_server"]


@pytest.mark.parametrize("name", [*POSTS, "stream/x", "run-history/connect", "start_job"])
async def test_other_actions_of_gradio_are_not_found(scene: Scene, name: str) -> None:
    for sent in ({"json": {"data": ["x"]}}, {"files": {"files": ("a.txt", b"x")}}):
        assert (await scene.attacker.post(f"/gradio_api/{name}", **sent)).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/client.js/../app.py",
        "/docs/..%2f..%2fapp.py",
        "/docs/%2e%2e/%2e%2e/app.py",
        "/static/..%2f..%2f..%2fapp.py",
        "/static/%2e%2e/%2e%2e/%2e%2e/app.py",
        "/assets/..%2f..%2f..%2f..%2fapp.py",
        "/svelte/..%2f..%2f..%2fapp.py",
        "/runs/..%2f..%2fglassbox.toml",
        "/conversations/..%2f..%2fdata%2fsecret",
        "//etc/passwd",
        "/static//etc/passwd",
    ],
)
async def test_paths_do_not_leave_their_folder(app: App, path: str) -> None:
    async with httpx.AsyncClient() as client:
        url = httpx.URL(app.url.rstrip("/")).copy_with(raw_path=path.encode())
        answer = await client.send(httpx.Request("GET", url))
    assert answer.status_code in (400, 403, 404)
    assert "import " not in answer.text and "[[backends]]" not in answer.text and "root:" not in answer.text


async def test_private_listeners_are_not_in_the_api_description(scene: Scene) -> None:
    info = (await scene.attacker.get("/gradio_api/info")).json()
    assert list(info["named_endpoints"]) == ["/chat"] and not info["unnamed_endpoints"]
