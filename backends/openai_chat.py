"""langchain-openai's chat model for every server that speaks OpenAI's protocol.

It handles what other servers add or omit: thinking in its own field (`reasoning_content` of DeepSeek, vLLM and
llama.cpp, `reasoning` of Ollama and OpenRouter), refusals, `max_tokens` instead of `max_completion_tokens`, and streams
that end too early.
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
from backends.openai_request import REASONING, SIGNATURES, apply_shape, call_signatures, thinking_fields
from backends.reply_reader import payloads, read_reply
from backends.request_shape import RequestShape
from backends.sse_reader import StreamedError
from backends.thinking_blocks import THINKING_BLOCKS, fragments_of
from runs.errors import ChatError

OPENAI = "https://api.openai.com/v1"


def local_clients() -> dict[str, Any]:
    """Returns client arguments for a server on this machine; the defaults would use a proxy of the environment."""
    return {
        "openai_proxy": None,
        "http_client": openai.DefaultHttpxClient(trust_env=False, verify=False),
        "http_async_client": openai.DefaultAsyncHttpxClient(trust_env=False, verify=False),
    }


def unknown_options(options: Mapping[str, Any]) -> list[str]:
    """Returns the options that neither LangChain nor the SDK knows; every request with them would fail."""
    fields = CompatibleChat.model_fields
    known = {*fields, *(about.alias for about in fields.values())}
    return sorted(options.keys() - known - inspect.signature(AsyncCompletions.create).parameters.keys())


class _Stream:
    """The response to a streamed request, with the interface that langchain-openai expects of the SDK's."""

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
        await dispatch(RESPONSE_STARTED, {})  # not in __aenter__: a cancel there would leave the request open
        try:
            async for chunk in self._chunks:
                yield chunk
        except StreamedError as e:
            raise openai.APIError(str(e), request=self._request, body=e.body) from e


class _Completions:
    """The SDK's chat completions with our own reader for streams, since the SDK reads OpenAI's dialect only."""

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
    """LangChain's chat model for OpenAI-compatible servers; `max_tokens` and `temperature` are set on copies of it."""

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
        """Returns False: it would be stored under langchain-openai's name and loaded as another class."""
        return False

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        if self.openai_api_base != OPENAI and "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        return apply_shape(payload, self._convert_input(input_).to_messages(), self._shape)

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if made and (fields := thinking_fields(delta)):
                made.message.additional_kwargs[REASONING] = fields
            if made and (signatures := call_signatures(delta)):
                made.message.additional_kwargs[SIGNATURES] = signatures
            if made and (fragments := fragments_of(delta)):
                made.message.additional_kwargs[THINKING_BLOCKS] = fragments
            if made and (thinking := delta.get("reasoning_content") or delta.get("reasoning")):
                made.message.additional_kwargs["reasoning_content"] = thinking
            if made and not made.message.content and (refusal := delta.get("refusal")):
                made.message.content = str(refusal)
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
        async with aclosing(source) as raw, aclosing(with_complete_calls(raw)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                reason = str((chunk.generation_info or {}).get("finish_reason") or reason)
                yield chunk
        if reason == "content_filter":
            raise ChatError("invalid_request", "The provider's content filter ended this reply: rephrase the message.")
        if chunk is None:
            raise json.JSONDecodeError("a stream without events", "", 0)
        if reason == "error":  # OpenRouter's reason if the provider behind it fails
            raise ChatError("backend_unavailable", "The provider failed at this reply: try again.", retryable=True)


async def with_complete_calls(chunks: AsyncIterator[ChatGenerationChunk]) -> AsyncGenerator[ChatGenerationChunk, None]:
    """Yields the chunks, with all tool calls in the last one; deltas of their arguments become events at once.

    Arguments that are cut, or not an object, become a JSON string, which LangChain treats as an invalid call; it would
    complete cut ones by a guess. Raises JSONDecodeError for a chunk that LangChain or the SDK cannot read.
    """
    merged = AIMessageChunk(content="")
    try:
        async for chunk in chunks:
            for delta in (chunk.generation_info or {}).pop(TOOL_INPUT, ()):
                await dispatch_tool_input(delta)
            if isinstance(chunk.message, AIMessageChunk) and chunk.message.tool_call_chunks:
                merged += AIMessageChunk(content="", tool_call_chunks=chunk.message.tool_call_chunks)
                chunk.message.tool_call_chunks, chunk.message.tool_calls, chunk.message.invalid_tool_calls = [], [], []
            yield chunk
    except (TypeError, AttributeError, LookupError, ValidationError) as e:
        raise json.JSONDecodeError(f"a chunk of an unknown shape: {type(e).__name__}", "", 0) from e
    if calls := merged.tool_call_chunks:
        complete = [ToolCallChunk(**{**call, "args": _valid_arguments(call["args"] or "{}")}) for call in calls]
        last = AIMessageChunk(content="", tool_call_chunks=complete)
        yield ChatGenerationChunk(message=last, generation_info={COMPLETE_TOOL_CALLS: True})


def _valid_arguments(arguments: str) -> str:
    """The arguments, as a JSON string if they are not an object."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else json.dumps(arguments)
    except ValueError:
        return json.dumps(arguments)
