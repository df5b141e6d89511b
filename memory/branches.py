"""Queries on the tree of a conversation's messages: the branch up to a message, and the newest end of a branch."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, Select, literal, select

from memory.tables import messages


def branch_to(rows: Iterable[Row[Any]], last: str) -> list[Row[Any]]:
    """The rows that lead to the message `last`, in order and including it, among all rows of a conversation."""
    known = {row.id: row for row in rows}
    branch, row = [], known.get(last)
    while row is not None:
        branch.append(row)
        row = known.get(row.parent_id)
    return branch[::-1]


def path_to(conversation_id: str, last: str, most: int) -> Select[Any]:
    """A query for the message `last` and those before it, at most `most`, in reverse order."""
    steps = literal(1).label("steps")
    newest = select(messages, steps).where(messages.c.id == last, messages.c.conversation_id == conversation_id)
    path = newest.cte("path", recursive=True)
    before = select(messages, path.c.steps + 1).where(messages.c.id == path.c.parent_id, path.c.steps < most)
    found = path.union_all(before)
    return select(found).order_by(found.c.steps)


def newest_below(conversation_id: str, message_id: str) -> Select[Any]:
    """A query for the id of the newest message at or below this one, on any branch.

    A message is newer than its parent, so the newest one ends a branch.
    """
    first = select(messages.c.id, messages.c.created, messages.c.place)
    below = first.where(messages.c.id == message_id).cte("below", recursive=True)
    after = first.where(messages.c.parent_id == below.c.id, messages.c.conversation_id == conversation_id)
    found = below.union_all(after)
    return select(found.c.id).order_by(found.c.created.desc(), found.c.place.desc()).limit(1)
