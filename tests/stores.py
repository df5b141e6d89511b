"""Helpers for tests of the store."""

from pathlib import Path
from typing import Any

from memory.messages import Message
from memory.store import Store
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun
from settings import Settings


def a_run(conversation_id: str = "c", owner: str | None = "anna") -> LiveRun:
    return LiveRun(conversation_id=conversation_id, backend="B", memory="full", owner=owner, lifetime=Lifetime())


def database(settings: Settings) -> Path:
    return Path(settings.database_url.removeprefix("sqlite:///"))


async def texts(store: Store, conversation_id: str = "c") -> list[str]:
    return [m.text for m in await store.history(conversation_id)]


async def begin(store: Store, run: LiveRun, text: str, **more: Any) -> tuple[Message, Message]:
    """Begins a turn; the first one creates the conversation."""
    try:
        await store.conversation(run.conversation_id, run.owner)
    except ChatError as e:
        more |= {"earlier": [] if e.code == "not_found" else None}
    return await store.begin_turn(run, text, **more)
