"""AG-UI's interrupts: they ask for approvals, and the client's next run answers them."""

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
"""The most characters of a call's input in the question."""
_SCHEMA: JSON = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "input": {"type": "object", "description": "Replaces the tool's whole input."},
        "editedArgs": {"type": "object", "description": "The same, under the name that AG-UI recommends."},
    },
    "required": ["approved"],
}


class _Payload(BaseModel):
    """An answer of the form of `_SCHEMA`."""

    model_config = ConfigDict(extra="ignore", strict=True)
    approved: bool
    input: JSON | None = None
    edited: JSON | None = Field(default=None, alias="editedArgs")


@dataclass(frozen=True, slots=True)
class InterruptId:
    """The id of an interrupt: the waiting call, and the last event that its AG-UI run has sent."""

    run_id: str
    seq: int
    call_id: str

    def __str__(self) -> str:
        return f"{self.run_id}:{self.seq}:{self.call_id}"

    @classmethod
    def parse(cls, interrupt_id: str) -> "InterruptId | None":
        """Parses the text of an id; None if it is invalid."""
        run_id, _, rest = interrupt_id.partition(":")
        seq, _, call_id = rest.partition(":")
        return cls(run_id, int(seq), call_id) if seq.isascii() and seq.isdigit() and len(seq) < 10 else None


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that continues after the event `seq`."""

    run: LiveRun
    seq: int


def interrupt(interrupt_id: InterruptId, tool_call_id: str, approval: Approval, expires_at: float) -> Interrupt:
    """The interrupt that asks for an approval; it expires at an epoch second."""
    shown = json.dumps(approval.input, ensure_ascii=False)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} …"
    expires = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="milliseconds")
    return Interrupt(
        id=str(interrupt_id),
        reason="tool_call",
        message=f"Allow {approval.tool} with {shown}?",
        tool_call_id=tool_call_id,
        response_schema=_SCHEMA,
        expires_at=expires.replace("+00:00", "Z"),
        metadata={"tool": approval.tool, "input": approval.input},
    )


async def resume(
    turns: Turns, answers: Sequence[ResumeEntry], visitor: str | None, conversation_id: str | None, last: str | None
) -> Resumed | None:
    """Passes the answers to the run that waits for them. Raises ChatError `busy` if it waits for none of them.

    `last` is the text of the last user message. If it is new and all interrupts are cancelled, the waiting run is
    stopped, and None means that a new turn may begin.
    """
    ids = [interrupt_id for entry in answers if (interrupt_id := InterruptId.parse(entry.interrupt_id))]
    found = await _find_run(turns, ids, visitor, conversation_id)
    run = found.live if found else None
    asked = run.tool_calls.awaiting_approval if run else []
    waiting = [interrupt_id for interrupt_id in ids if interrupt_id.call_id in asked]
    all_cancelled = all(entry.status == "cancelled" for entry in answers)
    is_new = last is not None and last != (await _user_message(turns, found) if found else None)
    if is_new and all_cancelled:
        if run and waiting:
            await run.stop("user")
        return None
    if not run or not waiting:
        raise ChatError("busy", "Nothing waits for this answer: it has been given, or the run has ended.")
    if is_new:
        raise ChatError("busy", "Answer the interrupts first, without a new message: send that when the run has ended.")
    _answer(run, answers, _sent_approvals(run, ids[0].seq))
    return Resumed(run, ids[0].seq)


async def _find_run(
    turns: Turns, ids: Sequence[InterruptId], visitor: str | None, conversation_id: str | None
) -> RunHandle | None:
    """The run of the interrupts, if all name the same event of one run of this thread and visitor; else None."""
    if len({(one.run_id, one.seq) for one in ids}) != 1:
        return None
    try:
        run = await get_run(turns, ids[0].run_id, visitor)
    except ChatError as e:
        if e.code != "not_found":
            raise
        return None
    return run if conversation_id in (None, run.conversation_id) else None


async def _user_message(turns: Turns, run: RunHandle) -> str | None:
    """The text of the message that the run answers."""
    history = await turns.store.history(run.conversation_id)
    return next((m.text for m in history if m.role == "user" and m.run_id == run.run_id), None)


def _sent_approvals(run: LiveRun, seq: int) -> set[str]:
    """The calls whose approval the client knew of when its AG-UI run ended."""
    sent = (entry.event for entry in run.log.entries[:seq])
    return {event.tool_call_id for event in sent if isinstance(event, Approval)}


def _answer(run: LiveRun, entries: Sequence[ResumeEntry], sent: set[str]) -> None:
    """Passes on all answers or none. Calls that were answered elsewhere meanwhile keep that answer."""
    parsed = [(InterruptId.parse(entry.interrupt_id), entry) for entry in entries]
    answers = {interrupt_id.call_id: _read_answer(entry) for interrupt_id, entry in parsed if interrupt_id}
    if len(answers) < len(entries) or not answers.keys() <= sent:
        raise ChatError("invalid_request", "resume: an interrupt that is not open, or one that is answered twice.")
    waiting = sent.intersection(run.tool_calls.awaiting_approval)
    if missing := waiting - answers.keys():
        raise ChatError("invalid_request", f"resume: all open interrupts must be answered; {len(missing)} are not.")
    for call_id in waiting:
        run.tool_calls.answer(call_id, answers[call_id])


def _read_answer(entry: ResumeEntry) -> ApprovalAnswer:
    if entry.status == "cancelled":
        return ApprovalAnswer(False)
    try:
        payload = _Payload.model_validate(entry.payload)
    except ValidationError as e:
        raise ChatError("invalid_request", f"resume.payload: {validation_error(e).message}") from None
    return ApprovalAnswer(payload.approved, payload.edited if payload.input is None else payload.input)
