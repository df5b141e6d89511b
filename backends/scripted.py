"""A deterministic model without weights: the tour of what the page can show, and the fault menu.

It is for demonstrating and testing an interface, and it is labelled as no model. The last message selects the script: a
message that begins with a fault's name gets that fault, `tour` the tour, anything else a short answer that says so.
"""

import asyncio
import itertools
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from backends.base import Backend, BackendError, Health, ModelOptions
from backends.errors import connection_lost
from backends.keys import Key
from runs import events
from runs.errors import ChatError
from settings import BackendSettings

TOUR_THOUGHTS = "The visitor wants to see the page at work. First a heading, then a list, then some code. "

_TOUR_BEGINS = """\
## What you are looking at

This is the **scripted tour**: no model wrote it. It shows what the page does while a model writes:

- the reply grows *as it comes*, and lists and code are drawn while they grow
- the panel tells the phase, the time to the first token and the tokens per second
- tools run at once, and what they find is shown while they run
- **Stop** ends the work itself, not only its display

"""

_TOUR_ENDS = """\
```python
async for chunk in model.astream(messages):
    if chunk.content:
        print(chunk.content, end="", flush=True)
```

| you can | by |
|---|---|
| swap the model | the *Backend* dropdown |
| change what it remembers | the *Memory* dropdown |
| run a tool yourself | typing `/` |

Type `approval` to see a tool that waits for your word, or `faults` to see what can go wrong.
"""

TOUR = _TOUR_BEGINS + _TOUR_ENDS

SHOWS: dict[str, str] = {
    "tools": "three tools at once, one of them slow: see their results arrive on the timeline",
    "approval": "a tool that waits until you allow it",
}
"""What else to type, and what it shows."""

FAULTS: dict[str, str] = {
    "slow": "the first token takes eight seconds",
    "stall": "the reply stops in the middle for twelve seconds, then goes on",
    "hang": "no token ever comes: after 20 seconds that is a time-out",
    "busy": "the provider answers 429 once, and the second attempt is let in",
    "rate limit": "the provider answers 429, for longer than it is worth waiting",
    "wrong key": "the provider answers 401",
    "unreachable": "nobody is at the provider's address, three times",
    "garbage": "the provider sends an unreadable reply",
    "cut": "the connection breaks in the middle of the reply",
    "tool failure": "a tool is called, and fails",
    "endless": "the reply does not end by itself: press Stop, or see it reach the longest reply",
}
"""The fault menu: what to type, and what happens."""

_SHORT = "I am a script, not a model: I cannot answer that. Type `tour` or `faults`, or pick another backend above."
_BUSY_S = 2.0
_NAME = "The scripted provider"


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` of the reply (or of the thinking) after a pause of `wait_s`; or an `error`, or a call of `tool`."""

    text: str = ""
    wait_s: float = 0.02
    thinking: bool = False
    error: Exception | None = None
    tool: str | None = None
    input: events.JSON = field(default_factory=dict)
    """What `tool` is called with."""


@tool
def broken_tool(question: str) -> str:
    """Always fails."""
    raise RuntimeError("the tool's own server answered HTTP 500")


@tool
def careful_tool(text: str) -> str:
    """Says a text, once it is allowed to."""
    return f"It said: {text}"


_CALLS: dict[str | None, tuple[str, list[Piece], str]] = {
    "tour": (
        _TOUR_BEGINS,
        [
            Piece(tool="calculator", input={"expression": "17*23"}),
            Piece(tool="count", input={"upto": 6, "pause_s": 0.3}),
        ],
        _TOUR_ENDS,
    ),
    "tool failure": (
        "I ask a tool. ",
        [Piece(tool=broken_tool.name, input={"question": "Are you there?"})],
        "The tool failed, so I go on without it: that is an observation, not the end.",
    ),
    "tools": (
        "I ask three tools at once. ",
        [
            Piece(tool="calculator", input={"expression": "17*23"}),
            Piece(tool="clock"),
            Piece(tool="count", input={"upto": 8, "pause_s": 0.5}),
        ],
        "All three have answered: click their bars on the timeline to see what.",
    ),
    "approval": (
        "I would like to use a tool. ",
        [Piece(tool=careful_tool.name, input={"text": "Hello"})],
        "You have decided, and I go on with what you said.",
    ),
}
"""What is said before tools are called, the calls, and what is said with their results."""


def asked_for(message: str) -> str | None:
    """What of the two menus a message asks for."""
    asked = message.strip().lower()
    return next((name for name in (*SHOWS, *FAULTS) if asked == name or asked.startswith(name + " ")), None)


def script(
    message: str, *, again: bool = False, observed: bool = False, offered: frozenset[str] = frozenset()
) -> Iterable[Piece]:
    """The pieces that answer a message; may be endless. `again` is a second attempt, `observed` has a tool's result.

    Of the tools, only the `offered` ones are called.
    """
    asked = message.strip().lower()
    wanted = "tour" if asked.startswith("tour") else asked_for(message)
    if wanted in _CALLS:
        before, calls, after = _CALLS[wanted]
        begin = [*_words(TOUR_THOUGHTS if wanted == "tour" else "", thinking=True), *_words(before)]
        calls = [piece for piece in calls if piece.tool in offered]
        return _words(after) if observed else [*begin, *(calls or _words(after))]
    match wanted:
        case "slow":
            return [Piece("Here ", wait_s=8.0), *_words("is the first token, eight seconds later.")]
        case "stall":
            return [*_words("This reply stops here, "), Piece("and ", wait_s=12.0), *_words("goes on again.")]
        case "hang":
            return [Piece("never", wait_s=1e9)]
        case "busy" if not again:
            return [Piece(error=_limited(_BUSY_S))]
        case "busy":
            return _words("The first attempt was refused; this is the second. The panel told you so meanwhile.")
        case "rate limit":
            return [Piece(error=_limited(60))]
        case "wrong key":
            return [Piece(error=ChatError("authentication", f"{_NAME} rejected the key: pick another backend."))]
        case "unreachable":
            return [Piece(error=ConnectionRefusedError())]
        case "garbage":
            return [Piece(error=json.JSONDecodeError("no JSON", "<html>", 0))]
        case "cut":
            return [*_words("This reply breaks off in the middle of a "), Piece(error=connection_lost(_NAME))]
        case "endless":
            return (Piece(f"{number} ") for number in itertools.count(1))
    if asked.startswith("fault"):
        lines = "\n".join(f"- `{name}`: {what}" for name, what in FAULTS.items())
        return _words(f"Type one of these:\n\n{lines}\n")
    return _words(_SHORT)


def _limited(seconds: float) -> ChatError:
    message = f"{_NAME} has too many requests: wait {seconds:.0f} s, then try again."
    return ChatError("rate_limited", message, retryable=True, retry_after=seconds)


def _words(text: str, *, thinking: bool = False) -> list[Piece]:
    return [Piece(word, thinking=thinking) for word in re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", text)]


class ScriptedChat(BaseChatModel):
    """The script as a LangChain chat model."""

    model: str = "script"
    """What traces call it."""
    speed: float = 1.0
    """Pauses are divided by this."""
    asked: deque[str] = Field(default_factory=lambda: deque(maxlen=1000), exclude=True)
    """Ids of the latest messages, shared by copies: one that comes again is a second attempt."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Takes any tools; which one it calls, the script says."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Without the pauses, and not without end."""
        pieces = itertools.islice(self._script(messages, stop, **kwargs), 1001)
        return generate_from_stream(ChatGenerationChunk(message=_chunk(piece)) for piece in pieces)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self._script(messages, stop, **kwargs):
            time.sleep(piece.wait_s / self.speed)
            chunk = ChatGenerationChunk(message=_chunk(piece))
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for piece in self._script(messages, stop, **kwargs):
            await asyncio.sleep(piece.wait_s / self.speed)
            chunk = ChatGenerationChunk(message=_chunk(piece))
            if run_manager:
                await run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    def _script(
        self, messages: list[BaseMessage], stop: list[str] | None, tools: Sequence[events.JSON] = (), **kwargs: Any
    ) -> Iterable[Piece]:
        asked = next((m for m in reversed(messages) if isinstance(m, HumanMessage)), HumanMessage(""))
        again = asked.id in self.asked
        if asked.id:
            self.asked.append(asked.id)
        offered = frozenset(one["function"]["name"] for one in tools)
        pieces = script(asked.text, again=again, observed=isinstance(messages[-1], ToolMessage), offered=offered)
        return _stopped(pieces, stop) if stop else pieces


def _stopped(pieces: Iterable[Piece], stop: list[str]) -> Iterator[Piece]:
    """The pieces until one of the `stop` words; what may be the beginning of one is held back."""
    most, held = max(map(len, stop)) - 1, ""
    for piece in pieces:
        if piece.thinking or piece.tool or piece.error:
            yield from [Piece(held, wait_s=0), piece]
            held = ""
            continue
        held += piece.text
        if found := [held.index(word) for word in stop if word in held]:
            yield replace(piece, text=held[: min(found)])
            return
        sure = max(0, len(held) - most)
        yield replace(piece, text=held[:sure])
        held = held[sure:]
    yield Piece(held, wait_s=0)


def _chunk(piece: Piece) -> AIMessageChunk:
    if piece.error:
        raise piece.error
    if piece.tool:
        arguments, call_id = json.dumps(piece.input), uuid4().hex
        call = tool_call_chunk(name=piece.tool, args=arguments, id=call_id, index=int(call_id, 16))
        return AIMessageChunk(content="", tool_call_chunks=[call])
    extra = {"reasoning_content": piece.text} if piece.thinking else {}
    return AIMessageChunk(content="" if piece.thinking else piece.text, additional_kwargs=extra)


class ScriptedBackend(Backend):
    kind = "scripted"
    uses = frozenset({"options"})
    is_model = False
    about = "No model: a fixed script that shows what this page can show."
    supported_options = frozenset()
    timeout_s = 20.0
    tools = (broken_tool, careful_tool)
    approval = frozenset({careful_tool.name})

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings)
        speed = settings.options.get("speed", 1.0)
        if settings.options.keys() - {"speed"} or not isinstance(speed, int | float) or not speed > 0:
            raise BackendError(f"options: found {settings.options!r}, allowed: speed, a number above 0")
        self._model = ScriptedChat(speed=speed)
        self.prompts = {"tour": "a tour of what this page can show", **SHOWS, **FAULTS}

    def health(self, key: Key | None = None) -> Health:
        return Health("ready")

    def chat_model(self, options: ModelOptions, key: Key | None = None) -> BaseChatModel:
        return self._model
