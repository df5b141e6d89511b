"""Attacks of one hostile visitor, each as a coroutine that does its worst once. The soak's hostile visitors and the
measurement of attacks use the same ones.

What is sent is made once: the attackers share the machine with the server, and must not wait for themselves.
"""

import asyncio
import json
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from langchain_core.tools import tool
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode

_GONE = (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)
"""A refusal may close the line before all was sent."""
_FRAME_BYTES = 15_000_000
_STUCK_S = 20.0


@tool
def stuck() -> str:
    """Blocks its thread for a long time. For the benchmark."""
    time.sleep(_STUCK_S)
    return "done"


@dataclass(frozen=True, slots=True)
class Attacker:
    """A hostile visitor with a cookie. `look` gets every answer; `local` is the name of the local model's backend."""

    client: httpx.AsyncClient
    look: Callable[[httpx.Response], object]
    local: str | None = None

    async def post(self, path: str, body: bytes, **more: Any) -> httpx.Response | None:
        """The answer; None if the server closed the line."""
        with suppress(*_GONE):
            answer = await self.client.post(path, content=body, headers={"Content-Type": "application/json"}, **more)
            self.look(answer)
            return answer
        return None

    async def take_in(self, conversation: bytes) -> str | None:
        """The id of an imported conversation; None if it was refused."""
        answer = await self.post("/conversations", conversation)
        return answer.json()["conversation_id"] if answer and answer.status_code == 200 else None

    async def say(self, message: str, **more: Any) -> None:
        """Sends a message and reads all that comes."""
        await self.post("/stream", json.dumps({"message": message, "backend": "Bench", **more}).encode())


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
    """10,000 messages of one branch beside another, each listed before the one that it follows."""
    others = [
        {"role": "user", "content": "x", "id": f"{n}", "parent_id": f"{n - 1}" if n else None}
        for n in reversed(range(10_000))
    ]
    return _conversation(["begin", "go on"], other_messages=others)


@cache
def _signs(number: int) -> bytes:
    """A message whose pieces all need a search for control words."""
    text = " ".join(f"<{number}{n}" for n in range(5000))[:31_000]
    return json.dumps({"message": text, "memory": "none"}).encode()


@cache
def _thread() -> bytes:
    """60,000 earlier messages for AG-UI."""
    earlier = [{"id": f"{n}", "role": ("user", "assistant")[n % 2], "content": "x"} for n in range(60_001)]
    body = {"threadId": "t", "runId": "r", "state": {}, "messages": earlier, "tools": [], "context": []}
    return json.dumps(body | {"forwardedProps": {"backend": "Bench"}}).encode()


@cache
def _document() -> bytes:
    """Words that a wide search finds in every passage."""
    return " ".join(f"whale ship sea captain harpoon {n}" for n in range(50_000)).encode()[:1_900_000]


@cache
def _frame() -> bytes:
    """A message of many bytes without its last one, masked with zeros."""
    bare = Frame(Opcode.TEXT, b"x" * _FRAME_BYTES).serialize(mask=False)
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
    """A long conversation, and turns that call a model in six rounds: each call's context tells what is left out."""
    if conversation_id := await one.take_in(_long_conversation()):
        for n in range(8):
            await one.say(f"C=6 {n}", conversation_id=conversation_id, memory="window")


async def branches(one: Attacker) -> None:
    """An import whose messages stand in the worst order."""
    await one.take_in(_branches())


async def previews(one: Attacker) -> None:
    """Eight connections that have texts counted by the local model's tokenizer."""
    more = {"backend": one.local} if one.local else {}

    async def look_ahead(number: int) -> None:
        for n in range(4):
            await one.post("/context", json.dumps(json.loads(_signs(10 * number + n)) | more).encode())

    await asyncio.gather(*(look_ahead(number) for number in range(8)))


async def summaries(one: Attacker) -> None:
    """A long conversation, all of which a summary would read on the operator's account."""
    if conversation_id := await one.take_in(_long_conversation()):
        await one.say("N=1", conversation_id=conversation_id, memory="summary")


async def frames(one: Attacker) -> None:
    """Forty WebSocket messages that are long and never whole."""
    url = str(one.client.base_url).replace("http://", "ws://").rstrip("/") + "/ws/chat"
    here = one.client.headers.get("X-Forwarded-For", "")
    lines = []
    with suppress(WebSocketException, OSError):
        for _ in range(40):
            lines.append(await connect(url, additional_headers={"X-Forwarded-For": here}, close_timeout=0.1))
            lines[-1].transport.write(_frame())
    await asyncio.sleep(3)
    for line in lines:
        line.transport.abort()


async def long_texts(one: Attacker) -> None:
    """Previews and exports of a long conversation, which caches of texts would keep."""
    if conversation_id := await one.take_in(_long_conversation()):
        more = {"backend": one.local} if one.local else {}
        for memory in ("full", "tokens", "recall"):
            body = {"message": "whale", "conversation_id": conversation_id, "memory": memory, **more}
            await one.post("/context", json.dumps(body).encode())
        one.look(await one.client.get(f"/conversations/{conversation_id}"))


async def documents(one: Attacker) -> None:
    """As many long documents as are taken, and wide searches in them."""
    for n in range(5):
        await one.post("/documents", _document(), params={"name": f"whales{n}.txt"})
    wide = "/search whale ship sea captain harpoon " + " ".join(map(str, range(27)))
    await asyncio.gather(*(one.say(wide) for _ in range(3)))


async def pdfs(one: Attacker) -> None:
    """Small PDFs that take long to read."""
    with suppress(httpx.ReadTimeout):  # they are read when nobody else needs the processor
        await asyncio.gather(*(one.post("/documents", _pdf(), params={"name": f"slow{n}.pdf"}) for n in range(4)))


async def readers(one: Attacker) -> None:
    """Many followers of a record of many megabytes, none of whom reads what it is sent."""
    if not (conversation_id := await one.take_in(_long_conversation())):
        return
    body = {"message": "N=1", "backend": "Bench", "conversation_id": conversation_id, "memory": "full"}
    answer = await one.post("/stream", json.dumps(body).encode())
    if answer is None or answer.status_code != 200:
        return
    head = [f"GET /runs/{answer.headers['x-run-id']}/events HTTP/1.1", f"Host: {one.client.base_url.netloc.decode()}"]
    head += [f"X-Forwarded-For: {one.client.headers.get('X-Forwarded-For', '')}"]
    head += [f"Cookie: {'; '.join(f'{name}={value}' for name, value in one.client.cookies.items())}", "", ""]
    lines = [await _connection(one.client.base_url) for _ in range(40)]
    for line in lines:
        line.write("\r\n".join(head).encode())
    await asyncio.sleep(3)
    for line in lines:
        line.transport.abort()


async def _connection(url: httpx.URL) -> asyncio.StreamWriter:
    """A line of which nobody reads more than a little."""
    return (await asyncio.open_connection(url.host, url.port, limit=1024))[1]


async def stuck_tools(one: Attacker) -> None:
    """Calls of a tool that blocks its thread, each given up after its seconds."""
    for _ in range(3):
        await asyncio.gather(*(one.say("/stuck") for _ in range(3)))


async def threads(one: Attacker) -> None:
    """An AG-UI thread with far too many earlier messages."""
    await one.post("/agui", _thread())


async def keys(one: Attacker) -> None:
    """Keys that are guessed, by the page's own listener."""
    config = (await one.client.get("/config")).json()
    named = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
    listener = next(e["id"] for e in config["dependencies"] if any(named.get(t[0]) == "use-key" for t in e["targets"]))
    for n in range(60):
        data = [f"sk-guess-{n:04d}-guess", "Keyed", None]
        body = {"data": data, "fn_index": listener, "session_hash": f"keys{id(one)}", "trigger_id": None}
        await one.post("/gradio_api/queue/join", json.dumps(body).encode())


Attack = Callable[[Attacker], Awaitable[None]]

ATTACKS: tuple[Attack, ...] = (
    records, branches, previews, summaries, frames, long_texts, documents, pdfs, readers,
    stuck_tools, threads, keys
)  # fmt: skip
