"""A visitor's conversations as a list: the newest first, found by what is in them, renamed.

A search compares folded texts (`memory/folded_text.py`): any part of a text, in any script, however it is written.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Row, Table, and_, bindparam, or_, select, update

from memory.folded_text import find_folded, fold_text
from memory.rows import storable
from memory.store import NOT_FOUND, Store
from memory.tables import conversations, messages
from runs.errors import ChatError
from runs.text import clean_text
from runs.threads import Threads

_MOST, _TITLE = 100, 200
_FOLDED_AT_ONCE = 100
_THREADS = Threads("lists", 2)
_PIECE, _LONGEST = 100_000, 2000
"""Characters of a text that are folded at once, and more than what is searched can have in it."""
_AROUND = 60
"""Characters that a snippet has on each side of what was found."""


@dataclass(frozen=True, slots=True)
class ListedConversation:
    id: str
    title: str
    updated: float
    """Epoch seconds."""
    backend: str | None
    memory: str | None
    found: str | None = None
    """A part of its newest message that has what was searched."""
    mark: tuple[int, int] | None = None
    """Where in `found` it is: start and end in characters."""


async def find_conversations(
    store: Store, owner: str, search: str = "", limit: int = 50, before: str | None = None
) -> tuple[list[ListedConversation], str | None]:
    """The owner's conversations, the newest first, and a cursor for those that follow, which `before` takes.

    With a `search`, those that have this text in their title or in a message. Raises ChatError for a cursor that is
    none.
    """
    wanted, search = select(conversations).where(conversations.c.owner == owner), storable(search.strip())
    if before:
        updated, last = _cursor(before)
        older = and_(conversations.c.updated == updated, conversations.c.id < last)
        wanted = wanted.where(or_(conversations.c.updated < updated, older))
    if folded := fold_text(search).strip():
        here = messages.c.conversation_id == conversations.c.id, _has(messages, messages.c.text, folded, search)
        newest = select(messages.c.text).where(*here).order_by(messages.c.created.desc(), messages.c.place.desc())
        wanted = wanted.add_columns(newest.limit(1).scalar_subquery().label("found"))
        told = _has(conversations, conversations.c.title, folded, search)
        wanted = wanted.where(or_(told, select(messages.c.id).where(*here).exists()))
    most = min(limit, _MOST)
    ordered = wanted.order_by(conversations.c.updated.desc(), conversations.c.id.desc()).limit(most + 1)
    async with store.reading() as db:
        rows = (await db.execute(ordered)).all()
    found = await _THREADS.run(_as_listed, rows[:most], folded)
    return found, f"{found[-1].updated!r}_{found[-1].id}" if len(rows) > most else None


def _has(table: Table, text: Column[Any], folded: str, search: str) -> ColumnElement[bool]:
    """Whether a text has what is searched; one that is not folded yet is compared as it is."""
    unfolded = and_(table.c.folded.is_(None), text.icontains(search, autoescape=True))
    return or_(table.c.folded.contains(folded, autoescape=True), unfolded)


def _as_listed(rows: Sequence[Row[Any]], folded: str) -> list[ListedConversation]:
    """Takes longer for long messages: so it runs in a thread."""
    listed = []
    for row in rows:
        found, mark = _snippet(row.found, folded) if folded and row.found else (None, None)
        listed.append(ListedConversation(row.id, row.title, row.updated, row.backend, row.memory, found, mark))
    return listed


async def fold_older_texts(store: Store) -> None:
    """Folds the titles and messages that an earlier version has written, a few at a time, so that nothing waits for it.

    A reply that is growing is folded when it ends. Raises ChatError.
    """
    for table, text in ((conversations, conversations.c.title), (messages, messages.c.text)):
        last: str | None = ""
        while last is not None:
            last = await _fold_some(store, table, text, last)


async def _fold_some(store: Store, table: Table, text: Column[Any], last: str) -> str | None:
    """Folds the next ones after the id `last`; returns the last of them, None if there are none."""
    wanted = select(table.c.id, text).where(table.c.id > last, table.c.folded.is_(None))
    if table is messages:
        wanted = wanted.where(messages.c.standing != "growing")
    async with store.reading() as db:
        rows = (await db.execute(wanted.order_by(table.c.id).limit(_FOLDED_AT_ONCE))).all()
    if not rows:
        return None
    folded = await _THREADS.run(lambda: [{"this": row[0], "now": fold_text(row[1])} for row in rows])
    change = update(table).where(table.c.id == bindparam("this"), table.c.folded.is_(None))
    async with store.writing() as db:
        await db.execute(change.values(folded=bindparam("now")), folded)
    return str(rows[-1][0])


async def set_title(store: Store, conversation_id: str, title: str) -> str:
    """Gives a conversation this title; returns it as it is kept. Raises ChatError."""
    kept = " ".join(clean_text(title).split())
    if not kept:
        raise ChatError("invalid_request", "The title is empty: write something first.")
    if len(kept) > _TITLE:
        raise ChatError("too_large", f"The title is too long: at most {_TITLE} characters can be kept.")
    this = update(conversations).where(conversations.c.id == conversation_id)
    async with store.writing() as db:
        if not (await db.execute(this.values(title=kept, folded=fold_text(kept)))).rowcount:
            raise ChatError("not_found", NOT_FOUND)
    return kept


def _cursor(text: str) -> tuple[float, str]:
    updated, _, last = text.partition("_")
    try:
        return float(updated), storable(last)
    except ValueError:
        raise ChatError("invalid_request", "before: this is no cursor that was given here.") from None


def _snippet(text: str, folded: str) -> tuple[str, tuple[int, int] | None]:
    """What stands around the first place of the search, in one line, and where it is in that."""
    start, end = _found_in(text, folded)
    first, last = max(0, start - _AROUND), end + _AROUND
    before = ("\u2026" if first else "") + _in_one_line(text[first:start]).lstrip()
    found = _in_one_line(text[start:end])
    after = _in_one_line(text[end:last]).rstrip() + ("\u2026" if last < len(text) else "")
    return before + found + after, (len(before), len(before + found)) if end else None


def _found_in(text: str, folded: str) -> tuple[int, int]:
    """Start and end of the first place, looked for in one piece of the text after another; (0, 0) for none."""
    for first in range(0, len(text), _PIECE):
        if place := find_folded(text[first : first + _PIECE + _LONGEST], folded):
            return first + place[0], first + place[1]
    return 0, 0


def _in_one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
