"""Commands: `/name arguments` runs a tool, on any backend, also where the model is offered no tools."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool

from agent.image_blocks import image_blocks, user_message
from runs.errors import ChatError
from runs.events import JSON
from runs.text import valid_text

_COMMAND = re.compile(r"/([\w.-]*)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A tool call that the visitor typed."""

    tool: str
    input: JSON
    call_id: str

    def message(self) -> AIMessage:
        """Returns the call as a message of the model."""
        call = {"name": self.tool, "args": self.input, "id": self.call_id, "type": "tool_call"}
        return AIMessage("", id=f"command {self.call_id}", tool_calls=[call])


def read_command(text: str, tools: Sequence[BaseTool]) -> Command | None:
    """Returns the command in a message, None if there is none. Raises ChatError for one that cannot be run."""
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
    """Returns the arguments: a JSON object, or the text as the first argument."""
    if rest.startswith("{"):
        try:
            arguments = json.loads(valid_text(json.dumps(json.loads(rest), ensure_ascii=False)))
        except (ValueError, RecursionError):
            arguments = None
        if isinstance(arguments, dict):
            return arguments
    first = next(iter(tool.args), None)
    if first is None:
        return {}
    if not rest and _is_required(tool, first):
        raise ChatError("invalid_request", f"/{tool.name} needs something: /{tool.name} <{first}>.")
    return {first: rest} if rest else {}


def _is_required(tool: BaseTool, argument: str) -> bool:
    schema = tool.args_schema
    if isinstance(schema, dict):
        return argument in schema.get("required", ())
    return "default" not in tool.args[argument]


def folded(messages: Sequence[BaseMessage], command: Command) -> list[BaseMessage]:
    """Folds a command's call and result into the user message: not all models accept tools, and none made this call."""
    kept: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage) and message.tool_call_id == command.call_id and kept:
            user = kept.pop()
            question = user.text.partition(" ")[2].strip() or user.text
            found = f"Here is what the tool {command.tool} found:\n\n{message.text.strip()}"
            text = f"{found}\n\nAnswer in two sentences: {question}"
            kept.append(user_message(text, user.id, image_blocks(user)))
        elif message.id != command.message().id:
            kept.append(message)
    return kept
