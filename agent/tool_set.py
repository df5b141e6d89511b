"""The tools of one turn, and the limits of their calls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_core.tools import BaseTool

from agent.commands import Command, read_command
from agent.tools import Toolbox
from backends import Backend
from settings import ToolSettings


@dataclass(frozen=True, slots=True)
class ToolSet:
    """The tools that a turn may use. The limits of their calls are those of `ToolSettings`."""

    tools: Sequence[BaseTool] = ()
    command: Command | None = None
    """The tool call that the visitor typed; it runs first."""
    hidden: frozenset[str] = frozenset()
    """Names of tools that the command may use and the model may not."""
    approval: frozenset[str] = frozenset()
    """Names of tools whose calls wait for the visitor's approval."""
    seconds: float = 60.0
    """Timeout of one call, in seconds."""
    result_characters: int = 6000
    """Longest result, in characters."""
    rounds: int = 8
    """Most rounds of tool calls in one reply."""

    @property
    def offered(self) -> list[BaseTool]:
        """The tools that the model may call."""
        return [tool for tool in self.tools if tool.name not in self.hidden]

    @property
    def direct(self) -> frozenset[str]:
        """Names of the tools whose result is the reply (`return_direct=True`)."""
        return frozenset(tool.name for tool in self.tools if tool.return_direct)

    def with_backend_tools(self, backend: Backend) -> "ToolSet":
        """Returns a copy that has the backend's own tools too."""
        known = {tool.name for tool in self.tools}
        own = [tool for tool in backend.tools if tool.name not in known]
        return replace(self, tools=[*self.tools, *own], approval=self.approval | backend.approval)


def build_tool_set(
    toolbox: Toolbox, settings: ToolSettings, text: str, visitor: str | None, names: Sequence[str] | None
) -> ToolSet:
    """Returns the named tools, None for all, and the command in the message. A command may use any tool.

    Raises ChatError `invalid_request` for an unknown tool or command.
    """
    tools, every = toolbox.tools(visitor, names), toolbox.tools(visitor)
    command = read_command(text, every)
    hidden = frozenset({command.tool} if command else ()) - {tool.name for tool in tools}
    return ToolSet(
        [*tools, *(tool for tool in every if tool.name in hidden)],
        command,
        hidden,
        toolbox.approval,
        settings.seconds,
        settings.result_characters,
        settings.rounds,
    )
