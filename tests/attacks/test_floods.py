"""Floods: too many, too slow or too large requests of one address."""

import asyncio
import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

from hosting import request_bodies, timeouts
from settings import LimitSettings
from tests.live_app import Api, client_of, live_api, live_app, refused, socket_of

MOST = 12


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(timeouts, "_HEAD_S", 1.0)
    monkeypatch.setattr(request_bodies, "_TIMEOUT_S", 1.0)
    monkeypatch.setattr(timeouts, "_MESSAGE_S", 1.0)
    bounds = {"body_bytes": 100_000, "document_bytes": 200_000, "import_bytes": 200_000}
    limits = LimitSettings(connections_per_address=MOST, **bounds)
    with live_api(tmp_path, limits=limits, trusted_proxies=["127.0.0.1"]) as app:
        yield app


async def alive(app: Api) -> None:
    async with asyncio.timeout(5), httpx.AsyncClient(base_url=app.url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"POST /stream HTTP/1.1\r\nX-"])
async def test_slow_request_head_times_out(app: Api, first: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.settings.port)
    begun = time.monotonic()
    writer.write(first)
    ended = asyncio.create_task(reader.read())
    while not ended.done() and time.monotonic() - begun < 10:
        writer.write(b"a" if first else b"")
        await asyncio.wait({ended}, timeout=0.2)
    writer.close()
    assert ended.done(), "the connection must not stay open while bytes arrive"
    await alive(app)


async def test_second_request_of_a_connection_has_its_own_timeout(app: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.settings.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal")
    async with asyncio.timeout(10):
        received = await reader.read()
    assert received.startswith(b"HTTP/1.1 200")
    writer.close()


async def test_slow_body_times_out(app: Api) -> None:
    async def drops() -> object:
        while True:
            yield b" "
            await asyncio.sleep(0.2)

    async with asyncio.timeout(10), client_of(app) as client:
        with pytest.raises(httpx.TransportError):  # httpx reads no response before it has sent everything
            await client.post("/stream", content=drops(), headers={"Content-Type": "application/json"})
    reader, writer = await asyncio.open_connection("127.0.0.1", app.settings.port)
    writer.write(b"POST /stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 408")
    writer.close()
    await alive(app)


def unfinished(fragmented: bool) -> Frame:
    """The beginning of a message: the first of several frames, or a frame without its end."""
    return Frame(Opcode.TEXT, b"x" * 90_000, fin=not fragmented)


@pytest.mark.parametrize("fragmented", [True, False])
async def test_slow_socket_message_times_out(app: Api, fragmented: bool) -> None:
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(socket_of(app)) for _ in range(MOST)]
        sent = unfinished(fragmented).serialize(mask=True)
        for socket in sockets:
            socket.transport.write(sent if fragmented else sent[:-1])
        await alive_beside(app, sockets[0])
        for socket in sockets:
            with pytest.raises(ConnectionClosedError) as closed:
                await asyncio.wait_for(socket.recv(), 10)
            assert closed.value.rcvd and closed.value.rcvd.code == 1008
            assert "too long to arrive" in closed.value.rcvd.reason
    await alive(app)


async def test_a_socket_with_one_message_after_another_stays_open(app: Api) -> None:
    """The end of each message arrives with the beginning of the next one, beyond the time limit of a message."""
    ping = Frame(Opcode.TEXT, b'{"type": "ping"}').serialize(mask=True)
    async with socket_of(app) as socket:
        socket.transport.write(ping[:5])
        for _ in range(12):
            await asyncio.sleep(0.2)
            socket.transport.write(ping[5:] + ping[:5])
            assert await asyncio.wait_for(socket.recv(), 5) == '{"type":"pong"}'


async def alive_beside(app: Api, socket: ClientConnection) -> None:
    """Checks that another address is served while this one has all of its connections open."""
    async with httpx.AsyncClient(base_url=app.url, headers={"X-Forwarded-For": "203.0.113.9"}) as client:
        assert (await client.get("/healthz")).status_code == 200
    assert socket.close_code is None


async def test_connections_of_an_address_are_bounded(app: Api) -> None:
    async with AsyncExitStack() as stack:
        opened = refusals = 0
        for _ in range(3 * MOST):
            try:
                await stack.enter_async_context(socket_of(app))
                opened += 1
            except InvalidStatus as e:
                assert e.response.status_code in (403, 429)
                refusals += 1
        assert opened == MOST and refusals == 2 * MOST
        async with client_of(app, cookie=False) as client:
            message = await refused(await client.get("/backends"), 429, "rate_limited")
            assert f"{MOST} connections" in message
            other = {"X-Forwarded-For": "203.0.113.9"}
            assert (await client.get("/backends", headers=other)).status_code == 200
    await asyncio.sleep(0.3)
    await alive(app)


async def test_oversized_requests_are_refused_with_the_limit(app: Api) -> None:
    big = "x" * 300_000
    async with client_of(app) as client:
        for answer in (
            await client.post("/stream", json={"message": big}),
            await client.post("/stream", json={"message": "x" * 40_000}),
            await client.post("/stream", json={"message": "x", "system_prompt": "x" * 40_000}),
            await client.post("/batch", json={"prompts": [big]}),
            await client.post("/conversations", json={"messages": [{"role": "user", "content": big}]}),
            await client.post("/documents?name=a.txt", content=b"x" * 300_000),
            await client.post("/gradio_api/queue/join", json={"data": [big], "fn_index": 0, "session_hash": "x"}),
            await client.post("/gradio_api/call/chat", json={"data": [big]}),
        ):
            assert "at most" in await refused(answer, 413, "too_large")
        assert (await client.get("/stream", params={"query": "x" * 50_000})).status_code in (400, 413)
        assert (await client.get("/healthz", headers={"X-Big": "x" * 100_000})).status_code in (200, 400, 431)
        assert (await client.get("/healthz", headers={f"x-{n}": "y" for n in range(2000)})).status_code in (
            200,
            400,
            431,
        )
        nested = "[" * 50_000 + "]" * 50_000
        for path in ("/stream", "/gradio_api/queue/join", "/conversations"):
            answer = await client.post(path, content=nested, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, path
    await alive(app)


async def test_batch_counts_as_many_messages(tmp_path: Path) -> None:
    with live_api(tmp_path, limits=LimitSettings(messages_per_minute=10)) as app:
        async with client_of(app) as client:
            await refused(await client.post("/batch", json={"prompts": ["a"] * 11}), 413, "too_large")
            await client.post("/batch", json={"prompts": ["a"] * 6})
            await refused(await client.post("/batch", json={"prompts": ["a"] * 5}), 429, "rate_limited")
            assert (await client.get("/limits")).json()["left"]["minute"] == 4


async def test_login_attempts_are_bounded(tmp_path: Path) -> None:
    with live_app(tmp_path, auth=("zoe", "secret"), trusted_proxies=["127.0.0.1"]) as app:
        async with client_of(app, cookie=False) as client:
            statuses = []
            for n in range(14):
                answer = await client.post("/login", data={"username": "zoe", "password": f"guess {n}"})
                statuses.append(answer.status_code)
            assert statuses == [400] * 10 + [429] * 4
            right = {"username": "zoe", "password": "secret"}
            assert (await client.post("/login", data=right)).status_code == 429
            elsewhere = {"X-Forwarded-For": "203.0.113.9"}
            assert (await client.post("/login", data=right, headers=elsewhere)).status_code == 200
            for n in range(14):
                status = (await client.get("/backends", auth=("zoe", f"guess {n}"))).status_code
            assert status == 429, "HTTP Basic is a login, too"
            answer = await client.get("/backends", auth=("zoe", "secret"))
            assert answer.status_code == 429, "else an attacker would learn that a guess is right"


@pytest.mark.parametrize(
    ("proxies", "believed"), [(None, False), ([], False), (["192.0.2.0/24"], False), (["127.0.0.1"], True)]
)
async def test_forwarded_address_counts_only_from_trusted_proxies(
    tmp_path: Path, proxies: list[str] | None, believed: bool
) -> None:
    limits = LimitSettings(messages_per_minute=1, visitors_per_address=1)
    with live_api(tmp_path, limits=limits, trusted_proxies=proxies) as app:
        async with client_of(app, cookie=False) as client:
            statuses = []
            for n in range(3):
                body, headers = {"messages": []}, {"X-Forwarded-For": f"203.0.113.{n}"}
                statuses.append((await client.post("/conversations", json=body, headers=headers)).status_code)
    assert statuses == ([200, 200, 200] if believed else [200, 429, 429])


async def test_client_behind_a_proxy_cannot_forge_its_address(tmp_path: Path) -> None:
    """The proxy appends the address that it sees to what the client wrote."""
    limits = LimitSettings(messages_per_minute=1, visitors_per_address=1)
    with live_api(tmp_path, limits=limits, trusted_proxies=["127.0.0.1"]) as app:
        async with client_of(app, cookie=False) as client:
            statuses = []
            for n in range(3):
                headers = {"X-Forwarded-For": f"10.0.0.{n}, 203.0.113.7"}
                answer = await client.post("/conversations", json={"messages": []}, headers=headers)
                statuses.append(answer.status_code)
    assert statuses == [200, 429, 429]


def bomb() -> bytes:
    """A zip of a few kilobytes that unpacks to hundreds of megabytes."""
    folded = io.BytesIO()
    with zipfile.ZipFile(folded, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.txt", b"0" * 200_000_000)
    return folded.getvalue()


async def test_type_of_a_file_is_decided_by_its_content(tmp_path: Path) -> None:
    with live_api(tmp_path) as app:
        process = psutil.Process()
        async with client_of(app) as client:
            packed, before = bomb(), process.memory_info().rss
            for name in ("a.zip", "a.txt", "a.md", "a.pdf", "a.pdf.zip", "a.txt\x00.zip", "../../a.txt", "a.docx"):
                answer = await client.post("/documents", params={"name": name}, content=packed)
                assert answer.status_code in (400, 413), name
                assert set(answer.json()) == {"code", "message"} and str(tmp_path) not in answer.text
            assert process.memory_info().rss - before < 100_000_000, "it was unpacked"
            assert (await client.get("/documents")).json() == []
            taken = await client.post("/documents", params={"name": "../../etc/cron.d/a.txt"}, content=b"words")
            assert taken.status_code == 201 and "/" not in taken.json()["name"]
        found = await asyncio.to_thread(lambda: list(tmp_path.rglob("a.txt")))
        assert not found, "no file gets a name that a visitor chose"


async def test_previews_are_bounded_apart_from_messages(tmp_path: Path) -> None:
    limits = LimitSettings(previews_per_minute=3, visitors_per_address=2)
    with live_api(tmp_path, limits=limits) as app:
        async with client_of(app) as client, client_of(app) as other, client_of(app) as third:
            for one in (client, other):
                for _ in range(3):
                    assert (await one.post("/context", json={"message": "hello"})).status_code == 200
                answer = await one.post("/context", json={"message": "hello"})
                message = await refused(answer, 429, "rate_limited")
                assert "Too many previews" in message and 0 < int(answer.headers["retry-after"]) <= 60
            await refused(await third.post("/context", json={"message": "hello"}), 429, "rate_limited")
            assert (await client.post("/stream", json={"message": "hello"})).status_code == 200
