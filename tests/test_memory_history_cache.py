from dataclasses import replace
from typing import Any

import pytest

from memory.history_cache import HistoryCache
from memory.messages import Message
from memory.store import Store
from runs.errors import ChatError
from runs.reply import ReplyPart
from tests.databases import ON_BOTH
from tests.stores import a_run, begin

pytestmark = ON_BOTH


async def ended(store: Store, text: str, **more: Any) -> Any:
    """Stores a turn with its reply; returns the user's message."""
    run = a_run()
    question, reply = await begin(store, run, text, **more)
    await store.end_turn(run, reply.__class__(reply.id, "assistant", f"on {text}", "whole", run.id), "{}")
    return question


async def before(histories: HistoryCache, message: Any) -> list[str]:
    return [m.text for m in (await histories.before("c", message)).messages]


async def test_cached_history_is_extended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    histories, read = HistoryCache(store), list[int | None]()
    history = store.history

    async def noted(conversation_id: str, latest: int | None = None, end: str | None = None) -> Any:
        read.append(latest)
        return await history(conversation_id, latest, end)

    monkeypatch.setattr(store, "history", noted)
    question = [await ended(store, str(n)) for n in range(4)]
    assert await before(histories, question[0]) == []
    assert await before(histories, question[1]) == ["0", "on 0"]
    assert await before(histories, question[2]) == ["0", "on 0", "1", "on 1"]
    assert await before(histories, question[3]) == ["0", "on 0", "1", "on 1", "2", "on 2"]
    assert read == [None, 4, 4]
    known = await histories.before("c", question[3])
    assert all(m.estimated and m.tokens for m in known.messages)


async def test_another_branch_is_read_again(store: Store) -> None:
    histories = HistoryCache(store)
    first, second, third = [await ended(store, str(n)) for n in range(3)]
    await before(histories, third)
    edited = await ended(store, "edited", edit_of=first.id)
    assert await before(histories, edited) == []
    assert await before(histories, await ended(store, "more")) == ["edited", "on edited"]
    assert await before(histories, third) == ["0", "on 0", "1", "on 1"]
    assert await before(histories, second) == ["0", "on 0"]


async def test_growing_reply_is_not_cached(store: Store) -> None:
    histories, run = HistoryCache(store), a_run()
    _, reply = await begin(store, run, "one")
    two, _ = await begin(store, a_run(), "two")  # as after a failed save
    assert await before(histories, two) == ["one", ""]
    await store.save_growing([reply.__class__(reply.id, "assistant", "grown")])
    assert await before(histories, two) == ["one", "grown"]


async def test_growing_reply_before_later_turns_is_not_cached(store: Store) -> None:
    histories, run = HistoryCache(store), a_run()
    _, reply = await begin(store, run, "one")
    question = [await ended(store, str(n)) for n in range(4)]
    assert (await before(histories, question[3]))[:2] == ["one", ""]
    await store.save_growing([reply.__class__(reply.id, "assistant", "grown")])
    assert (await before(histories, question[3]))[:2] == ["one", "grown"]


@pytest.mark.parametrize("bound", [{"most": 1300}, {"conversations": 2}])
async def test_least_recently_used_history_is_evicted(store: Store, bound: dict[str, int]) -> None:
    histories = HistoryCache(store, **bound)
    created = [await store.create("anna", [("user", "a"), ("assistant", "b")]) for _ in range(4)]
    for conversation_id in created:
        await histories.up_to(conversation_id, (await store.conversation(conversation_id, "anna")).head)
    assert list(histories._cache) == created[2:]
    histories.forget(created[3])
    assert list(histories._cache) == created[2:3]


async def test_deleted_history_is_not_found(store: Store) -> None:
    question = [await ended(store, str(n)) for n in range(2)]
    await store.delete("c")
    with pytest.raises(ChatError, match="deleted meanwhile"):
        await HistoryCache(store).before("c", question[1])


async def test_size_of_long_messages_counts(store: Store) -> None:
    histories = HistoryCache(store, most=500_000)
    for n in range(8):
        created = await store.create("anna", [("user", f"{n} " + "x" * 99_000), ("assistant", "b")])
        await histories.up_to(created, (await store.conversation(created, "anna")).head)
        assert sum(kept.characters for kept in histories._cache.values()) <= 500_000
    assert len(histories._cache) == 5


PART = ReplyPart("tool", "o" * 20_000, 0.0, 1.0, "t", {"i": "i" * 20_000}, "e" * 20_000)


async def talked(store: Store, parts: tuple[ReplyPart, ...] = ()) -> tuple[str, str]:
    """Creates a conversation of one turn; returns its id and its last message's."""
    created = await store.create("anna", [("user", "a")])
    run = a_run(conversation_id=created)
    _, reply = await begin(store, run, "b")
    await store.end_turn(run, replace(reply, text="c", standing="whole", parts=parts), "{}")
    return created, reply.id


async def test_size_of_parts_counts(store: Store) -> None:
    histories = HistoryCache(store, most=200_000)
    for _ in range(8):
        await histories.up_to(*await talked(store, (PART,)))
    assert len(histories._cache) == 3


async def test_size_of_counted_messages_counts(store: Store) -> None:
    histories = HistoryCache(store, most=100_000)
    created = [await talked(store) for _ in range(4)]
    for one in created:
        history = await histories.up_to(*one)
        history.counted_messages["a"] = {"result": Message("result", "tool", "x" * 40_000, parts=(PART,))}
    await histories.up_to(*created[-1])
    assert list(histories._cache) == [created[2][0], created[3][0]]


async def test_counted_messages_of_a_long_history_are_evicted_by_backend(store: Store) -> None:
    histories = HistoryCache(store, most=100_000)
    one = await talked(store)
    for name in "abcd":
        history = await histories.up_to(*one)
        history.counted_messages[name] = {"result": Message("result", "tool", "x" * 60_000)}
    assert list((await histories.up_to(*one)).counted_messages) == ["d"]
