"""A live run: its log, the state derived from it, and how its work appends events.

The work is a coroutine that emits events; it may be anything. The run adds what the grammar requires: the first events,
phases, `state` digests, missing ends, and exactly one last event. Its supervisor ends it.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from runs import events
from runs.costs import Costs
from runs.events import Entry, Event, Phase, StopReason
from runs.fold import apply
from runs.log import Clock, RunLog, steady_clock
from runs.reply import ReplyText
from runs.requester import Requester
from runs.sent_requests import SentRequests
from runs.state import AgentState, Step, digest
from runs.supervisor import Save, Supervisor, Work
from runs.thinking_control import ThinkingControl
from runs.tool_calls import ToolCalls

log = structlog.get_logger(__name__)

_STATE_GAP_S = 0.115
"""Seconds between two `state` events: at most ten a second, the last one included."""
_STREAMED = {
    events.Token: "content",
    events.Reasoning: "content",
    events.ToolOutput: "chunk",
    events.ToolInput: "delta",
}
"""The fields whose characters count towards the limit of a run."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The limits of a run, in seconds and streamed characters."""

    seconds: float = 600.0
    abandoned_s: float = 30.0
    stall_s: float = 5.0
    characters: int = 2_000_000


def new_id() -> str:
    """An unguessable id of 128 bits."""
    return secrets.token_urlsafe(16)


class LiveRun:
    """One run. `owner` is a visitor's id, or None for a run that everyone with its id may use.

    It continues without followers if a visitor started it, also in a conversation without owner.
    """

    def __init__(
        self,
        *,
        conversation_id: str,
        backend: str,
        memory: str,
        owner: str | None,
        lifetime: Lifetime,
        requester: Requester | None = None,
        model: str | None = None,
        clock: Clock = time.time,
    ) -> None:
        """`clock` is the wall clock; it is read once."""
        self.id = new_id()
        self.conversation_id = conversation_id
        self.backend, self.memory = backend, memory
        self.owner, self.requester = owner, requester or Requester()
        self.lifetime = lifetime
        self._clock = steady_clock(clock)
        self.log = RunLog(self.id, self._clock)
        self.tool_calls, self.requests, self.thinking = ToolCalls(), SentRequests(), ThinkingControl()
        self.state = AgentState()
        self._reply, self._characters, self._contexts = ReplyText(), 0, 0
        self._supervisor = Supervisor(self)
        self.notes: list[str] = []
        """Sentences that the page shows below the reply, also below a complete one."""
        self.last_activity = self.last_event = self.now()
        """When the work was last active (an event, or any byte of a provider), and when it last emitted an event."""
        self.unsaved: str | None = None
        """A message for the visitor if the reply of an ended run could not be stored; None after the last retry."""
        self.stored = True
        """Whether it is stored with its conversation; else only its owner can use it, while it is in memory."""
        self.earlier_costs: Costs | None = None
        """What was spent before this run, where its backend has a price."""
        self.conversation_deleted = False
        """Whether its conversation was deleted. Later output is dropped."""
        self.acted = False
        """Whether an agent of its own has done something that cannot be repeated, such as a tool call or an event."""
        self.repeatable_calls = 0
        """The number of its calls that change nothing and may be made again, such as a search in documents."""
        self.passages: str | None = None
        """The passages of documents that its reply shows, or why there are none."""
        self.closing = False
        """Whether its closing entries are made. Later events are dropped."""
        self._implied_text = ""
        """The status text of the latest event that implied a phase."""
        self._digest: events.State | None = None
        self._digested_at = 0.0
        self._digest_timer: asyncio.TimerHandle | None = None
        self._append(events.Run(conversation_id, backend, memory, model), events.Status("queued", "Processing..."))

    def now(self) -> float:
        """The time in epoch seconds, unaffected by changes of the system's clock."""
        return self._clock()

    @property
    def text(self) -> str:
        """The reply so far."""
        return str(self._reply)

    def usage(self) -> events.JSON:
        """The usage of its last event: that of its state, with the totals of the costs where they are known."""
        usage = self.state.usage()
        return self.earlier_costs.with_run(usage) if self.earlier_costs else usage

    @property
    def note(self) -> str | None:
        """All notes as one text."""
        return " ".join(self.notes) or None

    @property
    def ended(self) -> bool:
        """True if its last event is in the log."""
        return self.log.closed

    @property
    def has_output(self) -> bool:
        """True if it has shown text or thinking, or called a tool: then it cannot be begun again."""
        return self.acted or self.state.first_token is not None or len(self.state.tools) > self.repeatable_calls

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task of the whole run; None before `start`."""
        return self._supervisor.task

    def start(self, work: Work, save: Save | None = None) -> None:
        """Starts the work; `save` gets the run and its closing entries just before they are published."""
        self._supervisor.start(work, save)

    def request_stop(self, reason: StopReason) -> None:
        """Stops the run without waiting for its end."""
        self._supervisor.request_stop(reason)

    def end_thinking(self) -> None:
        """Ends the thinking of its model, which then answers. Raises ChatError as ThinkingControl.end does."""
        self.thinking.end(self.log.entries)

    async def stop(self, reason: StopReason) -> None:
        """Stops the run and waits for its end; may be called any number of times."""
        await self._supervisor.stop(reason)

    def emit(self, event: Event) -> None:
        """Appends an event of the work, after the `status` that it implies. Events after the end are dropped."""
        self.note_activity()
        shown = self.state.phase, self.state.status_text
        if self.closing or (isinstance(event, events.Status) and (event.phase, event.content) == shown):
            return
        self.last_event = self.last_activity
        if isinstance(event, events.ModelEnd):
            event = self._with_request(event)
        self._contexts += isinstance(event, events.Context)
        implied = _implied_status(event)
        is_output = implied and implied.phase in ("thinking", "streaming")
        if implied and (implied.phase != shown[0] or (is_output and implied.content != self._implied_text)):
            self._append(implied, event)
        else:
            self._append(event)
        if implied:
            self._implied_text = implied.content
        self._reply.add(event)
        if field := _STREAMED.get(type(event)):
            self._characters += len(getattr(event, field))
        if self._characters > self.lifetime.characters:
            self.request_stop("limit")
        self._schedule_digest()

    def note_activity(self) -> None:
        """Records activity that is not an event, such as bytes of a provider."""
        self.last_activity = self.now()

    def set_status(self, phase: Phase, content: str) -> None:
        """Emits a `status` event of the work; a phase may have several texts."""
        self.emit(events.Status(phase, content))

    def report(self, phase: Phase, content: str) -> None:
        """Appends a `status` event that does not count as activity. The next output emits its phase again."""
        self._append(events.Status(phase, content))
        self._implied_text = ""
        self._schedule_digest()

    def report_backend(self, backend: str, model: str | None, content: str) -> None:
        """Emits the backend that answers from here on, if it has changed, with a sentence for people."""
        if (backend, model) != (self.state.backend, self.state.model):
            self.emit(events.Status("queued", content, backend=backend, model=model))

    def end_open_steps(self, error: str) -> None:
        """Ends the open steps because of an error that the run survives."""
        now = self.now()
        for step in reversed(self.state.open_steps):
            self.emit(_end_of(step, now, error))

    def closing_entries(self, last: events.Last) -> list[Entry]:
        """The run's closing entries: missing ends, the last digest, the last event. Later events are dropped."""
        self.closing = True
        if self._digest_timer:
            self._digest_timer.cancel()
        now = self.now()
        open_ends = [_end_of(step, now) for step in reversed(self.state.open_steps)]
        ends: list[Event] = [self._with_request(end) if isinstance(end, events.ModelEnd) else end for end in open_ends]
        state = self.state
        for entry in self.log.prepare([*ends, last]):
            state = apply(state, entry)
        return self.log.prepare([*ends, digest(state, now), last])

    def close(self, closing: Sequence[Entry]) -> None:
        """Publishes the closing entries and closes the log."""
        self.log.publish(closing)
        for entry in closing:
            self.state = apply(self.state, entry)
        self.log.close()
        last = closing[-1].event
        figures = {"code": last.code} if isinstance(last, events.Error) else self.state.timing(self.now())
        log.info("run ended", outcome=self.state.phase, **figures)

    def _with_request(self, end: events.ModelEnd) -> events.ModelEnd:
        """The end of the latest model call, with its request. Calls without a context have none."""
        request = self.requests.record(self._contexts - 1, self.state.context) if self._contexts else None
        return replace(end, request=request) if request else end

    def _append(self, *added: Event) -> None:
        for entry in self.log.append(*added):
            self.state = apply(self.state, entry)

    def _schedule_digest(self) -> None:
        wait = self._digested_at + _STATE_GAP_S - self.now()
        if wait <= 0:
            self._emit_digest()
        elif self._digest_timer is None:
            self._digest_timer = asyncio.get_running_loop().call_later(wait, self._emit_digest)

    def _emit_digest(self) -> None:
        if self._digest_timer:
            self._digest_timer.cancel()
            self._digest_timer = None
        if self.closing:
            return
        now = self.now()
        state = digest(self.state, now)
        if state != self._digest:
            self._digest, self._digested_at = state, now
            self._append(state)


def _implied_status(event: Event) -> events.Status | None:
    """The phase that an event begins, and its text."""
    match event:
        case events.ModelStart():
            return events.Status("waiting", "Waiting for the first token")
        case events.Reasoning():
            return events.Status("thinking", "Thinking")
        case events.Token():
            return events.Status("streaming", "Writing the reply")
        case events.ToolInput():
            return events.Status("streaming", f"Writing a call of {event.tool}")
        case events.ToolStart():
            return events.Status("tool", f"Calling {event.tool}")
        case events.Approval():
            wanted = "your answer" if event.is_question else f"your approval of {event.tool}"
            return events.Status("approval", f"Waiting for {wanted}")
        case _:
            return None


def _end_of(step: Step, now: float, error: str = "cancelled") -> events.End:
    """The missing end of an open step."""
    duration = round(now - step.start, 3)
    match step.kind:
        case "model":
            return events.ModelEnd(step.id, None, duration, error)
        case "tool":
            return events.ToolEnd(step.name, step.id, "", duration, error)
        case "chain":
            return events.ChainEnd(step.id, None, error)
