"""The list of a visitor's conversations: newest first, searched in titles and messages; and their titles.

A search compares folded texts (`memory/folded_text.py`): any part of a text, in any script and spelling.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Row, Table, and_, bindparam, or_, select, update

from memory.folded_text import find_folded, fold_text
from memory.rows import storable
from memory.store import Store
from memory.stored_conversations import NOT_FOUND
from memory.tables import conversations, messages
from runs.errors import ChatError
from runs.text import clean_text
from runs.threads import Threads

_MOST_LISTED, _LONGEST_TITLE = 100, 200
_BATCH = 100
"""Texts that are folded at once."""
_THREADS = Threads("lists", 2)
_SECTION, _OVERLAP = 100_000, 2000
"""Characters of a text that are searched at once, and more than a search can have."""
_MARGIN = 60
"""Characters of a snippet on each side of the match."""


@dataclass(frozen=True, slots=True)
class ListedConversation:
    """One entry of the list."""

    id: str
    title: str
    updated: float
    """Epoch seconds."""
    backend: str | None
    memory: str | None
    found: str | None = None
    """A snippet of the newest message that matches the search."""
    mark: tuple[int, int] | None = None
    """Start and end of the match in `found`."""


async def find_conversations(
    store: Store, owner: str, search: str = "", limit: int = 50, before: str | None = None
) -> tuple[list[ListedConversation], str | None]:
    """One page of the owner's conversations, the newest first, and the cursor of the next page, for `before`.

    With a `search`, those with this text in their title or in a message. Raises ChatError for an invalid cursor.
    """
    wanted, search = select(conversations).where(conversations.c.owner == owner), storable(search.strip())
    if before:
        updated, last = _cursor(before)
        older = and_(conversations.c.updated == updated, conversations.c.id < last)
        wanted = wanted.where(or_(conversations.c.updated < updated, older))
    if folded := fold_text(search).strip():
        here = messages.c.conversation_id == conversations.c.id, _contains(messages, messages.c.text, folded, search)
        newest = select(messages.c.text).where(*here).order_by(messages.c.created.desc(), messages.c.place.desc())
        wanted = wanted.add_columns(newest.limit(1).scalar_subquery().label("found"))
        in_title = _contains(conversations, conversations.c.title, folded, search)
        wanted = wanted.where(or_(in_title, select(messages.c.id).where(*here).exists()))
    most = min(limit, _MOST_LISTED)
    ordered = wanted.order_by(conversations.c.updated.desc(), conversations.c.id.desc()).limit(most + 1)
    async with store.reading() as db:
        rows = (await db.execute(ordered)).all()
    found = await _THREADS.run(_entries, rows[:most], folded)  # snippets of long messages take time
    return found, f"{found[-1].updated!r}_{found[-1].id}" if len(rows) > most else None


def _contains(table: Table, text: Column[Any], folded: str, search: str) -> ColumnElement[bool]:
    """A condition on a text to contain the search; a text without folded form is compared as it is."""
    unfolded = and_(table.c.folded.is_(None), text.icontains(search, autoescape=True))
    return or_(table.c.folded.contains(folded, autoescape=True), unfolded)


def _entries(rows: Sequence[Row[Any]], folded: str) -> list[ListedConversation]:
    entries = []
    for row in rows:
        found, mark = _snippet(row.found, folded) if folded and row.found else (None, None)
        entries.append(ListedConversation(row.id, row.title, row.updated, row.backend, row.memory, found, mark))
    return entries


async def fold_older_texts(store: Store) -> None:
    """Folds the titles and messages that an earlier version has written, in small batches. Raises ChatError.

    A growing reply is folded when it ends.
    """
    for table, text in ((conversations, conversations.c.title), (messages, messages.c.text)):
        last: str | None = ""
        while last is not None:
            last = await _fold_batch(store, table, text, last)


async def _fold_batch(store: Store, table: Table, text: Column[Any], last: str) -> str | None:
    """Folds the next texts after the id `last`; returns the last id of the batch, None if there is none."""
    wanted = select(table.c.id, text).where(table.c.id > last, table.c.folded.is_(None))
    if table is messages:
        wanted = wanted.where(messages.c.standing != "growing")
    async with store.reading() as db:
        rows = (await db.execute(wanted.order_by(table.c.id).limit(_BATCH))).all()
    if not rows:
        return None
    folded = await _THREADS.run(lambda: [{"this": row[0], "now": fold_text(row[1])} for row in rows])
    change = update(table).where(table.c.id == bindparam("this"), table.c.folded.is_(None))
    async with store.writing() as db:
        await db.execute(change.values(folded=bindparam("now")), folded)
    return str(rows[-1][0])


async def set_title(store: Store, conversation_id: str, title: str) -> str:
    """Sets a conversation's title; returns it as it is stored. Raises ChatError."""
    title = " ".join(clean_text(title).split())
    if not title:
        raise ChatError("invalid_request", "The title is empty: write something first.")
    if len(title) > _LONGEST_TITLE:
        raise ChatError("too_large", f"The title is too long: at most {_LONGEST_TITLE} characters are allowed.")
    this = update(conversations).where(conversations.c.id == conversation_id)
    async with store.writing() as db:
        if not (await db.execute(this.values(title=title, folded=fold_text(title)))).rowcount:
            raise ChatError("not_found", NOT_FOUND)
    return title


def _cursor(text: str) -> tuple[float, str]:
    updated, _, last = text.partition("_")
    try:
        return float(updated), storable(last)
    except ValueError:
        raise ChatError("invalid_request", "before: this is not a cursor of an earlier response.") from None


def _snippet(text: str, folded: str) -> tuple[str, tuple[int, int] | None]:
    """The text around the first match, in one line, and the position of the match in it."""
    start, end = _first_match(text, folded)
    first, last = max(0, start - _MARGIN), end + _MARGIN
    before = ("\u2026" if first else "") + _one_line(text[first:start]).lstrip()
    found = _one_line(text[start:end])
    after = _one_line(text[end:last]).rstrip() + ("\u2026" if last < len(text) else "")
    return before + found + after, (len(before), len(before + found)) if end else None


def _first_match(text: str, folded: str) -> tuple[int, int]:
    """Start and end of the first match, searched section by section; (0, 0) without a match."""
    for first in range(0, len(text), _SECTION):
        if match := find_folded(text[first : first + _SECTION + _OVERLAP], folded):
            return first + match[0], first + match[1]
    return 0, 0


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
