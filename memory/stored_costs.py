"""The stored costs of conversations and visitors' days."""

import time

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.database import Database
from memory.tables import conversations, costs
from runs.costs import Costs

_DAY_S = 86_400


async def insert_cost(db: AsyncConnection, conversation_id: str, visitor: str | None, dollars: float) -> None:
    """Adds dollars to a conversation and to its visitor's day; the costs of earlier days are forgotten."""
    total = func.coalesce(conversations.c.cost_usd, 0) + dollars
    await db.execute(update(conversations).where(conversations.c.id == conversation_id).values(cost_usd=total))
    await db.execute(delete(costs).where(costs.c.day < _today()))
    if visitor:
        await db.execute(insert(costs).values(visitor=visitor, day=_today(), cost_usd=dollars))


class StoredCosts(Database):
    """The methods of the store for costs."""

    async def costs(self, conversation_id: str, visitor: str | None) -> Costs:
        """Returns the costs of a conversation, and of a visitor since midnight UTC."""
        spent = select(func.sum(costs.c.cost_usd)).where(costs.c.visitor == visitor, costs.c.day == _today())
        async with self.reading() as db:
            total = await db.scalar(select(conversations.c.cost_usd).where(conversations.c.id == conversation_id))
            return Costs(total or 0.0, await db.scalar(spent) or 0.0)

    async def add_cost(self, conversation_id: str, visitor: str | None, dollars: float) -> None:
        """Adds dollars that no run has cost, as those of a summary."""
        async with self.writing() as db:
            await insert_cost(db, conversation_id, visitor, dollars)


def _today() -> int:
    """The days since 1970, in UTC."""
    return int(time.time() // _DAY_S)
