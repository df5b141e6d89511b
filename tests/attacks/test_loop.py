"""The event loop under the worst input of each route, within the limits of `--share`."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import App
from settings import LimitSettings
from tests.attacks.test_pages import opened
from tests.live_app import client_of, live_app, next_event, socket_of

HELD_S, LATE_S = 0.5, 4.0
"""The longest that the loop's thread may compute without a pause, and the longest that others may wait, in seconds.

On an idle machine the longest computation takes 0.2 s, mostly in C code that parses or writes JSON; quadratic code, or
code that works on a whole conversation, took 1 to 24 s. The wait includes other programs of a busy machine.
"""
LIMITS = LimitSettings(messages_per_minute=0, messages_per_day=0, runs_per_visitor=0, previews_per_minute=0)
ROLES = "user", "assistant"
TEXT = "x <y> *z* "


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder: Path = tmp_path_factory.mktemp("loop")
    with live_app(folder, limits=LIMITS.with_public_limits()) as app:
        httpx.post(
            f"{app.url}stream", json={"message": "hello"}, timeout=60
        ).raise_for_status()  # imports what turns need
        gc.collect()
        gc.freeze()  # else the loop's thread would collect the objects of the whole test suite, which no server has
        yield app
        gc.unfreeze()


@pytest.fixture(autouse=True)
def without_earlier_objects(app: App) -> None:
    """Each case is measured without the objects that an earlier case has left."""
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def watched(app: App) -> AsyncIterator[None]:
    """Fails if the app's loop is blocked for more than HELD_S, or late by more than LATE_S, until the block ends."""
    held, late, ended = [0.0], [0.0], False

    async def watch() -> None:
        while not ended:
            begun, computed = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.01)
            late.append(time.monotonic() - begun)
            held.append(time.thread_time() - computed)

    assert app._loop
    watching = asyncio.run_coroutine_threadsafe(watch(), app._loop)
    try:
        yield
    finally:
        ended = True
        await asyncio.wrap_future(watching)
    print(f"held for {max(held):.3f} s, late by {max(late):.3f} s")
    assert max(held) < HELD_S and max(late) < LATE_S


def talk(count: int, size: int) -> list[dict[str, str]]:
    """Messages of the given length."""
    text = (TEXT * (size // len(TEXT) + 1))[: size - 16]
    return [{"role": ROLES[n % 2], "content": f"message {n:7} {text}"} for n in range(count)]


def calls(replies: int, count: int) -> list[dict[str, Any]]:
    """Turns whose replies have the given number of tool results."""
    part = {"kind": "tool", "name": "calculator", "start": 0, "text": "2", "input": {"expression": "1"}}
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "parts": [part] * count}]
    return turn * replies


def branch(count: int) -> dict[str, Any]:
    """Messages that are listed before their parents."""
    others = [
        {"role": ROLES[n % 2], "content": "a", "id": f"i{n}", "parent_id": f"i{n - 1}" if n else None}
        for n in range(count)
    ]
    return {"messages": [], "other_messages": others[::-1]}


Body = Callable[[], Any]
"""Factories of bodies. They run before the loop is watched, since the tests share its interpreter."""
IMPORTS: dict[str, Body] = {
    "alternatives": lambda: {"messages": [], "other_messages": [{"role": "user", "content": "a"}] * 25_000},
    "children first": lambda: branch(25_000),
    "many": lambda: {"messages": talk(25_000, 150)},
    "long": lambda: {"messages": talk(12, 990_000)},
    "saved here": lambda: {"conversation_id": "c", "messages": calls(20_000, 2)},
    "results": lambda: {"messages": calls(40, 1000)},
    "huge": lambda: {"messages": talk(1, 30_000_000)},
}


@pytest.mark.parametrize("name", IMPORTS)
async def test_huge_conversation_does_not_block_the_loop(app: App, name: str) -> None:
    body = json.dumps(IMPORTS[name]())
    async with client_of(app) as client:
        client.timeout = httpx.Timeout(120)
        async with watched(app):
            answer = await client.post("/conversations", content=body)
        assert answer.status_code == 200, answer.text
        this = answer.json()["conversation_id"]
        for format in ("json", "markdown"):
            async with watched(app):
                assert (await client.get(f"/conversations/{this}", params={"format": format})).is_success
        async with watched(app):
            await opened(app, client, this)
        for memory in ("full", "recall") if name == "long" else ("full",):
            named = {"message": f"message {TEXT * 3000}", "conversation_id": this, "memory": memory}
            async with watched(app):
                assert (await client.post("/context", json=named)).is_success
            async with watched(app):
                answer = await client.post("/stream", json=named)
            assert answer.is_success
        async with watched(app):
            again = await client.get(f"/runs/{answer.headers['x-run-id']}/events")
        assert without_heartbeats(again) == without_heartbeats(answer)
        async with watched(app):
            assert (await client.get("/conversations", params={"search": "z* x <y"})).is_success
        if name == "many":  # it has grown by the turn, beyond what may come from elsewhere
            saved = (await client.get(f"/conversations/{this}")).content
            assert (await client.post("/conversations", content=saved)).is_success


def without_heartbeats(answer: httpx.Response) -> str:
    """The text of a stream without the comments that a slow one has."""
    return answer.text.replace(": ping\n\n", "")


def agent_input(messages: list[Any]) -> dict[str, Any]:
    return {"threadId": "thread", "runId": "run", "messages": messages, "tools": [], "context": [], "state": {}}


def thread(count: int) -> dict[str, Any]:
    messages = [{"id": str(n), "role": ROLES[n % 2], "content": "x" * 300} for n in range(count)]
    return agent_input([*messages, {"id": "last", "role": "user", "content": "hello"}])


def fields() -> dict[str, int]:
    return {f"field {n}": n for n in range(200_000)}


NESTED = "[" * 3_900_000
ATTACKS: dict[str, tuple[str, Body]] = {
    "import, nested": ("/conversations", lambda: "[" * 30_000_000),
    "import, many messages": ("/conversations", lambda: {"messages": talk(100_000, 40)}),
    "import, an endless title": ("/conversations", lambda: {"title": "x" * 30_000_000, "messages": []}),
    "stream, a huge message": ("/stream", lambda: {"message": "x" * 3_900_000}),
    "stream, many fields": ("/stream", fields),
    "stream, nested": ("/stream", lambda: NESTED),
    "stream, the longest message": ("/stream", lambda: {"message": TEXT * 3190}),
    "context, many fields": ("/context", fields),
    "batch, the largest body": ("/batch", lambda: {"prompts": ["x" * 31_000] * 120}),
    "batch, many prompts": ("/batch", lambda: {"prompts": ["x"] * 900_000}),
    "agui, a long thread": ("/agui", lambda: thread(9_999)),
    "agui, too long a thread": ("/agui", lambda: thread(12_000)),
    "agui, many messages": ("/agui", lambda: agent_input([{}] * 900_000)),
    "documents, many words": ("/documents?name=a.txt", lambda: "word <x> " * 220_000),
    "documents, many lines": ("/documents?name=a.md", lambda: "# a\n\n" * 60_000),
    "socket, a huge message": ("", lambda: {"message": "x" * 3_900_000}),
    "socket, many fields": ("", fields),
    "socket, nested": ("", lambda: NESTED),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_worst_input_does_not_block_the_loop(app: App, name: str) -> None:
    path, make = ATTACKS[name]
    made = make()
    body = made if isinstance(made, str) else json.dumps(made)
    async with client_of(app) as client, socket_of(app, client) as socket:
        client.timeout = httpx.Timeout(120)
        async with watched(app):
            if path:
                answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
            else:
                await socket.send(body)
                assert (await next_event(socket))["type"] == "error"
        assert not path or answer.status_code < 500, answer.text[:200]
