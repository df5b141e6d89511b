"""Glassbox as an MCP server, used by the official client in both forms of the protocol, and by another Glassbox."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from settings import LimitSettings, McpSettings, ToolSettings
from tests.conftest import scripted, until
from tests.live_app import Api, events_of, live_api

MODES = ("legacy", "2026-07-28")
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    limits = LimitSettings(previews_per_minute=12, visitors_per_address=1)
    with live_api(tmp_path_factory.mktemp("mcp"), limits=limits, tools=ToolSettings(approval=["clock"])) as app:
        yield app


@asynccontextmanager
async def agent(app: Api, mode: Any = "auto", **headers: str) -> AsyncIterator[Client]:
    """Another program's connection."""
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(f"{app.url}mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def text_of(result: Any) -> str:
    return "".join(block.text for block in result.content)


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_asks_and_follows_the_progress(app: Api, mode: str) -> None:
    progress: list[tuple[float, str]] = []

    async def note(number: float, total: float | None, text: str | None) -> None:
        progress.append((number, text or ""))

    async with agent(app, mode) as client:
        result = await client.call_tool("ask", {"message": "tour", "backend": "Slow script"}, progress_callback=note)
    assert not result.is_error and result.structured_content
    answer = result.structured_content
    assert answer["reply"] == text_of(result) and "What you are looking at" in answer["reply"]
    assert (answer["status"], answer["backend"], answer["memory"]) == ("complete", "Slow script", "tokens")
    assert answer["usage"]["output_tokens"] > 50
    texts = [text for _, text in progress]
    assert "Writing the reply" in texts and any(text.endswith(" tokens") for text in texts)
    numbers = [number for number, _ in progress]
    assert numbers == sorted(set(numbers)), "progress grows"


@pytest.mark.parametrize("mode", MODES)
async def test_the_three_tools_are_described(app: Api, mode: str) -> None:
    async with agent(app, mode) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        backends = (await client.call_tool("list_backends", {})).structured_content
    assert set(listed) == {"ask", "search_documents", "list_backends"}
    assert all(tool.description and tool.output_schema for tool in listed.values())
    assert listed["list_backends"].annotations and listed["list_backends"].annotations.read_only_hint
    assert backends and [one["name"] for one in backends["backends"]] == ["Script", "Slow script"]
    assert backends["default_backend"] == "Script" and "window" in backends["memory_modes"]


async def test_a_conversation_is_continued_by_its_id(app: Api) -> None:
    async with agent(app) as client:
        first = (await client.call_tool("ask", {"message": "one"})).structured_content
        assert first
        here = {"conversation_id": first["conversation_id"], "memory": "none"}
        second = (await client.call_tool("ask", {"message": "two", **here})).structured_content
        third = (await client.call_tool("ask", {"message": "three", **here, "memory": "full"})).structured_content
    assert second and third and {second["conversation_id"], third["conversation_id"]} == {first["conversation_id"]}
    async with httpx.AsyncClient(base_url=app.url) as client_:
        given = {}
        for run in (second, third):
            events = await events_of(client_, "GET", f"/runs/{run['run_id']}/events")
            context = next(event for event in events if event["type"] == "context")
            given[run["run_id"]] = [m["content"] for m in context["messages"] if m["role"] == "user"]
    assert given == {second["run_id"]: ["two"], third["run_id"]: ["one", "two", "three"]}


async def test_a_visitors_conversation_needs_the_cookie(app: Api) -> None:
    async with httpx.AsyncClient(base_url=app.url) as anna:
        await anna.get("/example")
        run = (await events_of(anna, "POST", "/stream", json={"message": "mine"}))[0]
        here = {"message": "and?", "conversation_id": run["conversation_id"]}
        cookie = "; ".join(f"{name}={value}" for name, value in anna.cookies.items())
        async with agent(app) as stranger, agent(app, Cookie=cookie) as own:
            refused, found = await stranger.call_tool("ask", here), await own.call_tool("ask", here)
    assert refused.is_error and "not_found: " in text_of(refused)
    assert not found.is_error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"message": ""}, "invalid_request: "),
        ({"message": "x", "backend": "Nope"}, "not_found: "),
        ({"message": "x", "memory": "nope"}, "not_found: "),
        ({"message": "x", "conversation_id": "nope"}, "not_found: "),
        ({"message": "x", "conversation_id": "n" * 101}, "conversation_id: "),
        ({"message": "x" * 100_000}, "too_large: "),
        ({}, "message"),
        ({"message": {"a": 1}}, "message"),
    ],
)
async def test_wrong_arguments_are_refused_in_words(app: Api, arguments: dict[str, Any], words: str) -> None:
    async with agent(app) as client:
        result = await client.call_tool("ask", arguments)
    assert result.is_error and words in text_of(result)


async def test_a_failed_reply_is_an_error_with_its_beginning(app: Api) -> None:
    async with agent(app) as client:
        result = await client.call_tool("ask", {"message": "cut"})
    assert result.is_error
    assert "backend_unavailable: " in text_of(result) and "So far: " in text_of(result)


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_leaves_ends_its_run(app: Api, mode: str) -> None:
    known = {run.id for run in app.runs.live()}

    async def ask() -> None:
        async with agent(app, mode) as client:
            await client.call_tool("ask", {"message": "tour", "backend": "Slow script"})

    asked = asyncio.create_task(ask())
    await until(lambda: [run for run in app.runs.live() if run.id not in known and run.text])
    (run,) = [run for run in app.runs.live() if run.id not in known]
    asked.cancel()
    await asyncio.wait({asked})
    await until(lambda: run.ended)
    assert run.state.phase == "stopped" and run.text


async def test_an_approval_says_where_it_is_given(app: Api) -> None:
    waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(number: float, total: float | None, text: str | None) -> None:
        if text and "/approve" in text:
            waiting.set_result(text.partition("POST ")[2])

    async with agent(app) as client, httpx.AsyncClient(base_url=app.url) as http:
        asked = asyncio.create_task(
            client.call_tool("ask", {"message": '/clock {"time_zone": "UTC"}'}, progress_callback=note)
        )
        path = await asyncio.wait_for(waiting, 20)
        events = (await http.get(path.removesuffix("/approve"))).text
        assert "approval" in events
        call_id = events.partition('"tool_call_id":"')[2].partition('"')[0]
        answer = await http.post(path, json={"tool_call_id": call_id, "approved": True})
        assert answer.status_code == 200, answer.text
        result = await asked
        events = (await http.get(path.removesuffix("/approve"))).text
    assert not result.is_error and '"status":"complete"' in events


async def test_searches_are_counted(app: Api) -> None:
    async with agent(app) as client:
        found = await client.call_tool("search_documents", {"query": "memory mode window", "most": 2})
        assert found.structured_content
        passages = found.structured_content["result"]
        assert len(passages) == 2 and all(one["document"] and one["text"] for one in passages)
        more = [await client.call_tool("search_documents", {"query": "x"}) for _ in range(15)]
        wrong = await client.call_tool("search_documents", {"query": "x", "most": 0})
    assert not any(one.is_error for one in more[:11]) and more[-1].is_error
    assert "rate_limited: Too many searches" in text_of(more[-1])
    assert wrong.is_error and "most" in text_of(wrong)


async def test_other_requests_are_refused(app: Api) -> None:
    async with httpx.AsyncClient(base_url=app.url) as http:
        for method in ("GET", "DELETE", "PUT"):
            answer = await http.request(method, "/mcp")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        for body in (b"", b"{", b"[]", b"[" * 100_000, b'{"jsonrpc": "2.0"}', b"\xff"):
            answer = await http.post("/mcp", content=body, headers={**HEADERS, "Content-Type": "application/json"})
            assert answer.status_code == 400, body[:20]
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await http.post("/mcp", json=ask)).status_code in (200, 406)
        foreign = await http.post("/mcp", json=ask, headers={**HEADERS, "Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "authentication")
        large = await http.post("/mcp", content=b"x" * 30_000_000, headers=HEADERS)
        assert large.status_code == 413


async def test_login_is_needed_where_it_is_set(tmp_path: Path) -> None:
    with live_api(tmp_path, auth=("me", "secret")) as app:
        async with httpx.AsyncClient(base_url=app.url) as http:
            ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            assert (await http.post("/mcp", json=ask, headers=HEADERS)).status_code == 401
        async with agent(app, Authorization=httpx.BasicAuth("me", "secret")._auth_header) as client:
            assert len((await client.list_tools()).tools) == 3


async def test_another_glassbox_uses_its_tools(app: Api, tmp_path: Path) -> None:
    entry = McpSettings(name="other", url=f"{app.url}mcp", approval="never")
    with live_api(tmp_path, backends=[scripted("Script")], mcp=[entry]) as other:
        async with httpx.AsyncClient(base_url=other.url) as http:
            async with asyncio.timeout(20):
                while (await http.get("/tool-servers")).json()[0]["state"] != "ready":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            events = await events_of(http, "POST", "/stream", json={"message": '/ask {"message": "hello there"}'})
    (end,) = [event for event in events if event["type"] == "tool_end"]
    assert "error" not in end and "I am a script, not a model" in end["output"]
    assert any(event["type"] == "tool_output" for event in events), "its progress is a partial result"
    assert events[-1]["type"] == "complete"
