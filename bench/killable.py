"""The app as a process that can be killed, and started again on the same data; and whether its database is sound."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import httpx
import psutil
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from bench.ports import free_port

_ROOT = Path(__file__).parent.parent
_START_S, _END_S = 90.0, 15.0
_LEFT_S = 5.0
"""How long what the app has started may outlive it."""
_MUST_BE_NONE = {
    "conversations whose head is gone": "conversations c LEFT JOIN messages m ON m.id = c.head "
    "WHERE c.head IS NOT NULL AND m.id IS NULL",
    "messages whose parent is gone": "messages m LEFT JOIN messages p ON p.id = m.parent_id "
    "WHERE m.parent_id IS NOT NULL AND p.id IS NULL",
    "whole replies without a record": "messages m LEFT JOIN runs r ON r.id = m.run_id "
    "WHERE m.role = 'assistant' AND m.standing = 'whole' AND r.id IS NULL",
    "records of replies that have not ended": "runs r LEFT JOIN messages m ON m.run_id = r.id "
    "AND m.role = 'assistant' AND m.standing NOT IN ('growing', 'interrupted') WHERE m.id IS NULL",
}


class Started(NamedTuple):
    """What a start took until the page could be served: seconds, and seconds of CPU, which others disturb less."""

    seconds: float
    cpu_s: float


class Killable:
    """`python app.py` on a port of its own; without a `database_url` its database is a SQLite file in `folder`."""

    def __init__(
        self,
        folder: Path,
        config: str,
        database_url: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._data, self._said, self._config = folder / "data", folder / "said.txt", folder / "glassbox.toml"
        self.configure(config)
        self._database_url = database_url
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GLASSBOX_", "GRADIO_")) and k != "SPACE_ID"}
        ours = {"GLASSBOX_DATA": str(self._data), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(_ROOT)}
        if kept.pop("PYTHONDONTWRITEBYTECODE", None):  # each start would compile everything again
            kept.setdefault("PYTHONPYCACHEPREFIX", str(folder.parent / "bytecode"))
        self._environment = (
            kept | ours | dict(environment) | ({"GLASSBOX_DATABASE_URL": database_url} if database_url else {})
        )
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, config: str) -> None:
        """From the next start on."""
        self._config.write_text(config, encoding="utf-8")

    async def start(self) -> Started:
        """Until /healthz answers. What the last one may have left behind must be gone."""
        command = [sys.executable, str(_ROOT / "app.py"), "--port", str(self.port), "--config", str(self._config)]
        begun = time.monotonic()
        with self._said.open("w") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - nothing else happens here meanwhile
                command, env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        async with httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/healthz", timeout=2)).status_code == 200:
                        used = psutil.Process(self._process.pid).cpu_times()
                        return Started(time.monotonic() - begun, used.user + used.system)
                if self._process.poll() is not None or time.monotonic() - begun > _START_S:
                    raise RuntimeError(f"the app does not start; it said:\n{self._said.read_text()[-3000:]}")
                await asyncio.sleep(0.02)

    async def opened(self) -> None:
        """Until the app has looked at its own page, and says where it is: on a busy machine seconds after its start."""
        for _ in range(int(_START_S / 0.1)):
            if "Glassbox is at" in self.said():
                break
            await asyncio.sleep(0.1)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def memory(self) -> int:
        """Of the app and what it has started, in bytes, as the system counts it resident."""
        found = 0
        for pid in self.processes():
            with suppress(psutil.NoSuchProcess):
                found += int(psutil.Process(pid).memory_info().rss)
        return found

    def processes(self) -> set[int]:
        """The app and what it has started."""
        return {self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))}

    def said(self) -> str:
        """What the app has written so far."""
        return self._said.read_text()

    def errors(self) -> list[str]:
        """What the app has logged as an error, where its log is JSON."""
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        failed = [one for one in lines if one["level"] in ("error", "critical")]
        return [f"logged: {one['event'].strip()[:200]} {one.get('exception', '').strip()[-200:]}" for one in failed]

    def kill(self) -> float:
        """Kills the app alone, not what it has started; returns when, in epoch seconds."""
        assert self._process
        os.kill(self._process.pid, signal.SIGKILL)
        return time.time()

    def end(self) -> None:
        """As a person does who closes it."""
        assert self._process
        self._process.terminate()
        self._process.wait(_END_S)

    async def leaves_nothing(self) -> bool:
        """Whether all that the app had started has ended with it; ends what has not."""
        assert self._process
        self._process.wait(_END_S)
        until = time.monotonic() + _LEFT_S
        with suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(self._process.pid, 0)
                await asyncio.sleep(0.02)
            os.killpg(self._process.pid, signal.SIGKILL)
            return False
        return True

    def close(self) -> None:
        """Whatever has happened."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_END_S)

    def damage(self) -> list[str]:
        """What is wrong with the database as it is now, in words. Of a SQLite file a copy is looked at: opening it
        would mend what the next start has to.
        """
        if self._database_url:
            scheme, _, rest = self._database_url.partition("://")
            return _damage(f"{scheme.replace('postgresql', 'postgresql+psycopg')}://{rest}")
        with tempfile.TemporaryDirectory() as folder:
            for part in self._data.glob("glassbox.db*"):
                (Path(folder) / part.name).write_bytes(part.read_bytes())
            return _damage(f"sqlite:///{Path(folder) / 'glassbox.db'}")


def _damage(url: str) -> list[str]:
    engine = create_engine(url)
    try:
        with engine.connect() as db:
            found = _file_damage(db) if engine.dialect.name == "sqlite" else []
            for what, where in _MUST_BE_NONE.items():
                if many := db.execute(text(f"SELECT count(*) FROM {where}")).scalar_one():
                    found.append(f"{many} {what}")
            return found
    except SQLAlchemyError as e:  # no such table, if there is no file
        return [f"the database cannot be read: {type(e).__name__}: {e}"]
    finally:
        engine.dispose()


def _file_damage(db: Connection) -> list[str]:
    whole = [str(row[0]) for row in db.execute(text("PRAGMA integrity_check"))]
    strays = [f"a foreign key of {row[0]} points nowhere" for row in db.execute(text("PRAGMA foreign_key_check"))]
    return [*(words for words in whole if words != "ok"), *strays]
