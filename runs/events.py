"""The events of a run, and how they look on the wire.

The grammar: `run` first, then `status`; content events; whatever was started is ended; then exactly one of `complete`,
`stopped` and `error`, and nothing after it. Texts are increments, never cumulative. `tests/grammar.py` checks it.

Wire `type` strings are the snake_case of the class name. This module knows nothing of who makes or reads the events.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from weakref import ref

from runs.errors import Code

Phase = Literal[
    "queued", "waiting", "thinking", "streaming", "tool", "approval", "stalled", "complete", "stopped", "error"
]
StopReason = Literal["user", "abandoned", "shutdown", "limit"]
JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """The first event: what this run is and where it belongs. `backend` is the one that was asked for."""

    conversation_id: str
    backend: str
    memory: str
    model: str | None = None
    """The model, where the backend offers a choice."""


@dataclass(frozen=True, slots=True)
class Status:
    """The phase changed, or there is something to say about it; `content` is a sentence for people.

    `tool_call_id` names the call whose approval has been given, `edited` what it is called with instead. `backend`,
    with `model`, names the backend that answers from here on, where that is not the one named so far.
    """

    phase: Phase
    content: str
    tool_call_id: str | None = None
    edited: Any = None
    backend: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What the model is given, before each call: `messages` of {role, content, tokens, part, why}, `left_out` with a
    `reason`.

    `tokens` is the size of all that is given, `limit` the most that may be given, both in the backend's tokens.
    A `part` is one of system, summary, recalled, recent, message and tools; `why` says why an older one is there.
    In a log a message may be `{same_as: index}` instead: see `runs/contexts.py`.
    """

    messages: list[JSON]
    left_out: list[JSON]
    tokens: int
    limit: int
    estimated: bool = False
    parts: JSON | None = None
    """Tokens by part."""
    note: str | None = None
    """What a person should know of it."""
    tools: list[JSON] | None = None
    """What the model is told of the tools that it may choose: {name, content, tokens}."""


@dataclass(frozen=True, slots=True)
class ModelStart:
    """One call of the model begins."""

    id: str
    parent_id: str | None
    name: str


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """One call of the model ended.

    `usage` is {input_tokens, output_tokens}, with `estimated` where the provider did not tell both; None for a call
    that did not come to its end.
    """

    id: str
    usage: JSON | None
    duration_s: float
    error: str | None = None
    cut: bool | None = None
    """Whether it ended at the longest reply that the provider gives, or was asked for."""
    timings: JSON | None = None
    """{prompt_s, prompt_tokens, cached_tokens, generated_s, generated_tokens}, each where it is known.

    `generated_s` is how long the model was writing, in seconds: thinking, text and arguments of tool calls.
    """


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's visible thinking.

    With `retracts` all `token`s since the latest `model_start` have turned out to be thinking, and are no part of the
    reply; `content` is that whole thought.
    """

    content: str
    retracts: bool | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the reply; `total_tokens` counts the run's output tokens up to and with this one, and only grows."""

    content: str
    total_tokens: int


@dataclass(frozen=True, slots=True)
class ChainStart:
    """A step of the agent begins; `input` is only what is new to the run."""

    name: str
    id: str
    parent_id: str | None
    input: Any
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """A step of the agent ended; `output` is only what is new to the run."""

    id: str
    output: Any
    error: str | None = None
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolInput:
    """The model is writing a tool call's arguments; `delta` is the next piece of them, for display only."""

    tool: str
    tool_call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ToolStart:
    """A tool begins; `parent_id` is the step that it belongs to."""

    tool: str
    tool_call_id: str
    input: Any
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """A partial result, while the tool runs."""

    tool: str
    tool_call_id: str
    chunk: str


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """A tool ended; `error` says why it failed or that it was cancelled."""

    tool: str
    tool_call_id: str
    output: str
    duration_s: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """The run waits for a person to allow this call."""

    tool: str
    tool_call_id: str
    input: Any


@dataclass(frozen=True, slots=True)
class State:
    """A digest of the derived state, for clients that do not fold events themselves; the fold ignores it."""

    status: Phase
    current_step: str | None
    tokens_received: int
    estimated: bool
    tools_called: list[str]
    tokens_per_second: float
    """The average rate so far: see `runs/generation_rate.py`."""
    ttft_s: float | None


@dataclass(frozen=True, slots=True)
class Complete:
    """The reply is whole. `content` is all `token` contents joined, without retracted ones."""

    content: str
    usage: JSON
    timing: JSON
    status: Literal["complete"] = "complete"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was ended from outside; `content` is what there is of the reply."""

    content: str
    reason: StopReason
    usage: JSON
    timing: JSON


@dataclass(frozen=True, slots=True)
class Error:
    """The run failed; `content` is what there is of the reply, `message` says what to do."""

    code: Code
    message: str
    retryable: bool
    content: str
    retry_after: float | None = None


Start = ModelStart | ChainStart | ToolStart
End = ModelEnd | ChainEnd | ToolEnd
Last = Complete | Stopped | Error
Event = Run | Status | Context | Start | End | Reasoning | Token | ToolInput | ToolOutput | Approval | State | Last

_OPTIONAL = {
    *("error", "truncated", "cut", "retracts", "retry_after", "tool_call_id", "edited", "parts", "note"),
    *("tools", "backend", "model", "timings"),
}
"""Fields that are left out where they are None."""


def _leaves(union: object) -> Iterator[type[Any]]:
    for part in get_args(union):
        yield from [part] if isinstance(part, type) else _leaves(part)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


WIRE_TYPES: dict[type[Any], str] = {kind: _snake(kind.__name__) for kind in _leaves(Event)}
"""`ChainStart` -> `chain_start`, for every event."""
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in WIRE_TYPES}
_CACHED_JSON = 32_768
"""Characters of the longest JSON that is kept beside its event; a longer one is encoded again for each reader."""
_FIXED_BYTES = 300
"""Memory of an event and its entry besides what its texts take."""


def memory_bytes(event: Event) -> int:
    """About how many bytes of memory an event takes with its cached JSON, told by its texts alone."""
    size = sum(text_bytes(getattr(event, name)) for name in _FIELDS[type(event)])
    return _FIXED_BYTES + size + min(size, _CACHED_JSON)


def text_bytes(value: Any) -> int:
    """About how many bytes of memory a value of JSON takes."""
    match value:
        case str():
            return len(value)
        case dict():
            return 200 + sum(map(text_bytes, value.values()))
        case list():
            return 8 * len(value) + sum(map(text_bytes, value))
        case _:
            return 0


class LongText(str):
    """A text that can be referred to weakly."""


def encode_json(value: Any) -> str:
    """A value as one line of JSON, also for readers that take U+0085, U+2028 and U+2029 for line ends."""
    return escape_line_ends(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def json_texts(value: Any, levels: int) -> Iterator[str]:
    """The same in texts that are made one at a time: of so many levels of objects and lists, each entry by itself.

    Iterators are lists.
    """
    if levels and isinstance(value, dict):
        before = "{"
        for name, inner in value.items():
            yield f"{before}{encode_json(name)}:"
            yield from json_texts(inner, levels - 1)
            before = ","
        yield "}" if value else "{}"
    elif isinstance(value, Iterator) or (levels and isinstance(value, list)):
        before = "["
        for inner in value:
            yield before
            yield from json_texts(inner, max(0, levels - 1))
            before = ","
        yield "]" if before == "," else "[]"
    else:
        yield encode_json(value)


def escape_line_ends(text: str) -> str:
    """JSON with the characters escaped that naive readers (Python's `splitlines`, for one) split lines at."""
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")


@dataclass(slots=True)
class Entry:
    """One line of a run's log: an event with its place (`seq`, from 1, no gaps) and time (`at`, epoch seconds)."""

    seq: int
    run_id: str
    at: float
    event: Event
    _json: str | None = field(default=None, repr=False, compare=False)
    _long: "ref[LongText] | None" = field(default=None, repr=False, compare=False)

    @property
    def type(self) -> str:
        return WIRE_TYPES[type(self.event)]

    @property
    def timestamp(self) -> str:
        """ISO 8601, UTC, milliseconds."""
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def wire(self) -> JSON:
        """The event as every transport sends it."""
        body: JSON = {"type": self.type, "seq": self.seq, "run_id": self.run_id, "timestamp": self.timestamp}
        for name in _FIELDS[type(self.event)]:
            value = getattr(self.event, name)
            if value is not None or name not in _OPTIONAL:
                body[name] = value
        return body

    @property
    def json(self) -> str:
        """`wire()` as one line of JSON; encoded once, however many follow. A long one is shared by those who hold it at
        the same time, and encoded again after that.
        """
        if self._json is not None:
            return self._json
        if self._long and (shared := self._long()) is not None:
            return shared
        encoded = encode_json(self.wire())
        if len(encoded) <= _CACHED_JSON:
            self._json = encoded
            return encoded
        shared = LongText(encoded)
        self._long = ref(shared)
        return shared
