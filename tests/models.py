"""Chat models for tests of the `langchain` kind, named in settings as `tests.models:Talker`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


class Talker(BaseChatModel):
    """Says `text` word by word, then raises `fails` if there is one."""

    text: str = "one two three four five six seven eight nine ten"
    pause: float = 0.002
    fails: Any = None
    usage: Any = None
    finish: Any = None
    """Why it says that it ended, by the name that a class has for that."""
    max_tokens: int = 10
    temperature: float = 0.5
    calls: Any = None
    """A list whose first item is how many streams are open; copies of the model share it."""
    seen: Any = None
    """A list that gets what each call is given: its messages, the longest reply, the temperature."""

    @property
    def _llm_type(self) -> str:
        return "talker"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        calls = [0] if self.calls is None else self.calls
        calls[0] += 1
        if self.seen is not None:
            self.seen.append((messages, self.max_tokens, self.temperature))
        try:
            for word in self.text.split(" ") if self.text else ():
                await asyncio.sleep(self.pause)
                yield ChatGenerationChunk(message=AIMessageChunk(word + " "))
            if self.fails:
                raise self.fails
            if self.usage:
                last = AIMessageChunk("", usage_metadata=self.usage, response_metadata=self.finish or {})
                yield ChatGenerationChunk(message=last)
        finally:
            calls[0] -= 1


class Witness(Talker):
    """Keeps the messages of its calls."""

    received: ClassVar[list[list[BaseMessage]]] = []

    async def _astream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.received.append(messages)
        async for chunk in super()._astream(messages, *args, **kwargs):
            yield chunk


class Caller(Talker):
    """Calls the tools of these names, all at once, and talks when it has their results."""

    names: Any = ()

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> "Caller":
        return self

    async def _astream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        if isinstance(messages[-1], ToolMessage):
            async for chunk in super()._astream(messages, *args, **kwargs):
                yield chunk
            return
        for index, name in enumerate(self.names):
            call = tool_call_chunk(name=name, args='{"question": "when?"}', id=f"call {index}", index=index)
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))


class Leaver(Talker):
    """Ends the process it is made in."""

    def __init__(self, **options: Any) -> None:
        raise SystemExit(3)


class Refuser(Talker):
    """Cannot be made."""

    def __init__(self, **options: Any) -> None:
        raise ValueError(f"no such thing as {options}")


class NoModel:
    """Is no chat model."""
