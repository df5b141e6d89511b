"""Quotas per visitor and address, and their messages."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from agent import retries
from agent.quota import Quota
from runs.errors import ChatError
from runs.live import LiveRun
from runs.registry import RunRegistry
from runs.requester import Requester
from settings import BackendSettings, LimitSettings, load_settings
from tests.conftest import scripted
from tests.live_app import client_of, events_of, events_until_end, live_api, next_event, refused, socket_of

ZOE, TOM = Requester("zoe", "192.0.2.1"), Requester("tom", "192.0.2.1")


def quota(**limits: int) -> Quota:
    return Quota(LimitSettings(**limits), RunRegistry())


def take(counted: Quota, requester: Requester, times: int = 1, *, own_key: bool = False) -> None:
    for _ in range(times):
        counted.check(requester, own_key=own_key)
        counted.count(requester, own_key=own_key)


def test_document_bytes_are_counted_per_visitor_and_address() -> None:
    counted = quota(document_bytes_per_day=1000, visitors_per_address=2)
    for size in (600, 400):
        counted.take_document(ZOE, size)
    with pytest.raises(ChatError, match="may be added by you in a day: try again in 24 h") as error:
        counted.take_document(ZOE, 1)
    assert error.value.code == "rate_limited" and error.value.retry_after
    counted.take_document(TOM, 999)
    with pytest.raises(ChatError, match="by your address"):
        counted.take_document(Requester("eve", TOM.address), 2)
    counted.take_document(Requester("eve", TOM.address), 1)  # refused documents are not counted
    counted.take_document(Requester("eve", "192.0.2.9"), 999)
    quota().take_document(ZOE, 10**9)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        (None, None),
    ],
)
def test_ipv6_addresses_are_counted_per_network(address: str | None, network: str | None) -> None:
    assert Requester(None, address).network == network


def test_messages_per_minute_and_day_are_limited_per_visitor() -> None:
    counted = quota(messages_per_minute=3, messages_per_day=4)
    assert counted.left(ZOE).minute == 3 and counted.left(ZOE).day == 4
    take(counted, ZOE, 3)
    with pytest.raises(ChatError, match=r"in a minute, 3, are used: try again in \d+ s") as refusal:
        take(counted, ZOE)
    assert refusal.value.code == "rate_limited" and 0 < (refusal.value.retry_after or 0) <= 60
    assert counted.left(ZOE).minute == 0 and counted.left(ZOE).day == 1
    take(counted, TOM)


def test_own_key_has_no_daily_limit() -> None:
    counted = quota(messages_per_day=2)
    take(counted, ZOE, 2)
    with pytest.raises(ChatError, match=r"in a day, 2, are used: try again in 24 h. .*your own"):
        take(counted, ZOE)
    take(counted, ZOE, 5, own_key=True)


def test_new_cookies_do_not_evade_the_address_limit() -> None:
    counted = quota(messages_per_minute=2, visitors_per_address=3)
    for n in range(6):
        take(counted, Requester(f"visitor {n}", "192.0.2.1"))
    for requester in (Requester("another", "192.0.2.1"), Requester(None, "192.0.2.1")):
        with pytest.raises(ChatError, match="your address may send in a minute, 6"):
            take(counted, requester)
    take(counted, Requester("another", "192.0.2.2"))


def test_a_refused_message_is_not_counted() -> None:
    counted = quota(messages_per_minute=1, messages_per_day=10)
    take(counted, ZOE)
    for _ in range(20):
        with pytest.raises(ChatError):
            take(counted, ZOE)
    assert counted.left(ZOE).day == 9


def test_a_batch_of_more_than_is_left_names_what_is_allowed() -> None:
    counted = quota(messages_per_minute=5, visitors_per_address=1)
    take(counted, ZOE, 3)
    allowed = r"These are 3 messages at once, and you may send 2 more in this minute: try again in \d+ s"
    with pytest.raises(ChatError, match=allowed) as refusal:
        counted.check(ZOE, 3)
    assert refusal.value.code == "rate_limited" and refusal.value.retryable
    with pytest.raises(ChatError, match="and your address may send 2 more"):
        counted.check(TOM, 3)
    counted.check(ZOE, 2)
    take(counted, ZOE, 2)
    with pytest.raises(ChatError, match=r"in a minute, 5, are used"):
        counted.check(ZOE, 2)


def test_oversized_batch_is_not_retryable() -> None:
    with pytest.raises(ChatError, match="These are 4 messages at once, and 3 can be sent in a minute") as refusal:
        quota(messages_per_minute=3).check(ZOE, 4)
    assert refusal.value.code == "too_large" and refusal.value.retry_after is None


def test_no_limits_by_default() -> None:
    counted = quota()
    take(counted, ZOE, 500)
    assert counted.left(ZOE).minute is None and counted.left(ZOE).day is None


async def test_live_runs_per_visitor_are_limited(turns: object) -> None:
    runs = RunRegistry()
    counted = Quota(LimitSettings(runs_per_visitor=2, visitors_per_address=2), runs)
    lifetime = turns._lifetime  # type: ignore[attr-defined]

    def begin(requester: Requester, n: int) -> None:
        counted.check(requester)
        new = LiveRun(
            conversation_id=f"{n}", backend="b", memory="m", owner=None, lifetime=lifetime, requester=requester
        )
        runs.add(new)

    begin(ZOE, 1)
    begin(ZOE, 2)
    with pytest.raises(ChatError, match="2 replies are being written for you"):
        begin(ZOE, 3)
    begin(TOM, 4)
    begin(TOM, 5)
    with pytest.raises(ChatError, match="4 replies are"):
        begin(Requester("third", "192.0.2.1"), 6)
    begin(Requester("third", "192.0.2.2"), 7)


def test_public_apps_have_limits_and_private_ones_do_not(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text("[limits]\nmessages_per_day = 7\nruns_per_visitor = 0\n")
    local = load_settings({"config": str(file)}, {}).limits
    assert (local.messages_per_minute, local.messages_per_day) == (None, 7)
    for arguments, environ in (({"share": True}, {}), ({}, {"SPACE_ID": "owner/name"})):
        limits = load_settings({"config": str(file), **arguments}, environ).limits
        assert limits.messages_per_minute == 10 and limits.connections_per_address == 200
        assert (limits.messages_per_day, limits.runs_per_visitor) == (7, 0)


async def test_all_transports_share_one_quota(tmp_path: Path) -> None:
    limits = LimitSettings(messages_per_minute=6, visitors_per_address=50)
    with live_api(tmp_path, limits=limits) as app:
        async with client_of(app) as client:
            first = (await client.get("/limits")).json()
            assert first["limits"]["messages_per_minute"] == 6 and first["left"] == {"minute": 6, "day": None}
            await events_of(client, "POST", "/stream", json={"message": "hello"})
            async with socket_of(app, client) as socket:
                await socket.send('{"message": "hello"}')
                await events_until_end(socket)
            await events_of(client, "POST", "/batch", json={"prompts": ["a", "b"]})
            await client.post("/conversations", json={"messages": []})
            body = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "hello"}]}
            agui = {**body, "state": {}, "tools": [], "context": [], "forwardedProps": {}}
            assert (await client.post("/agui", json=agui)).status_code == 200
            assert (await client.get("/limits")).json()["left"]["minute"] == 0
            for answer in (
                await client.post("/stream", json={"message": "hello"}),
                await client.post("/batch", json={"prompts": ["a"]}),
                await client.post("/conversations", json={"messages": []}),
                await client.post("/documents?name=a.txt", content=b"words"),
                await client.post("/agui", json={**agui, "runId": "r2"}),
            ):
                message = await refused(answer, 429, "rate_limited")
                assert "try again in" in message and 0 < int(answer.headers["retry-after"]) <= 60
            async with socket_of(app, client) as socket:
                await socket.send('{"message": "hello"}')
                assert (await next_event(socket))["code"] == "rate_limited"
        async with client_of(app) as other:
            await events_of(other, "POST", "/stream", json={"message": "hello"})


async def test_conversations_per_visitor_are_limited_and_can_be_deleted(tmp_path: Path) -> None:
    with live_api(tmp_path, limits=LimitSettings(conversations_per_visitor=2)) as app:
        async with client_of(app) as client:
            made = [(await client.post("/conversations", json={"messages": []})).json() for _ in range(2)]
            for answer in (
                await client.post("/conversations", json={"messages": []}),
                await client.post("/stream", json={"message": "hello"}),
            ):
                assert "delete some" in await refused(answer, 429, "rate_limited")
            await events_of(client, "POST", "/stream", json={"message": "hello", **made[0]})
            await client.delete(f"/conversations/{made[1]['conversation_id']}")
            await events_of(client, "POST", "/stream", json={"message": "hello"})


def thread(name: str, message: str = "hello", **chosen: str) -> dict[str, Any]:
    messages = [{"id": "1", "role": "user", "content": "before"}, {"id": "2", "role": "user", "content": message}]
    about = {"threadId": name, "runId": "r", "state": {}, "tools": [], "context": []}
    return {**about, "messages": messages, "forwardedProps": chosen}


@pytest.mark.parametrize("bound", ["messages", "conversations", "runs", "key"])
async def test_refused_thread_imports_nothing(tmp_path: Path, bound: str) -> None:
    limits = {
        "messages": LimitSettings(messages_per_minute=1),
        "conversations": LimitSettings(conversations_per_visitor=1),
        "runs": LimitSettings(runs_per_visitor=1),
        "key": LimitSettings(),
    }
    keyed = BackendSettings(name="Keyed", kind="openai", model="m", key="NO_SUCH_KEY")
    with live_api(tmp_path, backends=[scripted("Slow script", speed=5), keyed], limits=limits[bound]) as app:
        async with client_of(app) as client:
            async with client.stream("POST", "/stream", json={"message": "tour"}) as running:
                chosen = {"backend": "Keyed"} if bound == "key" else {}
                answer = await client.post("/agui", json=thread("new", **chosen))
                await client.post(f"/runs/{running.headers['x-run-id']}/stop")
            assert answer.status_code in (401, 409, 429), answer.text
            listed = (await client.get("/conversations")).json()["conversations"]
            assert [one["title"] for one in listed] == ["tour"]


async def test_invalid_own_key_lifts_no_limit_with_a_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)
    paid = BackendSettings(
        name="Paid", kind="openai", model="m", key="NO_SUCH_KEY", base_url="http://127.0.0.1:9/v1", fallback="Script"
    )
    with live_api(tmp_path, backends=[scripted("Script"), paid], limits=LimitSettings(messages_per_day=2)) as app:
        async with client_of(app) as client:
            visitor = app.identity.visitor(dict(client.cookies))
            app.backends.keys.put(visitor, "Paid", "made-up-key-of-nobody")
            for _ in range(2):
                received = await events_of(client, "POST", "/stream", json={"message": "hello", "backend": "Paid"})
                assert received[-1]["type"] == "complete", "the fallback answers, and the day counts it"
            received = await events_of(client, "POST", "/stream", json={"message": "hello", "backend": "Paid"})
            assert (received[-1]["type"], received[-1]["code"]) == ("error", "backend_unavailable")
            await refused(await client.post("/stream", json={"message": "hello"}), 429, "rate_limited")


async def test_batch_respects_the_limit_of_live_runs(tmp_path: Path) -> None:
    limits = LimitSettings(runs_per_visitor=2, messages_per_minute=9)
    with live_api(tmp_path, backends=[scripted("Slow script", speed=40)], limits=limits) as app:
        async with client_of(app) as client:
            seen: list[int] = []

            async def look() -> None:
                while True:
                    seen.append(len(list(app.runs.live())))
                    await asyncio.sleep(0.01)

            looking = asyncio.create_task(look())
            received = await events_of(client, "POST", "/batch", json={"prompts": ["tour"] * 6})
            looking.cancel()
            assert sum(event["type"] == "complete" for event in received) == 6 and max(seen) == 2
            await refused(await client.post("/batch", json={"prompts": ["a"] * 10}), 413, "too_large")

            async with client.stream("POST", "/stream", json={"message": "tour"}) as running:
                received = await events_of(client, "POST", "/batch", json={"prompts": ["tour"] * 2})
                await client.post(f"/runs/{running.headers['x-run-id']}/stop")
            ends = {event["index"]: event for event in received[:-1]}
            assert [ends[n]["type"] for n in (0, 1)] == ["complete", "error"] and ends[1]["code"] == "busy"


async def test_surplus_runs_wait_and_report_their_position(tmp_path: Path) -> None:
    backends = [scripted("Slow script", speed=20)]
    with live_api(tmp_path, backends=backends, limits=LimitSettings(runs=1, waiting=2)) as app:
        async with client_of(app) as client:
            begun = time.monotonic()

            async def talk() -> list[str]:
                events = await events_of(client, "POST", "/stream", json={"message": "tour"})
                assert events[-1]["type"] == "complete"
                return [e["content"] for e in events if e["type"] == "status" and "free slot" in e["content"]]

            async with asyncio.TaskGroup() as group:
                talks = []
                for _ in range(3):
                    talks.append(group.create_task(talk()))
                    await asyncio.sleep(0.1)
                answer = await client.post("/stream", json={"message": "tour"})
                assert "or queued" in await refused(answer, 409, "busy"), time.monotonic() - begun
            assert [t.result() for t in talks] == [
                [],
                ["Waiting for a free slot: you are next"],
                ["Waiting for a free slot: 1 ahead of you", "Waiting for a free slot: you are next"],
            ]


async def test_waiting_run_can_be_stopped(tmp_path: Path) -> None:
    backends = [scripted("Slow script", speed=5)]
    with live_api(tmp_path, backends=backends, limits=LimitSettings(runs=1)) as app:
        async with client_of(app) as client, asyncio.TaskGroup() as group:
            first = group.create_task(events_of(client, "POST", "/stream", json={"message": "tour"}))
            await asyncio.sleep(0.2)
            waiting = group.create_task(events_of(client, "POST", "/stream", json={"message": "tour"}))
            await asyncio.sleep(0.3)
            found = [run for run in app.runs.live() if run.state.phase == "queued"]
            assert (await client.post(f"/runs/{found[0].id}/stop")).json() == {"status": "stopped"}
            last = (await waiting)[-1]
            assert (last["type"], last["reason"]) == ("stopped", "user")
            assert len(app.turns.slots) == 0
            running = next(run for run in app.runs.live())
            await client.post(f"/runs/{running.id}/stop")
            assert (await first)[-1]["type"] == "stopped"
