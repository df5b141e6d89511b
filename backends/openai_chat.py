"""langchain-openai's chat model for every server that speaks OpenAI's protocol, not only for OpenAI's own.

What others add to the protocol or leave out of it is met here: thinking in a field of its own (`reasoning_content` of
DeepSeek, vLLM and llama.cpp, `reasoning` of Ollama and OpenRouter), a refusal in another, `max_tokens` in place of
`max_completion_tokens`, and a stream that ends without having come to its end.
"""

import inspect
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from typing import Any, Self

import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from openai.resources.chat.completions import AsyncCompletions
from pydantic import PrivateAttr, ValidationError, model_validator

from backends.activity import report_activity
from backends.model_events import (
    COMPLETE_TOOL_CALLS,
    RESPONSE_STARTED,
    TIMINGS,
    TOOL_INPUT,
    dispatch,
    dispatch_tool_input,
)
from backends.openai_request import REASONING, SIGNATURES, RequestShape, shaped, signatures_of, thinking_of
from backends.reply_reader import payloads, read_reply
from backends.sse_reader import StreamedError
from backends.thinking_blocks import THINKING_BLOCKS, fragments_of
from runs.errors import ChatError

OPENAI = "https://api.openai.com/v1"


def own_clients() -> dict[str, Any]:
    """Arguments for a server on this machine: the default clients would go through a proxy of the environment."""
    return {
        "openai_proxy": None,
        "http_client": openai.DefaultHttpxClient(trust_env=False, verify=False),
        "http_async_client": openai.DefaultAsyncHttpxClient(trust_env=False, verify=False),
    }


def unknown_options(options: Mapping[str, Any]) -> list[str]:
    """Those that are neither LangChain's nor the SDK's: each call would fail at them."""
    fields = CompatibleChat.model_fields
    known = {*fields, *(about.alias for about in fields.values())}
    return sorted(options.keys() - known - inspect.signature(AsyncCompletions.create).parameters.keys())


class _Stream:
    """The answer to one streamed request, in the shape in which langchain-openai takes the SDK's."""

    def __init__(self, opening: Any, tools: Collection[str]) -> None:
        """`opening` is the SDK's context manager, which sends the request."""
        self._opening, self._tools = opening, tools
        self._chunks: AsyncGenerator[dict[str, Any], None] | None = None

    async def __aenter__(self) -> "_Stream":
        response = await self._opening.__aenter__()
        report_activity()
        self._chunks = read_reply(payloads(response.iter_bytes()), self._tools)
        self._request = response.http_request
        return self

    async def __aexit__(self, *about: Any) -> None:
        try:
            if self._chunks:
                await self._chunks.aclose()
        finally:
            await self._opening.__aexit__(*about)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        assert self._chunks is not None
        await dispatch(RESPONSE_STARTED, {})  # not where the request is opened: a cancel there would leave it open
        try:
            async for chunk in self._chunks:
                yield chunk
        except StreamedError as e:
            raise openai.APIError(str(e), request=self._request, body=e.body) from e


class _Completions:
    """The SDK's chat completions, whose streams we read ourselves: the SDK knows only OpenAI's own."""

    def __init__(self, sdk: AsyncCompletions) -> None:
        self._sdk = sdk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sdk, name)

    async def create(self, **payload: Any) -> Any:
        if not payload.get("stream"):
            return await self._sdk.create(**payload)
        tools = {str((tool.get("function") or {}).get("name")) for tool in payload.get("tools") or ()}
        return _Stream(self._sdk.with_streaming_response.create(**payload), tools)


class CompatibleChat(ChatOpenAI):
    """`max_tokens` and `temperature` are set on copies of it."""

    _shape: RequestShape = PrivateAttr(default_factory=RequestShape)

    @model_validator(mode="after")
    def _read_streams(self) -> Self:
        self.async_client = _Completions(self.async_client)
        return self

    @property
    def _llm_type(self) -> str:
        return "openai-compatible"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """It would be stored under langchain-openai's name, and be no such class when it is loaded."""
        return False

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        if self.openai_api_base != OPENAI and "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        return shaped(payload, self._convert_input(input_).to_messages(), self._shape)

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if made and (thinking := thinking_of(delta)):
                made.message.additional_kwargs[REASONING] = thinking
            if made and (signatures := signatures_of(delta)):
                made.message.additional_kwargs[SIGNATURES] = signatures
            if made and (fragments := fragments_of(delta)):
                made.message.additional_kwargs[THINKING_BLOCKS] = fragments
            if made and (thought := delta.get("reasoning_content") or delta.get("reasoning")):
                made.message.additional_kwargs["reasoning_content"] = thought
            if made and not made.message.content and (refusal := delta.get("refusal")):
                made.message.content = str(refusal)  # what it says instead of an answer
        ours = {name: chunk[name] for name in (TOOL_INPUT, TIMINGS) if chunk.get(name)}
        if made and ours:
            made.generation_info = {**(made.generation_info or {}), **ours}
        return made

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunk, reason = None, ""
        source = super()._astream(messages, stop, run_manager, **kwargs)
        async with aclosing(source) as pieces, aclosing(readable(pieces)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                reason = str((chunk.generation_info or {}).get("finish_reason") or reason)
                yield chunk
        if reason == "content_filter":
            raise ChatError("invalid_request", "The provider's filter ended this reply: ask in another way.")
        if chunk is None:
            raise json.JSONDecodeError("not one event of a stream", "", 0)
        if reason == "error":  # as OpenRouter says that who it asked has failed
            raise ChatError("backend_unavailable", "The provider failed at this reply: try again.", retryable=True)


async def readable(chunks: AsyncIterator[ChatGenerationChunk]) -> AsyncGenerator[ChatGenerationChunk, None]:
    """The chunks, with all tool calls in a last one; what came of their arguments is told as it comes.

    Arguments that are cut, or are no object, become a text: LangChain would guess what a cut one means, and the tool
    would be called with that; this it takes for an invalid call. What LangChain and the SDK raise over a chunk of
    another shape is a reply that cannot be read.
    """
    merged = AIMessageChunk(content="")
    try:
        async for chunk in chunks:
            for piece in (chunk.generation_info or {}).pop(TOOL_INPUT, ()):
                await dispatch_tool_input(piece)
            if isinstance(chunk.message, AIMessageChunk) and chunk.message.tool_call_chunks:
                merged += AIMessageChunk(content="", tool_call_chunks=chunk.message.tool_call_chunks)
                chunk.message.tool_call_chunks, chunk.message.tool_calls, chunk.message.invalid_tool_calls = [], [], []
            yield chunk
    except (TypeError, AttributeError, LookupError, ValidationError) as e:
        raise json.JSONDecodeError(f"not of the protocol's shape: {type(e).__name__}", "", 0) from e
    if calls := merged.tool_call_chunks:
        whole = [ToolCallChunk(**{**call, "args": _sound(call["args"] or "{}")}) for call in calls]
        last = AIMessageChunk(content="", tool_call_chunks=whole)
        yield ChatGenerationChunk(message=last, generation_info={COMPLETE_TOOL_CALLS: True})


def _sound(arguments: str) -> str:
    try:
        return arguments if isinstance(json.loads(arguments), dict) else json.dumps(arguments)
    except ValueError:
        return json.dumps(arguments)
