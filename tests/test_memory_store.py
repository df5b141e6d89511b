import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from memory.messages import Message
from memory.options import TurnOptions
from memory.rows import message_of
from memory.store import Store
from runs.errors import ChatError
from runs.reply import ReplyPart
from tests.databases import ON_BOTH
from tests.stores import a_run, begin, texts

pytestmark = ON_BOTH


async def test_created_conversation_has_its_messages(store: Store) -> None:
    given: list[Any] = [("system", "Be kind."), ("user", "  Hi\nthere  "), ("assistant", "Hello"), ("tool", "12:00")]
    conversation_id = await store.create("anna", given)
    found = await store.conversation(conversation_id, "anna")
    assert (found.title, found.owner, found.backend) == ("Hi there", "anna", None)
    history = await store.history(conversation_id)
    assert [(m.role, m.text) for m in history] == given
    assert {m.standing for m in history} == {"whole"}
    assert await store.size(conversation_id) == 4
    assert await store.history(conversation_id, latest=2) == history[-2:]


async def test_messages_are_created_off_the_event_loop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation_id, run = await store.create("anna", [("user", "Hi")]), a_run()
    _, reply = await begin(store, run, "Hi")
    parts = (ReplyPart("tool", "2", 0.0, 1.0, "calculator", {"expression": "1 + 1"}),) * 600
    await store.end_turn(run, replace(reply, standing="whole", parts=parts), "{}")
    created: list[threading.Thread] = []

    def noted(row: Any) -> Message:
        created.append(threading.current_thread())
        return message_of(row)

    monkeypatch.setattr("memory.message_tree.message_of", noted)
    for found in (await store.history("c"), await store.history("c", latest=4), await store.tree("c")):
        assert [len(message.parts) for message in found] == [0, 600]
    assert len(await store.history(conversation_id, latest=4)) == 1
    assert len(created) == 7 and threading.main_thread() not in created


async def test_an_empty_conversation_can_be_created(store: Store) -> None:
    conversation_id = await store.create(None)
    assert await store.history(conversation_id) == []
    assert (await store.conversation(conversation_id, "anyone")).owner is None


async def test_a_conversation_is_not_found_by_others(store: Store) -> None:
    conversation_id = await store.create("anna")
    for other in ("ben", None):
        with pytest.raises(ChatError) as refused:
            await store.conversation(conversation_id, other)
        assert refused.value.code == "not_found"
    with pytest.raises(ChatError):
        await store.conversation("no such id", "anna")


async def test_a_turn_is_on_disk_before_its_run_starts(store: Store, reopened: Any) -> None:
    run = a_run()
    question, reply = await begin(store, run, "Hi")
    other = await reopened()
    found = await other.history("c")
    assert [m.text for m in found] == ["Hi", ""]
    assert found[0] == question
    assert found[1].run_id == reply.run_id == run.id
    assert (await other.conversation("c", "anna")).backend == "B"


async def test_a_reply_grows_and_ends_with_its_record(store: Store) -> None:
    run = a_run()
    _, reply = await begin(store, run, "Hi")
    thought, call = (
        ReplyPart("thinking", "Hm", 1.0, 2.0),
        ReplyPart("tool", "391", 2.0, None, "calculator", {"expression": "17*23"}),
    )
    grown = replace(reply, text="Hel", parts=(thought, call))
    await store.save_growing([grown])
    assert (await store.history("c"))[-1] == grown
    parts = (thought, replace(call, end=3.0, error="cancelled"))
    ended = replace(reply, text="Hello", standing="stopped", note="Stopped by you", parts=parts)
    await store.end_turn(run, ended, "one\ntwo")
    assert (await store.history("c"))[-1] == ended
    assert await store.record(run.id) == "one\ntwo"
    with pytest.raises(ChatError):
        await store.record("no such run")


async def test_edited_message_begins_a_branch(store: Store) -> None:
    first, reply = await begin(store, a_run(), "one")
    second, _ = await begin(store, a_run(), "two")
    await begin(store, a_run(), "three")
    edited, _ = await begin(store, a_run(), "two again", edit_of=second.id)
    assert await texts(store) == ["one", "", "two again", ""]
    assert (first.parent_id, second.parent_id, edited.parent_id) == (None, reply.id, reply.id)
    assert len(await store.tree("c")) == 8
    siblings = await store.siblings("c", [None, reply.id, second.id])
    assert siblings[None] == [first.id]
    assert siblings[reply.id] == [second.id, edited.id]
    assert len(siblings[second.id]) == 1
    with pytest.raises(ChatError) as refused:
        await begin(store, a_run(), "lost", edit_of="no such message")
    assert refused.value.code == "not_found"
    other = await store.create("anna", [("user", "elsewhere")])
    with pytest.raises(ChatError):
        await begin(store, a_run(other), "taken", edit_of=first.id)
    assert await texts(store) == ["one", "", "two again", ""]
    assert await texts(store, other) == ["elsewhere"]


async def test_regenerated_reply_begins_a_branch(store: Store) -> None:
    first, reply = await begin(store, a_run(), "one")
    await begin(store, a_run(), "two")
    question, other = await begin(store, a_run(), "not read", regenerate=first.id)
    assert (question, other.parent_id) == (first, first.id)
    assert [m.id for m in await store.history("c")] == [first.id, other.id]
    assert await store.size("c") == 2
    assert (await store.siblings("c", [first.id]))[first.id] == [reply.id, other.id]


async def test_switching_leads_to_the_newest_end_of_a_branch(store: Store) -> None:
    first, reply = await begin(store, a_run(), "one")
    _, second = await begin(store, a_run(), "two")
    await begin(store, a_run(), "one again", edit_of=first.id)
    await store.switch_branch("c", first.id)
    assert await texts(store) == ["one", "", "two", ""]
    assert (await store.conversation("c", "anna")).head == second.id
    assert [m.id for m in await store.history("c", end=reply.id)] == [first.id, reply.id]
    assert [m.id for m in await store.history("c", latest=1, end=reply.id)] == [reply.id]
    with pytest.raises(ChatError):
        await store.switch_branch("c", "no such message")
    with pytest.raises(ChatError):
        await store.switch_branch(await store.create("anna"), first.id)


async def test_rewinding_keeps_the_messages(store: Store) -> None:
    first, _ = await begin(store, a_run(), "one")
    second, _ = await begin(store, a_run(), "two")
    await store.rewind("c", second.id)
    assert await texts(store) == ["one", ""]
    await store.rewind("c", first.id)
    assert (await texts(store), await store.size("c")) == ([], 0)
    third, _ = await begin(store, a_run(), "three")
    assert third.parent_id is None
    assert (await store.siblings("c", [None]))[None] == [first.id, third.id]
    assert len(await store.tree("c")) == 6


async def test_delete_removes_one_conversation(store: Store) -> None:
    run = a_run()
    _, reply = await begin(store, run, "one")
    await store.end_turn(run, replace(reply, standing="whole"), "record")
    kept = await store.create("anna", [("user", "kept")])
    await store.delete("c")
    with pytest.raises(ChatError):
        await store.conversation("c", "anna")
    with pytest.raises(ChatError):
        await store.record(run.id)
    assert await texts(store) == []
    assert await texts(store, kept) == ["kept"]


async def test_run_that_ends_after_its_conversation_was_deleted_stores_nothing(store: Store) -> None:
    run = a_run()
    _, reply = await begin(store, run, "one")
    await store.delete("c")
    await store.end_turn(run, reply, "record")
    with pytest.raises(ChatError):
        await store.record(run.id)


async def test_growing_reply_of_a_dead_process_is_interrupted(store: Store, reopened: Any) -> None:
    _, reply = await begin(store, a_run(), "Hi")
    await store.save_growing([replace(reply, text="Hel")])
    last: Message = (await (await reopened()).history("c"))[-1]
    assert (last.text, last.standing) == ("Hel", "interrupted")


async def test_conversation_keeps_the_options_of_its_latest_turn(store: Store) -> None:
    assert (await store.conversation(await store.create("anna"), "anna")).options == TurnOptions()
    for options in (
        TurnOptions(system_prompt="Be kind.", temperature=0.0, max_tokens=1),
        TurnOptions(temperature=1.5, thinking=False),
        TurnOptions(system_prompt="", thinking=True),
    ):
        await begin(store, a_run(), "Hi", options=options)
        assert (await store.conversation("c", "anna")).options == options


async def test_concurrent_turns_are_all_stored(store: Store) -> None:
    created = [await store.create(None) for _ in range(3)]
    await asyncio.gather(*(store.begin_turn(a_run(created[n % 3]), str(n)) for n in range(12)))
    for conversation_id in created:
        found = await store.history(conversation_id)
        assert len(found) == 8
        assert [m.role for m in found] == ["user", "assistant"] * 4


async def test_second_creator_of_a_conversation_is_asked_to_retry(store: Store) -> None:
    turns = [store.begin_turn(a_run("new"), text, earlier=[("user", "Hi"), ("assistant", "Hello")]) for text in "ab"]
    done = await asyncio.gather(*turns, return_exceptions=True)
    refused = [one for one in done if isinstance(one, ChatError)]
    assert [(one.code, one.retryable) for one in refused] == [("busy", True)]
    assert len(await store.history("new")) == 4


async def test_turn_does_not_restore_a_deleted_conversation(store: Store) -> None:
    conversation_id = await store.create(None)
    await store.delete(conversation_id)
    with pytest.raises(ChatError) as refused:
        await store.begin_turn(a_run(conversation_id), "Hi")
    assert refused.value.code == "not_found"
    assert await store.size(conversation_id) == 0


async def test_idle_conversations_are_deleted_except_spared_ones(store: Store) -> None:
    created = [await store.create("anna", [("user", str(n))]) for n in range(3)]
    used = (await store.conversation(created[1], "anna")).updated
    assert await store.delete_idle(used, [created[0]]) == []
    assert len(await store.delete_idle(used + 60, created[:1])) == 2
    assert await texts(store, created[0]) == ["0"]
    with pytest.raises(ChatError):
        await store.conversation(created[2], "anna")
