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
    """A turn with its reply; returns the user's message."""
    run = a_run()
    asked, reply = await begin(store, run, text, **more)
    await store.end_turn(run, reply.__class__(reply.id, "assistant", f"on {text}", "whole", run.id), "{}")
    return asked


async def before(histories: HistoryCache, message: Any) -> list[str]:
    return [m.text for m in (await histories.before("c", message)).messages]


async def test_a_history_goes_on_from_where_it_was_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    histories, read = HistoryCache(store), list[int | None]()
    history = store.history

    async def told(conversation_id: str, latest: int | None = None, end: str | None = None) -> Any:
        read.append(latest)
        return await history(conversation_id, latest, end)

    monkeypatch.setattr(store, "history", told)
    asked = [await ended(store, str(n)) for n in range(4)]
    assert await before(histories, asked[0]) == []
    assert await before(histories, asked[1]) == ["0", "on 0"]
    assert await before(histories, asked[2]) == ["0", "on 0", "1", "on 1"]
    assert await before(histories, asked[3]) == ["0", "on 0", "1", "on 1", "2", "on 2"]
    assert read == [None, 4, 4]
    known = await histories.before("c", asked[3])
    assert all(m.estimated and m.tokens for m in known.messages)


async def test_another_branch_is_read_anew(store: Store) -> None:
    histories = HistoryCache(store)
    first, second, third = [await ended(store, str(n)) for n in range(3)]
    await before(histories, third)
    edited = await ended(store, "edited", edit_of=first.id)
    assert await before(histories, edited) == []
    assert await before(histories, await ended(store, "more")) == ["edited", "on edited"]
    assert await before(histories, third) == ["0", "on 0", "1", "on 1"]
    assert await before(histories, second) == ["0", "on 0"]


async def test_what_still_grows_is_not_kept(store: Store) -> None:
    histories, run = HistoryCache(store), a_run()
    _, reply = await begin(store, run, "one")
    two, _ = await begin(store, a_run(), "two")  # as after a reply that could not be saved
    assert await before(histories, two) == ["one", ""]
    await store.save_growing([reply.__class__(reply.id, "assistant", "grown")])
    assert await before(histories, two) == ["one", "grown"]


async def test_what_still_grows_below_later_turns_is_not_kept(store: Store) -> None:
    histories, run = HistoryCache(store), a_run()
    _, reply = await begin(store, run, "one")
    asked = [await ended(store, str(n)) for n in range(4)]
    assert (await before(histories, asked[3]))[:2] == ["one", ""]
    await store.save_growing([reply.__class__(reply.id, "assistant", "grown")])
    assert (await before(histories, asked[3]))[:2] == ["one", "grown"]


@pytest.mark.parametrize("bound", [{"most": 1300}, {"conversations": 2}])
async def test_the_least_used_go_first(store: Store, bound: dict[str, int]) -> None:
    histories = HistoryCache(store, **bound)
    made = [await store.create("anna", [("user", "a"), ("assistant", "b")]) for _ in range(4)]
    for conversation_id in made:
        await histories.up_to(conversation_id, (await store.conversation(conversation_id, "anna")).head)
    assert list(histories._kept) == made[2:]
    histories.forget(made[3])
    assert list(histories._kept) == made[2:3]


async def test_a_history_that_has_gone_is_not_found(store: Store) -> None:
    asked = [await ended(store, str(n)) for n in range(2)]
    await store.delete("c")
    with pytest.raises(ChatError, match="deleted meanwhile"):
        await HistoryCache(store).before("c", asked[1])


async def test_long_messages_count_by_their_characters(store: Store) -> None:
    histories = HistoryCache(store, most=500_000)
    for n in range(8):
        made = await store.create("anna", [("user", f"{n} " + "x" * 99_000), ("assistant", "b")])
        await histories.up_to(made, (await store.conversation(made, "anna")).head)
        assert sum(kept.characters for kept in histories._kept.values()) <= 500_000
    assert len(histories._kept) == 5


PART = ReplyPart("tool", "o" * 20_000, 0.0, 1.0, "t", {"i": "i" * 20_000}, "e" * 20_000)


async def talked(store: Store, parts: tuple[ReplyPart, ...] = ()) -> tuple[str, str]:
    """A new conversation of one turn; its id and its last message's."""
    made = await store.create("anna", [("user", "a")])
    run = a_run(conversation_id=made)
    _, reply = await begin(store, run, "b")
    await store.end_turn(run, replace(reply, text="c", standing="whole", parts=parts), "{}")
    return made, reply.id


async def test_parts_count_with_their_texts_inputs_and_errors(store: Store) -> None:
    histories = HistoryCache(store, most=200_000)
    for _ in range(8):
        await histories.up_to(*await talked(store, (PART,)))
    assert len(histories._kept) == 3


async def test_what_backends_have_read_counts_too(store: Store) -> None:
    histories = HistoryCache(store, most=100_000)
    made = [await talked(store) for _ in range(4)]
    for one in made:
        history = await histories.up_to(*one)
        history.counted_messages["a"] = {"result": Message("result", "tool", "x" * 40_000, parts=(PART,))}
    await histories.up_to(*made[-1])
    assert list(histories._kept) == [made[2][0], made[3][0]]


async def test_of_one_long_history_what_few_backends_have_read_is_kept(store: Store) -> None:
    histories = HistoryCache(store, most=100_000)
    one = await talked(store)
    for name in "abcd":
        history = await histories.up_to(*one)
        history.counted_messages[name] = {"result": Message("result", "tool", "x" * 60_000)}
    assert list((await histories.up_to(*one)).counted_messages) == ["d"]
