"""Everything that grows with what visitors send, filled to its bound."""

import asyncio
import json
import socket
import threading
import time
import zlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import ref

import httpx
import pytest
from gradio.data_classes import PredictBodyInternal
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Frame, Opcode

import memory.record_cache
from agent import mirror, summaries
from agent.quota import Quota
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends, sse_reader
from backends.openai import OpenAIBackend
from backends.sse_reader import SSEReader, UnreadableResponse
from components.brand import Brand
from components.handlers import Handlers
from components.page import build_page
from hosting import request_bodies, timeouts
from hosting.guard import GuardConfig, GuardMiddleware
from hosting.identity import Identity
from hosting.sessions import Sessions
from hosting.timeouts import BoundedWebSocketProtocol
from memory import folded_text, search_terms
from memory.record_cache import RecordCache, RecordEnd
from memory.store import Store
from runs.errors import ChatError
from runs.events import Context, Entry
from runs.json_text import encode_json, json_texts
from runs.live import LiveRun
from runs.registry import RunRegistry
from runs.requester import Requester
from settings import BackendSettings, LimitSettings, MemorySettings, PageSettings, Settings
from tests.conftest import until
from tests.live_app import Api, client_of, events_of, live_api, refused, run_on_loop, socket_of
from transports import batch, routes, send_budget
from transports.chunks import in_chunks

pytest_plugins = ["tests.pages"]
SIZES = {"one": 2000, "two": 2000, "three": 2000, "short": 100, "alone": 9000}
"""The length of each run's record, in characters."""
ZOE = Requester("zoe", "192.0.2.1")


async def test_bodies_of_one_address_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "_BYTES_PER_ADDRESS", 10_000)
    monkeypatch.setattr(request_bodies, "_SMALL_BYTES", 100)
    go, waiting = asyncio.Event(), 0

    async def slow(request: Request) -> JSONResponse:
        nonlocal waiting
        size = len(await request.body())
        waiting += 1
        await go.wait()
        return JSONResponse({"bytes": size})

    app: Any = Starlette(routes=[Route("/ours", slow, methods=["POST"])])
    guarded = GuardMiddleware(
        app, GuardConfig(frozenset({"/ours"}), 5000, Identity("s").requester, Quota(LimitSettings(), RunRegistry()))
    )

    def client(address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(guarded, client=(address, 1))
        return httpx.AsyncClient(transport=transport, base_url="http://here")

    async with client("192.0.2.1") as one, client("192.0.2.2") as other:
        held = [asyncio.create_task(one.post("/ours", content=b"x" * 3000)) for _ in range(3)]
        await until(lambda: waiting == 3)
        answer = await one.post("/ours", content=b"x" * 3000)
        assert "Your address" in await refused(answer, 409, "busy") and answer.headers["retry-after"] == "5"
        held += [asyncio.create_task(who.post("/ours", content=b"x" * n)) for who, n in ((one, 90), (other, 3000))]
        await until(lambda: waiting == 5)
        assert guarded._bodies._bytes == {"192.0.2.1": 9000, "192.0.2.2": 3000}
        go.set()
        assert [(await answer).status_code for answer in held] == [200] * 5
        assert not guarded._bodies._bytes


@pytest.mark.parametrize("piece", [20_000, 1], ids=["long", "of many fragments"])
async def test_unfinished_socket_messages_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(timeouts, "_SMALL", 1000)
    monkeypatch.setattr(timeouts, "_UNFINISHED", 90_000)
    unfinished = Frame(Opcode.TEXT, b"x" * piece, fin=False).serialize(mask=True)
    unfinished += Frame(Opcode.CONT, b"x" * piece, fin=False).serialize(mask=True) * (1 if piece > 1 else 500)
    with live_api(tmp_path, limits=LimitSettings(body_bytes=100_000)) as app:
        async with socket_of(app) as first, socket_of(app) as second, socket_of(app) as third:
            for socket in (first, second):
                socket.transport.write(unfinished)
            await until(lambda: len(BoundedWebSocketProtocol.unfinished) == 2)
            third.transport.write(unfinished)
            with pytest.raises(ConnectionClosedError) as closed:
                await asyncio.wait_for(third.recv(), 10)
            assert closed.value.rcvd and closed.value.rcvd.code == 1013
            async with socket_of(app) as fourth:
                await fourth.send('{"type": "ping"}')
                assert await asyncio.wait_for(fourth.recv(), 10) == '{"type":"pong"}', (
                    "a short message is still answered"
                )
            first.transport.write(Frame(Opcode.CONT, b"").serialize(mask=True))
            assert "not JSON" in str(await asyncio.wait_for(first.recv(), 10))
            await until(lambda: len(BoundedWebSocketProtocol.unfinished) == 1)
        await until(lambda: not BoundedWebSocketProtocol.unfinished)


async def test_readers_of_a_long_event_share_it_and_get_chunks() -> None:
    event = Context([{"role": "user", "content": "ä" * 300_000, "tokens": 1}], [], 1, None)
    entry = Entry(1, "run", 0.0, event)
    first = entry.json
    assert entry.json is first, "it is encoded once for parallel readers"
    pieces = [piece async for piece in in_chunks(("", entry.json, "\n") for _ in range(3))]
    assert b"".join(pieces) == 3 * f"{first}\n".encode()
    assert max(map(len, pieces)) <= 128_000
    shared = ref(first)
    del first
    assert shared() is None, "it is dropped after the last of them"


def test_readers_of_a_long_context_share_its_texts_in_all_threads() -> None:
    messages = [{"role": "user", "content": f"ä{n} {'x' * 100}", "tokens": 1} for n in range(5000)]
    entry = Entry(1, "run", 0.0, Context(messages, [], 1, 10))
    texts = entry.texts()
    with ThreadPoolExecutor(4) as threads:
        readings = list(threads.map(lambda _: list(entry.texts()), range(8)))
    assert all(part is first for reading in readings for part, first in zip(reading, readings[0], strict=True))
    assert "".join(readings[0]) == Entry(1, "run", 0.0, entry.event).json == entry.json
    assert len(readings[0]) > 10 and max(map(len, readings[0])) < 65_000
    dropped = ref(texts)
    del texts
    assert dropped() is None, "they are dropped after the last reader"


async def test_long_records_in_memory_are_shared_and_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.record_cache, "_LONG_RECORD", 1000)
    monkeypatch.setattr(memory.record_cache, "_LOADS", 1)
    texts = {name: json.dumps({"type": "status", "content": "x" * size}) for name, size in SIZES.items()}

    async def compressed_record(run_id: str) -> bytes:
        await asyncio.sleep(0)
        return zlib.compress(texts[run_id].encode())

    monkeypatch.setattr(store, "compressed_record", compressed_record)
    records = RecordCache(store, most=5000, of_address=3000)
    first, again = await asyncio.gather(*(records.read("one", address) for address in ("192.0.2.1", "192.0.2.2")))
    assert first.record is again.record and [line.type for line in first.record] == ["status"]
    with pytest.raises(ChatError, match="Your address is reading") as refusal:
        await records.read("two", "192.0.2.1")
    assert (refusal.value.code, refusal.value.retry_after) == ("busy", 5)
    second = await records.read("two", "192.0.2.3")
    with pytest.raises(ChatError, match="Others are reading") as refusal:
        await records.read("three", "192.0.2.4")
    assert len((await records.read("short", "192.0.2.1")).record) == 1
    assert await records.end("alone") == RecordEnd(1, "status")
    del first, again, second, refusal
    await until(lambda: not records._records)
    assert (await records.read("alone", "192.0.2.1")).record.characters > 5000


async def test_requests_without_a_record_work_while_records_are_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.record_cache, "_LONG_RECORD", 10)
    with live_api(tmp_path) as app:
        app.turns.records._of_address = 10
        async with client_of(app) as anna:
            received = [await events_of(anna, "POST", "/stream", json={"message": text}) for text in ("Hi", "tour")]
            for events in received:
                run = app.runs.find(events[0]["run_id"])
                assert run
                await until(lambda run=run: run.stored)  # type: ignore[misc]
                app.runs.discard(run)
            reading = run_on_loop(app, app.turns.records.read(received[0][0]["run_id"], "127.0.0.1"))
            assert len(reading.record) == len(received[0])
            for events in received:
                path = f"/runs/{events[0]['run_id']}"
                for _ in range(2):
                    assert (await anna.post(f"{path}/stop")).json() == {"status": "complete"}
                answer = {"tool_call_id": "x", "approved": True}
                assert "has ended" in await refused(await anna.post(f"{path}/approve", json=answer), 409, "busy")
                assert (await anna.get(f"{path}/events", params={"after": len(events)})).status_code == 204
                back = {"query": "Hi" if events is received[0] else "tour"}
                at_end = {"Last-Event-ID": str(len(events))}
                assert (await anna.get("/stream", params=back, headers=at_end)).status_code == 204
            assert await events_of(anna, "GET", f"/runs/{received[0][0]['run_id']}/events") == received[0]
            for path in ("", "/events", "/context"):
                answer_ = await anna.get(f"/runs/{received[1][0]['run_id']}{path}")
                assert "Your address" in await refused(answer_, 409, "busy")
            del reading
            gone = f"/runs/{received[1][0]['run_id']}"
            assert (await anna.get(gone)).status_code == 200


@pytest.mark.parametrize("size", [1, 64_000, 1_000_000])
def test_end_of_a_record_is_read_without_decompressing_it(size: int) -> None:
    lines = [*(f'{{"type":"token","content":"{n}"}}' for n in range(size // 30)), '{"type":"complete","content":"']
    lines[-1] += "x" * size + '"}'
    record = zlib.compress("\n".join(lines).encode(), 1)
    assert memory.record_cache._end(record) == RecordEnd(len(lines), "complete")
    older = zlib.compress(json.dumps({"seq": 1, "type": "stopped", "content": "x" * size}).encode())
    assert memory.record_cache._end(older) == RecordEnd(1, "stopped")
    with pytest.raises(ValueError, match="truncated"):
        memory.record_cache._end(record[: len(record) // 2])


async def test_long_responses_to_one_address_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_budget, "_MAX_CHARACTERS", 3_000_000)
    ours = send_budget.SendBudget()
    monkeypatch.setattr(routes, "SendBudget", lambda: ours)
    with live_api(tmp_path) as app:
        server: Any = app.server
        for listening in server.servers[0].sockets:  # else the system's buffer holds a whole response
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with client_of(app) as anna:
            talk = [{"role": role, "content": "word " * 200_000} for role in ("user", "assistant")]
            this = (await anna.post("/conversations", json={"messages": talk})).json()["conversation_id"]
            asked = {"message": "Hi", "conversation_id": this, "memory": "none"}
            run_id = (await events_of(anna, "POST", "/stream", json=asked))[0]["run_id"]
            resume = json.dumps({"type": "resume", "run_id": run_id})
            paths = [f"/conversations/{this}", f"/conversations/{this}?format=markdown", f"/runs/{run_id}/context"]
            look = {"conversation_id": this, "message": "And?", "memory": "full"}
            for read in (*paths, "/ws/chat"):
                with deaf_client(app, read, anna.cookies["glassbox_visitor"]) as deaf:
                    if read == "/ws/chat":
                        assert b" 101 " in await asyncio.to_thread(deaf.recv, 4096)
                        deaf.sendall(Frame(Opcode.TEXT, resume.encode()).serialize(mask=True))
                    await until(lambda: ours._reserved)
                    answers = [await anna.get(path) for path in paths] + [await anna.post("/context", json=look)]
                    for answer in answers:
                        assert "Your address is being sent" in await refused(answer, 409, "busy"), read
                    async with socket_of(app, anna) as other:
                        await other.send(resume)
                        with pytest.raises(ConnectionClosedError) as closed:
                            while True:
                                await asyncio.wait_for(other.recv(), 10)
                    assert closed.value.rcvd and closed.value.rcvd.code == 1013
                    assert "Your address is being sent" in closed.value.rcvd.reason
                    assert (await anna.get("/conversations")).status_code == 200, "short responses are still sent"
                await until(lambda: not ours._reserved)
            answer = await anna.get(f"/conversations/{this}")
            assert [m["content"] for m in answer.json()["messages"]][:2] == [m["content"] for m in talk]


@contextmanager
def deaf_client(app: Api, path: str, cookie: str) -> Iterator[socket.socket]:
    """A client that sends a request and reads nothing."""
    url = urlsplit(app.url)
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((url.hostname, url.port))
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += f"Sec-WebSocket-Key: {b64encode(bytes(16)).decode()}\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nCookie: glassbox_visitor={cookie}\r\n"
        one.sendall(f"{head}{upgrade if path.startswith('/ws') else ''}\r\n".encode())
        yield one


def test_json_is_encoded_entry_by_entry() -> None:
    message = {"content": 'ä"\u2028', "parts": [1, {"a": None}]}
    value = {"id": "x", "none": [], "empty": {}, "messages": [message, message], "deep": [{"messages": [message]}]}
    for levels in range(6):
        assert "".join(json_texts(value, levels)) == encode_json(value)
    made = list[int]()

    def messages() -> Iterator[dict[str, Any]]:
        for n in range(3):
            made.append(n)
            yield message

    texts = json_texts({"messages": messages(), "others": iter(())}, 2)
    first = [next(texts) for _ in range(3)]
    assert made == [0], "texts are made only when they are sent"
    assert json.loads("".join([*first, *texts])) == {"messages": [message] * 3, "others": []}


async def test_a_batch_waits_for_its_reader(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_WAITING", 2)
    ended: list[LiveRun] = []
    turns.watchers.append(ended.append)
    cells = await batch._cells(turns, batch.Batch(prompts=["Hi"] * 9), ZOE)
    async with aclosing(batch._encoded_events(turns, cells)) as written:
        await anext(written)
        await until(lambda: len(ended) >= 4)
        await asyncio.sleep(0.2)
        assert len(ended) == 4, "later cells must wait for the reader"
        assert b"batch_done" in [chunk async for chunk in written][-1]
    assert len(ended) == 9


async def test_long_session_names_are_not_kept(tmp_path: Path) -> None:
    sessions = Sessions()
    assert not sessions.admit("x" * 101, ZOE) and not sessions._owners
    assert sessions.admit("x" * 100, ZOE)
    with live_api(tmp_path) as app:
        async with client_of(app) as client:
            body = {"data": [], "fn_index": 0, "session_hash": "x" * 100_000}
            await refused(await client.post("/gradio_api/queue/join", json=body), 404, "not_found")
            assert not app.sessions._owners


def test_counters_of_idle_visitors_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Quota(LimitSettings(messages_per_minute=3, messages_per_day=9), RunRegistry())
    for n in range(50):
        counted.count(Requester(f"visitor {n}", f"192.0.2.{n}"))
    counted.forget_idle()
    assert len(counted._storage.events) == 200
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    counted.forget_idle()
    assert len(counted._storage.events) == 100
    assert counted.left(Requester("visitor 1", "192.0.2.1")).day == 8
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    counted.forget_idle()
    assert not counted._storage.events


FREE = threading.Event()


class SlowHistory(BaseChatMessageHistory):
    """A message history whose server does not answer."""

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        FREE.wait(20)

    def clear(self) -> None: ...


async def test_turns_that_wait_for_a_slow_mirror_are_bounded(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mirror, "_MOST_WAITING", 2)
    remembering = MemorySettings(mirror=f"{__name__}:SlowHistory")
    slow = Turns(settings.model_copy(update={"memory": remembering}), Backends(settings.backends), store, RunRegistry())
    FREE.clear()
    for n in range(4):
        run = await slow.start(TurnRequest(f"message {n}", "zoe"))
        await until(lambda run=run: run.task.done())  # type: ignore[misc]
        await asyncio.sleep(0)
    assert len(slow.mirror) == 2
    assert caplog.messages.count("the mirror of a conversation: it is too slow, so a turn is left out") == 2
    FREE.set()
    await slow.close()


def test_summary_failures_are_kept_for_few_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "_REMEMBERED", 3)
    kept = OrderedDict[str, str]()
    for n in range(9):
        summaries._remember(kept, f"conversation {n}", "It failed.")
    assert list(kept) == ["conversation 6", "conversation 7", "conversation 8"]


def test_number_of_cached_models_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = BackendSettings(name="Many", kind="openai", models=[f"model-{n}" for n in range(70)], base_url="http://x")
    backend = OpenAIBackend(entry)
    for n in range(70):
        backend.with_model(f"model-{n}")
    newest = backend._chosen["model-69"]
    backend.with_model("model-69")
    assert len(backend._chosen) == 64 and backend._chosen["model-69"] is newest


def test_endless_event_of_a_provider_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_reader, "_LONGEST_EVENT", 1000)
    events = SSEReader()
    with pytest.raises(UnreadableResponse, match="1,000"):
        for _ in range(12):
            list(events.feed(b"x" * 100))


def test_caches_of_words_hold_only_short_ones() -> None:
    folded_text._fold_short.cache_clear()
    folded_text.fold_text("é" * 33)
    assert folded_text._fold_short.cache_info().currsize == 0
    assert [len(word) for word in search_terms._terms("x" * 500)] == [search_terms._LONGEST_WORD]


async def test_calls_that_wait_for_the_page_are_bounded(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: Any = build_page(handlers, Brand(PageSettings(), Path()))._queue
    monkeypatch.setattr(type(queue), "__len__", lambda _: 200)
    taken, _, why = await queue.push(
        PredictBodyInternal(data=[], fn_index=0, session_hash="x"), httpx.Request("GET", "/"), ""
    )
    assert (taken, why) == (False, "queue_full")
