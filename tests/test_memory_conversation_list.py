from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from memory.conversation_list import ListedConversation, find_conversations, fold_older_texts, set_title
from memory.folded_text import fold_text
from memory.store import Store
from memory.tables import conversations, messages
from runs.errors import ChatError
from tests.databases import ON_BOTH
from tests.scripts import HELD, UNLIKE
from tests.stores import a_run, begin

pytestmark = ON_BOTH


async def created(store: Store, count: int, owner: str = "anna") -> list[str]:
    """Ids of new conversations, the newest first; some have the same time."""
    ids = [await store.create(owner, [("user", f"Title {n}"), ("assistant", f"reply {n}")]) for n in range(count)]
    async with store.writing() as db:
        for n, conversation_id in enumerate(ids):
            this = update(conversations).where(conversations.c.id == conversation_id)
            await db.execute(this.values(updated=1000.1 + n // 3))
    return sorted(ids, key=lambda one: (ids.index(one) // 3, one), reverse=True)


def ids(found: Sequence[ListedConversation]) -> list[str]:
    return [one.id for one in found]


async def test_pages_list_every_conversation_once_newest_first(store: Store) -> None:
    there = await created(store, 10)
    await created(store, 2, owner="ben")
    seen, cursor = list[str](), None
    for _ in range(4):
        found, cursor = await find_conversations(store, "anna", limit=3, before=cursor)
        seen += ids(found)
    assert (seen, cursor) == (there, None)
    assert await find_conversations(store, "nobody") == ([], None)


async def test_titles_and_messages_are_searched_as_text(store: Store) -> None:
    whale = await store.create("anna", [("user", "Hi"), ("assistant", f"{'x ' * 60}A WHALE_%\\ sings{' y' * 60}")])
    titled = await store.create("anna", [("user", "whale")])
    await store.create("ben", [("user", "whale")])
    await store.create("anna", [("user", "100 ships")])
    found, _ = await find_conversations(store, "anna", "whale")
    assert set(ids(found)) == {whale, titled}
    (one,) = (await find_conversations(store, "anna", "e_%\\ s"))[0]
    assert one.id == whale
    assert one.found and one.found.startswith("…") and "A WHALE_%\\ sings" in one.found and len(one.found) < 140
    for nothing in ("no such word", "1_0", "%%"):
        assert (await find_conversations(store, "anna", nothing))[0] == []
    assert ids((await find_conversations(store, "anna", "%"))[0]) == [whale]
    assert len((await find_conversations(store, "anna", "  "))[0]) == 3
    assert (await find_conversations(store, "anna", "a\x00b"))[0] == []


async def test_search_ignores_case_in_any_script(store: Store) -> None:
    hello = "\u041f\u0420\u0418\u0412\u0415\u0422, \u00c5SE"
    there = await store.create("anna", [("user", "x"), ("assistant", "\u0130" * 80 + hello)])
    for search in hello.lower().split(", "):
        (one,) = (await find_conversations(store, "anna", search))[0]
        assert one.id == there and one.found and one.found.startswith("\u2026") and one.found.endswith(hello)


async def test_matches_in_every_script_are_marked(store: Store) -> None:
    for text, word in HELD.values():
        this = await store.create("anna", [("user", "x"), ("assistant", f"{'y ' * 90}{text}\n\n{'z ' * 90}")])
        (one,) = (await find_conversations(store, "anna", word))[0]
        assert one.id == this and one.found and one.mark
        assert fold_text(one.found[slice(*one.mark)]) == fold_text(word)
        await store.delete(this)
        titled = await store.create("anna", [("user", text)])
        await set_title(store, titled, text)
        assert ids((await find_conversations(store, "anna", word))[0]) == [titled]
        await store.delete(titled)


async def test_similar_words_do_not_match(store: Store) -> None:
    for text, word in UNLIKE.values():
        await store.create("anna", [("user", text)])
        assert (await find_conversations(store, "anna", word))[0] == []


async def test_growing_and_ended_replies_are_found(store: Store) -> None:
    run = a_run()
    _, reply = await begin(store, run, "hello")
    await store.save_growing([replace(reply, text="the cafe\u0301 half")])
    assert len((await find_conversations(store, "anna", "half"))[0]) == 1
    await store.end_turn(run, replace(reply, text="the cafe\u0301 whole", standing="whole"), "record")
    assert len((await find_conversations(store, "anna", "CAFÉ WHOLE"))[0]) == 1
    assert len((await find_conversations(store, "anna", "half"))[0]) == 0


async def test_texts_of_an_earlier_version_are_found_before_and_after_folding(store: Store) -> None:
    there = [await store.create("anna", [("user", f"Title {n}"), ("user", "Le cafe\u0301 là-bas")]) for n in range(250)]
    async with store.writing() as db:
        await db.execute(update(messages).values(folded=None))
        await db.execute(update(conversations).values(folded=None))
    assert len((await find_conversations(store, "anna", "LE CAFE", 100))[0]) == 100
    assert (await find_conversations(store, "anna", "café la-bas"))[0] == []
    await fold_older_texts(store)
    assert len((await find_conversations(store, "anna", "café la-bas", 100))[0]) == 100
    assert ids((await find_conversations(store, "anna", "title 249"))[0]) == [there[-1]]


@pytest.mark.parametrize("cursor", ["x", "_", "1.0.0_x", "nan", "'; --"])
async def test_invalid_cursor_is_rejected(store: Store, cursor: str) -> None:
    if cursor == "nan":
        assert await find_conversations(store, "anna", before="nan_x") == ([], None)
        return
    with pytest.raises(ChatError, match="not a cursor"):
        await find_conversations(store, "anna", before=cursor)


async def test_a_title_is_changed(store: Store) -> None:
    (this,) = await created(store, 1)
    assert await set_title(store, this, " A\x00 \n new  title ") == "A\u2400 new title"
    assert (await store.conversation(this, "anna")).title == "A\u2400 new title"
    bad: list[Any] = [(this, " \n"), (this, "x" * 201), ("no such", "x")]
    for conversation_id, title in bad:
        with pytest.raises(ChatError):
            await set_title(store, conversation_id, title)
