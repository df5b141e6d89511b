import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from memory import migrations
from memory.migrations import HEAD, version
from memory.options import TurnOptions
from memory.store import Store
from memory.tables import metadata
from runs.errors import ChatError
from settings import Settings
from tests.databases import ON_BOTH
from tests.stores import a_run, begin, database, texts

BEFORE_OPTIONS = """
CREATE TABLE conversations (
    id VARCHAR(32) NOT NULL PRIMARY KEY, owner VARCHAR(64), title TEXT NOT NULL, backend TEXT, memory TEXT,
    created FLOAT NOT NULL, updated FLOAT NOT NULL
);
CREATE INDEX ix_conversations_owner ON conversations (owner);
CREATE TABLE messages (
    id VARCHAR(32) NOT NULL PRIMARY KEY, conversation_id VARCHAR(32) NOT NULL, place INTEGER NOT NULL,
    role VARCHAR(16) NOT NULL, text TEXT NOT NULL, standing VARCHAR(16) NOT NULL, run_id VARCHAR(32), note TEXT,
    created FLOAT NOT NULL, FOREIGN KEY(conversation_id) REFERENCES conversations (id) ON DELETE CASCADE
);
CREATE INDEX messages_in_order ON messages (conversation_id, place);
CREATE TABLE runs (
    id VARCHAR(32) NOT NULL PRIMARY KEY, conversation_id VARCHAR(32) NOT NULL, created FLOAT NOT NULL,
    record BLOB NOT NULL, FOREIGN KEY(conversation_id) REFERENCES conversations (id) ON DELETE CASCADE
);
CREATE INDEX ix_runs_conversation_id ON runs (conversation_id);
INSERT INTO conversations VALUES ('c', 'anna', 'Hi', 'B', 'full', 1.0, 1.0);
INSERT INTO messages VALUES ('m1', 'c', 1, 'user', 'Hi', 'whole', 'r', NULL, 1.0);
INSERT INTO messages VALUES ('m2', 'c', 2, 'assistant', 'Hel', 'growing', 'r', NULL, 1.0);
"""
"""A database of the version before options."""


async def test_a_database_of_an_earlier_version_opens_and_works(settings: Settings, reopened: Any) -> None:
    with closing(sqlite3.connect(database(settings))) as earlier:
        earlier.executescript(BEFORE_OPTIONS)
    for store in (await reopened(), await reopened()):
        found = await store.conversation("c", "anna")
        assert (found.title, found.memory, found.options) == ("Hi", "full", TurnOptions())
        assert (await store.history("c"))[1].standing == "interrupted"
    pirate = TurnOptions(system_prompt="Be a pirate.", temperature=0.5, max_tokens=20)
    run = a_run()
    _, reply = await begin(store, run, "more", options=pirate)
    await store.end_turn(run, replace(reply, standing="whole"), "record")
    assert (await store.conversation("c", "anna")).options == pirate
    assert await texts(store) == ["Hi", "Hel", "more", ""]
    assert await store.record(run.id) == "record"
    await store.delete("c")
    assert await texts(store) == []


def test_new_database_has_the_newest_version() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def on(store: Store, work: Any) -> Any:
    async with store.writing() as db:
        return await db.run_sync(work)


def differences(db: Connection) -> list[Any]:
    found = compare_metadata(MigrationContext.configure(db), metadata)
    return [one for one in found if one[0] not in ("add_fk", "remove_fk")]  # those of SQLite have no names


def columns(db: Connection) -> dict[str, list[tuple[str, str, bool]]]:
    there = inspect(db)
    return {
        table: sorted((c["name"], str(c["type"]).split("(")[0], c["nullable"]) for c in there.get_columns(table))
        for table in there.get_table_names()
    }


def make_old(db: Connection) -> None:
    """Replaces the tables by those of the version before options."""
    metadata.drop_all(db)
    old = BEFORE_OPTIONS.replace("BLOB", "BYTEA" if db.dialect.name == "postgresql" else "BLOB")
    for statement in ["DROP TABLE alembic_version", *old.strip().split(";\n")]:
        db.exec_driver_sql(statement)


@ON_BOTH
async def test_an_upgraded_database_is_like_a_new_one(store: Store, database_url: str, reopened: Any) -> None:
    fresh = await on(store, columns)
    assert await on(store, differences) == []
    assert await on(store, version) == HEAD

    await on(store, make_old)
    later = await reopened()
    assert await on(later, version) == HEAD
    assert await on(later, differences) == []
    assert await on(later, columns) == fresh
    assert await texts(later) == ["Hi", "Hel"]
    assert [m.parent_id for m in await later.history("c")] == [None, "m1"]


@ON_BOTH
async def test_failed_upgrade_changes_nothing_and_is_retried(
    store: Store,
    database_url: str,
    reopened: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await on(store, make_old)

    def failing(db: Connection) -> None:
        upgrade(db)
        raise OSError("no space left on device")

    upgrade = migrations._upgrade
    monkeypatch.setattr(migrations, "_upgrade", failing)
    later = await reopened()
    with pytest.raises(ChatError, match="the disk is full"):
        await later.history("c")
    assert await on(store, version) is None
    assert "head" not in str((await on(store, columns))["conversations"])
    monkeypatch.setattr(migrations, "_upgrade", upgrade)
    assert await texts(later) == ["Hi", "Hel"]


@ON_BOTH
async def test_a_database_of_a_later_version_is_used_as_it_is(store: Store, database_url: str, reopened: Any) -> None:
    await on(store, lambda db: db.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    await begin(await reopened(), a_run(), "Hi")
    assert await texts(store) == ["Hi", ""]
