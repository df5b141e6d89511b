"""Reading an opened conversation ahead, with the real model: the next reply reads only what is new."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent import read_ahead
from backends.local import LocalBackend
from memory.messages import Role
from memory.options import TurnOptions
from tests.conftest import until
from tests.grammar import check_run
from tests.house import House, housed, of
from tests.local_model import BUNDLED, busy_slots

SHORT = TurnOptions(max_tokens=8)
TALK: list[tuple[Role, str]] = [
    (("user", "assistant")[n % 2], f"{n}: The keeper of the lighthouse counts the ships that pass by. " * 3)  # type: ignore[misc]
    for n in range(12)
]


@pytest_asyncio.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(read_ahead, "_WAIT_S", 0.05)
    async with housed(tmp_path, BUNDLED) as house:
        await house.backends.open()
        await house.backend.wait_ready()
        yield house


def local_of(house: House) -> LocalBackend:
    assert isinstance(house.backend, LocalBackend)
    return house.backend


async def opened(house: House, visitor: str) -> str:
    """A stored conversation that its visitor opens."""
    store = house.turns.store
    this = await store.create(visitor, TALK)
    house.turns.ahead.begin(house.turns, await store.conversation(this, visitor), visitor)
    return this


async def begun(house: House) -> None:
    await until(lambda: local_of(house)._ahead)


async def read(house: House) -> None:
    task = house.turns.ahead._task
    assert task
    await asyncio.wait({task}, timeout=90)
    assert task.done()


async def ask(house: House, visitor: str, conversation_id: str) -> list[dict[str, Any]]:
    run = await house.start("And then?", visitor=visitor, conversation_id=conversation_id, options=SHORT)
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), 90)
    return check_run(run)


def timings_of(received: list[dict[str, Any]]) -> tuple[int, int]:
    """The tokens that a reply read, and those that were in the cache."""
    (end,) = of(received, "model_end")
    return end["timings"]["prompt_tokens"], end["timings"].get("cached_tokens", 0)


async def test_a_reply_reads_only_what_is_new_of_an_opened_conversation(house: House) -> None:
    this = await opened(house, "anna")
    await read(house)
    received = await ask(house, "anna", this)
    other = await house.turns.store.create("ben", TALK)
    whole = await ask(house, "ben", other)
    (fresh, cached), (all_of_it, before) = timings_of(received), timings_of(whole)
    assert before == 0, "another visitor does not benefit from it, though the text is the same"
    assert cached > 300 and fresh < 0.2 * all_of_it


async def test_a_message_of_another_visitor_ends_it_at_once(house: House) -> None:
    await opened(house, "anna")
    await begun(house)
    reading = local_of(house)._ahead
    received = await house.ask("Hi", visitor="ben", options=SHORT)
    assert reading and reading.cancelled() and received[-1]["type"] == "complete"
    await read(house)


async def test_a_reply_that_begins_without_its_model_ends_it(house: House) -> None:
    await opened(house, "anna")
    await begun(house)
    local = local_of(house)
    local.machine_idle = lambda: False  # as while another model replies
    await read(house)
    assert local._ahead is None
    local.machine_idle = lambda: True
    async with asyncio.timeout(20):
        while await busy_slots(local):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_nothing_is_read_while_a_run_is_live(house: House) -> None:
    run = await house.start("Write a long story.", visitor="ben")
    await opened(house, "anna")
    await read(house)
    assert not run.ended and local_of(house)._ahead is None
    await run.stop("user")
    cache = local_of(house)._cache
    assert cache and "anna" not in {slot.reader for slot in cache._slots}


async def test_one_conversation_is_read_at_a_time(house: House) -> None:
    await opened(house, "anna")
    await begun(house)
    first = house.turns.ahead._task
    await opened(house, "ben")
    assert house.turns.ahead._task is first, "another visitor's is not read meanwhile"
    await opened(house, "anna")
    assert house.turns.ahead._task is not first
    await read(house)
    assert first and first.cancelled()
    cache = local_of(house)._cache
    assert cache and sum(slot.owner is not None for slot in cache._slots) == 1


async def test_a_deleted_conversation_is_not_read_on(house: House) -> None:
    this = await opened(house, "anna")
    await begun(house)
    local = local_of(house)
    await local.forget_conversation(this)
    assert local._ahead is None and local._cache and local._cache.empty
    await read(house)


async def test_nothing_is_read_for_those_without_a_cookie(house: House) -> None:
    this = await house.turns.store.create(None, TALK)
    house.turns.ahead.begin(house.turns, await house.turns.store.conversation(this, None), None)
    assert house.turns.ahead._task is None
