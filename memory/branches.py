"""A conversation's messages as a tree: the line that leads to a message, and where a branch ends."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, Select, literal, select

from memory.tables import messages


def branch_to(rows: Iterable[Row[Any]], last: str) -> list[Row[Any]]:
    """Of all rows of a conversation those that lead to the message `last`, it included, in order."""
    known = {row.id: row for row in rows}
    found, at = [], known.get(last)
    while at is not None:
        found.append(at)
        at = known.get(at.parent_id)
    found.reverse()
    return found


def path_to(conversation_id: str, last: str, most: int) -> Select[Any]:
    """The message `last` and those before it, at most so many, backwards. Costs nothing for the others."""
    steps = literal(1).label("steps")
    path = select(messages, steps).where(messages.c.id == last, messages.c.conversation_id == conversation_id)
    back = path.cte("path", recursive=True)
    before = select(messages, back.c.steps + 1).where(messages.c.id == back.c.parent_id, back.c.steps < most)
    walked = back.union_all(before)
    return select(walked).order_by(walked.c.steps)


def newest_below(conversation_id: str, message_id: str) -> Select[Any]:
    """The id of the newest message that comes after this one on any branch; its own where none does.

    What follows a message was written after it, so the newest is the end of a branch.
    """
    first = select(messages.c.id, messages.c.created, messages.c.place)
    below = first.where(messages.c.id == message_id).cte("below", recursive=True)
    after = first.where(messages.c.parent_id == below.c.id, messages.c.conversation_id == conversation_id)
    walked = below.union_all(after)
    return select(walked.c.id).order_by(walked.c.created.desc(), walked.c.place.desc()).limit(1)
