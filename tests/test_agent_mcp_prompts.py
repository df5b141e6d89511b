"""Prompts of servers: what is offered of the lists, and the messages that prompts make."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.mcp.prompts import MOST_PROMPTS
from agent.mcp.servers import Server, Servers
from runs.errors import ChatError
from settings import LimitSettings
from tests.conftest import until
from tests.live_app import client_of, live_api, refused
from tests.mcp_turns import Connect, bad, entry, server_processes

pytest_plugins = ["tests.mcp_turns"]
MOST = 32_000


async def servers_of(connect: Connect, *entries: Any) -> Servers:
    turns = await connect(*entries)
    found: Servers = turns.toolbox.servers
    return found


async def refusal(servers: Servers, name: str, given: dict[str, Any] | None = None, server: str = "box") -> ChatError:
    with pytest.raises(ChatError) as error:
        await servers.fill_prompt(server, name, given or {}, MOST)
    return error.value


def names(server: Server) -> list[str]:
    return [prompt.name for prompt in server.prompts]


async def test_prompts_are_listed_and_filled_in(connect: Connect) -> None:
    servers = await servers_of(connect, entry())
    (server,) = servers.servers
    plan, joke, _ = server.listed()["prompts"]
    assert (plan["title"], plan["about"]) == ("Plan a trip", "Makes a plan for a few days in a city.")
    assert [(field["name"], field["type"], field["required"]) for field in plan["form"]] == [
        ("city", "text", True),
        ("days", "text", False),
    ]
    assert (joke["title"], joke["form"]) == ("joke", [])
    assert await servers.fill_prompt("box", "plan", {"city": "Bergen <b>"}, MOST) == "Plan 3 days in Bergen <b>."
    assert await servers.fill_prompt("box", "plan", {"city": "東京", "days": "2"}, MOST) == "Plan 2 days in 東京."
    assert await servers.fill_prompt("box", "joke", {}, MOST) == "Tell me a joke.\n\nAbout <b>whales</b>."
    await until(lambda: not server_processes(), 30)


async def test_prompts_over_http(connect: Connect, http_server: str) -> None:
    servers = await servers_of(connect, entry(url=http_server, prompts=["joke", "absent"]))
    (server,) = servers.servers
    assert (names(server), server.refused) == (["joke"], ["the prompt 'absent': the server has no such prompt."])
    assert (await servers.fill_prompt("box", "joke", {}, MOST)).startswith("Tell me a joke.")


@pytest.mark.parametrize(
    ("name", "given", "server", "code", "message"),
    [
        ("none", {}, "box", "not_found", "There is no such prompt: GET /tool-servers lists the prompts."),
        ("joke", {}, "other", "not_found", "There is no such prompt: GET /tool-servers lists the prompts."),
        ("plan", {}, "box", "invalid_request", "city: this needs a value."),
        (
            "plan",
            {"city": "a", "who": "b"},
            "box",
            "invalid_request",
            "arguments: found 'who', allowed: 'city', 'days'.",
        ),
        ("joke", {"x": "y"}, "box", "invalid_request", "arguments: found 'x', allowed: none."),
        ("plan", {"city": "a" * 20_001}, "box", "invalid_request", "city: this is a text of 0 to 20,000 characters."),
        ("refuse", {"why": "ink"}, "box", "tool_failed", "box: it answered with an error: not for ink"),
    ],
)
async def test_requests_that_do_not_fit(
    connect: Connect, name: str, given: dict[str, Any], server: str, code: str, message: str
) -> None:
    servers = await servers_of(connect, entry())
    error = await refusal(servers, name, given, server)
    assert (error.code, error.message) == (code, message)
    assert servers.servers[0].state == "ready", "a refusal is no failure"


async def test_unsound_prompts_are_refused_with_a_sentence(connect: Connect) -> None:
    servers = await servers_of(connect, entry(command=bad("prompts")))
    (server,) = servers.servers
    assert names(server) == ["same", "huge", "empty", "assistant", "wrong", "hang", "error", "die"]
    assert server.refused == [
        "the prompt 'same': another prompt of the server has the same name.",
        "the prompt ' ': its name does not have 1 to 100 characters of text.",
        f"the prompt '{'n' * 100}': its name does not have 1 to 100 characters of text.",
        "the prompt 'twice': two of its arguments have the same name.",
        "the prompt 'eleven': it has more than 10 arguments.",
        "the prompt 'unnamed': the name of an argument does not have 1 to 100 characters of text.",
        "the prompt 'long': the name of an argument does not have 1 to 100 characters of text.",
    ]
    first = server.prompts[0]
    assert (len(first.title), first.title[:16], len(first.about), first.about[:11]) == (
        80,
        "<b>bold</b> tttt",
        200,
        "two lines z",
    )


async def test_lists_that_lie_or_flood_are_cut(connect: Connect) -> None:
    servers = await servers_of(
        connect,
        entry("many", bad("prompts-many")),
        entry("endless", bad("prompts-endless")),
        entry("only", bad("prompts-only")),
    )
    many, endless, only = servers.servers
    assert (len(many.prompts), len(endless.prompts)) == (MOST_PROMPTS, MOST_PROMPTS)
    assert many.refused == ["the prompt 'prompt12' and those after it: only 12 prompts of a server are offered."]
    assert (only.state, names(only), only.tools) == ("ready", ["only"], []), "a server without tools"


@pytest.mark.parametrize(
    ("habit", "reason"),
    [
        ("prompts-hang", "it did not list them within 1 s."),
        ("prompts-die", "its process has ended."),
        ("prompts-wrong", "its answer is not as the protocol says (at prompts, 0, name)."),
    ],
)
async def test_a_list_that_fails_harms_no_tool(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, habit: str, reason: str
) -> None:
    monkeypatch.setattr("agent.mcp.servers._PROMPTS_S", 1.0)
    (server,) = (await servers_of(connect, entry(command=bad(habit)))).servers
    assert (server.state, len(server.tools), server.prompts) == ("ready", 1, [])
    assert server.refused == [f"its prompts: {reason}"]
    await until(lambda: not server_processes(), 30)


async def test_answers_that_are_no_message_are_refused(connect: Connect) -> None:
    servers = await servers_of(connect, entry(command=bad("prompts")))
    for name, message in (
        ("huge", "box: its prompt has 100,000 characters, and a message has at most 32,000."),
        ("empty", "box: its prompt has no text of the user."),
        ("assistant", "box: its prompt has no text of the user."),
        ("wrong", "box: its answer is not as the protocol says (at messages, 0, content)."),
        ("error", "box: it answered with an error: no ink"),
    ):
        error = await refusal(servers, name)
        assert (error.code, error.message.partition(" (at ")[0]) == ("tool_failed", message.partition(" (at ")[0])
    assert servers.servers[0].state == "ready"
    assert (await refusal(servers, "die")).message == "box: its process has ended."
    await until(lambda: servers.servers[0].state == "ready", 30)


async def test_a_prompt_that_hangs_ends_with_its_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = await servers_of(connect, entry(command=bad("prompts")))
    monkeypatch.setattr("agent.mcp.servers._FILL_S", 2.0)
    error = await refusal(servers, "hang")
    assert (error.code, error.message) == ("timeout", "box: it did not fill in the prompt within 2 s.")
    await until(lambda: not server_processes(), 30)
    assert await servers.fill_prompt("box", "same", {}, MOST) == "{}", "the next one is filled in"


async def ready(client: httpx.AsyncClient) -> list[Any]:
    async with asyncio.timeout(60):
        while (found := (await client.get("/tool-servers")).json())[0]["state"] == "starting":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return list(found)


async def test_prompts_are_counted_as_previews(tmp_path: Path) -> None:
    limits = LimitSettings(previews_per_minute=3)
    with live_api(tmp_path, mcp=[entry("a/b ü")], limits=limits) as app:
        async with client_of(app) as client:
            (server,) = await ready(client)
            assert [one["name"] for one in server["prompts"]] == ["plan", "joke", "refuse"]
            path = "/tool-servers/a%2Fb%20%C3%BC/prompt"
            answer = await client.post(path, json={"prompt": "plan", "arguments": {"city": "Oslo"}})
            assert answer.json() == {"message": "Plan 3 days in Oslo."}
            for sent in ({"prompt": "plan", "arguments": {"city": 5}}, {}, {"prompt": "x", "more": 1}):
                await refused(await client.post(path, json=sent), 400, "invalid_request")
            many = {"prompt": "plan", "arguments": {str(i): "" for i in range(11)}}
            await refused(await client.post(path, json=many), 400, "invalid_request")
            for _ in range(2):
                await refused(await client.post("/tool-servers/none/prompt", json={"prompt": "x"}), 404, "not_found")
            message = await refused(await client.post(path, json={"prompt": "joke"}), 429, "rate_limited")
            assert message.startswith("Too many prompts were filled in")
