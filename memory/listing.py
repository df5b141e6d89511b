"""A visitor's conversations as a list: the newest first, found by words, renamed."""

import re
from dataclasses import dataclass

from sqlalchemy import and_, or_, select, update

from memory.rows import storable
from memory.store import NOT_FOUND, Store
from memory.tables import conversations, messages
from memory.text import clean
from runs.errors import ChatError

_MOST, _TITLE = 100, 200
_AROUND = 60
"""Characters that a snippet has on each side of what was found."""


@dataclass(frozen=True, slots=True)
class Listed:
    id: str
    title: str
    updated: float
    """Epoch seconds."""
    backend: str | None
    memory: str | None
    found: str | None = None
    """A part of its newest message that has what was searched."""


async def listed(
    store: Store, owner: str, search: str = "", limit: int = 50, before: str | None = None
) -> tuple[list[Listed], str | None]:
    """The owner's conversations, the newest first, and a cursor for those that follow, which `before` takes.

    With a `search`, those that have this text in their title or in a message. Raises ChatError for a cursor that is
    none.
    """
    wanted, search = select(conversations).where(conversations.c.owner == owner), storable(search.strip())
    if before:
        updated, last = _cursor(before)
        older = and_(conversations.c.updated == updated, conversations.c.id < last)
        wanted = wanted.where(or_(conversations.c.updated < updated, older))
    if search:
        here = messages.c.conversation_id == conversations.c.id, messages.c.text.icontains(search, autoescape=True)
        newest = select(messages.c.text).where(*here).order_by(messages.c.created.desc(), messages.c.place.desc())
        wanted = wanted.add_columns(newest.limit(1).scalar_subquery().label("found"))
        told = conversations.c.title.icontains(search, autoescape=True)
        wanted = wanted.where(or_(told, select(messages.c.id).where(*here).exists()))
    most = min(limit, _MOST)
    ordered = wanted.order_by(conversations.c.updated.desc(), conversations.c.id.desc()).limit(most + 1)
    async with store.reading() as db:
        rows = (await db.execute(ordered)).all()
    found = [
        Listed(
            row.id,
            row.title,
            row.updated,
            row.backend,
            row.memory,
            _snippet(row.found, search) if search and row.found else None,
        )
        for row in rows[:most]
    ]
    return found, f"{found[-1].updated!r}_{found[-1].id}" if len(rows) > most else None


async def rename(store: Store, conversation_id: str, title: str) -> str:
    """Gives a conversation this title; returns it as it is kept. Raises ChatError."""
    kept = " ".join(clean(title).split())
    if not kept:
        raise ChatError("invalid_request", "The title is empty: write something first.")
    if len(kept) > _TITLE:
        raise ChatError("too_large", f"The title is too long: at most {_TITLE} characters can be kept.")
    this = update(conversations).where(conversations.c.id == conversation_id)
    async with store.writing() as db:
        if not (await db.execute(this.values(title=kept))).rowcount:
            raise ChatError("not_found", NOT_FOUND)
    return kept


def _cursor(text: str) -> tuple[float, str]:
    updated, _, last = text.partition("_")
    try:
        return float(updated), storable(last)
    except ValueError:
        raise ChatError("invalid_request", "before: this is no cursor that was given here.") from None


def _snippet(text: str, search: str) -> str:
    """What stands around the first place of the search, in one line."""
    found = re.search(re.escape(search), text, re.IGNORECASE)
    at = found.start() if found else 0
    first, last = max(0, at - _AROUND), at + len(search) + _AROUND
    cut = " ".join(text[first:last].split())
    return f"{'…' if first else ''}{cut}{'…' if last < len(text) else ''}"
