"""langchain-openai's chat model for every server that speaks OpenAI's protocol, not only for OpenAI's own.

What others add to the protocol or leave out of it is met here: thinking in a field of its own (`reasoning_content` of
DeepSeek, vLLM and llama.cpp, `reasoning` of Ollama and OpenRouter), a refusal in another, `max_tokens` in place of
`max_completion_tokens`, and a stream that ends without having come to its end.
"""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI

from runs.errors import ChatError

OPENAI = "https://api.openai.com/v1"


def own_clients() -> dict[str, Any]:
    """Arguments for a server on this machine: the default clients would go through a proxy of the environment."""
    return {
        "openai_proxy": None,
        "http_client": openai.DefaultHttpxClient(trust_env=False, verify=False),
        "http_async_client": openai.DefaultAsyncHttpxClient(trust_env=False, verify=False),
    }


class CompatibleChat(ChatOpenAI):
    """`max_tokens` and `temperature` are set on copies of it."""

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
        return payload

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if made and (thought := delta.get("reasoning_content") or delta.get("reasoning")):
                made.message.additional_kwargs["reasoning_content"] = thought
            if made and not made.message.content and (refusal := delta.get("refusal")):
                made.message.content = str(refusal)  # what it says instead of an answer
        return made

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunk, filtered = None, False
        ended = self._use_responses_api({**kwargs, **self.model_kwargs})  # there the SDK itself minds the end
        async with aclosing(super()._astream(messages, stop, run_manager, **kwargs)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                reason = (chunk.generation_info or {}).get("finish_reason")
                ended, filtered = ended or bool(reason), filtered or reason == "content_filter"
                yield chunk
        if filtered:
            raise ChatError("invalid_request", "The provider's filter ended this reply: ask in another way.")
        if chunk is None:
            raise json.JSONDecodeError("not one event of a stream", "", 0)
        if not ended:
            raise httpx.RemoteProtocolError("the stream ended before the reply did")
