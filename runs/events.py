"""The events of a run and their JSON.

The grammar: `run` first, then `status`; content events; an end for every start; then exactly one of `complete`,
`stopped` and `error`, as the last event. Texts are increments, never cumulative. `tests/grammar.py` checks it.

The wire's `type` is the class name in snake_case.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from weakref import ref

from runs.errors import Code
from runs.json_text import SharedText, SharedTexts, encode_json, json_texts, text_bytes

Phase = Literal[
    "queued", "waiting", "thinking", "streaming", "tool", "approval", "stalled", "complete", "stopped", "error"
]
StopReason = Literal["user", "abandoned", "shutdown", "limit"]
QUESTION = "question"
"""The name of a call that is a question of an agent or a tool."""
JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """The first event: the run's conversation, backend and memory mode. `backend` is the requested one."""

    conversation_id: str
    backend: str
    memory: str
    model: str | None = None
    """The model, where the backend offers a choice."""


@dataclass(frozen=True, slots=True)
class Status:
    """A new phase, or news about the phase; `content` is a sentence for people.

    `tool_call_id` names a call that was approved, `edited` the input that replaces the model's. `backend` and `model`
    name the backend that answers from here on, if it is another one than before.
    """

    phase: Phase
    content: str
    tool_call_id: str | None = None
    edited: Any = None
    backend: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The model's input before each call: `messages` of {role, content, tokens, part, why}, `left_out` with a `reason`.

    `tokens` is the size of the input, `limit` its maximum, both in the backend's tokens. `part` names the section of
    the context: system, summary, recalled, recent, message, or calls (this turn's tool calls with their results);
    `why` explains why an older message is included.
    In a log a message may be `{same_as: index}` instead: see `runs/contexts.py`.
    """

    messages: list[JSON]
    left_out: list[JSON]
    tokens: int
    limit: int
    estimated: bool = False
    parts: JSON | None = None
    """Tokens by section. Their sum is `tokens`.

    Two sections have no message: `tools` is the definitions of the tools, `format` what the chat template adds once.
    """
    note: str | None = None
    """A remark for people."""
    tools: list[JSON] | None = None
    """The descriptions of the offered tools: {name, content, tokens}."""
    memory_limit: int | None = None
    """The memory mode's own limit of the input, where it is below `limit`. It bounds the earlier turns only."""
    turns: list[JSON] | None = None
    """The earlier turns, oldest first, as {state, count}: `count` neighbouring turns are kept, recalled, summarised or
    left_out.
    """
    thinking: bool | None = None
    """The switch of the model's thinking, if it is used."""


@dataclass(frozen=True, slots=True)
class ModelStart:
    """A model call begins."""

    id: str
    parent_id: str | None
    name: str


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """A model call ended.

    `usage` is {input_tokens, output_tokens}, with `estimated` where the provider did not report both; None for an
    unfinished call.
    """

    id: str
    usage: JSON | None
    duration_s: float
    error: str | None = None
    cut: bool | None = None
    """Whether it ended at the maximum length, the provider's or the requested one."""
    timings: JSON | None = None
    """{prompt_s, prompt_tokens, cached_tokens, generated_s, generated_tokens}, each where it is known.

    `generated_s` is the time of writing, in seconds: thinking, text and arguments of tool calls.
    """
    request: JSON | None = None
    """The request as it was sent, without headers, with references to the context (`runs/recorded_requests.py`)."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A chunk of the model's visible thinking.

    With `retracts` all `token`s since the latest `model_start` were thinking, and are not part of the reply; `content`
    is that whole thought.
    """

    content: str
    retracts: bool | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A chunk of the reply; `total_tokens` counts the run's output tokens up to and including it, and only grows."""

    content: str
    total_tokens: int
    logprobs: list[JSON] | None = None
    """{token, logprob, top: [[token, logprob], …], bytes} for each of the model's tokens, where the request asked.

    `bytes` is there only for a token that is a part of a character. Text held back before belongs to the next event.
    """
    begins: bool | None = None
    """Whether it is the text with which a continued reply begins, which the model did not write in this run."""


@dataclass(frozen=True, slots=True)
class ChainStart:
    """A step of the agent begins; `input` holds only what is new to the run."""

    name: str
    id: str
    parent_id: str | None
    input: Any
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """A step of the agent ended; `output` holds only what is new to the run."""

    id: str
    output: Any
    error: str | None = None
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolInput:
    """A chunk of a tool call's arguments while the model writes them, for display only."""

    tool: str
    tool_call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ToolStart:
    """A tool call begins; `parent_id` is its step."""

    tool: str
    tool_call_id: str
    input: Any
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """A partial result of a running tool call."""

    tool: str
    tool_call_id: str
    chunk: str


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """A tool call ended; `error` says why it failed, or that it was cancelled."""

    tool: str
    tool_call_id: str
    output: str
    duration_s: float
    error: str | None = None
    attachments: list[JSON] | None = None
    """What the result has for people besides its text: {kind, title, text}, or an image as {kind, title, type, data}.

    The kinds are log, resource, data and image; `data` is base64, of the type `type`.
    """


@dataclass(frozen=True, slots=True)
class Approval:
    """The run waits for a person's approval of this call, or for the answer to a question."""

    tool: str
    tool_call_id: str
    input: Any

    @property
    def is_question(self) -> bool:
        """True for a question of an agent or a tool: its input has an `answer`, a text or the values of its `form`."""
        return (
            self.tool == QUESTION and isinstance(self.input, dict) and isinstance(self.input.get("answer"), str | dict)
        )


@dataclass(frozen=True, slots=True)
class State:
    """A digest of the derived state, for clients that do not fold events; the fold ignores it."""

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
    """The reply is complete. `content` is all `token` contents joined, without retracted ones."""

    content: str
    usage: JSON
    timing: JSON
    status: Literal["complete"] = "complete"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was stopped; `content` is the reply so far."""

    content: str
    reason: StopReason
    usage: JSON
    timing: JSON


@dataclass(frozen=True, slots=True)
class Error:
    """The run failed; `content` is the reply so far, `message` says what to do."""

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
    *("tools", "backend", "model", "timings", "memory_limit", "turns", "logprobs", "begins", "thinking", "request"),
    "attachments",
}
"""Fields that are omitted where they are None."""


def _leaves(union: object) -> Iterator[type[Any]]:
    for member in get_args(union):
        yield from [member] if isinstance(member, type) else _leaves(member)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


WIRE_TYPES: dict[type[Any], str] = {kind: _snake(kind.__name__) for kind in _leaves(Event)}
"""The wire's type of each event, such as `chain_start` of `ChainStart`."""
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in WIRE_TYPES}
_CACHED_JSON = 32_768
"""Characters of the longest JSON that is cached with its entry; a longer one is encoded again for each reader."""
_LONG_CONTEXT = 1000
"""Messages of the longest context that is encoded as a whole."""
_FIXED_BYTES = 300
"""Memory of an event and its entry without its texts."""


def memory_bytes(event: Event) -> int:
    """An estimate of the memory of an event with its cached JSON, by the length of its texts."""
    size = sum(text_bytes(getattr(event, name)) for name in _FIELDS[type(event)])
    return _FIXED_BYTES + size + min(size, _CACHED_JSON)


@dataclass(slots=True)
class Entry:
    """An event of a run's log with its sequence number (from 1, no gaps) and time (`at`, epoch seconds)."""

    seq: int
    run_id: str
    at: float
    event: Event
    _json: str | None = field(default=None, repr=False, compare=False)
    _shared: "ref[SharedText | SharedTexts] | None" = field(default=None, repr=False, compare=False)

    @property
    def type(self) -> str:
        """The wire's type of the event."""
        return WIRE_TYPES[type(self.event)]

    @property
    def timestamp(self) -> str:
        """The time in ISO 8601, UTC, with milliseconds."""
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def wire(self) -> JSON:
        """The event as every transport sends it."""
        body: JSON = {"type": self.type, "seq": self.seq, "run_id": self.run_id, "timestamp": self.timestamp}
        for name in _FIELDS[type(self.event)]:
            value = getattr(self.event, name)
            if value is not None or name not in _OPTIONAL:
                body[name] = value
        return body

    def texts(self) -> Iterable[str]:
        """`json` as a sequence of texts.

        A long context is encoded as it is read, and once for all who read it at the same time.
        """
        context = self.event if isinstance(self.event, Context) else None
        if self._json is not None or not context or len(context.messages) + len(context.left_out) <= _LONG_CONTEXT:
            return (self.json,)
        shared = self._shared() if self._shared else None
        if isinstance(shared, str):
            return (shared,)
        if shared is None:
            shared = SharedTexts(json_texts(self.wire(), 2))
            self._shared = ref(shared)
        return shared

    @property
    def json(self) -> str:
        """`wire()` as one line of JSON, encoded once. A long one is shared only while it is in use."""
        if self._json is not None:
            return self._json
        shared = self._shared() if self._shared else None
        if isinstance(shared, str):
            return shared
        encoded = "".join(shared) if shared else encode_json(self.wire())  # 30 ms for a context of 4 MB: see `texts`
        if len(encoded) <= _CACHED_JSON:
            self._json = encoded
            return encoded
        whole = SharedText(encoded)
        self._shared = ref(whole)
        return whole
