"""The tools that models can call, and those that are enabled.

To add a tool: a function with `@streaming_tool` (or any LangChain tool) and a line in `TOOLS`. To enable it: `enabled`
in the settings, and a checkbox on the page.
"""

import importlib
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from langchain_core.tools import BaseTool

from agent.mcp.servers import Servers
from agent.mcp.tools import McpTool, make_tool
from agent.tools.documents import search_tool
from documents.library import Library
from runs.errors import ChatError
from runs.events import JSON
from settings import SettingsError, ToolSettings

TOOLS = {
    "calculator": "agent.tools.calculator:calculator",
    "clock": "agent.tools.clock:clock",
    "count": "agent.tools.count:count",
    "wikipedia": "agent.tools.wikipedia:wikipedia",
    "search": "agent.tools.documents:search_tool",
}
"""The import path of each tool. `search_tool` is a function that makes the tool for a visitor."""


_UNSOUND = re.compile(r"[^A-Za-z0-9_-]")
"""Characters that providers refuse in the name of a tool."""


_SEARCHES = 64
"""Visitors whose tool `search` is kept: to make it takes milliseconds, in each turn."""


_EARLIER, _EARLIER_S = 8, 600.0
"""Earlier sets of all tools that count as all tools, and for how many seconds: a page may still show them."""


class Toolbox:
    """The enabled tools of the app, and those of the servers as far as they are ready."""

    def __init__(self, settings: ToolSettings, library: Library | None = None, servers: Servers | None = None) -> None:
        """Raises SettingsError for a name or path without a tool. Without a library there is no `search`."""
        self.settings, self.library, self.servers = settings, library, servers or Servers()
        self._made = dict(self._make(name) for name in settings.enabled)
        self._own = dict(self._made)
        self._version = 0
        self._earlier: deque[tuple[frozenset[str], float]] = deque(maxlen=_EARLIER)
        if unknown := [name for name in settings.approval if name not in self._made]:
            raise SettingsError(f"tools, approval: found {unknown[0]!r}, allowed: {_listed(self._made)}")

    @property
    def names(self) -> list[str]:
        """The names of the enabled tools, those of each server together."""
        return list(self._current())

    @property
    def approval(self) -> frozenset[str]:
        """The names of the tools whose calls wait for the visitor's approval."""
        servers = [tool(None) for name, tool in self._current().items() if name not in self._own]
        asking = [tool.name for tool in servers if isinstance(tool, McpTool) and tool.server.asks(tool.listed)]
        return frozenset([*self.settings.approval, *asking])

    def is_all(self, chosen: Sequence[str]) -> bool:
        """True for the names of all tools, as they are or as they were when a page was drawn a short time ago."""
        names, now = frozenset(chosen), time.monotonic()
        if names == frozenset(self._current()):
            return True
        return any(names == earlier and now - until < _EARLIER_S for earlier, until in self._earlier)

    def known(self, chosen: Sequence[str] | None) -> list[str]:
        """Returns those of the `chosen` names that are still enabled; None stands for all tools."""
        return [name for name in self._current() if chosen is None or name in chosen]

    def tools(self, visitor: str | None, chosen: Sequence[str] | None = None) -> list[BaseTool]:
        """Returns the tools for a visitor's turn; `chosen` None stands for all. Raises ChatError `invalid_request`."""
        made = self._current()
        if unknown := [name for name in chosen or () if name not in made]:
            raise ChatError("invalid_request", f"There is no tool {unknown[0][:60]!r}; there are: {_listed(made)}.")
        return [made[name](visitor) for name in self.known(chosen)]

    def listed(self) -> list[JSON]:
        """Returns the name, purpose, inputs and need for approval of each tool."""
        approval = self.approval
        return [
            {
                "name": one.name,
                "about": one.description.partition("\n")[0],
                "input": one.args,
                "approval": one.name in approval,
                **({"server": one.server.settings.name} if isinstance(one, McpTool) else {}),
            }
            for one in self.tools(None)
        ]

    def _current(self) -> dict[str, Callable[[str | None], BaseTool]]:
        """Returns the tools by name. Those of servers are made again when one of them has changed."""
        if self._version != self.servers.version:
            self._earlier.append((frozenset(self._made), time.monotonic()))
            found = self.servers.tools(list(self._own))
            made = {name: make_tool(name, server, listed) for name, (server, listed) in found.items()}
            self._made = {**self._own, **{name: partial(_same, tool) for name, tool in made.items()}}
            self._version = self.servers.version
        return self._made

    def _make(self, name: str) -> tuple[str, Callable[[str | None], BaseTool]]:
        """Returns a tool's name, and the function that makes it for a visitor."""
        path = TOOLS.get(name, name)
        if ":" not in path:
            raise SettingsError(f"tools, enabled: found {name!r}, allowed: {_listed(TOOLS)}, or package.module:name")
        module, _, attribute = path.partition(":")
        try:
            found: Any = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as e:
            raise SettingsError(f"tools, enabled: {name!r} cannot be imported: {e}") from None
        if found is search_tool and self.library:
            return name, lru_cache(_SEARCHES)(partial(search_tool, self.library))
        if not isinstance(found, BaseTool):
            raise SettingsError(
                f"tools, enabled: {name!r} is no LangChain tool; write @streaming_tool or @tool above it"
            )
        if (sound := _UNSOUND.sub("_", found.name)[:64]) != found.name:
            found = found.model_copy(update={"name": sound})
        if TOOLS.get(found.name, path) != path:
            raise SettingsError(f"tools, enabled: {name!r} has the name {found.name!r}, which another tool has already")
        return found.name, lambda visitor: found


def _same(tool: BaseTool, visitor: str | None) -> BaseTool:
    return tool


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"
