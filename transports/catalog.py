"""The routes that list what a client can choose: backends, memory modes, tools, prompts; and a visitor's limits."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent.mcp.prompts import MOST_ARGUMENTS
from agent.turns import Turns
from memory.modes import MODES
from transports.dependencies import CurrentRequester, CurrentVisitor


class PromptRequest(BaseModel):
    """A prompt of a server, and the answers to its form."""

    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: Annotated[str, Field(max_length=1000, description="The name of one of the server's `prompts`.")]
    arguments: Annotated[
        dict[str, str], Field(max_length=MOST_ARGUMENTS, description="A text for each field of its `form`.")
    ] = {}


def add_catalog(router: APIRouter, turns: Turns) -> None:
    """Adds `GET /backends`, `/memory-modes`, `/tools`, `/tool-servers`, `/limits`; the `POST` routes of two of them."""

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
        """The memory modes, their parameters, and the options of those that are not part of this project."""
        memory = turns.settings.memory
        return [
            {
                "name": mode.name,
                "about": mode.about,
                "default": mode.name == memory.default,
                "parameters": {name: getattr(memory, name) for name in mode.parameters},
                "options": [option.listed() for option in mode.options],
            }
            for mode in MODES.values()
        ]

    @router.get("/tools")
    async def tools() -> list[dict[str, Any]]:
        return turns.toolbox.listed()

    @router.get("/tool-servers", tags=["overview"])
    async def tool_servers() -> list[dict[str, Any]]:
        """The MCP servers of the settings: whether each is ready, if not why, its prompts, and what is not offered."""
        return [server.listed() for server in turns.toolbox.servers.servers]

    @router.post("/tool-servers/{name:path}/prompt", tags=["overview"])
    async def fill_prompt(name: str, wanted: PromptRequest, requester: CurrentRequester) -> dict[str, str]:
        """The message that a server makes of one of its prompts. Nothing is sent to a model."""
        turns.quota.take_preview(requester, "Too many prompts were filled in")
        most = turns.settings.limits.message_characters
        servers = turns.toolbox.servers
        return {"message": await servers.fill_prompt(name, wanted.prompt, wanted.arguments, most)}

    @router.get("/limits", tags=["overview"])
    async def limits(requester: CurrentRequester) -> dict[str, Any]:
        """`limits` by the names of the settings; `left`: the messages of this minute and day, null without a limit."""
        return turns.quota.listed(requester)
