from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import update

from memory.listing import Listed, listed, rename
from memory.store import Store
from memory.tables import conversations
from runs.errors import ChatError
from tests.databases import ON_BOTH

pytestmark = ON_BOTH


async def made(store: Store, count: int, owner: str = "anna") -> list[str]:
    """Conversations, the newest first; some were used at the very same time."""
    ids = [await store.create(owner, [("user", f"Title {n}"), ("assistant", f"reply {n}")]) for n in range(count)]
    async with store.writing() as db:
        for n, conversation_id in enumerate(ids):
            this = update(conversations).where(conversations.c.id == conversation_id)
            await db.execute(this.values(updated=1000.1 + n // 3))
    return sorted(ids, key=lambda one: (ids.index(one) // 3, one), reverse=True)


def ids(found: Sequence[Listed]) -> list[str]:
    return [one.id for one in found]


async def test_all_are_listed_once_in_pages_the_newest_first(store: Store) -> None:
    there = await made(store, 10)
    await made(store, 2, owner="ben")
    seen, cursor = list[str](), None
    for _ in range(4):
        found, cursor = await listed(store, "anna", limit=3, before=cursor)
        seen += ids(found)
    assert (seen, cursor) == (there, None)
    assert await listed(store, "nobody") == ([], None)


async def test_titles_and_messages_are_searched_as_text(store: Store) -> None:
    whale = await store.create("anna", [("user", "Hi"), ("assistant", f"{'x ' * 60}A WHALE_%\\ sings{' y' * 60}")])
    titled = await store.create("anna", [("user", "whale")])
    await store.create("ben", [("user", "whale")])
    await store.create("anna", [("user", "100 ships")])
    found, _ = await listed(store, "anna", "whale")
    assert set(ids(found)) == {whale, titled}
    (one,) = (await listed(store, "anna", "e_%\\ s"))[0]
    assert one.id == whale
    assert one.found and one.found.startswith("…") and "A WHALE_%\\ sings" in one.found and len(one.found) < 140
    for nothing in ("no such word", "1_0", "%%"):
        assert (await listed(store, "anna", nothing))[0] == []
    assert ids((await listed(store, "anna", "%"))[0]) == [whale]
    assert len((await listed(store, "anna", "  "))[0]) == 3
    assert (await listed(store, "anna", "a\x00b"))[0] == []


async def test_capitals_do_not_matter_in_any_script(store: Store) -> None:
    hello = "\u041f\u0420\u0418\u0412\u0415\u0422, \u00c5SE"
    there = await store.create("anna", [("user", "x"), ("assistant", "\u0130" * 80 + hello)])
    for search in hello.lower().split(", "):
        (one,) = (await listed(store, "anna", search))[0]
        assert one.id == there and one.found and one.found.startswith("\u2026") and one.found.endswith(hello)


@pytest.mark.parametrize("cursor", ["x", "_", "1.0.0_x", "nan", "'; --"])
async def test_a_cursor_that_is_none_is_refused(store: Store, cursor: str) -> None:
    if cursor == "nan":
        assert await listed(store, "anna", before="nan_x") == ([], None)
        return
    with pytest.raises(ChatError, match="no cursor"):
        await listed(store, "anna", before=cursor)


async def test_a_title_is_changed(store: Store) -> None:
    (this,) = await made(store, 1)
    assert await rename(store, this, " A\x00 \n new  title ") == "A\u2400 new title"
    assert (await store.conversation(this, "anna")).title == "A\u2400 new title"
    bad: list[Any] = [(this, " \n"), (this, "x" * 201), ("no such", "x")]
    for conversation_id, title in bad:
        with pytest.raises(ChatError):
            await rename(store, conversation_id, title)
