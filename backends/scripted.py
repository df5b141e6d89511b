"""The kind `scripted`: fixed replies without a model, for demonstrations and tests.

The last message selects the script: the name of a fault produces that fault, `tour` the tour of the page, and anything
else a short reply that says that this is no model.
"""

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from backends.base import Backend, BackendError, Health, ModelOptions
from backends.keys import Key
from backends.script import FAULTS, SHOWS, Step, broken_tool, careful_tool, script
from runs import events
from settings import BackendSettings


class ScriptedChat(BaseChatModel):
    """The script as a LangChain chat model."""

    model: str = "script"
    """The model's name in traces."""
    speed: float = 1.0
    """The divisor of all pauses."""
    seen: deque[str] = Field(default_factory=lambda: deque(maxlen=1000), exclude=True)
    """The ids of the latest messages, shared by copies: a repeated id is a second attempt."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Binds the tools; the script decides which ones it calls."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Generates the reply without pauses, at most 1,001 steps."""
        steps = itertools.islice(self._script(messages, stop, **kwargs), 1001)
        return generate_from_stream(ChatGenerationChunk(message=_chunk(step)) for step in steps)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for step in self._script(messages, stop, **kwargs):
            time.sleep(step.wait_s / self.speed)
            chunk = ChatGenerationChunk(message=_chunk(step))
            if run_manager:
                run_manager.on_llm_new_token(step.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for step in self._script(messages, stop, **kwargs):
            await asyncio.sleep(step.wait_s / self.speed)
            chunk = ChatGenerationChunk(message=_chunk(step))
            if run_manager:
                await run_manager.on_llm_new_token(step.text, chunk=chunk)
            yield chunk

    def _script(
        self, messages: list[BaseMessage], stop: list[str] | None, tools: Sequence[events.JSON] = (), **kwargs: Any
    ) -> Iterable[Step]:
        message = next((m for m in reversed(messages) if isinstance(m, HumanMessage)), HumanMessage(""))
        retry = message.id in self.seen
        if message.id:
            self.seen.append(message.id)
        names = frozenset(one["function"]["name"] for one in tools)
        steps = script(message.text, retry=retry, has_result=isinstance(messages[-1], ToolMessage), tools=names)
        return _until(stop, steps) if stop else steps


def _until(stop: list[str], steps: Iterable[Step]) -> Iterator[Step]:
    """The steps until one of the `stop` words; the possible beginning of one is held back."""
    most, held = max(map(len, stop)) - 1, ""
    for step in steps:
        if step.thinking or step.tool or step.error:
            yield from [Step(held, wait_s=0), step]
            held = ""
            continue
        held += step.text
        if found := [held.index(word) for word in stop if word in held]:
            yield replace(step, text=held[: min(found)])
            return
        sure = max(0, len(held) - most)
        yield replace(step, text=held[:sure])
        held = held[sure:]
    yield Step(held, wait_s=0)


def _chunk(step: Step) -> AIMessageChunk:
    if step.error:
        raise step.error
    if step.tool:
        arguments, call_id = json.dumps(step.input), uuid4().hex
        call = tool_call_chunk(name=step.tool, args=arguments, id=call_id, index=int(call_id, 16))
        return AIMessageChunk(content="", tool_call_chunks=[call])
    extra = {"reasoning_content": step.text} if step.thinking else {}
    return AIMessageChunk(content="" if step.thinking else step.text, additional_kwargs=extra)


class ScriptedBackend(Backend):
    """An entry of the kind `scripted`."""

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

    def health(self) -> Health:
        """Returns `ready`."""
        return Health("ready")

    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Returns the script."""
        return self._model
