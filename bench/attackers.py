"""Attacks of a hostile visitor, which the measurement of attacks and the hostile visitors of the soak have in common.

Payloads are built once: the attackers share the machine with the server, and must not wait for themselves.
"""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode

from bench.http import send_request

CLOSED = (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)
"""A refusal may close the connection before everything was sent."""
_CONNECTIONS = 40


@dataclass(frozen=True, slots=True)
class Attacker:
    """A hostile visitor with a cookie. `check` gets every response; `local` names the local model's backend."""

    client: httpx.AsyncClient
    check: Callable[[httpx.Response], object]
    local: str | None = None

    async def post(self, path: str, body: bytes, **more: Any) -> httpx.Response | None:
        """Posts a body; returns None if the server closed the connection."""
        with suppress(*CLOSED):
            response = await self.client.post(path, content=body, headers={"Content-Type": "application/json"}, **more)
            self.check(response)
            return response
        return None

    async def import_conversation(self, body: bytes) -> str | None:
        """Imports a conversation; returns its id, or None if it was refused."""
        response = await self.post("/conversations", body)
        return response.json()["conversation_id"] if response and response.status_code == 200 else None

    async def say(self, message: str, **more: Any) -> httpx.Response | None:
        """Sends a message and reads the whole reply."""
        return await self.post("/stream", json.dumps({"message": message, "backend": "Bench", **more}).encode())

    @property
    def counting(self) -> dict[str, str]:
        """The fields of a preview that is counted by the local model's tokenizer."""
        return {"backend": self.local} if self.local else {}

    @property
    def address(self) -> dict[str, str]:
        """The header with the visitor's address."""
        return {"X-Forwarded-For": self.client.headers.get("X-Forwarded-For", "")}


def _conversation(messages: Iterable[str], **more: Any) -> bytes:
    roles = ("user", "assistant")
    listed = [{"role": roles[n % 2], "content": text} for n, text in enumerate(messages)]
    return json.dumps({"messages": listed, **more}).encode()


@cache
def _long_conversation() -> bytes:
    """9,400 messages, 3.9 MB."""
    return _conversation(f"message {n} {'of a long conversation ' * 16}" for n in range(9400))


@cache
def _branches() -> bytes:
    """10,000 messages, each a branch of the one that is listed after it."""
    parents = ((n, f"{n - 1}" if n else None) for n in reversed(range(10_000)))
    others = [{"role": "user", "content": "x", "id": f"{n}", "parent_id": parent} for n, parent in parents]
    return _conversation(["begin", "go on"], other_messages=others)


@cache
def _thread() -> bytes:
    """An AG-UI thread with 60,000 earlier messages."""
    earlier = [{"id": f"{n}", "role": ("user", "assistant")[n % 2], "content": "x"} for n in range(60_001)]
    body = {"threadId": "t", "runId": "r", "state": {}, "messages": earlier, "tools": [], "context": []}
    return json.dumps(body | {"forwardedProps": {"backend": "Bench"}}).encode()


@cache
def _document() -> bytes:
    """Words that a search finds in every passage."""
    return " ".join(f"whale ship sea captain harpoon {n}" for n in range(50_000)).encode()[:1_900_000]


@cache
def _frame() -> bytes:
    """A WebSocket message of 15 MB without its last byte, masked with zeros."""
    bare = Frame(Opcode.TEXT, b"x" * 15_000_000).serialize(mask=False)
    return bytes([bare[0], bare[1] | 0x80]) + bare[2:10] + bytes(4) + bare[10:-1]


@cache
def _pdf() -> bytes:
    """Many pages of many small texts, in a few kilobytes."""
    content = zlib.compress(b"BT /F 12 Tf 72 700 Td " + b"(whale) Tj 1 0 Td " * 6000 + b"ET")
    pages, shown = range(5, 305), "/Resources <</Font <</F 3 0 R>>>> /Contents 4 0 R"
    objects = {
        1: b"<</Type /Catalog /Pages 2 0 R>>",
        2: f"<</Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{n} 0 R' for n in pages)}]>>".encode(),
        3: b"<</Type /Font /Subtype /Type1 /BaseFont /Helvetica>>",
        4: b"<</Length %d /Filter /FlateDecode>> stream\n%b\nendstream" % (len(content), content),
    } | {n: f"<</Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] {shown}>>".encode() for n in pages}
    body, table = b"%PDF-1.4\n", b"xref\n0 1\n0000000000 65535 f \n"
    for number, one in objects.items():
        table += b"%d 1\n%010d 00000 n \n" % (number, len(body))
        body += b"%d 0 obj %b endobj\n" % (number, one)
    return body + table + b"trailer <</Root 1 0 R /Size %d>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(body))


async def records(one: Attacker) -> None:
    """A long conversation, and turns that call a model in six rounds: each call's context lists what is left out."""
    if conversation_id := await one.import_conversation(_long_conversation()):
        for n in range(8):
            await one.say(f"C=6 {n}", conversation_id=conversation_id, memory="window")


async def branches(one: Attacker) -> None:
    """An import whose messages are in the worst order."""
    await one.import_conversation(_branches())


async def previews(one: Attacker) -> None:
    """Eight connections that have texts counted, all of whose chunks need a search for control words."""

    async def preview(number: int) -> None:
        for n in range(10 * number, 10 * number + 4):
            text = " ".join(f"<{n}{i}" for i in range(5000))[:31_000]
            await one.post("/context", json.dumps({"message": text, "memory": "none", **one.counting}).encode())

    await asyncio.gather(*map(preview, range(8)))


async def summaries(one: Attacker) -> None:
    """A long conversation, all of which a summary would read at the operator's expense."""
    if conversation_id := await one.import_conversation(_long_conversation()):
        await one.say("N=1", conversation_id=conversation_id, memory="summary")


async def frames(one: Attacker) -> None:
    """WebSocket messages that are long and never complete."""
    url = str(one.client.base_url).replace("http://", "ws://").rstrip("/") + "/ws/chat"
    sockets = []
    with suppress(WebSocketException, OSError):
        for _ in range(_CONNECTIONS):
            sockets.append(await connect(url, additional_headers=one.address, close_timeout=0.1))
            sockets[-1].transport.write(_frame())
    await asyncio.sleep(3)
    for socket in sockets:
        socket.transport.abort()


async def long_texts(one: Attacker) -> None:
    """Previews and exports of a long conversation, which caches of texts would keep."""
    if conversation_id := await one.import_conversation(_long_conversation()):
        for memory in ("full", "tokens", "recall"):
            body = {"message": "whale", "conversation_id": conversation_id, "memory": memory, **one.counting}
            await one.post("/context", json.dumps(body).encode())
        one.check(await one.client.get(f"/conversations/{conversation_id}"))


async def documents(one: Attacker) -> None:
    """Long documents until they are refused, and searches that find every passage."""
    for n in range(5):
        await one.post("/documents", _document(), params={"name": f"whales{n}.txt"})
    wide = "/search whale ship sea captain harpoon " + " ".join(map(str, range(27)))
    await asyncio.gather(*(one.say(wide) for _ in range(3)))


async def pdfs(one: Attacker) -> None:
    """Small PDFs that take long to read."""
    with suppress(httpx.ReadTimeout):  # they are read at the lowest priority
        await asyncio.gather(*(one.post("/documents", _pdf(), params={"name": f"slow{n}.pdf"}) for n in range(4)))


async def readers(one: Attacker) -> None:
    """Many followers of a record of many megabytes, which read nothing."""
    if not (conversation_id := await one.import_conversation(_long_conversation())):
        return
    response = await one.say("N=1", conversation_id=conversation_id, memory="full")
    if response is None or response.status_code != 200:
        return
    headers = {**one.address, "Cookie": "; ".join(f"{name}={value}" for name, value in one.client.cookies.items())}
    path = f"/runs/{response.headers['x-run-id']}/events"
    url = str(one.client.base_url)
    writers = [(await send_request(url, "GET", path, None, headers, buffer=1024))[1] for _ in range(_CONNECTIONS)]
    await asyncio.sleep(3)
    for writer in writers:
        writer.transport.abort()


async def stuck_tools(one: Attacker) -> None:
    """Calls of a tool that blocks its thread, each until its timeout."""
    for _ in range(3):
        await asyncio.gather(*(one.say("/stuck") for _ in range(3)))


async def threads(one: Attacker) -> None:
    """An AG-UI thread with far too many earlier messages."""
    await one.post("/agui", _thread())


async def keys(one: Attacker) -> None:
    """Guessed keys, with the page's own listener."""
    config = (await one.client.get("/config")).json()
    ids = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
    listener = next(e["id"] for e in config["dependencies"] if any(ids.get(t[0]) == "use-key" for t in e["targets"]))
    for n in range(60):
        data = [f"sk-guess-{n:04d}-guess", "Keyed", None]
        body = {"data": data, "fn_index": listener, "session_hash": f"keys{id(one)}", "trigger_id": None}
        await one.post("/gradio_api/queue/join", json.dumps(body).encode())


Attack = Callable[[Attacker], Awaitable[None]]

ATTACKS: tuple[Attack, ...] = (
    records, branches, previews, summaries, frames, long_texts, documents, pdfs, readers,
    stuck_tools, threads, keys
)  # fmt: skip
