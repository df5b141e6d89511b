"""The chat model of a local model's process.

The server speaks OpenAI's protocol, with llama.cpp's extensions: the progress of reading the prompt, and thinking.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import SecretStr

from backends.chat_template import THINK, THINK_END
from backends.llama_stream import stream_chunks
from backends.model_events import PROGRESS, dispatch
from backends.openai_chat import CompatibleChat, local_clients, with_complete_calls
from backends.reply_reader import read_reply
from backends.slot_cache import SlotCache


class LocalChat(CompatibleChat):
    """LangChain's chat model for llama.cpp's server, with its progress as a custom event."""

    opens_thinking: bool = False
    """True if the template opens each reply's thinking; llama.cpp may then omit the opening tag."""
    continues: bool = False
    """True if the last message is the beginning of the reply; llama.cpp puts it behind what the template opens."""
    slot_cache: Any = None
    """The SlotCache of the process."""
    conversation: str | None = None
    """The id of the conversation that is read."""

    @property
    def _llm_type(self) -> str:
        return "llama.cpp"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params: LangSmithParams = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "llama.cpp"
        return params

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if made is None:
            return None
        if progress := chunk.get("prompt_progress"):
            made.generation_info = {**(made.generation_info or {}), PROGRESS: progress}
        return made

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        chunks = super()._stream(*args, **kwargs)
        return (chunk for chunk in chunks if chunk.text or not (chunk.generation_info or {}).get(PROGRESS))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if "response_format" in kwargs:  # the SDK handles structured output
            source = super()._astream(messages, stop, run_manager, **kwargs)
        else:
            source = self._raw_chunks(messages, stop, **kwargs)
        async with aclosing(source) as raw, aclosing(with_complete_calls(raw)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                progress = (chunk.generation_info or {}).get(PROGRESS)
                if progress:
                    await dispatch(PROGRESS, {"read": progress["processed"], "total": progress["total"]})
                if not progress or chunk.text:  # the chunk may also have the template's opening tag
                    yield chunk

    async def read(self, messages: list[BaseMessage], slot: int) -> None:
        """Reads messages into the cache of a slot."""
        payload = self._get_request_payload(messages, stream=True)
        extra = payload.pop("extra_body", {})
        body = {**payload, **extra, "id_slot": slot, "max_tokens": 1}
        async with aclosing(stream_chunks(str(self.openai_api_base), self._key(), body)) as chunks:
            async for _ in chunks:
                pass

    async def _raw_chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        arguments = kwargs | {"stream": True, "stream_options": {"include_usage": True}}
        payload = self._get_request_payload(messages, stop=stop, **arguments)
        extra, opened = payload.pop("extra_body", {}), self.continues or not self.opens_thinking
        if self.continues and self.opens_thinking:
            payload["messages"][-1]["content"] = _within_thinking(payload["messages"][-1]["content"])
        tools = {tool["function"]["name"] for tool in payload.get("tools") or ()}
        async with self.slot_cache.lend(self.conversation) as slot:
            body = {**payload, **extra, "id_slot": slot}
            source = stream_chunks(str(self.openai_api_base), self._key(), body)
            async with aclosing(read_reply(source, tools)) as chunks:
                async for chunk in chunks:
                    made = self._made(chunk, opened)
                    if made is not None:
                        opened = opened or bool(made.text)
                        yield made

    def _made(self, chunk: dict[str, Any], opened: bool) -> ChatGenerationChunk | None:
        """The chunk in LangChain's form; the first text gets the tag that opens the thinking, unless it is `opened`."""
        made = self._convert_chunk_to_generation_chunk(chunk, AIMessageChunk, {})
        if made is None or opened or not made.text or made.text.lstrip().startswith(THINK):
            return made
        return ChatGenerationChunk(message=AIMessageChunk(content=THINK + made.text, id=made.message.id))

    def _key(self) -> str:
        key = self.openai_api_key
        return key.get_secret_value() if isinstance(key, SecretStr) else str(key() if callable(key) else "")


def _within_thinking(beginning: str) -> str:
    """The beginning of a reply behind an opening tag: its thought follows the tag, or the tag is closed first."""
    if beginning.startswith(THINK):
        return beginning.removeprefix(THINK).lstrip("\n")
    return f"\n{THINK_END}\n\n{beginning}"


def local_chat(address: str, key: str, cache: SlotCache) -> LocalChat:
    """Creates the chat model of a process; the options of a turn are set on copies of it."""
    return LocalChat(
        slot_cache=cache,
        model="local",
        base_url=f"{address}/v1",
        api_key=lambda: key,
        stream_usage=True,
        max_retries=0,
        # langchain-openai's own timeout loses cancels on Python 3.11: the model would run on
        stream_chunk_timeout=None,
        extra_body={"return_progress": True},
        **local_clients(),
    )
