"""LangChain's stream of events (`astream_events`, version "v2") as ours: one pure function.

The protocol: https://python.langchain.com/docs/concepts/streaming/ and langchain_core.runnables.schema. v2's chain
events hold the whole history each time; only what is new to the run is kept, `MapperState` remembers what is not.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from agent.chunks import CallState, final_usage, flush_call, read_chunk, read_tool_inputs, reasoning_tokens
from agent.generation_time import ChunkTimes, timings
from agent.thinking_tags import Tags
from agent.tool_middleware import APPROVAL, STATUS, TOOL_END, TOOL_OUTPUT, TOOL_START, shown
from backends.model_events import COMPLETE_TOOL_CALLS, NOTICE, PROGRESS, RESPONSE_STARTED, TIMINGS, TOOL_INPUT
from runs import events
from runs.events import Event
from runs.text import valid_text
from runs.tokens import estimate_chunk_tokens, estimate_tokens

CONTEXT = "glassbox_context"
"""Name of the custom event that carries a `Context`."""
DIRECT_REPLY = "glassbox_direct_reply"
"""Name of the custom event whose `content` is a reply that no model wrote: the result of a tool."""

_MOST = 8 * 1024


@dataclass(frozen=True, slots=True)
class MapperState:
    """What must be remembered from one event to the next."""

    seen: frozenset[str] = frozenset()
    """Ids of the messages that have been told."""
    tokens: int = 0
    """What the latest piece of the reply told as the run's tokens."""
    counted: int = 0
    """Output tokens of the run's ended model calls, those of earlier attempts included."""
    written: int = 0
    """Estimated output tokens of the open model call so far."""
    called: int = 0
    """Those of them that are arguments of tool calls."""
    given: int = 0
    """Tokens of the latest context."""
    starts: tuple[tuple[str, float], ...] = ()
    """When each step began, by id."""
    pieces: dict[str, ChunkTimes] = field(default_factory=dict)
    """What has come of the open model calls and when, by id."""
    calls: Mapping[str, CallState] = field(default_factory=dict)
    """Open model calls that have given a chunk, by id; the others' text comes whole, with their end."""
    wrote: bool = False
    """Whether there is text of the reply already."""
    gap: str = ""
    """What keeps the next text apart from that of an earlier model call."""
    wrote_before: bool = False
    """Whether there was text before the latest model call."""
    tags: Tags = field(default_factory=Tags)
    """What is known of the thinking in a reply's text before a model call begins."""
    thinks: bool | None = None
    """What the calls showed of the template: whether it opens the thinking; None if neither was seen."""

    def since(self, step_id: str, now: float) -> float:
        """Seconds since a step began."""
        return round(now - dict(self.starts).get(step_id, now), 3)


def _cut(output: Any) -> bool | None:
    """Whether a call of the model ended at its longest, in the words of OpenAI, Google, Anthropic and Ollama."""
    about = output.response_metadata if isinstance(output, AIMessage) else {}
    told = {str(about.get(name)).lower() for name in ("finish_reason", "stop_reason", "stopReason", "done_reason")}
    return True if told & {"length", "max_tokens"} else None


def map_event(raw: Mapping[str, Any], notes: MapperState, now: float) -> tuple[list[Event], MapperState]:
    """Our events for one of LangChain's, and the notes for the next; `now` is in seconds of any clock."""
    data, step_id = raw["data"], raw["run_id"]
    match raw["event"]:
        case "on_chat_model_stream":
            return _pieces(data["chunk"], notes, step_id, now)
        case "on_chat_model_start":
            gap = "\n\n" if notes.wrote else ""
            pieces = {**notes.pieces, step_id: ChunkTimes().signed(now)}
            starts = (*notes.starts, (step_id, now))
            started = replace(notes, starts=starts, pieces=pieces, gap=gap, wrote_before=notes.wrote)
            return [events.ModelStart(step_id, _parent(raw), raw["name"])], started
        case "on_chat_model_end":
            output, found = data.get("output"), list[Event]()
            if step_id not in notes.calls and isinstance(output, AIMessage):
                found, notes = _pieces(output, notes, step_id, now)
            thought, text, call = flush_call(notes.calls.get(step_id, CallState()), whole=not _cut(output))
            rest, notes = _told(thought, text, notes)
            calls = {key: one for key, one in notes.calls.items() if key != step_id}
            thinks = notes.thinks if call.tags.thinks is None else call.tags.thinks
            pieces, counts, duration = dict(notes.pieces), final_usage(output, call), notes.since(step_id, now)
            made = counts["output_tokens"] if counts else 0
            seconds = pieces.pop(step_id, ChunkTimes()).seconds(made, reasoning_tokens(output))
            reported = output.response_metadata.get(TIMINGS) if isinstance(output, AIMessage) else None
            about, usage = timings(reported, seconds, duration, counts), _usage(output, counts, notes)
            counted = notes.counted + usage["output_tokens"]
            notes = replace(notes, calls=calls, pieces=pieces, thinks=thinks, counted=counted, written=0, called=0)
            return [*found, *rest, events.ModelEnd(step_id, usage, duration, cut=_cut(output), timings=about)], notes
        case "on_chain_start":
            new, notes = _new(data.get("input"), notes)
            value, cut = truncate_messages(new)
            return [events.ChainStart(raw["name"], step_id, _parent(raw), value, cut or None)], notes
        case "on_chain_end":
            new, notes = _new(data.get("output"), notes)
            value, cut = truncate_messages(new)
            return [events.ChainEnd(step_id, value, truncated=cut or None)], notes
        case "on_custom_event" if raw["name"] == DIRECT_REPLY:
            found, notes = _told("", data["content"], replace(notes, gap="\n\n" if notes.wrote else ""))
            return found, replace(notes, written=0)  # no model wrote it
        case "on_custom_event" if raw["name"] == RESPONSE_STARTED:
            return [], _seen(notes, lambda pieces: pieces.signed(now))
        case "on_custom_event" if raw["name"] == TOOL_INPUT:
            told = events.ToolInput(**data)
            return [told], _seen(_called(notes, [told]), lambda pieces: pieces.came(now, text=told.delta))
        case "on_custom_event":
            given = data.tokens if raw["name"] == CONTEXT else notes.given
            return _custom(raw, data), replace(notes, given=given)
        case _:
            return [], notes


def map_interruption(notes: MapperState) -> tuple[list[Event], MapperState]:
    """The text of open model calls that were taken to begin within thinking because an earlier reply did."""
    found = list[Event]()
    for call in notes.calls.values():
        if call.tags.learned:
            _, text, call = flush_call(call)
            if call.tags.thinks is False:
                told, notes = _told("", text, replace(notes, thinks=False))
                found += told
    return found, notes


def _parent(raw: Mapping[str, Any]) -> str | None:
    parents: Sequence[str] = raw.get("parent_ids") or ()
    return parents[-1] if parents else None


_CUSTOM: dict[str, Callable[..., Event]] = {
    TOOL_OUTPUT: events.ToolOutput,
    TOOL_END: events.ToolEnd,
    APPROVAL: events.Approval,
    STATUS: events.Status,
}


def _custom(raw: Mapping[str, Any], data: Any) -> list[Event]:
    name = raw["name"]
    if name == TOOL_START:
        return [events.ToolStart(**data, parent_id=raw["run_id"])]  # a custom event has the id of what it was told in
    if name in _CUSTOM:
        return [_CUSTOM[name](**data)]
    if name == NOTICE:
        return [events.Status("waiting", str(data["content"]))]
    if name == CONTEXT:
        return [data]
    if name == PROGRESS:
        share = data["read"] / max(1, data["total"])
        return [events.Status("waiting", f"Reading your prompt, {share:.0%}")] if share < 1 else []
    return []


def _seen(notes: MapperState, change: Callable[[ChunkTimes], ChunkTimes], step_id: str | None = None) -> MapperState:
    """The notes after a change of what has come of a model call, of the latest one where nobody says which."""
    step_id = step_id or next(reversed(notes.pieces), None)
    if step_id is None:
        return notes
    return replace(notes, pieces={**notes.pieces, step_id: change(notes.pieces.get(step_id, ChunkTimes()))})


def _called(notes: MapperState, inputs: Sequence[events.ToolInput]) -> MapperState:
    """The notes after pieces of tool calls' arguments."""
    size = sum(estimate_chunk_tokens(one.delta) for one in inputs)
    return replace(notes, written=notes.written + size, called=notes.called + size) if size else notes


def _pieces(chunk: AIMessage, notes: MapperState, step_id: str, now: float) -> tuple[list[Event], MapperState]:
    known = notes.calls.get(step_id) or CallState(tags=notes.tags)
    thought, text, call = read_chunk(chunk, known)
    inputs, arguments = list[events.ToolInput](), ""
    if not chunk.response_metadata.get(COMPLETE_TOOL_CALLS):
        inputs, arguments, call = read_tool_inputs(chunk, call)
    if call is not known:
        notes = replace(notes, calls={**notes.calls, step_id: call})
    retracted = call.tags.retracted and not known.tags.retracted
    shown = "" if retracted else thought
    notes = _seen(notes, lambda pieces: pieces.came(now, thought=shown, text=text + arguments), step_id)
    if retracted:
        gap = "\n\n" if notes.wrote_before else ""
        found, notes = _told("", text, replace(notes, wrote=notes.wrote_before, gap=gap))
        return [events.Reasoning(valid_text(thought), retracts=True), *found], notes
    found, notes = _told(thought, text, notes)
    return [*found, *inputs], _called(notes, inputs)


def _told(thought: str, text: str, notes: MapperState) -> tuple[list[Event], MapperState]:
    thought, text = valid_text(thought), valid_text(text)
    notes = replace(notes, written=notes.written + estimate_chunk_tokens(thought) + estimate_chunk_tokens(text))
    found: list[Event] = []
    if thought:
        found.append(events.Reasoning(thought))
    if text:
        tokens = max(notes.tokens + 1, notes.counted + notes.written)
        found.append(events.Token(notes.gap + text, tokens))
        notes = replace(notes, tokens=tokens, wrote=True, gap="")
    return found, notes


def _usage(output: Any, usage: dict[str, int] | None, notes: MapperState) -> events.JSON:
    """What the provider counted of a call that has ended; an estimate, marked so, of what it did not."""
    written = notes.written
    told = usage or {"input_tokens": 0, "output_tokens": 0}
    if isinstance(output, AIMessage):
        made = [[call["name"], call["args"]] for call in (*output.tool_calls, *output.invalid_tool_calls)]
        written += max(0, sum(estimate_tokens(json.dumps(one, default=str)) for one in made) - notes.called)
    missing = {"input_tokens": notes.given, "output_tokens": written}
    missing = {name: tokens for name, tokens in missing.items() if tokens and not told[name]}
    return {**told, **missing, "estimated": True} if missing or usage is None else told


def _new(value: Any, notes: MapperState) -> tuple[list[events.JSON], MapperState]:
    """The messages in a chain's input or output that the run has not told yet."""
    fresh: dict[str, BaseMessage] = {}
    for message in _messages(value):
        key = message.id or str(id(message))
        if key not in notes.seen:
            fresh[key] = message
    told = [_plain(message) for message in fresh.values()]
    return told, replace(notes, seen=notes.seen | fresh.keys()) if fresh else notes


def _messages(value: Any) -> Iterator[BaseMessage]:
    if isinstance(value, BaseMessage):
        yield value
    elif isinstance(value, Mapping):
        yield from _messages(value.get("messages"))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _messages(item)
    elif hasattr(value, "update"):  # langgraph's Command
        yield from _messages(value.update)


def _plain(message: BaseMessage) -> events.JSON:
    told: events.JSON = {"role": ROLES.get(message.type, message.type), "content": valid_text(message.text)}
    if isinstance(message, AIMessage) and message.tool_calls:
        told["tool_calls"] = [{"name": c["name"], "id": c["id"], "args": shown(c["args"])} for c in message.tool_calls]
    return told


ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
"""LangChain's message types as roles; the others have the same name."""


def truncate_messages(messages: list[events.JSON]) -> tuple[list[events.JSON], bool]:
    """The messages with their contents cut so that all take at most 8 KB as JSON, and whether any was."""
    if len(json.dumps(messages)) <= _MOST:
        return messages, False
    share = _MOST // 2 // len(messages)
    while True:
        cut = [{"role": m["role"], "content": str(m["content"])[:share]} for m in messages]
        if len(json.dumps(cut)) <= _MOST:
            return cut, True
        if share == 0:
            return cut[: _MOST // 64], True
        share //= 2
