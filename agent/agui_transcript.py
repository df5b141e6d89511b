"""The messages of an AG-UI thread as a client assembles them, for the request that continues an interrupted run."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agent.tool_results import text_of_result
from backends.agui import outside_id
from backends.agui_client import Received
from runs.events import JSON
from runs.json_text import encode_json

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "system": "system", "tool": "tool"}
_MOST_MESSAGES = 2000
"""Messages of a run that are kept."""


class Transcript:
    """The messages that were sent, and those of the run so far."""

    def __init__(self, messages: Sequence[BaseMessage]) -> None:
        """`messages` are the model input."""
        self._before = [_sent(message) for message in messages]
        self._found: dict[str, JSON] = {}
        """The run's messages by id. The texts of an assistant's are a list until they are sent."""
        self.answer = ""
        """The last message of the assistant in the latest snapshot, if it follows the last one of the user."""

    @property
    def messages(self) -> list[JSON]:
        """All messages, in the form of AG-UI."""
        found = [{**one, "content": "".join(one["content"])} for one in self._found.values()]
        return [*self._before, *found]

    def add_text(self, message_id: str, delta: str) -> None:
        """Adds a piece of a message of the assistant."""
        if message := self._assistant(message_id):
            message["content"].append(delta)

    def add_call(self, message_id: str, call_id: str, name: str, arguments: str) -> None:
        """Adds a tool call to a message of the assistant."""
        if message := self._assistant(message_id):
            function = {"name": name, "arguments": arguments or "{}"}
            message.setdefault("toolCalls", []).append({"id": call_id, "type": "function", "function": function})

    def add_result(self, message_id: str, call_id: str, content: str) -> None:
        """Adds the result of a tool call."""
        if len(self._found) < _MOST_MESSAGES:
            message = {"id": message_id, "role": "tool", "toolCallId": call_id, "content": [content]}
            self._found[f"tool {message_id}"] = message

    def replace(self, messages: Sequence[Any]) -> None:
        """Replaces all messages by those of a snapshot."""
        self._before = [dict(one) for one in messages if isinstance(one, Mapping)]
        self._found = {}
        self.answer = ""
        for message in self._before:
            if message.get("role") == "user":
                self.answer = ""
            elif message.get("role") == "assistant" and isinstance(content := message.get("content"), str):
                self.answer = content if content.strip() else self.answer

    def _assistant(self, message_id: str) -> JSON | None:
        if message_id not in self._found and len(self._found) >= _MOST_MESSAGES:
            return None
        return self._found.setdefault(message_id, {"id": message_id, "role": "assistant", "content": []})


def _sent(message: BaseMessage) -> JSON:
    """A message of the model input in the form of AG-UI. Its id stands for ours and does not tell it."""
    role = _ROLES.get(message.type, "user")
    sent: JSON = {"id": outside_id(str(message.id)), "role": role, "content": text_of_result(message.content)}
    if isinstance(message, AIMessage) and message.tool_calls:
        sent["toolCalls"] = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": encode_json(c["args"])}}
            for c in message.tool_calls
        ]
    return sent | ({"toolCallId": message.tool_call_id} if isinstance(message, ToolMessage) else {})


def arguments_in(event: Received, call_id: str) -> str:
    """Returns the arguments of a call in a snapshot of messages, or of LangGraph's state; empty if it has none."""
    snapshot = event.get("snapshot")
    messages = snapshot.get("messages") if isinstance(snapshot, Mapping) else event.get("messages")
    for message in reversed(messages) if isinstance(messages, list) else ():
        calls = message.get("toolCalls") or message.get("tool_calls") if isinstance(message, Mapping) else None
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, Mapping) and call.get("id") == call_id:
                function = call.get("function")
                found = function.get("arguments") if isinstance(function, Mapping) else call.get("args")
                return found if isinstance(found, str) else encode_json(found or {})
    return ""
