"""The input that an agent takes, and the text of its answer, in the forms of LangGraph and LangChain.

A graph's state has named fields, mostly `messages`. A chain takes a text, messages, or the fields of its prompt.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

MESSAGES, TEXT = "messages", "text"
"""Values of `input` in the settings; any other is the name of a field."""
_FIELDS = ("messages", "input", "question", "query", "message", "prompt", "text", "topic")
"""Fields for the visitor's message, in this order, where several could be."""
_HISTORIES = ("chat_history", "history", "messages")
"""Fields for the earlier messages."""
_ANSWERS = ("answer", "output", "result", "response", "reply", "text", "content", "final")


class AgentInput:
    """The form of an agent's input."""

    def __init__(self, schema: Mapping[str, Any], setting: str | None = None) -> None:
        """`schema` is the JSON schema of the input; `setting` comes first. Raises ValueError if neither is clear."""
        schema = _resolved(schema)
        fields = schema.get("properties") or {}
        self.field: str | None = None
        """The field for the visitor's message, None if the input has no fields."""
        self.in_list = False
        """Whether messages are given, not the text of the visitor's message."""
        self.history = next((name for name in _HISTORIES if name in fields and name != setting), None)
        """The field for the earlier messages, beside one for the text."""
        if setting == TEXT:
            self.history = None
        elif setting == MESSAGES and not fields:
            self.in_list = True
        elif setting or fields:
            self.field = setting or _field_of(fields)
            self.in_list = self.field == MESSAGES or _takes_messages(fields.get(self.field, {}))
            self.history = None if self.in_list or self.history == self.field else self.history
        else:
            self.in_list = _takes_messages(schema)

    def value(self, messages: Sequence[BaseMessage]) -> Any:
        """Returns the input for these messages, whose last one is the visitor's."""
        last: Any = list(messages) if self.in_list else messages[-1].text
        if self.field is None:
            return last
        return {self.field: last} | ({self.history: list(messages[:-1])} if self.history else {})


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follows a reference at the top of a schema."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found = (schema.get("$defs") or {}).get(name)
    return {**found, "$defs": schema["$defs"]} if isinstance(found, Mapping) else schema


def _field_of(fields: Mapping[str, Any]) -> str:
    texts = [name for name in fields if name not in _HISTORIES or name == MESSAGES]
    if found := next((name for name in _FIELDS if name in texts), None):
        return found
    if len(texts) == 1:
        return texts[0]
    names = ", ".join(map(repr, fields))
    raise ValueError(f"its input has the fields {names}: name the one for the visitor's message in `input`")


def _takes_messages(schema: Any) -> bool:
    """Whether a value of this schema can be a list of messages."""
    text = json.dumps(schema)
    return "HumanMessage" in text or "BaseMessage" in text or '"type": "array"' in text


def answer_text(output: Any) -> str:
    """Returns the text of an agent's output: its last message, a field that is named as answers are, or JSON."""
    if output is None or isinstance(output, str):
        return output or ""
    if isinstance(output, BaseMessage):
        return output.text
    if isinstance(output, Mapping):
        messages = output.get("messages")
        if isinstance(messages, Sequence) and not isinstance(messages, str):
            return _last_answer(messages)
        fields = [output[name] for name in _ANSWERS if output.get(name)]
        texts = [answer_text(value) for value in fields if isinstance(value, str | BaseMessage)]
        if texts:
            return texts[0]
    return json.dumps(shown(output), ensure_ascii=False, indent=1)


def _last_answer(messages: Sequence[Any]) -> str:
    """Returns the last text of a model after the last message of a person; empty if there is none."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage) and message.text.strip():
            return message.text
    return ""


def shown(value: Any, depth: int = 6) -> Any:
    """Returns a value of a state as JSON for display; a message as {role, content}."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, BaseMessage):
        calls = [{"name": call["name"], "args": shown(call["args"], depth - 1)} for call in _calls(value)]
        return {"role": value.type, "content": value.text} | ({"tool_calls": calls} if calls else {})
    if depth == 0:
        return str(value)[:200]
    if isinstance(value, Mapping):
        return {str(key): shown(one, depth - 1) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [shown(one, depth - 1) for one in value]
    if hasattr(value, "page_content"):  # a document
        return {"content": str(value.page_content), "metadata": shown(getattr(value, "metadata", {}), depth - 1)}
    if hasattr(value, "model_dump"):
        return shown(value.model_dump(), depth - 1)
    if hasattr(value, "update") and hasattr(value, "goto"):  # langgraph's Command
        return {"goto": shown(value.goto, depth - 1), "update": shown(value.update, depth - 1)}
    return str(value)


def _calls(message: BaseMessage) -> Sequence[Any]:
    return message.tool_calls if isinstance(message, AIMessage) else ()
