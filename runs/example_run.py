"""A recorded run that every visitor may see: it is offered to those who have no run of their own yet."""

from pathlib import Path

from runs.events import Context, Entry
from runs.record import decode

EXAMPLE_ID = "example"
"""Its run id. Other ids are random and longer."""
_RECORD = Path(__file__).with_suffix(".jsonl")
"""The scripted tour, as `GET /runs/{run_id}` gave it; the ids of the run and the conversation were replaced."""

EXAMPLE_ENTRIES: tuple[Entry, ...] = tuple(decode(line) for line in _RECORD.read_text("utf-8").split("\n") if line)
"""The events of the run."""


def example_message() -> str:
    """The message that the run answers."""
    context = next(entry.event for entry in EXAMPLE_ENTRIES if isinstance(entry.event, Context))
    return str(context.messages[-1]["content"])
