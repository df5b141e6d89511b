"""The visitors of the soak: who they are, what they do, and what they see. Each reads all that comes for other people's
words.
"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.attackers import ATTACKS, Attack, Attacker
from bench.model import LOCAL

LIMITS = """
trusted_proxies = ["127.0.0.1"]
[limits]
messages_per_minute = 30
messages_per_day = 20_000
runs_per_visitor = 3
conversations_per_visitor = 5_000
connections_per_address = 50
[tools]
enabled = ["calculator", "clock", "search", "count", "bench.attackers:stuck"]
seconds = 3
"""
"""Those that strangers find, but for messages and conversations: each visitor does here what many would."""
_SECRET = re.compile(r"secret-of-(\d+)-")
_HERE_S = 30
_PATIENCE_S = 300
"""The bundled model is one for all: who comes at the wrong moment stands in line."""
_LAST = ("complete", "stopped", "error")
_MEMORIES = ("none", "full", "window", "tokens", "summary", "recall")
_OWN_FAULT = {400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 431}
"""What a hostile visitor may be answered."""


@dataclass
class Seen:
    """What all visitors have found, together."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0


class Visitor:
    """One browser or client, at an address of its own; comes anew with a new cookie after it left."""

    def __init__(self, number: int, url: str, backends: list[str], seen: Seen, luck: random.Random) -> None:
        self.number, self.url, self.seen, self.luck = number, url, seen, luck
        self._backends, self._said = backends, 0
        self._headers = {"X-Forwarded-For": f"198.51.{number // 250}.{number % 250 + 1}"}
        self._conversation: str | None = None
        self._here: asyncio.Task[None] | None = None
        self._client = self._new_client()
        self.does = [self.talk] * 5 + [self.stop, self.reload, self.leave, self.switch, self.upload, self.socket]

    async def live(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.luck.uniform(0, min(10.0, (until - loop.time()) / 4)))
        try:
            await self._open()
            while loop.time() < until:
                act = self.luck.choice(self.does)
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        await act()
                    self.seen.done[act.__name__] += 1
                except (httpx.HTTPError, WebSocketException, OSError, TimeoutError) as e:
                    self._wrong(f"{act.__name__}: {type(e).__name__}: {e}")
                await asyncio.sleep(self.luck.uniform(0.5, 6))
        finally:
            await self._close()

    async def _close(self) -> None:
        """As a tab is closed, whatever was going on in it."""
        if self._here:
            self._here.cancel()
            await asyncio.wait([self._here])
        self._here = None
        await self._client.aclose()

    async def _say_here(self, session: str) -> None:
        """What an open page sends twice a minute, so that it is not forgotten."""
        while True:
            await asyncio.sleep(_HERE_S)
            with suppress(httpx.HTTPError):
                await self._client.get("/gradio_api/app_id", params={"session_hash": session})

    def _new_client(self) -> httpx.AsyncClient:
        kept = httpx.Limits(keepalive_expiry=2)  # or it may write on a line that the server is just closing
        return httpx.AsyncClient(base_url=self.url, headers=self._headers, timeout=60, limits=kept)

    def _wrong(self, what: str) -> None:
        self.seen.wrong.append(f"visitor {self.number}, {type(self).__name__}: {what[:300]}")

    def _words(self) -> str:
        self._said += 1
        return f"N={self.luck.randint(10, 80)} R=30 this is secret-of-{self.number}-{self._said}."

    def _look(self, text: str) -> None:
        """Nobody else's words may be in what comes."""
        if strangers := set(_SECRET.findall(text)) - {str(self.number)}:
            self._wrong(f"words of visitor {', '.join(strangers)} came")

    def _expect(self, answer: httpx.Response, *allowed: int) -> None:
        if answer.status_code not in (allowed or (200, 201, 204)):
            self._wrong(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:150]}")

    async def _open(self) -> None:
        """The page, as a browser opens it: its files, its session, its first event. One that was open is closed."""
        if self._here:
            self._here.cancel()
        page = await self._client.get("/")
        self._expect(page)
        session = f"{self.luck.getrandbits(48):x}"
        config = (await self._client.get("/config")).json()
        load = next(one["id"] for one in config["dependencies"] if "load" in str(one["targets"]))
        body = {"data": [], "fn_index": load, "session_hash": session, "trigger_id": None, "event_data": None}
        self._here = asyncio.create_task(self._say_here(session))
        self._expect(await self._client.post("/gradio_api/queue/join", json=body))
        async with self._client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
            async for line in events.aiter_lines():
                self._look(line)
                if "process_completed" in line:
                    if '"success":false' in line.replace(" ", ""):
                        self._wrong(f"the page's first event: {line}")
                    break
        for path in ("/backends", "/limits", "/conversations"):
            answer = await self._client.get(path)
            self._expect(answer)
            self._look(answer.text)

    def _message(self) -> dict[str, Any]:
        return {
            "message": self._words(),
            "backend": self.luck.choice(self._backends),
            "memory": self.luck.choice(_MEMORIES[2:]),
            "conversation_id": self._conversation,
            "max_tokens": 60,
        }

    async def _follow(self, most: int | None = None) -> str | None:
        """Sends a message and reads its reply, or the beginning of it; returns the run's id."""
        async with self._client.stream("POST", "/stream", json=self._message()) as answer:
            if answer.status_code != 200:
                await answer.aread()
                self._expect(answer)
                return None
            self._conversation = answer.headers["x-conversation-id"]
            seen = 0
            async with aclosing(answer.aiter_lines()) as lines:
                async for line in lines:
                    self._look(line)
                    if not line.startswith("data: "):
                        continue
                    event = json.loads(line[6:])
                    seen += 1
                    self.seen.tokens += event["type"] == "token"
                    if event["type"] == "error":
                        self._wrong(f"a reply failed: {event['code']}: {event['message']}")
                    if most and seen >= most:
                        break
            return str(answer.headers["x-run-id"])

    async def talk(self) -> None:
        await self._follow()

    async def stop(self) -> None:
        if run_id := await self._follow(self.luck.randint(4, 20)):
            self._expect(await self._client.post(f"/runs/{run_id}/stop"))

    async def reload(self) -> None:
        """In mid-reply: the page anew, the run found again and followed to its end."""
        run_id = await self._follow(self.luck.randint(4, 20))
        await self._open()
        if run_id:
            followed = await self._client.get(f"/runs/{run_id}/events")
            self._expect(followed)
            self._look(followed.text)
        if self._conversation:
            kept = await self._client.get(f"/conversations/{self._conversation}")
            self._expect(kept)
            self._look(kept.text)

    async def leave(self) -> None:
        """Without a word, in mid-reply; somebody else comes to the same address."""
        await self._follow(self.luck.randint(3, 12))
        await self._close()
        self._client, self._conversation = self._new_client(), None
        await self._open()

    async def switch(self) -> None:
        """Another conversation, and what all of them are."""
        self._conversation = None
        listed = await self._client.get("/conversations", params={"search": "secret"})
        self._expect(listed)
        self._look(listed.text)
        await self._follow()

    async def upload(self) -> None:
        text = f"# Notes\n\nThe lighthouse of secret-of-{self.number}-0 is red.\n"
        name = f"notes{self.luck.randint(1, 3)}.md"
        self._expect(await self._client.post("/documents", params={"name": name}, content=text.encode()))
        found = await self._client.post("/stream", json={"message": "/search lighthouse", "backend": self._backends[0]})
        self._expect(found)
        self._look(found.text)

    async def socket(self) -> None:
        cookies = "; ".join(f"{name}={value}" for name, value in self._client.cookies.items())
        url = self.url.replace("http://", "ws://") + "/ws/chat"
        async with connect(url, additional_headers={**self._headers, "Cookie": cookies}, close_timeout=1) as line:
            await line.send(json.dumps(self._message()))
            while True:
                text = str(await line.recv())
                self._look(text)
                event = json.loads(text)
                if event["type"] == "error":
                    self._wrong(f"a reply failed: {event['code']}: {event['message']}")
                if event["type"] in _LAST:
                    break


class Hostile(Visitor):
    """Does what it should not, as fast as it is let. Whatever it is answered must be its own fault."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.does = [self.talk, self.flood, self.pry, self.garbage, self.drip, self.sockets, self.oversize, self.vanish]
        self.does += [self._act(attack) for attack in ATTACKS]

    def _act(self, attack: Attack) -> Callable[[], Awaitable[None]]:
        async def act() -> None:
            local = LOCAL if LOCAL in self._backends else None
            await attack(Attacker(self._client, self._expect, local))

        act.__name__ = attack.__name__
        return act

    def _expect(self, answer: httpx.Response, *allowed: int) -> None:
        if answer.status_code >= 400 and answer.status_code not in _OWN_FAULT:
            self._wrong(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:150]}")
        if "Traceback" in answer.text:
            self._wrong(f"{answer.request.url.path} shows a traceback")

    async def flood(self) -> None:
        """Many messages at once."""
        sent = [self._client.post("/stream", json=self._message()) for _ in range(12)]
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(answer, httpx.Response):
                self._expect(answer)
                self._look(answer.text)

    async def pry(self) -> None:
        """At other people's things."""
        for path in (
            "/runs/guessed", "/conversations/guessed", "/runs/guessed/events", "/gradio_api/file=/etc/passwd",
            "/gradio_api/queue/data?session_hash=guessed", "/gradio_api/deep_link?session_hash=x", "/monitoring",
            "/metrics", "/docs/..%2f..%2fapp.py", "/gradio_api/heartbeat/guessed",
        ):  # fmt: skip
            with suppress(httpx.ReadTimeout):
                async with self._client.stream("GET", path, timeout=1) as answer:
                    if answer.status_code != 200:
                        await answer.aread()
                        self._expect(answer)

    async def garbage(self) -> None:
        for path in ("/stream", "/batch", "/agui", "/conversations", "/gradio_api/queue/join", "/gradio_api/call/chat"):
            for body in (b"{", b"\xff\xfe\x00", b"[" * 20_000, b'{"message": 1e999}', b"null"):
                answer = await self._client.post(path, content=body, headers={"Content-Type": "application/json"})
                self._expect(answer)

    async def drip(self) -> None:
        """Heads that never end."""
        host, port = self.url.removeprefix("http://").split(":")
        writers = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(10)]
        for writer in writers:
            writer.write(b"GET / HTTP/1.1\r\nX-")
        await asyncio.sleep(3)
        for writer in writers:
            writer.transport.abort()

    async def sockets(self) -> None:
        url = self.url.replace("http://", "ws://") + "/ws/chat"
        lines = []
        with suppress(WebSocketException, OSError):
            for _ in range(40):
                lines.append(await connect(url, additional_headers=self._headers, close_timeout=0.1))
                await lines[-1].send("{" * 1000)
        for line in lines:
            line.transport.abort()

    async def oversize(self) -> None:
        for path in ("/stream", "/conversations", "/documents?name=a.txt"):
            with suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                self._expect(await self._client.post(path, content=b"x" * 6_000_000))

    async def vanish(self) -> None:
        """After asking for much."""
        body = {"prompts": [self._words() for _ in range(5)], "memory": ["none", "tokens"]}
        with suppress(httpx.ReadTimeout):
            async with self._client.stream("POST", "/batch", json=body, timeout=5) as answer:
                async for _ in answer.aiter_bytes():
                    break
