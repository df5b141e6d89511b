"""The sessions of pages and their expiry."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client

from app import App
from hosting.sessions import Sessions
from runs.errors import ChatError
from runs.requester import Requester
from settings import BackendSettings, LimitSettings
from tests.conftest import scripted, until
from tests.live_app import client_of, live_app, refused, run_on_loop

AT_ONCE, LATER = timedelta(0), timedelta(minutes=5)
ENDLESS = (
    *("endless", None, "Slow script", "tokens", None, None, None),
    *(True, [], 4, 2000, 200, 3, True, {}, False, None, []),
)
"""What the page sends: the message, its draft, the values of all fields, and its images."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with live_app(tmp_path_factory.mktemp("doors")) as app:
        yield app


@pytest.fixture
def kept(app: App) -> set[str]:
    """Gradio's state by session, emptied."""
    state: Any = app.demo.state_holder
    state.session_data.clear()
    state.time_last_used.clear()
    return state.session_data  # type: ignore[no-any-return]


async def opened(client: httpx.AsyncClient, app: App, session: str) -> int:
    """Runs the page's first event and returns its status."""
    dependencies: Any = app.demo.config["dependencies"]
    load = next(one["id"] for one in dependencies if "load" in str(one["targets"]))
    body = {"data": [], "fn_index": load, "session_hash": session, "trigger_id": None, "event_data": None}
    answer = await client.post("/gradio_api/queue/join", json=body)
    if answer.status_code == 200:
        await client.get("/gradio_api/queue/data", params={"session_hash": session})
    return answer.status_code


async def until_gone(app: App, kept: set[str]) -> None:
    """Waits until Gradio keeps no session: the server notices a lost connection a moment later."""
    async with asyncio.timeout(10):
        while kept:
            app.sessions.expire(app.demo)
            await asyncio.sleep(0.02)


async def test_session_of_a_closed_page_expires(app: App, kept: set[str]) -> None:
    async with client_of(app) as visitor, client_of(app) as other:
        assert await opened(visitor, app, "apage") == 200
        app.sessions._expiry = AT_ONCE
        async with visitor.stream("GET", "/gradio_api/heartbeat/apage"):
            app.sessions.expire(app.demo)
            assert set(kept) == {"apage"}
        await until_gone(app, kept)
        app.sessions._expiry = LATER
        for client in (visitor, other):
            assert await opened(client, app, "apage") == 404
            assert (await client.get("/gradio_api/app_id?session_hash=apage")).status_code == 404
        assert await opened(visitor, app, "another") == 200


async def test_session_of_a_page_that_closed_just_now_is_kept(app: App, kept: set[str]) -> None:
    async with client_of(app) as visitor:
        assert await opened(visitor, app, "reconnects") == 200
        async with visitor.stream("GET", "/gradio_api/heartbeat/reconnects"):
            pass
        app.sessions.expire(app.demo)
        assert set(kept) == {"reconnects"}


async def test_sessions_of_api_calls_expire(app: App, kept: set[str]) -> None:
    async with client_of(app) as client:
        called = await client.post("/gradio_api/call/chat", json={"data": ["Say hello.", "Script", "none", None]})
        said = await client.get(f"/gradio_api/call/chat/{called.json()['event_id']}")
        assert "event: complete" in said.text and kept
        app.sessions._expiry = AT_ONCE
        await until_gone(app, kept)
        app.sessions._expiry = LATER


async def joined(client: httpx.AsyncClient, app: App, session: str, handler: str, *data: Any) -> None:
    """Calls one of the page's handlers by its name."""
    number = next(i for i, fn in app.demo.fns.items() if getattr(fn.fn, "__name__", "") == handler)
    body = {"data": data, "fn_index": number, "session_hash": session, "trigger_id": None, "event_data": None}
    (await client.post("/gradio_api/queue/join", json=body)).raise_for_status()


async def test_page_closed_in_mid_stream_ends_its_handler(app: App, kept: set[str]) -> None:
    session, queue = "streams", app.demo._queue
    data = {"session_hash": session}
    async with client_of(app) as visitor:
        assert "connect_heartbeat" in app.demo.config and not app.demo.config["connect_heartbeat"]
        assert await opened(visitor, app, session) == 200
        await joined(visitor, app, session, "on_send", *ENDLESS)
        await visitor.get("/gradio_api/queue/data", params=data)
        (run,) = app.turns.runs.live()
        await joined(visitor, app, session, "follow", None)
        async with visitor.stream("GET", "/gradio_api/queue/data", params=data) as stream:
            async for line in stream.aiter_lines():
                if "process_generating" in line:
                    break
            assert run.log.followers == 1
        async with asyncio.timeout(3):
            await until(lambda: run.log.followers == 0)
        assert not run.ended, "the run of a visitor with a cookie continues"
        app.sessions._expiry = AT_ONCE
        await until_gone(app, kept)
        app.sessions._expiry = LATER
        run_on_loop(app, run.stop("user"))
    for held in (queue.pending_messages_per_session, queue.pending_event_ids_session, app.sessions._used):
        assert session not in held
    assert session not in app.demo.pending_diff_streams
    assert not any(job.session_hash == session for jobs in queue.active_jobs if jobs for job in jobs)


async def test_handler_of_a_page_that_never_listened_is_ended(app: App, kept: set[str]) -> None:
    """A page may close between two requests: nobody reads what its handler yields."""
    session = "never listens"
    async with client_of(app) as visitor:
        assert await opened(visitor, app, session) == 200
        await joined(visitor, app, session, "on_send", *ENDLESS)
        await visitor.get("/gradio_api/queue/data", params={"session_hash": session})
        (run,) = app.turns.runs.live()
        await joined(visitor, app, session, "follow", None)
        await until(lambda: run.log.followers == 1)
        app.sessions._expiry = AT_ONCE
        run_on_loop(app, app.sessions.end_expired(app.demo))
        async with asyncio.timeout(3):
            await until(lambda: run.log.followers == 0)
        app.sessions._expiry = LATER
        run_on_loop(app, run.stop("user"))


def test_gradio_client_continues_after_its_session_expired(app: App, kept: set[str]) -> None:
    client = Client(app.url, verbose=False)
    assert client.predict("Say hello.", "Script", api_name="/chat")
    app.sessions._expiry = AT_ONCE
    assert client.session_hash in app.sessions.expire(app.demo)
    app.sessions._expiry = LATER
    assert client.predict("Say hello.", "Script", api_name="/chat")


async def test_page_without_cookie_reads_that_its_session_expired(app: App, kept: set[str]) -> None:
    async with client_of(app, cookie=False) as browser:
        assert await opened(browser, app, "in a frame") == 200
        app.sessions._expiry = AT_ONCE
        await until_gone(app, kept)
        app.sessions._expiry = LATER
        assert (await browser.get("/gradio_api/app_id?session_hash=in+a+frame")).status_code == 404


def test_pages_of_an_address_are_bounded(app: App) -> None:
    sessions, near = Sessions(expiry=AT_ONCE), Requester("a", "198.51.100.1")
    for name in "one", "two", "one":
        assert sessions.admit(name, near, 2)
    with pytest.raises(ChatError) as e:
        sessions.admit("three", Requester("b", "198.51.100.1"), 2)
    assert e.value.code == "rate_limited" and "wait" in e.value.message
    assert sessions.admit("three", Requester("c", "198.51.100.2"), 2)
    with sessions.connected("two"):
        sessions.expire(app.demo)
        assert sessions.admit("four", near, 2)
        with pytest.raises(ChatError):
            sessions.admit("five", near, 2)


def test_oldest_sessions_are_dropped() -> None:
    sessions, requester = Sessions(max_sessions=3), Requester("a", "198.51.100.1")
    for number in range(10):
        assert sessions.admit(str(number), requester)
    assert list(sessions._owners) == ["7", "8", "9"] and sessions._per_address == {"198.51.100.1": 3}


async def test_calls_without_a_session_are_counted_too(tmp_path: Path) -> None:
    limits = LimitSettings(connections_per_address=2)
    with live_app(tmp_path, limits=limits) as app:
        async with client_of(app) as client:
            body = {"data": ["Say hello.", "Script", "none", None]}
            answers = [await client.post("/gradio_api/call/chat", json=body) for _ in range(12)]
            assert [answer.status_code for answer in answers] == [200] * 8 + [429] * 4
            await refused(answers[-1], 429, "rate_limited")
            assert len(app.demo.state_holder.session_data) <= 8


async def test_a_visitors_key_is_kept_while_a_page_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transports.service._SESSIONS_S", 0.05)
    keyed = BackendSettings(name="Keyed", kind="openai", model="m", key="NO_SUCH_KEY")
    with live_app(tmp_path, backends=[scripted("Script"), keyed]) as app:
        keys, app.sessions._expiry = app.backends.keys, timedelta(seconds=1)
        keys._absent_s = 0.5
        async with client_of(app) as visitor:
            assert await opened(visitor, app, "apage") == 200
            keys.put(app.identity.visitor(dict(visitor.cookies)), "Keyed", "a-key-of-the-visitors")
            async with visitor.stream("GET", "/gradio_api/heartbeat/apage"):
                await asyncio.sleep(2)
                assert len(keys._keys) == 1
            for _ in range(4):  # the connection is lost, but the page is open
                await asyncio.sleep(0.5)
                assert (await visitor.get("/gradio_api/app_id?session_hash=apage")).status_code == 200
                assert len(keys._keys) == 1
            await until(lambda: not keys._keys)
