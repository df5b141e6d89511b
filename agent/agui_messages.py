"""The text, the thinking and the tool arguments of a remote agent, as calls of a model.

AG-UI does not tell of model calls. Each message that is written counts as one: it begins with its first piece, ends
where something else begins, and goes through the mapping of our own loop (`event_mapper.py`), which counts its tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata

from agent.event_mapper import MapperState, map_event, written_text
from agent.shown_steps import StepCount
from agent.thinking_tags import Tags, without_thinking
from backends.model_events import TOOL_INPUT
from runs import events
from runs.events import Event
from runs.text import valid_text


class WrittenMessages:
    """A fold over what a remote agent writes. `now` is in seconds of any clock."""

    def __init__(self, name: str, shown: StepCount) -> None:
        """`name` is that of the bars on the timeline."""
        self._name, self._shown = name, shown
        self._state = MapperState()
        self._call: str | None = None
        """The id of the open call."""
        self._count = 0
        self._parent: str | None = None
        self._text_id: str | None = None
        """The id of the message whose text the open call has written."""
        self._counted = {"input_tokens": 0, "output_tokens": 0}
        """The tokens of the ended calls of this request."""
        self._retracted = ""
        """A text that turned out to be thinking; the agent may repeat it as such."""
        self._texts: dict[str, str] = {}
        """What each call has written into the reply."""

    def begin_request(self, tokens: int) -> None:
        """Begins a request in which the agent is given so many tokens; its first call counts them."""
        self._state = replace(self._state, given=tokens)
        self._counted = dict.fromkeys(self._counted, 0)

    def text(self, message_id: str, delta: str, parent: str | None, now: float) -> list[Event]:
        """Returns the events for a piece of a message."""
        ended = self.end(now) if self._text_id not in (None, message_id) else []
        self._text_id = message_id
        return ended + self._written(AIMessageChunk(content=delta), parent, now)

    def thought(self, delta: str, parent: str | None, now: float) -> list[Event]:
        """Returns the events for a piece of thinking. Thinking after a text begins another call."""
        if self._retracted and delta.strip() == self._retracted:
            self._retracted = ""
            return []
        ended = self.end(now) if self._text_id is not None else []
        return ended + self._written(
            AIMessageChunk(content="", additional_kwargs={"reasoning_content": delta}), parent, now
        )

    def arguments(self, tool: str, call_id: str, delta: str, parent: str | None, now: float) -> list[Event]:
        """Returns the events for a piece of the arguments of a tool call."""
        found = self._begin(parent, now)
        data = {"tool": tool, "tool_call_id": call_id, "delta": valid_text(delta)}
        return found + self._map("on_custom_event", data, now, name=TOOL_INPUT)

    def end(self, now: float) -> list[Event]:
        """Returns the events for the end of the open call, where another one can be shown after it."""
        return [] if self._shown.full else self.close(now)

    def close(self, now: float, usage: Sequence[Mapping[str, Any]] = ()) -> list[Event]:
        """Returns the events for the end of the open call, if there is one.

        `usage` is what the agent reports of its whole run; this call gets what the earlier ones do not have.
        """
        if self._call is None:
            return []
        found = self._map("on_chat_model_end", {"output": self._reported(usage)}, now)
        self._call = self._text_id = None
        self._state = replace(self._state, given=0)  # nothing is known of what later calls were given
        for event in found:
            if isinstance(event, events.ModelEnd) and event.usage:
                for name in self._counted:
                    self._counted[name] += event.usage[name]
        return found

    def retract(self, kept: Sequence[Mapping[str, Any]]) -> list[Event]:
        """Returns the event for a text that another Glassbox takes back: it is not in a snapshot of the messages."""
        text = self._texts.get(self._call or "", "").strip()
        gone = self._text_id and all(self._text_id != one.get("id") and text != one.get("content") for one in kept)
        if not text or not gone or not kept:
            return []
        self._texts.pop(str(self._call))
        self._text_id, self._retracted = None, text
        gap = "\n\n" if self._state.wrote_before else ""
        self._state = replace(self._state, wrote=self._state.wrote_before, gap=gap)
        return [events.Reasoning(text, retracts=True)]

    def rest(self, text: str) -> list[Event]:
        """Returns the events for an answer, unless it was written already: an agent may tell it only at its end."""
        text = valid_text(without_thinking(text, Tags()))
        if not text.strip() or text.strip() in (one.strip() for one in self._texts.values()):
            return []
        found, self._state = written_text(text, self._state)
        return found

    def _written(self, chunk: AIMessageChunk, parent: str | None, now: float) -> list[Event]:
        return self._begin(parent, now) + self._map("on_chat_model_stream", {"chunk": chunk}, now)

    def _begin(self, parent: str | None, now: float) -> list[Event]:
        """Begins a call unless one is open."""
        if self._call is not None:
            return []
        self._shown.count += 1
        self._count += 1
        self._call, self._parent = f"message-{self._count}", parent
        return self._map("on_chat_model_start", {}, now, name=self._name)

    def _map(self, kind: str, data: Mapping[str, Any], now: float, name: str = "") -> list[Event]:
        parents = [self._parent] if self._parent else []
        raw = {"event": kind, "run_id": self._call, "name": name, "data": data, "parent_ids": parents}
        found, self._state = map_event(raw, self._state, now)
        for event in found:
            if isinstance(event, events.Token) and self._call:
                self._texts[self._call] = self._texts.get(self._call, "") + event.content
        return found

    def _reported(self, usage: Sequence[Mapping[str, Any]]) -> AIMessage | None:
        """The rest of the reported counts, in LangChain's form; None where none are reported."""
        read, written = (sum(_count(one.get(name)) for one in usage) for name in ("inputTokens", "outputTokens"))
        if not read and not written:
            return None
        read = max(0, read - self._counted["input_tokens"])
        written = max(0, written - self._counted["output_tokens"])
        counts = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return AIMessage("", usage_metadata=counts)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0
