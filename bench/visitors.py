"""The visitors of the soak. Each searches everything that it receives for other visitors' words."""

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

from bench.attackers import ATTACKS, CLOSED, Attack, Attacker
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
enabled = ["calculator", "clock", "search", "count", "bench.app_tools:stuck"]
seconds = 3
"""
"""The limits of a public page, except for messages and conversations, since each visitor stands for many."""
_SECRET = re.compile(r"secret-of-([0-9a-f]{12})-")
"""Words of a visitor. A model may count on from a number that it has read, but it cannot guess another's code."""
_HEARTBEAT_S = 30
_PATIENCE_S = 300
"""The longest that one action may take: all visitors share the bundled model."""
_LAST = ("complete", "stopped", "error")
_MEMORIES = ("window", "tokens", "summary", "recall")
_CLIENT_ERRORS = {400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 431}
"""The allowed answers to a hostile visitor."""


Action = Callable[[], Awaitable[None]]


@dataclass
class Seen:
    """The findings of all visitors."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    """The visitors by the codes in their words."""


class Visitor:
    """One browser or client at an address of its own."""

    def __init__(self, number: int, url: str, backends: list[str], seen: Seen, luck: random.Random) -> None:
        self.number, self.url, self.seen, self.luck = number, url, seen, luck
        self._backends, self._said, self._code = backends, 0, f"{luck.getrandbits(48):012x}"
        seen.codes[self._code] = number
        self._headers = {"X-Forwarded-For": f"198.51.{number // 250}.{number % 250 + 1}"}
        self._conversation: str | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._client = self._new_client()
        self.actions: list[Action] = [self.talk] * 5
        self.actions += [self.stop, self.reload, self.leave, self.switch, self.upload, self.bring, self.socket]

    async def live(self, until: float) -> None:
        """Acts until a moment of the loop's clock."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.luck.uniform(0, min(10.0, (until - loop.time()) / 4)))
        try:
            await self._open()
            while loop.time() < until:
                act = self.luck.choice(self.actions)
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
        """Closes the tab, whatever it is doing."""
        if self._heartbeat:
            self._heartbeat.cancel()
            await asyncio.wait([self._heartbeat])
        self._heartbeat = None
        await self._client.aclose()

    async def _send_heartbeats(self, session: str) -> None:
        """Sends what an open page sends twice a minute, so that its session is kept."""
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            with suppress(httpx.HTTPError):
                await self._client.get("/gradio_api/app_id", params={"session_hash": session})

    def _new_client(self) -> httpx.AsyncClient:
        kept = httpx.Limits(keepalive_expiry=2)  # or it may use a connection that the server is just closing
        return httpx.AsyncClient(base_url=self.url, headers=self._headers, timeout=60, limits=kept)

    def _wrong(self, what: str) -> None:
        self.seen.wrong.append(f"visitor {self.number}, {type(self).__name__}: {what[:300]}")

    def _check_text(self, text: str) -> None:
        """Checks that a text has no words of another visitor."""
        found = {self.seen.codes.get(code, self.number) for code in _SECRET.findall(text)}
        if others := found - {self.number}:
            self._wrong(f"received words of visitor {', '.join(map(str, others))}")

    def _check(self, response: httpx.Response) -> None:
        """Checks a response whose body was read."""
        if not self._is_allowed(response.status_code):
            request, text = response.request, response.text[:150]
            self._wrong(f"{request.method} {request.url.path}: {response.status_code} {text}")
        self._check_text(response.text)

    def _is_allowed(self, status: int) -> bool:
        return status in (200, 201, 204)

    async def _open(self) -> None:
        """Opens the page as a browser does: its files, its session, its first event. Closes one that was open."""
        if self._heartbeat:
            self._heartbeat.cancel()
        self._check(await self._client.get("/"))
        session = f"{self.luck.getrandbits(48):x}"
        config = (await self._client.get("/config")).json()
        load = next(one["id"] for one in config["dependencies"] if "load" in str(one["targets"]))
        body = {"data": [], "fn_index": load, "session_hash": session, "trigger_id": None, "event_data": None}
        self._heartbeat = asyncio.create_task(self._send_heartbeats(session))
        self._check(await self._client.post("/gradio_api/queue/join", json=body))
        async with self._client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
            async for line in events.aiter_lines():
                self._check_text(line)
                if "process_completed" in line:
                    if '"success":false' in line.replace(" ", ""):
                        self._wrong(f"the page's first event: {line}")
                    break
        for path in ("/backends", "/limits", "/conversations"):
            self._check(await self._client.get(path))

    def _words(self) -> str:
        self._said += 1
        return f"N={self.luck.randint(10, 80)} R=30 this is secret-of-{self._code}-{self._said}."

    def _message(self) -> dict[str, Any]:
        return {
            "message": self._words(),
            "backend": self.luck.choice(self._backends),
            "memory": self.luck.choice(_MEMORIES),
            "conversation_id": self._conversation,
            "max_tokens": 60,
        }

    def _receive(self, text: str) -> str:
        """Checks an event; returns its type."""
        self._check_text(text)
        event = json.loads(text)
        if event["type"] == "error":
            self._wrong(f"a reply failed: {event['code']}: {event['message']}")
        self.seen.tokens += event["type"] == "token"
        return str(event["type"])

    async def _follow(self, most: int | None = None) -> str | None:
        """Sends a message and reads its reply, or its first events; returns the run's id."""
        async with self._client.stream("POST", "/stream", json=self._message()) as response:
            if response.status_code != 200:
                await response.aread()
                self._check(response)
                return None
            self._conversation, seen = response.headers["x-conversation-id"], 0
            async with aclosing(response.aiter_lines()) as lines:
                async for line in lines:
                    if line.startswith("data: "):
                        self._receive(line[6:])
                        seen += 1
                        if most and seen >= most:
                            break
            return str(response.headers["x-run-id"])

    async def talk(self) -> None:
        """Reads a whole reply."""
        await self._follow()

    async def stop(self) -> None:
        """Stops a reply."""
        if run_id := await self._follow(self.luck.randint(4, 20)):
            self._check(await self._client.post(f"/runs/{run_id}/stop"))

    async def reload(self) -> None:
        """Reloads the page during a reply, and follows the run to its end."""
        run_id = await self._follow(self.luck.randint(4, 20))
        await self._open()
        if run_id:
            self._check(await self._client.get(f"/runs/{run_id}/events"))
        if self._conversation:
            self._check(await self._client.get(f"/conversations/{self._conversation}"))

    async def leave(self) -> None:
        """Leaves during a reply; another visitor comes to the same address."""
        await self._follow(self.luck.randint(3, 12))
        await self._close()
        self._client, self._conversation = self._new_client(), None
        await self._open()

    async def switch(self) -> None:
        """Begins another conversation after a search in all of them."""
        self._conversation = None
        self._check(await self._client.get("/conversations", params={"search": "secret"}))
        await self._follow()

    async def bring(self) -> None:
        """Imports a short conversation."""
        turns = [{"role": role, "content": self._words()} for role in ("user", "assistant")]
        self._check(await self._client.post("/conversations", json={"messages": turns}))

    async def upload(self) -> None:
        """Uploads a document and searches it."""
        text = f"# Notes\n\nThe lighthouse of secret-of-{self._code}-0 is red.\n"
        name = f"notes{self.luck.randint(1, 3)}.md"
        self._check(await self._client.post("/documents", params={"name": name}, content=text.encode()))
        body = {"message": "/search lighthouse", "backend": self._backends[0]}
        self._check(await self._client.post("/stream", json=body))

    async def socket(self) -> None:
        """Reads a reply over a WebSocket."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._client.cookies.items())
        async with connect(
            self._socket_url, additional_headers={**self._headers, "Cookie": cookies}, close_timeout=1
        ) as socket:
            await socket.send(json.dumps(self._message()))
            while self._receive(str(await socket.recv())) not in _LAST:
                pass

    @property
    def _socket_url(self) -> str:
        return self.url.replace("http://", "ws://") + "ws/chat"


class Hostile(Visitor):
    """A visitor that does what it should not, as fast as it can. The server must answer with client errors."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.actions = [self.talk, self.flood, self.pry, self.garbage, self.drip, self.sockets, self.oversize]
        self.actions += [self.vanish, *map(self._action, ATTACKS)]

    def _action(self, attack: Attack) -> Action:
        async def act() -> None:
            await attack(Attacker(self._client, self._check, LOCAL if LOCAL in self._backends else None))

        act.__name__ = attack.__name__
        return act

    def _is_allowed(self, status: int) -> bool:
        return status < 400 or status in _CLIENT_ERRORS

    def _check_text(self, text: str) -> None:
        super()._check_text(text)
        if "Traceback" in text:
            self._wrong("received a traceback")

    async def flood(self) -> None:
        """Sends many messages at once."""
        sent = [self._client.post("/stream", json=self._message()) for _ in range(12)]
        for response in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(response, httpx.Response):
                self._check(response)

    async def pry(self) -> None:
        """Requests other people's data."""
        for path in (
            "/runs/guessed", "/conversations/guessed", "/runs/guessed/events", "/gradio_api/file=/etc/passwd",
            "/gradio_api/queue/data?session_hash=guessed", "/gradio_api/deep_link?session_hash=x", "/monitoring",
            "/metrics", "/docs/..%2f..%2fapp.py", "/gradio_api/heartbeat/guessed",
        ):  # fmt: skip
            with suppress(httpx.ReadTimeout):
                async with self._client.stream("GET", path, timeout=1) as response:
                    if response.status_code != 200:
                        await response.aread()
                        self._check(response)

    async def garbage(self) -> None:
        """Sends bodies that are not what a route expects."""
        for path in ("/stream", "/batch", "/agui", "/conversations", "/gradio_api/queue/join", "/gradio_api/call/chat"):
            for body in (b"{", b"\xff\xfe\x00", b"[" * 20_000, b'{"message": 1e999}', b"null"):
                headers = {"Content-Type": "application/json"}
                self._check(await self._client.post(path, content=body, headers=headers))

    async def drip(self) -> None:
        """Sends heads of requests that never end."""
        host, port = self.url.removeprefix("http://").strip("/").split(":")
        writers = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(10)]
        for writer in writers:
            writer.write(b"GET / HTTP/1.1\r\nX-")
        await asyncio.sleep(3)
        for writer in writers:
            writer.transport.abort()

    async def sockets(self) -> None:
        """Opens many WebSockets and sends invalid messages."""
        sockets = []
        with suppress(WebSocketException, OSError):
            for _ in range(40):
                sockets.append(await connect(self._socket_url, additional_headers=self._headers, close_timeout=0.1))
                await sockets[-1].send("{" * 1000)
        for socket in sockets:
            socket.transport.abort()

    async def oversize(self) -> None:
        """Sends bodies that are too large."""
        for path in ("/stream", "/conversations", "/documents?name=a.txt"):
            with suppress(*CLOSED):
                self._check(await self._client.post(path, content=b"x" * 6_000_000))

    async def vanish(self) -> None:
        """Leaves after a request for much work."""
        body = {"prompts": [self._words() for _ in range(5)], "memory": ["none", "tokens"]}
        with suppress(httpx.ReadTimeout):
            async with self._client.stream("POST", "/batch", json=body, timeout=5) as response:
                async for _ in response.aiter_bytes():
                    break
