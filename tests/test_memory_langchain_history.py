import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends
from memory.langchain_history import ConversationHistory, Mirror, import_history
from memory.messages import Message
from memory.store import Store
from runs.registry import RunRegistry
from settings import MemorySettings, Settings
from tests.conftest import until
from tests.databases import ON_BOTH
from tests.stores import a_run, begin, texts

pytestmark = [ON_BOTH, pytest.mark.filterwarnings("ignore:.*langchain-community.*:DeprecationWarning")]


async def test_a_conversation_is_a_message_history(store: Store) -> None:
    conversation_id = await store.create("anna", [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")])
    history = ConversationHistory(store, conversation_id)
    await history.aadd_messages([HumanMessage("More"), AIMessage("Yes"), ToolMessage("12:00", tool_call_id="t")])
    found = await history.aget_messages()
    assert [(m.type, m.text) for m in found] == [
        ("system", "Be kind."),
        ("human", "Hi"),
        ("ai", "Hello"),
        ("human", "More"),
        ("ai", "Yes"),
        ("tool", "12:00"),
    ]
    with pytest.raises(ValueError, match="allowed: human, ai, system, tool"):
        await history.aadd_messages([ChatMessage("x", role="critic")])
    assert len(await history.aget_messages()) == 6
    await history.aclear()
    assert await history.aget_messages() == []
    await history.aadd_messages([HumanMessage("Anew")])
    assert [m.text for m in await history.aget_messages()] == ["Anew"]
    assert len(await store.tree(conversation_id)) == 7


async def test_other_threads_may_use_it_synchronously(store: Store) -> None:
    history = ConversationHistory(store, await store.create("anna"))

    def use() -> list[Any]:
        history.add_messages([SystemMessage("s"), HumanMessage("h")])
        found = history.messages
        history.clear()
        return [*found, len(history.messages)]

    system, human, left = await asyncio.to_thread(use)
    assert (system.text, human.text, left) == ("s", "h", 0)
    with pytest.raises(RuntimeError, match="aget_messages"):
        _ = history.messages


async def test_incomplete_reply_has_its_standing(store: Store) -> None:
    _, reply = await begin(store, a_run(), "Hi")
    await store.save_growing([replace(reply, text="Hel")])
    found = (await ConversationHistory(store, "c").aget_messages())[-1]
    assert (found.text, found.additional_kwargs) == ("Hel", {"standing": "growing"})


@pytest.mark.parametrize("kind", ["file", "sql"])
async def test_histories_of_langchain_community_are_imported(store: Store, tmp_path: Path, kind: str) -> None:
    from langchain_community.chat_message_histories import FileChatMessageHistory, SQLChatMessageHistory

    if kind == "file":
        source: Any = FileChatMessageHistory(str(tmp_path / "old.json"))
    else:
        source = SQLChatMessageHistory("old", connection=f"sqlite:///{tmp_path / 'old.db'}")
    source.add_messages([HumanMessage("Ahoj \U0001f40b"), AIMessage("A\x00ha")])
    conversation_id = await import_history(store, source, "anna")
    assert await texts(store, conversation_id) == ["Ahoj \U0001f40b", "A\u2400ha"]
    assert (await store.conversation(conversation_id, "anna")).title == "Ahoj \U0001f40b"


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (
            "langchain_community.chat_message_histories:FileChatMessageHistory",
            {"file_path": "{folder}/{conversation_id}"},
        ),
        (
            "langchain_community.chat_message_histories:SQLChatMessageHistory",
            {"session_id": "{conversation_id}", "connection": "sqlite:///{folder}/mirror.db"},
        ),
    ],
)
async def test_finished_turns_are_mirrored(
    store: Store, settings: Settings, tmp_path: Path, path: str, options: dict[str, str]
) -> None:
    options = {name: value.replace("{folder}", str(tmp_path)) for name, value in options.items()}
    memory = MemorySettings(mirror=path, mirror_options=options)
    turns = Turns(settings.model_copy(update={"memory": memory}), Backends(settings.backends), store, RunRegistry())
    run = await turns.start(TurnRequest("one", "anna"))
    await until(lambda: run.ended)
    first = (await store.history(run.conversation_id))[0]
    again = await turns.start(TurnRequest("", "anna", run.conversation_id, regenerate=first.id))
    while not (again.task and again.task.done()):  # noqa: ASYNC110 - closes before the callbacks of the task are called
        await asyncio.sleep(0)
    await turns.close()
    mirror = Mirror(path, options)
    history = mirror._class(**{k: v.replace("{conversation_id}", run.conversation_id) for k, v in options.items()})
    assert [(m.type, m.text) for m in history.messages] == [("human", "one"), ("ai", run.text), ("ai", again.text)]


async def test_concurrent_turns_are_all_mirrored_in_order(database_url: str, tmp_path: Path) -> None:
    path = "langchain_community.chat_message_histories:FileChatMessageHistory"
    mirror = Mirror(path, {"file_path": str(tmp_path / "mirror.json")})
    messages = [Message(str(n), "user", f"message {n}") for n in range(40)]
    await asyncio.gather(*(mirror.write("c", [one]) for one in messages))
    history = mirror._class(file_path=str(tmp_path / "mirror.json"))
    assert [m.text for m in history.messages] == [one.text for one in messages]


async def test_failing_mirror_is_harmless(store: Store, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    path = "langchain_community.chat_message_histories:FileChatMessageHistory"
    memory = MemorySettings(mirror=path, mirror_options={"file_path": "/proc/no/such/folder/x.json"})
    turns = Turns(settings.model_copy(update={"memory": memory}), Backends(settings.backends), store, RunRegistry())
    run = await turns.start(TurnRequest("one", "anna"))
    await until(lambda: run.task and run.task.done())
    await turns.close()
    assert run.state.phase == "complete"
    assert "the mirror of a conversation" in caplog.text


@pytest.mark.parametrize(
    "path", ["no_such:Thing", "json:loads", "memory.langchain_history", "memory.langchain_history:Mirror"]
)
def test_invalid_mirror_is_rejected(database_url: str, path: str) -> None:
    with pytest.raises(ValueError, match=path.partition(":")[0]):
        Mirror(path, {})
