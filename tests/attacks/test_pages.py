"""Pages of huge conversations: what the server keeps and sends."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import httpx
import pytest

from app import App
from components.replay import PlayerCache
from runs.live import new_id
from runs.replay import Player, Replay
from tests.live_app import client_of, live_app
from tests.test_runs_replay import recorded

KEPT = 100_000
"""The most characters that the server may keep for a page."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with live_app(tmp_path_factory.mktemp("pages")) as app:
        yield app


def characters(value: Any) -> int:
    """The total length of all texts in a value."""
    match value:
        case str():
            return len(value)
        case dict():
            return sum(characters(one) for pair in value.items() for one in pair)
        case list() | tuple() | set():
            return sum(map(characters, value))
        case _ if is_dataclass(value):
            return sum(characters(getattr(value, field.name)) for field in fields(value))
        case _:
            return 0


async def opened(app: App, client: httpx.AsyncClient, conversation_id: str) -> tuple[str, str]:
    """Loads the page as a browser does. Returns its session and the data that it received."""
    config = (await client.get("/config", params={"conversation": conversation_id})).json()
    load = next(one["id"] for one in config["dependencies"] if any(target[1] == "load" for target in one["targets"]))
    session = new_id()
    named = {"fn_index": load, "data": [], "session_hash": session}
    await client.post("/gradio_api/queue/join", json=named, params={"conversation": conversation_id})
    received = ""
    async with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
        async for line in answer.aiter_lines():
            received += line
            if "process_completed" in line:
                break
    return session, received


@pytest.mark.parametrize(("count", "size", "least"), [(30, 130_000, 3), (1, 3_900_000, 1)])
async def test_page_of_a_huge_conversation_keeps_and_sends_little(app: App, count: int, size: int, least: int) -> None:
    roles = ("user", "assistant")
    talk = [{"role": roles[n % 2], "content": f"message {n} " + "x <y> " * (size // 6)} for n in range(count)]
    async with client_of(app) as client:
        this = (await client.post("/conversations", json={"messages": talk})).json()["conversation_id"]
        session, received = await opened(app, client, this)
    assert received.count("<div class='said'") + received.count("too long to be formatted") >= least
    assert len(received) < 4_000_000
    kept = app.demo.state_holder.session_data[session]
    assert characters(list(kept.state_data.values())) + characters(kept.config_values) < KEPT


def test_players_are_kept_by_bytes() -> None:
    one = Player(Replay(recorded(900)))
    players = PlayerCache(3 * one.replay.memory_bytes)
    ids = [players.keep(Player(one.replay)) for _ in range(20)]
    assert [players.get(each) is not None for each in ids] == [False] * 17 + [True] * 3
    small = PlayerCache(1)
    assert small.get(small.keep(one)) is one, "the newest stays"
