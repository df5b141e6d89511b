"""The tools that models can call, and those that are enabled.

To add a tool: a function with `@streaming_tool` (or any LangChain tool) and a line in `TOOLS`. To enable it: `enabled`
in the settings, and a checkbox on the page.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from langchain_core.tools import BaseTool

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


class Toolbox:
    """The enabled tools of the app."""

    def __init__(self, settings: ToolSettings, library: Library | None = None) -> None:
        """Raises SettingsError for a name or path without a tool. Without a library there is no `search`."""
        self.settings, self.library = settings, library
        self._made = dict(self._make(name) for name in settings.enabled)
        if unknown := [name for name in settings.approval if name not in self._made]:
            raise SettingsError(f"tools, approval: found {unknown[0]!r}, allowed: {_listed(self._made)}")

    @property
    def names(self) -> list[str]:
        """The names of the enabled tools."""
        return list(self._made)

    def known(self, chosen: Sequence[str] | None) -> list[str]:
        """Returns those of the `chosen` names that are still enabled; None stands for all tools."""
        return [name for name in self._made if chosen is None or name in chosen]

    def tools(self, visitor: str | None, chosen: Sequence[str] | None = None) -> list[BaseTool]:
        """Returns the tools for a visitor's turn; `chosen` None stands for all. Raises ChatError `invalid_request`."""
        if unknown := [name for name in chosen or () if name not in self._made]:
            raise ChatError(
                "invalid_request", f"There is no tool {unknown[0][:60]!r}; there are: {_listed(self._made)}."
            )
        return [self._made[name](visitor) for name in self.known(chosen)]

    def listed(self) -> list[JSON]:
        """Returns the name, purpose, inputs and need for approval of each tool."""
        return [
            {
                "name": one.name,
                "about": one.description.partition("\n")[0],
                "input": one.args,
                "approval": one.name in self.settings.approval,
            }
            for one in self.tools(None)
        ]

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


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"
