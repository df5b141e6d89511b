"""Whether `kill -9` loses anything: the app is killed at random moments while four conversations stream, checked, and
started again on the same database.

What a client has seen acknowledged (the answer's headers) must be there, once and in order; a reply that was cut must
have all but its last second; one that had ended must be whole; and the database must be sound.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.model import token

_ROOT = Path(__file__).parent.parent
_AT_ONCE = 4
_START_S = 60.0
_CONFIG = """
[[backends]]
name = "Bench"
kind = "langchain"
class = "bench.model:ScriptedModel"
options = {{ log = {log} }}

[memory]
default = "window"
"""

Row = dict[str, Any]


@dataclass
class Turn:
    """One message as its client has seen it; times are seconds of the monotonic clock."""

    message: str
    tokens: int
    acknowledged: bool = False
    ended: bool = False
    text: str = ""
    arrived: list[tuple[float, int]] = field(default_factory=list)
    """When the text had at least this length."""

    @property
    def expected(self) -> str:
        return "".join(map(token, range(self.tokens)))

    def lost_s(self, stored: str, killed: float) -> float:
        """How long before the kill the client had seen the first piece that is not stored."""
        return max(0.0, *(killed - at for at, length in self.arrived if length > len(stored)), 0.0)


@dataclass
class Talker:
    """A client that says one thing after another in one conversation."""

    name: str
    luck: random.Random
    conversation_id: str | None = None
    turns: list[Turn] = field(default_factory=list)

    async def talk(self, client: httpx.AsyncClient) -> None:
        """Until the line breaks."""
        with suppress(httpx.HTTPError):
            while True:
                await self._say(client)

    async def _say(self, client: httpx.AsyncClient) -> None:
        tokens = self.luck.choice((20, 60, 400))
        turn = Turn(f"N={tokens} R=60 {self.name} {len(self.turns)}", tokens)
        self.turns.append(turn)
        body = {"message": turn.message, "conversation_id": self.conversation_id}
        async with client.stream("POST", "/stream", json=body) as answer:
            if answer.status_code != 200:  # one that goes down answers so
                raise httpx.TransportError("refused")
            turn.acknowledged = True
            self.conversation_id = answer.headers["x-conversation-id"]
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    if event["type"] == "token":
                        turn.text += event["content"]
                        turn.arrived.append((time.monotonic(), len(turn.text)))
                    turn.ended = turn.ended or event["type"] == "complete"


class Killed:
    """The app as a process that can be killed; `url` None is SQLite in its own folder."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config, log = folder / "glassbox.toml", json.dumps(str(folder / "model.jsonl"))
        config.write_text(_CONFIG.format(log=log), encoding="utf-8")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GLASSBOX_", "GRADIO_")) and k != "SPACE_ID"}
        ours = {"GLASSBOX_DATA": str(self.data), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(_ROOT)}
        self._environment = kept | ours | ({"GLASSBOX_DATABASE_URL": url} if url else {})
        self._command = [sys.executable, str(_ROOT / "app.py"), "--port", str(self.port), "--config", str(config)]
        self._said = folder / "said.txt"
        self.url = f"http://127.0.0.1:{self.port}"

    async def start(self) -> float:
        """Returns how many seconds it took until the page could be served."""
        begun = time.monotonic()
        with self._said.open("w") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - nothing else happens here meanwhile
                self._command, env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        async with httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/healthz", timeout=2)).status_code == 200:
                        return time.monotonic() - begun
                if self._process.poll() is not None or time.monotonic() - begun > _START_S:
                    raise RuntimeError(f"the app does not start; it said:\n{self._said.read_text()[-3000:]}")
                await asyncio.sleep(0.02)

    def end(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait(15)

    def sound(self) -> bool:
        """Whether the database file is, as the kill has left it."""
        file = self.data / "glassbox.db"
        if not file.exists():
            return True
        with tempfile.TemporaryDirectory() as folder:
            for part in file.parent.glob("glassbox.db*"):
                (Path(folder) / part.name).write_bytes(part.read_bytes())
            with closing(sqlite3.connect(Path(folder) / file.name)) as db:
                whole = db.execute("PRAGMA integrity_check").fetchall()
                return whole == [("ok",)] and not db.execute("PRAGMA foreign_key_check").fetchall()


def measure_kills(kills: int, usual: int = 5, seed: int = 1, database_url: str | None = None) -> list[Row]:
    """One row with so many `usual` starts, after clean ends, and one for each kill; all on the same database."""
    with tempfile.TemporaryDirectory() as folder:
        app = Killed(Path(folder), database_url)
        try:
            return asyncio.run(_measure(app, kills, usual, random.Random(seed)))
        finally:
            with suppress(AttributeError):
                app.end(signal.SIGKILL)


async def _measure(app: Killed, kills: int, usual: int, luck: random.Random) -> list[Row]:
    await app.start()
    starts = []
    for _ in range(usual):
        app.end(signal.SIGTERM)
        starts.append(await app.start())
    async with httpx.AsyncClient(base_url=app.url) as page:
        await page.get("/")
        cookies = page.cookies
    rows: list[Row] = [{"case": "kills", "usual_s": starts}]
    talkers = [Talker(str(n), random.Random(luck.random())) for n in range(_AT_ONCE)]
    for n in range(kills):
        print(f"kill {n + 1} of {kills}", file=sys.stderr)
        killed = await _killed(app, talkers, cookies, luck)
        sound = app.sound()
        start_s = await app.start()
        async with _client(app, cookies) as client:
            found = [await _checked(client, talker, killed) for talker in talkers]
        lost = max((one["lost_s"] for one in found), default=0.0)
        wrong = [one["wrong"] for one in found if one["wrong"]]
        rows.append({"case": "kills", "sound": sound, "start_s": start_s, "lost_s": lost, "wrong": wrong})
        if n % 10 == 9:  # the next ones are new conversations: a long one is read whole each time
            talkers = [Talker(f"{n} {i}", random.Random(luck.random())) for i in range(_AT_ONCE)]
    return rows


@asynccontextmanager
async def _client(app: Killed, cookies: httpx.Cookies) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=app.url, cookies=cookies, timeout=20) as client:
        yield client


async def _killed(app: Killed, talkers: list[Talker], cookies: httpx.Cookies, luck: random.Random) -> float:
    """Lets all talk, and kills at some moment: often soon, when turns have just begun."""
    async with _client(app, cookies) as client:
        talking = [asyncio.create_task(talker.talk(client)) for talker in talkers]
        await asyncio.sleep(luck.choice((0.05, 0.3, 1.0, 2.5)) * luck.uniform(0.5, 1.5))
        killed = time.monotonic()
        app.end(signal.SIGKILL)
        await asyncio.wait(talking, timeout=20)
        return killed


async def _checked(client: httpx.AsyncClient, talker: Talker, killed: float) -> Row:
    """What is wrong with a conversation, in words, and how much of its last reply is lost, in seconds."""
    acknowledged = [turn for turn in talker.turns if turn.acknowledged]
    if talker.conversation_id is None:
        talker.turns.clear()
        return {"lost_s": 0.0, "wrong": ""}
    answer = await client.get(f"/conversations/{talker.conversation_id}")
    if answer.status_code != 200:
        return {"lost_s": 0.0, "wrong": f"the conversation is gone: {answer.text}"}
    stored = answer.json()["messages"]
    asked, replies = stored[::2], stored[1::2]
    last = talker.turns[-1]
    there = acknowledged if last.acknowledged or len(asked) == len(acknowledged) else [*acknowledged, last]
    talker.turns = there  # what was never acknowledged may or may not have come through
    if [m["content"] for m in asked] != [turn.message for turn in there]:
        return {"lost_s": 0.0, "wrong": "messages are missing, twice there, or in another order"}
    lost = 0.0
    for turn, reply in zip(there, replies, strict=True):
        text, standing = reply["content"], reply["standing"]
        if turn.ended and (text != turn.expected or standing != "whole"):
            return {"lost_s": 0.0, "wrong": f"a whole reply is {standing}, {len(text)} of {len(turn.expected)}"}
        if not turn.expected.startswith(text) or standing not in ("whole", "interrupted"):
            return {"lost_s": 0.0, "wrong": f"a reply is {standing}: {text[-40:]!r}"}
        if standing == "whole" and text != turn.expected:
            return {"lost_s": 0.0, "wrong": "a cut reply is called whole"}
        if turn is there[-1]:
            lost = turn.lost_s(text, killed)
            turn.ended, turn.arrived = turn.ended or standing == "whole", []  # the next kill costs it nothing more
    return {"lost_s": lost, "wrong": ""}
