"""A run's log as AG-UI events, of version 1.0 of the protocol. Knows nothing of HTTP or of where the log comes from.

What has no event there goes out as CUSTOM, with the fields that ours have: `status`, `context`, `tool_input` and
`tool_output`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, assert_never

from ag_ui import core as agui
from ag_ui.core import BaseEvent, Message, TokenUsage

from runs import events
from runs.events import JSON, Entry
from runs.state import AgentState, digest
from transports.agui_resume import InterruptId, interrupt

_LONG_ID = 16
"""Characters from which on an id of a call is taken for one that no other run of the thread has."""
_ENVELOPE = ("type", "seq", "run_id", "timestamp")


@dataclass
class _Made:
    """A message of ours as a client has put it together."""

    text: list[str] = field(default_factory=list)
    calls: list[agui.ToolCall] = field(default_factory=list)

    def message(self, message_id: str) -> agui.AssistantMessage:
        return agui.AssistantMessage(id=message_id, content="".join(self.text), tool_calls=self.calls or None)


class EventTranslation:
    """A fold over a run's entries. `begin` comes first; after `pause`, or the run's last entry, it has `ended`.

    What was open at a pause is ended for the client, and begun again by the next AG-UI run, which goes on there.
    """

    def __init__(self, thread_id: str, run_id: str, messages: Sequence[Message] = ()) -> None:
        """The ids are the client's, and so are the messages that it has."""
        self.ended = False
        self._given = messages
        self._made: dict[str, _Made | agui.ToolMessage] = {}
        """The messages of this AG-UI run, by id."""
        self.waiting: dict[str, events.Approval] = {}
        """The calls that wait for a person, by id."""
        self._thread, self._run = thread_id, run_id
        self._seq, self._of, self._started, self._model = 0, "", 0.0, ""
        self._message: str | None = None
        """The message of this call of the model, which its tool calls belong to."""
        self._writing = False
        self._thought: str | None = None
        self._steps: dict[str, str] = {}
        self._calls: set[str] = set()
        self._state: JSON = {}
        self._used: dict[str, int] = {}
        self._uncounted = False

    def begin(self, before: Iterable[Entry] = ()) -> list[BaseEvent]:
        """The first events. `before` is what an earlier AG-UI run has told of this run; what waited is answered."""
        for entry in before:
            self.take(entry)
        self.waiting.clear()
        self._made.clear()
        self._writing, self._thought, self._used, self._uncounted = False, None, {}, False
        told: list[BaseEvent] = [
            agui.RunStartedEvent(thread_id=self._thread, run_id=self._run, protocol_version=agui.PROTOCOL_VERSION)
        ]
        if self._state:
            told.append(agui.StateSnapshotEvent(snapshot=dict(self._state)))
        return told + [agui.StepStartedEvent(step_name=name) for name in self._steps.values()]

    def take(self, entry: Entry) -> list[BaseEvent]:
        """What an entry becomes."""
        self._seq = entry.seq
        told = self._translated(entry)
        for one in told:
            one.timestamp = round(entry.at * 1000)
        return told

    @property
    def paused(self) -> bool:
        """Whether nothing goes on until somebody answers."""
        return bool(self.waiting) and self._calls <= self.waiting.keys()

    def pause(self, seconds: float) -> list[BaseEvent]:
        """Ends the AG-UI run with an interrupt for each waiting call. `seconds` is how long a run may take."""
        until = self._started + seconds
        asked = [
            interrupt(InterruptId(self._of, self._seq, call_id), self._call(call_id), one, until)
            for call_id, one in self.waiting.items()
        ]
        return self._finished(agui.RunFinishedInterruptOutcome(interrupts=asked))

    def _translated(self, entry: Entry) -> list[BaseEvent]:
        match entry.event:
            case events.Run() as e:
                self._of, self._started, self._model = entry.run_id, entry.at, e.backend
                about = {"backend": e.backend, "memory": e.memory}
                self._state = about | asdict(digest(AgentState(), entry.at))
                return [agui.StateSnapshotEvent(snapshot=dict(self._state))]
            case events.Status() as e:
                self.waiting.pop(e.tool_call_id or "", None)
                self._model = e.backend or self._model
                return [self._custom(entry), *self._changed({"status": e.phase, "backend": self._model})]
            case events.Context() | events.ToolInput() | events.ToolOutput():
                return [self._custom(entry)]
            case events.ModelStart():
                told, self._message = self._quiet(), None
                return told
            case events.ModelEnd() as e:
                self._count(e)
                return self._quiet()
            case events.Reasoning() as e:
                told = self._retracted() if e.retracts else []
                return [
                    *told,
                    *self._think(),
                    agui.ReasoningMessageContentEvent(message_id=str(self._thought), delta=e.content),
                ]
            case events.Token() as e:
                told = self._write()
                self._of_message().text.append(e.content)
                return [*told, agui.TextMessageContentEvent(message_id=str(self._message), delta=e.content)]
            case events.ChainStart() as e:
                return [agui.StepStartedEvent(step_name=self._step(e))]
            case events.ChainEnd() as e:
                return [agui.StepFinishedEvent(step_name=self._steps.pop(e.id))]
            case events.ToolStart() as e:
                return self._called(e)
            case events.ToolEnd() as e:
                self.waiting.pop(e.tool_call_id, None)
                self._calls.discard(e.tool_call_id)
                return [self._result(e)]
            case events.Approval() as e:
                self.waiting[e.tool_call_id] = e
                return []
            case events.State() as e:
                return self._changed(asdict(e))
            case events.Complete() | events.Stopped() | events.Error() as e:
                return self._last(e)
            case _:
                assert_never(entry.event)

    def _write(self) -> list[BaseEvent]:
        """Begins a message unless one is open."""
        if self._writing:
            return []
        told = self._quiet()
        self._message, self._writing = self._new_id(), True
        return [*told, agui.TextMessageStartEvent(message_id=self._message, role="assistant")]

    def _of_message(self) -> "_Made":
        """What is known of the message of this call of the model."""
        made = self._made.setdefault(str(self._message), _Made())
        assert isinstance(made, _Made)
        return made

    def _retracted(self) -> list[BaseEvent]:
        """Takes back the message of this call of the model: the protocol has no event for that but all that is left."""
        told = self._quiet()
        self._made.pop(str(self._message), None)
        self._message = None
        left = [made.message(key) if isinstance(made, _Made) else made for key, made in self._made.items()]
        return [*told, agui.MessagesSnapshotEvent(messages=[*self._given, *left])]

    def _think(self) -> list[BaseEvent]:
        """Begins a thought unless one is open."""
        if self._thought:
            return []
        told = self._quiet()
        thought = self._thought = self._new_id()
        return [
            *told,
            agui.ReasoningStartEvent(message_id=thought),
            agui.ReasoningMessageStartEvent(message_id=thought),
        ]

    def _quiet(self) -> list[BaseEvent]:
        """Ends the message or the thought that is open."""
        told: list[BaseEvent] = []
        if self._writing and self._message:
            told.append(agui.TextMessageEndEvent(message_id=self._message))
        if self._thought:
            told += [
                agui.ReasoningMessageEndEvent(message_id=self._thought),
                agui.ReasoningEndEvent(message_id=self._thought),
            ]
        self._writing, self._thought = False, None
        return told

    def _step(self, start: events.ChainStart) -> str:
        """The name of a step; of those open together no two may have the same."""
        taken, name, number = set(self._steps.values()), start.name, 1
        while name in taken:
            number += 1
            name = f"{start.name} {number}"
        self._steps[start.id] = name
        return name

    def _called(self, start: events.ToolStart) -> list[BaseEvent]:
        """The input of a call is known when it starts, so that the client's part of it ends at once."""
        told, call_id = self._quiet(), self._call(start.tool_call_id)
        self._message = self._message or self._new_id()
        self._calls.add(start.tool_call_id)
        given = json.dumps(start.input, ensure_ascii=False)
        function = agui.FunctionCall(name=start.tool, arguments=given)
        self._of_message().calls.append(agui.ToolCall(id=call_id, function=function))
        return [
            *told,
            agui.ToolCallStartEvent(tool_call_id=call_id, tool_call_name=start.tool, parent_message_id=self._message),
            agui.ToolCallArgsEvent(tool_call_id=call_id, delta=given),
            agui.ToolCallEndEvent(tool_call_id=call_id),
        ]

    def _result(self, end: events.ToolEnd) -> BaseEvent:
        about: JSON = {"duration_s": end.duration_s}
        message_id, call_id, content = self._new_id(), self._call(end.tool_call_id), end.output or end.error or ""
        self._made[message_id] = agui.ToolMessage(id=message_id, role="tool", tool_call_id=call_id, content=content)
        return agui.ToolCallResultEvent(
            message_id=message_id,
            tool_call_id=call_id,
            content=content,
            role="tool",
            metadata=about if end.error is None else {**about, "error": end.error},
        )

    def _custom(self, entry: Entry) -> BaseEvent:
        value = {name: field for name, field in entry.wire().items() if name not in _ENVELOPE}
        if "tool_call_id" in value:
            value["tool_call_id"] = self._call(value["tool_call_id"])
        return agui.CustomEvent(name=entry.type, value=value)

    def _changed(self, now: JSON) -> list[BaseEvent]:
        """The client's state, mended where it differs."""
        changed = {name: value for name, value in now.items() if self._state.get(name) != value}
        self._state |= changed
        mended: list[Any] = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in changed.items()]
        return [agui.StateDeltaEvent(delta=mended)] if mended else []

    def _last(self, last: events.Last) -> list[BaseEvent]:
        if isinstance(last, events.Complete):
            result = {"status": "complete", "usage": last.usage, "timing": last.timing}
            return self._finished(agui.RunFinishedSuccessOutcome(), result)
        if isinstance(last, events.Stopped):
            result = {"status": "stopped", "reason": last.reason, "usage": last.usage, "timing": last.timing}
            return self._finished(agui.RunFinishedCancelledOutcome(), result)
        about: JSON = {"retryable": last.retryable}
        if last.retry_after is not None:
            about["retry_after"] = last.retry_after
        told = self._all_ended()
        return [*told, agui.RunErrorEvent(message=last.message, code=last.code, usage=self._usage(), metadata=about)]

    def _finished(self, outcome: agui.RunFinishedOutcome, result: JSON | None = None) -> list[BaseEvent]:
        told, usage = self._all_ended(), self._usage()
        run = agui.RunFinishedEvent(
            thread_id=self._thread, run_id=self._run, outcome=outcome, result=result, usage=usage
        )
        return [*told, run]

    def _all_ended(self) -> list[BaseEvent]:
        self.ended = True
        names: Sequence[str] = [*self._steps.values()]
        return self._quiet() + [agui.StepFinishedEvent(step_name=name) for name in reversed(names)]

    def _count(self, end: events.ModelEnd) -> None:
        usage = end.usage or {}
        if usage.get("estimated") or (end.usage is None and end.error == "cancelled"):
            self._uncounted = True
        for name in ("input_tokens", "output_tokens"):
            if name in usage:
                self._used[name] = self._used.get(name, 0) + int(usage[name] or 0)

    def _usage(self) -> list[TokenUsage] | None:
        """What the provider counted in this AG-UI run, if it counted all: the protocol has no mark for an estimate."""
        given, made = self._used.get("input_tokens"), self._used.get("output_tokens")
        if self._uncounted or (given is None and made is None):
            return None
        both = None if given is None or made is None else given + made
        return [TokenUsage(model=self._model, input_tokens=given, output_tokens=made, total_tokens=both)]

    def _new_id(self) -> str:
        """A message's own, wherever an AG-UI run began: no entry opens two."""
        return f"{self._of}-{self._seq}"

    def _call(self, call_id: str) -> str:
        """The id of a call in its thread: some servers count anew with each reply."""
        return call_id if len(call_id) >= _LONG_ID else f"{self._of}-{call_id}"
