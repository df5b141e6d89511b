"""The routes that list what a client can choose: backends, memory modes, tools; and a visitor's limits."""

from typing import Any

from fastapi import APIRouter

from agent.turns import Turns
from memory.modes import MODES
from transports.dependencies import CurrentRequester, CurrentVisitor


def add_catalog(router: APIRouter, turns: Turns) -> None:
    """Adds `GET /backends`, `/memory-modes`, `/tools`, `/tool-servers`, `/limits`; `POST /backends/NAME/download`."""

    @router.get("/backends", tags=["overview"])
    async def backends(visitor: CurrentVisitor) -> list[dict[str, Any]]:
        """The backends, whether each is ready, and if not why."""
        return turns.backends.describe(visitor)

    @router.post("/backends/{name:path}/download", status_code=202, tags=["overview"])
    async def download(name: str, visitor: CurrentVisitor) -> dict[str, Any]:
        """Begins the download of a local model. `GET /backends` reports its progress."""
        turns.backends.download(name)
        return next(one for one in turns.backends.describe(visitor) if one["name"] == name)

    @router.get("/memory-modes", tags=["overview"])
    async def memory_modes() -> list[dict[str, Any]]:
        """The memory modes and their parameters."""
        memory = turns.settings.memory
        return [
            {
                "name": mode.name,
                "about": mode.about,
                "default": mode.name == memory.default,
                "parameters": {name: getattr(memory, name) for name in mode.parameters},
            }
            for mode in MODES.values()
        ]

    @router.get("/tools")
    async def tools() -> list[dict[str, Any]]:
        return turns.toolbox.listed()

    @router.get("/tool-servers", tags=["overview"])
    async def tool_servers() -> list[dict[str, Any]]:
        """The MCP servers of the settings: whether each is ready, if not why, and which tools are not offered."""
        return [server.listed() for server in turns.toolbox.servers.servers]

    @router.get("/limits", tags=["overview"])
    async def limits(requester: CurrentRequester) -> dict[str, Any]:
        """`limits` by the names of the settings; `left`: the messages of this minute and day, null without a limit."""
        return turns.quota.listed(requester)
