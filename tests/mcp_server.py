"""A server of the tests that speaks MCP over its standard input and output, or over HTTP; written with the SDK."""

import asyncio
import base64
import io
import os
import subprocess
import sys
from typing import Any, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import AssistantMessage, Message, UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from PIL import Image
from pydantic import BaseModel, Field

server = MCPServer("tests", log_level="ERROR")
READS, SAFE = ToolAnnotations(read_only_hint=True), ToolAnnotations(destructive_hint=False)
count = 0


def picture(side: int = 8) -> str:
    held = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(held, "PNG")
    return base64.b64encode(held.getvalue()).decode()


@server.tool(annotations=READS)
def add(a: int, b: int = 1) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool()
def erase(path: str) -> str:
    """Erases a file."""
    return f"erased {path}"


@server.tool(annotations=SAFE)
def visits() -> str:
    """Counts its calls in one connection."""
    global count
    count += 1
    return f"{count} in {os.getpid()}"


@server.tool(annotations=READS)
async def steps(ctx: Context, upto: int = 3, pause_s: float = 0.15) -> str:
    """Reports progress and writes to the log."""
    for number in range(1, upto + 1):
        await ctx.report_progress(number, upto, f"step {number}")
        await ctx.info(f"did {number}")
        await asyncio.sleep(pause_s)
    return "all steps done"


@server.tool(annotations=READS, structured_output=False)
def report() -> Any:
    """Gives all kinds of results."""
    inside = TextResourceContents(uri="note://1", text="inside the note", mime_type="text/plain")
    return CallToolResult(
        content=[
            TextContent(type="text", text="a report"),
            ImageContent(type="image", data=picture(), mime_type="image/png"),
            ImageContent(type="image", data="PHN2Zz4=", mime_type="image/svg+xml"),
            EmbeddedResource(type="resource", resource=inside),
            ResourceLink(type="resource_link", uri="note://2", name="second"),
        ],
        structured_content={"rows": [1, 2]},
    )


@server.resource("note://2")
def second() -> str:
    """A note."""
    return "behind the link"


class Booking(BaseModel):
    day: str = Field(title="Day", description="When?")
    people: int = Field(2, title="People", ge=1, le=8)
    window: bool = Field(False, title="At the window")
    size: Literal["small", "large"] = Field("small", title="Size")


@server.tool(annotations=READS)
async def book(ctx: Context) -> str:
    """Asks for a booking."""
    answer = await ctx.elicit("Which table?", Booking)
    if answer.action != "accept":
        return f"no table: {answer.action}"
    return f"a {answer.data.size} table on {answer.data.day} for {answer.data.people}, window {answer.data.window}"


@server.tool(annotations=READS)
async def hang(path: str) -> str:
    """Hangs, and writes into a file when it is cancelled."""
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        with open(path, "w") as file:  # noqa: ASYNC230
            file.write("cancelled")
        raise
    return "never"


@server.tool(annotations=READS)
def freeze() -> str:
    """Blocks the whole server."""
    import time

    time.sleep(600)
    return "never"


@server.tool(annotations=READS)
def big(megabytes: int) -> str:
    """Gives a large result."""
    return "x" * (megabytes * 1_000_000)


@server.tool(annotations=READS)
async def flood(ctx: Context, number: int = 20_000) -> str:
    """Floods with progress."""
    for i in range(number):
        await ctx.report_progress(i, number, "y" * 200)
    return "flooded"


@server.tool(annotations=READS)
def die() -> str:
    """Ends the process."""
    os._exit(3)


@server.tool(annotations=READS)
def spawn() -> str:
    """Starts a process that would stay, in a session of its own."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    return str(child.pid)


@server.tool(annotations=READS)
def environment() -> str:
    """Lists its environment."""
    return " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()))


@server.tool(annotations=READS)
def fail() -> str:
    """Fails."""
    raise ToolError("out of ink")


@server.prompt(title="Plan a trip")
def plan(city: str, days: str = "3") -> str:
    """Makes a plan for a few days in a city."""
    return f"Plan {days} days in {city}."


@server.prompt()
def joke() -> list[Message]:
    """Asks for a joke."""
    return [UserMessage("Tell me a joke."), AssistantMessage("About what?"), UserMessage("About <b>whales</b>.")]


@server.prompt()
def refuse(why: str) -> str:
    """Fails."""
    raise MCPError(-32602, f"not for {why}")


if __name__ == "__main__":
    if "--http" in sys.argv:
        server.run("streamable-http", port=int(sys.argv[-1]))
    else:
        server.run("stdio")
