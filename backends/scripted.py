"""A deterministic model without weights: the tour of what the page can show, and the fault menu.

It is for demonstrating and testing an interface, and it is labelled as no model. The last message selects the script: a
message that begins with a fault's name gets that fault, `tour` the tour, anything else a short answer that says so.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from backends.base import Backend, BackendError, Health, Options
from runs.errors import ChatError
from settings import BackendSettings

TOUR_THOUGHTS = "The visitor wants to see the page at work. First a heading, then a list, then some code. "

TOUR = """\
## What you are looking at

This is the **scripted tour**: no model wrote it. It shows what the page does while a model writes:

- the reply grows *as it comes*, and lists and code are drawn while they grow
- the panel tells the phase, the time to the first token and the tokens per second
- **Stop** ends the work itself, not only its display

```python
async for chunk in model.astream(messages):
    if chunk.content:
        print(chunk.content, end="", flush=True)
```

| you can | by |
|---|---|
| swap the model | the *Backend* dropdown |
| change what it remembers | the *Memory* dropdown |

Type `faults` to see what can go wrong, and how the page tells you.
"""

FAULTS: dict[str, str] = {
    "slow": "the first token takes eight seconds",
    "stall": "the reply stops in the middle for twelve seconds, then goes on",
    "cut": "the connection breaks in the middle of the reply",
    "rate limit": "the provider answers 429",
    "wrong key": "the provider answers 401",
    "endless": "the reply does not end: press Stop",
}
"""The fault menu: what to type, and what happens."""

_SHORT = "I am a script, not a model: I cannot answer that. Type `tour` or `faults`, or pick another backend above."


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` of the reply (or of the thinking) after a pause of `wait_s`; or an `error` instead."""

    text: str = ""
    wait_s: float = 0.02
    thinking: bool = False
    error: ChatError | None = None


def script(message: str) -> Iterable[Piece]:
    """The pieces that answer a message; may be endless."""
    asked = message.strip().lower()
    fault = next((name for name in FAULTS if asked == name or asked.startswith(name + " ")), None)
    match fault:
        case "slow":
            return [Piece("Here ", wait_s=8.0), *_words("is the first token, eight seconds later.")]
        case "stall":
            return [*_words("This reply stops here, "), Piece("and ", wait_s=12.0), *_words("goes on again.")]
        case "cut":
            return [*_words("This reply breaks off in the middle of a "), Piece(error=_CUT)]
        case "rate limit":
            return [Piece(error=_RATE_LIMITED)]
        case "wrong key":
            return [Piece(error=_WRONG_KEY)]
        case "endless":
            return _endless()
    if asked.startswith("tour"):
        return [*_words(TOUR_THOUGHTS, thinking=True), *_words(TOUR)]
    if asked.startswith("fault"):
        lines = "\n".join(f"- `{name}`: {what}" for name, what in FAULTS.items())
        return _words(f"Type one of these:\n\n{lines}\n")
    return _words(_SHORT)


_CUT = ChatError("backend_unavailable", "The connection broke in mid-reply: press Retry.", retryable=True)
_RATE_LIMITED = ChatError(
    "rate_limited", "Too many requests: wait half a minute, then try again.", retryable=True, retry_after=30
)
_WRONG_KEY = ChatError("authentication", "The provider refused the key: check it, or pick another backend.")


def _words(text: str, *, thinking: bool = False) -> list[Piece]:
    return [Piece(word, thinking=thinking) for word in re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", text)]


def _endless() -> Iterable[Piece]:
    number = 0
    while True:
        number += 1
        yield Piece(f"{number} ")


class ScriptedChat(BaseChatModel):
    """The script as a LangChain chat model."""

    speed: float = 1.0
    """Pauses are divided by this."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> "ScriptedChat":
        """Takes tools and chooses none."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        text: list[str] = []
        for piece in script(messages[-1].text):
            if piece.error:
                raise piece.error
            if not piece.thinking:
                text.append(piece.text)
            if len(text) > 1000:
                break
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(text)))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for piece in script(messages[-1].text):
            await asyncio.sleep(piece.wait_s / self.speed)
            if piece.error:
                raise piece.error
            extra = {"reasoning_content": piece.text} if piece.thinking else {}
            message = AIMessageChunk(content="" if piece.thinking else piece.text, additional_kwargs=extra)
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                await run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk


class ScriptedBackend(Backend):
    kind = "scripted"
    uses = frozenset({"options"})
    is_model = False
    about = "No model: a fixed script that shows what this page can show. Type tour or faults."

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        speed = settings.options.get("speed", 1.0)
        if settings.options.keys() - {"speed"} or not isinstance(speed, int | float) or not speed > 0:
            raise BackendError(f"options: found {settings.options!r}, allowed: speed, a number above 0")
        self._model = ScriptedChat(speed=speed)

    @property
    def health(self) -> Health:
        return Health("ready")

    def chat_model(self, options: Options) -> BaseChatModel:
        return self._model
