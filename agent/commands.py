"""Commands: `/name arguments` runs a tool by the visitor's word, on any backend, also where no model chooses tools."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool

from runs.errors import ChatError
from runs.events import JSON
from runs.text import valid_text

_COMMAND = re.compile(r"/([\w.-]*)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A tool's call that the visitor has asked for."""

    tool: str
    input: JSON
    call_id: str

    def message(self) -> AIMessage:
        """The call as a model would have made it."""
        call = {"name": self.tool, "args": self.input, "id": self.call_id, "type": "tool_call"}
        return AIMessage("", id=f"command {self.call_id}", tool_calls=[call])


def read_command(text: str, tools: Sequence[BaseTool]) -> Command | None:
    """The command in a message; None for a message that is none. Raises ChatError for one that cannot be run."""
    found = _COMMAND.fullmatch(text.strip()) if text.startswith("/") else None
    if found is None:
        return None
    name, rest = found[1], (found[2] or "").strip()
    tool = next((one for one in tools if one.name == name), None)
    if tool is None:
        what = f"There is no command /{name}." if name else "A command needs a name."
        raise ChatError("invalid_request", f"{what} {_listed(tools)} To send it as text, begin with a blank.")
    return Command(name, _input(tool, rest), f"command-{uuid4().hex[:12]}")


def _listed(tools: Sequence[BaseTool]) -> str:
    commands = [f"/{one.name} {' '.join(f'<{arg}>' for arg in list(one.args)[:1])}".strip() for one in tools]
    return f"There are: {', '.join(commands)}." if commands else "No tool is turned on."


def _input(tool: BaseTool, rest: str) -> JSON:
    """Arguments as JSON, or as the text of the first one."""
    if rest.startswith("{"):
        try:
            given = json.loads(valid_text(json.dumps(json.loads(rest), ensure_ascii=False)))
        except (ValueError, RecursionError):
            given = None
        if isinstance(given, dict):
            return given
    first = next(iter(tool.args), None)
    if first is None:
        return {}
    if not rest and "default" not in tool.args[first]:
        raise ChatError("invalid_request", f"/{tool.name} needs something: /{tool.name} <{first}>.")
    return {first: rest} if rest else {}


def folded(messages: Sequence[BaseMessage], command: Command) -> list[BaseMessage]:
    """A command's call and result as the visitor's own words: not all models know tools, and none has chosen this."""
    kept: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage) and message.tool_call_id == command.call_id and kept:
            asked = kept.pop()
            wanted = asked.text.partition(" ")[2].strip() or asked.text
            told = f"Here is what the tool {command.tool} found:\n\n{message.text.strip()}"
            kept.append(HumanMessage(f"{told}\n\nAnswer in two sentences: {wanted}", id=asked.id))
        elif message.id != command.message().id:
            kept.append(message)
    return kept
