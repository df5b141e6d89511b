"""Failures of a SQLite file and their messages."""

import asyncio
import gc
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from memory import database as module
from memory.messages import Message
from memory.rows import message_row
from memory.store import Store
from runs.errors import ChatError
from runs.events import JSON
from runs.live import new_id
from settings import Settings
from tests.conftest import until
from tests.stores import a_run, begin, database, texts


async def test_locked_database_is_reported_and_recovers(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUSY_MS", 50)  # of connections that are opened from here on
    await store.close()
    await store.open()
    with closing(sqlite3.connect(database(settings), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ChatError) as refused:
            await begin(store, a_run(), "Hi")
        assert "locked" in refused.value.message
        other.execute("ROLLBACK")
    await begin(store, a_run(), "Hi")
    assert await texts(store) == ["Hi", ""]


async def test_read_only_database_can_be_read_and_reports_failed_writes(
    store: Store, settings: Settings, reopened: Any
) -> None:
    await begin(store, a_run(), "Hi")
    await store.close()
    with database(settings).open("r+b") as file:
        file.seek(18)  # the file format's write version: a newer one than SQLite knows makes the file read-only
        file.write(b"\x03")
    readonly = await reopened()
    assert await texts(readonly) == ["Hi", ""]
    with pytest.raises(ChatError) as refused:
        await begin(readonly, a_run(), "more")
    assert "read-only" in refused.value.message
    assert str(database(settings)) not in refused.value.message


async def test_full_disk_is_reported(store: Store) -> None:
    assert store._engine
    event.listen(
        store._engine.sync_engine,
        "begin",
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1"),
    )
    with pytest.raises(ChatError) as refused:
        await store.create("anna", [("user", "x" * 1_000_000)])
    assert "full" in refused.value.message


# SQLAlchemy closes the broken connection in the background, perhaps after the end of the test's loop
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("damage", ["garbage", "a folder", "torn"])
async def test_damaged_file_is_reported(store: Store, settings: Settings, reopened: Any, damage: str) -> None:
    conversation_id = await store.create("anna", [("user", "x" * 100_000)])
    await store.close()
    file = database(settings)
    if damage == "torn":
        whole = file.read_bytes()
        file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    else:
        file.unlink()
        for rest in file.parent.glob("*.db-*"):
            rest.unlink()
        file.write_bytes(b"no database" * 1000) if damage == "garbage" else file.mkdir()
    broken = await reopened()
    with pytest.raises(ChatError) as refused:
        await broken.history(conversation_id)
    assert "damaged" in refused.value.message or "cannot be opened" in refused.value.message
    with pytest.raises(ChatError):
        await begin(broken, a_run(), "Hi")


async def test_many_concurrent_writers_all_succeed(store: Store) -> None:
    """SQLite makes a second writer poll; with many writers, one of them could miss every turn until its timeout."""

    async def write(n: int) -> None:
        async with store.writing() as db:
            await db.execute(text("UPDATE conversations SET title = :n"), {"n": str(n)})
            await asyncio.sleep(0.03)  # 120 of them take longer than SQLite's own timeout

    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        for n in range(120):
            group.create_task(write(n))


async def test_cancelled_writers_leave_no_lock(store: Store) -> None:
    rows = [message_row(Message(new_id(), "user", "word " * 50), "another", place, 0.0) for place in range(400)]
    added = asyncio.Event()

    async def batches() -> AsyncIterator[list[JSON]]:
        for n in range(0, len(rows), 40):
            yield [{**row, "id": new_id()} for row in rows[n : n + 40]]
            added.set()

    gc.disable()  # a collection would end the lock
    try:
        for n in range(30):
            added.clear()
            importing = asyncio.create_task(store.import_messages("anna", "title", None, 0.0, batches()))
            await added.wait()
            await asyncio.sleep(n / 1000)
            importing.cancel()
            await asyncio.gather(importing, return_exceptions=True)
            await begin(store, a_run(), "Hi")
    finally:
        gc.enable()


async def test_a_task_that_is_cancelled_twice_leaves_no_waiting_task(tmp_path: Path) -> None:
    """The second cancel comes while the first one's connection is closing, as a Stop in a hurry does."""
    database = module.Database(f"sqlite:///{tmp_path / 'one.db'}")
    await database.open()
    before = asyncio.all_tasks()

    async def write() -> None:
        async with database.writing() as db:
            raw = await db.get_raw_connection()
            await raw.driver_connection.create_function("nap", 1, time.sleep)  # type: ignore[union-attr]
            await db.execute(text("SELECT nap(0.5)"))

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.2)
    for _ in range(2):
        writing.cancel()
        await asyncio.sleep(0.05)
    assert await asyncio.wait({writing}, timeout=5) == ({writing}, set())
    async with database.writing() as db:
        await db.execute(text("SELECT 1"))
    await until(lambda: not asyncio.all_tasks() - before)
    await database.close()
