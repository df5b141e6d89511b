"""The limits that hold for a visitor, and what is left of them."""

from typing import Any

from fastapi import APIRouter, Request

from agent.turns import Turns
from hosting.identity import Identity


def add_limits(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `GET /limits`."""

    @router.get("/limits", tags=["what there is"])
    async def limits(request: Request) -> dict[str, Any]:
        """`limits` by the names of the settings; `left`: the messages of this minute and day, null without a limit."""
        return turns.quota.listed(identity.requester(request))
