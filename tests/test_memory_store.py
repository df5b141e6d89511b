import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from memory import store as module
from memory.messages import Message, Tuning
from memory.store import Store
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun
from runs.parts import Part
from settings import Settings


def a_run(conversation_id: str = "c", owner: str | None = "anna") -> LiveRun:
    return LiveRun(conversation_id=conversation_id, backend="B", memory="full", owner=owner, lifetime=Lifetime())


def database(settings: Settings) -> Path:
    return Path(settings.database_url.removeprefix("sqlite:///"))


async def texts(store: Store, conversation_id: str = "c") -> list[str]:
    return [m.text for m in await store.history(conversation_id)]


@pytest.fixture
async def reopened(settings: Settings) -> AsyncIterator[Any]:
    """Opens the settings' database again, as a later process would."""
    opened: list[Store] = []

    async def reopen() -> Store:
        opened.append(Store(settings.database_url))
        await opened[-1].open()
        return opened[-1]

    yield reopen
    for store in opened:
        await store.close()


async def test_a_created_conversation_holds_what_it_was_given(store: Store) -> None:
    given: list[Any] = [("system", "Be kind."), ("user", "  Hi\nthere  "), ("assistant", "Hello"), ("tool", "12:00")]
    conversation_id = await store.create("anna", given)
    found = await store.conversation(conversation_id, "anna")
    assert (found.title, found.owner, found.backend) == ("Hi there", "anna", None)
    history = await store.history(conversation_id)
    assert [(m.role, m.text) for m in history] == given
    assert {m.standing for m in history} == {"whole"}
    assert await store.size(conversation_id) == 4
    assert await store.history(conversation_id, latest=2) == history[-2:]


async def begin(store: Store, run: LiveRun, text: str, **more: Any) -> tuple[Message, Message]:
    """A turn; the conversation is made with its first."""
    try:
        await store.conversation(run.conversation_id, run.owner)
    except ChatError as e:
        more |= {"new": e.code == "not_found"}
    return await store.begin_turn(run, text, **more)


async def test_an_empty_conversation_can_be_created(store: Store) -> None:
    conversation_id = await store.create(None)
    assert await store.history(conversation_id) == []
    assert (await store.conversation(conversation_id, "anyone")).owner is None


async def test_a_conversation_is_not_found_by_others(store: Store) -> None:
    conversation_id = await store.create("anna")
    for stranger in ("ben", None):
        with pytest.raises(ChatError) as refused:
            await store.conversation(conversation_id, stranger)
        assert refused.value.code == "not_found"
    with pytest.raises(ChatError):
        await store.conversation("no such id", "anna")


async def test_a_turn_is_on_disk_before_its_run_starts(store: Store, reopened: Any) -> None:
    run = a_run()
    asked, reply = await begin(store, run, "Hi")
    other = await reopened()
    found = await other.history("c")
    assert [m.text for m in found] == ["Hi", ""]
    assert found[0] == asked
    assert found[1].run_id == reply.run_id == run.id
    assert (await other.conversation("c", "anna")).backend == "B"


async def test_a_reply_grows_and_ends_with_its_record(store: Store) -> None:
    run = a_run()
    _, reply = await begin(store, run, "Hi")
    thought, call = (
        Part("thinking", "Hm", 1.0, 2.0),
        Part("tool", "391", 2.0, None, "calculator", {"expression": "17*23"}),
    )
    grown = replace(reply, text="Hel", parts=(thought, call))
    await store.grow(grown)
    assert (await store.history("c"))[-1] == grown
    parts = (thought, replace(call, end=3.0, error="cancelled"))
    ended = replace(reply, text="Hello", standing="stopped", note="Stopped by you", parts=parts)
    await store.end_turn(run, ended, "one\ntwo")
    assert (await store.history("c"))[-1] == ended
    assert await store.record(run.id) == "one\ntwo"
    with pytest.raises(ChatError):
        await store.record("no such run")


async def test_a_turn_instead_of_an_earlier_message_replaces_all_after_it(store: Store) -> None:
    first, _ = await begin(store, a_run(), "one")
    second, _ = await begin(store, a_run(), "two")
    await begin(store, a_run(), "three")
    await begin(store, a_run(), "two again", instead_of=second.id)
    assert await texts(store) == ["one", "", "two again", ""]
    with pytest.raises(ChatError) as refused:
        await begin(store, a_run(), "lost", instead_of=second.id)
    assert refused.value.code == "not_found"
    other = await store.create("anna", [("user", "elsewhere")])
    with pytest.raises(ChatError):
        await begin(store, a_run(other), "taken", instead_of=first.id)
    assert await texts(store) == ["one", "", "two again", ""]
    assert await texts(store, other) == ["elsewhere"]


async def test_cut_and_delete_take_what_they_say(store: Store) -> None:
    run = a_run()
    _, reply = await begin(store, run, "one")
    await store.end_turn(run, replace(reply, standing="whole"), "record")
    second, _ = await begin(store, a_run(), "two")
    kept = await store.create("anna", [("user", "kept")])
    await store.cut("c", second.id)
    assert await texts(store) == ["one", ""]
    await store.delete("c")
    with pytest.raises(ChatError):
        await store.conversation("c", "anna")
    with pytest.raises(ChatError):
        await store.record(run.id)
    assert await texts(store) == []
    assert await texts(store, kept) == ["kept"]


async def test_a_run_that_ends_after_its_conversation_was_deleted_leaves_nothing(store: Store) -> None:
    run = a_run()
    _, reply = await begin(store, run, "one")
    await store.delete("c")
    await store.end_turn(run, reply, "record")
    with pytest.raises(ChatError):
        await store.record(run.id)


async def test_what_a_dead_process_left_growing_is_interrupted(store: Store, reopened: Any) -> None:
    _, reply = await begin(store, a_run(), "Hi")
    await store.grow(replace(reply, text="Hel"))
    last: Message = (await (await reopened()).history("c"))[-1]
    assert (last.text, last.standing) == ("Hel", "interrupted")


BEFORE_TUNING = """
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
"""A database as the version before tuning made it."""


async def test_a_database_of_an_earlier_version_opens_and_works(settings: Settings, reopened: Any) -> None:
    with closing(sqlite3.connect(database(settings))) as earlier:
        earlier.executescript(BEFORE_TUNING)
    for store in (await reopened(), await reopened()):
        found = await store.conversation("c", "anna")
        assert (found.title, found.memory, found.tuning) == ("Hi", "full", Tuning())
        assert (await store.history("c"))[1].standing == "interrupted"
    pirate = Tuning("Be a pirate.", 0.5, 20)
    run = a_run()
    _, reply = await begin(store, run, "more", tuning=pirate)
    await store.end_turn(run, replace(reply, standing="whole"), "record")
    assert (await store.conversation("c", "anna")).tuning == pirate
    assert await texts(store) == ["Hi", "Hel", "more", ""]
    assert await store.record(run.id) == "record"
    await store.delete("c")
    assert await texts(store) == []


async def test_a_conversation_keeps_the_tuning_of_its_latest_turn(store: Store) -> None:
    assert (await store.conversation(await store.create("anna"), "anna")).tuning == Tuning()
    for tuning in (Tuning("Be kind.", 0.0, 1), Tuning(temperature=1.5), Tuning("")):
        await begin(store, a_run(), "Hi", tuning=tuning)
        assert (await store.conversation("c", "anna")).tuning == tuning


async def test_turns_begun_together_all_find_their_place(store: Store) -> None:
    made = [await store.create(None) for _ in range(3)]
    await asyncio.gather(*(store.begin_turn(a_run(made[n % 3]), str(n)) for n in range(12)))
    for conversation_id in made:
        found = await store.history(conversation_id)
        assert len(found) == 8
        assert [m.role for m in found] == ["user", "assistant"] * 4


async def test_a_turn_in_a_deleted_conversation_does_not_bring_it_back(store: Store) -> None:
    conversation_id = await store.create(None)
    await store.delete(conversation_id)
    with pytest.raises(ChatError) as refused:
        await store.begin_turn(a_run(conversation_id), "Hi")
    assert refused.value.code == "not_found"
    assert await store.size(conversation_id) == 0


async def test_a_locked_database_says_so_and_heals(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUSY_MS", 50)  # the wait, for connections made from here on
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


async def test_a_read_only_database_can_be_read_and_says_why_not_written(
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


async def test_a_full_disk_says_so(store: Store) -> None:
    assert store._engine
    event.listen(
        store._engine.sync_engine,
        "begin",
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1"),
    )
    with pytest.raises(ChatError) as refused:
        await store.create("anna", [("user", "x" * 1_000_000)])
    assert "full" in refused.value.message


# SQLAlchemy closes the broken connection in the background, which a test's loop may not live to see
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("damage", ["garbage", "a folder", "torn"])
async def test_a_file_that_is_no_database_says_so(store: Store, settings: Settings, reopened: Any, damage: str) -> None:
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
