"""The mapping of a foreign agent's events (`astream_events`, version "v2") to ours.

The agent is a graph of LangGraph or a chain. Its models are mapped as our own loop's are (`event_mapper.py`). A graph's
reply is the text of its `reply_nodes`, a chain's what it streams itself; what other models write is shown as thinking.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage

from agent.event_mapper import ROLES, MapperState, map_event, written_text
from agent.model_input import ModelInput
from agent.shown_steps import MOST_ERROR, MOST_OUTPUT, StepCount, fitting, shown_name
from agent.thinking_tags import Tags, without_thinking
from agent.tool_results import input_for_display, shortened, text_of_result
from backends.agent_io import answer_text, shown
from runs import events
from runs.contexts import abbreviate_context
from runs.events import JSON, Context, Event
from runs.text import valid_text
from runs.tokens import estimate_tokens

_MODEL = {f"on_llm_{edge}": f"on_chat_model_{edge}" for edge in ("start", "stream", "end")}
"""The events of models that complete texts, as those of chat models."""
Raw = Mapping[str, Any]


class GraphMapper:
    """A fold over the events of one run of an agent."""

    def __init__(self, model_input: ModelInput, context: Context, reply_nodes: frozenset[str] | None) -> None:
        """`context` is what the agent was given. `reply_nodes` is None for a chain, and empty for all nodes."""
        self.acted = False
        """Whether a tool or an event of the agent's own has begun, so that it must not be started again."""
        self.output: Any = None
        """The output of a chain."""
        self._model_input, self._context, self._reply_nodes = model_input, context, reply_nodes
        self._state = MapperState()
        self._root: str | None = None
        self._steps: dict[str, float] = {}
        """The start of each step on the timeline, by id."""
        self._tools: dict[str, str] = {}
        """The `tool_call_id` of each tool call, by id."""
        self._names: dict[str, str] = {}
        """The names of the tools, by the ids of their calls."""
        self._requested: list[tuple[str, str, Any]] = []
        """The id, name and arguments of calls that models have requested, and that have not begun."""
        self._held: Raw | None = None
        """A chain's model chunk: it is part of the reply if the chain streams the same text next."""
        self._texts: dict[str, str] = {}
        """What each model call, or the chain itself, has written into the reply, by its id."""
        self._nodes: list[tuple[str, str, str | None]] = []
        """The open nodes, as (id, name, parent's id), the latest one last."""
        self._shown = StepCount()

    def map(self, raw: Raw, now: float) -> list[Event]:
        """Returns our events for one of the agent's; `now` is in seconds of any clock."""
        kind = str(_MODEL.get(raw["event"], raw["event"]))
        if self._root is None:
            self._root = raw["run_id"]
        found = self._map(kind, {**raw, "event": kind}, now)
        for event in found:
            if isinstance(event, events.Token):
                self._texts[raw["run_id"]] = self._texts.get(raw["run_id"], "") + event.content
        return found

    def pause(self, now: float) -> list[Event]:
        """Returns the ends of the open steps of an interrupted graph, which begins them again when it continues."""
        found = list[Event]()
        for step, started in reversed(self._steps.items()):
            if step in self._tools:
                found.append(events.ToolEnd(self._names[step], self._tools[step], "", round(now - started, 3)))
            else:
                found.append(events.ChainEnd(step, None))
        self._steps, self._nodes, self._root = {}, [], None
        return found

    def finish(self, output: Any) -> list[Event]:
        """Returns the rest of the reply, where nothing streamed it: a node may write it without a model."""
        found = self._release(0.0)
        text = without_thinking(answer_text(output), Tags())
        if text.strip() and valid_text(text.strip()) not in (one.strip() for one in self._texts.values()):
            found += self._written(text, apart=True)
        return found

    def _map(self, kind: str, raw: Raw, now: float) -> list[Event]:
        match kind:
            case "on_chat_model_start":
                return self._model_start(raw, now)
            case "on_chat_model_stream":
                return self._model_chunk(raw, now)
            case "on_chat_model_end":
                return self._model_end(raw, now)
            case "on_chain_start":
                return self._step_start(raw, now)
            case "on_chain_stream" if raw["run_id"] == self._root:
                return self._streamed(raw["data"].get("chunk"), now)
            case "on_chain_end":
                return self._step_end(raw)
            case "on_tool_start" | "on_retriever_start":
                return self._tool_start(raw, now)
            case "on_tool_end" | "on_retriever_end":
                return self._tool_end(raw, now)
            case "on_tool_error" | "on_retriever_error":
                return self._tool_end(raw, now, error=str(raw["data"].get("error") or "it failed"))
            case "on_custom_event":
                parents = [*raw["parent_ids"], raw["run_id"]]  # the id is that of the step from which it comes
                return self._custom(raw["name"], raw["data"], self._parent({"parent_ids": parents}))
        return []

    # models

    def _model_start(self, raw: Raw, now: float) -> list[Event]:
        given = raw["data"].get("input")
        messages = (given or {}).get("messages") if isinstance(given, Mapping) else None
        if not messages:
            prompts = (given or {}).get("prompts") if isinstance(given, Mapping) else None
            messages = [[HumanMessage(str(prompt)) for prompt in prompts or [""]]]
        context = model_context(messages[0] if isinstance(messages[0], list) else messages, self._model_input)
        abbreviated, self._context = abbreviate_context(context, self._context), context
        self._state = replace(self._state, given=context.tokens)
        return [*self._release(now), abbreviated, *self._mapped(raw, now)]

    def _model_chunk(self, raw: Raw, now: float) -> list[Event]:
        raw = {**raw, "data": {"chunk": _message(raw["data"].get("chunk"))}}
        if self._reply_nodes is None and raw["run_id"] != self._root:
            found, self._held = self._release(now), raw
            return found
        return self._mapped(raw if self._is_reply(raw) else _as_thought(raw, "chunk"), now)

    def _model_end(self, raw: Raw, now: float) -> list[Event]:
        output = _message(raw["data"].get("output"))
        if isinstance(output, AIMessage):
            self._requested += [(str(call["id"]), call["name"], call["args"]) for call in output.tool_calls]
        raw = {**raw, "data": {"output": output}}
        inner = self._reply_nodes is None and raw["run_id"] != self._root  # the chain itself streams the text of these
        found = self._release(now)
        return [*found, *self._mapped(_as_thought(raw, "output") if inner or not self._is_reply(raw) else raw, now)]

    def _is_reply(self, raw: Raw) -> bool:
        """Whether the text of a model call is part of the reply. That of a call within a tool is not."""
        if any(parent in self._tools for parent in raw["parent_ids"]) or "nostream" in raw["tags"]:
            return False
        if not self._reply_nodes:
            return True
        metadata = raw["metadata"]
        path = str(metadata.get("langgraph_checkpoint_ns") or "").split("|")
        names = {part.partition(":")[0] for part in path} | {metadata.get("langgraph_node")}
        return bool(names & self._reply_nodes)

    def _mapped(self, raw: Raw, now: float) -> list[Event]:
        parent = self._parent(raw)
        found, self._state = map_event({**raw, "parent_ids": [parent] if parent else []}, self._state, now)
        return found

    # the reply of a chain, and the events of a graph's writer

    def _streamed(self, chunk: Any, now: float) -> list[Event]:
        if self._reply_nodes is not None:
            namespace, mode, data = chunk if isinstance(chunk, tuple) and len(chunk) == 3 else ((), "", None)
            return self._custom("event", data, self._node_of(namespace)) if mode == "custom" else []
        text = chunk if isinstance(chunk, str) else chunk.text if isinstance(chunk, BaseMessage) else ""
        held, self._held = self._held, None
        if held and held["data"]["chunk"].text == text:
            return self._mapped(held, now)
        found = self._mapped(_as_thought(held, "chunk"), now) if held else []
        return found + (self._written(text, apart=False) if text else [])

    def _release(self, now: float) -> list[Event]:
        held, self._held = self._held, None
        return self._mapped(_as_thought(held, "chunk"), now) if held else []

    def _written(self, text: str, *, apart: bool) -> list[Event]:
        found, self._state = written_text(text, self._state, apart=apart)
        return found

    def _custom(self, name: str, data: Any, parent: str | None) -> list[Event]:
        """An event of the agent's own: a step without a duration. Its name may be in its data."""
        self.acted = True
        if isinstance(data, Mapping) and isinstance(data.get("type"), str):
            name = data["type"]
        if (refused := self._shown.refused()) is not None:
            return refused
        event_id, (value, cut) = f"event-{self._shown.count}", fitting(data)
        return [
            events.ChainStart(shown_name(name), event_id, parent, value, cut or None),
            events.ChainEnd(event_id, None),
        ]

    # steps

    def _step_start(self, raw: Raw, now: float) -> list[Event]:
        in_graph = "langgraph_node" in raw["metadata"]
        if raw["run_id"] == self._root or not _is_step(raw, in_graph=in_graph):
            return []
        if (refused := self._shown.refused()) is not None:
            return refused
        parent = self._parent(raw)
        self._steps[raw["run_id"]] = now
        if in_graph:
            self._nodes.append((raw["run_id"], raw["name"], parent))
        # a node is given the whole state, which is not new
        value, cut = (None, False) if in_graph else fitting(raw["data"].get("input"))
        return [events.ChainStart(shown_name(raw["name"]), raw["run_id"], parent, value, cut or None)]

    def _step_end(self, raw: Raw) -> list[Event]:
        if raw["run_id"] == self._root:
            self.output = raw["data"].get("output")
        if self._steps.pop(raw["run_id"], None) is None:
            return []
        self._nodes = [node for node in self._nodes if node[0] != raw["run_id"]]
        value, cut = fitting(raw["data"].get("output"))
        return [events.ChainEnd(raw["run_id"], value, truncated=cut or None)]

    def _parent(self, raw: Raw) -> str | None:
        """The id of the nearest step or tool call on the timeline around an event."""
        for parent in reversed(raw["parent_ids"]):
            if parent in self._steps or parent in self._tools:
                return self._tools.get(parent, str(parent))
        return None

    def _node_of(self, namespace: Sequence[str]) -> str | None:
        """The open node of a graph with this namespace; where several are open, the one around them."""
        name = namespace[-1].partition(":")[0] if namespace else None
        around = next((one for one, known, _ in reversed(self._nodes) if known == name), None)
        inside = [one for one, _, parent in self._nodes if parent == around]
        return inside[0] if len(inside) == 1 else around

    # tools and retrievers

    def _tool_start(self, raw: Raw, now: float) -> list[Event]:
        self.acted = True
        given, name = raw["data"].get("input"), raw["name"]
        wanted = next((one for one in self._requested if one[1] == name and one[2] == given), None)
        call_id = raw["run_id"]
        if wanted:
            self._requested.remove(wanted)
            call_id = wanted[0] if wanted[0] not in self._tools.values() else call_id
        parent = self._parent(raw)
        self._tools[raw["run_id"]], self._steps[raw["run_id"]], self._names[raw["run_id"]] = call_id, now, name
        return [events.ToolStart(name, call_id, input_for_display(shown(given)), parent)]

    def _tool_end(self, raw: Raw, now: float, error: str | None = None) -> list[Event]:
        started = self._steps.pop(raw["run_id"], None)
        if started is None:
            return []
        text, failed = _result(raw["data"].get("output"))
        error = error or (text if failed else None)
        duration, call_id = round(now - started, 3), self._tools[raw["run_id"]]
        error = valid_text(error)[:MOST_ERROR] if error else None
        return [events.ToolEnd(raw["name"], call_id, shortened(text, MOST_OUTPUT), duration, error)]


def model_context(messages: Sequence[BaseMessage], model_input: ModelInput) -> Context:
    """Returns the context of a call of one of the agent's models. Tokens are estimated."""
    last = max((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    entries, parts = list[JSON](), dict[str, int]()
    for i, message in enumerate(messages):
        calls = [{"name": c["name"], "args": shown(c["args"])} for c in getattr(message, "tool_calls", None) or ()]
        text = valid_text(message.text)
        part = "message" if i == last else "system" if message.type == "system" else "calls" if i > last else "recent"
        tokens = estimate_tokens(text) + (estimate_tokens(json.dumps(calls, default=str)) if calls else 0)
        entry = {"role": ROLES.get(message.type, message.type), "content": text, "tokens": tokens, "part": part}
        entries.append(entry | ({"tool_calls": calls} if calls else {}))
        parts[part] = parts.get(part, 0) + tokens
    total = sum(parts.values())
    return Context(entries, model_input.left_out, total, model_input.input_budget, estimated=True, parts=parts)


def _is_step(raw: Raw, *, in_graph: bool) -> bool:
    """Whether a chain is shown: nodes, sub-graphs and named chains; not the parts of which LangChain makes them."""
    name, tags = str(raw["name"]), raw["tags"]
    if "langsmith:hidden" in tags or name.startswith(("_", "Runnable", "ChannelWrite", "ChannelRead")):
        return False
    if not in_graph or any(tag.startswith("graph:step") for tag in tags):
        return True
    return not any(tag.startswith("seq:step") for tag in tags)


def _as_thought(raw: Raw, field: str) -> Raw:
    """The event with the message's text as thinking."""
    message = raw["data"].get(field)
    if not isinstance(message, AIMessage) or not message.text:
        return raw
    extra = dict(message.additional_kwargs)
    extra["reasoning_content"] = str(extra.get("reasoning_content") or "") + message.text
    others = [b for b in message.content if isinstance(b, dict) and b.get("type") != "text"]
    content: Any = "" if isinstance(message.content, str) else others
    return {**raw, "data": {field: message.model_copy(update={"content": content, "additional_kwargs": extra})}}


def _message(value: Any) -> Any:
    """A chunk or the output of a model as a message; models that complete texts give other objects."""
    if isinstance(value, BaseMessage) or value is None:
        return value
    if isinstance(value, Mapping):
        generations = value.get("generations") or [[]]
        value = generations[0][0] if generations[0] else ""
    text = value if isinstance(value, str) else value.get("text") if isinstance(value, Mapping) else value.text
    return AIMessageChunk(content=str(text or ""))


def _result(output: Any) -> tuple[str, bool]:
    """The text of a tool's or a retriever's output, and whether it says that the tool failed."""
    if isinstance(output, Sequence) and output and all(isinstance(one, Document) for one in output):
        found = [f"[{n}] {_source(one)}\n{one.page_content}" for n, one in enumerate(output, 1)]
        return valid_text("\n\n".join(found)), False
    if hasattr(output, "content") and isinstance(output, BaseMessage):
        return text_of_result(output.content), getattr(output, "status", None) == "error"
    return text_of_result(output if isinstance(output, str) else shown(output)), False


def _source(document: Document) -> str:
    return str(document.metadata.get("source") or document.metadata.get("title") or document.id or "")
