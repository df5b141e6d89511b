"""Translates a run's events into those of AG-UI 1.0.

Events without a counterpart become CUSTOM events with our fields: `status`, `context`, `tool_input`, `tool_output`. A
`token` with probabilities and a `model_end` with timings or its request become one besides their counterparts.
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
from transports.agui_interrupts import InterruptId, interrupt

_LONG_ID = 16
"""Length from which the id of a call is assumed to be unique in its thread."""
_ENVELOPE = ("type", "seq", "run_id", "timestamp")


@dataclass
class _Reply:
    """A message of the model, as the client has assembled it."""

    text: list[str] = field(default_factory=list)
    calls: list[agui.ToolCall] = field(default_factory=list)

    def message(self, message_id: str) -> agui.AssistantMessage:
        return agui.AssistantMessage(id=message_id, content="".join(self.text), tool_calls=self.calls or None)


class EventTranslation:
    """A fold over a run's entries. Call `begin` first; after `pause` or the run's last entry it has `ended`.

    A pause ends all open messages and steps for the client; the next AG-UI run starts them again.
    """

    def __init__(self, thread_id: str, run_id: str, messages: Sequence[Message] = ()) -> None:
        """The ids and the messages are those of the client's request."""
        self.ended = False
        self._client_messages = messages
        self._replies: dict[str, _Reply | agui.ToolMessage] = {}
        """The messages of this AG-UI run by id, tool results included."""
        self.waiting: dict[str, events.Approval] = {}
        """The tool calls that wait for approval, by id."""
        self._thread_id, self._agui_run_id = thread_id, run_id
        self._seq, self._run_id, self._started, self._model = 0, "", 0.0, ""
        self._message_id: str | None = None
        """The message of the current model call; its tool calls belong to it."""
        self._message_open = False
        self._reasoning_id: str | None = None
        """The open reasoning message."""
        self._steps: dict[str, str] = {}
        """The names of open steps by id."""
        self._open_calls: set[str] = set()
        self._state: JSON = {}
        """The state that the client has."""
        self._usage: dict[str, int] = {}
        self._usage_incomplete = False

    def begin(self, before: Iterable[Entry] = ()) -> list[BaseEvent]:
        """The first events. `before` are the entries that an earlier AG-UI run has sent."""
        for entry in before:
            self.take(entry)
        self.waiting.clear()  # they are answered now
        self._replies.clear()
        self._message_open, self._reasoning_id, self._usage, self._usage_incomplete = False, None, {}, False
        out: list[BaseEvent] = [
            agui.RunStartedEvent(
                thread_id=self._thread_id, run_id=self._agui_run_id, protocol_version=agui.PROTOCOL_VERSION
            )
        ]
        if self._state:
            out.append(agui.StateSnapshotEvent(snapshot=dict(self._state)))
        return out + [agui.StepStartedEvent(step_name=name) for name in self._steps.values()]

    def take(self, entry: Entry) -> list[BaseEvent]:
        """The AG-UI events of an entry."""
        self._seq = entry.seq
        out = self._translate(entry)
        for event in out:
            event.timestamp = round(entry.at * 1000)
        return out

    @property
    def paused(self) -> bool:
        """True while the run only waits for approvals."""
        return bool(self.waiting) and self._open_calls <= self.waiting.keys()

    def pause(self, seconds: float) -> list[BaseEvent]:
        """Ends the AG-UI run with an interrupt for each waiting call. `seconds` is the time limit of a run."""
        expires_at = self._started + seconds
        interrupts = [
            interrupt(InterruptId(self._run_id, self._seq, call_id), self._call_id(call_id), approval, expires_at)
            for call_id, approval in self.waiting.items()
        ]
        return self._finish(agui.RunFinishedInterruptOutcome(interrupts=interrupts))

    def _translate(self, entry: Entry) -> list[BaseEvent]:
        match entry.event:
            case events.Run() as e:
                self._run_id, self._started, self._model = entry.run_id, entry.at, e.backend
                about = {"backend": e.backend, "memory": e.memory}
                self._state = about | asdict(digest(AgentState(), entry.at))
                return [agui.StateSnapshotEvent(snapshot=dict(self._state))]
            case events.Status() as e:
                self.waiting.pop(e.tool_call_id or "", None)
                self._model = e.backend or self._model
                return [self._custom(entry), *self._state_delta({"status": e.phase, "backend": self._model})]
            case events.Context() | events.ToolInput() | events.ToolOutput():
                return [self._custom(entry)]
            case events.ModelStart():
                out, self._message_id = self._close_message(), None
                return out
            case events.ModelEnd() as e:
                self._count_usage(e)
                return [*self._close_message(), *([self._custom(entry)] if e.timings or e.request else [])]
            case events.Reasoning() as e:
                out = self._retract_message() if e.retracts else []
                return [
                    *out,
                    *self._open_reasoning(),
                    agui.ReasoningMessageContentEvent(message_id=str(self._reasoning_id), delta=e.content),
                ]
            case events.Token() as e:
                out = self._open_message()
                self._current_reply().text.append(e.content)
                out.append(agui.TextMessageContentEvent(message_id=str(self._message_id), delta=e.content))
                return [*out, self._custom(entry)] if e.logprobs else out
            case events.ChainStart() as e:
                return [agui.StepStartedEvent(step_name=self._open_step(e))]
            case events.ChainEnd() as e:
                return [agui.StepFinishedEvent(step_name=self._steps.pop(e.id))]
            case events.ToolStart() as e:
                return self._tool_call(e)
            case events.ToolEnd() as e:
                self.waiting.pop(e.tool_call_id, None)
                self._open_calls.discard(e.tool_call_id)
                return [self._tool_result(e)]
            case events.Approval() as e:
                self.waiting[e.tool_call_id] = e
                return []
            case events.State() as e:
                return self._state_delta(asdict(e))
            case events.Complete() | events.Stopped() | events.Error() as e:
                return self._end(e)
            case _:
                assert_never(entry.event)

    def _open_message(self) -> list[BaseEvent]:
        """Starts a message unless one is open."""
        if self._message_open:
            return []
        out = self._close_message()
        self._message_id, self._message_open = self._new_id(), True
        return [*out, agui.TextMessageStartEvent(message_id=self._message_id, role="assistant")]

    def _current_reply(self) -> _Reply:
        """The message of the current model call."""
        reply = self._replies.setdefault(str(self._message_id), _Reply())
        assert isinstance(reply, _Reply)
        return reply

    def _retract_message(self) -> list[BaseEvent]:
        """Removes the message of the current model call by a snapshot of the others: no event removes a single one."""
        out = self._close_message()
        self._replies.pop(str(self._message_id), None)
        self._message_id = None
        left = [one.message(key) if isinstance(one, _Reply) else one for key, one in self._replies.items()]
        return [*out, agui.MessagesSnapshotEvent(messages=[*self._client_messages, *left])]

    def _open_reasoning(self) -> list[BaseEvent]:
        """Starts a reasoning message unless one is open."""
        if self._reasoning_id:
            return []
        out = self._close_message()
        reasoning_id = self._reasoning_id = self._new_id()
        return [
            *out,
            agui.ReasoningStartEvent(message_id=reasoning_id),
            agui.ReasoningMessageStartEvent(message_id=reasoning_id),
        ]

    def _close_message(self) -> list[BaseEvent]:
        """Ends the open message or reasoning message."""
        out: list[BaseEvent] = []
        if self._message_open and self._message_id:
            out.append(agui.TextMessageEndEvent(message_id=self._message_id))
        if self._reasoning_id:
            out += [
                agui.ReasoningMessageEndEvent(message_id=self._reasoning_id),
                agui.ReasoningEndEvent(message_id=self._reasoning_id),
            ]
        self._message_open, self._reasoning_id = False, None
        return out

    def _open_step(self, start: events.ChainStart) -> str:
        """Gives a step a name that no other open step has."""
        taken, name, number = set(self._steps.values()), start.name, 1
        while name in taken:
            number += 1
            name = f"{start.name} {number}"
        self._steps[start.id] = name
        return name

    def _tool_call(self, start: events.ToolStart) -> list[BaseEvent]:
        """A tool call with its whole input, which is known when the call starts."""
        out, call_id = self._close_message(), self._call_id(start.tool_call_id)
        self._message_id = self._message_id or self._new_id()
        self._open_calls.add(start.tool_call_id)
        arguments = json.dumps(start.input, ensure_ascii=False)
        function = agui.FunctionCall(name=start.tool, arguments=arguments)
        self._current_reply().calls.append(agui.ToolCall(id=call_id, function=function))
        return [
            *out,
            agui.ToolCallStartEvent(
                tool_call_id=call_id, tool_call_name=start.tool, parent_message_id=self._message_id
            ),
            agui.ToolCallArgsEvent(tool_call_id=call_id, delta=arguments),
            agui.ToolCallEndEvent(tool_call_id=call_id),
        ]

    def _tool_result(self, end: events.ToolEnd) -> BaseEvent:
        metadata: JSON = {"duration_s": end.duration_s}
        message_id, call_id, content = self._new_id(), self._call_id(end.tool_call_id), end.output or end.error or ""
        self._replies[message_id] = agui.ToolMessage(id=message_id, role="tool", tool_call_id=call_id, content=content)
        return agui.ToolCallResultEvent(
            message_id=message_id,
            tool_call_id=call_id,
            content=content,
            role="tool",
            metadata=metadata if end.error is None else {**metadata, "error": end.error},
        )

    def _custom(self, entry: Entry) -> BaseEvent:
        value = {name: field for name, field in entry.wire().items() if name not in _ENVELOPE}
        if "tool_call_id" in value:
            value["tool_call_id"] = self._call_id(value["tool_call_id"])
        return agui.CustomEvent(name=entry.type, value=value)

    def _state_delta(self, now: JSON) -> list[BaseEvent]:
        """The changes from the client's state to the current one, as a JSON patch."""
        changes = {name: value for name, value in now.items() if self._state.get(name) != value}
        self._state |= changes
        patch: list[Any] = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in changes.items()]
        return [agui.StateDeltaEvent(delta=patch)] if patch else []

    def _end(self, last: events.Last) -> list[BaseEvent]:
        if isinstance(last, events.Complete):
            result = {"status": "complete", "usage": last.usage, "timing": last.timing}
            return self._finish(agui.RunFinishedSuccessOutcome(), result)
        if isinstance(last, events.Stopped):
            result = {"status": "stopped", "reason": last.reason, "usage": last.usage, "timing": last.timing}
            return self._finish(agui.RunFinishedCancelledOutcome(), result)
        metadata: JSON = {"retryable": last.retryable}
        if last.retry_after is not None:
            metadata["retry_after"] = last.retry_after
        out = self._close_all()
        return [
            *out,
            agui.RunErrorEvent(message=last.message, code=last.code, usage=self._token_usage(), metadata=metadata),
        ]

    def _finish(self, outcome: agui.RunFinishedOutcome, result: JSON | None = None) -> list[BaseEvent]:
        out, usage = self._close_all(), self._token_usage()
        run = agui.RunFinishedEvent(
            thread_id=self._thread_id, run_id=self._agui_run_id, outcome=outcome, result=result, usage=usage
        )
        return [*out, run]

    def _close_all(self) -> list[BaseEvent]:
        self.ended = True
        names: Sequence[str] = [*self._steps.values()]
        return self._close_message() + [agui.StepFinishedEvent(step_name=name) for name in reversed(names)]

    def _count_usage(self, end: events.ModelEnd) -> None:
        usage = end.usage or {}
        if usage.get("estimated") or (end.usage is None and end.error == "cancelled"):
            self._usage_incomplete = True
        for name in ("input_tokens", "output_tokens"):
            if name in usage:
                self._usage[name] = self._usage.get(name, 0) + int(usage[name] or 0)

    def _token_usage(self) -> list[TokenUsage] | None:
        """The provider's counts for this AG-UI run; None if some are estimates, which the protocol cannot mark."""
        input_tokens, output_tokens = self._usage.get("input_tokens"), self._usage.get("output_tokens")
        if self._usage_incomplete or (input_tokens is None and output_tokens is None):
            return None
        total = None if input_tokens is None or output_tokens is None else input_tokens + output_tokens
        return [
            TokenUsage(model=self._model, input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=total)
        ]

    def _new_id(self) -> str:
        """The id of a message. It is unique, since no entry opens two, and the same in each AG-UI run."""
        return f"{self._run_id}-{self._seq}"

    def _call_id(self, call_id: str) -> str:
        """The id of a call, made unique in its thread: some servers number calls from 1 in each reply."""
        return call_id if len(call_id) >= _LONG_ID else f"{self._run_id}-{call_id}"
