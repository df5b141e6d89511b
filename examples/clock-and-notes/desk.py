"""An MCP server with a clock and notes: its tools report progress, ask with a form, and say what they destroy."""

import asyncio
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

NOTES = Path(tempfile.gettempdir()) / f"glassbox-notes-{os.getuid()}.txt"
READS = ToolAnnotations(read_only_hint=True)
ADDS = ToolAnnotations(destructive_hint=False)
desk = MCPServer("desk", log_level="WARNING")


class Note(BaseModel):
    """The form of a note."""

    text: str = Field(title="Note", max_length=200)
    kind: Literal["idea", "task", "question"] = Field("idea", title="Kind")
    urgent: bool = Field(False, title="Urgent")


@desk.tool(annotations=READS)
def time_in(zone: str = "UTC") -> str:
    """Tells the time in a zone, such as Asia/Tokyo."""
    return f"{datetime.now(ZoneInfo(zone)):%A, %H:%M} in {zone}"


@desk.tool(annotations=ADDS)
async def write_note(ctx: Context) -> str:
    """Writes a note, after it has asked for its text."""
    answer = await ctx.elicit("What shall I note?", Note)
    if answer.action != "accept":
        return "Nothing was written."
    note = answer.data
    with NOTES.open("a") as file:
        file.write(f"{note.kind}{' (urgent)' if note.urgent else ''}: {note.text}\n")
    return f"Noted as {note.kind}: {note.text}"


@desk.tool(annotations=READS)
async def read_notes(ctx: Context) -> str:
    """Reads the notes, one by one."""
    notes = NOTES.read_text().splitlines()[-20:] if NOTES.exists() else []
    for number, _ in enumerate(notes, 1):
        await ctx.report_progress(number, len(notes), "reading")
        await asyncio.sleep(0.2)
    return "\n".join(notes) or "There are no notes."


@desk.tool()
def erase_notes() -> str:
    """Erases all notes."""
    NOTES.unlink(missing_ok=True)
    return "All notes are erased."


if __name__ == "__main__":
    desk.run("stdio")
