"""The mapping of the events of AG-UI, which a remote agent sends, to ours.

It reads liberally: an event of an unknown type is skipped, and so is the end of what has not begun; what was not begun
begins with its first piece. Both the THINKING events before 1.0 and the REASONING events are read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.agui_calls import RemoteCalls
from agent.agui_fields import id_field, list_field, text_field
from agent.agui_glassbox import glassbox_events
from agent.agui_messages import WrittenMessages
from agent.agui_state import RemoteState
from agent.agui_steps import RemoteSteps
from agent.agui_transcript import Transcript, arguments_in
from agent.shown_steps import StepCount
from backends.agui_client import FailedRun, InvalidEvent, NoAgent, Received
from runs import events
from runs.events import Event
from runs.text import valid_text

EARLIER_STATE = "state of the turn before"
"""The name of the event that shows what is sent back of the agent's state."""
INTERRUPT = "on_interrupt"
"""The custom event with which `ag-ui-langgraph` tells of an interrupt."""
_MOST_INTERRUPTS = 20
"""Most interrupts at the end of a run."""
_BETWEEN = {"RAW", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"}
"""Events that may come between the end of a call and the snapshot that has its arguments."""
_MARKS = ("STEP_", "SUBAGENT_", "TOOL_CALL_START", "TOOL_CALL_RESULT", "CUSTOM", "RUN_FINISHED")
"""Events before which changes of the state are shown; an agent may change it with each token."""
_GATHERED_S = 2.0
"""Seconds for which changes of the state are gathered otherwise."""


class AguiMapper:
    """A fold over the events of one turn, which may take several runs of the agent.

    `now` is in seconds of any clock.
    """

    def __init__(self, name: str, transcript: Transcript, state: Any = None) -> None:
        """`name` is that of the backend, and `state` that of the agent at the end of the turn before."""
        self.acted = False
        """Whether the agent has done something, so that it must not be started again."""
        self.finished: Received | None = None
        """The last event of a run that did not fail."""
        self.interrupts: list[Received] = []
        """The custom events with interrupts in this run."""
        self.transcript = transcript
        self.state = RemoteState(state)
        self._name, self._known = name, False
        self.is_glassbox = False
        """Whether the agent is another Glassbox."""
        self._shown = StepCount()
        self._changed_at: float | None = None
        """The time of the first change of the state that was not shown, None if there is none."""
        self.messages = WrittenMessages(name, self._shown)
        self.calls = RemoteCalls(self._shown)
        self._steps = RemoteSteps(self._shown)
        self._other = ""
        """The id of the latest message that is not the assistant's. Its text is not shown."""
        self._message = ""
        """The id of the latest message."""
        self._bare: list[str] = []
        """Calls that have ended without arguments: those that a model sends whole may be only in the next snapshot."""

    def earlier_state(self) -> list[Event]:
        """Returns the events that show the state of the turn before, which the agent is sent."""
        return self._steps.event({}, EARLIER_STATE, self.state.value) if self.state.value else []

    def begin_request(self, tokens: int) -> None:
        """Begins another run of the agent, which is given so many tokens."""
        self.finished, self.interrupts = None, []
        self.messages.begin_request(tokens)

    def map(self, event: Received, now: float) -> list[Event]:
        """Returns our events for one of AG-UI. Raises FailedRun, InvalidEvent and NoAgent."""
        kind = event.get("type")
        handler: Callable[[Received, float], list[Event]] | None = getattr(self, f"_on_{str(kind).lower()}", None)
        if handler is None:
            if not self._known and not str(kind).isupper():
                raise NoAgent("another kind of stream")
            return []
        self._known = True
        try:
            found = [] if kind in _BETWEEN else self._start_bare_calls(event, now)
            if str(kind).startswith(_MARKS) or now - (self._changed_at or now) > _GATHERED_S:
                found += self._changes(event)
            return found + handler(event, now)
        except RecursionError:
            raise InvalidEvent(f"{kind}: nested too deeply") from None

    def waiting(self) -> Event:
        """Returns the status while nothing comes: a tool runs, or the agent works."""
        running = [call.name for call in self.calls.open.values() if call.started is not None and not call.refused]
        if running:
            return events.Status("tool", f"Calling {', '.join(running[:3])}")
        return events.Status("waiting", f"Waiting for {self._name}")

    def close(self, now: float, *, pausing: bool) -> list[Event]:
        """Returns the ends of what is open at the end of a run. Calls stay open if it only pauses."""
        usage = self.finished.get("usage") if self.finished else None
        reported = [one for one in usage if isinstance(one, Mapping)] if isinstance(usage, list) else []
        found = self.messages.close(now, reported)
        if not pausing:
            found += self.calls.close(now)
        return found + self._steps.close()

    # the run

    def _on_run_started(self, event: Received, now: float) -> list[Event]:
        return []

    def _on_run_finished(self, event: Received, now: float) -> list[Event]:
        self.finished = event
        return []

    def _on_run_error(self, event: Received, now: float) -> list[Event]:
        raise FailedRun(event)

    # messages

    def _on_text_message_start(self, event: Received, now: float) -> list[Event]:
        self._message = id_field(event, "messageId")
        if event.get("role") not in (None, "assistant"):
            self._other = self._message
        return []

    def _on_text_message_content(self, event: Received, now: float) -> list[Event]:
        message_id, delta = id_field(event, "messageId") or self._message, text_field(event, "delta")
        if not delta or (message_id and message_id == self._other):
            return []
        self.transcript.add_text(message_id, delta)
        return self.messages.text(message_id, delta, self._steps.around(event), now)

    def _on_text_message_chunk(self, event: Received, now: float) -> list[Event]:
        if event.get("messageId"):
            self._on_text_message_start(event, now)
        return self._on_text_message_content({**event, "delta": event.get("delta") or ""}, now)

    def _on_thinking_text_message_content(self, event: Received, now: float) -> list[Event]:
        delta = text_field(event, "delta")
        return self.messages.thought(delta, self._steps.around(event), now) if delta else []

    def _on_reasoning_message_content(self, event: Received, now: float) -> list[Event]:
        return self._on_thinking_text_message_content(event, now)

    def _on_reasoning_message_chunk(self, event: Received, now: float) -> list[Event]:
        return self._on_thinking_text_message_content({**event, "delta": event.get("delta") or ""}, now)

    def _on_messages_snapshot(self, event: Received, now: float) -> list[Event]:
        messages = list_field(event, "messages")
        self.transcript.replace(messages)
        kept = [one for one in messages if isinstance(one, Mapping)]
        return self.messages.retract(kept) if self.is_glassbox else []

    # tool calls

    def _on_tool_call_start(self, event: Received, now: float) -> list[Event]:
        self.acted = True
        call_id = text_field(event, "toolCallId")
        if call_id in self.calls.open:
            return []
        self._message = id_field(event, "parentMessageId") or self._message
        return self.calls.begin(call_id, event.get("toolCallName"), self._steps.around(event))

    def _on_tool_call_args(self, event: Received, now: float) -> list[Event]:
        call, delta = self.calls.open.get(text_field(event, "toolCallId")), text_field(event, "delta")
        if call is None or call.started is not None or not delta:
            return []
        call.pieces.append(delta)
        return self.messages.arguments(call.name, call.id, delta, call.parent, now)

    def _on_tool_call_end(self, event: Received, now: float) -> list[Event]:
        call_id = text_field(event, "toolCallId")
        call = self.calls.open.get(call_id)
        if call is not None and not call.pieces and call.parent is not None:  # only servers with steps do so
            self._bare.append(call_id)
            return []
        return self._run_call(call_id, now)

    def _on_tool_call_chunk(self, event: Received, now: float) -> list[Event]:
        found = self._on_tool_call_start(event, now)
        return found + self._on_tool_call_args({**event, "delta": event.get("delta") or ""}, now)

    def _on_tool_call_result(self, event: Received, now: float) -> list[Event]:
        call_id, content = text_field(event, "toolCallId"), event.get("content")
        found = list[Event]()
        if call_id not in self.calls.open:
            found = self._on_tool_call_start({**event, "toolCallName": None}, now)
        found += self._run_call(call_id, now)
        self.transcript.add_result(id_field(event, "messageId"), call_id, valid_text(str(content or "")))
        found += self.calls.end(call_id, content, event.get("metadata"), now)
        return [*found, self.waiting()] if found and not self.calls.open else found

    def _start_bare_calls(self, event: Received, now: float) -> list[Event]:
        found, bare, self._bare = list[Event](), self._bare, []
        for call_id in bare:
            call, arguments = self.calls.open.get(call_id), arguments_in(event, call_id)
            if call is not None and arguments:
                call.pieces.append(arguments)
            found += self._run_call(call_id, now)
        return found

    def _run_call(self, call_id: str, now: float) -> list[Event]:
        """The events for a call whose arguments are complete."""
        call = self.calls.open.get(call_id)
        if call is None or call.started is not None:
            return []
        self.transcript.add_call(self._message, call_id, call.name, call.arguments)
        return [*self.messages.end(now), *self.calls.start(call_id, now)]

    # steps and events

    def _on_step_started(self, event: Received, now: float) -> list[Event]:
        return [*self.messages.end(now), *self._steps.begin(event, text_field(event, "stepName"))]

    def _on_step_finished(self, event: Received, now: float) -> list[Event]:
        return self._steps.end(event, text_field(event, "stepName"))

    def _on_subagent_started(self, event: Received, now: float) -> list[Event]:
        call = self.calls.open.get(str(event.get("parentToolCallId")))
        return [*self.messages.end(now), *self._steps.begin_subagent(event, call.id if call else None)]

    def _on_subagent_finished(self, event: Received, now: float) -> list[Event]:
        return [*self.messages.end(now), *self._steps.end_subagent(event, event.get("result"))]

    def _on_subagent_error(self, event: Received, now: float) -> list[Event]:
        error = valid_text(str(event.get("message") or "it failed"))
        return [*self.messages.end(now), *self._steps.end_subagent(event, None, error)]

    def _on_custom(self, event: Received, now: float) -> list[Event]:
        self.acted = True
        name, value = text_field(event, "name"), event.get("value")
        if name == INTERRUPT:
            if len(self.interrupts) < _MOST_INTERRUPTS:
                self.interrupts.append(event)
            return []
        found = glassbox_events(name, value, self.calls)
        self.is_glassbox = self.is_glassbox or found is not None
        return self._steps.event(event, name, value) if found is None else found

    def _on_raw(self, event: Received, now: float) -> list[Event]:
        value = event.get("event")
        kind = value.get("event") or value.get("type") if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and "run_id" in value and str(kind).startswith("on_"):
            return []  # `ag-ui-langgraph` repeats all events of LangChain, whose contents come in others
        return self._steps.event(event, str(kind or event.get("source") or "raw"), value)

    def _on_activity_snapshot(self, event: Received, now: float) -> list[Event]:
        return self._steps.event(event, str(event.get("activityType") or "activity"), event.get("content"))

    def _on_activity_delta(self, event: Received, now: float) -> list[Event]:
        return self._steps.event(event, str(event.get("activityType") or "activity"), event.get("patch"))

    def _on_state_snapshot(self, event: Received, now: float) -> list[Event]:
        if self._shown.full:
            return []
        return self._changed(event, self.state.replace(event.get("snapshot")), now)

    def _on_state_delta(self, event: Received, now: float) -> list[Event]:
        self.acted = True
        operations = list_field(event, "delta")
        return [] if self._shown.full else self._changed(event, self.state.patch(operations), now)

    def _changed(self, event: Received, at_once: Sequence[Any], now: float) -> list[Event]:
        """The events for what must be shown at once; other changes are gathered."""
        self._changed_at = None if at_once else self._changed_at or now
        return [one for value in at_once for one in self._steps.event(event, "state", value)]

    def _changes(self, event: Received) -> list[Event]:
        """The event for the gathered changes of the state."""
        if self._changed_at is None:
            return []
        self._changed_at, new = None, self.state.changes()
        return [] if new is None else self._steps.event(event, "state", new)
