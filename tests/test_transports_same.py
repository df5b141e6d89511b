"""A run is the same over every transport, and any transport may follow and stop the run of another."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, dropwhile, groupby
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from ag_ui.core import Event
from gradio_client import Client
from gradio_client.exceptions import AppError
from pydantic import TypeAdapter

from app import App
from components.handlers import Handlers
from components.reply import reply_html
from hosting.identity import COOKIE
from runs.live import LiveRun, new_id
from settings import ToolSettings
from tests.conftest import scripted, until
from tests.grammar import check
from tests.live_app import Events, client_of, events_of, events_until_end, live_app, next_event, run_on_loop, socket_of
from tests.pages import PARAMETERS, Page, shown_text, words

_AGUI_EVENT: TypeAdapter[Any] = TypeAdapter(Event)
_UNTOLD = {"state", "status", "model_start", "model_end"}
"""The number of the first depends on time; the others have no event in AG-UI."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    backends = [scripted("Script"), scripted("Slow script", speed=5)]
    tools = ToolSettings(enabled=["calculator", "clock", "count"])
    with live_app(tmp_path_factory.mktemp("same"), backends=backends, tools=tools) as app:
        yield app


@pytest.fixture
async def anna(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@dataclass
class Seen:
    """A run as a follower has seen it."""

    text: str
    thoughts: str
    tools: list[tuple[str, Any, str]]
    """The name, input and output of each call."""
    given: list[tuple[str, str]]
    """The context of the first model call."""
    kinds: list[str]
    """The events in order, with the chunks of a text joined. Parallel calls are compared one by one."""


def _name(call: tuple[str, Any, str]) -> str:
    return call[0]


def seen(events: Events) -> Seen:
    def joined(kind: str) -> str:
        return "".join(e["content"] for e in events if e["type"] == kind)

    inputs = {e["tool_call_id"]: e["input"] for e in events if e["type"] == "tool_start"}
    ends = [e for e in events if e["type"] == "tool_end"]
    context = next(e["messages"] for e in events if e["type"] == "context")
    kinds: list[tuple[str, str]] = [(e["type"], e.get("tool", "")) for e in events if e["type"] not in _UNTOLD]
    ordered: list[tuple[str, str]] = []
    for _, calls in groupby(kinds, key=lambda kind: bool(kind[1])):
        ordered += sorted(calls, key=lambda kind: kind[1])
    return Seen(
        joined("token"),
        joined("reasoning"),
        sorted(((e["tool"], inputs[e["tool_call_id"]], e["output"] or e.get("error", "")) for e in ends), key=_name),
        [(m["role"], m["content"]) for m in context],
        [" ".join(kind).strip() for kind, _ in groupby(ordered)],
    )


async def asked_of(run: LiveRun) -> str | None:
    """Waits for a call that asks for approval and returns it; None if the run ends without one."""
    await until(lambda: run.tool_calls.awaiting_approval or run.ended)
    return next(iter(run.tool_calls.awaiting_approval), None)


async def approve(client: httpx.AsyncClient, run_id: str, call_id: str) -> None:
    answer = {"tool_call_id": call_id, "approved": True}
    (await client.post(f"/runs/{run_id}/approve", json=answer)).raise_for_status()


async def record(client: httpx.AsyncClient, run_id: str) -> Events:
    lines = (await client.get(f"/runs/{run_id}")).raise_for_status().text.splitlines()
    return [json.loads(line) for line in lines]


def on_apps_loop(app: App, work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return asyncio.to_thread(run_on_loop, app, work)


# A message over each transport, which also approves where it can


async def over_sse(app: App, client: httpx.AsyncClient, message: str) -> Seen:
    events: Events = []
    async with client.stream("POST", "/stream", json={"message": message}) as answer:
        await read(answer, client, events)
    check(events)
    return seen(events)


async def over_eventsource(app: App, client: httpx.AsyncClient, message: str) -> Seen:
    """An EventSource whose connection is lost after every few events."""
    events: Events = []
    while not events or events[-1]["type"] not in ("complete", "error"):
        back = {"Last-Event-ID": str(len(events))} if events else {}
        async with client.stream("GET", "/stream", params={"query": message}, headers=back) as answer:
            await read(answer, client, events, most=20)
    check(events)
    return seen(events)


async def read(answer: httpx.Response, client: httpx.AsyncClient, events: Events, most: int = 10**6) -> None:
    """The events of an SSE response, or the first of them. Approvals are given."""
    answer.raise_for_status()
    most += len(events)
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            events.append(json.loads(line.removeprefix("data: ")))
            if events[-1]["type"] == "approval":
                await approve(client, events[-1]["run_id"], events[-1]["tool_call_id"])
            if len(events) == most:
                return


async def over_socket(app: App, client: httpx.AsyncClient, message: str) -> Seen:
    events: Events = []
    async with socket_of(app, client) as socket:
        await socket.send(json.dumps({"message": message}))
        while not events or events[-1]["type"] not in ("complete", "error"):
            events.append(await next_event(socket))
            if events[-1]["type"] == "approval":
                answer = {"tool_call_id": events[-1]["tool_call_id"], "approved": True}
                await socket.send(json.dumps({"type": "approve", **answer}))
    check(events)
    return seen(events)


async def over_agui(app: App, client: httpx.AsyncClient, message: str) -> Seen:
    sent: dict[str, Any] = {"messages": [{"id": "1", "role": "user", "content": message}]}
    runs: list[list[Any]] = []
    while not runs or _interrupts(runs[-1]):
        answer = (await client.post("/agui", json={"threadId": "t", "runId": "r", **sent})).raise_for_status()
        frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        runs.append([_AGUI_EVENT.validate_json(frame) for frame in frames])
        yes = {"status": "resolved", "payload": {"approved": True}}
        sent = {"messages": [], "resume": [{"interruptId": one.id, **yes} for one in _interrupts(runs[-1])]}
    return seen(ours(runs))


def _interrupts(run: list[Any]) -> list[Any]:
    return list(getattr(getattr(run[-1], "outcome", None), "interrupts", []))


def ours(runs: list[list[Any]]) -> Events:
    """AG-UI's events as our own. Steps that an interrupt ends are started again after it."""
    names = {e.tool_call_id: e.tool_call_name for run in runs for e in run if e.type == "TOOL_CALL_START"}
    found: Events = []
    for number, run in enumerate(runs):
        if number:
            run = list(dropwhile(lambda e: e.type in ("RUN_STARTED", "STATE_SNAPSHOT", "STEP_STARTED"), run))
        if _interrupts(run):
            *run, last = run
            while run[-1].type == "STEP_FINISHED":
                run.pop()
            run.append(last)
        for e in run:
            call = getattr(e, "tool_call_id", "")
            about = {"tool": names[call], "tool_call_id": call} if call else {}
            match e.type:
                case "RUN_STARTED":
                    found.append({"type": "run"})
                case "TEXT_MESSAGE_CONTENT":
                    found.append({"type": "token", "content": e.delta})
                case "REASONING_MESSAGE_CONTENT":
                    found.append({"type": "reasoning", "content": e.delta})
                case "STEP_STARTED" | "STEP_FINISHED":
                    found.append({"type": "chain_start" if e.type == "STEP_STARTED" else "chain_end"})
                case "TOOL_CALL_ARGS":
                    found.append({"type": "tool_start", **about, "input": json.loads(e.delta)})
                case "TOOL_CALL_RESULT":
                    found.append({"type": "tool_end", **about, "output": e.content})
                case "CUSTOM":
                    found.append({"type": e.name, **e.value})
                case "RUN_FINISHED":
                    waits = [{"type": "approval", "tool": names[one.tool_call_id]} for one in _interrupts(run)]
                    found += waits or [{"type": "complete"}]
                case "RUN_ERROR":
                    found.append({"type": "error"})
    return found


async def over_batch(app: App, client: httpx.AsyncClient, message: str) -> Seen:
    events: Events = []
    async with asyncio.timeout(30), client.stream("POST", "/batch", json={"prompts": [message]}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if event["type"] == "approval":
                    given = {"tool_call_id": event["tool_call_id"], "approved": True}
                    (await client.post(f"/runs/{event['run_id']}/approve", json=given)).raise_for_status()
                events.append(event)
    assert events.pop()["type"] == "batch_done"
    assert {event.pop("index") for event in events} == {0}
    check(events)
    return seen(events)


async def over_gradio(app: App, client: httpx.AsyncClient, message: str) -> Seen:
    """Gradio's API has only the text; the rest is read from its run."""
    async with client_of(app, cookie=False) as nobody:
        here = (await nobody.post("/conversations", json={"messages": []})).json()
        gradio = await asyncio.to_thread(Client, app.url, verbose=False)
        try:
            job = await asyncio.to_thread(gradio.submit, message, **here, api_name="/chat")
            await until(lambda: app.runs.live_run(here["conversation_id"]))
            run = app.runs.live_run(here["conversation_id"])
            assert run
            if call_id := await asked_of(run):
                await approve(nobody, run.id, call_id)
            await until(lambda: job.done())
            failed = isinstance(job.exception(), AppError)
            text = job.outputs()[-1]
        finally:
            await asyncio.to_thread(gradio.close)
        events = await record(nobody, run.id)
    assert failed == (events[-1]["type"] == "error")
    return replace(seen(events), text=text)


async def over_page(app: App, client: httpx.AsyncClient, message: str) -> Seen:
    """The page as its handlers draw it. The events are those of its table, which loads the record."""
    handlers = Handlers(app.turns, app.identity)
    page = Page(handlers, client.cookies[COOKIE])
    page.options = (None, None, None, True, None, *PARAMETERS, True, {}, False, None)  # all tools are on
    run_id = ""

    async def talk() -> None:
        nonlocal run_id
        await page.begin(message, memory=app.settings.memory.default)
        run_id = str(page.state.run_id)
        run = app.runs.find(run_id)
        assert run
        while page.state.run_id:
            await page.follow()
            for call_id in run.tool_calls.awaiting_approval:
                await say_yes(page, call_id)
            await until(lambda: not run.tool_calls.awaiting_approval)

    await on_apps_loop(app, talk())
    reply = await on_apps_loop(app, app.store.message(str(page.state.conversation_id), page.state.shown[-1].id))
    events = await record(client, run_id)
    check(events)
    parts = [part for part in reply.parts if part.kind == "tool"]
    assert words(page.lives[-1]) == words(shown_text(reply_html(reply.text)))
    return replace(
        seen(events),
        text=reply.text,  # the page shows it as HTML
        thoughts="".join(part.text for part in reply.parts if part.kind == "thinking"),
        tools=sorted(((one.name, one.input, one.text or one.error or "") for one in parts), key=_name),
    )


async def say_yes(page: Page, call_id: str) -> None:
    event: Any = SimpleNamespace(_data={"call": call_id, "approved": True})
    await page.handlers.approval.on_answer(page.state, page.request, event)


Transport = Callable[[App, httpx.AsyncClient, str], Awaitable[Seen]]
TRANSPORTS: list[Transport] = [over_sse, over_eventsource, over_socket, over_agui, over_batch, over_gradio, over_page]


@pytest.mark.parametrize("message", ["tour", "approval", "tool failure", "cut", "/count 3", "faults", "hello"])
async def test_the_same_script_is_the_same_run_over_every_transport(app: App, message: str) -> None:
    async def as_somebody(over: Transport) -> Seen:
        async with client_of(app) as client:
            return await over(app, client, message)

    found = await asyncio.gather(*(as_somebody(over) for over in TRANSPORTS))
    expected = found[0]
    assert expected.text and message.split()[-1] in expected.given[-1][1]
    for over, one in zip(TRANSPORTS, found, strict=True):
        assert one == expected, over.__name__
    if message == "tour":
        assert expected.thoughts and [name for name, _, _ in expected.tools] == ["calculator", "count"]
    assert ("approval careful_tool" in expected.kinds) == (message == "approval")
    assert expected.kinds[-1] == ("error" if message == "cut" else "complete")


# A run that is started over one transport and followed, approved or stopped over another


async def start_by_stream(app: App, client: httpx.AsyncClient, message: str) -> str:
    async with client.stream("POST", "/stream", json={"message": message, "backend": "Slow script"}) as answer:
        return answer.raise_for_status().headers["x-run-id"]


async def start_by_eventsource(app: App, client: httpx.AsyncClient, message: str) -> str:
    params = {"query": message, "backend": "Slow script"}
    async with client.stream("GET", "/stream", params=params) as answer:
        return answer.raise_for_status().headers["x-run-id"]


async def start_by_socket(app: App, client: httpx.AsyncClient, message: str) -> str:
    async with socket_of(app, client) as socket:
        await socket.send(json.dumps({"message": message, "backend": "Slow script"}))
        return str((await next_event(socket))["run_id"])


async def start_by_agui(app: App, client: httpx.AsyncClient, message: str) -> str:
    sent = {"messages": [{"id": "1", "role": "user", "content": message}]}
    chosen = {"threadId": new_id(), "runId": "r", "forwardedProps": {"backend": "Slow script"}}
    async with client.stream("POST", "/agui", json={**chosen, **sent}) as answer:
        return answer.raise_for_status().headers["x-run-id"]


async def start_by_page(app: App, client: httpx.AsyncClient, message: str) -> str:
    page = Page(Handlers(app.turns, app.identity), client.cookies[COOKIE])
    await on_apps_loop(app, page.begin(message, backend="Slow script"))
    return str(page.state.run_id)


Start = Callable[[App, httpx.AsyncClient, str], Awaitable[str]]
STARTS: list[Start] = [start_by_stream, start_by_eventsource, start_by_socket, start_by_agui, start_by_page]


def run_of(app: App, run_id: str) -> LiveRun:
    run = app.runs.find(run_id)
    assert run
    return run


async def opened(app: App, client: httpx.AsyncClient, run_id: str) -> Page:
    """The visitor's page with the conversation of a run."""
    page = Page(Handlers(app.turns, app.identity), client.cookies[COOKIE])
    await on_apps_loop(app, page.load(conversation=run_of(app, run_id).conversation_id))
    assert page.state.run_id == run_id
    return page


@pytest.mark.parametrize("start", STARTS)
async def test_all_followers_get_the_same_events(app: App, anna: httpx.AsyncClient, start: Start) -> None:
    run_id = await start(app, anna, "tour")
    path = f"/runs/{run_id}/events"
    page = await opened(app, anna, run_id)
    async with socket_of(app, anna) as socket:
        await socket.send(json.dumps({"type": "resume", "run_id": run_id}))
        by_socket, by_stream, by_id, _ = await asyncio.gather(
            events_until_end(socket),
            events_of(anna, "GET", path),
            events_of(anna, "GET", path, headers={"Last-Event-ID": "5"}),
            on_apps_loop(app, page.follow()),
        )
    check(by_stream)
    assert by_stream == by_socket == await record(anna, run_id)
    assert by_id == by_stream[5:]
    assert words(page.lives[-1]) == words(shown_text(reply_html(by_stream[-1]["content"])))


async def answer_by_http(app: App, client: httpx.AsyncClient, run_id: str, call_id: str) -> None:
    await approve(client, run_id, call_id)


async def answer_by_socket(app: App, client: httpx.AsyncClient, run_id: str, call_id: str) -> None:
    async with socket_of(app, client) as socket:
        await socket.send(json.dumps({"type": "resume", "run_id": run_id}))
        await socket.send(json.dumps({"type": "approve", "tool_call_id": call_id, "approved": True}))
        assert (await events_until_end(socket))[-1]["type"] == "complete"


async def answer_by_page(app: App, client: httpx.AsyncClient, run_id: str, call_id: str) -> None:
    page = await opened(app, client, run_id)
    await on_apps_loop(app, say_yes(page, call_id))


@pytest.mark.parametrize(("start", "answer"), zip(STARTS, cycle((answer_by_http, answer_by_socket, answer_by_page))))
async def test_approval_is_answered_over_any_transport(
    app: App, anna: httpx.AsyncClient, start: Start, answer: Callable[..., Awaitable[None]]
) -> None:
    run_id = await start(app, anna, "approval")
    call_id = await asked_of(run_of(app, run_id))
    assert call_id
    await answer(app, anna, run_id, call_id)
    events = await events_of(anna, "GET", f"/runs/{run_id}/events")
    check(events)
    assert events[-1]["type"] == "complete"
    assert [e["output"] for e in events if e["type"] == "tool_end"] == ["It said: Hello"]


async def stop_by_http(app: App, client: httpx.AsyncClient, run_id: str) -> None:
    assert (await client.post(f"/runs/{run_id}/stop")).json() == {"status": "stopped"}


async def stop_by_socket(app: App, client: httpx.AsyncClient, run_id: str) -> None:
    async with socket_of(app, client) as socket:
        await socket.send(json.dumps({"type": "resume", "run_id": run_id}))
        await socket.send('{"type": "stop"}')
        assert (await events_until_end(socket))[-1]["type"] == "stopped"


async def stop_by_page(app: App, client: httpx.AsyncClient, run_id: str) -> None:
    page = await opened(app, client, run_id)
    await on_apps_loop(app, page.handlers.on_stop(page.state, page.request))


@pytest.mark.parametrize(("start", "stop"), zip(STARTS, cycle((stop_by_http, stop_by_socket, stop_by_page))))
async def test_stop_over_any_transport_ends_all_followers(
    app: App, anna: httpx.AsyncClient, start: Start, stop: Callable[..., Awaitable[None]]
) -> None:
    run_id = await start(app, anna, "endless")
    following = asyncio.create_task(events_of(anna, "GET", f"/runs/{run_id}/events"))
    await until(lambda: run_of(app, run_id).text)
    await stop(app, anna, run_id)
    events = await following
    check(events)
    assert (events[-1]["type"], events[-1]["reason"]) == ("stopped", "user")
    assert events[-1]["content"] == run_of(app, run_id).text
