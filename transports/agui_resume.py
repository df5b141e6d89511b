"""AG-UI's interrupts: how an approval that waits is told, and how the client's next run answers it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ag_ui.core import Interrupt, ResumeEntry
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.turns import Turns
from runs.errors import ChatError
from runs.events import JSON, Approval
from runs.live import LiveRun
from runs.tool_calls import ApprovalAnswer
from transports.run_lookup import RunHandle, get_run
from transports.schemas import validation_error

_SHOWN = 300
"""Characters of a call's input that the question shows."""
_SCHEMA: JSON = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "input": {"type": "object", "description": "Takes the place of the tool's whole input."},
        "editedArgs": {"type": "object", "description": "The same, by the name that AG-UI recommends."},
    },
    "required": ["approved"],
}


class _Payload(BaseModel):
    """What `_SCHEMA` says."""

    model_config = ConfigDict(extra="ignore", strict=True)
    approved: bool
    input: JSON | None = None
    edited: JSON | None = Field(default=None, alias="editedArgs")


@dataclass(frozen=True, slots=True)
class InterruptId:
    """A call that waits, and where its AG-UI run ended: written out, an interrupt's id is all that a resume needs."""

    run_id: str
    seq: int
    call_id: str

    def __str__(self) -> str:
        return f"{self.run_id}:{self.seq}:{self.call_id}"

    @classmethod
    def read(cls, interrupt_id: str) -> "InterruptId | None":
        run_id, _, rest = interrupt_id.partition(":")
        seq, _, call_id = rest.partition(":")
        return cls(run_id, int(seq), call_id) if seq.isascii() and seq.isdigit() and len(seq) < 10 else None


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that goes on after `seq`."""

    run: LiveRun
    seq: int


def interrupt(place: InterruptId, tool_call_id: str, asked: Approval, until: float) -> Interrupt:
    """The question of an approval; it can be answered until an epoch second."""
    shown = json.dumps(asked.input, ensure_ascii=False)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} …"
    ends = datetime.fromtimestamp(until, UTC).isoformat(timespec="milliseconds")
    return Interrupt(
        id=str(place),
        reason="tool_call",
        message=f"Allow {asked.tool} with {shown}?",
        tool_call_id=tool_call_id,
        response_schema=_SCHEMA,
        expires_at=ends.replace("+00:00", "Z"),
        metadata={"tool": asked.tool, "input": asked.input},
    )


async def resume(
    turns: Turns, given: Sequence[ResumeEntry], visitor: str | None, conversation_id: str | None, last: str | None
) -> Resumed | None:
    """Gives the answers to the run that waits for them. Raises ChatError `busy` where none of them is waited for.

    `last` is the text of the user's message that came last. One that is new, with all interrupts cancelled, goes before
    what still waits: the run is stopped, and None says that a turn may begin.
    """
    places = [place for entry in given if (place := InterruptId.read(entry.interrupt_id))]
    found = await _found(turns, places, visitor, conversation_id)
    run = found.live if found else None
    asked = run.tool_calls.awaiting_approval if run else []
    waiting = [place for place in places if place.call_id in asked]
    abandoned = all(entry.status == "cancelled" for entry in given)
    new = last is not None and last != (await _asked(turns, found) if found else None)
    if new and abandoned:
        if run and waiting:
            await run.stop("user")
        return None
    if not run or not waiting:
        raise ChatError("busy", "Nothing waits for this answer: it has been given, or the run has ended.")
    if new:
        raise ChatError("busy", "Answer the interrupts first, without a new message: send that when the run has ended.")
    _answer(run, given, _told(run, places[0].seq))
    return Resumed(run, places[0].seq)


async def _found(
    turns: Turns, places: Sequence[InterruptId], visitor: str | None, conversation_id: str | None
) -> RunHandle | None:
    """The run of the interrupts: they are of one, at one place, on this thread, and the visitor's; else None."""
    if len({(place.run_id, place.seq) for place in places}) != 1:
        return None
    try:
        found = await get_run(turns, places[0].run_id, visitor)
    except ChatError as e:
        if e.code != "not_found":
            raise
        return None
    return found if conversation_id in (None, found.conversation_id) else None


async def _asked(turns: Turns, found: RunHandle) -> str | None:
    """The message that the run answers."""
    history = await turns.store.history(found.conversation_id)
    return next((m.text for m in history if m.role == "user" and m.run_id == found.run_id), None)


def _told(run: LiveRun, seq: int) -> set[str]:
    """The questions that the client knew of when its run ended."""
    told = (entry.event for entry in run.log.entries[:seq])
    return {event.tool_call_id for event in told if isinstance(event, Approval)}


def _answer(run: LiveRun, given: Sequence[ResumeEntry], told: set[str]) -> None:
    """All of the answers or none of them; what has been answered elsewhere meanwhile stays so."""
    answers = {place.call_id: _read(entry) for entry in given if (place := InterruptId.read(entry.interrupt_id))}
    if len(answers) < len(given) or not answers.keys() <= told:
        raise ChatError("invalid_request", "resume: an interrupt that is not open, or one that is answered twice.")
    waiting = told.intersection(run.tool_calls.awaiting_approval)
    if missing := waiting - answers.keys():
        raise ChatError("invalid_request", f"resume: all open interrupts must be answered; {len(missing)} are not.")
    for call_id in waiting:
        run.tool_calls.answer(call_id, answers[call_id])


def _read(entry: ResumeEntry) -> ApprovalAnswer:
    if entry.status == "cancelled":
        return ApprovalAnswer(False)
    try:
        payload = _Payload.model_validate(entry.payload)
    except ValidationError as e:
        raise ChatError("invalid_request", f"resume.payload: {validation_error(e).message}") from None
    return ApprovalAnswer(payload.approved, payload.edited if payload.input is None else payload.input)
