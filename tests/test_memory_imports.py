"""Imports into a store: in this process and in a child process, on both databases, and their failures."""

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from memory import imports as module
from memory.conversation_list import find_conversations
from memory.exports.conversation import ExportError, ParsedConversation, ParsedMessage
from memory.exports.reader import read_export
from memory.imports import ConversationImporter, _Lines
from memory.store import Store
from memory.tables import messages
from runs.errors import ChatError
from runs.reply import ReplyPart
from tests.databases import ON_BOTH
from tests.exports import letter, tour


async def unlimited() -> None:
    return None


FILE = json.dumps([tour(), letter(), {"mapping": {}, "title": "empty"}]).encode()


@ON_BOTH
@pytest.mark.parametrize("small", [0, 1_000_000])
async def test_each_conversation_of_a_file_is_stored_with_its_branches(
    store: Store, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(module, "_SMALL", small)
    monkeypatch.setattr(module, "_ROWS", 2)
    found = await ConversationImporter(store, 1_000_000).import_file("anna", FILE, unlimited)
    assert [title for _, title in found.conversations] == ["Whales", "Sums"]
    assert (found.skipped_in_all, found.skipped[0]["title"], found.left_out) == (1, "empty", 0)
    sums = found.conversations[1][0]
    branch, tree = await store.history(sums), await store.tree(sums)
    assert [message.text for message in branch][2:] == ["Thanks", "You are welcome"]
    assert branch[1].parts[1].name == "python"
    assert len(tree) == len(branch) + 1
    other = next(message for message in tree if message not in branch)
    await store.switch_branch(sums, other.id)
    assert (await store.history(sums))[-1].text == "Another answer"
    with pytest.raises(ChatError):
        await store.conversation(sums, "ben")


async def test_broken_file_is_rejected_in_both_processes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for small in (0, 1_000_000):
        monkeypatch.setattr(module, "_SMALL", small)
        for data, problem in (
            (b"{no", "not valid JSON"),
            (b"[" * 90_000, "nested too deeply"),
            (b"[1, 2]", "None of the 2"),
        ):
            with pytest.raises(ChatError, match=problem) as error:
                await ConversationImporter(store, 1_000_000).import_file("anna", data, unlimited)
            assert error.value.code == "invalid_request"
    assert await store.count("anna") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="this system bounds no process's memory")
async def test_file_that_needs_too_much_memory_is_rejected(store: Store) -> None:
    bomb = b'{"messages": [' + b"[]," * 7_000_000 + b"[]]}"
    with pytest.raises(ChatError, match=r"too much|messages\.0"):
        await ConversationImporter(store, 1_000_000).import_file("anna", bomb, unlimited)


async def test_cancelled_import_leaves_no_process(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "memory" / "exports").mkdir(parents=True)
    (tmp_path / "memory" / "exports" / "child.py").write_text("import time\nopen('started', 'w')\ntime.sleep(600)\n")
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.setattr(module, "_SMALL", 0)
    processes = list[asyncio.subprocess.Process]()
    start = asyncio.create_subprocess_exec

    async def noted(*args: str, **more: object) -> asyncio.subprocess.Process:
        processes.append(await start(*args, **more))  # type: ignore[arg-type]
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    importing = asyncio.create_task(ConversationImporter(store, 1_000_000).import_file("anna", FILE, unlimited))
    async with asyncio.timeout(30):
        while not (tmp_path / "started").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert processes[0].returncode is not None
    monkeypatch.setattr(module, "_SECONDS", 0.5)
    with pytest.raises(ChatError, match="too much time"):
        await ConversationImporter(store, 1_000_000).import_file("anna", FILE, unlimited)
    assert processes[1].returncode is not None


async def test_small_files_do_not_wait_for_large_ones(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    importer, parse, go = ConversationImporter(store, 1_000_000), ConversationImporter._parse, asyncio.Event()

    async def slow(self: ConversationImporter, data: bytes, *more: Any) -> Any:
        if len(data) > module._SMALL:
            await go.wait()
        return await parse(self, data, *more)

    monkeypatch.setattr(ConversationImporter, "_parse", slow)
    large = FILE + b" " * module._SMALL
    waiting = [asyncio.create_task(importer.import_file(f"{n}", large, unlimited)) for n in range(3)]
    await asyncio.sleep(0)
    found = await asyncio.wait_for(importer.import_file("anna", FILE, unlimited), 10)
    assert found.conversations and not any(task.done() for task in waiting)
    go.set()
    assert all(result.conversations for result in await asyncio.gather(*waiting))


@pytest.mark.parametrize("small", [0, 1_000_000])
async def test_parallel_imports_of_one_owner_share_the_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(module, "_SMALL", small)
    most = 3

    async def room() -> int:
        return max(0, most - await store.count("anna"))

    async def other_room() -> int:
        return max(0, most - await store.count("ben"))

    imports = ConversationImporter(store, 1_000_000)
    works = [imports.import_file("anna", FILE, room) for _ in range(5)]
    found = await asyncio.gather(*works, imports.import_file("ben", FILE, other_room), return_exceptions=True)
    assert await store.count("anna") == most
    assert await store.count("ben") == 2
    refused = [one for one in found if isinstance(one, ChatError)]
    assert [error.code for error in refused] == ["rate_limited"] * 3
    assert len(found) - len(refused) == 3
    del found, refused, works  # the errors refer to local variables of their functions
    gc.collect()
    assert not imports._owners  # the locks of owners without imports are gone


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    found = ParsedConversation("", [ParsedMessage("user", f"{start + n}", None) for n in range(count)], None)
    return [line["row"] for line in found.lines() if "row" in line]


def with_parts(count: int) -> dict[str, Any]:
    part = ReplyPart("tool", "o" * 300, 0.0, input={"i": "i" * 300}, error="e" * 300)
    return {"row": {"text": "", "parts": [asdict(part)] * count}}


async def test_size_of_a_batch_includes_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHARACTERS", 10_000)
    lines = _Lines(iter([{"head": None}, *[with_parts(3) for _ in range(20)], {"skipped": []}]))
    lines.next()
    sizes = [len(batch) async for batch in lines.batches()]
    assert sum(sizes) == 20 and max(sizes) <= 4


@ON_BOTH
async def test_running_import_is_invisible_and_blocks_no_writer(store: Store) -> None:
    at, go = asyncio.Event(), asyncio.Event()

    async def batches() -> AsyncIterator[list[dict[str, Any]]]:
        yield rows(3)
        at.set()
        await go.wait()
        yield rows(3, 3)

    importing = asyncio.create_task(store.import_messages("anna", "Title", None, time.time(), batches()))
    await at.wait()
    async with asyncio.timeout(10):
        own = await store.create("anna", [("user", "hello")])
    assert [one.id for one in (await find_conversations(store, "anna"))[0]] == [own] and await store.count("anna") == 1
    go.set()
    new, _ = await importing
    assert {one.id for one in (await find_conversations(store, "anna"))[0]} == {own, new}
    assert [message.text for message in await store.tree(new)] == [str(n) for n in range(6)]


@pytest.mark.parametrize("killed", [False, True])
async def test_interrupted_import_leaves_nothing(
    store: Store, reopened: Callable[[], Awaitable[Store]], killed: bool
) -> None:
    at = asyncio.Event()

    async def batches() -> AsyncIterator[list[dict[str, Any]]]:
        yield rows(3)
        at.set()
        await asyncio.Event().wait()

    async def left(kept: Store) -> int:
        async with kept.reading() as db:
            return len((await db.execute(select(messages.c.id))).all())

    importing = asyncio.create_task(store.import_messages("anna", "Title", None, time.time(), batches()))
    await at.wait()
    if killed:
        assert await left(store) == 3
        store = await reopened()  # like a start after a kill
        assert await left(store) == 0
    importing.cancel()
    await asyncio.wait({importing})
    assert importing.cancelled() and await left(store) == 0


async def test_a_conversation_that_has_grown_can_be_imported_again() -> None:
    def read(count: int) -> int:
        saved = {"conversation_id": "c", "title": "", "messages": [{"role": "user", "content": "a"}] * count}
        return sum("row" in line for line in read_export(json.dumps(saved).encode(), 1, 32_000_000))

    assert read(25_002) == 25_002
    with pytest.raises(ExportError, match="40,001 messages; at most 40,000"):
        read(40_001)


async def test_a_conversation_that_is_too_long_is_not_imported(store: Store) -> None:
    long = {"messages": [{"role": "user", "content": "a"}] * 25_001}
    with pytest.raises(ChatError, match="25,001 messages"):
        await ConversationImporter(store, 32_000_000).import_file("anna", json.dumps(long).encode(), unlimited)
    file = {"conversations": [long, {"messages": [{"role": "user", "content": "short"}]}]}
    found = await ConversationImporter(store, 32_000_000).import_file("anna", json.dumps(file).encode(), unlimited)
    assert len(found.conversations) == 1 and "25,001 messages" in found.skipped[0]["reason"]
