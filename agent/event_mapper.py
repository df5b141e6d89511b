"""The mapping of LangChain's events (`astream_events`, version "v2") to ours: one pure function.

The protocol: https://python.langchain.com/docs/concepts/streaming/ and langchain_core.runnables.schema. Chain events of
v2 hold the whole history each time; `MapperState` remembers which messages the run has already shown.

Our own events take the same way as LangChain's, since they must keep their place among them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import AIMessage, BaseMessage

from agent.chunks import CallState, final_usage, flush_call, read_chunk, read_tool_inputs, reasoning_tokens
from agent.generation_time import ChunkTimes, timings
from agent.logprobs import read_logprobs
from agent.thinking_tags import Tags
from agent.tool_results import input_for_display
from backends.model_events import COMPLETE_TOOL_CALLS, NOTICE, PROGRESS, RESPONSE_STARTED, TIMINGS, TOOL_INPUT
from backends.prices import cost_usd
from runs import events
from runs.events import Event
from runs.text import valid_text
from runs.tokens import estimate_chunk_tokens, estimate_tokens

EVENT = "glassbox_event"
"""Name of the custom event whose data is one of our events."""
DIRECT_REPLY = "glassbox_direct_reply"
"""Name of the custom event whose `content` is a reply that no model wrote: the result of a tool."""
THINKING_ENDED = "glassbox_thinking_ended"
"""Name of the custom event after a model call whose thinking a person has ended. The next call answers."""
ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
"""Roles by LangChain's message types; the other types are roles themselves."""

_MOST_CHAIN_BYTES = 8 * 1024
"""Most bytes of the messages in a chain event."""


async def dispatch_event(event: Event) -> None:
    """Puts an event into the stream of the agent's events, in order."""
    await adispatch_custom_event(EVENT, event)


@dataclass(frozen=True, slots=True)
class MapperState:
    """The state between two events."""

    seen: frozenset[str] = frozenset()
    """Ids of the messages that chain events have shown."""
    tokens: int = 0
    """The `total_tokens` of the latest token event."""
    counted: int = 0
    """Output tokens of the run's ended model calls, those of earlier attempts included."""
    written: int = 0
    """Estimated output tokens of the open model call so far."""
    called: int = 0
    """The part of `written` that is arguments of tool calls."""
    given: int = 0
    """Tokens of the latest context."""
    starts: tuple[tuple[str, float], ...] = ()
    """The id and start time of each model call."""
    times: dict[str, ChunkTimes] = field(default_factory=dict)
    """The times of the chunks of open model calls, by id."""
    calls: Mapping[str, CallState] = field(default_factory=dict)
    """Open model calls that have streamed a chunk, by id; the text of others comes whole, with their end."""
    wrote: bool = False
    """Whether the reply has text."""
    gap: str = ""
    """The text between the reply so far and the next text, which is another model call's."""
    wrote_before: bool = False
    """Whether the reply had text before the latest model call."""
    tags: Tags = field(default_factory=Tags)
    """What is known of the thinking in a reply's text before a model call begins."""
    alternatives: int | None = None
    """Most alternatives in the probabilities of each token; None if the request did not ask for probabilities."""
    price: Sequence[float] | None = None
    """US dollars for a million input, output and cached tokens; None where no price is set."""
    thinks: bool | None = None
    """Whether the calls showed that the chat template opens the thinking; None if they did not show it."""
    answers: bool = False
    """Whether the next model call answers after a thought that was ended."""
    answering: str | None = None
    """The id of the call that does."""

    def since(self, step_id: str, now: float) -> float:
        """Returns the seconds since a model call began."""
        return round(now - dict(self.starts).get(step_id, now), 3)


def map_event(raw: Mapping[str, Any], state: MapperState, now: float) -> tuple[list[Event], MapperState]:
    """Returns our events for one of LangChain's, and the next state; `now` is in seconds of any clock."""
    data, step_id = raw["data"], raw["run_id"]
    match raw["event"]:
        case "on_chat_model_stream":
            return _chunk(data["chunk"], state, step_id, now)
        case "on_chat_model_start":
            gap = "\n\n" if state.wrote else ""
            times = {**state.times, step_id: ChunkTimes().signed(now)}
            starts = (*state.starts, (step_id, now))
            answering = step_id if state.answers else state.answering
            state = replace(state, answers=False, answering=answering)
            started = replace(state, starts=starts, times=times, gap=gap, wrote_before=state.wrote)
            return [events.ModelStart(step_id, _parent(raw), raw["name"])], started
        case "on_chat_model_end":
            return _model_end(data.get("output"), state, step_id, now)
        case "on_chain_start":
            new, state = _new(data.get("input"), state)
            value, cut = truncate_messages(new)
            return [events.ChainStart(raw["name"], step_id, _parent(raw), value, cut or None)], state
        case "on_chain_end":
            new, state = _new(data.get("output"), state)
            value, cut = truncate_messages(new)
            return [events.ChainEnd(step_id, value, truncated=cut or None)], state
        case "on_custom_event":
            return _custom(raw["name"], data, state, step_id, now)
        case _:
            return [], state


def written_text(text: str, state: MapperState, *, apart: bool = True) -> tuple[list[Event], MapperState]:
    """Returns the events for text of a reply that no model wrote, and the next state. No tokens count as written.

    `apart` begins a paragraph.
    """
    found, after = _written("", text, replace(state, gap="\n\n") if apart and state.wrote else state)
    return found, replace(after, written=state.written)


def map_interruption(state: MapperState) -> tuple[list[Event], MapperState]:
    """Returns the text of open model calls that was held back as thinking only because an earlier reply had some.

    The beginning of a tag at its end stays out, as it does where nothing was held back as thinking.
    """
    found = list[Event]()
    for call in state.calls.values():
        if call.tags.learned:
            _, text, call = flush_call(replace(call, tags=replace(call.tags, held="")))
            if call.tags.thinks is False:
                new, state = _written("", text, replace(state, thinks=False))
                found += new
    return found, state


def _parent(raw: Mapping[str, Any]) -> str | None:
    parents: Sequence[str] = raw.get("parent_ids") or ()
    return parents[-1] if parents else None


def _chunk(chunk: AIMessage, state: MapperState, step_id: str, now: float) -> tuple[list[Event], MapperState]:
    tags = Tags(watched=False) if step_id == state.answering else state.tags
    known = state.calls.get(step_id) or CallState(tags=tags)
    thought, text, call = read_chunk(chunk, known)
    inputs, arguments = list[events.ToolInput](), ""
    if not chunk.response_metadata.get(COMPLETE_TOOL_CALLS):
        inputs, arguments, call = read_tool_inputs(chunk, call)
    probabilities = (*call.logprobs, *read_logprobs(chunk, state.alternatives))
    if probabilities != call.logprobs or (probabilities and (text or thought)):  # those of the thinking are dropped
        call = replace(call, logprobs=() if text or thought else probabilities)
    if call is not known:
        state = replace(state, calls={**state.calls, step_id: call})
    retracted = call.tags.retracted and not known.tags.retracted
    shown = "" if retracted else thought
    state = _timed(state, lambda times: times.came(now, thought=shown, text=text + arguments), step_id)
    if retracted:
        gap = "\n\n" if state.wrote_before else ""
        found, state = _written("", text, replace(state, wrote=state.wrote_before, gap=gap), probabilities)
        return [events.Reasoning(valid_text(thought), retracts=True), *found], state
    found, state = _written(thought, text, state, probabilities)
    return [*found, *inputs], _with_inputs(state, inputs)


def _model_end(output: Any, state: MapperState, step_id: str, now: float) -> tuple[list[Event], MapperState]:
    found = list[Event]()
    if step_id not in state.calls and isinstance(output, AIMessage):
        found, state = _chunk(output, state, step_id, now)
    cut = _cut(output)
    thought, text, call = flush_call(state.calls.get(step_id, CallState()), whole=not cut)
    rest, state = _written(thought, text, state, call.logprobs)
    times, counts, duration = dict(state.times), final_usage(output, call), state.since(step_id, now)
    seconds = times.pop(step_id, ChunkTimes()).seconds(
        counts["output_tokens"] if counts else 0, reasoning_tokens(output)
    )
    reported = output.response_metadata.get(TIMINGS) if isinstance(output, AIMessage) else None
    about, usage = timings(reported, seconds, duration, counts), _usage(output, counts, state)
    state = replace(
        state,
        calls={key: one for key, one in state.calls.items() if key != step_id},
        times=times,
        thinks=state.thinks if call.tags.thinks is None else call.tags.thinks,
        counted=state.counted + usage["output_tokens"],
        written=0,
        called=0,
    )
    return [*found, *rest, events.ModelEnd(step_id, usage, duration, cut=cut, timings=about)], state


def _custom(name: str, data: Any, state: MapperState, step_id: str, now: float) -> tuple[list[Event], MapperState]:
    if name == EVENT:
        if isinstance(data, events.ToolStart):
            data = replace(data, parent_id=step_id)  # the id of the step that dispatched it
        return [data], replace(state, given=data.tokens) if isinstance(data, events.Context) else state
    if name == DIRECT_REPLY:
        return written_text(data["content"], state)
    if name == THINKING_ENDED:
        call = next(reversed(state.times), "")
        state = replace(state, calls={**state.calls, call: CallState()}, answers=True)  # what was held back is dropped
        found, state = _model_end(None, state, call, now)
        return [*found, events.Status("waiting", "The thinking was ended: the model answers")], state
    if name == RESPONSE_STARTED:
        return [], _timed(state, lambda times: times.signed(now))
    if name == TOOL_INPUT:
        delta = events.ToolInput(**data)
        return [delta], _timed(_with_inputs(state, [delta]), lambda times: times.came(now, text=delta.delta))
    if name == NOTICE:
        return [events.Status("waiting", str(data["content"]))], state
    if name == PROGRESS and (share := data["read"] / max(1, data["total"])) < 1:
        return [events.Status("waiting", f"Reading your prompt, {share:.0%}")], state
    return [], state


def _timed(state: MapperState, change: Callable[[ChunkTimes], ChunkTimes], step_id: str | None = None) -> MapperState:
    """Changes the times of a model call, by default of the latest one."""
    step_id = step_id or next(reversed(state.times), None)
    if step_id is None:
        return state
    return replace(state, times={**state.times, step_id: change(state.times.get(step_id, ChunkTimes()))})


def _with_inputs(state: MapperState, inputs: Sequence[events.ToolInput]) -> MapperState:
    """Counts arguments of tool calls as written."""
    size = sum(estimate_chunk_tokens(one.delta) for one in inputs)
    return replace(state, written=state.written + size, called=state.called + size) if size else state


def _written(
    thought: str, text: str, state: MapperState, logprobs: Sequence[events.JSON] = ()
) -> tuple[list[Event], MapperState]:
    """Returns the events for thinking and text, and counts them as written. `logprobs` are those of the text."""
    thought, text = valid_text(thought), valid_text(text)
    state = replace(state, written=state.written + estimate_chunk_tokens(thought) + estimate_chunk_tokens(text))
    found: list[Event] = []
    if thought:
        found.append(events.Reasoning(thought))
    if text:
        tokens = max(state.tokens + 1, state.counted + state.written)
        found.append(events.Token(state.gap + text, tokens, list(logprobs) or None))
        state = replace(state, tokens=tokens, wrote=True, gap="")
    return found, state


def _cut(output: Any) -> bool | None:
    """Whether a call ended at its max reply length, by the finish reasons of OpenAI, Google, Anthropic and Ollama."""
    metadata = output.response_metadata if isinstance(output, AIMessage) else {}
    reasons = {
        str(metadata.get(name)).lower() for name in ("finish_reason", "stop_reason", "stopReason", "done_reason")
    }
    return True if reasons & {"length", "max_tokens"} else None


def _usage(output: Any, usage: dict[str, int] | None, state: MapperState) -> events.JSON:
    """Returns the provider's token counts of a call; missing ones are estimated, and `estimated` says so."""
    written = state.written
    counts = usage or {"input_tokens": 0, "output_tokens": 0}
    if isinstance(output, AIMessage):
        made = [[call["name"], call["args"]] for call in (*output.tool_calls, *output.invalid_tool_calls)]
        written += max(0, sum(estimate_tokens(json.dumps(one, default=str)) for one in made) - state.called)
    missing = {"input_tokens": state.given, "output_tokens": written}
    missing = {name: tokens for name, tokens in missing.items() if tokens and not counts[name]}
    found: events.JSON = {**counts, **missing, "estimated": True} if missing or usage is None else dict(counts)
    if state.price:
        given, written = found["input_tokens"], found["output_tokens"]
        found["cost_usd"] = cost_usd(state.price, given, written, found.get("cached_tokens", 0))
    return found


def _new(value: Any, state: MapperState) -> tuple[list[events.JSON], MapperState]:
    """Returns the messages in a chain's input or output that no earlier event has shown."""
    fresh: dict[str, BaseMessage] = {}
    for message in _messages(value):
        key = message.id or str(id(message))
        if key not in state.seen:
            fresh[key] = message
    entries = [_entry(message) for message in fresh.values()]
    return entries, replace(state, seen=state.seen | fresh.keys()) if fresh else state


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


def _entry(message: BaseMessage) -> events.JSON:
    entry: events.JSON = {"role": ROLES.get(message.type, message.type), "content": valid_text(message.text)}
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = message.tool_calls
        entry["tool_calls"] = [{"name": c["name"], "id": c["id"], "args": input_for_display(c["args"])} for c in calls]
    return entry


def truncate_messages(messages: list[events.JSON]) -> tuple[list[events.JSON], bool]:
    """Truncates the contents so that the messages take at most 8 KB as JSON; returns them, and whether any was cut."""
    if len(json.dumps(messages)) <= _MOST_CHAIN_BYTES:
        return messages, False
    share = _MOST_CHAIN_BYTES // 2 // len(messages)
    while True:
        cut = [{"role": m["role"], "content": str(m["content"])[:share]} for m in messages]
        if len(json.dumps(cut)) <= _MOST_CHAIN_BYTES:
            return cut, True
        if share == 0:
            return cut[: _MOST_CHAIN_BYTES // 64], True
        share //= 2
