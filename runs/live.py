"""A live run: the background task that does the work, what it appends to its log, and how and when it ends.

The work is a coroutine that emits events; this module adds what the grammar asks for (the first events, phases,
`state` digests, missing ends, exactly one last event) and the ways a run is ended from outside. It does not know what
the work is.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from runs import events
from runs.clock import Clock, steady_clock
from runs.errors import INTERNAL, ChatError
from runs.events import Entry, Event, Phase, StopReason
from runs.log import RunLog
from runs.reply_text import ReplyText
from runs.requester import Requester
from runs.state import AgentState, Step, apply, digest
from runs.tool_calls import ToolCalls

logger = logging.getLogger(__name__)
log = structlog.get_logger(__name__)

_STATE_GAP_S = 0.115
"""Between two `state` events: at most ten a second, the last one included."""
_TICK_S = 0.25
_CANCEL_AGAIN_S = 0.05
"""A cancel can be lost on its way (asyncio.wait_for of Python 3.11 loses some), so it is repeated."""
_SAVE_S = 3.0
_SPEAKING = ("streaming", "thinking")
_WORKING = "No token for a while; the server is still working"

Work = Callable[["LiveRun"], Awaitable[None]]
Save = Callable[["LiveRun", Sequence[Entry]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a run may go on, in seconds and streamed characters."""

    seconds: float = 600.0
    abandoned_s: float = 30.0
    stall_s: float = 5.0
    characters: int = 2_000_000


def new_id() -> str:
    """An unguessable id of 128 bits."""
    return secrets.token_urlsafe(16)


class LiveRun:
    """One run. `owner` is a visitor's id, or None for a run that whoever has its id may use.

    It goes on without followers if a visitor asked for it, also in a conversation that has no owner.
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
        self.tool_calls = ToolCalls()
        self.state = AgentState()
        self._reply = ReplyText()
        self.notes: list[str] = []
        """Sentences that a person should read below the reply, also below a whole one."""
        self.last_activity = self.now()
        """When the work last gave a sign of life: an event, or any byte of a provider."""
        self.unsaved: str | None = None
        """Why the reply is not stored although the run has ended, for people; None once a later attempt is over."""
        self.stored = True
        """Whether it is stored, and belongs to its conversation; else to its owner alone, as long as it is here."""
        self.conversation_deleted = False
        """Whether its conversation was deleted. Later output is dropped."""
        self.task: asyncio.Task[None] | None = None
        self._work: asyncio.Task[None] | None = None
        self._reason: StopReason | None = None
        self._characters = 0
        self._told_at = self.last_activity
        """When the work last had something to say."""
        self._writing = ""
        """What the latest event that implied a phase said of it."""
        self._digested = 0.0
        self._digest: events.State | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._ending = False
        self._add([events.Run(conversation_id, backend, memory, model), events.Status("queued", "Processing...")])

    def now(self) -> float:
        """The time of this run, in epoch seconds: a change of the system's clock does not move it."""
        return self._clock()

    @property
    def text(self) -> str:
        """The reply so far."""
        return str(self._reply)

    @property
    def note(self) -> str | None:
        return " ".join(self.notes) or None

    @property
    def ended(self) -> bool:
        return self.log.closed

    @property
    def has_output(self) -> bool:
        """Whether anything of the reply has been seen, or a tool has been called."""
        return self.state.first_token is not None or bool(self.state.tools)

    def start(self, work: Work, save: Save | None = None) -> None:
        """Begins; `save` gets the run and its closing entries just before they are published."""
        self.task = asyncio.create_task(self._main(work, save), name=f"run {self.id}")

    def emit(self, event: Event) -> None:
        """Appends an event of the work, after the `status` it implies. What comes after the end is dropped."""
        said = self.state.phase, self.state.status_text
        self.note_activity()
        if self._ending or (isinstance(event, events.Status) and (event.phase, event.content) == said):
            return
        self._told_at = self.last_activity
        phase = _implied(event)
        if phase and (phase[0] != self.state.phase or (phase[0] in _SPEAKING and phase[1] != self._writing)):
            self._add([events.Status(*phase), event])
        else:
            self._add([event])
        if phase:
            self._writing = phase[1]
        self._after(event)

    def note_activity(self) -> None:
        """Takes note of a sign of life that is no event, such as bytes of a provider."""
        self.last_activity = self.now()

    def set_status(self, phase: Phase, content: str) -> None:
        """A `status` event; the same phase may have more than one thing to say."""
        self.emit(events.Status(phase, content))

    def report_backend(self, backend: str, model: str | None, content: str) -> None:
        """Tells who answers from here on, with a sentence for people, where that has changed."""
        if (backend, model) != (self.state.backend, self.state.model):
            self.emit(events.Status("queued", content, backend=backend, model=model))

    def end_open_steps(self, error: str) -> None:
        """Ends what was started and has not ended, because of an error that the run survives."""
        now = self.now()
        for step in reversed(self.state.open_steps):
            self.emit(_ended(step, now, error))

    def request_stop(self, reason: StopReason) -> None:
        """Ends the run without waiting for it."""
        if self._reason is None:
            self._reason = reason
        if self._work:
            self._work.cancel()

    async def stop(self, reason: StopReason) -> None:
        """Ends the run and waits until it has; may be called as often as you like."""
        if self._reason is None and not self._ending:
            self._reason = reason
        while self._work and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work}, timeout=_CANCEL_AGAIN_S)
        if self.task:
            await asyncio.wait({self.task})

    def _add(self, added: Sequence[Event]) -> None:
        for entry in self.log.append(*added):
            self.state = apply(self.state, entry)

    def _after(self, event: Event) -> None:
        self._reply.take(event)
        if isinstance(event, events.Token | events.Reasoning):
            self._characters += len(event.content)
        elif isinstance(event, events.ToolOutput):
            self._characters += len(event.chunk)
        elif isinstance(event, events.ToolInput):
            self._characters += len(event.delta)
        if self._characters > self.lifetime.characters:
            self.request_stop("limit")
        self._digest_soon()

    def _digest_soon(self) -> None:
        wait = self._digested + _STATE_GAP_S - self.now()
        if wait <= 0:
            self._digest_now()
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(wait, self._digest_now)

    def _digest_now(self) -> None:
        if self._flush:
            self._flush.cancel()
            self._flush = None
        if self._ending:
            return
        now = self.now()
        state = digest(self.state, now)
        if state != self._digest:
            self._digest, self._digested = state, now
            self._add([state])

    async def _main(self, work: Work, save: Save | None) -> None:
        structlog.contextvars.bind_contextvars(run_id=self.id)  # in this task, and those that it begins
        log.info("run started", backend=self.backend, memory=self.memory)
        self._work = asyncio.create_task(_call(work, self), name=f"work of {self.id}")
        if self._reason:  # stopped before it began
            self._work.cancel()
        try:
            while not self._work.done():
                await asyncio.wait({self._work}, timeout=_TICK_S)
                self._watch()
        except asyncio.CancelledError:
            # the loop itself is going down: the end is still told, and the cancel goes on its way
            self._reason = self._reason or "shutdown"
            self._work.cancel()
            await asyncio.wait({self._work}, timeout=_SAVE_S)
            self._close(self._closing(self._last()))
            raise
        closing = self._closing(self._last())
        try:
            self.unsaved = await self._saved(save, closing) if save else None
            if self.unsaved:
                told: list[Event] = [events.Status(self.state.phase, self.unsaved)]
                closing = self.log.prepare(told + [e.event for e in closing])
        finally:
            self._close(closing)

    async def _saved(self, save: Save, closing: Sequence[Entry]) -> str | None:
        """None, or a sentence that says why the reply is not stored; the page keeps it all the same."""
        try:
            await asyncio.wait_for(save(self, closing), _SAVE_S)
            return None
        except ChatError as e:
            return e.message
        except TimeoutError:
            return "This reply is not saved yet: the database did not answer in time."
        except Exception:
            logger.exception("run %s could not be saved", self.id)
            return "This reply is not saved yet: the database failed."

    def _watch(self) -> None:
        """What only the clock can tell: the time limit, nobody following, a stall."""
        if self._work is None or self._work.done():
            return
        now, state, life = self.now(), self.state, self.lifetime
        if self._reason:
            self._work.cancel()
        elif now - state.started > life.seconds:
            self.request_stop("limit")
        elif self._abandoned(now):
            self.request_stop("abandoned")
        else:
            self._watch_silence(now)

    def _watch_silence(self, now: float) -> None:
        """Emits a status where no bytes, or only keep-alives, have come for as long as a stall takes."""
        phase, stall_s = self.state.phase, self.lifetime.stall_s
        if now - self.last_activity > stall_s:
            if phase in _SPEAKING:
                self._tell(events.Status("stalled", f"No token for {stall_s:.0f} s; the backend may be stuck"))
        elif now - self._told_at > stall_s and phase in ("waiting", *_SPEAKING, "stalled"):
            if phase == "stalled":
                phase = self.state.phase_spans[-2].phase
            if (phase, _WORKING) != (self.state.phase, self.state.status_text):
                self._tell(events.Status(phase, _WORKING))

    def _tell(self, status: events.Status) -> None:
        self._add([status])
        self._writing = ""  # the next piece says again what it is
        self._digest_soon()

    def _abandoned(self, now: float) -> bool:
        return (
            self.owner is None
            and self.requester.visitor is None
            and not self.state.approvals
            and not self.log.followers
            and now - self.log.left_at > self.lifetime.abandoned_s
        )

    def _last(self) -> events.Last:
        assert self._work is not None
        state, now = self.state, self.now()
        usage, timing = state.usage(), state.timing(now)
        if self._work.cancelled() or not self._work.done():
            return events.Stopped(self.text, self._reason or "shutdown", usage, timing)
        error = self._work.exception()
        if error is None:
            return events.Complete(self.text, usage, timing)
        if self._reason:  # a cancel that came out of some library as another exception
            return events.Stopped(self.text, self._reason, usage, timing)
        if isinstance(error, ChatError):
            return events.Error(error.code, error.message, error.retryable, self.text, error.retry_after)
        logger.error("run %s failed", self.id, exc_info=error)
        return events.Error("internal", INTERNAL, True, self.text)

    def _closing(self, last: events.Last) -> list[Entry]:
        """The run's closing entries: missing ends, the last digest, the last event. No other is taken now."""
        self._ending = True
        if self._flush:
            self._flush.cancel()
        now = self.now()
        ends: list[Event] = [_ended(step, now) for step in reversed(self.state.open_steps)]
        state = self.state
        for entry in self.log.prepare([*ends, last]):
            state = apply(state, entry)
        return self.log.prepare([*ends, digest(state, now), last])

    def _close(self, closing: Sequence[Entry]) -> None:
        self.log.publish(closing)
        for entry in closing:
            self.state = apply(self.state, entry)
        self.log.close()
        last = closing[-1].event
        told = {"code": last.code} if isinstance(last, events.Error) else self.state.timing(self.now())
        log.info("run ended", outcome=self.state.phase, **told)


async def _call(work: Work, run: LiveRun) -> None:
    await work(run)


def _implied(event: Event) -> tuple[Phase, str] | None:
    """The phase that an event brings about, and what to say of it."""
    match event:
        case events.ModelStart():
            return "waiting", "Waiting for the first token"
        case events.Reasoning():
            return "thinking", "Thinking"
        case events.Token():
            return "streaming", "Writing the reply"
        case events.ToolInput():
            return "streaming", f"Writing a call of {event.tool}"
        case events.ToolStart():
            return "tool", f"Calling {event.tool}"
        case events.Approval():
            return "approval", f"Waiting for your approval of {event.tool}"
        case _:
            return None


def _ended(step: Step, now: float, error: str = "cancelled") -> events.End:
    """The end that an open step lacks."""
    duration = round(now - step.start, 3)
    match step.kind:
        case "model":
            return events.ModelEnd(step.id, None, duration, error)
        case "tool":
            return events.ToolEnd(step.name, step.id, "", duration, error)
        case "chain":
            return events.ChainEnd(step.id, None, error)
