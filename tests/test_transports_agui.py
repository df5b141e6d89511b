"""The AG-UI route of a running app, also with the official client."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ag_ui.encoder import AGUI_MEDIA_TYPE

from runs import events
from runs.live import LiveRun
from settings import LimitSettings, ToolSettings
from tests.agui import Events, verify
from tests.conftest import until
from tests.live_app import Api, live_api
from tests.node import NODE, NPM

_CLIENT = "@ag-ui/client@1.0.0"
THREAD = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    tools = ToolSettings(enabled=["calculator", "clock", "count"])
    with live_api(tmp_path_factory.mktemp("agui"), limits=LimitSettings(abandoned_seconds=1), tools=tools) as app:
        yield app


@pytest.fixture
def http(app: Api) -> Iterator[httpx.Client]:
    """A client without a cookie."""
    with httpx.Client(base_url=app.url, timeout=20) as client:
        yield client


@contextmanager
def visitor(app: Api) -> Iterator[httpx.Client]:
    """A client with a visitor's cookie."""
    with httpx.Client(base_url=app.url, timeout=20) as client:
        client.get("/example").raise_for_status()
        yield client


@pytest.fixture
def anna(app: Api) -> Iterator[httpx.Client]:
    with visitor(app) as client:
        yield client


def says(text: Any, thread: str = THREAD, **more: Any) -> dict[str, Any]:
    """A RunAgentInput with one user message."""
    return {"threadId": thread, "runId": "r", "messages": [{"id": "1", "role": "user", "content": text}], **more}


def events_in(answer: httpx.Response) -> Events:
    """The events of a response."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "set-cookie" not in answer.headers
    frames = [frame for frame in answer.text.split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") for frame in frames)
    found = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    verify(found)
    return found


def given_to_the_model(found: Events) -> list[tuple[str, str]]:
    context = next(one["value"] for one in found if one["type"] == "CUSTOM" and one["name"] == "context")
    return [(message["role"], message["content"]) for message in context["messages"]]


def refused(answer: httpx.Response, status: int = 400, code: str = "invalid_request") -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"code", "message"}
    return str(answer.json()["message"])


def interrupted(client: httpx.Client, thread: str = THREAD) -> dict[str, Any]:
    answer = client.post("/agui", json=says("approval", thread))
    return {**events_in(answer)[-1]["outcome"]["interrupts"][0], "run": answer.headers["x-run-id"]}


def resumed(asked: dict[str, Any], thread: str = THREAD, **entry: Any) -> dict[str, Any]:
    entry = {"interruptId": asked["id"], "status": "resolved", "payload": {"approved": True}, **entry}
    return {"threadId": thread, "runId": "r2", "messages": [], "resume": [entry]}


_WRONG: list[tuple[Any, str]] = [
    ({}, "threadId"),
    ({"threadId": 5, "runId": "r", "messages": []}, "threadId"),
    ({"threadId": "t", "runId": "r"}, "messages"),
    ({"threadId": "t", "runId": "r", "messages": "hello"}, "messages"),
    ({"threadId": "t", "runId": "r", "messages": []}, "messages"),
    ({"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "assistant", "content": "x"}]}, "user"),
    ({"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "nobody", "content": "x"}]}, "nobody"),
    ({"threadId": "t", "runId": "r", "messages": [{"role": "user", "content": "x"}]}, "id"),
    (says(5), "content"),
    (says(None), "content"),
    (says(""), "empty"),
    (says([]), "empty"),
    (says([{"type": "image", "source": {"type": "url", "value": "u"}}]), "'image'"),
    (says([{"type": "text", "text": "x"}, {"type": "audio", "source": {"type": "url", "value": "u"}}]), "'audio'"),
    (says([{"type": "binary", "mimeType": "image/png", "data": ""}]), "'binary'"),
    (says([{"type": "image_url", "image_url": {"url": "u"}}]), "'image_url'"),
    (says([{"text": "x"}]), "'None'"),
    (says("x", "t" * 1001), "threadId"),
    (says("x", "\ud800"), "threadId"),
    (says("x", runId="r" * 1001), "runId"),
    (says("x", forwardedProps=5), "forwardedProps"),
    (says("x", forwardedProps=["a"]), "forwardedProps"),
    (says("x", forwardedProps={"backend": 5}), "backend"),
    (says("x", forwardedProps={"memory": ["full"]}), "memory"),
    (says("x", forwardedProps={"window_turns": "two"}), "window_turns"),
    (says("x", resume=[{"interruptId": "x", "status": "maybe"}]), "resume"),
]


@pytest.mark.parametrize(("body", "names"), _WRONG)
def test_invalid_input_is_refused(http: httpx.Client, body: Any, names: str) -> None:
    sent = json.dumps(body).encode()
    assert names in refused(http.post("/agui", content=sent, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"5"])
def test_other_bodies_than_json_objects_are_refused(http: httpx.Client, body: bytes) -> None:
    refused(http.post("/agui", content=body, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("chosen", [{"backend": "No such"}, {"memory": "No such"}])
def test_unknown_choices_are_refused(http: httpx.Client, chosen: dict[str, str]) -> None:
    assert "No such" in refused(http.post("/agui", json=says("x", forwardedProps=chosen)), 404, "not_found")


def test_too_long_message_is_refused(http: httpx.Client) -> None:
    refused(http.post("/agui", json=says("x" * 33_000)), 413, "too_large")


def test_refused_request_stores_nothing(anna: httpx.Client) -> None:
    earlier = {"id": "0", "role": "user", "content": "before"}
    wrong = says("hello", forwardedProps={"backend": "No such"})
    refused(anna.post("/agui", json={**wrong, "messages": [earlier, *wrong["messages"]]}), 404, "not_found")
    found = events_in(anna.post("/agui", json=says("hello")))
    assert [role for role, _ in given_to_the_model(found)].count("user") == 1


def test_unused_fields_of_a_client_are_ignored(http: httpx.Client) -> None:
    tool = {"name": "confetti", "description": "Throws it.", "parameters": {"type": "object"}}
    body = says(
        "hello",
        state={"mine": 1},
        tools=[tool],
        context=[{"description": "a", "value": "b"}],
        forwardedProps={"theme": "dark", "memory": "window", "window_turns": 2, "tools": []},
        protocolVersion="1.7",
        parentRunId="p",
        other=True,
        resume=[],
    )
    found = events_in(http.post("/agui", json=body))
    assert found[-1]["outcome"] == {"type": "success"}
    assert "mine" not in json.dumps(found)
    (context,) = [one["value"] for one in found if one.get("name") == "context"]
    own = [tool["name"] for tool in context["tools"]]
    assert own == ["broken_tool", "careful_tool"], "only those that the script brings"


@pytest.mark.parametrize(
    "accept", [AGUI_MEDIA_TYPE, f"{AGUI_MEDIA_TYPE}, text/event-stream", "*/*", "application/json"]
)
def test_response_is_sse_for_any_accept_header(http: httpx.Client, accept: str) -> None:
    answer = http.post("/agui", json=says("hello"), headers={"accept": accept})
    assert events_in(answer)[-1]["type"] == "RUN_FINISHED"
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")


def test_ids_of_the_client_are_echoed(http: httpx.Client) -> None:
    thread, run = "Fäden\n\u2028" * 5, "run\x00 😀"
    found = events_in(http.post("/agui", json=says("hello", thread, runId=run)))
    for one in (found[0], found[-1]):
        assert (one["threadId"], one["runId"]) == (thread, run)


def test_same_thread_id_of_two_visitors_is_two_conversations(app: Api, anna: httpx.Client, http: httpx.Client) -> None:
    with visitor(app) as ben:
        for thread in ("t1", THREAD):
            first = anna.post("/agui", json=says("annas secret", thread))
            events_in(first)
            for other in (ben, http):
                answer = other.post("/agui", json=says("hello", thread))
                assert "annas secret" not in answer.text
                assert answer.headers["x-conversation-id"] != first.headers["x-conversation-id"]
                conversation = f"/conversations/{first.headers['x-conversation-id']}"
                refused(other.get(conversation), 404, "not_found")
            again = anna.post("/agui", json=says("again", thread))
            assert ("user", "annas secret") in given_to_the_model(events_in(again))
            assert again.headers["x-conversation-id"] == first.headers["x-conversation-id"]


@pytest.mark.parametrize("thread", ["customer-support-thread-1", "01JD7Z9QW0000000000000TEST", THREAD, "\x00" * 22])
def test_clients_without_cookie_never_share_a_thread_id(app: Api, http: httpx.Client, thread: str) -> None:
    first = http.post("/agui", json=says("a secret", thread))
    assert events_in(first)[0]["threadId"] == thread
    with httpx.Client(base_url=app.url, timeout=20) as other:
        second = other.post("/agui", json=says("again", thread))
    assert ("user", "a secret") not in given_to_the_model(events_in(second))
    assert first.headers["x-conversation-id"] != second.headers["x-conversation-id"]


def test_conversation_id_continues_a_thread_without_cookie(app: Api, http: httpx.Client) -> None:
    first = http.post("/agui", json=says("remember me"))
    events_in(first)
    thread = first.headers["x-conversation-id"]
    with httpx.Client(base_url=app.url, timeout=20) as other:
        second = other.post("/agui", json=says("again", thread))
    found = events_in(second)
    assert ("user", "remember me") in given_to_the_model(found)
    assert (found[0]["threadId"], second.headers["x-conversation-id"]) == (thread, thread)


def test_conversation_id_of_a_visitor_needs_the_cookie(anna: httpx.Client, http: httpx.Client) -> None:
    first = anna.post("/agui", json=says("annas secret"))
    events_in(first)
    second = http.post("/agui", json=says("again", first.headers["x-conversation-id"]))
    assert ("user", "annas secret") not in given_to_the_model(events_in(second))


def test_interrupt_is_answered_by_its_id_without_cookie(http: httpx.Client) -> None:
    found = events_in(http.post("/agui", json=resumed(interrupted(http))))
    assert found[-1]["outcome"] == {"type": "success"}


def test_messages_of_a_new_thread_are_bounded(http: httpx.Client) -> None:
    body = says("hello")
    earlier = [{"id": str(n), "role": "user", "content": "x"} for n in range(10_001)]
    answer = http.post("/agui", json={**body, "messages": [*earlier, *body["messages"]]})
    assert "10,001" in refused(answer, 413, "too_large")


def test_guessed_thread_id_without_cookie_is_a_new_conversation(http: httpx.Client) -> None:
    first = http.post("/agui", json=says("a secret", "t1"))
    body = says("again", "t1")
    second = http.post("/agui", json=body)
    assert [role for role, _ in given_to_the_model(events_in(second))].count("user") == 1
    earlier = [{"id": "a", "role": "user", "content": "before"}, {"id": "b", "role": "assistant", "content": "Yes."}]
    third = http.post("/agui", json={**body, "messages": [*earlier, *body["messages"]]})
    assert ("user", "before") in given_to_the_model(events_in(third))
    assert len({answer.headers["x-conversation-id"] for answer in (first, second, third)}) == 3


def test_a_thread_is_found_again_after_a_restart(tmp_path: Path) -> None:
    cookies, ids = httpx.Cookies(), []
    for text in ("before", "after"):
        with live_api(tmp_path) as app:
            with httpx.Client(base_url=app.url, timeout=20, cookies=cookies) as client:
                client.get("/example").raise_for_status()
                answer = client.post("/agui", json=says(text, "t1"))
                ids.append(answer.headers["x-conversation-id"])
                found = events_in(answer)
                cookies = client.cookies
    assert ids[0] == ids[1]
    assert ("user", "before") in given_to_the_model(found)


def test_parallel_requests_create_one_thread(app: Api, anna: httpx.Client) -> None:
    async def both() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=app.url, cookies=anna.cookies, timeout=20) as client:
            body = says("hello", forwardedProps={"backend": "Slow script"})
            return await asyncio.gather(*(client.post("/agui", json=body) for _ in range(4)))

    answers = asyncio.run(both())
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"busy"}


def test_other_roles_are_not_imported_into_a_new_thread(anna: httpx.Client) -> None:
    earlier = [
        {"id": "a", "role": "reasoning", "content": "hm"},
        {"id": "b", "role": "activity", "activityType": "plan", "content": {"a": 1}},
        {"id": "c", "role": "assistant", "toolCalls": []},
        {"id": "d", "role": "tool", "toolCallId": "x", "content": "42\x00"},
    ]
    body = says("hello")
    found = anna.post("/agui", json={**body, "messages": [*earlier, *body["messages"]]})
    events_in(found)
    kept = anna.get(f"/conversations/{found.headers['x-conversation-id']}").json()["messages"]
    assert [(one["role"], one["content"]) for one in kept[:-1]] == [("tool", "42␀"), ("user", "hello")]


def test_images_in_earlier_messages_of_a_known_thread_are_ignored(anna: httpx.Client) -> None:
    events_in(anna.post("/agui", json=says("hello")))
    body, picture = says("again"), {"type": "image", "source": {"type": "url", "value": "u"}}
    earlier = {"id": "0", "role": "user", "content": [picture]}
    events_in(anna.post("/agui", json={**body, "messages": [earlier, *body["messages"]]}))
    refused(anna.post("/agui", json={**body, "threadId": "new", "messages": [earlier, *body["messages"]]}))


def test_resume_payload_is_validated(anna: httpx.Client) -> None:
    asked = interrupted(anna)
    for payload in (None, {}, {"approved": "yes"}, {"approved": 1}, {"approved": True, "input": "x"}, [True], "yes"):
        assert "resume.payload" in refused(anna.post("/agui", json=resumed(asked, payload=payload)))
    twice = resumed(asked)
    twice["resume"] *= 2
    assert "twice" in refused(anna.post("/agui", json=twice))
    other = resumed(asked)
    other["resume"].append({**other["resume"][0], "interruptId": asked["id"] + "x"})
    refused(anna.post("/agui", json=other))
    refused(anna.post("/agui", json=says("something else")), 409, "busy")
    both = {**resumed(asked), "messages": says("something else")["messages"]}
    assert "first" in refused(anna.post("/agui", json=both), 409, "busy")
    found = events_in(anna.post("/agui", json=resumed(asked, payload={"approved": True, "input": {"text": "Bye"}})))
    assert [one["content"] for one in found if one["type"] == "TOOL_CALL_RESULT"] == ["It said: Bye"]
    status = next(one["value"] for one in found if one["type"] == "CUSTOM" and "edited" in one["value"])
    assert status["edited"] == {"text": "Bye"}


def test_resume_without_a_waiting_run_is_refused(app: Api, anna: httpx.Client, http: httpx.Client) -> None:
    asked = interrupted(anna)
    wrong = [
        http.post("/agui", json=resumed(asked)),
        anna.post("/agui", json=resumed(asked, thread="another")),
        anna.post("/agui", json=resumed({"id": "x"})),
        anna.post("/agui", json=resumed({"id": f"{'x' * 22}:5:call"})),
        anna.post("/agui", json=resumed({"id": asked["toolCallId"]})),
    ]
    for answer in wrong:
        refused(answer, 409, "busy")
    events_in(anna.post("/agui", json=resumed(asked, status="cancelled", payload=None)))
    refused(anna.post("/agui", json=resumed(asked)), 409, "busy")
    app.runs.discard(app.runs.find(asked["run"]))  # type: ignore[arg-type]
    refused(anna.post("/agui", json=resumed(asked)), 409, "busy")


def test_approval_given_elsewhere_is_kept(anna: httpx.Client) -> None:
    asked = interrupted(anna)
    approval = {"tool_call_id": asked["toolCallId"], "approved": True}
    assert anna.post(f"/runs/{asked['run']}/approve", json=approval).status_code == 200
    refused(anna.post("/agui", json=resumed(asked)), 409, "busy")


def test_cancelled_interrupts_and_a_new_message_stop_the_run(app: Api, anna: httpx.Client) -> None:
    asked = interrupted(anna)
    body = {**resumed(asked, status="cancelled", payload=None), "messages": says("hello")["messages"]}
    answer = anna.post("/agui", json=body)
    assert events_in(answer)[-1]["outcome"] == {"type": "success"}
    assert answer.headers["x-run-id"] != asked["run"]
    run = app.runs.find(asked["run"])
    assert run and isinstance(run.log.entries[-1].event, events.Stopped)
    again = anna.post("/agui", json=body)  # the run has ended, so the message is answered
    assert events_in(again)[-1]["outcome"] == {"type": "success"}


def test_resume_may_repeat_the_last_message(anna: httpx.Client) -> None:
    asked = interrupted(anna)
    body = {**resumed(asked, status="cancelled", payload=None), "messages": says("approval")["messages"]}
    answer = anna.post("/agui", json=body)
    assert answer.headers["x-run-id"] == asked["run"]
    assert events_in(answer)[-1]["outcome"] == {"type": "success"}


def test_several_interrupts_are_answered_together(tmp_path: Path) -> None:
    tools = ToolSettings(enabled=["calculator", "clock", "count"], approval=["calculator", "clock", "count"])
    with live_api(tmp_path, tools=tools) as app:
        with visitor(app) as client:
            found = events_in(client.post("/agui", json=says("tools")))
            asked = found[-1]["outcome"]["interrupts"]
            assert [one["metadata"]["tool"] for one in asked] == ["calculator", "clock", "count"]
            entries = [resumed(one)["resume"][0] for one in asked]
            entries[1] = {"interruptId": asked[1]["id"], "status": "cancelled"}
            entries[2]["payload"] = {"approved": True, "editedArgs": {"upto": 2, "pause_s": 0.1}}
            assert "1 are not" in refused(client.post("/agui", json={**resumed(asked[0]), "resume": entries[:2]}))
            found = events_in(client.post("/agui", json={**resumed(asked[0]), "resume": entries}))
            results = {one["toolCallId"]: one["content"] for one in found if one["type"] == "TOOL_CALL_RESULT"}
            contents = [results[one["toolCallId"]] for one in asked]
            assert contents[0] == "391" and "refused" in contents[1] and contents[2].strip() == "1 of 2\n2 of 2"
            assert found[-1]["outcome"] == {"type": "success"}


def left(app: Api, client: httpx.Client, thread: str) -> LiveRun:
    """A run whose client has disconnected in mid-stream."""
    body = says("endless", thread, forwardedProps={"backend": "Slow script"})
    with client.stream("POST", "/agui", json=body) as answer:
        next(answer.iter_lines())
        run = app.runs.find(answer.headers["x-run-id"])
    assert run
    return run


def test_run_with_an_owner_continues_without_its_client(app: Api, anna: httpx.Client, http: httpx.Client) -> None:
    owned, loose = left(app, anna, "t1"), left(app, http, THREAD + "x")
    asyncio.run(until(lambda: loose.ended))
    last = loose.log.entries[-1].event
    assert isinstance(last, events.Stopped) and last.reason == "abandoned"
    assert not owned.ended
    assert anna.post(f"/runs/{owned.id}/stop").json() == {"status": "stopped"}


def test_stop_from_another_client_is_an_event(app: Api, anna: httpx.Client) -> None:
    body = says("endless", forwardedProps={"backend": "Slow script"})
    with anna.stream("POST", "/agui", json=body) as answer, visitor(app) as other:
        other.cookies = anna.cookies
        other.post(f"/runs/{answer.headers['x-run-id']}/stop").raise_for_status()
        answer.read()
    end = events_in(answer)[-1]
    assert (end["outcome"], end["result"]["reason"]) == ({"type": "cancelled"}, "user")


def test_silent_stream_has_heartbeats(app: Api, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from transports import streams

    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.2)
    body = says("hang", forwardedProps={"backend": "Slow script"})
    with anna.stream("POST", "/agui", json=body) as answer:
        began = time.monotonic()
        assert any(line.startswith(":") for line in answer.iter_lines())
        assert time.monotonic() - began < 5
    anna.post(f"/runs/{answer.headers['x-run-id']}/stop").raise_for_status()


# The official client


@pytest.fixture(scope="module")
def agui_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the official client, kept between test runs. Without it the test is skipped."""
    cache = getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("agui-client-1.0.0")) if cache else tmp_path_factory.mktemp("agui-client")
    if (folder / "node_modules" / "@ag-ui" / "client").exists():
        return folder
    command = [*NPM, "install", "--no-audit", "--no-fund", "--no-package-lock", _CLIENT]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        why = f"{_CLIENT} cannot be installed: {e} {getattr(e, 'stderr', '')}"[:1000]
        if os.environ.get("GLASSBOX_TEST_NODE") == "required":
            pytest.fail(why)
        pytest.skip(why)
    return folder


def test_the_official_client_holds_conversations(app: Api, agui_client: Path) -> None:
    cases = Path(__file__).parent / "agui_client.mjs"
    ran = subprocess.run(
        [NODE, str(cases)],
        env={**os.environ, "GLASSBOX_URL": app.url, "GLASSBOX_AGUI": str(agui_client / "index.js")},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
