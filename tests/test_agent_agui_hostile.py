"""Servers that speak AG-UI badly, or not at all: each harms its own reply alone, and the sentence says what to do."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from bench.ports import free_port
from settings import BackendSettings
from tests.agui_script import (
    ENDED,
    FINISHED,
    REQUESTS,
    SCRIPTS,
    STARTED,
    Body,
    event,
    script,
    scripted_app,
    sends,
    text,
)
from tests.agui_servers import served
from tests.conftest import scripted
from tests.grammar import check
from tests.live_app import Api, Events, client_of, events_of, events_until_end, live_api, socket_of
from tests.test_agent_agui import of

TOKEN = "sk-canary-of-the-remote-agent"


def call(call_id: str, name: str, arguments: str = "{}") -> bytes:
    started = event("TOOL_CALL_START", toolCallId=call_id, toolCallName=name)
    return started + event("TOOL_CALL_ARGS", toolCallId=call_id, delta=arguments)


def ended(call_id: str) -> bytes:
    return event("TOOL_CALL_END", toolCallId=call_id)


def result(call_id: str, content: Any) -> bytes:
    return event("TOOL_CALL_RESULT", toolCallId=call_id, messageId=f"r-{call_id}", content=content)


sends("silent_end", STARTED)
sends("nothing")
sends("cut_in_reply", STARTED, text("Half a "))
sends("broken_json", STARTED, b'data: {"type": "TEXT_MESSAGE_CONTENT", "delta": \n\n')
sends("not_agui", b'data: {"id": "chatcmpl-1", "choices": []}\n\n')
sends("plain", b"Hello, I am a text.")
sends("wrong_field", STARTED, event("TEXT_MESSAGE_CONTENT", messageId="m", delta=5))
sends("huge_event", STARTED, *[b"data: " + b'{"type": "CUSTOM", "name": "' + b"x" * 500_000] * 6)
sends("many_lines", STARTED, *[b"data: {\n" * 600] * 2)
sends("deep", STARTED, event("CUSTOM", name="deep", value=0).replace(b": 0", b": " + b"[" * 900 + b"]" * 900), FINISHED)
sends("deeper", STARTED, b'data: {"type": "CUSTOM", "name": "x", "value": ' + b"[" * 90_000 + b"\n\n")
sends(
    "fails", STARTED, event("RUN_ERROR", code="quota_gone", message=f"{TOKEN} is spent", metadata={"retryable": False})
)
sends("fails_late", STARTED, text("So far"), event("RUN_ERROR", message="no"))
sends("cancelled", STARTED, event("RUN_FINISHED", outcome={"type": "cancelled"}))
sends("no_interrupts", STARTED, event("RUN_FINISHED", outcome={"type": "interrupt", "interrupts": []}))
sends("content_alone", b": ping\n\n", event("TEXT_MESSAGE_CONTENT", messageId="m", delta="No start"), FINISHED)
sends(
    "disorder",
    STARTED,
    event("MADE_UP", delta="?"),
    event("STEP_FINISHED", stepName="never begun"),
    event("TOOL_CALL_ARGS", toolCallId="unknown", delta="{}"),
    ended("unknown"),
    result("late", "a result alone"),
    event("TEXT_MESSAGE_END", messageId="unknown"),
    event("STEP_STARTED", stepName="open"),
    call("1", "twice", "{broken"),
    ended("1"),
    ended("1"),
    result("1", {"a": 1}),
    call("1", "twice", '["list"]'),
    result("1", None),
    call("2", "open"),
    event("TEXT_MESSAGE_START", messageId="u", role="user")
    + event("TEXT_MESSAGE_CONTENT", messageId="u", delta="Not mine"),
    event("TEXT_MESSAGE_CHUNK", messageId="c", delta="In a ") + event("TEXT_MESSAGE_CHUNK", delta="chunk."),
    event("STATE_DELTA", delta=[{"op": "replace", "path": "/not/there", "value": 1}, "?"]),
    FINISHED,
    text(" Too late."),
)
sends(
    "older",
    STARTED,
    event("THINKING_START"),
    event("THINKING_TEXT_MESSAGE_START"),
    event("THINKING_TEXT_MESSAGE_CONTENT", delta="Hm."),
    event("THINKING_TEXT_MESSAGE_END"),
    event("THINKING_END"),
    event("RAW", event={"kind": "provider"}, source="acme"),
    event("RAW", event={"event": "on_chain_start", "run_id": "1"}),
    event("ACTIVITY_SNAPSHOT", messageId="a", activityType="plan", content={"steps": 2}),
    text("<think>More.</think>First."),
    event("REASONING_MESSAGE_CHUNK", messageId="r", delta="Again."),
    text("Second.", message_id="n"),
    event("MESSAGES_SNAPSHOT", messages=[{"id": "u", "role": "user", "content": "?"}]),
    event("MESSAGES_SNAPSHOT", messages=[{"id": "z", "role": "assistant", "content": "Events at the end."}]),
    event("RUN_FINISHED", usage=[{"inputTokens": 1000, "outputTokens": 200}]),
)
sends(
    "subagents",
    STARTED,
    call("t", "task") + ended("t"),
    event("SUBAGENT_STARTED", subagentRunId="s", name="helper", parentToolCallId="t", description="looks"),
    event("STEP_STARTED", stepName="look", subagentRunId="s"),
    event("CUSTOM", name="found", value=1, subagentRunId="s"),
    event("SUBAGENT_ERROR", subagentRunId="s", message="it broke"),
    result("t", "no luck"),
    FINISHED,
)


@script
async def floods(body: Body) -> AsyncIterator[bytes]:
    yield STARTED
    big = event("CUSTOM", name="big", value="é" * 9000)
    yield big
    for number in range(60):
        ticks = (event("CUSTOM", name="tick", value=number) for _ in range(50))
        yield b"".join(ticks) + call(f"c{number}", "tool") + ended(f"c{number}") + result(f"c{number}", "x" * 200_000)
    yield b"".join(text("w", message_id=f"m{number}") for number in range(100)) + FINISHED


@script
async def babbles(body: Body) -> AsyncIterator[bytes]:
    """Thinks word by word without an end, as fast as it can."""
    yield STARTED
    while True:
        yield event("REASONING_MESSAGE_CONTENT", messageId="r", delta="x" * 50) * 500
        await asyncio.sleep(0)  # else nothing could end it


@script
async def doubles(body: Body) -> AsyncIterator[bytes]:
    yield STARTED + event("STATE_SNAPSHOT", snapshot={"a": ["x" * 100_000]})
    yield event("STATE_DELTA", delta=[{"op": "copy", "from": "/a", "path": "/a/-"}] * 60)
    yield event("STATE_DELTA", delta=[{"op": "add", "path": "/b", "value": 1}] * 5000)
    yield event("STATE_SNAPSHOT", snapshot={"a": 1}) + text("Fine.") + FINISHED


@script
async def endless(body: Body) -> AsyncIterator[bytes]:
    yield STARTED + text("Begun.")
    while True:
        yield b": still here\n\n"
        await asyncio.sleep(0.05)


@script
async def silent(body: Body) -> AsyncIterator[bytes]:
    yield STARTED
    await asyncio.sleep(60)


@script
async def alive(body: Body) -> AsyncIterator[bytes]:
    """Sends nothing but signs of life for longer than the timeout of its entry."""
    yield STARTED
    for _ in range(12):
        await asyncio.sleep(0.2)
        yield b":\n"
    yield text("Still alive.") + FINISHED


@script
async def recovers(body: Body) -> AsyncIterator[bytes]:
    tries = sum(name == "recovers" for name, _, _ in REQUESTS)
    yield STARTED + (b"" if tries < 3 else text(f"At attempt {tries}.") + FINISHED)


@script
async def acts(body: Body) -> AsyncIterator[bytes]:
    yield STARTED + call("c", "launch")


@script
async def draft(body: Body) -> AsyncIterator[bytes]:
    """Asks in the form of the protocol's draft."""
    yield STARTED
    if "resume" not in body:
        asked = {"id": "i", "reason": "May I?", "payload": {"what": "launch"}}
        yield event("RUN_FINISHED", outcome="interrupt", interrupt=asked)
    else:
        yield text(f"{json.dumps(body['resume'])} {len(body['messages'])}") + FINISHED


@script
async def asks_twice(body: Body) -> AsyncIterator[bytes]:
    """Asks two questions at once, for a text and for a form, and then again."""
    yield STARTED
    answers = body.get("resume")
    if not answers:
        yield text("Well. ") + event("STATE_SNAPSHOT", snapshot={"n": 1})
        form = {"type": "object", "properties": {"city": {"type": "string", "default": "Bonn"}, "days": {"default": 2}}}
        asked = [
            {"id": "a", "reason": "input", "message": "Your name?", "responseSchema": {"type": "string"}},
            {"id": "b", "reason": "input", "message": "Where?", "responseSchema": form},
        ]
        yield event("RUN_FINISHED", outcome={"type": "interrupt", "interrupts": asked})
    elif len(answers) == 2:
        REQUESTS.append(("answers", {"resume": answers, "messages": body["messages"], "state": body["state"]}, {}))
        yield event("RUN_FINISHED", outcome={"type": "interrupt", "interrupts": [{"id": "a", "reason": "Sure?"}]})
    else:
        yield text(json.dumps(answers), message_id="n") + FINISHED


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    names = [*SCRIPTS, "page", "302", "400", "401", "404", "405", "422", "429", "500", "204"]
    more: dict[str, dict[str, Any]] = {
        "silent": {"timeout": 1},
        "alive": {"timeout": 1},
        "401": {"headers": {"Authorization": "AGENT_TOKEN"}},
        "cut_in_reply": {"fallback": "Script"},
        "silent_end": {"fallback": "Script"},
        "acts": {"fallback": "Script"},
        "404": {"fallback": "Script"},
    }
    with ExitStack() as stack:
        url = stack.enter_context(served(scripted_app()))
        entries = [
            BackendSettings.model_validate({"name": name, "kind": "agui", "url": f"{url}/{name}", **more.get(name, {})})
            for name in names
        ]
        away = {"name": "away", "kind": "agui", "url": f"http://127.0.0.1:{free_port()}/"}
        entries += [BackendSettings.model_validate(away), scripted()]
        data = tmp_path_factory.mktemp("hostile")
        yield stack.enter_context(live_api(data, backends=entries, keys={"AGENT_TOKEN": SecretStr(TOKEN)}))


@pytest_asyncio.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def ask(client: httpx.AsyncClient, backend: str, message: str = "Hello") -> Events:
    events = await events_of(client, "POST", "/stream", json={"message": message, "backend": backend})
    check(events)
    return events


@pytest.mark.parametrize(
    ("backend", "code", "message"),
    [
        ("nothing", "backend_unavailable", "nothing answered with an empty response, not with AG-UI: check its"),
        ("broken_json", "backend_unavailable", "broken_json sent an unreadable reply: try again"),
        ("not_agui", "backend_unavailable", "not_agui answered with another kind of stream, not with AG-UI: check its"),
        (
            "plain",
            "backend_unavailable",
            "plain answered with an empty response, not with AG-UI: check its `base_url`.",
        ),
        ("page", "backend_unavailable", "page answered with a web page, not with AG-UI: check its `base_url`."),
        ("wrong_field", "backend_unavailable", "an invalid event of AG-UI (TEXT_MESSAGE_CONTENT: delta)"),
        ("no_interrupts", "backend_unavailable", "an invalid event of AG-UI (RUN_FINISHED: interrupts)"),
        ("huge_event", "backend_unavailable", "huge_event sent an unreadable reply"),
        ("many_lines", "backend_unavailable", "many_lines sent an unreadable reply"),
        ("deeper", "backend_unavailable", "deeper sent an unreadable reply"),
        ("fails", "backend_unavailable", "fails failed (quota_gone): try again. The log has its text."),
        ("fails_late", "backend_unavailable", "fails_late failed: try again. The log has its text."),
        ("cancelled", "backend_unavailable", "cancelled failed (cancelled): try again."),
        ("away", "backend_unavailable", "away cannot be reached: is its server running"),
        ("silent", "timeout", "No response after 1 s. silent sent nothing"),
        ("302", "backend_unavailable", "302 redirects to another address: check its `base_url`."),
        ("400", "invalid_request", "400 did not accept the request (HTTP 400): does its server speak AG-UI there?"),
        ("401", "authentication", "401 is not ready (HTTP 401): its server did not accept the request: check the var"),
        ("405", "backend_unavailable", "405's server has no agent at this address (HTTP 405): check its `base_url`."),
        ("422", "invalid_request", "422 did not accept the request (HTTP 422): does its server speak AG-UI there?"),
        ("429", "rate_limited", "Rate limited."),
        ("500", "backend_unavailable", "500 failed (HTTP 500: teapot): try again."),
        ("204", "invalid_request", "204 did not accept the request (HTTP 204): does its server speak AG-UI there?"),
    ],
)
async def test_what_cannot_be_used_says_what_to_do(
    anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, backend: str, code: str, message: str
) -> None:
    monkeypatch.setattr("agent.retries._wait", lambda state: 0.0)
    events = await ask(anna, backend)
    assert (events[-1]["type"], events[-1]["code"]) == ("error", code)
    assert message in events[-1]["message"]
    assert "canary" not in json.dumps(events)


async def test_disorder_is_read_as_far_as_it_can_be(anna: httpx.AsyncClient) -> None:
    assert (await ask(anna, "content_alone"))[-1]["content"] == "No start"
    assert (await ask(anna, "deep"))[-1]["type"] in ("complete", "error")
    events = await ask(anna, "disorder")
    assert (events[-1]["type"], events[-1]["content"]) == ("complete", "In a chunk.")
    calls = {e["tool_call_id"]: (e["tool"], e["input"]) for e in of(events, "tool_start")}
    assert list(calls.values()) == [
        ("tool", {}),
        ("twice", {"input": "{broken"}),
        ("twice", {"input": ["list"]}),
        ("open", {}),
    ]
    outputs = [e["output"] for e in of(events, "tool_end")]
    assert outputs == ["a result alone", '{"a": 1}', "", ""]
    steps = [(e["name"], e["input"]) for e in of(events, "chain_start")]
    assert steps[0] == ("open", None) and steps[1][0] == "state" and len(steps[1][1]) == 2


async def test_older_events_snapshots_and_usage_are_read(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "older")
    assert events[-1]["content"] == "First.\n\nSecond.\n\nEvents at the end."
    assert "".join(e["content"] for e in of(events, "reasoning")) == "Hm.More.Again."
    assert [e["name"] for e in of(events, "chain_start")] == ["acme", "plan"]
    assert len(of(events, "model_start")) == 2
    usage = events[-1]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (1000, 200)


async def test_sub_agents_are_nested(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "subagents")
    steps = {e["name"]: e for e in of(events, "chain_start")}
    assert steps["helper"]["parent_id"] == "t" and steps["helper"]["input"] == "looks"
    assert steps["look"]["parent_id"] == steps["helper"]["id"] and steps["found"]["parent_id"] == steps["look"]["id"]
    ends = {e["id"]: e.get("error") for e in of(events, "chain_end")}
    assert ends[steps["helper"]["id"]] == "it broke" and ends[steps["look"]["id"]] is None


async def test_a_flood_of_events_is_cut(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "floods")
    assert events[-1]["type"] == "complete" and "w" in events[-1]["content"]
    big = of(events, "chain_start")[0]
    assert big["truncated"] and isinstance(big["input"], str)
    shown = len(of(events, "chain_start")) + len(of(events, "tool_start")) + len(of(events, "model_start"))
    assert 1900 < shown <= 2001
    assert [e["content"] for e in of(events, "status") if "first 2,000" in e["content"]]
    assert all(100_000 <= len(e["output"]) < 100_100 for e in of(events, "tool_end"))


async def test_a_babble_ends_at_the_limit_of_a_run(anna: httpx.AsyncClient) -> None:
    events = await ask(anna, "babbles")
    assert (events[-1]["type"], events[-1]["reason"]) == ("stopped", "limit")
    thoughts = of(events, "reasoning")
    assert sum(len(e["content"]) for e in thoughts) >= 2_000_000 and len(thoughts) < 10_000


async def test_a_state_that_doubles_is_given_up(anna: httpx.AsyncClient) -> None:
    started = time.monotonic()
    events = await ask(anna, "doubles")
    assert events[-1]["content"] == "Fine." and time.monotonic() - started < 10
    inputs = [e["input"] for e in of(events, "chain_start") if e["name"] == "state"]
    assert len(inputs) == 4 and inputs[-1] == {"a": 1}


async def test_stop_closes_the_connection(anna: httpx.AsyncClient) -> None:
    events: Events = []
    async with anna.stream("POST", "/stream", json={"message": "Go", "backend": "endless"}) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
                if events[-1]["type"] == "token":
                    await anna.post(f"/runs/{events[0]['run_id']}/stop")
    check(events)
    assert (events[-1]["type"], events[-1]["content"]) == ("stopped", "Begun.")
    for _ in range(500):
        if "endless" in ENDED:
            break
        await asyncio.sleep(0.02)
    assert "endless" in ENDED


async def test_any_byte_is_a_sign_of_life(anna: httpx.AsyncClient) -> None:
    assert (await ask(anna, "alive"))[-1]["content"] == "Still alive."


async def test_retries_and_fallback_come_only_before_anything_was_done(
    anna: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.retries._wait", lambda state: 0.0)
    assert (await ask(anna, "recovers"))[-1]["content"] == "At attempt 3."
    for name in ("silent_end", "404"):
        events = await ask(anna, name, "hello")
        assert events[-1]["type"] == "complete" and [e for e in of(events, "status") if e.get("backend") == "Script"]
    for name in ("cut_in_reply", "acts"):
        events = await ask(anna, name, "hello")
        assert events[-1]["code"] == "backend_unavailable" and "Connection lost" in events[-1]["message"]
        assert sum(one == name for one, _, _ in REQUESTS) == 1


async def test_nothing_of_glassbox_is_sent_to_the_agent(anna: httpx.AsyncClient) -> None:
    sent = {"message": "A message", "backend": "content_alone", "system_prompt": "Be brief."}
    events = await events_of(anna, "POST", "/stream", json=sent)
    name, body, headers = REQUESTS[-1]
    assert name == "content_alone" and headers["accept"] == "text/event-stream" and "authorization" not in headers
    assert body.keys() == {"threadId", "runId", "state", "messages", "tools", "context", "forwardedProps"}
    assert [(m["role"], m["content"]) for m in body["messages"]] == [("user", "A message")]
    for secret in (events[0]["run_id"], events[0]["conversation_id"]):
        assert secret not in json.dumps(body)
    await ask(anna, "401")
    assert REQUESTS[-1][2]["authorization"] == TOKEN


async def _answered(app: Api, client: httpx.AsyncClient, backend: str, *answers: dict[str, Any]) -> Events:
    left = list(answers)
    async with socket_of(app, client) as socket:
        await socket.send(json.dumps({"message": "Go", "backend": backend}))
        events: Events = []
        while left:
            events.append(json.loads(await socket.recv()))
            assert events[-1]["type"] != "error", events[-1]
            if events[-1]["type"] == "approval":
                approve = {"type": "approve", "tool_call_id": events[-1]["tool_call_id"]}
                await socket.send(json.dumps(approve | left.pop(0)))
        events += await events_until_end(socket)
    check(events)
    return events


async def test_a_question_in_the_form_of_the_draft(app: Api, anna: httpx.AsyncClient) -> None:
    events = await _answered(app, anna, "draft", {"approved": True})
    assert of(events, "approval")[0]["input"] == {"question": "May I?", "what": "launch", "answer": ""}
    assert events[-1]["content"] == '{"interruptId": "i", "payload": {"approved": true}} 1'


@pytest.mark.parametrize(
    ("first", "second", "resumed"),
    [
        (
            {"approved": True, "input": {"answer": "Ada"}},
            {"approved": True},
            [("resolved", "Ada"), ("resolved", {"city": "Bonn", "days": 2})],
        ),
        (
            {"approved": False},
            {"approved": True, "input": {"question": "Where?", "city": "Rome", "days": 3, "answer": ""}},
            [("cancelled", None), ("resolved", {"city": "Rome", "days": 3})],
        ),
    ],
)
async def test_several_questions_get_answers_of_the_form_that_they_ask_for(
    app: Api, anna: httpx.AsyncClient, first: Any, second: Any, resumed: Any
) -> None:
    events = await _answered(app, anna, "asks_twice", first, second, {"approved": False})
    sent = next(body for name, body, _ in reversed(REQUESTS) if name == "answers")
    assert [(one["status"], one.get("payload")) for one in sent["resume"]] == resumed
    assert [m["content"] for m in sent["messages"]] == ["Go", "Well. "] and sent["state"] == {"n": 1}
    last = [{"interruptId": "a", "status": "resolved", "payload": False}]
    assert events[-1]["content"] == f"Well. \n\n{json.dumps(last)}"
    assert len({e["tool_call_id"] for e in of(events, "approval")}) == 3
