"""The kind `agent`: a LangGraph graph or any LangChain Runnable, by import path: `class = "my_agent:graph"`.

It answers by itself: Glassbox offers it no tools, and shows its nodes, models, tools and events (`agent/graph_run.py`).
"""

import asyncio
import inspect
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_type_hints

from langchain_core.runnables import Runnable
from pydantic import SecretStr

from backends.agent_io import AgentInput
from backends.base import Health
from backends.foreign_agent import ForeignAgent
from backends.import_path import ImportPathError, import_object, split_path
from backends.keys import Key
from runs.errors import ChatError
from runs.threads import Threads
from settings import BackendSettings

if TYPE_CHECKING:
    from langgraph.pregel import Pregel

logger = logging.getLogger(__name__)

_IMPORTS = 1
"""Threads that import an agent."""


class AgentBackend(ForeignAgent):
    """An entry of the kind `agent`. The agent is imported in the background; a failure is its health's reason."""

    kind = "agent"
    uses = frozenset({"class", "options", "key", "input", "tokens_from", "memory"})

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        self._path = split_path(settings.class_, "package.module:name")
        self._health = Health("loading", "it is being imported")
        self._importing = Threads(f"import {self.name}", _IMPORTS)
        self._loading: asyncio.Task[None] | None = None
        self._agent: Runnable[Any, Any] | None = None
        self.input = AgentInput({})
        """The form of its input."""
        self.is_graph = False
        """Whether it is a graph of LangGraph, which has nodes, a state and interrupts."""
        self.reply_nodes: frozenset[str] = frozenset(settings.tokens_from)
        """The nodes whose text is the reply; empty for all."""

    def health(self) -> Health:
        """Returns whether the agent is imported; a missing key is reported where the entry names one."""
        if self._health.ready and self.settings.key and self.key is None:
            return Health("key_missing", f"it needs a key: enter yours, or set {self.settings.key}")
        return self._health

    async def open(self) -> None:
        """Starts to import the agent."""
        self._loading = asyncio.create_task(self._load(), name=f"import {self.name}")

    async def close(self) -> None:
        """Stops waiting for the import."""
        if self._loading:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    async def wait_ready(self) -> None:
        """Waits until the agent is imported. Raises ChatError."""
        if self._loading:
            await asyncio.shield(self._loading)
        await super().wait_ready()

    def agent(self) -> Runnable[Any, Any]:
        """Returns the agent for one run. A graph without a memory of its own gets one for this run."""
        assert self._agent is not None
        if not self.is_graph or self.keeps_memory:
            return self._agent
        from langgraph.checkpoint.memory import InMemorySaver

        graph: Pregel[Any, Any, Any, Any] = self._agent  # type: ignore[assignment]
        return graph.copy({"checkpointer": InMemorySaver()})

    def configurable(self, run_id: str, conversation_id: str) -> dict[str, Any]:
        """Returns the `configurable` values of a run: its thread, its conversation, and the key.

        The key is a SecretStr, which LangChain's classes take: LangGraph stores texts with its checkpoints.
        """
        thread = conversation_id if self.keeps_memory else run_id
        key = {} if self.key is None else {"api_key": SecretStr(self.key.reveal())}
        return {"thread_id": thread, "conversation_id": conversation_id, **key}

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """Maps an exception; an unknown one counts as a failure of the agent, which may raise anything."""
        if error := super().to_chat_error(exception):
            return error
        if type(exception).__name__ == "GraphRecursionError":
            return ChatError("internal", f"{self.name} took more steps than it may: it may be caught in a loop.")
        logger.error("agent %r failed", self.name, exc_info=exception)
        return ChatError("backend_unavailable", f"{self.name} failed ({type(exception).__name__}). Try again.")

    async def _load(self) -> None:
        try:
            found = await self._importing.run(self._find)
            if inspect.isawaitable(found):
                found = await found
            await self._importing.run(self._accept, found)
        except ImportPathError as e:
            logger.warning("agent %r is not available: %s", self.name, e, exc_info=e.__cause__)
            self._health = Health("unavailable", str(e))
            return
        except Exception as e:
            logger.exception("agent %r is not available", self.name)
            self._health = Health("unavailable", f"{self._path[1]} fails when it is called ({type(e).__name__})")
            return
        self._health = Health("ready")

    def _find(self) -> Any:
        """Imports the agent, or what its factory returns, which may be awaitable."""
        module, name = self._path
        found, options = import_object(module, name), self.settings.options
        if isinstance(found, Runnable) or _is_builder(found):
            if options:
                raise ImportPathError(f"{name} is no factory, so its `options` have no effect")
            return found
        if not callable(found):
            raise ImportPathError(f"{name} is neither a Runnable nor a function that returns one")
        return found(**options)

    def _accept(self, found: Any) -> None:
        """Takes the agent, and finds out its input and the nodes that answer. Raises ImportPathError."""
        if _is_builder(found):
            found = found.compile()
        if not isinstance(found, Runnable):
            raise ImportPathError(f"{self._path[1]} returns {type(found).__name__}, not a LangChain Runnable")
        from langgraph.pregel import Pregel

        self.is_graph = isinstance(found, Pregel)
        if self.keeps_memory and not getattr(found, "checkpointer", None):
            raise ImportPathError('`memory = "own"` needs a graph with a checkpointer')
        try:
            self.input = AgentInput(_input_schema(found), self.settings.input)
        except ValueError as e:
            raise ImportPathError(str(e)) from None
        if isinstance(found, Pregel):
            self._choose_reply_nodes(found)
        self._agent = found

    def _choose_reply_nodes(self, graph: "Pregel[Any, Any, Any, Any]") -> None:
        """Checks `tokens_from`; without it, the reply is what the nodes write after which the graph can end."""
        named = frozenset(self.settings.tokens_from)
        if named:
            inner = {name.rpartition(":")[2] for name in graph.get_graph(xray=True).nodes}
            if unknown := sorted(named - inner - set(graph.nodes)):
                nodes = ", ".join(repr(name) for name in graph.nodes if not name.startswith("__"))
                raise ImportPathError(f"tokens_from: there is no node {unknown[0]!r}; there are {nodes}")
        else:
            drawn = graph.get_graph()
            ends = {key for key, node in drawn.nodes.items() if node.name == "__end__"}
            named = frozenset(edge.source for edge in drawn.edges if edge.target in ends) - {"__start__"}
        self.reply_nodes = named


def _input_schema(agent: Runnable[Any, Any]) -> dict[str, Any]:
    """The JSON schema of an agent's input; empty where it is not known."""
    with suppress(Exception):  # pydantic refuses `typing.TypedDict` before Python 3.12, among others
        return agent.get_input_jsonschema()
    with suppress(Exception):
        hints = get_type_hints(agent.builder.input_schema)  # type: ignore[attr-defined]  # a graph's
        return {"properties": {name: {"type": "string" if kind is str else repr(kind)} for name, kind in hints.items()}}
    return {}


def _is_builder(found: Any) -> bool:
    """Whether this is a StateGraph that was not compiled."""
    return type(found).__name__ == "StateGraph" and hasattr(found, "compile")
