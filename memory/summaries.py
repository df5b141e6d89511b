"""Summaries in the database: each covers a branch up to one message."""

import time
from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from memory.messages import Message, Summary
from memory.rows import storable
from memory.store import Store
from memory.tables import conversations, summaries


async def newest_summary(store: Store, conversation_id: str, history: Sequence[Message]) -> Summary | None:
    """The summary that covers most of this history, which is one branch."""
    async with store.reading() as db:
        wanted = select(summaries).where(summaries.c.conversation_id == conversation_id)
        found = {row.message_id: row for row in (await db.execute(wanted)).all()}
    last = next((message.id for message in reversed(history) if message.id in found), None) if found else None
    return Summary(last, found[last].text, found[last].backend) if last else None


async def save_summary(store: Store, conversation_id: str, summary: Summary) -> None:
    """Saves a summary, replacing one up to the same message. A deleted conversation gets none."""
    row = {
        "message_id": summary.message_id,
        "conversation_id": conversation_id,
        "text": storable(summary.text),
        "backend": summary.backend,
        "created": time.time(),
    }
    async with store.writing() as db:
        await db.execute(delete(summaries).where(summaries.c.message_id == summary.message_id))
        if (await db.execute(select(conversations.c.id).where(conversations.c.id == conversation_id))).first():
            await db.execute(insert(summaries).values(row))
